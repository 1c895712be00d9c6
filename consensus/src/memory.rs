//! What this node remembers of the others' logs, so that one that comes back with an older copy is found out.
//!
//! A log that has acknowledged an entry or a vote must never forget it. A disk that was swapped for an older one, or a
//! restored image, has forgotten, and would help to elect a leader without entries that were committed with its help.
//! It cannot know that by itself, so the others remember how far they have seen it ([`Stamp`] on every message), keep
//! that on disk, and tell it when it greets them, before Raft hears anything from it.
//!
//! What this cannot catch: a copy that is older than what only *one* other node has seen, while that node is down, and
//! promises of the last second before all remembering nodes lost power at once.

use baton_runbooks::model::NodeId;

use crate::store::Seen;
use crate::types::{Incarnation, Stamp};
use crate::wire::Reached;

/// Logs remembered per peer: the present one, and those that it lost before.
const LOGS_PER_PEER_MAX: usize = 4;

/// What is remembered.
#[derive(Debug, Default)]
pub struct Memory {
    seen: Seen,
    dirty: bool,
}

impl Memory {
    /// What was on disk.
    pub fn new(seen: Seen) -> Self {
        Self { seen, dirty: false }
    }

    /// A message of `peer` said how far its log has come.
    pub fn note(&mut self, peer: &NodeId, reached: &Reached) {
        if !self.seen.contains_key(peer) {
            self.seen.insert(peer.clone(), Default::default());
        }
        let Some(logs) = self.seen.get_mut(peer) else { return };
        let known = logs.get(&reached.incarnation).copied();
        let farthest = known.unwrap_or_default().max(reached.stamp);
        if known == Some(farthest) {
            return;
        }
        logs.insert(reached.incarnation.clone(), farthest);
        self.dirty = true;
        // The log that has come least far is the one lost longest ago, or one that never took part.
        while logs.len() > LOGS_PER_PEER_MAX {
            let least = logs
                .iter()
                .filter(|(incarnation, _)| **incarnation != reached.incarnation)
                .min_by_key(|(_, stamp)| (stamp.last, stamp.vote))
                .map(|(incarnation, _)| incarnation.clone());
            let Some(least) = least else { break };
            logs.remove(&least);
        }
    }

    /// What `peer` is told about its own logs.
    pub fn of(&self, peer: &NodeId) -> std::collections::BTreeMap<Incarnation, Stamp> {
        self.seen.get(peer).cloned().unwrap_or_default()
    }

    /// What must be written to disk, if anything changed since the last call.
    pub fn take_changes(&mut self) -> Option<Seen> {
        std::mem::take(&mut self.dirty).then(|| self.seen.clone())
    }
}
