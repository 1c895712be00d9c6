//! The in-sync keeper: the holder's side of the rule that no acknowledged write is lost (design, section 6).
//!
//! ```text
//!             waits for patience, or something moved            applied
//!   in sync ─────────────────────────────────────▶ ProposeOut ──────────▶ out: SourceOff releases the waiting commits
//!      ▲                                                                        │ replica follows and has caught up
//!      │ applied                     canary received, counters unmoved          ▼
//!   ProposeIn ◀──────────────────────────────────────────────── SourceOn, then Canary
//! ```
//!
//! The order is the safety: the ledger says *out of sync* before a single commit goes on alone, and says *in sync* only
//! after a commit that was made under semi-sync has been received.

use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::model::{Instance, Mono, NodeId};
use crate::observe::{MysqlFacts, SemiSyncFacts};

/// What the holder does about semi-sync now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "keep")]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Propose *replica out of sync*. Nothing else may change before it is applied.
    ProposeOut {
        /// Why.
        reason: String,
        /// The counters moved by themselves: close the ports first and ask afterwards.
        close_ports: bool,
    },
    /// Switch semi-sync's source side off: the ledger says *out of sync*.
    SourceOff,
    /// Switch semi-sync's source side on: the replica has caught up.
    SourceOn,
    /// Commit a canary under semi-sync.
    Canary,
    /// Propose *in sync*: the replica received the canary.
    ProposeIn {
        /// The replica.
        replica: NodeId,
        /// Start identity that was reported together with the canary.
        instance: Instance,
    },
}

/// An attempt to get in sync.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    began_at: Mono,
    no_tx: u64,
    canary: Option<u64>,
}

/// What the keeper weighs.
#[derive(Debug)]
pub struct KeepFacts<'a> {
    /// The present instant.
    pub now: Mono,
    /// The committed state.
    pub ledger: &'a Ledger,
    /// This node serves: it holds the baton, the epoch is open, the lease is valid.
    pub serving: bool,
    /// Newest facts of the local primary.
    pub primary: Option<&'a MysqlFacts>,
    /// The replica, its newest facts, and how many milliseconds old they are.
    pub replica: Option<(&'a NodeId, u64, Option<&'a MysqlFacts>)>,
    /// This node's address, as the replica follows it.
    pub own_address: &'a str,
    /// The newest canary whose commit was begun here.
    pub canary_started: u64,
    /// The newest canary whose commit ended here.
    pub canary_committed: u64,
}

/// Milliseconds that an attempt to get in sync may take before it is given up.
const ATTEMPT_MAX_MS: u64 = 10_000;

/// Transactions received and not applied that a replica may have when the attempt begins.
const BACKLOG_MAX: u64 = 1_000;

/// The keeper. Lives on the holder; a new one begins at each start of the agent.
#[derive(Debug)]
pub struct Keeper {
    patience_ms: u64,
    report_max_ms: u64,
    in_since: Option<(crate::model::SyncGeneration, u64)>,
    acknowledged: Option<(u64, Mono)>,
    gone_since: Option<Mono>,
    /// Before an attempt, the replica must have applied this canary: it was begun after the flag was lost.
    proof: Option<u64>,
    attempt: Option<Attempt>,
}

impl Keeper {
    /// A keeper that waits `patience_ms` for an acknowledgement and trusts reports up to `report_max_ms` old.
    #[must_use]
    pub const fn new(patience_ms: u64, report_max_ms: u64) -> Self {
        Self {
            patience_ms,
            report_max_ms,
            in_since: None,
            acknowledged: None,
            gone_since: None,
            proof: None,
            attempt: None,
        }
    }

    /// What the holder does now.
    pub fn keep(&mut self, facts: &KeepFacts<'_>) -> Keep {
        let Some(primary) = facts.primary.filter(|_| facts.serving) else {
            self.in_since = None;
            self.acknowledged = None;
            self.gone_since = None;
            self.proof = None;
            self.attempt = None;
            return Keep::Nothing;
        };
        let stalled = self.stalled(&primary.semi_sync, facts.now);
        if facts.ledger.has_replica_in_sync() {
            return self.guard(facts, &primary.semi_sync, stalled);
        }
        self.in_since = None;
        self.regain(facts, primary, stalled)
    }

    /// Commits wait, or no replica is attached, and nothing was acknowledged for `sync_patience`.
    fn stalled(&mut self, semi: &SemiSyncFacts, now: Mono) -> bool {
        let moved = self.acknowledged.is_none_or(|(yes_tx, _)| yes_tx != semi.yes_tx);
        if moved || semi.waiting == 0 {
            self.acknowledged = Some((semi.yes_tx, now));
        }
        if semi.clients > 0 || !semi.source_enabled {
            self.gone_since = None;
        } else {
            self.gone_since.get_or_insert(now);
        }
        let waits = self.acknowledged.is_some_and(|(_, at)| now.since_ms(at) >= self.patience_ms);
        let gone = self.gone_since.is_some_and(|at| now.since_ms(at) >= self.patience_ms);
        waits || gone
    }

