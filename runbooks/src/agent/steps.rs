//! The core's side of runs: from the committed journal to executors and back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Agent, Output, Purpose, StepResult};
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

impl Agent {
    /// Proposes `Started`, and starts executors for what the committed journal says is started.
    pub(super) fn follow_run(&mut self, _now: Mono, wall: WallMs, out: &mut Vec<Output>) {
        let Some(run) = self.ledger.run.clone() else { return };
        for next in run.next(&self.setup.me) {
            match next {
                Next::Act { step, attempt } => {
                    self.journal(&run, step, attempt, vec![Event::Started], wall, out)
                }
                // The outcome is on its way.
                Next::Resume { step, .. } if self.is_pending(&Purpose::Step(step)) => {}
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
                        self.journal(&run, step, attempt, vec![Event::UndoStarted], wall, out);
                    }
                }
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
            self.journal(&run, step, attempt, vec![event], wall, out);
        }
    }

    fn journal(
        &mut self,
        run: &Run,
        step: Step,
        attempt: u32,
        events: Vec<Event>,
        wall: WallMs,
        out: &mut Vec<Output>,
    ) {
        if self.is_pending(&Purpose::Step(step)) {
            return;
        }
        let by = self.setup.me.clone();
        let mut ahead = run.clone();
        let mut entries: Vec<Entry> = events
            .into_iter()
            .map(|event| Entry { step, attempt, event, by: by.clone(), at: wall })
            .collect();
        for entry in &entries {
            if ahead.record(entry.clone()).is_err() {
                return;
            }
        }
        for next in ahead.next(&by) {
            if let Next::Act { step, attempt } = next {
                if !self.is_pending(&Purpose::Step(step))
                    && !entries.iter().any(|e| e.step == step && e.event == Event::Started)
                {
                    entries.push(Entry { step, attempt, event: Event::Started, by: by.clone(), at: wall });
                }
            }
        }
        let command = Command::Journal { run: run.id, epoch: run.plan.epoch, entries };
        self.propose(Purpose::Step(step), command, None, None, out);
    }
}

fn last_attempt(run: &Run, step: Step) -> u32 {
    run.journal.iter().rev().find(|entry| entry.step == step).map_or(1, |entry| entry.attempt)
}
