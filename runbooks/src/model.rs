//! The words of the design as types: ids, numbers with a unit or an authority, and the parts of a cluster.
//!
//! Nothing here reads a clock. Every instant is a parameter, see [`Mono`].

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An instant on one node's monotonic clock, in milliseconds since an arbitrary origin of that node.
///
/// Instants of two nodes are never compared (design, section 2: clock *settings* are never compared).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// This instant plus `ms` milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// This instant minus `ms` milliseconds, not before the origin.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to this instant, 0 if `earlier` is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// Wall-clock time in milliseconds since 1970, UTC. For people only; nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallMs(pub u64);

/// The name of a node, as in the configuration. Copies share it: every decision names nodes, many times a second.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct NodeId {
    /// The first bytes of the name, in its order: enough to tell most names apart without looking at them.
    key: u64,
    name: Arc<str>,
}

impl NodeId {
    /// A node id from its name.
    pub fn new(name: impl Into<String>) -> Self {
        Self::shared(Arc::from(name.into()))
    }

    fn shared(name: Arc<str>) -> Self {
        let mut first = [0; size_of::<u64>()];
        for (to, from) in first.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self { key: u64::from_be_bytes(first), name }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

/// By name, as its letters are.
impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then_with(|| {
            if Arc::ptr_eq(&self.name, &other.name) { Ordering::Equal } else { self.name.cmp(&other.name) }
        })
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for NodeId {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for NodeId {}

impl Hash for NodeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl From<&str> for NodeId {
    fn from(name: &str) -> Self {
        Self::shared(Arc::from(name))
    }
}

impl From<String> for NodeId {
    fn from(name: String) -> Self {
        Self::shared(Arc::from(name))
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> Self {
        node.as_str().to_owned()
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Raised by one at every change of holder; fences everything older.
    Epoch
);
number!(
    /// The Raft term of a leader. Never a fencing token.
    Term
);
number!(
    /// Number of a run, in the order in which runs were started.
    RunId
);
number!(
    /// Number of a pause, in the order in which pauses were ordered.
    PauseId
);
number!(
    /// Raised by every change of the in-sync flag; commands on the flag are compare-and-set on it.
    SyncGeneration
);
number!(
    /// Raised only by `baton force`; on contact the higher one wins.
    Generation
);

/// What a node is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// Has MySQL, Redis and the services.
    Data,
    /// Votes, watches from outside, has no data.
    Witness,
}

/// The start identity of a database and of its replication threads on one host (design, section 6).
///
/// A replica whose identity changed may have thrown received transactions away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instance {
    /// The kernel's boot id of the host.
    pub boot: String,
    /// Process id and start time of the database server, as `pid@ticks`.
    pub server: String,
    /// Thread ids of the replication threads, as `io/sql`; empty on a primary.
    pub threads: String,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let boot = self.boot.get(..8).unwrap_or(&self.boot);
        write!(f, "{boot}:{}:{}", self.server, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_ordered_and_told_apart_by_their_names() {
        let names = ["", "\0", "db", "db\0", "db1", "db10", "db2", "primary-a", "primary-b", "zoé"];
        for one in names {
            for other in names {
                let (a, b) = (NodeId::from(one), NodeId::from(other));
                assert_eq!(a.cmp(&b), one.cmp(other), "{one:?} and {other:?}");
                assert_eq!(a == b, one == other, "{one:?} and {other:?}");
            }
            assert_eq!(NodeId::from(one).as_str(), one);
        }
    }
}
