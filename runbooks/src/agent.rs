//! The pure core of an agent: one input in, outputs out.
//!
//! The driver's contract, in this order:
//! 1. Take exactly one input, stamp it with the present instant, append it to the flight recorder.
//! 2. Feed it to [`Agent::handle`]: one mutation.
//! 3. Carry out every output that came back, in order. A proposal runs outside; its fate comes back as
//!    [`Input::Proposed`], what it changed as [`Input::Committed`]. An effect is only ever asked for by an output that was
//!    made from a *committed* ledger.
//! 4. Feed [`Input::Tick`] at least every [`TICK_MAX_MS`], so that deadlines are seen.
//!
//! ```text
//! Observed ─▶ Detector ─▶ decide_local ─▶ Wish ─────────────▶ hands, level-triggered
//! Report, Committed, Office, Lease ─▶ decide ─▶ Propose ─▶ Raft ─▶ Committed ─▶ Run::next ─▶ RunStep ─▶ StepEnded ─▶ Propose
//! ```

mod keeping;
mod looks;
mod message;
mod pausing;
mod proposals;
mod report;
mod services;
mod steps;
mod suspicions;

use std::collections::BTreeMap;

use crate::decide::local::{LocalFacts, Role, Wish, decide_local};
use crate::decide::loss::Canaries;
use crate::decide::{Action, Decision, Facts, Failure, Heard, decide};
use crate::detect::{Detector, ServiceWatch};
use crate::lease::granter::Office;
use crate::ledger::Ledger;
use crate::ledger::command::Command;
use crate::model::{Epoch, Mono, NodeId, RunId, SyncGeneration, WallMs};
use crate::observe::{Observation, ServiceState};
use crate::plan::{Runbook, Step};
use crate::run::{Entry, Event, Run, RunState};
use crate::sync::{Keep, Keeper};
pub use looks::WORD_MAX_MS;
pub use message::{Input, LeaseFacts, Output, Setup, Stamped, StepResult};
use proposals::Purpose;
use steps::Steps;
use suspicions::Suspicions;
pub use suspicions::{SUSPICIONS_MAX, Suspicion};

/// The driver ticks at least this often, in milliseconds. Longer, and a lease's end is noticed late (never early).
pub const TICK_MAX_MS: u64 = 50;

