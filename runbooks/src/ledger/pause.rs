//! A pause in the ledger: who ordered it, for how long, and who has to confirm that it is over.
//!
//! ```text
//! Pause ──▶ asked ──ClaimPause by the holder's agent──▶ claimed: that start of it may hold long lifetimes
//!              │                                           │
//!              └───────────────── Resume ──────────────────┴──▶ resumed: nobody is granted a long one any more
//!                                                              │
//!              │ (Resume before anybody has claimed it: over)
//!        EndPause: the claimant has short lifetimes again ─────┤
//!        ExpirePause: the leader has waited for all of it ─────┴──▶ over
//! ```
//!
//! The ledger has no clock. It keeps a length; each node counts it from when it saw the pause itself, and a new leader counts
//! all of it anew. No run starts while a pause stands here, so whoever removes it answers for what may still be open in the
//! kernel: the claimant, who has read back that its long lifetimes are void, or the leader, who has waited them out.

use serde::{Deserialize, Serialize};

use super::apply::keep_newest;
use super::{Complete, Ledger};
use crate::ledger::Rejection;
use crate::model::{Epoch, NodeId, PauseId, WallMs};

/// Shortest pause, in milliseconds. A shorter one would be over before its holder has armed its long lifetimes and somebody
/// has done something with it.
pub const PAUSE_MIN_MS: u64 = 60_000;
/// Longest pause, in milliseconds: a day. While it lasts nobody takes over from a holder that is lost, and if nobody can
/// confirm its end it is waited for with a tenth on top.
pub const PAUSE_MAX_MS: u64 = 24 * 3_600_000;

/// What an operator orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseOrder {
    /// How long it lasts, in milliseconds.
    pub for_ms: u64,
    /// The holder goes on without waiting for its replica, which is out of sync from the beginning. So it goes on writing
    /// when replica and quorum are lost at once.
    pub alone: bool,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who orders it.
    pub by: String,
}

/// A pause that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Its number.
    pub id: PauseId,
    /// The epoch that it keeps.
    pub epoch: Epoch,
    /// What was ordered.
    pub order: PauseOrder,
    /// When, for people.
    pub at: WallMs,
    /// The start of the holder's agent that may hold long lifetimes; `None`: none has claimed it yet.
    pub claimed_by: Option<u64>,
    /// Who has ended it; `None`: it goes on until its time is up.
    pub resumed_by: Option<String>,
}

/// A pause that is over, kept for `baton history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedPause {
    /// The pause.
    pub pause: Pause,
    /// How it ended, in words.
    pub ended: String,
    /// When, for people.
    pub ended_at: WallMs,
}

impl Ledger {
    pub(super) fn pause(&mut self, epoch: Epoch, order: PauseOrder, at: WallMs) -> Result<(), Rejection> {
        self.same_epoch(epoch)?;
        self.not_paused()?;
        if let Some(run) = &self.run {
            return Err(Rejection::RunInProgress { run: run.id });
        }
        if let Some(drill) = &self.drill {
            return Err(Rejection::DrillInProgress { number: drill.number });
        }
        if self.holder.is_none() || self.has_released() {
            return Err(Rejection::HolderNotServing);
        }
        if !(PAUSE_MIN_MS..=PAUSE_MAX_MS).contains(&order.for_ms) {
            return Err(Rejection::PauseLength { for_ms: order.for_ms });
        }
        self.pauses = self.pauses.next();
        // An operator's word was for a takeover that cannot come now.
        if self.in_sync.values().any(Complete::is_accepted) {
            self.sync_generation = self.sync_generation.next();
            self.in_sync.retain(|_, known| !known.is_accepted());
        }
        if order.alone && self.mysql && self.in_sync.values().any(|known| *known != Complete::Holder) {
            self.change_sync(None, format!("pause {}: the holder goes on alone", self.pauses));
        }
        let id = self.pauses;
        self.pause = Some(Pause { id, epoch, order, at, claimed_by: None, resumed_by: None });
        Ok(())
    }

    pub(super) fn claim_pause(&mut self, pause: PauseId, by: &NodeId, boot: u64) -> Result<(), Rejection> {
        self.same_pause(pause)?;
        if self.holder.as_ref() != Some(by) {
            return Err(Rejection::NotTheHolder { by: by.clone() });
        }
        if let Some(pause) = &mut self.pause {
            pause.claimed_by = Some(boot);
        }
        Ok(())
    }

    /// Over at once if nobody has claimed it: then nobody was granted anything long, and nobody will be.
    pub(super) fn resume(&mut self, pause: PauseId, by: String, at: WallMs) -> Result<(), Rejection> {
        self.same_pause(pause)?;
        if self.pause.as_ref().is_some_and(|pause| pause.claimed_by.is_none()) {
            self.conclude_pause(|_| format!("taken back by {by} before the holder had taken it up"), at);
            return Ok(());
        }
        if let Some(pause) = &mut self.pause {
            pause.resumed_by.get_or_insert(by);
        }
        Ok(())
    }

    /// The claimant holds no long lifetimes any more. An earlier start of it cannot speak for a later one, which may hold some.
    pub(super) fn end_pause(
        &mut self,
        pause: PauseId,
        by: &NodeId,
        boot: u64,
        at: WallMs,
    ) -> Result<(), Rejection> {
        self.same_pause(pause)?;
        if self.holder.as_ref() != Some(by) {
            return Err(Rejection::NotTheHolder { by: by.clone() });
        }
        if self.pause.as_ref().is_none_or(|pause| pause.claimed_by != Some(boot)) {
            return Err(Rejection::NotTheClaimant { by: by.clone() });
        }
        self.conclude_pause(
            |pause| match &pause.resumed_by {
                Some(who) => format!("resumed by {who}; {by} has short lifetimes again"),
                None => format!("its time was up; {by} has short lifetimes again"),
            },
            at,
        );
        Ok(())
    }

    pub(super) fn expire_pause(&mut self, pause: PauseId, by: &NodeId, at: WallMs) -> Result<(), Rejection> {
        self.same_pause(pause)?;
        self.conclude_pause(
            |_| format!("waited out by {by}, the leader: the holder has not confirmed its end"),
            at,
        );
        Ok(())
    }

    pub(super) fn not_paused(&self) -> Result<(), Rejection> {
        match &self.pause {
            Some(pause) => Err(Rejection::Paused { pause: pause.id }),
            None => Ok(()),
        }
    }

    fn same_pause(&self, pause: PauseId) -> Result<(), Rejection> {
        if self.pause.as_ref().is_some_and(|present| present.id == pause) {
            Ok(())
        } else {
            Err(Rejection::NoSuchPause { pause })
        }
    }

    pub(super) fn conclude_pause(&mut self, how: impl FnOnce(&Pause) -> String, ended_at: WallMs) {
        if let Some(pause) = self.pause.take() {
            let ended = how(&pause);
            self.pause_history.push(EndedPause { pause, ended, ended_at });
            keep_newest(&mut self.pause_history);
        }
    }
}
