//! What goes wrong: by name, or drawn from the seed.

use baton_runbooks::agent::Input;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::observe::Observation;

use super::event::{Event, Permit};
use super::node::NAMES;
use super::operator::OperatorAct;
use super::rng::Rng;
use super::swarm::QUICK_ACK_MS;
use super::world::World;

/// One fault, with the node that it hits and how long it lasts.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Fault {
    /// The host is off: agent, database and kernel state are gone.
    HostCrash { node: usize, for_ms: u64 },
    /// Every process of the host is stopped; the kernel goes on.
    HostFreeze { node: usize, for_ms: u64 },
    /// The agent's process is killed and started again; what is in the kernel stays.
    AgentKill { node: usize, for_ms: u64 },
    /// The agent's process is stopped: no step, no heartbeat, no renewal.
    AgentFreeze { node: usize, for_ms: u64 },
    /// The database's process ends.
    MysqlKill { node: usize, for_ms: u64 },
    /// The database answers nothing.
    MysqlFreeze { node: usize, for_ms: u64 },
    /// The applier of a replica stands still.
    ApplierStops { node: usize, for_ms: u64 },
    /// Somebody restarts the replication threads: MariaDB throws the relay log away.
    ThreadsRestart { node: usize },
    /// Probes of the database are told something wrong.
    DatabaseLies { node: usize, for_ms: u64, lie: u64 },
    /// The data disk takes no writes.
    DiskReadOnly { node: usize, for_ms: u64 },
    /// Another program takes the VIP away and goes on doing so.
    VipStolen { node: usize },
    /// Nothing passes from one node to the other.
    Cut { from: usize, to: usize, for_ms: u64 },
    /// Every message from one node to the other takes longer.
    SlowLink { from: usize, to: usize, for_ms: u64, by_ms: u64 },
    /// Raft elects another leader, for no reason.
    LeaderMoves { to: usize },
    /// The process of Redis ends; it may have nothing when it is back.
    RedisKill { node: usize, for_ms: u64, forgets: bool },
}

/// Who is who at the moment of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    /// Who holds the baton; for a run before its pivot, the target.
    pub holder: usize,
    /// The other data node.
    pub other: usize,
    /// Who leads.
    pub leader: usize,
}

/// Kinds of faults that a seed switches on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    HostCrash,
    HostFreeze,
    AgentKill,
    AgentFreeze,
    MysqlKill,
    MysqlFreeze,
    ApplierStops,
    ThreadsRestart,
    DatabaseLies,
    DiskReadOnly,
    VipStolen,
    CutOneWay,
    CutBothWays,
    Isolate,
    SlowLink,
    LeaderMoves,
    RedisKill,
    RedisForgets,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::HostCrash,
        Self::HostFreeze,
        Self::AgentKill,
        Self::AgentFreeze,
        Self::MysqlKill,
        Self::MysqlFreeze,
        Self::ApplierStops,
        Self::ThreadsRestart,
        Self::DatabaseLies,
        Self::DiskReadOnly,
        Self::VipStolen,
        Self::CutOneWay,
        Self::CutBothWays,
        Self::Isolate,
        Self::SlowLink,
        Self::LeaderMoves,
        Self::RedisKill,
        Self::RedisForgets,
    ];

    /// Nothing happens without Redis. The last two of all.
    pub const fn is_of_redis(self) -> bool {
        matches!(self, Self::RedisKill | Self::RedisForgets)
    }

    /// Draws whom it hits and for how long. The holder and the leader are hit more often than chance would.
    pub(super) fn draw(self, rng: &mut Rng, roles: Roles) -> Vec<Fault> {
        let for_ms = match rng.range(0, 3) {
            0 => rng.range(20, 600),
            1 | 2 => rng.range(600, 2_500),
            _ => rng.range(2_500, 7_000),
        };
        let node = match rng.range(0, 5) {
            0 | 1 => roles.holder,
            2 => roles.other,
            3 => roles.leader,
            _ => rng.index(3),
        };
        let data = if rng.chance(60) { roles.holder } else { roles.other };
        let other = (node + 1 + rng.index(2)) % 3;
        let both = |from: usize, to: usize| {
            [Fault::Cut { from, to, for_ms }, Fault::Cut { from: to, to: from, for_ms }]
        };
        match self {
            Self::HostCrash => vec![Fault::HostCrash { node, for_ms }],
            Self::HostFreeze => vec![Fault::HostFreeze { node, for_ms }],
            Self::AgentKill => vec![Fault::AgentKill { node, for_ms }],
            Self::AgentFreeze => vec![Fault::AgentFreeze { node, for_ms }],
            Self::MysqlKill => vec![Fault::MysqlKill { node: data, for_ms }],
            Self::MysqlFreeze => vec![Fault::MysqlFreeze { node: data, for_ms }],
            Self::ApplierStops => vec![Fault::ApplierStops { node: roles.other, for_ms }],
            Self::ThreadsRestart => vec![Fault::ThreadsRestart { node: roles.other }],
            Self::DatabaseLies => vec![Fault::DatabaseLies { node: data, for_ms, lie: rng.range(0, 3) }],
            Self::DiskReadOnly => vec![Fault::DiskReadOnly { node: data, for_ms }],
            Self::VipStolen => vec![Fault::VipStolen { node: data }],
            Self::CutOneWay => vec![Fault::Cut { from: node, to: other, for_ms }],
            Self::CutBothWays => both(node, other).to_vec(),
            Self::Isolate => (0..3).filter(|peer| *peer != node).flat_map(|peer| both(node, peer)).collect(),
            Self::SlowLink => {
                let by_ms = rng.range(50, 1_500);
                vec![Fault::SlowLink { from: node, to: other, for_ms, by_ms }]
            }
            Self::LeaderMoves => vec![Fault::LeaderMoves { to: node }],
            Self::RedisKill => vec![Fault::RedisKill { node: data, for_ms, forgets: false }],
            Self::RedisForgets => vec![Fault::RedisKill { node: data, for_ms, forgets: true }],
        }
    }
}

