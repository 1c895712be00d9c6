//! One node: its clock, host, agent process, lease thread, database. What it does is in the modules beside this one.

use std::rc::Rc;

use baton_runbooks::agent::{Agent, LeaseFacts, Setup, TICK_MAX_MS};
use baton_runbooks::decide::Policy;
use baton_runbooks::decide::local::Wish;
use baton_runbooks::detect::Patience;
use baton_runbooks::lease::Terms;
use baton_runbooks::lease::granter::{Granter, Office};
use baton_runbooks::lease::holder::Holder;
use baton_runbooks::model::{Mono, NodeId};
use baton_runbooks::observe::RedisBoot;
use baton_runbooks::run::table::Scope;

use super::forcing::Order;
use super::kernel::{Gate, SLOTS};
use super::mysql::{Mysql, address};
use super::pausing::Pausing;
use super::planted::Planted;
use super::redis::Redis;

/// Names of the nodes: two with data, and the witness.
pub const NAMES: [&str; 3] = ["db1", "db2", "mon"];

/// The nodes with data.
pub const DATA: [usize; 2] = [0, 1];

/// The lease of profile `standard`.
pub const TERMS: Terms =
    Terms { lease_ms: 1_200, renew_ms: 200, margin_ms: 150, age_max_ms: 200, slots: SLOTS };

/// What the core was told last of this node's standing in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<usize>,
    /// An entry of its own term is applied.
    pub own: bool,
    /// When a quorum acknowledged last.
    pub acked_at: Option<u64>,
}

/// The core hears this often of acknowledgements that change nothing else, in milliseconds.
const REFRESH_MS: u64 = 150;

impl Standing {
    /// The core needs to hear of the present one.
    pub fn is_outdated(self, now: Self) -> bool {
        let age_ms = match (self.acked_at, now.acked_at) {
            (Some(told), Some(now)) => now.saturating_sub(told),
            (None, None) => 0,
            (Some(_), None) | (None, Some(_)) => REFRESH_MS,
        };
        age_ms >= REFRESH_MS || Self { acked_at: now.acked_at, ..self } != now
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeId,
    /// Redis is configured in this world.
    pub has_redis: bool,
    /// The host is off until then.
    pub host_down_until: u64,
    /// How often the host was booted, as its kernel tells it.
    pub host_boots: u64,
    /// The agent is not started before.
    pub agent_down_until: u64,
    /// The agent has no processor until then.
    pub frozen_until: u64,
    /// When the agent was started last.
    pub started_at: u64,
    /// When the agent was frozen.
    pub frozen_since: u64,
    /// The disk takes no writes until then.
    pub disk_bad_until: u64,
    /// The disk was seen to be bad.
    pub disk_seen_bad: bool,
    /// Probes of the database say `lie` until then.
    pub lied_until: u64,
    /// Which wrong answer: see `probes`.
    pub lie: u64,
    /// Local milliseconds per real second.
    pub rate: u64,
    /// What its clock showed at the beginning.
    pub offset: u64,
    /// The core; `None`: the process does not run.
    pub agent: Option<Agent>,
    /// The holder's half of the lease.
    pub holder: Holder,
    /// The leader's half of the lease.
    pub granter: Granter,
    /// What the lease thread knows of a pause.
    pub pausing: Pausing,
    /// Number of this start of the agent.
    pub boot: u64,
    /// The database instance that was opened, as noted on disk.
    pub opened: Option<String>,
    /// How the newest process of Redis was found that an agent saw, as noted on disk.
    pub redis_boot: Option<RedisBoot>,
    /// The database; the witness has none.
    pub db: Option<Mysql>,
    /// The database is not started before.
    pub db_down_until: u64,
    /// Redis; `None`: this world, or this node, has none.
    pub redis: Option<Redis>,
    /// Redis is not started before.
    pub redis_down_until: u64,
    /// Redis has nothing on disk: its next start finds nothing.
    pub redis_forgets: bool,
    /// The kernel.
    pub gate: Gate,
    /// On disk: the next start of the agent goes on alone.
    pub ordered: Option<Order>,
    /// What the node is to be.
    pub wish: Option<Rc<Wish>>,
    /// What the core knows of Raft.
    pub standing: Option<Standing>,
    /// This node's standing when it was last looked at, and the same for the lease thread.
    pub office: Option<(Standing, Rc<Office>)>,
    /// What the core knows of the lease.
    pub lease: LeaseFacts,
    /// When the newest view of the lease reaches the core.
    pub lease_due: u64,
    /// The newest canary that this start of the agent began.
    pub canary_newest: u64,
    /// A canary's commit is waited for until then.
    pub canary_busy_until: u64,
}

impl Node {
    /// A node whose agent has not been started.
    pub fn new(name: NodeId, index: usize, rate: u64, offset: u64, planted: Option<Planted>) -> Self {
        Self {
            has_redis: false,
            host_down_until: 0,
            host_boots: 1,
            agent_down_until: 0,
            frozen_until: 0,
            started_at: 0,
            frozen_since: 0,
            disk_bad_until: 0,
            disk_seen_bad: false,
            lied_until: 0,
            lie: 0,
            rate,
            offset,
            agent: None,
            holder: Holder::new(name.clone(), believed(planted), 0),
            granter: Granter::new(name.clone(), terms(planted)),
            pausing: Pausing::default(),
            boot: index as u64 * 1_000,
            opened: None,
            redis_boot: None,
            db: (index < 2).then(Mysql::default),
            db_down_until: 0,
            redis: None,
            redis_down_until: 0,
            redis_forgets: false,
            gate: Gate::new(planted),
            ordered: None,
            wish: None,
            standing: None,
            office: None,
            lease: LeaseFacts::default(),
            lease_due: 0,
            canary_newest: 0,
            canary_busy_until: 0,
            name,
        }
    }

