//! Consensus: replicates the ledger among the agents by Raft, and says where this node stands.
//!
//! It knows the ledger's commands and answers, no database and no policy: who should lead is told to it
//! ([`Handle::prefer`]), and what a leader may decide is decided elsewhere.

#![warn(missing_docs)]

mod engine;
pub mod error;
pub mod force;
mod founding;
mod handle;
#[doc(hidden)]
pub mod machine;
mod membership;
mod memory;
mod network;
mod newer;
mod node;
mod observe;
mod outbox;
mod pace;
mod peer;
pub mod pki;
mod propose;
mod server;
mod standing;
mod start;
mod steering;
#[doc(hidden)]
pub mod store;
pub mod timer;
pub mod transport;
#[doc(hidden)]
pub mod types;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;

use baton_runbooks::ledger::Command;
use baton_runbooks::model::NodeId;

pub use error::{HandOverError, ProposeError, ReadError, RequestError, StartError};
pub use handle::{Applied, Handle, Inbound, Inbox};
pub use newer::Newer;
pub use outbox::PATIENCE_HEARTBEATS;
pub use standing::{Committed, Standing};
pub use start::start;
pub use transport::Tls;

/// A member of the cluster, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, which is also the only name in its certificate.
    pub id: NodeId,
    /// Where its consensus listens.
    pub raft_addr: SocketAddr,
}

/// The times of Raft. They must be the same on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Interval of the leader's heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest election time-out, in milliseconds.
    pub election_min_ms: u64,
    /// Longest election time-out, in milliseconds. It counts twice, so keep it close to the shortest: a follower
    /// campaigns this long *plus* a random time-out after it last heard its leader.
    pub election_max_ms: u64,
}

/// What consensus needs to start.
#[derive(Debug)]
pub struct Options {
    /// Name of the cluster.
    pub cluster: String,
    /// This node.
    pub me: NodeId,
    /// All members, this node included, in the order of the configuration.
    pub members: Vec<Member>,
    /// Directory of the log.
    pub dir: PathBuf,
    /// This node's certificate.
    pub tls: Tls,
    /// The times of Raft.
    pub timing: Timing,
    /// Proposed by the first leader while the ledger is empty.
    pub bootstrap: Command,
}
