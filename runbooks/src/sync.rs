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
//! after a commit that was made under semi-sync has been received. Between `ProposeIn` and its fate, which may never be
//! known, both must be taken to be true: semi-sync stays on until an *out of sync* that this keeper proposed has been
//! accepted. The same holds at the start of an agent, whose predecessor may have left a proposal on its way.

mod stall;

use serde::{Deserialize, Serialize};

use self::stall::{CanaryCommits, Stall};
use crate::ledger::{Complete, Ledger};
use crate::model::{Instance, Mono, NodeId, SyncGeneration};
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
    generation: SyncGeneration,
    no_tx: u64,
    /// The canary that counts, and the replica's start when it was begun: what another start received may be lost again.
    canary: Option<(u64, Instance)>,
}

/// The count of unacknowledged commits that must not move: of which server, and since which generation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Baseline {
    generation: SyncGeneration,
    server: String,
    no_tx: u64,
    since: Mono,
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
    /// The local database was started since it was last opened for writing: no commit has been made there yet.
    pub unopened: bool,
    /// Newest facts of the local primary, and when they were seen.
    pub primary: Option<(Mono, &'a MysqlFacts)>,
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

/// After an attempt that failed, or that was lost again soon, the next one waits this long, in milliseconds; doubled with
/// every further one. Every attempt may hold commits up for `sync_patience`, so a replica that follows and never
/// acknowledges, or freezes again and again, costs ever less.
const RETRY_MIN_MS: u64 = 2_000;

/// The longest wait between attempts, in milliseconds.
const RETRY_MAX_MS: u64 = 300_000;

/// In sync for this long, in milliseconds, and earlier failures are forgotten.
const STEADY_MS: u64 = 60_000;

/// The keeper. Lives on the holder; a new one begins at each start of the agent.
#[derive(Debug)]
pub struct Keeper {
    patience_ms: u64,
    report_max_ms: u64,
    baseline: Option<Baseline>,
    stall: Stall,
    /// Before an attempt, the replica must have applied this canary: it was begun after the flag was lost.
    proof: Option<u64>,
    attempt: Option<Attempt>,
    /// In this generation no in-sync proposal can be under way: it began with an *out of sync* of this keeper's own, and
    /// this keeper proposed nothing since. Only then may semi-sync be switched off.
    settled: Option<SyncGeneration>,
    failures: u32,
    retry_at: Option<Mono>,
}

impl Keeper {
    /// A keeper that waits `patience_ms` for an acknowledgement and trusts reports up to `report_max_ms` old.
    #[must_use]
    pub const fn new(patience_ms: u64, report_max_ms: u64) -> Self {
        Self {
            patience_ms,
            report_max_ms,
            baseline: None,
            stall: Stall::new(),
            proof: None,
            attempt: None,
            settled: None,
            failures: 0,
            retry_at: None,
        }
    }

    /// The ledger accepted this keeper's own *out of sync* for `generation`.
    pub fn settle(&mut self, generation: SyncGeneration) {
        self.settled = self.settled.max(Some(generation.next()));
    }

    /// What the holder does now.
    pub fn keep(&mut self, facts: &KeepFacts<'_>) -> Keep {
        let Some((at, primary)) = facts.primary.filter(|_| facts.serving) else {
            self.stall = Stall::new();
            self.proof = None;
            self.attempt = None;
            return Keep::Nothing;
        };
        let canary = CanaryCommits { started: facts.canary_started, committed: facts.canary_committed };
        let stalled = self.stall.look(&primary.semi_sync, canary, at, self.patience_ms);
        // Old facts are no proof that the database is still there: then the loss may be accepted for good reason.
        let seen = facts.now.since_ms(at) <= self.report_max_ms;
        if seen && facts.ledger.has_accepted_loss() {
            let reason = "the holder serves: no loss has to be accepted".to_owned();
            return Keep::ProposeOut { reason, close_ports: false };
        }
        if facts.ledger.has_replica_in_sync() {
            return self.guard(facts, primary, stalled);
        }
        self.regain(facts, primary, stalled)
    }

    /// In sync: watch that what the flag promises stays true.
    fn guard(&mut self, facts: &KeepFacts<'_>, primary: &MysqlFacts, stalled: Option<String>) -> Keep {
        let semi = &primary.semi_sync;
        let since = self.follow_baseline(facts, primary);
        self.proof = None;
        self.attempt = None;
        let steady = facts.now.since_ms(since) >= STEADY_MS;
        if steady {
            self.failures = 0;
        }
        if let Some(reason) = self.moved(semi) {
            return Keep::ProposeOut { reason, close_ports: true };
        }
        if let Some(reason) = self.replaced(facts) {
            return Keep::ProposeOut { reason, close_ports: false };
        }
        if let Some(reason) = stalled {
            if !steady {
                self.delay(facts.now);
            }
            return Keep::ProposeOut { reason, close_ports: false };
        }
        Keep::Nothing
    }

    /// The baseline of this generation: the count at the canary that proved it, so that nothing slips in between proposal
    /// and apply. A server that was started since counts from 0.
    fn follow_baseline(&mut self, facts: &KeepFacts<'_>, primary: &MysqlFacts) -> Mono {
        let generation = facts.ledger.sync_generation;
        let server = &primary.instance.server;
        let known = self.baseline.as_ref().filter(|old| old.generation == generation);
        if let Some(same) = known.filter(|old| old.server == *server) {
            return same.since;
        }
        let no_tx = if known.is_some() { 0 } else { primary.semi_sync.no_tx };
        let since = known.map_or(facts.now, |old| old.since);
        self.baseline = Some(Baseline { generation, server: server.clone(), no_tx, since });
        since
    }

    fn moved(&self, semi: &SemiSyncFacts) -> Option<String> {
        let no_tx = self.baseline.as_ref().map_or(semi.no_tx, |baseline| baseline.no_tx);
        if semi.no_tx != no_tx {
            Some(format!("{} commits went on without the replica", semi.no_tx.saturating_sub(no_tx)))
        } else if !semi.source_enabled || !semi.source_on {
            Some("semi-sync was switched off by somebody else".to_owned())
        } else if !semi.variables_as_wanted {
            Some("semi-sync's variables were changed by somebody else".to_owned())
        } else if semi.clients > 1 {
            Some("another semi-sync replica is attached, and its acknowledgement counts too".to_owned())
        } else {
            None
        }
    }

    /// The replica runs, and is not the instance that the ledger vouches for: it has to prove itself again, or it stays
    /// unfit for ever behind a flag that says otherwise.
    fn replaced(&self, facts: &KeepFacts<'_>) -> Option<String> {
        let (node, age_ms, mysql) = facts.replica?;
        let now = &mysql.filter(|_| age_ms <= self.report_max_ms)?.instance;
        match facts.ledger.in_sync.get(node)? {
            Complete::Replica { instance } if instance != now => {
                Some(format!("{node} was restarted: it was {instance}, it is {now}"))
            }
            Complete::Replica { .. } | Complete::Holder | Complete::Accepted { .. } => None,
        }
    }

    /// Out of sync: release what waits, and get in sync again when the replica is there.
    fn regain(&mut self, facts: &KeepFacts<'_>, primary: &MysqlFacts, stalled: Option<String>) -> Keep {
        let semi = &primary.semi_sync;
        let generation = facts.ledger.sync_generation;
        if self.attempt.as_ref().is_some_and(|attempt| attempt.generation != generation) {
            self.attempt = None;
            self.proof = None;
        }
        if facts.unopened && self.settled != Some(generation) {
            return settle_first();
        }
        if facts.ledger.pause.as_ref().is_some_and(|pause| pause.order.alone) {
            // An operator wants no replica to be waited for until the pause is over.
            self.proof = None;
            self.attempt = None;
            return self.off(semi, generation);
        }
        let proof = *self.proof.get_or_insert(newest_canary(facts, primary) + 1);
        let Some((node, replica)) = self.ready_replica(facts).filter(|_| stalled.is_none()) else {
            self.give_up(facts.now);
            return self.off(semi, generation);
        };
        let Some(attempt) = &mut self.attempt else {
            let waits = self.retry_at.is_some_and(|at| facts.now < at);
            if waits || replica.canary_applied < proof {
                return self.off(semi, generation);
            }
            if self.settled != Some(generation) {
                return settle_first();
            }
            self.attempt = Some(Attempt { began_at: facts.now, generation, no_tx: semi.no_tx, canary: None });
            return Keep::SourceOn;
        };
        if facts.now.since_ms(attempt.began_at) > ATTEMPT_MAX_MS {
            self.give_up(facts.now);
            return self.off(semi, generation);
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
        let Some((canary, instance)) = attempt.canary.clone() else {
            attempt.no_tx = semi.no_tx;
            attempt.canary = Some((newest_canary(facts, primary) + 1, replica.instance.clone()));
            return Keep::Canary;
        };
        if semi.no_tx != attempt.no_tx || replica.instance != instance {
            attempt.canary = None;
            return Keep::Nothing;
        }
        if facts.canary_committed < canary {
            return Keep::Canary;
        }
        // Both sides' figures must be younger than the canary: the count is the one *after* its commit.
        if primary.canary_applied < canary || replica.canary_applied < canary {
            return Keep::Nothing;
        }
        let (server, no_tx) = (primary.instance.server.clone(), attempt.no_tx);
        self.baseline = Some(Baseline { generation: generation.next(), server, no_tx, since: facts.now });
        self.settled = None;
        Keep::ProposeIn { replica: node.clone(), instance }
    }

    /// Switches semi-sync off, but not while an in-sync proposal of this or an earlier start of the agent may still be
    /// applied: it would vouch for a replica that misses what was acknowledged without it. Proposing *out of sync* once
    /// more raises the generation, so that the late one is refused.
    fn off(&self, semi: &SemiSyncFacts, generation: SyncGeneration) -> Keep {
        if !semi.source_enabled {
            Keep::Nothing
        } else if self.settled == Some(generation) {
            Keep::SourceOff
        } else {
            settle_first()
        }
    }

    /// Ends the attempt; the next one comes later, and wants a canary that is begun from now on.
    fn give_up(&mut self, now: Mono) {
        if self.attempt.take().is_some() {
            self.proof = None;
            self.delay(now);
        }
    }

    fn delay(&mut self, now: Mono) {
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let wait_ms = RETRY_MIN_MS.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now.plus_ms(wait_ms));
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
            && mysql.semi_sync.replica_on
            && !mysql.semi_sync.source_enabled
            && mysql.apply_backlog.unwrap_or(0) <= BACKLOG_MAX;
        fit.then_some((node, mysql))
    }
}

/// The newest canary that anybody can have begun, as far as this node knows; also by an earlier start of the agent.
fn newest_canary(facts: &KeepFacts<'_>, primary: &MysqlFacts) -> u64 {
    facts.canary_started.max(facts.canary_committed).max(primary.canary_applied)
}

fn settle_first() -> Keep {
    Keep::ProposeOut {
        reason: "settles what an earlier proposal of the flag may have left open".to_owned(),
        close_ports: false,
    }
}
