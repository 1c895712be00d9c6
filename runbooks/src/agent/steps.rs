//! The core's side of runs: from the committed journal to executors and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::proposals::Purpose;
use super::{Agent, Output, StepResult};
use crate::ledger::command::Command;
use crate::model::{Epoch, Mono, NodeId, RunId, WallMs};
use crate::plan::Step;
use crate::run::{Entry, Event, Next, Run, StepStatus};

/// What this agent carries out at the moment, and since when each step could have been under way.
#[derive(Debug, Default)]
pub(super) struct Steps {
    run: Option<RunId>,
    acting: BTreeSet<(Step, u32)>,
    undoing: BTreeSet<Step>,
    ready_since: BTreeMap<Step, Mono>,
    /// Outcomes in flight, by the ticket of their proposal.
    proposed: BTreeMap<u64, Outcome>,
    /// Outcomes that the ledger has accepted and does not show here yet: a follower hears of the answer first. Without
    /// them, another entry that arrives in between would have the step carried out once more.
    accepted: BTreeSet<Outcome>,
    /// What the applied journal asks of this node. It changes with the ledger only, and is looked at with every input.
    asked: Vec<Next>,
}

/// Step, attempt, and whether it is the outcome of the undo.
type Outcome = (Step, u32, bool);

impl Steps {
    pub(super) const fn ready_since(&self) -> &BTreeMap<Step, Mono> {
        &self.ready_since
    }

    /// Takes the run of a newly applied ledger, at node `me`.
    pub(super) fn follow(&mut self, me: &NodeId, run: Option<&Run>, now: Mono) {
        let id = run.map(|r| r.id);
        if self.run != id {
            *self = Self { run: id, ..Self::default() };
        }
        let Some(run) = run else { return };
        self.asked = run.next(me);
        self.accepted.retain(|(step, attempt, undo)| match run.status(*step) {
            StepStatus::Acting { attempt: current } => !undo && current == *attempt,
            StepStatus::Undoing => *undo,
            StepStatus::Pending
            | StepStatus::Done
            | StepStatus::Failed { .. }
            | StepStatus::Skipped
            | StepStatus::Undone
            | StepStatus::Stuck { .. } => false,
        });
        for planned in &run.plan.steps {
            let ready = planned.after.iter().all(|other| run.status(*other) == StepStatus::Done);
            if ready {
                self.ready_since.entry(planned.step).or_insert(now);
            }
        }
    }

    /// The fate of a proposal is known, or known to be unknown.
    pub(super) fn proposal_ended(&mut self, ticket: u64, accepted: Option<bool>) {
        let outcome = self.proposed.remove(&ticket);
        self.accepted.extend(outcome.filter(|_| accepted == Some(true)));
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
            | Self::WithdrawLoss(_)
            | Self::SyncOut(_)
            | Self::ClaimPause(_)
            | Self::EndPause(_)
            | Self::ExpirePause(_) => false,
        }
    }
}

impl Agent {
    /// Proposes `Started`, and starts executors for what the committed journal says is started.
    pub(super) fn follow_run(&mut self, wall: WallMs, out: &mut Vec<Output>) {
        if self.steps.asked.is_empty() {
            return;
        }
        let ledger = Arc::clone(&self.ledger);
        let Some(run) = &ledger.run else { return };
        if run.plan.version <= run.plan.runbook.version() {
            let asked = std::mem::take(&mut self.steps.asked);
            self.carry_on(run, &asked, wall, out);
            self.steps.asked = asked;
        }
    }

    fn carry_on(&mut self, run: &Run, asked: &[Next], wall: WallMs, out: &mut Vec<Output>) {
        for next in asked {
            match *next {
                Next::Act { step, attempt } => self.journal(run, step, attempt, Event::Started, wall, out),
                Next::Resume { step, attempt } if self.is_settling((step, attempt, false)) => {}
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
                        let attempt = last_attempt(run, step);
                        self.journal(run, step, attempt, Event::UndoStarted, wall, out);
                    }
                }
                Next::Undo { step, resumed: true }
                    if self.is_settling((step, last_attempt(run, step), true)) => {}
                Next::Undo { step, resumed: true } => {
                    let planned = run.plan.step(step).cloned();
                    if let Some(planned) = planned.filter(|_| self.steps.undoing.insert(step)) {
                        let (epoch, attempt) = (run.plan.epoch, last_attempt(run, step));
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
        let ledger = Arc::clone(&self.ledger);
        let current = ledger.run.as_ref().filter(|run| run.id == run_id && run.plan.epoch == epoch);
        let Some(run) = current else { return };
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
            self.journal(run, step, attempt, event, wall, out);
        }
    }

    /// The outcome is on its way into the ledger, or from there to here, or was lost a moment ago.
    fn is_settling(&self, outcome: Outcome) -> bool {
        let step = outcome.0;
        self.is_journalling(step) || self.is_cooling(step) || self.steps.accepted.contains(&outcome)
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
        let outcome = match event {
            Event::Started | Event::Skipped { .. } | Event::UndoStarted => None,
            Event::Succeeded { .. } | Event::Failed { .. } => Some((step, attempt, false)),
            Event::UndoFinished | Event::UndoFailed { .. } => Some((step, attempt, true)),
        };
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
            self.steps.proposed.extend(outcome.map(|outcome| (self.tickets, outcome)));
        }
    }
}

