//! What the API answers about forced recoveries and about coming back from one: data only.

use baton_runbooks::decide::force::ForcePreflight;
use baton_runbooks::model::{Generation, NodeId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/force`, to the survivor's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceRequest {
    /// The nodes that are powered off or wiped: all others.
    pub others_are_off: Vec<NodeId>,
    /// Acknowledged writes that the survivor lacks may be lost.
    pub accept_loss: bool,
    /// Why, for the history.
    pub reason: String,
    /// Name of the operator, for the history. The agent adds the user id that the kernel reports.
    pub by: String,
    /// The generation that the operator saw would be begun. `None`: only look.
    pub generation: Option<Generation>,
}

/// Answer of `POST /v1/force`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceAnswer {
    /// Everything that was looked at.
    pub preflight: ForcePreflight,
    /// It was ordered: the agent restarts, and goes on alone.
    pub ordered: bool,
}

/// Body of `POST /v1/rejoin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinRequest {
    /// The node that is to come back. Its own agent carries it out, whichever agent is asked.
    pub node: NodeId,
    /// Name of the operator, for the log. The agent adds the user id that the kernel reports.
    pub by: String,
    /// The generation of the log that the operator saw: it is put aside if nothing has changed since. `None`: only look.
    pub generation: Option<Generation>,
}

/// Answer of `POST /v1/rejoin`: where the node stands, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinAnswer {
    /// Generation of the cluster, as far as it knows.
    pub generation: Generation,
    /// Its log counts no more, since somebody was forced without it: it comes back only as a new member.
    pub outranked: bool,
    /// Two survivors were forced to the same generation: which of them goes on is for an operator to say, by another force.
    pub forked: bool,
    /// The Raft leader that it knows.
    pub leader: Option<NodeId>,
    /// Why it takes no part in elections, in words; `None`: it does.
    pub problem: Option<String>,
    /// It was ordered: the agent restarts, puts its log aside, and comes back as a new member.
    pub ordered: bool,
}

/// A forced recovery in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcedRecord {
    /// The generation that it began.
    pub generation: Generation,
    /// Who went on alone.
    pub survivor: NodeId,
    /// Who was given up.
    pub gave_up: Vec<NodeId>,
    /// What the others decided after this entry of the log was given up.
    pub last_index: u64,
    /// A loss of acknowledged writes was accepted.
    pub loss_accepted: bool,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}
