//! Ten times a second the holder compares the offset of its Redis with the replica's (design, 6); twice a second while nothing has
//! been written for a second, since an idle agent should cost next to nothing. What Redis sends to its replicas by itself is no
//! write, and is compared all the same.

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

mod pace;

use pace::{DEADLINE, News, Pace, QUIET};

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
    let mut tick = context.clock.every(QUIET, Duration::ZERO);
    let mut comparison =
        Comparison { local, remote, gauge: Gauge::default(), pace: Pace::default(), trouble: None };
    loop {
        tick.tick().await;
        let serves = wishes.borrow().as_ref().is_some_and(|numbered| match &numbered.wish.role {
            Role::Serving { .. } => true,
            Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } | Role::Receiving { .. } => false,
        });
        if serves {
            exposed.note(comparison.look(&context, exposed.newest()).await);
        } else if comparison.pace.last().is_some() {
            comparison.forget();
            exposed.note(None);
        }
        tick.set_period(if serves { comparison.pace.period() } else { QUIET });
    }
}

/// Why what the replica says of itself is not compared with what this node's Redis has written; `None`: it is.
fn mismatch(written: &Stream, replica: Option<&Stream>) -> Option<&'static str> {
    match replica {
        Some(replica) if !replica.is_primary && replica.history == written.history => None,
        Some(_) => Some("it does not follow this node's"),
        None => Some("it does not say what it follows"),
    }
}

struct Comparison {
    local: Redis,
    remote: Remote,
    gauge: Gauge,
    pace: Pace,
    /// Why the replica was not compared, as last logged.
    trouble: Option<String>,
}

impl Comparison {
    fn forget(&mut self) {
        self.gauge = Gauge::default();
        self.pace.forget();
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
            Err(_) => return self.gauge.at_least(at, self.pace.last()?.offset),
        };
        let news = self.pace.see(&written);
        if news == News::Another {
            self.gauge = Gauge::default();
        }
        let has_all = newest.is_some_and(|newest| newest.bytes == 0);
        let Some(deadline) = self.pace.asks(news, has_all, self.trouble.is_some()) else {
            return self.gauge.unanswered(at, written.offset);
        };
        let said = self.remote.stream(deadline).await;
        let trouble = match &said {
            Ok(replica) => mismatch(&written, replica.as_ref()).map(str::to_owned),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_of_another_history_is_not_compared() {
        let stream =
            |is_primary, history: &str, offset| Stream { is_primary, history: history.to_owned(), offset };
        let written = stream(true, "a", 1_000);
        for offset in [0, 1_000, 2_000] {
            assert_eq!(mismatch(&written, Some(&stream(false, "a", offset))), None, "{offset}");
            assert!(mismatch(&written, Some(&stream(false, "b", offset))).is_some(), "{offset}");
            assert!(
                mismatch(&written, Some(&stream(true, "a", offset))).is_some(),
                "a primary follows nobody"
            );
        }
        assert!(mismatch(&written, None).is_some());
    }
}
