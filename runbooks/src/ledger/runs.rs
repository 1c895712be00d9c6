//! `Ledger::apply` on runs: how they start, what their journal changes in the ledger, how they end.

use super::apply::keep_newest;
use super::{Complete, EndedRun, Ledger};
use crate::ledger::Rejection;
use crate::model::{Epoch, RunId, WallMs};
use crate::plan::{Plan, Runbook, Step, check};
use crate::run::{Entry, Event, Illegal, Run, RunState, StepStatus};

impl Ledger {
    pub(super) fn start_run(&mut self, plan: Plan, at: WallMs) -> Result<(), Rejection> {
        if self.members.is_empty() {
            return Err(Rejection::NotBootstrapped);
        }
        if let Some(run) = self.run.as_ref().filter(|run| !is_superseded(run, &plan)) {
            return Err(Rejection::RunInProgress { run: run.id });
        }
        self.not_paused()?;
        self.same_epoch(plan.basis.epoch)?;
        if plan.basis.sync != self.sync_generation {
            return Err(Rejection::StaleSync { ledger: self.sync_generation, command: plan.basis.sync });
        }
        let mut notes: Vec<String> = check(&plan, self).iter().map(ToString::to_string).collect();
        // A holder that gave its lease back may get it again, when nobody else can have it: then there is no old holder.
        let returns = self.has_released() && self.holder.as_ref() == Some(&plan.to) && plan.from.is_none();
        if plan.from != self.holder && !returns {
            notes.push("the plan's old holder is not the ledger's".to_owned());
        }
        if !notes.is_empty() {
            return Err(Rejection::BadPlan { notes });
        }
        if !self.is_complete(&plan) {
            return Err(Rejection::TargetNotInSync { node: plan.to });
        }
        match plan.runbook {
            Runbook::Takeover => {
                self.supersede();
                self.pass_baton(&plan);
            }
            Runbook::Switchover => {
                if self.in_sync.get(&plan.to).is_some_and(Complete::is_accepted) {
                    return Err(Rejection::TargetNotInSync { node: plan.to });
                }
                let serves = self.holder.as_ref().is_some_and(|holder| self.is_open_for(holder));
                if !serves || self.has_released() {
                    return Err(Rejection::HolderNotServing);
                }
            }
        }
        self.runs = self.runs.next();
        self.run = Some(Run::new(self.runs, plan, at));
        Ok(())
    }

