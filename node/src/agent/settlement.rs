//! Who may change semi-sync's source side, and when the ledger may be told *in sync*.
//!
//! The order of effects is what no pure machine can keep: an order is carried out later than it was decided, and a frozen
//! task goes on where it stood. So two rules are kept here, each under one lock:
//!
//! 1. **Semi-sync is never switched off while an in-sync proposal may still be applied.** Whoever switches holds the lock,
//!    proposals of *in sync* hold it until their fate is known, and after one whose fate is not known the flag is proposed
//!    *out* first: that raises the generation, so that the lost one can only be refused. An earlier agent on this node may
//!    have left one on its way, too.
//! 2. ***In sync* is proved under the lock, right before it is proposed**: a canary is committed, and the server counts it
//!    as acknowledged and counts nothing as unacknowledged. An acknowledgement covers everything before it in the log, so
//!    whatever was switched off and on before does no harm, and nothing can be switched off before the fate is known.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_runbooks::ledger::Command;
use baton_runbooks::model::SyncGeneration;
use baton_runbooks::observe::SemiSyncFacts;
use tokio::sync::{Notify, OwnedMutexGuard};

use super::Context;
use crate::chain::chain;

/// A canary that proves takes as long as an acknowledgement. A replica that needs longer is not caught up.
const PROOF_DEADLINE: Duration = Duration::from_secs(1);

/// The lock, and what is in doubt.
#[derive(Debug, Default)]
pub(crate) struct Settlement {
    alone: Arc<tokio::sync::Mutex<()>>,
    doubt: Arc<Mutex<Doubt>>,
    pub(super) canary: Canaries,
}

/// In-sync proposals that may still be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt {
    /// Of an earlier agent on this node.
    predecessor: bool,
    /// Of this one: the generation that it named.
    proposed: Option<SyncGeneration>,
}

impl Default for Doubt {
    fn default() -> Self {
        Self { predecessor: true, proposed: None }
    }
}

impl Doubt {
    /// *Out of sync* was accepted for `generation`: what names this or an older one can only be refused.
    fn is_out(&mut self, generation: SyncGeneration) {
        self.predecessor = false;
        self.proposed = self.proposed.filter(|proposed| *proposed > generation);
    }

    const fn is_none(self) -> bool {
        !self.predecessor && self.proposed.is_none()
    }
}

/// Number of the newest canary, and whether one is being committed.
#[derive(Debug, Default)]
pub(super) struct Canaries {
    newest: AtomicU64,
    busy: AtomicBool,
    end: Notify,
}

impl Canaries {
    /// The next number, above `applied`, unless a canary is being committed. End it with [`Canaries::ended`].
    pub(super) fn begin(&self, applied: u64) -> Option<u64> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.newest.fetch_max(applied, Ordering::AcqRel);
        Some(self.newest.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Takes the place of a canary as soon as none is being committed. End it with [`Canaries::ended`], too.
    pub(super) async fn keep_out(&self) {
        loop {
            // Before the look: from here on no end is missed.
            let end = self.end.notified();
            if self.begin(0).is_some() {
                return;
            }
            end.await;
        }
    }

    pub(super) fn ended(&self) {
        self.busy.store(false, Ordering::Release);
        self.end.notify_waiters();
    }
}

impl Settlement {
    /// Excludes in-sync proposals and everybody else who changes semi-sync's source side.
    pub(super) async fn exclusive(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.alone).lock_owned().await
    }

    /// Call before `command` is proposed; hold what comes back until its fate is known.
    ///
    /// # Errors
    /// Says why a replica is not proved to be in sync; then nothing may be proposed.
    pub(super) async fn before(&self, context: &Context, command: &Command) -> Result<Settling, String> {
        match command {
            Command::SyncIn { generation, .. } => {
                let alone = self.exclusive().await;
                self.prove(context, *generation).await?;
                self.doubt().proposed = Some(*generation);
                Ok(Settling(Some((alone, Arc::clone(&self.doubt)))))
            }
            Command::Bootstrap { .. }
            | Command::StartRun { .. }
            | Command::Journal { .. }
            | Command::AbandonRun { .. }
            | Command::AbortRun { .. }
            | Command::AcknowledgeRun { .. }
            | Command::AcceptLoss { .. }
            | Command::WithdrawLoss { .. }
            | Command::SyncOut { .. }
            | Command::Release { .. }
            | Command::Drill { .. }
            | Command::Pause { .. }
            | Command::ClaimPause { .. }
            | Command::Resume { .. }
            | Command::EndPause { .. }
            | Command::ExpirePause { .. } => Ok(Settling(None)),
        }
    }

    /// *Out of sync* was accepted for `generation`.
    pub(super) fn is_out(&self, generation: SyncGeneration) {
        self.doubt().is_out(generation);
    }

    /// No in-sync proposal can still be applied. Only worth something under the lock.
    pub(super) fn is_settled(&self) -> bool {
        self.doubt().is_none()
    }

