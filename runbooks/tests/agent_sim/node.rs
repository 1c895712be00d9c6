//! One node: host, agent process, lease thread, local disk, jobs. What it does is in `hands` and `world`.

use baton_runbooks::agent::{Agent, Input, Setup};
use baton_runbooks::decide::Policy;
use baton_runbooks::decide::local::Wish;
use baton_runbooks::detect::Patience;
use baton_runbooks::lease::granter::Granter;
use baton_runbooks::lease::holder::{Door, Holder};
use baton_runbooks::lease::{Grant, Renewal, Terms};
use baton_runbooks::model::{Epoch, Mono, NodeId, RunId};
use baton_runbooks::observe::NodeReport;
use baton_runbooks::plan::PlannedStep;
use baton_runbooks::run::table::Scope;

use crate::fleet::{Gate, Mysql, SLOTS, address};

pub const NAMES: [&str; 3] = ["db1", "db2", "mon"];

pub const TERMS: Terms =
    Terms { lease_ms: 1_200, renew_ms: 200, margin_ms: 150, age_max_ms: 400, slots: SLOTS };

/// A step that is being carried out.
#[derive(Debug, Clone)]
pub struct Job {
    pub due: u64,
    pub deadline: u64,
    pub run: RunId,
    pub epoch: Epoch,
    pub attempt: u32,
    pub planned: PlannedStep,
    pub undo: bool,
}

/// What travels between nodes beside Raft.
#[derive(Debug, Clone)]
pub enum Body {
    Report(Box<NodeReport>),
    /// `relay` passes it on, since the leader may not hear the holder itself.
    Renew {
        renewal: Renewal,
        relay: Option<usize>,
    },
    /// Goes back the way that the question came.
    Grant {
        grant: Grant,
        to: usize,
    },
}

/// A permit that was computed before its agent froze, and is written when it thaws.
#[derive(Debug, Clone)]
pub struct Deferred {
    pub due: u64,
    pub slot: u64,
    pub doors: Vec<Door>,
    pub timeout_ms: u64,
}

#[derive(Debug)]
pub struct Node {
    pub name: NodeId,
    pub host_down_until: u64,
    pub agent_down_until: u64,
    pub frozen_until: u64,
    /// Local milliseconds per real second.
    pub rate: u64,
    pub offset: u64,
    pub agent: Option<Agent>,
    pub holder: Holder,
    pub granter: Granter,
    pub boot: u64,
    pub opened: Option<String>,
    pub db: Option<Mysql>,
    pub db_down_until: u64,
    pub gate: Gate,
    pub wish: Option<Wish>,
    pub inbox: Vec<(u64, Input)>,
    pub jobs: Vec<Job>,
    pub deferred: Option<Deferred>,
    pub canary_newest: u64,
    pub canary_busy_until: u64,
    pub next_probe: u64,
    pub next_report: u64,
    pub next_tick: u64,
    pub next_renew: u64,
    pub next_canary: u64,
    pub proposals: Vec<u64>,
}

impl Node {
    pub fn new(index: usize, rate: u64, offset: u64) -> Self {
        let name = NodeId::from(NAMES[index]);
        Self {
            host_down_until: 0,
            agent_down_until: 0,
            frozen_until: 0,
            rate,
            offset,
            agent: None,
            holder: Holder::new(name.clone(), TERMS, 0),
            granter: Granter::new(name.clone(), TERMS),
            boot: index as u64 * 1_000,
            opened: None,
            db: (index < 2).then(Mysql::new),
            db_down_until: 0,
            gate: Gate::default(),
            wish: None,
            inbox: Vec::new(),
            jobs: Vec::new(),
            deferred: None,
            canary_newest: 0,
            canary_busy_until: 0,
            next_probe: 0,
            next_report: 0,
            next_tick: 0,
            next_renew: 0,
            next_canary: 0,
            proposals: Vec::new(),
            name,
        }
    }

    pub fn local(&self, at: u64) -> Mono {
        Mono(self.offset + at * self.rate / 1_000)
    }

    /// Real milliseconds in which `ms` pass on this node's clock.
    pub fn real(&self, ms: u64) -> u64 {
        ms * 1_000 / self.rate
    }

    /// Its agent runs and has the processor.
    pub fn is_able(&self, at: u64) -> bool {
        self.agent.is_some() && at >= self.frozen_until && at >= self.host_down_until
    }

    pub fn start_agent(&mut self, index: usize) {
        self.boot += 1;
        self.holder = Holder::new(self.name.clone(), TERMS, self.boot);
        self.granter = Granter::new(self.name.clone(), TERMS);
        self.agent = Some(Agent::new(setup(index, self.boot, self.opened.clone())));
        self.wish = None;
        self.inbox.clear();
        self.jobs.clear();
        self.deferred = None;
        self.canary_busy_until = 0;
        self.canary_newest = 0;
    }

    pub fn stop_agent(&mut self) {
        self.agent = None;
    }
}

fn setup(index: usize, boot: u64, opened: Option<String>) -> Setup {
    Setup {
        me: NodeId::from(NAMES[index]),
        own_address: address(index),
        policy: Policy {
            scope: Scope { mysql: true, independent_services: true, services: true },
            report_max_ms: 700,
            quorum_max_ms: 600,
            anti_flap_ms: 20_000,
            anti_flap_max: 3,
        },
        patience: Patience {
            refused_count: 2,
            hung_ms: 1_000,
            stalled_ms: 1_500,
            disk_free_min: 1,
            settle_ms: 1_200,
            service_lost_ms: 25_000,
        },
        sync_patience_ms: 1_400,
        redis: false,
        holder_services: Vec::new(),
        version: "test".into(),
        config_hash: "test".into(),
        new_leader_ms: 0,
        opened,
        boot,
    }
}
