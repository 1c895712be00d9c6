//! The world: nodes, links, the log, databases, clients and an operator, driven by a queue of events.

use std::collections::BTreeMap;

use baton_runbooks::agent::Input;
use baton_runbooks::ledger::{Command, Ledger};
use baton_runbooks::model::{NodeId, NodeKind};

use super::event::{Event, Queue};
use super::fault::Fault;
use super::forcing::Forcing;
use super::mysql::Mysql;
use super::node::{NAMES, Node};
use super::operator::OperatorAct;
use super::planted::Planted;
use super::raft::Raft;
use super::rng::Rng;
use super::swarm::{HEAL_MS, QUIET_MS, REPAIR_MS, START_MS, Swarm};
use crate::invariants::{Invariants, Violation};

/// How a world differs from the usual one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// No faults but those that the caller injects.
    pub calm: bool,
    /// A deviation from the design that must be caught.
    pub planted: Option<Planted>,
    /// Keeps a story of what happened.
    pub trace: bool,
    /// Redis is there too, also in a calm world.
    pub redis: bool,
    /// Age of the lease thread's view when the witness's core reads it: an agent whose main threads get no processor.
    pub view_lag_ms: u64,
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// Where everything that is drawn comes from.
    pub seed: u64,
    /// As given.
    pub options: Options,
    /// Real time in milliseconds.
    pub now: u64,
    /// Chance.
    pub rng: Rng,
    /// What this seed drew.
    pub swarm: Swarm,
    /// What happens next.
    pub queue: Queue,
    /// db1, db2 and the witness.
    pub nodes: Vec<Node>,
    /// The log.
    pub raft: Raft,
    /// Until when nothing passes from one node to another.
    pub cut: [[u64; 3]; 3],
    /// Until when messages from one node to another take longer, and by how much.
    pub slow: [[(u64, u64); 3]; 3],
    /// When the newest report from one node reaches another.
    pub told_at: [[u64; 3]; 3],
    /// Number of stretches in which a database was open for writing.
    pub origins: usize,
    /// Instants of acknowledged writes of clients.
    pub ack_times: Vec<u64>,
    /// When everything was repaired.
    pub healed_at: Option<u64>,
    /// Entries in journals since faults may happen.
    pub entries: u64,
    /// Number of the event that carries the replica's stream, for each node.
    pub streams: [(u64, u64); 2],
    /// A replica is about to apply, for each node.
    pub replaying: [bool; 2],
    /// Number of inputs that cores took.
    pub inputs: u64,
    /// Number of long leases that a pause gave.
    pub long_leases: u64,
    /// An operator has said that others are off who were not.
    pub mistaken: bool,
    /// What must hold.
    pub invariants: Invariants,
    /// What happened, if it is kept.
    pub trace: Vec<String>,
}