    /// A takeover ends a switchover that has not passed the baton. The target's proof stays: the holder cannot come back
    /// to acknowledge anything, since the epoch ends in the same `apply`.
    fn supersede(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.abandoned = Some("the holder was lost; a takeover followed".to_owned());
            self.history.push(EndedRun { run: run.into(), state: RunState::Abandoned });
            keep_newest(&mut self.history);
        }
    }

    /// The target has every acknowledged write, and still is the instance that was seen to have it.
    fn is_complete(&self, plan: &Plan) -> bool {
        match self.in_sync.get(&plan.to) {
            _ if self.holder.as_ref() == Some(&plan.to) => true,
            Some(Complete::Holder) => true,
            Some(Complete::Replica { instance } | Complete::Accepted { instance, .. }) => {
                plan.basis.target_instance.as_ref() == Some(instance)
            }
            None => !self.mysql,
        }
    }

    fn pass_baton(&mut self, plan: &Plan) {
        if let Some(old) = self.holder.take() {
            self.in_sync.insert(old.clone(), Complete::Holder);
            self.last_holder = Some(old);
        }
        self.epoch = plan.epoch;
        self.holder = Some(plan.to.clone());
        self.released = None;
        self.sync_generation = self.sync_generation.next();
    }

    pub(super) fn journal(&mut self, run: RunId, epoch: Epoch, entries: Vec<Entry>) -> Result<(), Rejection> {
        self.current_run(run, epoch)?;
        let mut outcome = Ok(());
        for entry in entries {
            if let Err(why) = self.record(entry) {
                outcome = Err(Rejection::IllegalEntry { why });
                break;
            }
        }
        self.settle();
        outcome
    }

    /// One entry, and what it changes in the ledger besides the journal.
    fn record(&mut self, entry: Entry) -> Result<(), Illegal> {
        let complete = |ledger: &Self, plan: &Plan| {
            !ledger.mysql || ledger.in_sync.get(&plan.to) == Some(&Complete::Holder)
        };
        let Some(run) = self.run.as_ref() else { return Err(Illegal::Ended) };
        let before_passing = run.is_before_passing();
        let is_closed = run.status(Step::CloseHolder) == StepStatus::Done;
        match (entry.step, &entry.event) {
            // Caught up with what? Only a closed holder has an end.
            (Step::CatchUp, Event::Succeeded { .. }) if before_passing && !is_closed => {
                return Err(Illegal::Waits);
            }
            (Step::OpenPorts, Event::Started) if before_passing && !complete(self, &run.plan) => {
                return Err(Illegal::Waits);
            }
            // A holder that gave its lease back opens nothing by this undo; the target's proof is for the takeover.
            (Step::CloseHolder, Event::UndoStarted) if before_passing && self.has_released() => {
                return Err(Illegal::Waits);
            }
            (_, _) => {}
        }
        let step = entry.step;
        let Some(run) = self.run.as_mut() else { return Err(Illegal::Ended) };
        let (was, was_past_pivot) = (run.status(step), run.is_past_pivot());
        run.record(entry)?;
        let (now, passed) = (run.status(step), !was_past_pivot && run.is_past_pivot());
        if passed {
            if before_passing {
                let plan = run.plan.clone();
                self.pass_baton(&plan);
            }
            self.change_sync(None, "the baton was passed; no replica is attached yet".to_owned());
        } else if before_passing && was != now {
            self.follow_switchover(step, &now);
        }
        Ok(())
    }

    /// Who has every acknowledged write, while the holder is closed.
    fn follow_switchover(&mut self, step: Step, now: &StepStatus) {
        let Some(target) = self.run.as_ref().map(|run| run.plan.to.clone()) else { return };
        if step == Step::CatchUp && *now == StepStatus::Done {
            let reason = "it has everything that the closed holder has".to_owned();
            self.change_sync(Some((target, Complete::Holder)), reason);
        } else if step == Step::CloseHolder && *now == StepStatus::Undoing {
            self.change_sync(None, "a switchover was undone; the holder opens again".to_owned());
        }
    }

    pub(super) fn abandon_run(&mut self, run: RunId, epoch: Epoch, reason: String) -> Result<(), Rejection> {
        let current = self.current_run(run, epoch)?;
        if current.is_past_pivot() {
            return Err(Rejection::PastPivot);
        }
        // Proposed before the run stopped, and late: only an operator puts it away now.
        if let RunState::NeedsOperator { .. } = current.state() {
            return Err(Rejection::NoSuchRun { run });
        }
        current.abandoned = Some(reason);
        self.settle();
        Ok(())
    }

    pub(super) fn abort_run(&mut self, run: RunId, by: &str) -> Result<(), Rejection> {
        let Some(current) = self.run.as_mut().filter(|r| r.id == run) else {
            return Err(Rejection::NoSuchRun { run });
        };
        if current.is_past_pivot() {
            return Err(Rejection::PastPivot);
        }
        if current.plan.runbook != Runbook::Switchover || current.state() != RunState::Running {
            return Err(Rejection::NothingToAbort);
        }
        current.aborting = Some(format!("aborted by {by}"));
        self.settle();
        Ok(())
    }

    pub(super) fn acknowledge_run(&mut self, run: RunId, by: &str) -> Result<(), Rejection> {
        let Some(current) = self.run.as_mut().filter(|r| r.id == run) else {
            return Err(Rejection::NoSuchRun { run });
        };
        let RunState::NeedsOperator { .. } = current.state() else {
            return Err(Rejection::NothingToAcknowledge);
        };
        current.abandoned = Some(format!("acknowledged by {by}"));
        self.settle();
        Ok(())
    }

    /// Moves an ended run to the history. A run that needs an operator stays where every screen shows it.
    fn settle(&mut self) {
        let Some(state) = self.run.as_ref().map(Run::state) else { return };
        match state {
            RunState::Running | RunState::Undoing | RunState::NeedsOperator { .. } => return,
            RunState::Completed | RunState::Degraded => {}
            RunState::RolledBack | RunState::Abandoned => self.take_back(),
        }
        if let Some(run) = self.run.take() {
            self.history.push(EndedRun { run: run.into(), state });
            keep_newest(&mut self.history);
        }
    }

    /// A run has ended without its aim. A takeover leaves nobody in office; a switchover that has not passed the baton
    /// leaves the old holder in it, which opens again and acknowledges without the target.
    fn take_back(&mut self) {
        let Some(run) = &self.run else { return };
        if !run.is_before_passing() {
            self.vacate();
        } else if run.is_handing_over() && !self.has_released() {
            self.change_sync(None, "a switchover was given up; the holder opens again".to_owned());
        }
    }

    /// Nobody holds the baton. A target that was past its pivot is complete: it may have acknowledged writes itself. One
    /// that had applied everything that it received is complete too, whatever becomes of its replication threads. One
    /// before that never served and keeps its place. What an operator accepted ends with the run.
    fn vacate(&mut self) {
        let complete = self.run.as_ref().is_some_and(|run| run.is_past_pivot() || run.has_drained());
        if let Some(holder) = self.holder.take() {
            let accepted = self.in_sync.get(&holder).is_some_and(Complete::is_accepted);
            if accepted {
                self.in_sync.remove(&holder);
            }
            if complete && !accepted {
                self.in_sync.insert(holder.clone(), Complete::Holder);
            }
            self.last_holder = Some(holder);
        }
        self.sync_generation = self.sync_generation.next();
    }

    fn current_run(&mut self, run: RunId, epoch: Epoch) -> Result<&mut Run, Rejection> {
        // A switchover speaks of an epoch that has not begun.
        if self.run.as_ref().is_none_or(|current| current.plan.epoch != epoch) {
            self.same_epoch(epoch)?;
        }
        let current = self.run.as_mut().filter(|current| current.id == run && current.plan.epoch == epoch);
        current.ok_or(Rejection::NoSuchRun { run })
    }
}

