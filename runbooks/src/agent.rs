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

mod report;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::decide::local::{LocalFacts, Role, Wish, decide_local};
use crate::decide::{Action, Decision, Facts, Failure, Heard, Policy, decide};
use crate::detect::{Detector, Patience};
use crate::lease::granter::Office;
use crate::ledger::Ledger;
use crate::ledger::command::Command;
use crate::model::{Epoch, Mono, NodeId, RunId, SyncGeneration, Term, WallMs};
use crate::observe::{NodeReport, Observation, ServiceState};
use crate::plan::{PlannedStep, Step};
use crate::run::{Entry, Event, RunState};
use crate::sync::{Keep, KeepFacts, Keeper};
use steps::Steps;

/// The driver ticks at least this often, in milliseconds. Longer, and a lease's end is noticed late (never early).
pub const TICK_MAX_MS: u64 = 50;

/// What the lease thread says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFacts {
    /// The epoch that is being renewed here, and until when its lease is valid.
    pub held: Option<(Epoch, Mono)>,
    /// The earliest instant at which a takeover may be decided; `None` while this node does not lead.
    pub takeover_at: Option<Mono>,
    /// The same, after the holder gave its lease back; `None` as long as it has not.
    pub released_at: Option<Mono>,
    /// When the newest grant was given by this node.
    pub granted_at: Option<Mono>,
}

/// What a step's actor brings back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum StepResult {
    /// The post-condition holds.
    Done {
        /// What was learned.
        facts: Vec<(String, String)>,
    },
    /// It could not be done, or not be undone.
    Failed {
        /// What failed.
        error: String,
    },
}

/// Everything that can happen to the core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "input")]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A probe of this node ended.
    Observed {
        /// What it saw.
        observation: Observation,
    },
    /// A node's report arrived.
    Report {
        /// What it says.
        report: Box<NodeReport>,
    },
    /// The ledger was applied here up to `index`.
    Committed {
        /// Raft log index.
        index: u64,
        /// The state.
        ledger: Box<Ledger>,
    },
    /// This node's standing in Raft changed, or was refreshed.
    Office {
        /// The standing.
        office: Office,
    },
    /// The lease thread's view changed, or was refreshed.
    Lease {
        /// The view.
        lease: LeaseFacts,
    },
    /// A proposal ended.
    Proposed {
        /// As in [`Output::Propose`].
        ticket: u64,
        /// The ledger accepted it; `None`: its fate is unknown.
        accepted: Option<bool>,
    },
    /// An executor has ended a step or an undo.
    StepEnded {
        /// Which run.
        run: RunId,
        /// The epoch of its plan.
        epoch: Epoch,
        /// Which step.
        step: Step,
        /// Which attempt.
        attempt: u32,
        /// It was the undo.
        undo: bool,
        /// How it ended.
        result: StepResult,
    },
    /// The driver is about to open this database instance for writing.
    Opening {
        /// The server's `pid@ticks`.
        server: String,
    },
    /// A canary's commit was begun, or ended well.
    Canary {
        /// Its number.
        number: u64,
        /// It ended.
        committed: bool,
    },
}

/// An input with the instants at which it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// Monotonic.
    pub now: Mono,
    /// Wall clock, for people.
    pub wall: WallMs,
    /// The input.
    #[serde(flatten)]
    pub input: Input,
}

/// Everything that the core asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "output")]
pub enum Output {
    /// Propose this. `as_leader` names the term in which this node must still lead; `ends` names the epoch for which the
    /// granter must stop *before* the proposal is made.
    Propose {
        /// Comes back with the fate.
        ticket: u64,
        /// What to propose.
        command: Command,
        /// Only as the leader of this term.
        as_leader: Option<Term>,
        /// Grant nothing more for this epoch.
        ends: Option<Epoch>,
    },
    /// Carry out a step: check, act if need be, verify.
    RunStep {
        /// Which run.
        run: RunId,
        /// The epoch of its plan.
        epoch: Epoch,
        /// Which attempt.
        attempt: u32,
        /// The step.
        planned: PlannedStep,
    },
    /// Undo a step.
    UndoStep {
        /// Which run.
        run: RunId,
        /// The epoch of its plan.
        epoch: Epoch,
        /// Which attempt is journalled.
        attempt: u32,
        /// The step.
        planned: PlannedStep,
    },
    /// Make the node so. Repeated only when it changes.
    Wish {
        /// What this node is to be.
        wish: Wish,
    },
    /// Do this about semi-sync.
    Keep {
        /// What.
        keep: Keep,
    },
    /// The leader's decision changed.
    Decided {
        /// The decision.
        decision: Decision,
    },
}