    fn doubt(&self) -> std::sync::MutexGuard<'_, Doubt> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn prove(&self, context: &Context, generation: SyncGeneration) -> Result<(), String> {
        let mysql = context.hands.mysql.as_ref().ok_or("no MySQL is configured")?;
        let is_newest = context.consensus.committed().borrow().ledger.sync_generation == generation;
        if !is_newest {
            return Err("the flag has changed since".to_owned());
        }
        let failed = |error| chain(&error);
        let before = mysql.facts(PROOF_DEADLINE).await.map_err(failed)?;
        let number = self.canary.begin(before.canary_applied).ok_or("a canary is on its way")?;
        let committed = mysql.canary(number, PROOF_DEADLINE).await;
        self.canary.ended();
        committed.map_err(failed)?;
        let after = mysql.facts(PROOF_DEADLINE).await.map_err(failed)?;
        acknowledged(&before.semi_sync, &after.semi_sync)
    }
}

/// What was committed between the two looks waited for one replica, and got its acknowledgement.
fn acknowledged(before: &SemiSyncFacts, after: &SemiSyncFacts) -> Result<(), String> {
    for look in [before, after] {
        if !(look.source_enabled && look.source_on && look.variables_as_wanted && look.clients == 1) {
            return Err(format!("semi-sync is not as it must be: {look:?}"));
        }
    }
    if after.no_tx != before.no_tx {
        return Err(format!(
            "{} commits went on without the replica",
            after.no_tx.saturating_sub(before.no_tx)
        ));
    }
    if after.yes_tx <= before.yes_tx {
        return Err("the canary was not counted as acknowledged".to_owned());
    }
    Ok(())
}

/// A proposal under way.
#[derive(Debug)]
pub(super) struct Settling(Option<(OwnedMutexGuard<()>, Arc<Mutex<Doubt>>)>);

impl Settling {
    /// The proposal's fate; `None`: unknown, so it stays in doubt.
    pub(super) fn settle(self, accepted: Option<bool>) {
        if let (Some((_alone, doubt)), Some(_)) = (self.0, accepted) {
            doubt.lock().unwrap_or_else(PoisonError::into_inner).proposed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on() -> SemiSyncFacts {
        SemiSyncFacts {
            source_enabled: true,
            source_on: true,
            clients: 1,
            yes_tx: 7,
            variables_as_wanted: true,
            ..SemiSyncFacts::default()
        }
    }

    #[test]
    fn a_canary_proves_only_when_it_was_counted_as_acknowledged() {
        let before = on();
        let after = SemiSyncFacts { yes_tx: 8, ..on() };
        assert_eq!(acknowledged(&before, &after), Ok(()));
        assert!(acknowledged(&before, &on()).is_err(), "nothing was acknowledged");
        assert!(
            acknowledged(&before, &SemiSyncFacts { no_tx: 1, ..after.clone() }).is_err(),
            "one went on alone"
        );
        assert!(acknowledged(&before, &SemiSyncFacts { source_on: false, ..after.clone() }).is_err());
        assert!(acknowledged(&SemiSyncFacts { clients: 0, ..before }, &after).is_err());
        assert!(
            acknowledged(&on(), &SemiSyncFacts { clients: 2, ..after }).is_err(),
            "whose acknowledgement?"
        );
    }

    #[test]
    fn an_accepted_out_settles_what_named_its_generation_or_an_older_one() {
        let mut doubt = Doubt::default();
        assert!(!doubt.is_none(), "an earlier agent may have left a proposal");
        doubt.is_out(SyncGeneration(4));
        assert!(doubt.is_none());
        doubt.proposed = Some(SyncGeneration(5));
        doubt.is_out(SyncGeneration(4));
        assert!(!doubt.is_none(), "a newer proposal may still be applied");
        doubt.is_out(SyncGeneration(5));
        assert!(doubt.is_none());
    }

    #[test]
    fn one_canary_at_a_time_and_numbers_rise() {
        let canary = Canaries::default();
        assert_eq!(canary.begin(41), Some(42));
        assert_eq!(canary.begin(41), None);
        canary.ended();
        assert_eq!(canary.begin(41), Some(43));
    }

    #[tokio::test]
    async fn whoever_keeps_canaries_out_waits_for_the_one_under_way() {
        let canary = Arc::new(Canaries::default());
        assert_eq!(canary.begin(0), Some(1));
        let waiting = Arc::clone(&canary);
        let kept_out = tokio::spawn(async move { waiting.keep_out().await });
        // One thread: it runs until it waits.
        tokio::task::yield_now().await;
        assert!(!kept_out.is_finished(), "a canary is under way");
        canary.ended();
        tokio::time::timeout(Duration::from_secs(10), kept_out).await.expect("it is told").unwrap();
        assert_eq!(canary.begin(0), None, "kept out");
        canary.ended();
        assert!(canary.begin(0).is_some());
    }
}
