//! Where this node stands in the cluster, as the rest of the agent sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{NodeId, Term};

/// The newest state that this node has applied.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// Log index of the newest applied entry, 0 before the first one.
    pub index: u64,
    /// The ledger after that entry.
    pub ledger: Arc<Ledger>,
}

/// Where this node stands.
///
/// Whoever waits for a change is not woken when only the times of acknowledgements have moved, which they do with every
/// heartbeat: they are read when they are needed.
///
/// `is_leader` alone is no authority: a leader that was cut off keeps that state. Authority is the age of
/// [`Self::quorum_acked_at`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The newest term that this node has seen.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
    /// This node leads.
    pub is_leader: bool,
    /// When this node was seen to become leader in this term. Never before it did: a late observation only makes the
    /// first waiting time of a new leader (design, 4.4) longer.
    pub elected_at: Option<Instant>,
    /// This node has applied an entry of its own term (design, 4.4).
    pub own_term_applied: bool,
    /// Leader only: when the newest heartbeat or append that a quorum has acknowledged was *sent*.
    ///
    /// openraft stamps a heartbeat before it is handed to the connections (`HeartbeatEvent::time`) and an append when
    /// it is taken from the log (`InflightAppend::sending_time`); `update_clock` records that stamp, not the time of
    /// the answer. So the stamp is at or before the instant of sending, which is the safe side for a lease based on it.
    pub quorum_acked_at: Option<Instant>,
    /// Leader only: the same per peer.
    pub acked_at: BTreeMap<NodeId, Instant>,
    /// An append to this node's own log has begun and not finished (design, 4.10). It is set by the thread that is
    /// about to block on the disk, so it can be read while that thread hangs.
    pub own_append_pending_since: Option<Instant>,
    /// This node takes part in elections.
    pub voting: bool,
    /// Why not, and what to do, in a sentence.
    pub problem: Option<String>,
    /// That problem is that the log has what an older agent does not know: this node's, or, on the leader, a peer's. It is to be
    /// upgraded; its log is whole.
    pub newer_log: bool,
    /// This log must not vote any more, now or after a restart.
    pub retired: bool,
    /// The cluster has gone on in a higher generation: nothing of this log counts, and this node must be closed.
    pub outranked: bool,
    /// It has so in the generation of this log: two survivors were forced, each without the other. Both are closed.
    pub forked: bool,
}

impl Standing {
    /// Differs from `before` in more than the times of acknowledgements.
    pub(crate) fn is_news_to(&self, before: &Self) -> bool {
        // All named, so that a field that is added is thought of here.
        let Self {
            term,
            leader,
            is_leader,
            elected_at,
            own_term_applied,
            quorum_acked_at,
            acked_at: _,
            own_append_pending_since,
            voting,
            problem,
            newer_log,
            retired,
            outranked,
            forked,
        } = self;
        *term != before.term
            || *leader != before.leader
            || *is_leader != before.is_leader
            || *elected_at != before.elected_at
            || *own_term_applied != before.own_term_applied
            // The first acknowledgement is news: a leader without one has no authority.
            || quorum_acked_at.is_some() != before.quorum_acked_at.is_some()
            || *own_append_pending_since != before.own_append_pending_since
            || *voting != before.voting
            || *problem != before.problem
            || *newer_log != before.newer_log
            || *retired != before.retired
            || *outranked != before.outranked
            || *forked != before.forked
    }
}
