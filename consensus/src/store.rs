//! The log on disk: entries, vote, snapshot, and who this log belongs to, in one redb file.
//!
//! - A vote and an append are synced before they are answered for. The sync happens on the calling thread, which is
//!   the consensus thread: a disk that hangs stops this node's heartbeats and votes, and nothing else.
//! - An error of the disk is passed on once and never tried again; openraft stops, and the process with it
//!   (see `crate::engine`). A second `fsync` after a failed one can report success over lost data.
//! - *Committed* is written without a sync of its own. It may be behind after a crash, which costs a replay from the
//!   leader and nothing else.
//! - The [`Stamp`] only ever goes forward: when an unconfirmed tail is cut off, its highest log id is written down in
//!   the same transaction. So a stamp that is behind one seen earlier proves an older copy of the file.

mod logs;
mod open;
#[cfg(test)]
mod synced;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use baton_runbooks::ledger::Forced;
use baton_runbooks::model::{Generation, NodeId};
use openraft::Membership;
use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::machine::Machine;
use crate::newer::decode;
use crate::standing::Standing;
use crate::types::{Incarnation, Line, Stamp, Voter};

#[cfg(test)]
pub(crate) use open::tests as open_tests;
pub(crate) use open::{FILE, is_newer_outranked};
pub use open::{Opened, in_memory, open};

/// Written into every file; a file of another format is refused.
pub(crate) const FORMAT: u32 = 1;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Keys of the `meta` table.
pub(crate) mod key {
    pub const IDENTITY: &str = "identity";
    pub const VOTE: &str = "vote";
    pub const COMMITTED: &str = "committed";
    pub const PURGED: &str = "purged";
    pub const SNAPSHOT: &str = "snapshot";
    /// Highest log id that was ever cut off.
    pub const CUT: &str = "cut";
    pub const SEEN: &str = "seen";
    pub const RETIRED: &str = "retired";
    /// Generation that this log was told of, if that is why it is retired.
    pub const OUTRANKED: &str = "outranked";
}

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the file.
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node.
    pub node: NodeId,
    /// This log's own identity.
    pub incarnation: Incarnation,
    /// The Raft id that the cluster gave to this log; `None` until it did.
    pub raft_id: Option<u64>,
    /// Raised by a forced recovery only; the cluster's, once this log has a Raft id.
    #[serde(default)]
    pub generation: Generation,
    /// The log on which that generation was founded.
    #[serde(default)]
    pub founder: Incarnation,
}

impl Identity {
    /// The cluster that it takes part in.
    pub fn line(&self) -> Line {
        Line { generation: self.generation, founder: self.founder.clone() }
    }
}

/// The farthest stamp that was seen of each log of each peer.
pub type Seen = BTreeMap<NodeId, BTreeMap<Incarnation, Stamp>>;

/// The log. Clones share one file.
#[derive(Clone)]
pub struct Store {
    db: Arc<Database>,
    stamp: Arc<Mutex<Stamp>>,
    standing: Option<watch::Sender<Standing>>,
}

impl Store {
    /// How far this log has come, as far as it is synced.
    pub fn stamp(&self) -> Stamp {
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, for somebody who must not keep the file open.
    pub(crate) fn reached(&self) -> Arc<Mutex<Stamp>> {
        Arc::clone(&self.stamp)
    }

    /// Notes in the standing when an append has begun and not finished.
    #[must_use]
    pub fn noting_in(mut self, standing: watch::Sender<Standing>) -> Self {
        self.standing = Some(standing);
        self
    }

    /// Whose log it is. `None` only in a log that is being created.
    ///
    /// # Errors
    /// The disk's.
    pub fn identity(&self) -> io::Result<Option<Identity>> {
        self.get(key::IDENTITY)
    }

    /// Writes down the Raft id that the cluster gave to this log, before it is used.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_identity(&self, identity: &Identity) -> io::Result<()> {
        self.write(Durability::Immediate, |t| put(t, key::IDENTITY, identity))
    }

