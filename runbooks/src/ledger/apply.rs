//! `Ledger::apply`: one function per command.

use super::{Complete, EndedRun, HISTORY_MAX, Ledger, Released, SyncChange};
use crate::ledger::command::{Command, Rejection, Response};
use crate::model::{Epoch, NodeId, NodeKind, RunId, SyncGeneration, WallMs};
use crate::plan::{Plan, check};
use crate::run::{Entry, Run, RunState};

impl Ledger {
    /// Applies one committed command. Total and deterministic; never panics.
    pub fn apply(&mut self, command: Command) -> Response {
        let outcome = match command {
            Command::Bootstrap { cluster, members, initial_holder, mysql } => {
                self.bootstrap(cluster, members, initial_holder, mysql)
            }
            Command::StartRun { plan, at } => self.start_run(*plan, at),
            Command::Journal { run, epoch, entries } => self.journal(run, epoch, entries),
            Command::AbandonRun { run, epoch, reason, at: _ } => self.abandon_run(run, epoch, reason),
            Command::AcknowledgeRun { run, by, at: _ } => self.acknowledge_run(run, &by),
            Command::SyncOut { epoch, generation, by, reason } => {
                self.sync_out(epoch, generation, &by, reason)
            }
            Command::SyncIn { epoch, generation, by, replica, instance } => {
                self.sync_in(epoch, generation, &by, &replica, Complete::Replica { instance })
            }
            Command::Release { epoch, by, boot, why } => {
                self.release(epoch, &by, Released { epoch, boot, why })
            }
        };
        match outcome {
            Ok(()) => Response::Accepted,
            Err(rejection) => Response::Rejected { rejection },
        }
    }

    fn bootstrap(
        &mut self,
        cluster: String,
        members: std::collections::BTreeMap<NodeId, NodeKind>,
        initial_holder: NodeId,
        mysql: bool,
    ) -> Result<(), Rejection> {
        if !self.members.is_empty() {
            return Err(Rejection::AlreadyBootstrapped);
        }
        if members.get(&initial_holder) != Some(&NodeKind::Data) {
            return Err(Rejection::BadPlan { notes: vec![format!("{initial_holder} is not a data node")] });
        }
        self.cluster = cluster;
        self.members = members;
        self.mysql = mysql;
        self.in_sync.insert(initial_holder, Complete::Holder);
        Ok(())
    }

    fn start_run(&mut self, plan: Plan, at: WallMs) -> Result<(), Rejection> {
        if self.members.is_empty() {
            return Err(Rejection::NotBootstrapped);
        }
        if let Some(run) = &self.run {
            return Err(Rejection::RunInProgress { run: run.id });
        }
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
        self.pass_baton(&plan);
        self.runs = self.runs.next();
        self.run = Some(Run::new(self.runs, plan, at));
        Ok(())
    }

