//! The pure core of an agent: one input in, outputs out.
//!
//! The driver's contract, in this order:
//! 1. Take exactly one input, stamp it with the present instant, append it to the flight recorder.
//! 2. Feed it to [`Agent::handle`]: one mutation.
//! 3. Carry out every output that came back, in order. A proposal runs outside; its fate comes back as
//!    [`Input::Proposed`], what it changed as [`Input::Committed`]. An effect is only ever asked for by an output that was
//!    made from a *committed* ledger.
//! 4. Feed [`Input::Tick`] at least every [`TICK_MAX_MS`], and at [`Agent::lease_ends_at`], so that deadlines are seen.
//!
//! ```text
//! Observed ─▶ Detector ─▶ decide_local ─▶ Wish ─────────────▶ hands, level-triggered
//! Report, Committed, Office, Lease ─▶ decide ─▶ Propose ─▶ Raft ─▶ Committed ─▶ Run::next ─▶ RunStep ─▶ StepEnded ─▶ Propose
//! ```

mod keeping;
mod lead;
mod looks;
mod message;
mod pausing;
mod proposals;
mod redis;
mod report;
#[cfg(test)]
mod sample;
mod services;
mod steps;
mod suspicions;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decide::local::{LocalFacts, Role, Wish, decide_local};
use crate::decide::loss::Canaries;
use crate::decide::{Decision, Failure, Heard};
use crate::detect::{Detector, ServiceWatch};
use crate::exposure::Following;
use crate::lease::granter::Office;
use crate::ledger::Ledger;
use crate::ledger::command::Command;
use crate::model::{Mono, NodeId, RunId, SyncGeneration, WallMs};
use crate::observe::{Observation, RedisBoot, ServiceState};
use crate::plan::Runbook;
use crate::run::{Run, RunState};
use crate::sync::{Keep, Keeper};
pub use looks::WORD_MAX_MS;
pub use message::{Input, LeaseFacts, Output, Setup, Stamped, StepResult};
use proposals::{Purpose, Releasing};
use steps::Steps;
use suspicions::Suspicions;
pub use suspicions::{SUSPICIONS_MAX, Suspicion};

/// The driver ticks at least this often, in milliseconds. Longer, and what is late is noticed late (never early). The end
/// of a lease does not wait for it: see [`Agent::lease_ends_at`].
pub const TICK_MAX_MS: u64 = 100;

/// The core.
#[derive(Debug)]
pub struct Agent {
    setup: Setup,
    ledger: Arc<Ledger>,
    applied: u64,
    office: Office,
    lease: LeaseFacts,
    detector: Detector,
    keeper: Keeper,
    reports: BTreeMap<NodeId, Heard>,
    services: BTreeMap<String, ServiceState>,
    service_watch: ServiceWatch,
    redis_served: Option<redis::Served>,
    redis_boot: Option<RedisBoot>,
    steps: Steps,
    failures: Vec<Failure>,
    opened: Option<String>,
    writable_boot: Option<String>,
    canary: (u64, u64),
    /// A release of this epoch was proposed and has not been refused: nothing may open in it any more.
    releasing: Option<Releasing>,
    tickets: u64,
    /// Proposals in flight, each with the number of the ledger from which it was made.
    pending: BTreeMap<u64, (Purpose, u64)>,
    /// Raised whenever another ledger arrives.
    ledgers: u64,
    /// Purposes whose last proposal has ended and does not show yet, and when they may be proposed again.
    cooling: BTreeMap<Purpose, Mono>,
    /// The newest order about semi-sync and when it was given.
    kept: Option<(Keep, Mono)>,
    /// What moved in semi-sync while the ledger says *in sync*.
    semi_sync_broken: Option<String>,
    /// Whether this leader suspects that the holder is lost, and when it did.
    suspicions: Suspicions,
    canaries: Canaries,
    following: Following,
    /// The operator's word that stands in the ledger, and since when this node sees it.
    word: Option<(SyncGeneration, Mono)>,
    /// The first input.
    began_at: Option<Mono>,
    wish: Option<Wish>,
    decision: Option<Decision>,
}

