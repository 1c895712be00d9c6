//! `decide_local`: what a node does by itself, without asking anybody.
//!
//! It never looks further than this node's own lease, its last applied ledger and its own detector. It can close at any
//! time; it opens only what its lease covers. The outcome is a *wish*, level-triggered: the hands make it so, again and
//! again, whatever state they find.

use serde::{Deserialize, Serialize};

use crate::detect::{Detector, DiskVerdict, Verdict};
use crate::ledger::Ledger;
use crate::model::{Epoch, Mono, NodeId, NodeKind};
use crate::run::RunState;
use crate::why::Why;

/// What a data node is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "role")]
pub enum Role {
    /// Has no data: nothing to open or close.
    Witness,
    /// Everything closed: no VIP, ports shut, databases read-only, the holder's services stopped.
    Closed {
        /// The primary to follow, once its epoch is open.
        follow: Option<NodeId>,
    },
    /// Holds the baton, and a run is on its way to the opening: the steps act.
    Acquiring {
        /// The epoch.
        epoch: Epoch,
    },
    /// Gets the baton in a switchover: the steps act on the databases, the doors are closed.
    Receiving {
        /// The epoch that the run begins.
        epoch: Epoch,
    },
    /// Holds the baton, the epoch is open, the lease is valid.
    Serving {
        /// The epoch.
        epoch: Epoch,
        /// The database ports may be open.
        ports: bool,
        /// Commits wait for the replica.
        semi_sync: bool,
        /// The holder's services run. They are stopped first when the baton is passed.
        services: bool,
        /// The Redis process, as `pid@ticks`, that may be the primary here: one that was judged, no other.
        redis: Option<String>,
    },
}

/// What this node does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Wish {
    /// What it is to be.
    pub role: Role,
    /// Renewals are sent for this epoch.
    pub renew: Option<Epoch>,
    /// The holder gives its lease back, after closing.
    pub release: Option<Why>,
    /// Why, most important first.
    pub why: Vec<Why>,
}

/// What the decision weighs.
pub struct LocalFacts<'a> {
    /// The present instant.
    pub now: Mono,
    /// This node.
    pub me: &'a NodeId,
    /// The last applied ledger.
    pub ledger: &'a Ledger,
    /// Until when this node's lease is valid, and for which epoch.
    pub lease: Option<(Epoch, Mono)>,
    /// What this node sees of itself.
    pub detector: &'a Detector,
    /// The database runs writable and this agent did not open it.
    pub boots_writable: bool,
    /// The local Redis was open when an agent first saw its process.
    pub redis_boots_open: bool,
    /// Commits on the local primary wait for the replica: sessions, as seen a moment ago. Old figures count as 0: a hung
    /// server gives no new ones, and must not be excused by them.
    pub waiting: u64,
    /// What moved in semi-sync while the ledger says *in sync*; the ports are closed until the ledger knows.
    pub semi_sync_broken: Option<&'a str>,
    /// A service of the holder that is lost here, and its state.
    pub service_lost: Option<(&'a str, &'a str)>,
    /// The local Redis came back empty; keys at the other node.
    pub redis_empty: Option<u64>,
    /// The local Redis is another process than the one that served in this epoch, and the other node has what that one had.
    pub redis_restarted: Option<RedisRestarted<'a>>,
    /// The newest process of the local Redis that was seen.
    pub redis_server: Option<&'a str>,
    /// The clients' gateway that does not answer here and answers the other data node.
    pub gateway_lost: Option<&'a str>,
    /// What the other data node lacks to be better; `None`: it could take over now. Only asked for by a holder that cannot
    /// serve: the answer is text, and everything else is looked at many times a second.
    pub other_lacks: &'a dyn Fn() -> Option<String>,
    /// A release of this epoch was proposed and has not been refused.
    pub releasing: Option<Epoch>,
    /// MySQL is configured.
    pub mysql: bool,
    /// Redis is configured.
    pub redis: bool,
}

