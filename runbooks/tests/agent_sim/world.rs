//! The world: nodes, links, the log, databases and clients, in steps of 5 ms.

use std::collections::{BTreeMap, BTreeSet};

use baton_runbooks::agent::{Input, LeaseFacts};
use baton_runbooks::lease::granter::Office;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::{Command, Ledger};
use baton_runbooks::model::{NodeId, NodeKind, Term};
use baton_runbooks::observe::{Observation, ProbeFailure};

use crate::faults::Fault;
use crate::fleet::Waiting;
use crate::node::{Body, Deferred, NAMES, Node, TERMS};
use crate::raft::Raft;
use crate::rng::Rng;

pub const STEP_MS: u64 = 5;

/// By then the first holder serves.
pub const START_MS: u64 = 8_000;

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// No lost proposals and no bad luck.
    pub calm: bool,
    /// Planted: the end of an epoch is proposed without a last look at what was granted meanwhile.
    pub blind_end: bool,
    /// Age of the lease thread's view when the witness's core reads it: an agent whose main threads get no processor.
    pub view_lag_ms: u64,
}

pub struct World {
    pub seed: u64,
    pub options: Options,
    pub now: u64,
    pub rng: Rng,
    pub nodes: Vec<Node>,
    pub raft: Raft,
    /// Until when nothing passes from one node to another.
    pub cut: [[u64; 3]; 3],
    pub mail: Vec<(u64, usize, usize, Body)>,
    pub planned: Vec<(u64, Fault)>,
    pub acked: BTreeSet<u64>,
    pub ack_times: Vec<u64>,
    pub last_acker: Option<(usize, u64)>,
    pub transactions: u64,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let nodes =
            (0..3).map(|index| Node::new(index, rng.range(976, 1_024), rng.range(10_000, 90_000))).collect();
        let mut world = Self {
            seed,
            options,
            now: 0,
            rng,
            nodes,
            raft: Raft::new(3),
            cut: [[0; 3]; 3],
            mail: Vec::new(),
            planned: Vec::new(),
            acked: BTreeSet::new(),
            ack_times: Vec::new(),
            last_acker: None,
            transactions: 0,
            violations: Vec::new(),
            trace: Vec::new(),
        };
        let members = [("db1", NodeKind::Data), ("db2", NodeKind::Data), ("mon", NodeKind::Witness)];
        let members: BTreeMap<NodeId, NodeKind> = members.map(|(n, k)| (NodeId::from(n), k)).into();
        let (cluster, initial_holder) = ("shop".to_owned(), NodeId::from("db1"));
        world.raft.commit(Command::Bootstrap { cluster, members, initial_holder, mysql: true });
        world
    }

    pub fn ledger(&self) -> &Ledger {
        self.raft.ledger()
    }

    /// The ledger as this node has applied it.
    pub fn applied(&self, node: usize) -> &Ledger {
        &self.raft.states[self.raft.views[node].applied]
    }

    /// Nothing is lost on purpose: at the start, and after the healing.
    pub fn is_calm(&self) -> bool {
        self.options.calm || self.now < START_MS
    }

    pub fn tell(&mut self, what: String) {
        self.trace.push(format!("{:>7} {what}", self.now));
    }

    pub fn later(&mut self, node: usize, ms: u64, input: Input) {
        let due = self.now + ms;
        self.nodes[node].inbox.push((due, input));
    }

    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.now >= self.cut[from][to]
    }

    pub fn talk(&self, one: usize, other: usize) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    pub fn able(&self, node: usize) -> bool {
        self.nodes[node].is_able(self.now)
    }

    pub fn run_until(&mut self, until: u64) {
        while self.now < until && self.violations.is_empty() {
            self.now += STEP_MS;
            self.step();
        }
    }

    fn step(&mut self) {
        let at = self.now;
        let (due, rest) = std::mem::take(&mut self.planned).into_iter().partition(|(when, _)| *when <= at);
        self.planned = rest;
        let due: Vec<(u64, Fault)> = due;
        for (_, fault) in due {
            self.inject(fault);
        }
        for node in 0..3 {
            self.live(node);
        }
        self.consensus();
        self.replicate();
        self.deliver();
        for node in 0..3 {
            if self.able(node) {
                self.run_node(node);
            }
        }
        self.clients();
        self.check();
    }

    /// Starts what is due to start.
    fn live(&mut self, node: usize) {
        let at = self.now;
        let it = &mut self.nodes[node];
        if at < it.host_down_until {
            return;
        }
        if it.db.as_ref().is_some_and(|db| !db.up) && at >= it.db_down_until {
            it.db.as_mut().unwrap().start();
        }
        if it.agent.is_none() && at >= it.agent_down_until {
            it.start_agent(node);
            let view = &mut self.raft.views[node];
            view.heard_at = at;
            if view.leader == Some(node) {
                view.leader = None;
            }
            self.tell(format!("{} starts its agent", NAMES[node]));
            self.tell_committed(node);
        }
    }

    pub fn tell_committed(&mut self, node: usize) {
        let applied = self.raft.views[node].applied;
        if applied > 0 {
            let ledger = Box::new((*self.raft.states[applied]).clone());
            self.feed(node, Input::Committed { index: applied as u64, ledger });
        }
    }

    fn run_node(&mut self, node: usize) {
        let at = self.now;
        if let Some(Deferred { slot, doors, timeout_ms, .. }) =
            self.nodes[node].deferred.take_if(|d| d.due <= at)
        {
            let until = at + self.nodes[node].real(timeout_ms);
            for door in doors {
                self.nodes[node].gate.permit(door, slot, until);
            }
        }
        let (due, rest) =
            std::mem::take(&mut self.nodes[node].inbox).into_iter().partition(|(when, _)| *when <= at);
        self.nodes[node].inbox = rest;
        let due: Vec<(u64, Input)> = due;
        for (_, input) in due {
            self.feed(node, input);
        }
        self.lapse(node);
        if at >= self.nodes[node].next_renew {
            self.renew(node);
        }
        self.work(node);
        if at >= self.nodes[node].next_tick {
            self.nodes[node].next_tick = at + 50;
            self.tick(node);
        }
        if at >= self.nodes[node].next_probe {
            self.nodes[node].next_probe = at + 100;
            self.probe(node);
            self.reconcile(node);
        }
        if at >= self.nodes[node].next_report {
            self.nodes[node].next_report = at + 200;
            self.report(node);
        }
        if at >= self.nodes[node].next_canary {
            self.nodes[node].next_canary = at + 1_000;
            if self.nodes[node].db.is_some() && self.is_writable(node) {
                self.canary(node);
            }
        }
    }

    fn tick(&mut self, node: usize) {
        let office = self.office(node);
        let it = &mut self.nodes[node];
        let released = self.raft.states[self.raft.views[node].applied].released.as_ref().map(|r| r.boot);
        let lease = LeaseFacts {
            held: it.holder.epoch().zip(it.holder.ends_at()),
            takeover_at: it.granter.takeover_at(&office),
            released_at: released.and_then(|boot| it.granter.released_at(&office, boot)),
            granted_at: it.granter.granted_at(),
        };
        self.feed(node, Input::Office { office });
        // The view of the lease thread is always a little old when the core reads it.
        let lag_ms = if node == 2 { self.options.view_lag_ms.max(STEP_MS * 2) } else { STEP_MS * 2 };
        self.later(node, lag_ms, Input::Lease { lease });
        self.feed(node, Input::Tick);
    }

    pub fn office(&self, node: usize) -> Office {
        let view = &self.raft.views[node];
        let it = &self.nodes[node];
        let is_leader = view.leader == Some(node);
        Office {
            is_leader,
            term: Term(view.term),
            leader: view.leader.map(|leader| NodeId::from(NAMES[leader])),
            elected_at: is_leader.then(|| it.local(view.elected_at)),
            own_term_applied: is_leader && view.applied >= view.own_from && view.own_from > 0,
            quorum_acked_at: view.acked_at.filter(|_| is_leader).map(|at| it.local(at)),
            append_pending_since: None,
        }
    }

    fn probe(&mut self, node: usize) {
        let Some(db) = self.nodes[node].db.clone() else { return };
        let observation = if !db.up {
            Observation::MysqlFailed { failure: ProbeFailure::Refused }
        } else if !db.answers(self.now) {
            Observation::MysqlFailed { failure: ProbeFailure::Timeout { after_ms: 300 } }
        } else {
            Observation::Mysql { facts: Box::new(db.facts(node)) }
        };
        self.feed(node, Input::Observed { observation });
    }

    fn report(&mut self, node: usize) {
        let now = self.nodes[node].local(self.now);
        let Some(agent) = &self.nodes[node].agent else { return };
        let report = Box::new(agent.report(now));
        self.feed(node, Input::Report { report: report.clone() });
        for peer in (0..3).filter(|peer| *peer != node) {
            self.send(node, peer, Body::Report(report.clone()));
        }
    }

    pub fn send(&mut self, from: usize, to: usize, body: Body) {
        if self.passes(from, to) {
            let due = self.now + self.rng.range(1, 15);
            self.mail.push((due, from, to, body));
        }
    }

    fn deliver(&mut self) {
        let at = self.now;
        let (due, rest) = std::mem::take(&mut self.mail).into_iter().partition(|(when, ..)| *when <= at);
        self.mail = rest;
        let due: Vec<(u64, usize, usize, Body)> = due;
        for (when, from, to, body) in due {
            if self.nodes[to].agent.is_none() || at < self.nodes[to].host_down_until {
                continue;
            }
            if at < self.nodes[to].frozen_until {
                self.mail.push((self.nodes[to].frozen_until.max(when), from, to, body));
                continue;
            }
            match body {
                Body::Report(report) => self.feed(to, Input::Report { report }),
                Body::Renew { renewal, relay } => self.answer(to, renewal, relay),
                Body::Grant { grant, to: holder } if holder == to => self.granted(to, &grant),
                Body::Grant { grant, to: holder } => self.send(to, holder, Body::Grant { grant, to: holder }),
            }
        }
    }

    fn answer(&mut self, node: usize, renewal: baton_runbooks::lease::Renewal, relay: Option<usize>) {
        let office = self.office(node);
        if !office.is_leader {
            if let Some(leader) = self.raft.views[node].leader.filter(|_| relay.is_none()) {
                self.send(node, leader, Body::Renew { renewal, relay: Some(node) });
            }
            return;
        }
        let to = NAMES.iter().position(|name| *name == renewal.node.as_str()).unwrap();
        if let Ok(grant) = self.grant(node, &office, &renewal) {
            self.send(node, relay.unwrap_or(to), Body::Grant { grant, to });
        }
    }

    fn grant(
        &mut self,
        node: usize,
        office: &Office,
        renewal: &baton_runbooks::lease::Renewal,
    ) -> Result<baton_runbooks::lease::Grant, baton_runbooks::lease::Refusal> {
        let appointment = self.applied(node).appointment();
        let it = &mut self.nodes[node];
        it.granter.grant(it.local(self.now), office, &appointment, renewal)
    }

    pub fn renew(&mut self, node: usize) {
        let at = self.now;
        self.nodes[node].next_renew = at + self.nodes[node].real(TERMS.renew_ms);
        let it = &mut self.nodes[node];
        let Some((seq, slot, doors)) = it.holder.next_ticket() else { return };
        let until = at + it.real(TERMS.ticket_ms());
        for door in doors {
            it.gate.ticket(door, slot, until);
        }
        let Some(renewal) = it.holder.renew(seq, it.local(at)) else { return };
        let office = self.office(node);
        if office.is_leader
            && let Ok(grant) = self.grant(node, &office, &renewal)
        {
            self.granted(node, &grant);
        }
        for peer in (0..3).filter(|peer| *peer != node) {
            self.send(node, peer, Body::Renew { renewal: renewal.clone(), relay: None });
        }
    }

    fn granted(&mut self, node: usize, grant: &baton_runbooks::lease::Grant) {
        let at = self.now;
        let it = &mut self.nodes[node];
        let now = it.local(at);
        let Ok(accepted) = it.holder.accept(grant, now) else { return };
        let timeout = it.real(accepted.ends_at.since_ms(now));
        for door in accepted.doors {
            it.gate.permit(door, accepted.slot, at + timeout);
        }
    }

    /// The agent's process stops, now and then between computing a permit and writing it.
    pub fn freeze(&mut self, node: usize, for_ms: u64) {
        let at = self.now;
        let until = at + for_ms;
        let grant = self.mail.iter().find_map(|(_, _, to, body)| match body {
            Body::Grant { grant, .. } if *to == node => Some(grant.clone()),
            Body::Grant { .. } | Body::Report(_) | Body::Renew { .. } => None,
        });
        let it = &mut self.nodes[node];
        if let Some(accepted) = grant.and_then(|grant| it.holder.accept(&grant, it.local(at)).ok()) {
            let timeout_ms = accepted.ends_at.since_ms(it.local(at));
            it.deferred =
                Some(Deferred { due: until, slot: accepted.slot, doors: accepted.doors, timeout_ms });
        }
        it.frozen_until = it.frozen_until.max(until);
    }

    fn lapse(&mut self, node: usize) {
        let it = &self.nodes[node];
        let ended = it.holder.ends_at().is_some_and(|end| it.local(self.now) >= end);
        if ended && (it.holder.is_open(Door::Vip) || it.holder.is_open(Door::Ports)) {
            self.close(node, &[Door::Vip, Door::Ports]);
        }
    }

    pub fn is_writable(&self, node: usize) -> bool {
        self.nodes[node].db.as_ref().is_some_and(|db| db.answers(self.now) && !db.read_only)
    }

    pub fn canary(&mut self, node: usize) {
        let at = self.now;
        let it = &mut self.nodes[node];
        if at < it.canary_busy_until {
            return;
        }
        it.canary_busy_until = at + 10_000;
        it.canary_newest = it.canary_newest.max(it.db.as_ref().unwrap().canary) + 1;
        let number = it.canary_newest;
        self.later(node, 0, Input::Canary { number, committed: false });
        self.write(node, Some(number));
    }

    pub fn write(&mut self, node: usize, canary: Option<u64>) {
        self.transactions += 1;
        let tx = self.transactions;
        let db = self.nodes[node].db.as_mut().unwrap();
        db.executed.insert(tx);
        if let Some(number) = canary {
            db.canary = db.canary.max(number);
        }
        let one = Waiting { tx, canary };
        if db.source {
            db.waiting.push(one);
        } else {
            self.commit_ends(node, one);
        }
    }

    /// A commit ends. A client hears of it only through open ports.
    pub fn commit_ends(&mut self, node: usize, one: Waiting) {
        let open = |door| self.nodes[node].gate.is_open(door, self.now);
        match one.canary {
            Some(number) => {
                self.nodes[node].canary_busy_until = 0;
                self.later(node, 1, Input::Canary { number, committed: true });
            }
            None if open(Door::Ports) && open(Door::Vip) => self.acknowledged(node, one.tx),
            None => {}
        }
    }
}