fn last_attempt(run: &Run, step: Step) -> u32 {
    run.journal.iter().rev().find(|entry| entry.step == step).map_or(1, |entry| entry.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::sample::setup;
    use crate::agent::{Input, Stamped};
    use crate::ledger::Ledger;
    use crate::model::{NodeKind, SyncGeneration};
    use crate::plan::{Basis, Plan, Runbook};
    use crate::run::table::Scope;
    use crate::run::takeover::{self, steps};

    const SCOPE: Scope = Scope { mysql: true, independent_services: false, services: false };

    fn target() -> NodeId {
        NodeId::from("db1")
    }

    fn agent() -> Agent {
        Agent::new(setup("db1"))
    }

    /// A takeover to db1 in which both steps that follow the fence have been started.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let members = BTreeMap::from([(target(), NodeKind::Data), (NodeId::from("db2"), NodeKind::Data)]);
        let (cluster, initial_holder) = ("shop".to_owned(), target());
        let found = Command::Bootstrap { cluster, members, initial_holder, mysql: true };
        let plan = Plan {
            runbook: Runbook::Takeover,
            version: takeover::VERSION,
            epoch: Epoch(1),
            from: None,
            to: target(),
            basis: Basis { epoch: Epoch(0), sync: SyncGeneration(0), target_instance: None },
            why: Vec::new(),
            detected_ms_ago: None,
            holder_heard_ms: Default::default(),
            asked_by: None,
            drain_patience_ms: 0,
            steps: steps(&target(), None, SCOPE),
        };
        assert!(ledger.apply(found).is_accepted());
        assert!(ledger.apply(Command::StartRun { plan: Box::new(plan), at: WallMs(0) }).is_accepted());
        for (step, event) in [
            (Step::FenceOld, Event::Started),
            (Step::FenceOld, Event::Succeeded { facts: Vec::new() }),
            (Step::CutStream, Event::Started),
            (Step::HoldVip, Event::Started),
        ] {
            assert!(ledger.apply(entry(step, event)).is_accepted());
        }
        ledger
    }

    fn entry(step: Step, event: Event) -> Command {
        let entries = vec![Entry { step, attempt: 1, event, by: target(), at: WallMs(0) }];
        Command::Journal { run: RunId(1), epoch: Epoch(1), entries }
    }

    fn ended(step: Step) -> Input {
        let result = StepResult::Done { facts: Vec::new() };
        Input::StepEnded { run: RunId(1), epoch: Epoch(1), step, attempt: 1, undo: false, result }
    }

    fn feed(agent: &mut Agent, input: Input) -> Vec<Output> {
        agent.handle(Stamped { now: Mono(1_000), wall: WallMs(0), input })
    }

    fn runs(outputs: &[Output], step: Step) -> bool {
        outputs.iter().any(|output| matches!(output, Output::RunStep { planned, .. } if planned.step == step))
    }

    /// The answer arrives before the entry does, and another entry in between.
    #[test]
    fn a_step_whose_outcome_was_accepted_is_not_carried_out_again() {
        let (mut agent, mut ledger) = (agent(), ledger());
        let out = feed(&mut agent, Input::Committed { index: 6, ledger: Arc::new(ledger.clone()) });
        assert!(runs(&out, Step::CutStream) && runs(&out, Step::HoldVip));
        let cut = feed(&mut agent, ended(Step::CutStream));
        let Some(Output::Propose { ticket, .. }) = cut.first() else { panic!("no proposal: {cut:?}") };
        feed(&mut agent, ended(Step::HoldVip));
        assert!(ledger.apply(entry(Step::HoldVip, Event::Succeeded { facts: Vec::new() })).is_accepted());
        let out = feed(&mut agent, Input::Committed { index: 7, ledger: Arc::new(ledger.clone()) });
        assert!(!runs(&out, Step::CutStream));
        let out = feed(&mut agent, Input::Proposed { ticket: *ticket, accepted: Some(true) });
        assert!(!runs(&out, Step::CutStream), "{out:?}");
    }
}
