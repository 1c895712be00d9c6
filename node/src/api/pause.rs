//! What the API answers about pauses: data only. Field names and words are stable; fields may be added.

use baton_runbooks::decide::pause::PausePreflight;
use baton_runbooks::model::{Epoch, NodeId, PauseId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/pause`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRequest {
    /// How long, in milliseconds.
    pub for_ms: u64,
    /// The holder does not wait for its replica while the pause lasts.
    pub alone: bool,
    /// Why, for everybody who looks.
    pub reason: String,
    /// Name of the operator, for the history. The agent adds the user id that the kernel reports.
    pub by: String,
    /// The epoch that the operator saw. `None`: only look.
    pub epoch: Option<Epoch>,
}

/// Answer of `POST /v1/pause`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseAnswer {
    /// Everything that was looked at.
    pub preflight: PausePreflight,
    /// The pause that was ordered; `None`: none was asked for.
    pub pause: Option<PauseId>,
}

/// Body of `POST /v1/resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeRequest {
    /// The pause that the operator saw; another one is not ended. `None`: whichever stands.
    #[serde(default)]
    pub pause: Option<PauseId>,
    /// Name of the operator, for the history. The agent adds the user id that the kernel reports.
    pub by: String,
}

/// Answer of `POST /v1/resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeAnswer {
    /// The pause that ends as soon as that is safe.
    pub pause: PauseId,
}

/// A pause that is not over, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRow {
    /// Its number.
    pub number: PauseId,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, on the wall clock of the node that was asked.
    pub at: Timestamp,
    /// When it ends by itself, by that clock. Each node counts for itself; this is for people.
    pub until: Timestamp,
    /// The holder does not wait for its replica.
    pub alone: bool,
    /// Who has ended it; `None`: it goes on.
    pub resumed_by: Option<String>,
    /// Nodes that say that they have seen it.
    pub seen_by: Vec<NodeId>,
    /// Nodes that do not, or are silent.
    pub unseen_by: Vec<NodeId>,
    /// The holder says that it serves on for so many milliseconds, with or without its agent; `None`: it does not say so.
    pub armed_ms: Option<u64>,
    /// The leader says that it waits so many milliseconds if the holder cannot confirm the end; `None`: not known here.
    pub over_in_ms: Option<u64>,
}

/// A pause in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRecord {
    /// Its number.
    pub number: PauseId,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// How long it was to last, in milliseconds.
    pub for_ms: u64,
    /// The holder did not wait for its replica.
    pub alone: bool,
    /// When it was over; `None`: it is not.
    pub ended_at: Option<Timestamp>,
    /// How it ended, in words.
    pub ended: Option<String>,
}