/// Two Redis processes of one epoch, as `pid@ticks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisRestarted<'a> {
    /// The one that served.
    pub was: &'a str,
    /// The one that answers now.
    pub is: &'a str,
}

/// What this node does by itself, now.
pub fn decide_local(facts: &LocalFacts<'_>) -> Wish {
    let ledger = facts.ledger;
    if ledger.members.get(facts.me) != Some(&NodeKind::Data) {
        return Wish { role: Role::Witness, renew: None, release: None, why: Vec::new() };
    }
    if ledger.holder.as_ref() != Some(facts.me) {
        if let Some(run) = ledger.run.as_ref().filter(|run| run.plan.to == *facts.me && run.is_receiving()) {
            let role = Role::Receiving { epoch: run.plan.epoch };
            return Wish { role, renew: None, release: None, why: vec![Why::ReceivingBaton { run: run.id }] };
        }
        let follow = ledger.holder.as_ref().filter(|holder| ledger.is_open_for(holder)).cloned();
        return closed(follow, None, Why::NotHolder);
    }
    let epoch = ledger.epoch;
    if let Some(released) = ledger.released.as_ref().filter(|r| r.epoch == epoch) {
        return closed(None, None, released.why.clone());
    }
    if let Some(run) = ledger.run.as_ref().filter(|_| !ledger.is_open_for(facts.me)) {
        if let RunState::NeedsOperator { step, reason } = run.state() {
            let step = step.as_str().to_owned();
            return closed(None, None, Why::RunNeedsOperator { run: run.id, step, reason });
        }
        if facts.boots_writable {
            return closed(None, None, Why::MysqlBootsWritable);
        }
        if facts.redis_boots_open {
            return closed(None, None, Why::RedisBootsOpen);
        }
        let why = vec![Why::NotOpenedYet { run: run.id }];
        return Wish { role: Role::Acquiring { epoch }, renew: Some(epoch), release: None, why };
    }
    serve(facts, epoch)
}

fn closed(follow: Option<NodeId>, renew: Option<Epoch>, why: Why) -> Wish {
    Wish { role: Role::Closed { follow }, renew, release: None, why: vec![why] }
}

fn serve(facts: &LocalFacts<'_>, epoch: Epoch) -> Wish {
    if facts.boots_writable {
        return closed(None, None, Why::MysqlBootsWritable);
    }
    let valid = facts.lease.is_some_and(|(of, until)| of == epoch && facts.now < until);
    if !valid {
        // It is about the next opening: what is open goes on, and in a pause nothing is taken from whoever served.
        if facts.redis_boots_open && facts.ledger.pause.is_none() {
            return closed(None, None, Why::RedisBootsOpen);
        }
        return closed(None, Some(epoch), Why::LeaseLapsed { epoch });
    }
    let cannot = cannot_serve(facts);
    if facts.releasing == Some(epoch) {
        // Once proposed, a release may be applied at any time: nothing opens again unless the ledger refuses it.
        let reason = cannot.unwrap_or(Why::NotHolder);
        return release(epoch, reason);
    }
    let semi_sync = facts.ledger.has_replica_in_sync();
    // What cannot be served anywhere else is served here as far as it goes; only a dead server has nothing behind its
    // ports, and nothing may be acknowledged while semi-sync is not what the ledger says.
    let broken = facts.semi_sync_broken.map(|detail| Why::SemiSyncBroken { detail: detail.to_owned() });
    let passing = facts.ledger.run.as_ref().filter(|run| run.is_handing_over());
    let gone = matches!(cannot, Some(Why::MysqlDead | Why::MysqlRefusing));
    let ports = broken.is_none() && !gone && passing.is_none();
    let services = !facts.ledger.run.as_ref().is_some_and(|run| run.is_draining() || run.is_handing_over());
    let judged = |server: Option<&str>| {
        let redis = server.map(str::to_owned);
        Role::Serving { epoch, ports, semi_sync, services, redis }
    };
    // Another process is not lifted here while there may be a better one.
    let was = facts.redis_restarted.map(|redis| redis.was).or(facts.redis_server);
    let (role, with_any) = (judged(was), judged(facts.redis_server));
    let Some(reason) = cannot else {
        let passing = passing.map(|run| Why::HandingOver { run: run.id });
        let why = vec![broken.or(passing).unwrap_or(Why::Serving { epoch })];
        return Wish { role, renew: Some(epoch), release: None, why };
    };
    if let Some(pause) = &facts.ledger.pause {
        let (by, words) = (pause.order.by.clone(), pause.order.reason.clone());
        let why = vec![reason, Why::Paused { pause: pause.id, by, reason: words }];
        return Wish { role: with_any, renew: Some(epoch), release: None, why };
    }
    match (facts.other_lacks)() {
        None if facts.waiting == 0 || reason.is_beyond_waiting() => release(epoch, reason),
        None => {
            let why = vec![reason, Why::CommitsWaitForReplica { waiting: facts.waiting }];
            Wish { role, renew: Some(epoch), release: None, why }
        }
        Some(because) => {
            let why = vec![reason, Why::OtherNotBetter { because }];
            Wish { role: with_any, renew: Some(epoch), release: None, why }
        }
    }
}

