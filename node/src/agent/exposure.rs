//! Ten times a second the holder compares the offset of its Redis with the replica's (design, 6); twice a second while nothing has
//! been written for a second, since an idle agent should cost next to nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use baton_runbooks::decide::local::Role;
use baton_runbooks::exposure::{Exposure, Gauge};
use baton_runbooks::model::NodeKind;

use super::driver::Wishes;
use super::{Context, hands};
use crate::chain::chain;
use crate::hands::redis::{Redis, Remote, Stream};

const PERIOD: Duration = Duration::from_millis(100);
/// A server on the same site answers within a millisecond.
const DEADLINE: Duration = Duration::from_millis(80);
/// Every so many looks the replica is asked in any case: it may be another one although nothing is written. A replica that
/// does not answer is asked no more often, and has longer to answer.
const SELDOM: u32 = 10;
const SELDOM_DEADLINE: Duration = Duration::from_millis(500);

/// After so many looks in which nothing was written, only every so many periods.
const QUIET_AFTER: u32 = 10;
const QUIET_EVERY: u32 = 5;

/// The newest comparison, for this node's report.
#[derive(Debug, Clone, Default)]
pub(super) struct Exposed(Arc<Mutex<Option<Exposure>>>);

impl Exposed {
    /// `None` while this node does not serve, or before its replica was seen.
    pub(super) fn newest(&self) -> Option<Exposure> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, newest: Option<Exposure>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = newest;
    }
}

/// Starts to compare, where there is a Redis and another data node.
///
/// # Errors
/// The password file cannot be read.
pub(super) fn start(context: &Context, wishes: Wishes) -> anyhow::Result<Exposed> {
    let exposed = Exposed::default();
    let config = &context.config;
    let peer = config.nodes.iter().find(|node| node.kind == NodeKind::Data && node.name != config.node);
    if let (Some(redis), Some(peer), true) = (&config.redis, peer, config.is_data_node()) {
        let access = hands::redis_access(redis).context("the password of Redis")?;
        let addr = SocketAddr::new(peer.address, redis.port);
        let remote = Remote::new(addr, access.user.clone(), access.password.clone());
        // A connection of its own: the probe's is the probe's.
        let local = Redis::new(access);
        tokio::spawn(compare(context.clone(), wishes, local, remote, exposed.clone()));
    }
    Ok(exposed)
}

async fn compare(context: Context, wishes: Wishes, local: Redis, remote: Remote, exposed: Exposed) {
    let mut tick = context.clock.every(PERIOD, Duration::ZERO);
    let mut comparison =
        Comparison { local, remote, gauge: Gauge::default(), last: None, looks: 0, still: 0, trouble: None };
    let mut ticks = 0_u32;
    loop {
        tick.tick().await;
        ticks = ticks.wrapping_add(1);
        if comparison.still >= QUIET_AFTER && !ticks.is_multiple_of(QUIET_EVERY) {
            continue;
        }
        let serves = wishes.borrow().as_ref().is_some_and(|numbered| match &numbered.wish.role {
            Role::Serving { .. } => true,
            Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } | Role::Receiving { .. } => false,
        });
        if serves {
            exposed.note(comparison.look(&context, exposed.newest()).await);
        } else if comparison.last.is_some() {
            comparison.forget();
            exposed.note(None);
        }
    }
}

struct Comparison {
    local: Redis,
    remote: Remote,
    gauge: Gauge,
    /// What the holder's Redis said last.
    last: Option<Stream>,
    looks: u32,
    /// Looks since something was written.
    still: u32,
    /// Why the replica was not compared, as last logged.
    trouble: Option<String>,
}

impl Comparison {
    fn forget(&mut self) {
        (self.gauge, self.last, self.still) = (Gauge::default(), None, 0);
    }

    async fn look(&mut self, context: &Context, newest: Option<Exposure>) -> Option<Exposure> {
        let asked = self.local.stream(DEADLINE).await;
        let at = context.clock.now();
        let written = match asked {
            Ok(Some(written)) if written.is_primary => written,
            Ok(Some(_) | None) => {
                self.forget();
                return None;
            }
            // It had written as much at least.
            Err(_) => return self.gauge.unanswered(at, self.last.as_ref()?.offset),
        };
        if self.last.as_ref().is_some_and(|last| last.history != written.history) {
            self.forget();
        }
        let is_still = self.last.replace(written.clone()).is_some_and(|last| last.offset == written.offset);
        self.still = if is_still { self.still.saturating_add(1) } else { 0 };
        self.looks = self.looks.wrapping_add(1);
        let has_all = newest.is_some_and(|newest| newest.bytes == 0);
        let is_turn = self.looks.is_multiple_of(SELDOM);
        if !is_turn && ((is_still && has_all) || self.trouble.is_some()) {
            return self.gauge.unanswered(at, written.offset);
        }
        let deadline = if is_turn { SELDOM_DEADLINE } else { DEADLINE };
        let said = self.remote.stream(deadline).await;
        let trouble = match &said {
            Ok(Some(replica)) if !replica.is_primary && replica.history == written.history => None,
            Ok(Some(_)) => Some("it does not follow this node's".to_owned()),
            Ok(None) => Some("it does not say what it follows".to_owned()),
            Err(error) => Some(chain(error)),
        };
        if let Some(why) = trouble.as_ref().filter(|why| self.trouble.as_ref() != Some(why)) {
            tracing::warn!(why, "what Redis would lose is not known: the replica is not compared");
        }
        self.trouble = trouble;
        match said {
            Ok(Some(replica)) if self.trouble.is_none() => {
                Some(self.gauge.look(at, written.offset, replica.offset))
            }
            // What it has is of another stream.
            Ok(Some(_) | None) => {
                self.gauge = Gauge::default();
                None
            }
            Err(_) => self.gauge.unanswered(at, written.offset),
        }
    }
}
