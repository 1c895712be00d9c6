//! What the ledger answers to a command.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::DrillId;
use super::pause::{PAUSE_MAX_MS, PAUSE_MIN_MS};
use crate::model::{Epoch, NodeId, PauseId, RunId, SyncGeneration};
use crate::run::Illegal;

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "rejected")]
pub enum Rejection {
    /// The cluster exists already.
    AlreadyBootstrapped,
    /// There is no cluster yet.
    NotBootstrapped,
    /// The command carries another epoch than the ledger.
    StaleEpoch {
        /// The ledger's.
        ledger: Epoch,
        /// The command's.
        command: Epoch,
    },
    /// The command carries another in-sync generation than the ledger.
    StaleSync {
        /// The ledger's.
        ledger: SyncGeneration,
        /// The command's.
        command: SyncGeneration,
    },
    /// The node that speaks does not hold the baton.
    NotTheHolder {
        /// Who spoke.
        by: NodeId,
    },
    /// A run is in progress.
    RunInProgress {
        /// Which.
        run: RunId,
    },
    /// The ledger has no such run in progress.
    NoSuchRun {
        /// Which.
        run: RunId,
    },
    /// The plan is not sound, or its holder is not the ledger's.
    BadPlan {
        /// The linter's notes.
        notes: Vec<String>,
    },
    /// The target has not every acknowledged write, as far as the ledger knows.
    TargetNotInSync {
        /// The target.
        node: NodeId,
    },
    /// The point of no return is behind the run.
    PastPivot,
    /// The run does not need an operator.
    NothingToAcknowledge,
    /// Only a switchover that goes on can be aborted.
    NothingToAbort,
    /// The baton is being passed: the holder is closed, and its word on the in-sync flag does not count.
    HandingOver {
        /// By which run.
        run: RunId,
    },
    /// The holder does not serve: there is nothing to pass.
    HolderNotServing,
    /// The entry is not legal for the run.
    IllegalEntry {
        /// Why.
        why: Illegal,
    },
    /// The node has every acknowledged write: a takeover to it loses nothing, and needs nobody's word.
    NothingToAccept {
        /// The node.
        node: NodeId,
    },
    /// No loss is accepted for the node.
    NothingToWithdraw {
        /// The node.
        node: NodeId,
    },
    /// A drill is under way.
    DrillInProgress {
        /// Which.
        number: DrillId,
    },
    /// No such drill is under way.
    NoSuchDrill {
        /// Which.
        number: DrillId,
    },
    /// The drill has moved on: its number is not the next, or it was renewed meanwhile.
    StaleDrill {
        /// Which.
        number: DrillId,
    },
    /// The replica of an in-sync command is not another data node.
    NotAReplica {
        /// The node named.
        node: NodeId,
    },
    /// What a holder says of itself was said before a pause began that it did not know of.
    BeforePause {
        /// The newest pause.
        pause: PauseId,
    },
    /// A pause stands: nothing of the kind happens before it is over.
    Paused {
        /// Which.
        pause: PauseId,
    },
    /// No such pause stands.
    NoSuchPause {
        /// Which.
        pause: PauseId,
    },
    /// Another start of the agent has claimed the pause.
    NotTheClaimant {
        /// Who spoke.
        by: NodeId,
    },
    /// A pause may not be so short or so long.
    PauseLength {
        /// What was wanted, in milliseconds.
        for_ms: u64,
    },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyBootstrapped => write!(f, "the cluster exists already"),
            Self::NotBootstrapped => write!(f, "there is no cluster yet"),
            Self::StaleEpoch { ledger, command } => {
                write!(f, "epoch {command} is not the ledger's epoch {ledger}")
            }
            Self::StaleSync { ledger, command } => {
                write!(f, "in-sync generation {command} is not the ledger's {ledger}")
            }
            Self::NotTheHolder { by } => write!(f, "{by} does not hold the baton"),
            Self::NothingToAccept { node } => write!(f, "{node} has every acknowledged write"),
            Self::NothingToWithdraw { node } => {
                write!(f, "no loss is accepted for {node}; a takeover may have used it")
            }
            Self::RunInProgress { run } => write!(f, "run {run} is in progress"),
            Self::NoSuchRun { run } => write!(f, "run {run} is not in progress"),
            Self::BadPlan { notes } => write!(f, "the plan is not sound: {}", notes.join("; ")),
            Self::TargetNotInSync { node } => {
                write!(f, "{node} is not known to have every acknowledged write")
            }
            Self::PastPivot => write!(f, "the point of no return is behind the run"),
            Self::NothingToAcknowledge => write!(f, "the run does not need an operator"),
            Self::NothingToAbort => write!(f, "only a switchover that goes on can be aborted"),
            Self::HandingOver { run } => write!(f, "run {run} is passing the baton"),
            Self::HolderNotServing => write!(f, "the holder does not serve, there is nothing to pass"),
            Self::IllegalEntry { why } => write!(f, "illegal journal entry: {why}"),
            Self::DrillInProgress { number } => write!(f, "drill {number} is under way"),
            Self::NoSuchDrill { number } => write!(f, "drill {number} is not under way"),
            Self::StaleDrill { number } => {
                write!(f, "drill {number} is not as it was when this was asked for")
            }
            Self::NotAReplica { node } => write!(f, "{node} is not a replica"),
            Self::BeforePause { pause } => write!(f, "it was said before pause {pause} began"),
            Self::Paused { pause } => write!(f, "pause {pause} is not over; `baton resume` ends it"),
            Self::NoSuchPause { pause } => write!(f, "pause {pause} does not stand"),
            Self::NotTheClaimant { by } => {
                write!(f, "another start of the agent at {by} has claimed the pause")
            }
            Self::PauseLength { for_ms } => write!(
                f,
                "a pause lasts {} s at least and {} h at most, not {for_ms} ms",
                PAUSE_MIN_MS / 1000,
                PAUSE_MAX_MS / 3_600_000
            ),
        }
    }
}

/// The ledger's answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
#[must_use]
pub enum Response {
    /// The ledger was changed, or already was as the command wants it.
    Accepted,
    /// Nothing was changed.
    Rejected {
        /// Why.
        rejection: Rejection,
    },
}

impl Response {
    /// The ledger is as the command wants it.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        match self {
            Self::Accepted => true,
            Self::Rejected { .. } => false,
        }
    }
}