/// The core.
#[derive(Debug)]
pub struct Agent {
    setup: Setup,
    ledger: Ledger,
    applied: u64,
    office: Office,
    lease: LeaseFacts,
    detector: Detector,
    keeper: Keeper,
    reports: BTreeMap<NodeId, Heard>,
    services: BTreeMap<String, ServiceState>,
    service_watch: ServiceWatch,
    steps: Steps,
    failures: Vec<Failure>,
    opened: Option<String>,
    writable_boot: Option<String>,
    canary: (u64, u64),
    /// A release of this epoch was proposed and has not been refused: nothing may open in it any more.
    releasing: Option<Epoch>,
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
            setup,
            ledger: Ledger::default(),
            applied: 0,
            office: Office::default(),
            lease: LeaseFacts::default(),
            reports: BTreeMap::new(),
            services: BTreeMap::new(),
            service_watch: ServiceWatch::default(),
            steps: Steps::default(),
            failures: Vec::new(),
            writable_boot: None,
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
        self.cooling.retain(|_, until| now < *until);
        self.take(input, now, wall, &mut out);
        self.follow_run(wall, &mut out);
        self.look_after_itself(now, &mut out);
        self.look_after_pause(wall, &mut out);
        self.lead(now, wall, &mut out);
        out
    }

    /// The committed state as this node knows it.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The newest report of every node that was heard.
    #[must_use]
    pub const fn reports(&self) -> &BTreeMap<NodeId, Heard> {
        &self.reports
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
                self.reports.insert(report.node.clone(), Heard { at: now, report: *report });
            }
            Input::Committed { index, ledger } => self.committed(index, *ledger, now),
            Input::Office { office } => self.office = office,
            Input::Lease { lease } => self.lease = lease,
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
    }

    fn committed(&mut self, index: u64, ledger: Ledger, now: Mono) {
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
        self.steps.follow(ledger.run.as_ref(), now);
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
        let handing_over = self.ledger.run.as_ref().is_some_and(Run::is_handing_over);
        let keep = self.weigh_sync(serving && !handing_over, now);
        let broken = match &keep {
            Keep::ProposeOut { reason, close_ports: true } => Some(reason.clone()),
            // Not opened while somebody may still be told that every commit waits for the replica.
            Keep::ProposeOut { reason, close_ports: false } if self.is_unopened() => Some(reason.clone()),
            Keep::Nothing if self.is_unseen() => {
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
        if let Some(why) = wish.release {
            let epoch = self.ledger.epoch;
            if self.may_propose(&Purpose::Release(epoch)) {
                self.releasing = Some(epoch);
                let command =
                    Command::Release { epoch, by: self.setup.me.clone(), boot: self.setup.boot, why };
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
            waiting,
            semi_sync_broken: self.semi_sync_broken.as_deref(),
            service_lost: self.service_lost(now),
            redis_empty: self.redis_empty(now),
            gateway_lost: self.gateway_lost(now),
            other_lacks: self.other_lacks(now),
            releasing: self.releasing,
            mysql: self.setup.policy.scope.mysql,
            redis: self.setup.redis,
        })
    }

    fn boots_writable(&self) -> bool {
        let server = self.detector.mysql_facts().map(|(_, facts)| &facts.instance.server);
        self.writable_boot.is_some() && self.writable_boot.as_ref() == server
    }

    /// decide, and the proposals that follow from it.
    fn lead(&mut self, now: Mono, wall: WallMs, out: &mut Vec<Output>) {
        let decision = decide(&self.facts(now));
        let term = Some(self.office.term);
        let suspects_since = self.suspicions.weigh(&decision, self.ledger.holder.as_ref(), now, wall);
        match &decision.action {
            Action::Hold => {}
            Action::StartRun { plan } => {
                if self.may_propose(&Purpose::StartRun) {
                    let ends = Some(self.ledger.epoch);
                    let mut plan = plan.clone();
                    plan.detected_ms_ago = suspects_since.map(|since| now.since_ms(since));
                    let command = Command::StartRun { plan, at: wall };
                    self.propose(Purpose::StartRun, command, term, ends, out);
                }
            }
            Action::AbandonRun { reason } => {
                if let Some(run) = self.ledger.run.as_ref().filter(|_| self.may_propose(&Purpose::AbandonRun))
                {
                    // The holder of a switchover keeps its epoch: nothing ends.
                    let ends = (!run.is_before_passing()).then_some(run.plan.epoch);
                    let (run, epoch, reason) = (run.id, run.plan.epoch, reason.clone());
                    let command = Command::AbandonRun { run, epoch, reason, at: wall };
                    self.propose(Purpose::AbandonRun, command, term, ends, out);
                }
            }
            Action::Skip { step, reason } => self.skip(*step, reason.clone(), wall, out),
            Action::ExpirePause { pause } => self.expire_pause(*pause, wall, out),
        }
        self.forget_old_word(now, wall, out);
        if self.decision.as_ref().is_none_or(|old| differs(old, &decision)) {
            out.push(Output::Decided { decision: decision.clone() });
        }
        self.decision = Some(decision);
    }

    fn facts(&self, now: Mono) -> Facts<'_> {
        Facts {
            now,
            me: &self.setup.me,
            ledger: &self.ledger,
            office: &self.office,
            takeover_at: self.lease.takeover_at,
            released_at: self.lease.released_at,
            granted_at: self.lease.granted_at,
            pause_over: self.lease.pause_over,
            reports: &self.reports,
            canaries: &self.canaries,
            ready_since: self.steps.ready_since(),
            failures: &self.failures,
            settling: self.detector.settling(now),
            policy: &self.setup.policy,
        }
    }

    fn skip(&mut self, step: Step, reason: String, wall: WallMs, out: &mut Vec<Output>) {
        let Some(run) = self.ledger.run.as_ref().filter(|_| self.may_propose(&Purpose::Skip(step))) else {
            return;
        };
        let by = self.setup.me.clone();
        let entry = Entry { step, attempt: 1, event: Event::Skipped { reason }, by, at: wall };
        let command = Command::Journal { run: run.id, epoch: run.plan.epoch, entries: vec![entry] };
        self.propose(Purpose::Skip(step), command, None, None, out);
    }
}

/// Two decisions differ for a reader when the action or the codes differ; figures in the evidence move all the time.
fn differs(old: &Decision, new: &Decision) -> bool {
    old.action.as_str() != new.action.as_str()
        || old.why.len() != new.why.len()
        || old.why.iter().zip(&new.why).any(|(a, b)| a.code() != b.code())
}
