//! Proposals in flight: none is made twice, and none faster than the ledger can answer.

use std::collections::BTreeSet;

use super::{Agent, Output};
use crate::ledger::command::Command;
use crate::model::{Epoch, Mono, PauseId, SyncGeneration, Term};
use crate::plan::Step;

/// What a proposal in flight is for, so that it is not made twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    StartRun,
    AbandonRun,
    Skip(Step),
    /// Everything that one journal command speaks of.
    Steps(BTreeSet<Step>),
    Release(Epoch),
    SyncIn(SyncGeneration),
    SyncOut(SyncGeneration),
    WithdrawLoss(SyncGeneration),
    ClaimPause(PauseId),
    EndPause(PauseId),
    ExpirePause(PauseId),
}

/// After a proposal ended, however it did, the same is not proposed again before this time has passed, in milliseconds,
/// unless the ledger has changed since it was made. Without it, a node without a leader would propose as fast as it can be
/// refused, and a step whose outcome was accepted a moment before the ledger arrives here would be carried out again.
const RETRY_MS: u64 = 100;

impl Agent {
    pub(super) fn proposed(&mut self, ticket: u64, accepted: Option<bool>, now: Mono) {
        let Some((purpose, made_from)) = self.pending.remove(&ticket) else { return };
        self.steps.proposal_ended(ticket, accepted);
        match (&purpose, accepted) {
            (Purpose::SyncOut(generation), Some(true)) => self.keeper.settle(*generation),
            (Purpose::Release(_), Some(false)) => self.releasing = None,
            (
                Purpose::StartRun
                | Purpose::AbandonRun
                | Purpose::Skip(_)
                | Purpose::Steps(_)
                | Purpose::Release(_)
                | Purpose::SyncIn(_)
                | Purpose::SyncOut(_)
                | Purpose::WithdrawLoss(_)
                | Purpose::ClaimPause(_)
                | Purpose::EndPause(_)
                | Purpose::ExpirePause(_),
                _,
            ) => {}
        }
        if made_from == self.ledgers {
            self.cooling.insert(purpose, now.plus_ms(RETRY_MS));
        }
    }

    /// An *out of sync* is in flight.
    pub(super) fn is_going_out(&self) -> bool {
        self.pending.values().any(|(purpose, _)| match purpose {
            Purpose::SyncOut(_) => true,
            Purpose::StartRun
            | Purpose::AbandonRun
            | Purpose::Skip(_)
            | Purpose::Steps(_)
            | Purpose::Release(_)
            | Purpose::SyncIn(_)
            | Purpose::WithdrawLoss(_)
            | Purpose::ClaimPause(_)
            | Purpose::EndPause(_)
            | Purpose::ExpirePause(_) => false,
        })
    }

    /// Nothing is in flight for this purpose, and the last proposal did not just come to nothing.
    pub(super) fn may_propose(&self, purpose: &Purpose) -> bool {
        !self.pending.values().any(|(p, _)| p == purpose) && !self.cooling.contains_key(purpose)
    }

    pub(super) fn propose(
        &mut self,
        purpose: Purpose,
        command: Command,
        as_leader: Option<Term>,
        ends: Option<Epoch>,
        out: &mut Vec<Output>,
    ) {
        self.tickets += 1;
        self.pending.insert(self.tickets, (purpose, self.ledgers));
        out.push(Output::Propose { ticket: self.tickets, command, as_leader, ends });
    }
}
