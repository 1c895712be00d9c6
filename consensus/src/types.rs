//! What Raft replicates: the types that openraft is instantiated with.
//!
//! A node has two identities. Its *name* is configured and certified. Its *incarnation* is drawn at random when its
//! log is created and lives in that log. A Raft id belongs to exactly one incarnation and is never used again, so a
//! node that lost its disk cannot vote under the id of the log that it lost (see `crate::founding`).

use std::fmt;

use baton_runbooks::ledger::{Command, Response};
use baton_runbooks::model::{Generation, NodeId};
use openraft::alias::{LogIdOf, SnapshotMetaOf, VoteOf};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

openraft::declare_raft_types!(
    /// The replicated types. Leader ids are openraft's advanced ones, ordered by (term, node): simultaneous candidates
    /// do not tie, so a narrow range of election time-outs is safe. A term may therefore have two leaders.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Voter,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

/// The Raft of this crate.
pub type Raft = openraft::Raft<TypeConfig, Machine>;
/// Log id.
pub type LogId = LogIdOf<TypeConfig>;
/// Description of a snapshot.
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;

/// A log's identity, drawn at random when the log is created.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub String);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which cluster a log takes part in. A forced recovery raises the generation, and two survivors may each have raised it to the
/// same one: then the founders differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Its generation.
    pub generation: Generation,
    /// The log on which that was founded; empty: it is the first generation, or founded by an agent that did not say.
    pub founder: Incarnation,
}

impl Line {
    /// The same generation, founded by somebody else: neither counts more than the other.
    #[must_use]
    pub fn is_rival_of(&self, other: &Self) -> bool {
        let both_said = !self.founder.0.is_empty() && !other.founder.0.is_empty();
        self.generation == other.generation && both_said && self.founder != other.founder
    }

    /// They are not of one cluster.
    #[must_use]
    pub fn is_another_than(&self, other: &Self) -> bool {
        self.generation != other.generation || self.is_rival_of(other)
    }
}

/// Whose Raft id it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// The node's name.
    pub name: NodeId,
    /// The log that the id belongs to.
    pub incarnation: Incarnation,
}

/// openraft's storage suite makes up members.
impl Default for Voter {
    fn default() -> Self {
        Self { name: NodeId::new(""), incarnation: Incarnation::default() }
    }
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.incarnation)
    }
}

/// Names one proposal, so that a repeated one is applied once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    /// Drawn at random when the proposing agent started.
    pub session: String,
    /// Counts the session's proposals.
    pub number: u64,
}

/// A leadership: a term alone may have had two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader's Raft id.
    pub raft_id: u64,
}

/// A command on its way to the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Names it.
    pub id: ProposalId,
    /// It counts only in an entry of this leadership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leadership: Option<Leadership>,
    /// The command.
    pub command: Command,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} {}", self.id.session, self.id.number, self.command)
    }
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The entry carries no command.
    Blank,
    /// The ledger's answer.
    Answered(Response),
    /// The entry is not of the leadership that the proposal was made for; nothing was changed.
    OtherLeadership,
}

/// How far a log has come, as totally ordered as openraft's own comparison.
///
/// A genuine log only ever goes forward, see [`crate::store`]. A log that is behind a stamp that somebody has seen of
/// it was replaced by an older copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Term and node of the newest vote on disk.
    pub vote: (u64, u64),
    /// Term, node and index of the highest log id that has ever been on this disk.
    pub last: (u64, u64, u64),
}

impl Stamp {
    /// The stamp's vote part.
    pub fn of_vote(vote: &VoteOf<TypeConfig>) -> (u64, u64) {
        let leader = vote.leader_id();
        (leader.term, leader.node_id)
    }

    /// The stamp's log part.
    pub fn of_log(id: &LogId) -> (u64, u64, u64) {
        let leader = id.committed_leader_id();
        (leader.term, leader.node_id, id.index())
    }

    /// Both parts are at least as far as `other`'s.
    pub fn has_reached(&self, other: &Self) -> bool {
        self.vote >= other.vote && self.last >= other.last
    }

    /// The farther of both, part by part.
    pub fn max(self, other: Self) -> Self {
        Self { vote: self.vote.max(other.vote), last: self.last.max(other.last) }
    }
}