/// Closed, and asking to be relieved. Renewals go on: they open nothing, and tell the leader that this node is there.
fn release(epoch: Epoch, reason: Why) -> Wish {
    let role = Role::Closed { follow: None };
    Wish { role, renew: Some(epoch), release: Some(reason.clone()), why: vec![reason] }
}

/// Why this node cannot serve clients, although its lease is valid.
fn cannot_serve(facts: &LocalFacts<'_>) -> Option<Why> {
    let detector = facts.detector;
    if facts.mysql {
        match detector.mysql(facts.now) {
            Verdict::Dead => return Some(Why::MysqlDead),
            Verdict::Refusing => return Some(Why::MysqlRefusing),
            Verdict::Hung => return Some(Why::MysqlHung),
            Verdict::WriteStalled => return Some(Why::MysqlWriteStalled),
            Verdict::Unknown
            | Verdict::Healthy
            | Verdict::Suspect
            | Verdict::TooManyConnections
            | Verdict::WrongCredentials
            | Verdict::Failing => {}
        }
    }
    if facts.redis && detector.redis(facts.now).is_lost() {
        return Some(Why::RedisDown { detail: detector.redis(facts.now).as_str().to_owned() });
    }
    if let Some(keys) = facts.redis_empty {
        return Some(Why::RedisEmpty { keys });
    }
    if let Some(RedisRestarted { was, is }) = facts.redis_restarted {
        return Some(Why::RedisRestarted { was: was.to_owned(), is: is.to_owned() });
    }
    match detector.disk() {
        DiskVerdict::Full => return Some(Why::DiskFull { free_bytes: detector.disk_free() }),
        DiskVerdict::ReadOnly => return Some(Why::DiskReadOnly),
        DiskVerdict::Unknown | DiskVerdict::Healthy | DiskVerdict::Stalled => {}
    }
    if let Some(interface) = detector.link_lost(facts.now) {
        return Some(Why::LinkDown { interface: interface.to_owned() });
    }
    if let Some(detail) = detector.vip_lost(facts.now) {
        return Some(Why::VipLost { detail: detail.to_owned() });
    }
    if let Some(address) = facts.gateway_lost {
        return Some(Why::GatewayLost { address: address.to_owned() });
    }
    let (name, state) = facts.service_lost?;
    Some(Why::ServiceDown { name: name.to_owned(), state: state.to_owned() })
}

impl Why {
    /// Sessions that wait for the replica do not explain this failure away.
    const fn is_beyond_waiting(&self) -> bool {
        !matches!(self, Self::MysqlHung | Self::MysqlWriteStalled)
    }
}
