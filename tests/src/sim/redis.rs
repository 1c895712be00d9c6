//! One fake Redis: a data set without acknowledgements, a replica that takes whatever its primary has, and a restart that may
//! have forgotten everything. Boots as a replica of nobody, refusing writes.

use baton_runbooks::agent::Input;
use baton_runbooks::observe::{Observation, ProbeFailure, RedisBoot, RedisFacts};

use super::mysql::{Tx, TxSet, address};
use super::node::NAMES;
use super::planted::Planted;
use super::world::World;
use crate::invariants::redis;

/// `min-replicas-to-write` of a server that refuses writes.
const REFUSES: u64 = 99;

/// The server.
#[derive(Debug, Clone, Default)]
pub struct Redis {
    /// Number of its starts.
    pub starts: u64,
    /// The process runs.
    pub up: bool,
    /// It is a primary.
    pub primary: bool,
    /// Clients can write.
    pub open: bool,
    /// The node that it follows.
    pub follows: Option<usize>,
    /// The link to its primary is up.
    pub link_up: bool,
    /// What was written.
    pub data: TxSet,
    /// The stretch in which it is a primary.
    origin: usize,
}

impl Redis {
    /// The process ends.
    pub fn stop(&mut self) {
        self.up = false;
        self.link_up = false;
    }

    /// The process begins, with what it had or with nothing.
    pub fn start(&mut self, forgets: bool) {
        self.starts += 1;
        self.up = true;
        (self.primary, self.open, self.follows, self.link_up) = (false, false, None, false);
        if forgets {
            self.data = TxSet::default();
        }
    }

    fn server(&self) -> String {
        format!("{}@2", self.starts)
    }

    fn facts(&self) -> RedisFacts {
        RedisFacts {
            server: self.server(),
            primary: self.primary,
            loading: false,
            link_up: self.link_up,
            follows: self.follows.map(|source| format!("{}:6379", address(source))),
            offset: u64::from(self.data.len()),
            keys: u64::from(self.data.len()),
            min_replicas_to_write: if self.open { 0 } else { REFUSES },
        }
    }
}

impl World {
    /// The Redis of a data node; `None`: this world has none.
    pub(super) fn redis(&self, node: usize) -> Option<&Redis> {
        self.nodes[node].redis.as_ref()
    }

    /// What a probe sees.
    pub(super) fn look_at_redis(&mut self, node: usize) {
        let Some(redis) = self.redis(node) else { return };
        let observation = if redis.up {
            let facts = redis.facts();
            self.note_redis_boot(node, &facts);
            Observation::Redis { facts }
        } else {
            Observation::RedisFailed { failure: ProbeFailure::Refused }
        };
        self.feed(node, Input::Observed { observation });
    }

    /// Judged once, and on disk before it is opened.
    fn note_redis_boot(&mut self, node: usize, facts: &RedisFacts) {
        let it = &mut self.nodes[node];
        if it.agent.is_none() {
            return;
        }
        let boot = RedisBoot::of(it.redis_boot.take(), facts);
        let judged = redis::judged(&boot, node);
        it.redis_boot = Some(boot);
        self.invariants.hold(self.now, redis::NAME, judged);
    }

    /// A step looks at a process that no probe has seen before it opens it.
    pub(super) fn see_redis_first(&mut self, node: usize) {
        let Some(redis) = self.redis(node).filter(|redis| redis.up) else { return };
        let is_known = self.nodes[node].redis_boot.as_ref().is_some_and(|boot| boot.server == redis.server());
        if !is_known {
            self.look_at_redis(node);
        }
    }

    /// A client behind the VIP writes, and is told so at once.
    pub(super) fn write_redis(&mut self, node: usize) {
        let Some(redis) = self.nodes[node].redis.as_mut().filter(|it| it.up && it.primary && it.open) else {
            return;
        };
        let tx = Tx { origin: redis.origin, number: redis.data.upto(redis.origin) + 1 };
        redis.data.add(tx);
        self.invariants.line_mut(self.raft.views[node].log).redis.acknowledged(tx);
    }

    /// The replica takes what its primary has: what is new, or everything if their histories differ. A server that has no
    /// primary of its own and is none gives nothing away.
    pub(super) fn stream_redis(&mut self, node: usize) {
        let (other, linked) = (1 - node, self.talk(node, 1 - node));
        let [one, two, ..] = self.nodes.as_mut_slice() else { return };
        let (replica, source) = if node == 0 { (one, two) } else { (two, one) };
        let (Some(replica), Some(source)) = (&mut replica.redis, &source.redis) else { return };
        replica.link_up = replica.up
            && linked
            && replica.follows == Some(other)
            && source.up
            && (source.primary || source.link_up);
        if !replica.link_up {
            return;
        }
        let kept = redis::copied(node, &replica.data, &source.data);
        replica.data.clone_from(&source.data);
        self.invariants.hold(self.now, redis::NAME, kept);
    }

    /// Refuses writes, and follows whom it may.
    pub(super) fn close_redis(&mut self, node: usize, follow: Option<usize>) {
        if let Some(redis) = &mut self.nodes[node].redis {
            redis.open = false;
        }
        let Some((redis, source)) = self.redis(node).zip(follow.and_then(|other| self.redis(other))) else {
            return;
        };
        let wiped = source.data.is_empty() && !redis.data.is_empty();
        let may_follow = redis.up && redis.follows != follow && source.up && source.primary && !wiped;
        if may_follow && let Some(redis) = &mut self.nodes[node].redis {
            (redis.primary, redis.follows) = (false, follow);
            self.tell(|| format!("{}: Redis follows", NAMES[node]));
        }
    }

    /// The process is the one that the core has judged.
    pub(super) fn is_judged(&self, node: usize, judged: Option<&str>) -> bool {
        self.redis(node).is_some_and(|redis| judged == Some(redis.server().as_str()))
    }

    /// The primary, unless it is empty and the other one is not.
    pub(super) fn serve_redis(&mut self, node: usize) {
        let Some(redis) = self.redis(node).filter(|redis| redis.up) else { return };
        let other_has = self.redis(1 - node).is_some_and(|other| !other.data.is_empty());
        let is_empty = !redis.primary && redis.data.is_empty() && other_has;
        if !is_empty || self.has(Planted::EmptyRedisPromoted) {
            self.promote_redis(node);
        }
    }

    /// A primary that takes writes.
    pub(super) fn promote_redis(&mut self, node: usize) {
        let origin = self.origins;
        let Some(redis) = self.nodes[node].redis.as_mut().filter(|redis| !redis.primary || !redis.open)
        else {
            return;
        };
        if !redis.primary {
            redis.origin = origin;
            self.origins += 1;
        }
        (redis.primary, redis.open, redis.follows, redis.link_up) = (true, true, None, false);
        self.tell(|| format!("{}: Redis is the primary", NAMES[node]));
    }

    /// The process of a Redis ends, and begins again.
    pub(super) fn kill_redis(&mut self, node: usize, for_ms: u64, forgets: bool) {
        let until = self.now + for_ms;
        let it = &mut self.nodes[node];
        let Some(redis) = it.redis.as_mut().filter(|redis| redis.up) else { return };
        redis.stop();
        it.redis_forgets = forgets;
        it.redis_down_until = it.redis_down_until.max(until);
        self.queue.put(until, super::event::Event::Live(node));
    }
}