/// What a proposal in flight is for, so that it is not made twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    StartRun,
    AbandonRun,
    Skip(Step),
    /// Everything that one journal command speaks of.
    Steps(BTreeSet<Step>),
    Release(Epoch),
    SyncIn(SyncGeneration),
    SyncOut(SyncGeneration),
}

/// After a proposal ended, however it did, the same is not proposed again before this time has passed, in milliseconds,
/// unless the ledger has changed since it was made. Without it, a node without a leader would propose as fast as it can be
/// refused, and a step whose outcome was accepted a moment before the ledger arrives here would be carried out again.
const RETRY_MS: u64 = 100;

/// An order about semi-sync that does not show yet is repeated this often, in milliseconds.
const KEEP_REPEAT_MS: u64 = 200;

/// What an agent is told at its start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// The address under which a replica follows this node.
    pub own_address: String,
    /// For the leader's decisions.
    pub policy: Policy,
    /// For the detector.
    pub patience: Patience,
    /// Milliseconds without an acknowledgement after which the replica is out of sync.
    pub sync_patience_ms: u64,
    /// Redis is configured.
    pub redis: bool,
    /// Version and configuration hash, for reports.
    pub version: String,
    /// Hash of the configuration.
    pub config_hash: String,
    /// The database instance that an earlier agent opened for writing.
    pub opened: Option<String>,
    /// Drawn at random at this start of the agent, as in its renewals.
    pub boot: u64,
}

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
            wish: None,
            decision: None,
        }
    }

    /// Takes one input and says what is to be done.
    pub fn handle(&mut self, stamped: Stamped) -> Vec<Output> {
        let Stamped { now, wall, input } = stamped;
        let mut out = Vec::new();
        self.cooling.retain(|_, until| now < *until);
        self.take(input, now, wall, &mut out);
        self.follow_run(wall, &mut out);
        self.look_after_itself(now, &mut out);
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

    fn proposed(&mut self, ticket: u64, accepted: Option<bool>, now: Mono) {
        let Some((purpose, made_from)) = self.pending.remove(&ticket) else { return };
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
                | Purpose::SyncOut(_),
                _,
            ) => {}
        }
        if made_from == self.ledgers {
            self.cooling.insert(purpose, now.plus_ms(RETRY_MS));
        }
    }

    fn observe(&mut self, observation: &Observation, now: Mono) {
        if let Observation::Service { name, state } = observation {
            self.services.insert(name.clone(), state.clone());
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
            if failed && self.applied > 0 {
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
        let serving = match self.local_wish(now).role {
            Role::Serving { .. } => true,
            Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } => false,
        };
        let keep = self.weigh_sync(serving, now);
        self.semi_sync_broken = match &keep {
            Keep::ProposeOut { reason, close_ports: true } => Some(reason.clone()),
            // Not opened while somebody may still be told that every commit waits for the replica.
            Keep::ProposeOut { reason, close_ports: false } if self.is_unopened() => Some(reason.clone()),
            Keep::ProposeOut { close_ports: false, .. }
            | Keep::Nothing
            | Keep::SourceOff
            | Keep::SourceOn
            | Keep::Canary
            | Keep::ProposeIn { .. } => None,
        };
        let wish = self.local_wish(now);
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
            lease: self.lease.held,
            detector: &self.detector,
            boots_writable: self.boots_writable(),
            waiting,
            semi_sync_broken: self.semi_sync_broken.as_deref(),
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

    fn weigh_sync(&mut self, serving: bool, now: Mono) -> Keep {
        if !self.setup.policy.scope.mysql {
            return Keep::Nothing;
        }
        let replica = self.ledger.other_data_nodes(&self.setup.me).next();
        let heard = replica.and_then(|node| self.reports.get(node));
        self.keeper.keep(&KeepFacts {
            now,
            ledger: &self.ledger,
            serving,
            unopened: self.is_unopened(),
            primary: self.detector.mysql_facts(),
            replica: replica.zip(heard).map(|(n, h)| (n, now.since_ms(h.at), h.report.mysql.as_ref())),
            own_address: &self.setup.own_address,
            canary_started: self.canary.0,
            canary_committed: self.canary.1,
        })
    }

    fn keep_in_sync(&mut self, keep: Keep, now: Mono, out: &mut Vec<Output>) {
        let (epoch, generation, by) = (self.ledger.epoch, self.ledger.sync_generation, self.setup.me.clone());
        self.order(&keep, now, out);
        match keep {
            Keep::Nothing | Keep::SourceOff | Keep::SourceOn | Keep::Canary => {}
            // One at a time: the fate of the one in flight says whether another is wanted.
            Keep::ProposeOut { .. } | Keep::ProposeIn { .. } if self.is_going_out() => {}
            Keep::ProposeOut { reason, .. } => {
                if self.may_propose(&Purpose::SyncOut(generation)) {
                    let command = Command::SyncOut { epoch, generation, by, reason };
                    self.propose(Purpose::SyncOut(generation), command, None, None, out);
                }
            }
            Keep::ProposeIn { replica, instance } => {
                if self.may_propose(&Purpose::SyncIn(generation)) {
                    let command = Command::SyncIn { epoch, generation, by, replica, instance };
                    self.propose(Purpose::SyncIn(generation), command, None, None, out);
                }
            }
        }
    }

    /// What the hands have to do about semi-sync; an order that does not show yet is repeated now and then.
    fn order(&mut self, keep: &Keep, now: Mono, out: &mut Vec<Output>) {
        let is_order = match keep {
            Keep::SourceOff | Keep::SourceOn | Keep::Canary | Keep::ProposeOut { close_ports: true, .. } => {
                true
            }
            Keep::Nothing | Keep::ProposeOut { close_ports: false, .. } | Keep::ProposeIn { .. } => false,
        };
        if !is_order {
            self.kept = None;
            return;
        }
        let fresh =
            self.kept.as_ref().is_none_or(|(old, at)| old != keep || now.since_ms(*at) >= KEEP_REPEAT_MS);
        if fresh {
            self.kept = Some((keep.clone(), now));
            out.push(Output::Keep { keep: keep.clone() });
        }
    }

    /// decide, and the proposals that follow from it.
    fn lead(&mut self, now: Mono, wall: WallMs, out: &mut Vec<Output>) {
        let decision = decide(&self.facts(now));
        let term = Some(self.office.term);
        match &decision.action {
            Action::Hold => {}
            Action::StartRun { plan } => {
                if self.may_propose(&Purpose::StartRun) {
                    let ends = Some(self.ledger.epoch);
                    let command = Command::StartRun { plan: plan.clone(), at: wall };
                    self.propose(Purpose::StartRun, command, term, ends, out);
                }
            }
            Action::AbandonRun { reason } => {
                if let Some(run) = self.ledger.run.as_ref().filter(|_| self.may_propose(&Purpose::AbandonRun))
                {
                    let (run, epoch, reason) = (run.id, run.plan.epoch, reason.clone());
                    let command = Command::AbandonRun { run, epoch, reason, at: wall };
                    self.propose(Purpose::AbandonRun, command, term, Some(epoch), out);
                }
            }
            Action::Skip { step, reason } => self.skip(*step, reason.clone(), wall, out),
        }
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
            reports: &self.reports,
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

    /// An *out of sync* is in flight.
    fn is_going_out(&self) -> bool {
        self.pending.values().any(|(purpose, _)| match purpose {
            Purpose::SyncOut(_) => true,
            Purpose::StartRun
            | Purpose::AbandonRun
            | Purpose::Skip(_)
            | Purpose::Steps(_)
            | Purpose::Release(_)
            | Purpose::SyncIn(_) => false,
        })
    }

    /// The local database is an instance that no agent has opened for writing yet.
    fn is_unopened(&self) -> bool {
        let server = self.detector.mysql_facts().map(|(_, facts)| &facts.instance.server);
        server.is_some_and(|server| self.opened.as_ref() != Some(server))
    }

    /// Nothing is in flight for this purpose, and the last proposal did not just come to nothing.
    fn may_propose(&self, purpose: &Purpose) -> bool {
        !self.pending.values().any(|(p, _)| p == purpose) && !self.cooling.contains_key(purpose)
    }

    fn propose(
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

/// Two decisions differ for a reader when the action or the codes differ; figures in the evidence move all the time.
fn differs(old: &Decision, new: &Decision) -> bool {
    old.action.as_str() != new.action.as_str()
        || old.why.len() != new.why.len()
        || old.why.iter().zip(&new.why).any(|(a, b)| a.code() != b.code())
}
