//! Redis' share: a replica that refuses writes when closed, the primary when serving.

use std::time::Duration;

use baton_runbooks::decide::local::Role;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::model::{NodeId, NodeKind};
use baton_runbooks::observe::RedisFacts;

use super::super::Context;
use super::super::driver::Numbered;
use super::super::senses::Seen;
use super::{Newest, Share};
use crate::chain::chain;
use crate::hands::redis::{Clients, EmptySource, Redis};

/// Deadline of one command.
const COMMAND: Duration = Duration::from_secs(1);

pub(super) struct RedisShare {
    context: Context,
    seen: Seen,
    newest: Newest,
    /// Said once, not at each tick.
    is_empty: bool,
}

impl RedisShare {
    pub(super) const fn new(context: Context, seen: Seen, newest: Newest) -> Self {
        Self { context, seen, newest, is_empty: false }
    }

    async fn close(&self, redis: &Redis, facts: &RedisFacts) {
        if facts.min_replicas_to_write > 0 {
            return;
        }
        match redis.close(Clients::Kill, COMMAND).await {
            Ok(()) => tracing::info!("Redis refuses writes"),
            Err(error) => {
                tracing::warn!(error = chain(&error), "Redis does not refuse writes yet; its port is closed")
            }
        }
    }

    /// Once it is closed, or opened, the server does not show any more how it was found. Tried until it is on disk.
    async fn note_boot(&self) {
        if let Err(error) = self.context.local.note_redis_boot().await {
            tracing::warn!(%error, "not noted how this Redis was found");
        }
    }

    async fn follow(&self, redis: &Redis, facts: &RedisFacts, holder: &NodeId) {
        let config = &self.context.config;
        let (Some(node), Some(port)) = (config.find(holder), config.redis.as_ref().map(|redis| redis.port))
        else {
            return;
        };
        let host = node.address.to_string();
        if facts.follows.as_deref() == Some(format!("{host}:{port}").as_str()) {
            return;
        }
        let age_max = self.context.config.timing.lease.duration();
        let report = self.context.hands.peer_lately(holder, age_max).filter(|report| report.serving);
        let Some(source) = report.and_then(|report| report.redis).filter(|source| source.primary) else {
            return;
        };
        match redis.follow(&host, port, &source, EmptySource::Refuse, COMMAND).await {
            Ok(_) => tracing::info!(%holder, "Redis follows"),
            Err(error) => tracing::warn!(error = chain(&error), %holder, "Redis does not follow yet"),
        }
    }

    async fn serve(&mut self, redis: &Redis, facts: &RedisFacts, wish: &Numbered) {
        // Bound to the process that was looked at.
        let Ok(server) = facts.server.parse() else { return };
        if facts.loading {
            return;
        }
        if !facts.primary || facts.min_replicas_to_write > 0 {
            let is_empty = is_empty_beside_data(&self.context, facts);
            let was_empty = std::mem::replace(&mut self.is_empty, is_empty);
            if self.is_empty {
                if !was_empty {
                    tracing::error!("Redis is empty here and the other node has data; not made the primary");
                }
                return;
            }
            // An agent that starts anew must not take what is opened here for one that boots so.
            if let Err(error) = self.context.local.note_redis_boot().await {
                tracing::error!(%error, "Redis is not made the primary: the state directory refuses a write");
                return;
            }
            if !self.newest.is(wish) {
                return;
            }
            if let Err(error) = redis.promote(Some(server), COMMAND).await {
                tracing::warn!(error = chain(&error), "Redis is not the primary yet");
                return;
            }
            tracing::info!("Redis is the primary");
        }
        // With MySQL, the ports open when MySQL is writable.
        if self.context.hands.mysql.is_none() {
            let opened = self.context.lease.open(Door::Ports, wish.number, Some(server), COMMAND).await;
            if let Err(error) = opened {
                tracing::debug!(%error, "the ports are not open yet");
            }
        }
    }
}

/// A Redis that came back empty must not be made the primary of a replica that still has the data: it would be wiped.
pub(in crate::agent) fn is_empty_beside_data(context: &Context, facts: &RedisFacts) -> bool {
    let config = &context.config;
    let others = config.nodes.iter().filter(|node| node.kind == NodeKind::Data && node.name != config.node);
    let keys = others.filter_map(|node| context.hands.peer(&node.name)?.redis).map(|redis| redis.keys).max();
    facts.keys == 0 && keys.is_some_and(|keys| keys > 0)
}

impl Share for RedisShare {
    async fn make_so(&mut self, wish: &Numbered) {
        let Some(redis) = self.context.hands.redis.clone() else { return };
        let Some(facts) = self.seen.redis() else { return };
        match &wish.wish.role {
            Role::Witness
            | Role::Acquiring { .. }
            | Role::Receiving { .. }
            | Role::Serving { ports: false, .. } => self.note_boot().await,
            Role::Closed { follow } => {
                self.close(&redis, &facts).await;
                self.note_boot().await;
                if let Some(holder) = follow {
                    self.follow(&redis, &facts, holder).await;
                }
            }
            // Another process is not touched before it was judged: it may have lost what the other node has.
            Role::Serving { ports: true, redis: judged, .. } if judged.as_ref() == Some(&facts.server) => {
                self.serve(&redis, &facts, wish).await;
                self.note_boot().await;
            }
            Role::Serving { ports: true, .. } => self.note_boot().await,
        }
    }
}
