//! What the agents say to each other on the links of consensus.
//!
//! ```text
//! frame   = id (8 bytes) kind (1 byte) payload
//! kind    = control | message | note | answer | refusal
//! payload = control: JSON of Envelope<Ask>     message, note: the sender's bytes
//!           answer:  JSON or bytes             refusal:       the reason, as text
//! A note is a message that nobody answers.
//! ```
//!
//! Every JSON payload carries its sender's [`Stamp`], so that each node always knows how far the others' logs have
//! come (see [`crate::memory`]).

use std::collections::BTreeMap;

use baton_runbooks::model::{Generation, NodeId};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::alias::VoteOf;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use serde::{Deserialize, Serialize};

use crate::newer::Newer;
use crate::types::{Incarnation, Line, Proposal, SnapshotMeta, Stamp, TypeConfig};

/// Version of this protocol. A peer of another version is not refused: fields may be added. What its log has and this version
/// does not know is another matter, see [`crate::newer`].
pub const PROTOCOL: u32 = 2;
/// The first version that knows [`Kind::Note`].
pub const PROTOCOL_NOTES: u32 = 2;
const HEADER: usize = 9;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A question of consensus itself.
    Control,
    /// A message for the agent.
    Message,
    /// A message for the agent that is not answered.
    Note,
    /// The answer to either.
    Answer,
    /// The peer refused.
    Refusal,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Message => 1,
            Self::Answer => 2,
            Self::Refusal => 3,
            Self::Note => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Control),
            1 => Some(Self::Message),
            2 => Some(Self::Answer),
            3 => Some(Self::Refusal),
            4 => Some(Self::Note),
            _ => None,
        }
    }
}

/// Room that a frame's header takes.
pub const fn overhead() -> usize {
    HEADER
}

/// Puts a frame together.
pub fn frame(id: u64, kind: Kind, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + payload.len());
    frame.put_u64(id);
    frame.put_u8(kind.code());
    frame.put_slice(payload);
    frame.freeze()
}

/// Takes a frame apart; `None` if it is none.
pub fn parse(mut frame: Bytes) -> Option<(u64, Kind, Bytes)> {
    if frame.len() < HEADER {
        return None;
    }
    let payload = frame.split_off(HEADER);
    let id = u64::from_be_bytes(frame[..8].try_into().ok()?);
    Some((id, Kind::from_code(frame[8])?, payload))
}

/// How far which log has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Which log.
    pub incarnation: Incarnation,
    /// How far.
    pub stamp: Stamp,
}

/// A payload with its sender's stamp.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// How far the sender's log has come; `None`: it has none that it could speak for.
    pub reached: Option<Reached>,
    /// The payload.
    pub body: T,
}

/// A question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Introduces the sender. First on every link, and again while it is idle.
    Hello(Box<Hello>),
    /// For the log with this Raft id.
    Raft {
        /// The Raft id.
        to: u64,
        /// The call.
        rpc: Rpc,
    },
    /// For the leader: a command.
    Propose(Box<Proposal>),
    /// For the leader: which log index has everything that is committed?
    ReadIndex,
}

/// A call of Raft.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rpc {
    /// Heartbeat or entries.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Vote.
    Vote(VoteRequest<TypeConfig>),
    /// Would you vote?
    PreVote(VoteRequest<TypeConfig>),
    /// Lead from here on.
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// All state at once.
    Snapshot {
        /// The leader's vote.
        vote: VoteOf<TypeConfig>,
        /// What the snapshot covers.
        meta: SnapshotMeta,
        /// The state.
        state: String,
    },
}

/// Answer to [`Ask::Propose`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// The entry is applied on the leader; the outcome comes with the log.
    Applied,
    /// The command was not appended: this node does not lead, or has no quorum.
    NotLeading,
    /// The command was not appended: nothing forwarded may start it.
    LeaderOnly,
    /// The entry was appended, and nobody knows yet what becomes of it.
    Unknown,
}

