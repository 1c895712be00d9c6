//! The holder's Redis: which process of it serves, and what makes it useless although it answers.
//!
//! Redis saves what it has once a second at best, and its replica has it after a millisecond. A service manager that starts it
//! anew within a tenth of a second leaves no time in which it is down: what shows the loss is that another process answers.

use super::Agent;
use crate::decide::local::{RedisRestarted, Role};
use crate::model::{Epoch, Mono};

/// The process that was judged fit to serve in an epoch, as `pid@ticks`.
#[derive(Debug)]
pub(super) struct Served {
    epoch: Epoch,
    server: String,
}

impl Agent {
    /// The local Redis is no primary although this node serves, and has nothing, while the other node has data: the number
    /// of its keys. One that was emptied by its clients still is a primary.
    pub(super) fn redis_empty(&self, now: Mono) -> Option<u64> {
        let fresh = |at: Mono| now.since_ms(at) <= self.setup.policy.report_max_ms;
        let (_, facts) = self.detector.redis_facts().filter(|(at, _)| fresh(*at))?;
        let is_primary = facts.primary && facts.min_replicas_to_write == 0;
        if is_primary || facts.loading || facts.keys > 0 {
            return None;
        }
        let other = self.ledger.other_data_nodes(&self.setup.me).next()?;
        let heard = self.reports.get(other).filter(|heard| fresh(heard.at))?;
        heard.report.redis.as_ref().map(|redis| redis.keys).filter(|keys| *keys > 0)
    }

    /// The newest process of the local Redis that was seen.
    pub(super) fn redis_server(&self) -> Option<&str> {
        self.detector.redis_facts().map(|(_, facts)| facts.server.as_str())
    }

    /// Another process answers than the one that served in this epoch. The first one that this agent sees in an epoch counts
    /// as the one that was opened.
    pub(super) fn redis_restarted(&self) -> Option<RedisRestarted<'_>> {
        let served = self.redis_served.as_ref().filter(|served| served.epoch == self.ledger.epoch)?;
        let is = self.redis_server().filter(|is| *is != served.server)?;
        Some(RedisRestarted { was: &served.server, is })
    }

    /// What the wish lets serve was judged, and serves from here on: also a process that was started anew, where nobody else
    /// would be better.
    pub(super) fn note_redis(&mut self) {
        let Some(Role::Serving { epoch, redis: Some(server), .. }) =
            self.wish.as_ref().map(|wish| &wish.role)
        else {
            return;
        };
        let known = self.redis_served.as_ref();
        if known.is_none_or(|served| served.epoch != *epoch || served.server != *server) {
            self.redis_served = Some(Served { epoch: *epoch, server: server.clone() });
        }
    }
}