impl World {
    /// A fault happens now.
    pub fn inject(&mut self, fault: Fault) {
        let at = self.now;
        self.tell(|| format!("fault {fault:?}"));
        match fault {
            Fault::HostCrash { node, for_ms } => self.crash(node, for_ms),
            Fault::HostFreeze { node, for_ms } => {
                self.freeze(node, for_ms);
                if let Some(db) = &mut self.nodes[node].db {
                    db.frozen_until = db.frozen_until.max(at + for_ms);
                }
            }
            Fault::AgentKill { node, for_ms } => {
                let it = &mut self.nodes[node];
                it.agent_down_until = it.agent_down_until.max(at + for_ms);
                it.frozen_until = 0;
                it.stop_agent();
                self.queue.put(at + for_ms, Event::Live(node));
            }
            Fault::AgentFreeze { node, for_ms } => self.freeze(node, for_ms),
            Fault::MysqlKill { node, for_ms } => self.kill_mysql(node, for_ms),
            Fault::MysqlFreeze { node, for_ms } => {
                let db = self.db_mut(node);
                db.frozen_until = db.frozen_until.max(at + for_ms);
            }
            Fault::ApplierStops { node, for_ms } => {
                let db = self.db_mut(node);
                db.applier_stopped_until = db.applier_stopped_until.max(at + for_ms);
            }
            Fault::ThreadsRestart { node } => self.db_mut(node).restart_threads(),
            Fault::DatabaseLies { node, for_ms, lie } => {
                let it = &mut self.nodes[node];
                it.lied_until = it.lied_until.max(at + for_ms);
                it.lie = lie;
            }
            Fault::DiskReadOnly { node, for_ms } => {
                let it = &mut self.nodes[node];
                it.disk_bad_until = it.disk_bad_until.max(at + for_ms);
            }
            Fault::VipStolen { node } => {
                let detail = "another program deletes it again and again".to_owned();
                self.later(node, 1, Input::Observed { observation: Observation::VipUnrestorable { detail } });
            }
            Fault::Cut { from, to, for_ms } => self.cut[from][to] = self.cut[from][to].max(at + for_ms),
            Fault::SlowLink { from, to, for_ms, by_ms } => self.slow[from][to] = (at + for_ms, by_ms),
            Fault::LeaderMoves { to } => self.move_leader(to),
            Fault::RedisKill { node, for_ms, forgets } => self.kill_redis(node, for_ms, forgets),
        }
    }

    fn crash(&mut self, node: usize, for_ms: u64) {
        let until = self.now + for_ms;
        let planted = self.options.planted;
        let it = &mut self.nodes[node];
        it.host_down_until = it.host_down_until.max(until);
        it.agent_down_until = it.agent_down_until.max(until);
        it.db_down_until = it.db_down_until.max(until);
        it.frozen_until = 0;
        it.stop_agent();
        it.gate = super::kernel::Gate::new(planted);
        it.ordered = None;
        it.host_boots += 1;
        if let Some(db) = &mut it.db {
            db.stop();
            db.cut = false;
        }
        if let Some(redis) = &mut it.redis {
            redis.stop();
            it.redis_down_until = it.redis_down_until.max(until);
            it.redis_forgets = false;
        }
        self.queue.put(until, Event::Live(node));
    }

