//! G8 **Undo before the point of no return.** A run that was rolled back has left nothing open and nothing writable on the node
//! that should have got the baton; and what is taken back is taken back in reverse.

use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::RunId;
use baton_runbooks::plan::Step;
use baton_runbooks::run::RunState;

use super::Effect;
use crate::sim::node::Node;

/// Its name.
pub const NAME: &str = "undo_before_pivot";

/// Effects of the newest run, in the order in which they happened first.
#[derive(Debug, Default)]
pub struct Effects {
    run: RunId,
    done: Vec<Step>,
    undone: Vec<Step>,
}

impl Effects {
    /// Steps of `run` that were taken back.
    pub fn undone(&self, run: RunId) -> &[Step] {
        if self.run == run { &self.undone } else { &[] }
    }

    /// A hand touched the world.
    pub fn effect(&mut self, effect: &Effect) -> Result<(), String> {
        if self.run != effect.run {
            *self = Self { run: effect.run, ..Self::default() };
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

    /// An entry was committed.
    pub fn committed(&self, at: u64, before: &Ledger, after: &Ledger, nodes: &[Node]) -> Result<(), String> {
        let ended = after.history.last().filter(|_| before.run.is_some() && after.run.is_none());
        let Some(ended) = ended.filter(|ended| ended.state == RunState::RolledBack) else { return Ok(()) };
        let target = nodes.iter().find(|node| node.name == ended.run.plan.to);
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
        let promoted = self.run == ended.run.id && self.done.contains(&Step::PromoteMysql);
        if promoted && db.up && !db.read_only {
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