    /// What its clock shows at a real instant.
    pub const fn local(&self, at: u64) -> Mono {
        Mono(self.offset + at * self.rate / 1_000)
    }

    /// Real milliseconds in which `ms` pass on this node's clock.
    pub const fn real(&self, ms: u64) -> u64 {
        ms * 1_000 / self.rate
    }

    /// Its agent runs and has the processor.
    pub const fn is_able(&self, at: u64) -> bool {
        self.agent.is_some() && at >= self.frozen_until && at >= self.host_down_until
    }

    /// A new process: nothing of the last one is left but what is on disk and in the kernel.
    pub fn start_agent(&mut self, index: usize, planted: Option<Planted>) {
        self.boot += 1;
        self.holder = Holder::new(self.name.clone(), believed(planted), self.boot);
        self.granter = Granter::new(self.name.clone(), terms(planted));
        self.pausing = Pausing::default();
        let noted = Noted { opened: self.opened.clone(), redis_boot: self.redis_boot.clone() };
        self.agent = Some(Agent::new(setup(self.name.clone(), index, self.boot, noted, self.has_redis)));
        self.wish = None;
        self.standing = None;
        self.lease = LeaseFacts::default();
        self.lease_due = 0;
        self.disk_seen_bad = false;
        self.canary_busy_until = 0;
        self.canary_newest = 0;
    }

    /// This world has Redis.
    pub fn with_redis(&mut self) {
        self.has_redis = true;
        self.redis = self.db.is_some().then(Redis::default);
    }

    /// The process is gone.
    pub fn stop_agent(&mut self) {
        self.agent = None;
    }
}

fn terms(planted: Option<Planted>) -> Terms {
    if planted == Some(Planted::NoMargin) { Terms { margin_ms: 0, ..TERMS } } else { TERMS }
}

/// The holder's terms.
fn believed(planted: Option<Planted>) -> Terms {
    let too_long = planted == Some(Planted::BelievesItsLeaseTooLong);
    if too_long { Terms { lease_ms: 2 * TERMS.lease_ms, ..TERMS } } else { TERMS }
}

/// What a start of the agent finds on disk.
#[derive(Default)]
struct Noted {
    opened: Option<String>,
    redis_boot: Option<RedisBoot>,
}

fn setup(me: NodeId, index: usize, boot: u64, noted: Noted, redis: bool) -> Setup {
    Setup {
        me,
        own_address: address(index).to_owned(),
        policy: Policy {
            scope: Scope { mysql: true, independent_services: true, services: true },
            report_max_ms: 755,
            quorum_max_ms: TERMS.age_max_ms + TICK_MAX_MS,
            anti_flap_ms: 20_000,
            anti_flap_max: 3,
            cold_start_ms: 10_000,
        },
        patience: Patience {
            refused_count: 2,
            hung_ms: 1_250,
            stalled_ms: 2_000,
            disk_free_min: 1,
            settle_ms: 1_200,
            service_lost_ms: 25_000,
            link_lost_ms: 300,
        },
        sync_patience_ms: 1_400,
        redis,
        holder_services: Vec::new(),
        version: String::new(),
        config_hash: String::new(),
        new_leader_ms: TERMS.new_leader_wait_ms(),
        opened: noted.opened,
        writable_boot: None,
        redis_boot: noted.redis_boot,
        boot,
    }
}

#[cfg(test)]
mod tests {
    use super::super::mail::REPORT_WAITS_MS;
    use super::*;
    use baton_node::config::{Profile, RawTiming, Timing};

    /// What is simulated is what is shipped, but for two patiences that would outlast a schedule.
    #[test]
    fn the_timing_is_that_of_standard() {
        let timing = Timing::of(Profile::Standard, &RawTiming::default());
        let shipped = Terms {
            lease_ms: timing.lease.0,
            renew_ms: timing.renew.0,
            margin_ms: timing.margin.0,
            age_max_ms: timing.age_max.0,
            slots: SLOTS,
        };
        assert_eq!(TERMS, shipped);
        let setup = setup(NodeId::from(NAMES[0]), 0, 1, Noted::default(), false);
        assert_eq!(setup.sync_patience_ms, timing.sync_patience.0);
        assert_eq!(setup.policy.report_max_ms, 3 * timing.report.0 + timing.rtt.0);
        assert_eq!(setup.patience.hung_ms, 5 * timing.probe.0);
        assert_eq!(setup.patience.stalled_ms, 8 * timing.probe.0);
        assert_eq!(setup.patience.settle_ms, timing.lease.0);
        assert_eq!(setup.patience.link_lost_ms, timing.lease.0 / 4);
        let heartbeats = u64::from(baton_consensus::PATIENCE_HEARTBEATS) * timing.heartbeat.0;
        assert_eq!(REPORT_WAITS_MS, heartbeats + TICK_MAX_MS);
    }
}