    fn kill_mysql(&mut self, node: usize, for_ms: u64) {
        let at = self.now;
        let it = &mut self.nodes[node];
        let Some(db) = it.db.as_mut().filter(|db| db.up) else { return };
        let server = db.instance().server.clone();
        db.stop();
        it.db_down_until = it.db_down_until.max(at + for_ms);
        self.queue.put(it.db_down_until, Event::Live(node));
        if self.able(node) {
            self.close(node, &[Door::Ports]);
            self.later(node, 1, Input::Observed { observation: Observation::MysqlExited { server } });
        }
    }

    /// The agent's process stops, now and then between computing a permit and writing it.
    fn freeze(&mut self, node: usize, for_ms: u64) {
        let at = self.now;
        let until = at + for_ms;
        if self.nodes[node].agent.is_none() {
            return;
        }
        let grant = self.queue.next_grant(node).cloned();
        let it = &mut self.nodes[node];
        let local = it.local(at);
        if let Some(accepted) = grant.and_then(|grant| it.holder.accept(&grant, local).ok()) {
            let timeout_ms = accepted.ends_at.since_ms(local);
            let permit = Permit { slot: accepted.slot, doors: accepted.doors, timeout_ms };
            self.queue.put(until, Event::Permit(node, it.boot, Box::new(permit)));
        }
        let it = &mut self.nodes[node];
        if at >= it.frozen_until {
            it.frozen_since = at;
        }
        it.frozen_until = it.frozen_until.max(until);
        self.queue.put(until, Event::Thaw(node));
    }

    /// A fault of the seed, aimed at whoever has the role now.
    pub(super) fn trouble(&mut self) {
        let roles = self.roles();
        let swarm = std::mem::take(&mut self.swarm);
        for fault in swarm.fault(&mut self.rng, roles) {
            self.inject(fault);
        }
        self.swarm = swarm;
    }

    fn roles(&self) -> Roles {
        let ledger = self.ledger();
        let index = |name: &str| NAMES.iter().position(|known| *known == name);
        let holder = ledger.holder.as_ref().or(ledger.last_holder.as_ref());
        let holder = holder.and_then(|name| index(name.as_str())).unwrap_or(0);
        let leader = (0..3).find(|node| self.raft.leads(*node)).unwrap_or(2);
        Roles { holder, other: 1 - holder, leader }
    }

    /// Everything runs and talks from now on, and nothing is lost any more.
    pub fn heal(&mut self) {
        let at = self.now;
        self.tell(|| "healed".to_owned());
        self.healed_at = Some(at);
        self.swarm.lost = 0;
        // Slower ones than the timing allows would take leases away for ever.
        self.swarm.ack_ms = self.swarm.ack_ms.min(QUICK_ACK_MS);
        self.swarm.unknown = 0;
        self.swarm.step_fails = 0;
        self.swarm.undo_fails = 0;
        self.swarm.armed.clear();
        // Nobody waits for the end of a pause.
        if self.swarm.verbs.contains(&OperatorAct::Pause) && !self.swarm.verbs.contains(&OperatorAct::Resume)
        {
            self.swarm.verbs.push(OperatorAct::Resume);
            self.queue.put(at, Event::Operator(OperatorAct::Resume));
        }
        self.swarm.aborts = 0;
        self.cut = [[0; 3]; 3];
        self.slow = [[(0, 0); 3]; 3];
        for node in 0..3 {
            let it = &mut self.nodes[node];
            it.host_down_until = it.host_down_until.min(at);
            it.agent_down_until = it.agent_down_until.min(at);
            it.db_down_until = it.db_down_until.min(at);
            it.redis_down_until = it.redis_down_until.min(at);
            it.disk_bad_until = it.disk_bad_until.min(at);
            it.lied_until = it.lied_until.min(at);
            let thaws = at < it.frozen_until;
            if let Some(db) = &mut it.db {
                db.frozen_until = db.frozen_until.min(at);
                db.applier_stopped_until = db.applier_stopped_until.min(at);
            }
            if thaws {
                it.frozen_until = at;
                self.queue.put(at, Event::Thaw(node));
            }
            self.queue.put(at, Event::Live(node));
        }
        self.return_late();
    }
}