    /// The target has every acknowledged write, and still is the instance that was seen to have it.
    fn is_complete(&self, plan: &Plan) -> bool {
        match self.in_sync.get(&plan.to) {
            _ if self.holder.as_ref() == Some(&plan.to) => true,
            Some(Complete::Holder) => true,
            Some(Complete::Replica { instance }) => plan.basis.target_instance.as_ref() == Some(instance),
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

    fn journal(&mut self, run: RunId, epoch: Epoch, entries: Vec<Entry>) -> Result<(), Rejection> {
        let current = self.current_run(run, epoch)?;
        let was_past_pivot = current.is_past_pivot();
        let mut outcome = Ok(());
        for entry in entries {
            if let Err(why) = current.record(entry) {
                outcome = Err(Rejection::IllegalEntry { why });
                break;
            }
        }
        let pivots_now = !was_past_pivot && current.is_past_pivot();
        if pivots_now {
            self.change_sync(None, "the baton was passed; no replica is attached yet".to_owned());
        }
        self.settle();
        outcome
    }

    fn abandon_run(&mut self, run: RunId, epoch: Epoch, reason: String) -> Result<(), Rejection> {
        let current = self.current_run(run, epoch)?;
        if current.is_past_pivot() {
            return Err(Rejection::PastPivot);
        }
        current.abandoned = Some(reason);
        self.settle();
        Ok(())
    }

    fn acknowledge_run(&mut self, run: RunId, by: &str) -> Result<(), Rejection> {
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
            RunState::RolledBack | RunState::Abandoned => self.vacate(),
        }
        if let Some(run) = self.run.take() {
            self.history.push(EndedRun { run, state });
            keep_newest(&mut self.history);
        }
    }

    /// Nobody holds the baton. A target that was past its pivot is complete: it may have acknowledged writes itself. One
    /// that had applied everything that it received is complete too, whatever becomes of its replication threads. One
    /// before that never served and keeps its place.
    fn vacate(&mut self) {
        let complete = self.run.as_ref().is_some_and(|run| run.is_past_pivot() || run.has_drained());
        if let Some(holder) = self.holder.take() {
            if complete {
                self.in_sync.insert(holder.clone(), Complete::Holder);
            }
            self.last_holder = Some(holder);
        }
        self.sync_generation = self.sync_generation.next();
    }

    fn sync_out(
        &mut self,
        epoch: Epoch,
        generation: SyncGeneration,
        by: &NodeId,
        reason: String,
    ) -> Result<(), Rejection> {
        self.holder_speaks(epoch, by)?;
        self.same_sync(generation)?;
        self.is_opened_by(by)?;
        // Also when it is out already: the generation settles an in-sync proposal whose fate is unknown.
        self.change_sync(None, reason);
        Ok(())
    }

    fn sync_in(
        &mut self,
        epoch: Epoch,
        generation: SyncGeneration,
        by: &NodeId,
        replica: &NodeId,
        complete: Complete,
    ) -> Result<(), Rejection> {
        self.holder_speaks(epoch, by)?;
        self.same_sync(generation)?;
        self.is_opened_by(by)?;
        if replica == by || self.members.get(replica) != Some(&NodeKind::Data) {
            return Err(Rejection::NotAReplica { node: replica.clone() });
        }
        self.change_sync(Some((replica.clone(), complete)), "received a canary under semi-sync".to_owned());
        Ok(())
    }

    fn release(&mut self, epoch: Epoch, by: &NodeId, released: Released) -> Result<(), Rejection> {
        self.holder_speaks(epoch, by)?;
        self.is_opened_by(by)?;
        self.released = Some(released);
        Ok(())
    }

    /// The only place that changes the in-sync set within an epoch; every change raises the generation.
    fn change_sync(&mut self, now: Option<(NodeId, Complete)>, reason: String) {
        self.sync_generation = self.sync_generation.next();
        self.in_sync.clear();
        let replica = now.as_ref().map(|(node, _)| node.clone());
        self.in_sync.extend(now);
        self.sync_history.push(SyncChange {
            epoch: self.epoch,
            generation: self.sync_generation,
            replica,
            reason,
        });
        keep_newest(&mut self.sync_history);
    }

    fn current_run(&mut self, run: RunId, epoch: Epoch) -> Result<&mut Run, Rejection> {
        self.same_epoch(epoch)?;
        self.run.as_mut().filter(|r| r.id == run).ok_or(Rejection::NoSuchRun { run })
    }

    fn holder_speaks(&self, epoch: Epoch, by: &NodeId) -> Result<(), Rejection> {
        self.same_epoch(epoch)?;
        if self.holder.as_ref() == Some(by) {
            Ok(())
        } else {
            Err(Rejection::NotTheHolder { by: by.clone() })
        }
    }

    /// Before the pivot the target may not touch the in-sync set: it still protects the last holder.
    fn is_opened_by(&self, by: &NodeId) -> Result<(), Rejection> {
        if self.is_open_for(by) { Ok(()) } else { Err(Rejection::NotTheHolder { by: by.clone() }) }
    }

    const fn same_epoch(&self, command: Epoch) -> Result<(), Rejection> {
        if command.0 == self.epoch.0 {
            Ok(())
        } else {
            Err(Rejection::StaleEpoch { ledger: self.epoch, command })
        }
    }

    const fn same_sync(&self, command: SyncGeneration) -> Result<(), Rejection> {
        let ledger = self.sync_generation;
        if command.0 == ledger.0 { Ok(()) } else { Err(Rejection::StaleSync { ledger, command }) }
    }
}

fn keep_newest<T>(list: &mut Vec<T>) {
    let excess = list.len().saturating_sub(HISTORY_MAX);
    list.drain(..excess);
}