impl Agent {
    /// A core that knows nothing yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            detector: Detector::new(setup.patience),
            keeper: Keeper::new(setup.sync_patience_ms, setup.policy.report_max_ms),
            opened: setup.opened.clone(),
            writable_boot: setup.writable_boot.clone(),
            redis_boot: setup.redis_boot.clone(),
            setup,
            ledger: Arc::default(),
            applied: 0,
            office: Office::default(),
            lease: LeaseFacts::default(),
            reports: BTreeMap::new(),
            services: BTreeMap::new(),
            service_watch: ServiceWatch::default(),
            redis_served: None,
            steps: Steps::default(),
            failures: Vec::new(),
            canary: (0, 0),
            releasing: None,
            tickets: 0,
            pending: BTreeMap::new(),
            ledgers: 0,
            cooling: BTreeMap::new(),
            kept: None,
            semi_sync_broken: None,
            suspicions: Suspicions::default(),
            canaries: Canaries::default(),
            following: Following::default(),
            word: None,
            began_at: None,
            wish: None,
            decision: None,
        }
    }

    /// Takes one input and says what is to be done.
    pub fn handle(&mut self, stamped: Stamped) -> Vec<Output> {
        let Stamped { now, wall, input } = stamped;
        let mut out = Vec::new();
        self.began_at.get_or_insert(now);
        if !self.cooling.is_empty() {
            self.cooling.retain(|_, until| now < *until);
        }
        self.take(input, now, wall, &mut out);
        self.follow_run(wall, &mut out);
        self.look_after_itself(now, &mut out);
        self.look_after_pause(wall, &mut out);
        self.lead(now, wall, &mut out);
        out
    }

    /// The next instant after `now` at which a lease ends, or may be taken over: the driver ticks then, since every
    /// millisecond that passes unnoticed is outage.
    #[must_use]
    pub fn lease_ends_at(&self, now: Mono) -> Option<Mono> {
        let LeaseFacts { held, takeover_at, released_at, pause_over, long, .. } = &self.lease;
        let of_pause = |pause: &Option<(_, Mono)>| pause.map(|(_, at)| at);
        let ends = [held.map(|(_, at)| at), *takeover_at, *released_at, of_pause(pause_over), of_pause(long)];
        ends.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// The committed state as this node knows it.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The newest report of every node that was heard.
    #[must_use]
    pub const fn reports(&self) -> &BTreeMap<NodeId, Heard> {
        &self.reports
    }

    /// For how long the Redis of `node` was not seen to follow before the holder's was last seen to take writes, in milliseconds;
    /// `None`: not longer than a moment.
    #[must_use]
    pub fn redis_unfollowed_ms(&self, node: &NodeId) -> Option<u64> {
        self.following.unfollowed_ms(self.ledger.epoch, node)
    }

    /// The newest decision of this node as a leader.
    #[must_use]
    pub const fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// Suspicions of this leader that came to nothing, oldest first.
    pub fn suspicions(&self) -> impl Iterator<Item = &Suspicion> {
        self.suspicions.ended().iter()
    }

    /// What this node is to be.
    #[must_use]
    pub const fn wish(&self) -> Option<&Wish> {
        self.wish.as_ref()
    }

    /// What this node sees of itself.
    #[must_use]
    pub const fn detector(&self) -> &Detector {
        &self.detector
    }

    fn take(&mut self, input: Input, now: Mono, wall: WallMs, out: &mut Vec<Output>) {
        match input {
            Input::Tick => {}
            Input::Observed { observation } => self.observe(&observation, now),
            Input::Report { report } => {
                if self.ledger.holder.as_ref() == Some(&report.node) {
                    self.canaries.hear(self.ledger.epoch, &report, now);
                }
                if self.setup.redis {
                    self.following.hear(&self.ledger, &report, now);
                }
                self.reports.insert(report.node.clone(), Heard { at: now, report });
            }
            Input::Committed { index, ledger } => self.committed(index, ledger, now),
            Input::Office { office } => self.office = office,
            Input::Lease { lease } => self.lease = *lease,
            Input::Proposed { ticket, accepted } => self.proposed(ticket, accepted, now),
            Input::StepEnded { run, epoch, step, attempt, undo, result } => {
                self.step_ended((run, epoch, step, attempt), undo, result, wall, out);
            }
            Input::Opening { server } => self.opened = Some(server),
            Input::Canary { number, committed } => {
                self.canary.0 = self.canary.0.max(number);
                if committed {
                    self.canary.1 = self.canary.1.max(number);
                }
            }
        }
    }

    fn observe(&mut self, observation: &Observation, now: Mono) {
        if let Observation::Service { name, state } = observation {
            self.services.insert(name.clone(), state.clone());
            self.watch_service(name, state, now);
        }
        if let Observation::Mysql { facts } = observation {
            // An earlier agent, or an earlier holder, may have written canaries: numbers go on from there.
            self.canary.0 = self.canary.0.max(facts.canary_applied);
            let server = &facts.instance.server;
            if !facts.read_only && self.opened.as_ref() != Some(server) {
                self.writable_boot = Some(server.clone());
            } else if self.writable_boot.as_ref() != Some(server) {
                self.writable_boot = None;
            }
        }
        self.detector.observe(observation, now);
        if let Observation::Redis { facts } = observation {
            self.judge_redis(facts);
            self.watch_redis(facts, now);
        }
    }

    fn committed(&mut self, index: u64, ledger: Arc<Ledger>, now: Mono) {
        if index < self.applied {
            return;
        }
        if self.ledger != ledger {
            self.cooling.clear();
            self.ledgers += 1;
        }
        let newest = self.newest_ended();
        for ended in ledger.history.iter().filter(|ended| ended.run.id > newest) {
            let failed = match ended.state {
                RunState::RolledBack | RunState::Abandoned | RunState::NeedsOperator { .. } => true,
                RunState::Running | RunState::Undoing | RunState::Completed | RunState::Degraded => false,
            };
            let counts = ended.run.plan.runbook == Runbook::Takeover;
            if failed && counts && self.applied > 0 {
                self.failures.push(Failure { at: now, target: ended.run.plan.to.clone() });
            }
        }
        let window_ms = self.setup.policy.anti_flap_ms;
        self.failures.retain(|failure| now.since_ms(failure.at) < window_ms);
        self.steps.follow(&self.setup.me, ledger.run.as_ref(), now);
        // A pause that began since refuses every earlier word.
        self.releasing = self.releasing.filter(|releasing| releasing.pauses == ledger.pauses);
        self.ledger = ledger;
        self.applied = index;
    }

    fn newest_ended(&self) -> RunId {
        self.ledger.history.last().map_or(RunId(0), |ended| ended.run.id)
    }

    /// decide_local, and the keeper when this node serves.
    fn look_after_itself(&mut self, now: Mono, out: &mut Vec<Output>) {
        if self.applied == 0 {
            return;
        }
        let wish = self.local_wish(now);
        let serving = match wish.role {
            Role::Serving { .. } => true,
            Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } | Role::Receiving { .. } => false,
        };
        // A holder that is closed for a switchover acknowledges nothing: there is nothing to keep.
        let handing_over = serving && self.ledger.run.as_ref().is_some_and(Run::is_handing_over);
        let keep = self.weigh_sync(serving && !handing_over, now);
        let broken = match &keep {
            Keep::ProposeOut { reason, close_ports: true } => Some(reason.clone()),
            // Not opened while somebody may still be told that every commit waits for the replica.
            Keep::ProposeOut { reason, close_ports: false } if self.is_unopened() => Some(reason.clone()),
            Keep::Nothing if serving && self.is_unseen() => {
                Some("the database has not been seen since the agent started".to_owned())
            }
            Keep::ProposeOut { close_ports: false, .. }
            | Keep::Nothing
            | Keep::SourceOff
            | Keep::SourceOn
            | Keep::Canary
            | Keep::ProposeIn { .. } => None,
        };
        // Nothing else that the wish depends on has changed since.
        let wish = if self.semi_sync_broken == broken {
            wish
        } else {
            self.semi_sync_broken = broken;
            self.local_wish(now)
        };
        if self.wish.as_ref() != Some(&wish) {
            self.wish = Some(wish.clone());
            out.push(Output::Wish { wish: wish.clone() });
        }
        self.note_redis();
        if let Some(why) = wish.release {
            let epoch = self.ledger.epoch;
            if self.may_propose(&Purpose::Release(epoch)) {
                self.releasing = Some(Releasing::again(self.releasing, epoch, self.ledger.pauses));
                let (by, boot, pauses) = (self.setup.me.clone(), self.setup.boot, self.ledger.pauses);
                let command = Command::Release { epoch, by, boot, pauses, why };
                self.propose(Purpose::Release(epoch), command, None, None, out);
            }
        }
        self.keep_in_sync(keep, now, out);
    }

    fn local_wish(&self, now: Mono) -> Wish {
        let fresh = |at: &Mono| now.since_ms(*at) <= self.setup.policy.report_max_ms;
        let facts = self.detector.mysql_facts().filter(|(at, _)| fresh(at));
        let waiting = facts.map_or(0, |(_, facts)| facts.semi_sync.waiting);
        decide_local(&LocalFacts {
            now,
            me: &self.setup.me,
            ledger: &self.ledger,
            lease: self.valid_lease(),
            detector: &self.detector,
            boots_writable: self.boots_writable(),
            redis_boots_open: self.redis_boots_open(),
            waiting,
            semi_sync_broken: self.semi_sync_broken.as_deref(),
            service_lost: self.service_lost(now),
            redis_empty: self.redis_empty(now),
            redis_restarted: self.redis_restarted(now),
            redis_server: self.redis_server(),
            gateway_lost: self.gateway_lost(now),
            other_lacks: &|| self.other_lacks(now),
            releasing: self.releasing.map(|releasing| releasing.epoch),
            mysql: self.setup.policy.scope.mysql,
            redis: self.setup.redis,
        })
    }

    fn boots_writable(&self) -> bool {
        let server = self.detector.mysql_facts().map(|(_, facts)| &facts.instance.server);
        self.writable_boot.is_some() && self.writable_boot.as_ref() == server
    }
}
