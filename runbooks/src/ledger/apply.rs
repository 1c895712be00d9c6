//! `Ledger::apply`: one function per command. Those on runs are in [`super::runs`].

use super::{Complete, HISTORY_MAX, Ledger, LossAccepted, Released, SyncChange};
use crate::ledger::{Command, Rejection, Response};
use crate::model::{Epoch, Instance, NodeId, NodeKind, PauseId, SyncGeneration};

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
            Command::AbortRun { run, by, at: _ } => self.abort_run(run, &by),
            Command::AcknowledgeRun { run, by, at: _ } => self.acknowledge_run(run, &by),
            Command::AcceptLoss { epoch, generation, node, instance, loss, at: _ } => {
                self.accept_loss(epoch, generation, node, instance, loss)
            }
            Command::WithdrawLoss { epoch, generation, node, by: _, at: _ } => {
                self.withdraw_loss(epoch, generation, &node)
            }
            Command::SyncOut { epoch, generation, by, reason } => {
                self.sync_out(epoch, generation, &by, reason)
            }
            Command::SyncIn { epoch, generation, by, replica, instance } => {
                self.sync_in(epoch, generation, &by, &replica, Complete::Replica { instance })
            }
            Command::Release { epoch, by, boot, pauses, why } => {
                self.release(epoch, &by, pauses, Released { epoch, boot, why })
            }
            Command::Drill { drill } => self.drill(drill),
            Command::Pause { epoch, order, at } => self.pause(epoch, order, at),
            Command::ClaimPause { pause, by, boot } => self.claim_pause(pause, &by, boot),
            Command::Resume { pause, by, at } => self.resume(pause, by, at),
            Command::EndPause { pause, by, boot, at } => self.end_pause(pause, &by, boot, at),
            Command::ExpirePause { pause, by, at } => self.expire_pause(pause, &by, at),
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
        self.is_not_handing_over()?;
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
        self.is_not_handing_over()?;
        if replica == by || self.members.get(replica) != Some(&NodeKind::Data) {
            return Err(Rejection::NotAReplica { node: replica.clone() });
        }
        // Its holder does not wait for anybody until the pause is over.
        if let Some(pause) = self.pause.as_ref().filter(|pause| pause.order.alone) {
            return Err(Rejection::Paused { pause: pause.id });
        }
        self.change_sync(Some((replica.clone(), complete)), "received a canary under semi-sync".to_owned());
        Ok(())
    }

    /// What others have stays: a last holder that comes back in time goes first.
    fn accept_loss(
        &mut self,
        epoch: Epoch,
        generation: SyncGeneration,
        node: NodeId,
        instance: Instance,
        loss: LossAccepted,
    ) -> Result<(), Rejection> {
        self.same_epoch(epoch)?;
        self.same_sync(generation)?;
        self.not_paused()?;
        if let Some(run) = &self.run {
            return Err(Rejection::RunInProgress { run: run.id });
        }
        if self.holder.as_ref() == Some(&node) || self.members.get(&node) != Some(&NodeKind::Data) {
            return Err(Rejection::NotAReplica { node });
        }
        let is_complete = match self.in_sync.get(&node) {
            Some(Complete::Holder) => true,
            Some(Complete::Replica { instance: seen }) => *seen == instance,
            Some(Complete::Accepted { .. }) | None => false,
        };
        if is_complete || !self.mysql {
            return Err(Rejection::NothingToAccept { node });
        }
        self.sync_generation = self.sync_generation.next();
        // The newest word is what the operator wants: an older one for the other node, such as a force's, is taken back by it.
        self.in_sync.retain(|_, known| !known.is_accepted());
        self.in_sync.insert(node, Complete::Accepted { instance, loss });
        Ok(())
    }

    fn withdraw_loss(
        &mut self,
        epoch: Epoch,
        generation: SyncGeneration,
        node: &NodeId,
    ) -> Result<(), Rejection> {
        self.same_epoch(epoch)?;
        self.same_sync(generation)?;
        if let Some(run) = &self.run {
            return Err(Rejection::RunInProgress { run: run.id });
        }
        if !self.in_sync.get(node).is_some_and(Complete::is_accepted) {
            return Err(Rejection::NothingToWithdraw { node: node.clone() });
        }
        self.sync_generation = self.sync_generation.next();
        self.in_sync.remove(node);
        Ok(())
    }

    fn release(
        &mut self,
        epoch: Epoch,
        by: &NodeId,
        pauses: PauseId,
        released: Released,
    ) -> Result<(), Rejection> {
        self.holder_speaks(epoch, by)?;
        self.is_opened_by(by)?;
        // Nobody may take over, so a holder that gave up would leave clients with nothing at all.
        self.not_paused()?;
        // A later word of it was refused for the pause, and it serves on; an earlier one may be on its way for ever.
        if pauses != self.pauses {
            return Err(Rejection::BeforePause { pause: self.pauses });
        }
        self.released = Some(released);
        Ok(())
    }

    /// Replaces the in-sync set within an epoch; every change raises the generation.
    pub(super) fn change_sync(&mut self, now: Option<(NodeId, Complete)>, reason: String) {
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

    /// A closed holder acknowledges nothing, so it has nothing to say about who has it. What it said before it closed, and
    /// comes late, must not take the target's proof away.
    fn is_not_handing_over(&self) -> Result<(), Rejection> {
        match self.run.as_ref().filter(|run| run.is_handing_over()) {
            Some(run) => Err(Rejection::HandingOver { run: run.id }),
            None => Ok(()),
        }
    }

    pub(super) const fn same_epoch(&self, command: Epoch) -> Result<(), Rejection> {
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

pub(super) fn keep_newest<T>(list: &mut Vec<T>) {
    let excess = list.len().saturating_sub(HISTORY_MAX);
    list.drain(..excess);
}