/// How a node introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The configured members, sorted.
    pub members: Vec<NodeId>,
    /// Heartbeat, shortest and longest election time-out, in milliseconds.
    pub timing: [u64; 3],
    /// The sender's log; `None`: it has none that can be used.
    pub incarnation: Option<Incarnation>,
    /// The Raft id that this log has.
    pub raft_id: Option<u64>,
    /// Generation of the cluster that this log is of; of one without a Raft id it says nothing.
    #[serde(default)]
    pub generation: Generation,
    /// The log on which that generation was founded.
    #[serde(default)]
    pub founder: Incarnation,
    /// What the sender remembers of the receiver's logs.
    pub seen_of_you: BTreeMap<Incarnation, Stamp>,
    /// The Raft ids that the committed membership gives to the receiver's logs.
    pub your_ids: BTreeMap<Incarnation, u64>,
    /// Log index of that membership; `None`: the sender knows of no cluster.
    pub membership_at: Option<u64>,
    /// Why the sender takes no part, if so.
    pub problem: Option<String>,
    /// What the sender has refused of its leader's log, since it does not know it.
    #[serde(default)]
    pub newer: Option<Newer>,
}

impl Hello {
    /// The cluster that it takes part in.
    pub fn line(&self) -> Line {
        Line { generation: self.generation, founder: self.founder.clone() }
    }
}

/// Of an append in a control payload that this version cannot read as a whole: for which Raft id it is, under which vote. `None`:
/// it is no append.
pub fn append_in(payload: &[u8]) -> Option<(u64, VoteOf<TypeConfig>)> {
    let whole: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let to = whole.pointer("/body/raft/to")?.as_u64()?;
    let vote = whole.pointer("/body/raft/rpc/append/vote")?;
    Some((to, serde_json::from_value(vote.clone()).ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use baton_runbooks::ledger::Command;
    use baton_runbooks::model::{RunId, WallMs};
    use openraft::EntryPayload;
    use openraft::alias::EntryOf;
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::types::{LogId, ProposalId};

    type Vote = VoteOf<TypeConfig>;
    type Entry = EntryOf<TypeConfig>;

    /// The first entry of a log, with a command.
    pub(crate) fn entry() -> Entry {
        let id = ProposalId { session: "a".to_owned(), number: 0 };
        let command = Command::AcknowledgeRun { run: RunId(1), by: "an operator".to_owned(), at: WallMs(0) };
        let proposal = Proposal { id, leadership: None, command };
        <Entry as RaftEntry>::new(LogId::new(*Vote::new(3, 1).leader_id(), 0), EntryPayload::Normal(proposal))
    }

    /// A text with that command, with one of a newer version in its place.
    pub(crate) fn made_newer(text: &str) -> String {
        let newer = text.replace("acknowledge-run", "frobnicate");
        assert_ne!(newer, text);
        newer
    }

    /// An append of that entry, for Raft id 7.
    pub(crate) fn append() -> String {
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new(3, 1),
            prev_log_id: None,
            entries: vec![entry()],
            leader_commit: None,
        };
        let body = Ask::Raft { to: 7, rpc: Rpc::Append(request) };
        serde_json::to_string(&Envelope { reached: None, body }).unwrap()
    }

    #[test]
    fn an_append_with_a_newer_entry_still_says_whom_it_is_for() {
        let text = append();
        serde_json::from_str::<Envelope<Ask>>(&text).unwrap();
        let newer = made_newer(&text);
        let error = serde_json::from_str::<Envelope<Ask>>(&newer).unwrap_err();
        assert_eq!(Newer::found(newer.as_bytes(), &error), Some(Newer::named("frobnicate")));
        assert_eq!(append_in(newer.as_bytes()), Some((7, Vote::new(3, 1))));
        for other in [r#"{"reached":null,"body":{"propose":{"command":"frobnicate"}}}"#, r#"{"body":7}"#, "{"]
        {
            assert_eq!(append_in(other.as_bytes()), None, "{other}");
        }
    }

    /// A peer of an older version does not say it.
    #[test]
    fn a_greeting_without_what_is_newer_is_read() {
        let hello = Hello {
            protocol: PROTOCOL,
            members: vec!["db1".into()],
            timing: [100, 300, 400],
            incarnation: None,
            raft_id: None,
            generation: Generation::default(),
            founder: Incarnation::default(),
            seen_of_you: BTreeMap::new(),
            your_ids: BTreeMap::new(),
            membership_at: None,
            problem: None,
            newer: None,
        };
        let text = serde_json::to_string(&hello).unwrap();
        let older = text.replace(r#","newer":null"#, "");
        assert_ne!(older, text);
        assert_eq!(serde_json::from_str::<Hello>(&older).unwrap(), hello);
    }
}
