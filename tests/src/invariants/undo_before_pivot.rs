//! G8 **Undo before the point of no return.** A run that was rolled back has left nothing open and nothing writable on the node
//! that should have got the baton; and what is taken back is taken back in reverse. A switchover leaves the old holder in
//! office, in the same epoch, and where nothing else goes wrong, serving.

use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{NodeId, RunId};
use baton_runbooks::plan::{Runbook, Step};
use baton_runbooks::run::{Event, RunState};

use super::Effect;
use crate::sim::node::Node;

/// Its name.
pub const NAME: &str = "undo_before_pivot";

/// Milliseconds after which the holder of a switchover that was taken back serves: a look of the reconciler's, and a lease.
const SERVES_MS: u64 = 1_500;

/// Effects of the newest run, in the order in which they happened first.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    run: RunId,
    done: Vec<Step>,
    undone: Vec<Step>,
    /// The server did not answer who wanted to take its promotion back.
    gave_up: bool,
    /// Who must serve again, and by when.
    owed: Option<(u64, NodeId)>,
}

impl Effects {
    /// The server of the target does not answer, and the undo does not wait for it any longer.
    pub fn gave_up(&mut self, run: RunId) {
        self.gave_up |= self.run == run;
    }

    /// Who must serve by now.
    pub fn owes(&mut self, at: u64) -> Option<NodeId> {
        self.owed.take_if(|(due, _)| at >= *due).map(|(_, node)| node)
    }

    /// Steps of `run` that were taken back.
    pub fn undone(&self, run: RunId) -> &[Step] {
        if self.run == run { &self.undone } else { &[] }
    }

    /// The cluster was forced: a run that the survivor does not have never was, nor what its journal of it lacks.
    pub fn forced(&mut self, after: &Ledger) {
        self.owed = None;
        match after.run.as_ref().filter(|run| run.id == self.run) {
            None => *self = Self::default(),
            Some(run) => {
                let of = |step: &Step, undo: bool| {
                    run.journal
                        .iter()
                        .any(|entry| entry.step == *step && undo == matches!(entry.event, Event::UndoStarted))
                };
                self.done.retain(|step| of(step, false));
                self.undone.retain(|step| of(step, true));
                self.gave_up &= !self.undone.is_empty();
            }
        }
    }

    /// A hand touched the world.
    pub fn effect(&mut self, effect: &Effect) -> Result<(), String> {
        if self.run != effect.run {
            *self = Self { run: effect.run, owed: self.owed.take(), ..Self::default() };
        }
        let list = if effect.undo { &mut self.undone } else { &mut self.done };
        if !list.contains(&effect.step) {
            list.push(effect.step);
        }
        if !effect.undo || !self.done.contains(&effect.step) {
            return Ok(());
        }
        // The plan's order, not that of the clock: steps side by side may have ended in any order.
        let later = self
            .done
            .iter()
            .find(|step| **step > effect.step && is_undoable(**step) && !self.undone.contains(step));
        match later {
            None => Ok(()),
            Some(later) => Err(format!("{} is undone before {later}", effect.step)),
        }
    }

    /// An entry was committed; `nodes` have its log.
    pub fn committed<'a>(
        &mut self,
        at: u64,
        before: &Ledger,
        after: &Ledger,
        mut nodes: impl Iterator<Item = &'a Node>,
    ) -> Result<(), String> {
        if after.run.is_some() || after.has_released() {
            self.owed = None;
        }
        let ended = after.history.last().filter(|_| before.run.is_some() && after.run.is_none());
        let Some(ended) = ended.filter(|ended| ended.state == RunState::RolledBack) else { return Ok(()) };
        let plan = &ended.run.plan;
        if plan.runbook == Runbook::Switchover {
            if after.holder != plan.from || after.epoch != before.epoch {
                return Err(format!("run {} was rolled back, and its old holder is none", ended.run.id));
            }
            self.owed =
                after.holder.clone().filter(|_| !after.has_released()).map(|old| (at + SERVES_MS, old));
        }
        let target = nodes.find(|node| node.name == plan.to);
        let Some((node, db)) = target.and_then(|node| node.db.as_ref().map(|db| (node, db))) else {
            return Ok(());
        };
        for door in [Door::Vip, Door::Ports] {
            if node.gate.is_open(door, at) {
                return Err(format!(
                    "run {} was rolled back, and {} is open for {door:?}",
                    ended.run.id, node.name
                ));
            }
        }
        // What an earlier epoch of this very node left writable is none of the run's effects.
        let has = |step| self.done.contains(&step);
        let promoted = has(Step::PromoteMysql) || (has(Step::CatchUp) && !self.gave_up);
        if promoted && self.run == ended.run.id && db.up && !db.read_only {
            return Err(format!("run {} was rolled back, and {} is writable", ended.run.id, node.name));
        }
        Ok(())
    }
}

/// Forward steps are taken back by the change of role itself.
const fn is_undoable(step: Step) -> bool {
    match step {
        Step::PrepareTarget
        | Step::DrainHolder
        | Step::CloseHolder
        | Step::CatchUp
        | Step::FenceOld
        | Step::CutStream
        | Step::HoldVip
        | Step::DrainRelayLog
        | Step::PromoteMysql => true,
        Step::OpenPorts | Step::StartIndependent | Step::StartServices | Step::AttachOld | Step::Validate => {
            false
        }
    }
}