impl World {
    /// A world at its beginning: three hosts whose agents start at once.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let mut swarm = if options.calm { Swarm::calm(&mut rng) } else { Swarm::draw(&mut rng) };
        if !options.calm && !swarm.single && !swarm.planned {
            swarm.forcing = Forcing::draw(seed);
        }
        let names = NAMES.map(NodeId::from);
        let nodes = (0..3)
            .map(|index| {
                let (name, offset) = (names[index].clone(), rng.range(10_000, 90_000));
                let mut node = Node::new(name, index, swarm.rates[index], offset, options.planted);
                if swarm.redis || options.redis {
                    node.with_redis();
                }
                node
            })
            .collect();
        let mut world = Self {
            seed,
            options,
            now: 0,
            rng,
            swarm,
            queue: Queue::default(),
            nodes,
            raft: Raft::new(3),
            cut: [[0; 3]; 3],
            slow: [[(0, 0); 3]; 3],
            told_at: [[0; 3]; 3],
            origins: 0,
            ack_times: Vec::new(),
            healed_at: None,
            entries: 0,
            streams: [(0, u64::MAX); 2],
            replaying: [false; 2],
            inputs: 0,
            long_leases: 0,
            mistaken: false,
            invariants: Invariants::default(),
            trace: Vec::new(),
        };
        let [db1, db2, mon] = names;
        let initial_holder = db1.clone();
        let members = [(db1, NodeKind::Data), (db2, NodeKind::Data), (mon, NodeKind::Witness)];
        let (cluster, members) = ("shop".to_owned(), BTreeMap::from(members));
        world.commit(0, &Command::Bootstrap { cluster, members, initial_holder, mysql: true });
        world.raft.views.iter_mut().for_each(|view| view.logged = 1);
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..3 {
            self.queue.put(1, Event::Live(node));
            self.schedule_campaign(node, 2);
        }
        for node in super::node::DATA {
            self.schedule_stream(node, 50);
        }
        self.queue.put(40, Event::Clients);
        if self.options.calm {
            return;
        }
        for at in self.swarm.timed.clone() {
            self.queue.put(at, Event::Trouble);
        }
        let last = self.swarm.timed.last().copied().unwrap_or(START_MS + QUIET_MS);
        let heal = (last + REPAIR_MS).min(HEAL_MS);
        let heal = self.begin_forcing().map_or(heal, |returns_at| heal.max(returns_at));
        self.queue.put(heal, Event::Heal);
        if self.swarm.single && self.has(Planted::FailsBack) {
            self.queue.put(START_MS + 1_000, Event::Operator(OperatorAct::Switchover));
        }
        for act in self.swarm.verbs.clone() {
            let at = START_MS + self.rng.range(0, 4_000);
            self.queue.put(at, Event::Operator(act));
        }
    }

    /// The newest committed ledger, of the newest log.
    pub fn ledger(&self) -> &Ledger {
        self.raft.newest()
    }

    /// The ledger as this node has applied it.
    pub fn applied(&self, node: usize) -> &Ledger {
        self.raft.applied(node)
    }

    /// The first thing that did not hold.
    pub fn violation(&self) -> Option<&Violation> {
        self.invariants.found.as_ref()
    }

    /// The world deviates in this way.
    pub fn has(&self, planted: Planted) -> bool {
        self.options.planted == Some(planted)
    }

    /// A line of the story.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.options.trace {
            let line = format!("{:>7} {}", self.now, what());
            self.trace.push(line);
        }
    }

    /// The node of this name.
    pub(super) fn position(&self, name: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    /// The database of a data node.
    pub fn db(&self, node: usize) -> &Mysql {
        self.nodes[node].db.as_ref().expect("only data nodes are asked for their database")
    }

    /// The database of a data node.
    pub fn db_mut(&mut self, node: usize) -> &mut Mysql {
        self.nodes[node].db.as_mut().expect("only data nodes are asked for their database")
    }

    /// An input for this start of a node's agent.
    pub fn later(&mut self, node: usize, ms: u64, input: Input) {
        let boot = self.nodes[node].boot;
        self.queue.put(self.now + ms, Event::Input(node, boot, Box::new(input)));
    }

    /// A message from one node reaches the other, if it is sent now.
    pub const fn passes(&self, from: usize, to: usize) -> bool {
        self.now >= self.cut[from][to]
    }

    /// A connection between two nodes works.
    pub const fn talk(&self, one: usize, other: usize) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// What a slow link adds.
    pub const fn slowness(&self, from: usize, to: usize) -> u64 {
        let (until, by_ms) = self.slow[from][to];
        if self.now < until { by_ms } else { 0 }
    }

    /// The node's agent takes part in Raft.
    pub(super) fn takes_part(&self, node: usize) -> bool {
        let view = &self.raft.views[node];
        self.able(node) && view.outranked.is_none() && self.now >= view.settled_at
    }

    /// The node's agent runs and has the processor.
    pub fn able(&self, node: usize) -> bool {
        self.nodes[node].is_able(self.now)
    }

    /// Lets everything happen that is due up to `until`, or up to the first violation.
    pub fn run_until(&mut self, until: u64) {
        while self.invariants.found.is_none() {
            let Some(event) = self.queue.take(until) else {
                self.now = until;
                return;
            };
            self.now = self.queue.now().max(self.now);
            self.happen(event);
            self.check();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => self.inject(*fault),
            Event::Trouble => self.trouble(),
            Event::Live(node) => self.live(node),
            Event::Thaw(node) => self.thaw(node),
            Event::Tick(node, boot) => self.periodic(node, boot, 50, Event::Tick, Self::tick),
            Event::Probe(node, boot) => self.periodic(node, boot, 200, Event::Probe, Self::probe),
            Event::Report(node, boot) => self.periodic(node, boot, 200, Event::Report, Self::report),
            Event::Renew(node, boot) => {
                let ms = self.nodes[node].real(super::node::TERMS.renew_ms);
                self.periodic(node, boot, ms, Event::Renew, Self::renew);
            }
            Event::Canary(node, boot) => self.periodic(node, boot, 1_000, Event::Canary, Self::canary_due),
            Event::Input(node, boot, input) => {
                if let Some(input) = self.if_able(node, boot, input, Event::Input) {
                    self.feed(node, *input);
                }
            }
            Event::News(node, report) => {
                if let Some(report) = self.arrived(node, report, Event::News) {
                    self.feed(node, Input::Report { report });
                }
            }
            Event::Hello(node, log) => {
                if let Some(log) = self.arrived(node, log, Event::Hello) {
                    self.hear_hello(node, log);
                }
            }
            Event::Mail(node, mail) => {
                if let Some(mail) = self.arrived(node, mail, Event::Mail) {
                    self.deliver(node, *mail);
                }
            }
            Event::Permit(node, boot, permit) => {
                if let Some(permit) = self.if_able(node, boot, permit, Event::Permit) {
                    self.permit(node, permit.slot, &permit.doors, permit.timeout_ms);
                }
            }
            Event::Step(node, boot, job) => {
                if let Some(job) = self.if_able(node, boot, job, Event::Step) {
                    self.work(node, job);
                }
            }
            Event::Heartbeat(node, term) => self.heartbeat(node, term),
            Event::Campaign(node) => self.campaign(node),
            Event::Append(proposal) => self.append(*proposal),
            Event::Apply(node) => self.apply(node),
            Event::Stream(node, number) => self.stream(node, number),
            Event::Replay(node) => self.replay(node),
            Event::Clients => self.clients(),
            Event::FallBack(node) => self.fall_back(node),
            Event::LateSource(node) => self.db_mut(node).source = true,
            Event::Operator(act) => self.operate_again(act),
            Event::Order(act) if self.healed_at.is_none() => self.operate(act),
            Event::Order(_) => {}
            Event::Heal if self.waits_for_survivor() => {
                let later = self.now + super::forcing::AGAIN_MS;
                self.queue.put(later, Event::Heal);
            }
            Event::Heal => self.heal(),
        }
    }

    /// What belongs to a start of an agent happens while it runs, and waits while it is frozen.
    fn if_able<T>(
        &mut self,
        node: usize,
        boot: u64,
        what: T,
        again: fn(usize, u64, T) -> Event,
    ) -> Option<T> {
        let it = &self.nodes[node];
        if it.agent.is_none() || it.boot != boot {
            return None;
        }
        if self.now < it.frozen_until {
            let thawed = it.frozen_until;
            self.queue.put(thawed, again(node, boot, what));
            return None;
        }
        Some(what)
    }

    fn periodic(
        &mut self,
        node: usize,
        boot: u64,
        period_ms: u64,
        again: impl Fn(usize, u64) -> Event,
        act: impl Fn(&mut Self, usize),
    ) {
        let it = &self.nodes[node];
        if it.agent.is_none() || it.boot != boot {
            return;
        }
        // Frozen, it looks now and then: the world may be healed before the fault would have ended.
        let due = self.now + period_ms;
        let due = if self.now < it.frozen_until { it.frozen_until.min(due) } else { due };
        self.queue.put(due, again(node, boot));
        if self.now >= self.nodes[node].frozen_until {
            act(self, node);
        }
    }

    /// A fault that waits for this entry of a journal follows it.
    pub(super) fn entry_committed(&mut self) {
        if self.now < START_MS {
            return;
        }
        self.entries += 1;
        let at = self.now;
        while let Some(armed) = self.swarm.armed.first().copied()
            && armed.entries <= self.entries
        {
            self.swarm.armed.remove(0);
            self.queue.put(at + armed.delay_ms, Event::Trouble);
        }
    }

    /// For scenarios: a fault at an instant.
    pub fn plan(&mut self, at: u64, fault: Fault) {
        self.queue.put(at, Event::Fault(Box::new(fault)));
    }

    /// The story.
    pub fn story(&self) -> String {
        self.trace.join("\n")
    }
}
