//! From openraft's metrics to this node's [`Standing`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use baton_runbooks::model::{NodeId, Term};
use openraft::{Instant as _, ServerState, TokioInstant};

use crate::node::{Metrics, Node};
use crate::standing::Standing;

/// Converts the runtime's instants to the standard library's.
///
/// Both read CLOCK_MONOTONIC. The standard instant is read first, so a converted instant is never later than the
/// original, which is the safe side for a lease that is based on it.
#[derive(Debug, Clone, Copy)]
pub struct Anchor {
    std: Instant,
    raft: TokioInstant,
}

impl Anchor {
    /// Taken once; every conversion is relative to it, so the same instant always converts to the same one.
    pub fn new() -> Self {
        let std = Instant::now();
        Self { std, raft: TokioInstant::now() }
    }

    fn convert(&self, at: TokioInstant) -> Instant {
        if at >= self.raft {
            self.std + (at - self.raft)
        } else {
            self.std.checked_sub(self.raft - at).unwrap_or(self.std)
        }
    }
}

/// What of the standing comes from the metrics. `before` is the present standing, and `now` the time.
pub fn observe(node: &Node, metrics: &Metrics, before: &Standing, anchor: &Anchor, now: Instant) -> Standing {
    let leader = metrics.vote.leader_id;
    let is_leader = metrics.state == ServerState::Leader;
    let term = Term(metrics.current_term);
    let name = |id: &u64| -> Option<NodeId> {
        metrics.membership_config.get_node(id).map(|voter| voter.name.clone())
    };
    let same_leadership = before.is_leader && before.term == term;
    let elected_at = match (is_leader, same_leadership) {
        (false, _) => None,
        (true, true) => before.elected_at,
        (true, false) => Some(now),
    };
    let own_term_applied = is_leader
        && metrics.last_applied.as_ref().is_some_and(|applied| *applied.committed_leader_id() == leader);
    let alone = is_leader && metrics.membership_config.voter_ids().count() == 1;
    let quorum_acked_at = if alone {
        Some(now)
    } else {
        metrics.last_quorum_acked.filter(|_| is_leader).map(|at| anchor.convert(at.into_inner()))
    };
    let acks = metrics.heartbeat.iter().flatten();
    let acked_at: BTreeMap<NodeId, Instant> = acks
        .filter(|_| is_leader)
        .filter_map(|(id, at)| Some((name(id)?, anchor.convert(at.as_ref()?.into_inner()))))
        .filter(|(peer, _)| *peer != node.me)
        .collect();
    Standing {
        term,
        leader: metrics.current_leader.as_ref().and_then(name),
        is_leader,
        elected_at,
        own_term_applied,
        quorum_acked_at,
        acked_at,
        own_append_pending_since: before.own_append_pending_since,
        voting: before.voting,
        problem: before.problem.clone(),
        newer_log: before.newer_log,
        retired: before.retired,
        outranked: before.outranked,
        forked: before.forked,
    }
}

/// A heartbeat interval.
pub const fn heartbeat(node: &Node) -> Duration {
    Duration::from_millis(node.timing.heartbeat_ms)
}
