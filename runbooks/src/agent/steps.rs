//! The core's side of runs: from the committed journal to executors and back.

use std::collections::{BTreeMap, BTreeSet};

use super::proposals::Purpose;
use super::{Agent, Output, StepResult};
use crate::ledger::command::Command;
use crate::model::{Epoch, Mono, RunId, WallMs};
use crate::plan::Step;
use crate::run::{Entry, Event, Next, Run, StepStatus};

/// What this agent carries out at the moment, and since when each step could have been under way.
#[derive(Debug, Default)]
pub(super) struct Steps {
    run: Option<RunId>,
    acting: BTreeSet<(Step, u32)>,
    undoing: BTreeSet<Step>,
    ready_since: BTreeMap<Step, Mono>,
}

impl Steps {
    pub(super) const fn ready_since(&self) -> &BTreeMap<Step, Mono> {
        &self.ready_since
    }

    /// Takes the run of a newly applied ledger.
    pub(super) fn follow(&mut self, run: Option<&Run>, now: Mono) {
        let id = run.map(|r| r.id);
        if self.run != id {
            *self = Self { run: id, ..Self::default() };
        }
        let Some(run) = run else { return };
        for planned in &run.plan.steps {
            let ready = planned.after.iter().all(|other| run.status(*other) == StepStatus::Done);
            if ready {
                self.ready_since.entry(planned.step).or_insert(now);
            }
        }
    }
}

impl Purpose {
    fn speaks_of(&self, step: Step) -> bool {
        match self {
            Self::Steps(steps) => steps.contains(&step),
            Self::StartRun
            | Self::AbandonRun
            | Self::Skip(_)
            | Self::Release(_)
            | Self::SyncIn(_)
            | Self::SyncOut(_) => false,
        }
    }
}

impl Agent {
    /// Proposes `Started`, and starts executors for what the committed journal says is started.
    pub(super) fn follow_run(&mut self, wall: WallMs, out: &mut Vec<Output>) {
        let Some(run) = self.ledger.run.clone() else { return };
        if run.plan.version > run.plan.runbook.version() {
            return;
        }
        for next in run.next(&self.setup.me) {
            match next {
                Next::Act { step, attempt } => self.journal(&run, step, attempt, Event::Started, wall, out),
                // The outcome is on its way, or was lost a moment ago.
                Next::Resume { step, .. } if self.is_journalling(step) || self.is_cooling(step) => {}
                Next::Resume { step, attempt } => {
                    let planned = run.plan.step(step).cloned();
                    if let Some(planned) = planned.filter(|_| self.steps.acting.insert((step, attempt))) {
                        let epoch = run.plan.epoch;
                        out.push(Output::RunStep { run: run.id, epoch, attempt, planned });
                    }
                }
                Next::Undo { step, resumed: false } => {
                    let busy = self.steps.acting.iter().any(|(acting, _)| *acting == step);
                    if !busy {
                        let attempt = last_attempt(&run, step);
                        self.journal(&run, step, attempt, Event::UndoStarted, wall, out);
                    }
                }
                Next::Undo { step, resumed: true } if self.is_journalling(step) || self.is_cooling(step) => {}
                Next::Undo { step, resumed: true } => {
                    let planned = run.plan.step(step).cloned();
                    if let Some(planned) = planned.filter(|_| self.steps.undoing.insert(step)) {
                        let (epoch, attempt) = (run.plan.epoch, last_attempt(&run, step));
                        out.push(Output::UndoStep { run: run.id, epoch, attempt, planned });
                    }
                }
            }
        }
    }

    /// An executor came back. Its outcome is proposed, together with the `Started` of what it makes ready for this node:
    /// one commit instead of two. What belongs to an older run or epoch is dropped here.
    pub(super) fn step_ended(
        &mut self,
        (run_id, epoch, step, attempt): (RunId, Epoch, Step, u32),
        undo: bool,
        result: StepResult,
        wall: WallMs,
        out: &mut Vec<Output>,
    ) {
        let Some(run) = self.ledger.run.clone().filter(|run| run.id == run_id && run.plan.epoch == epoch)
        else {
            return;
        };
        let event = match (undo, result) {
            (false, StepResult::Done { facts }) => Event::Succeeded { facts },
            (false, StepResult::Failed { error }) => Event::Failed { error },
            (true, StepResult::Done { .. }) => Event::UndoFinished,
            (true, StepResult::Failed { error }) => Event::UndoFailed { error },
        };
        if undo {
            self.steps.undoing.remove(&step);
        } else {
            self.steps.acting.remove(&(step, attempt));
        }
        // The ledger may have the outcome already, from a proposal whose fate was unknown.
        let open = match run.status(step) {
            StepStatus::Acting { attempt: current } => !undo && current == attempt,
            StepStatus::Undoing => undo,
            StepStatus::Pending
            | StepStatus::Done
            | StepStatus::Failed { .. }
            | StepStatus::Skipped
            | StepStatus::Undone
            | StepStatus::Stuck { .. } => false,
        };
        if open {
            self.journal(&run, step, attempt, event, wall, out);
        }
    }

    /// A proposal that speaks of this step is in flight.
    fn is_journalling(&self, step: Step) -> bool {
        self.pending.values().any(|(purpose, _)| purpose.speaks_of(step))
    }

    /// A proposal that spoke of this step ended a moment ago, and the ledger does not show it.
    fn is_cooling(&self, step: Step) -> bool {
        self.cooling.keys().any(|purpose| purpose.speaks_of(step))
    }

    fn journal(
        &mut self,
        run: &Run,
        step: Step,
        attempt: u32,
        event: Event,
        wall: WallMs,
        out: &mut Vec<Output>,
    ) {
        if self.is_journalling(step) {
            return;
        }
        let by = self.setup.me.clone();
        let mut ahead = run.clone();
        let first = Entry { step, attempt, event, by: by.clone(), at: wall };
        if ahead.record(first.clone()).is_err() {
            return;
        }
        let mut entries = vec![first];
        for next in ahead.next(&by) {
            if let Next::Act { step: other, attempt } = next
                && other != step
                && !self.is_journalling(other)
            {
                entries.push(Entry { step: other, attempt, event: Event::Started, by: by.clone(), at: wall });
            }
        }
        let purpose = Purpose::Steps(entries.iter().map(|entry| entry.step).collect());
        if self.may_propose(&purpose) {
            let command = Command::Journal { run: run.id, epoch: run.plan.epoch, entries };
            self.propose(purpose, command, None, None, out);
        }
    }
}

fn last_attempt(run: &Run, step: Step) -> u32 {
    run.journal.iter().rev().find(|entry| entry.step == step).map_or(1, |entry| entry.attempt)
}