    /// What this node remembers of its peers' logs.
    ///
    /// # Errors
    /// The disk's.
    pub fn seen(&self) -> io::Result<Seen> {
        Ok(self.get(key::SEEN)?.unwrap_or_default())
    }

    /// Writes down what this node remembers of its peers' logs.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_seen(&self, seen: &Seen) -> io::Result<()> {
        self.write(Durability::Immediate, |t| put(t, key::SEEN, seen))
    }

    /// Why this log must not vote any more, if so.
    ///
    /// # Errors
    /// The disk's.
    pub fn retired(&self) -> io::Result<Option<String>> {
        self.get(key::RETIRED)
    }

    /// Writes down that this log must not vote any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn retire(&self, problem: &str) -> io::Result<()> {
        self.write(Durability::Immediate, |t| put(t, key::RETIRED, &problem))
    }

    /// Writes down that this log is of a lower generation than the cluster's.
    ///
    /// # Errors
    /// The disk's.
    pub fn outrank(&self, problem: &str, by: Generation) -> io::Result<()> {
        self.write(Durability::Immediate, |t| {
            put(t, key::RETIRED, &problem)?;
            put(t, key::OUTRANKED, &by)
        })
    }

    /// The generation of the cluster that has gone on without this log, if that is known.
    ///
    /// # Errors
    /// The disk's.
    pub fn outranked_by(&self) -> io::Result<Option<Generation>> {
        self.get(key::OUTRANKED)
    }

    /// The cluster has gone on without this log in a higher generation than the log's own.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn is_outranked(&self) -> io::Result<bool> {
        let own = self.identity()?.map(|identity| identity.generation);
        Ok(own.zip(self.outranked_by()?).is_some_and(|(own, by)| by > own))
    }

    /// Makes this log the first of a new generation, in one synced transaction: its state is what all its entries make, with the
    /// forced recovery applied, and its only member is `identity`. The vote stays, so that terms only grow.
    ///
    /// # Errors
    /// The disk's; nothing is changed then.
    pub(crate) fn found_anew(
        &self,
        identity: &Identity,
        membership: Membership<u64, Voter>,
        forced: Forced,
    ) -> io::Result<Machine> {
        let purged = self.get(key::PURGED)?;
        let last = self.last_entry()?.or(purged);
        let stored = Machine::found_anew(self, last, membership, forced)?;
        self.write(Durability::Immediate, |t| {
            put(t, key::SNAPSHOT, &stored)?;
            put(t, key::IDENTITY, identity)?;
            put(t, key::COMMITTED, &last)?;
            put(t, key::PURGED, &last)?;
            put(t, key::SEEN, &Seen::default())?;
            for key in [key::RETIRED, key::OUTRANKED] {
                t.open_table(META).map_err(io::Error::other)?.remove(key).map_err(io::Error::other)?;
            }
            t.open_table(LOG).map_err(io::Error::other)?.retain(|_, _| false).map_err(io::Error::other)
        })?;
        Machine::recover(self.clone(), last)
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> io::Result<Option<T>> {
        let t = self.db.begin_read().map_err(io::Error::other)?;
        let meta = t.open_table(META).map_err(io::Error::other)?;
        let value = meta.get(key).map_err(io::Error::other)?;
        value.map(|value| decode(value.value())).transpose()
    }

    pub(crate) fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut t = self.db.begin_write().map_err(io::Error::other)?;
        t.set_durability(durability).map_err(io::Error::other)?;
        change(&t)?;
        t.commit().map_err(io::Error::other)
    }

    fn advance(&self, reached: Stamp) {
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        *stamp = stamp.max(reached);
    }
}

pub(crate) fn put<T: Serialize>(t: &WriteTransaction, key: &str, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    t.open_table(META).map_err(io::Error::other)?.insert(key, text.as_slice()).map_err(io::Error::other)?;
    Ok(())
}