/// `plan` is a takeover, and `run` a switchover that still is before the passing: the holder was lost meanwhile.
fn is_superseded(run: &Run, plan: &Plan) -> bool {
    let goes_on = match run.state() {
        RunState::Running | RunState::Undoing => true,
        RunState::Completed
        | RunState::Degraded
        | RunState::RolledBack
        | RunState::Abandoned
        | RunState::NeedsOperator { .. } => false,
    };
    plan.runbook == Runbook::Takeover && run.is_before_passing() && goes_on
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::Command;
    use crate::model::{NodeId, NodeKind, SyncGeneration};
    use crate::plan::Basis;
    use crate::run::table::Scope;
    use crate::run::takeover;

    /// The leader gives up waiting for the target, and before that is applied the target is back and cannot undo.
    #[test]
    fn a_run_that_needs_an_operator_is_not_put_away_by_a_late_leader() {
        let to = NodeId::from("db1");
        let scope = Scope { mysql: true, independent_services: false, services: false };
        let members = BTreeMap::from([(to.clone(), NodeKind::Data), ("db2".into(), NodeKind::Data)]);
        let plan = Plan {
            runbook: Runbook::Takeover,
            version: takeover::VERSION,
            epoch: Epoch(1),
            from: None,
            to: to.clone(),
            basis: Basis { epoch: Epoch(0), sync: SyncGeneration(0), target_instance: None },
            why: Vec::new(),
            detected_ms_ago: None,
            holder_heard_ms: Default::default(),
            asked_by: None,
            drain_patience_ms: 0,
            steps: takeover::steps(&to, None, scope),
        };
        let (run, epoch, at) = (RunId(1), Epoch(1), WallMs(0));
        let journal = |attempt, event| {
            let entries = vec![Entry { step: Step::FenceOld, attempt, event, by: to.clone(), at }];
            Command::Journal { run, epoch, entries }
        };
        let failed = || Event::Failed { error: "no".to_owned() };
        let mut ledger = Ledger::default();
        for command in [
            Command::Bootstrap {
                cluster: "shop".to_owned(),
                members,
                initial_holder: to.clone(),
                mysql: true,
            },
            Command::StartRun { plan: Box::new(plan), at },
            journal(1, Event::Started),
            journal(1, failed()),
            journal(2, Event::Started),
            journal(2, failed()),
            journal(2, Event::UndoStarted),
            journal(2, Event::UndoFailed { error: "stuck".to_owned() }),
        ] {
            assert!(ledger.apply(command).is_accepted());
        }
        let before = ledger.clone();
        let late = Command::AbandonRun { run, epoch, reason: "away".to_owned(), at };
        assert!(!ledger.apply(late).is_accepted());
        assert_eq!(ledger, before);
        let seen = Command::AcknowledgeRun { run, by: "operator".to_owned(), at };
        assert!(ledger.apply(seen).is_accepted());
        assert!(ledger.run.is_none());
    }
}
