//! What can fail, one enum per operation boundary.

use std::path::PathBuf;

use baton_runbooks::model::NodeId;

use crate::newer::Newer;

/// The consensus thread could not be started.
///
/// A damaged or outdated log is not among them: such a node starts, takes no part in votes, and says so in
/// [`Standing::problem`](crate::Standing::problem).
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be made.
    #[error("cannot create the directory {}", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the log open.
    #[error("{} is in use by another process", file.display())]
    InUse {
        /// Which file.
        file: PathBuf,
    },
    /// The directory belongs to another cluster or another node.
    #[error("{} belongs to {found}, this is {expected}; point paths.state to this node's own directory", file.display())]
    Foreign {
        /// Which file.
        file: PathBuf,
        /// Whose it is.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// The log is whole, and a newer version has written to it: this agent was downgraded. An older one does not get past it,
    /// since all nodes apply the same.
    #[error(
        "{} was written by a newer agent: {newer}. The log is whole: do not remove it", file.display()
    )]
    Newer {
        /// Which file.
        file: PathBuf,
        /// What is not known.
        newer: Newer,
    },
    /// The log cannot be opened for another reason than damage.
    #[error("cannot open {}", file.display())]
    Open {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This node is not in the list of members.
    #[error("{me} is not in the list of members")]
    NotAMember {
        /// This node.
        me: NodeId,
    },
    /// The timing is not one that elections work with.
    #[error("timing: {reason}")]
    Timing {
        /// Which inequality is broken.
        reason: String,
    },
    /// The Raft port cannot be listened on.
    #[error("cannot listen for peers")]
    Listen {
        /// Why.
        #[source]
        source: crate::transport::BindError,
    },
    /// The thread or its runtime cannot be made.
    #[error("cannot start the consensus thread")]
    Thread {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A command was not, or not knowingly, applied.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader itself may propose this command, and this node does not lead.
    #[error("only the leader may propose this, and {node} is not the leader")]
    LeaderOnly {
        /// The node that refused it.
        node: NodeId,
    },
    /// This node does not lead in the term that the command was made for. Nothing was changed.
    #[error("this node does not lead in term {term}")]
    NotLeader {
        /// The term asked for.
        term: u64,
    },
    /// The deadline passed before a leader took the command. Nothing was changed.
    #[error("no leader took the command in time")]
    NoLeader,
    /// The deadline passed after a leader may have taken the command. It may still be applied.
    #[error("the command was handed in, but is not known to be applied; it may still be")]
    Unknown,
    /// This node takes no part in the cluster.
    #[error("this node takes no part: {problem}")]
    NoPart {
        /// [`Standing::problem`](crate::Standing::problem).
        problem: String,
    },
    /// The consensus thread has ended.
    #[error("consensus has been shut down")]
    Shutdown,
}

/// A read barrier was not reached.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The deadline passed.
    #[error("no leader with a quorum confirmed the read in time")]
    NoQuorum,
    /// The consensus thread has ended.
    #[error("consensus has been shut down")]
    Shutdown,
}

/// A request to a peer was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The peer is not a member, or is this node.
    #[error("{to} is not a peer")]
    NotAPeer {
        /// Who was asked for.
        to: NodeId,
    },
    /// There is no connection to the peer. The request was not sent.
    #[error("{to} is not connected")]
    NotConnected {
        /// The peer.
        to: NodeId,
    },
    /// The request is larger than a frame.
    #[error("the request has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The connection broke after the request was sent; the peer may have seen it.
    #[error("the connection to {to} broke")]
    Broken {
        /// The peer.
        to: NodeId,
    },
    /// The deadline passed; the peer may have seen the request.
    #[error("{to} did not answer in time")]
    TimedOut {
        /// The peer.
        to: NodeId,
    },
    /// The peer refused the request.
    #[error("{to} refused: {reason}")]
    Refused {
        /// The peer.
        to: NodeId,
        /// Its words.
        reason: String,
    },
    /// The consensus thread has ended.
    #[error("consensus has been shut down")]
    Shutdown,
}

/// Leadership was not handed over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HandOverError {
    /// This node does not lead.
    #[error("this node is not the leader")]
    NotLeader,
    /// The target is not a voter that has everything and acknowledges heartbeats.
    #[error("{to} cannot lead at once: {reason}")]
    NotReady {
        /// The target.
        to: NodeId,
        /// What it lacks.
        reason: String,
    },
    /// The consensus thread has ended.
    #[error("consensus has been shut down")]
    Shutdown,
}