    /// In sync: watch that what the flag promises stays true.
    fn guard(&mut self, facts: &KeepFacts<'_>, semi: &SemiSyncFacts, stalled: bool) -> Keep {
        let generation = facts.ledger.sync_generation;
        let no_tx = match self.in_since {
            Some((of, no_tx)) if of == generation => no_tx,
            Some(_) | None => {
                // The count at the start of the attempt, so that nothing slips in between proposal and apply.
                let no_tx = self.attempt.take().map_or(semi.no_tx, |attempt| attempt.no_tx);
                self.in_since = Some((generation, no_tx));
                no_tx
            }
        };
        self.proof = None;
        let moved = if semi.no_tx != no_tx {
            Some(format!("{} commits went on without the replica", semi.no_tx.saturating_sub(no_tx)))
        } else if !semi.source_enabled || !semi.source_on {
            Some("semi-sync was switched off by somebody else".to_owned())
        } else if !semi.variables_as_wanted {
            Some("semi-sync's variables were changed by somebody else".to_owned())
        } else {
            None
        };
        if let Some(reason) = moved {
            return Keep::ProposeOut { reason, close_ports: true };
        }
        if stalled {
            let reason = format!("the replica acknowledged nothing for {} ms", self.patience_ms);
            return Keep::ProposeOut { reason, close_ports: false };
        }
        Keep::Nothing
    }

    /// Out of sync: release what waits, and get in sync again when the replica is there.
    fn regain(&mut self, facts: &KeepFacts<'_>, primary: &MysqlFacts, stalled: bool) -> Keep {
        let semi = &primary.semi_sync;
        let proof = *self.proof.get_or_insert(facts.canary_started + 1);
        let ready = self.ready_replica(facts);
        let Some((node, replica)) = ready.filter(|_| !stalled) else {
            self.give_up();
            return if semi.source_enabled { Keep::SourceOff } else { Keep::Nothing };
        };
        if self.attempt.is_none() && replica.canary_applied < proof {
            return if semi.source_enabled { Keep::SourceOff } else { Keep::Nothing };
        }
        let Some(attempt) = &mut self.attempt else {
            self.attempt = Some(Attempt { began_at: facts.now, no_tx: semi.no_tx, canary: None });
            return Keep::SourceOn;
        };
        if facts.now.since_ms(attempt.began_at) > ATTEMPT_MAX_MS {
            self.give_up();
            return Keep::SourceOff;
        }
        if !semi.source_enabled || !semi.variables_as_wanted {
            return Keep::SourceOn;
        }
        if !semi.source_on || semi.clients != 1 {
            // The status follows the next commit, so a canary has to be written to see it (databases.md, 0.7).
            attempt.no_tx = semi.no_tx;
            attempt.canary = None;
            return Keep::Canary;
        }
        match attempt.canary {
            None => {
                attempt.no_tx = semi.no_tx;
                attempt.canary = Some(facts.canary_started + 1);
                Keep::Canary
            }
            Some(_) if semi.no_tx != attempt.no_tx => {
                attempt.canary = None;
                Keep::Nothing
            }
            Some(canary) if facts.canary_committed >= canary && replica.canary_applied >= canary => {
                Keep::ProposeIn { replica: node.clone(), instance: replica.instance.clone() }
            }
            Some(canary) if facts.canary_committed < canary => Keep::Canary,
            Some(_) => Keep::Nothing,
        }
    }

    /// Ends the attempt; the next one wants a canary that is begun from now on.
    fn give_up(&mut self) {
        if self.attempt.take().is_some() {
            self.proof = None;
        }
    }

    /// The replica that follows this node, runs both threads, and has almost caught up.
    fn ready_replica<'a>(&self, facts: &KeepFacts<'a>) -> Option<(&'a NodeId, &'a MysqlFacts)> {
        let (node, age_ms, mysql) = facts.replica?;
        let mysql = mysql.filter(|_| age_ms <= self.report_max_ms)?;
        let replication = mysql.replication.as_ref()?;
        let runs =
            replication.io_running && replication.sql_running && replication.source_host == facts.own_address;
        let fit = runs
            && mysql.read_only
            && mysql.semi_sync.replica_enabled
            && !mysql.semi_sync.source_enabled
            && mysql.apply_backlog.unwrap_or(0) <= BACKLOG_MAX;
        fit.then_some((node, mysql))
    }
}
