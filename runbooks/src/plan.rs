//! Plans: what a run will do, decided once and carried out without any choice left.
//!
//! A [`Plan`] is immutable. The leader proposes it; Raft makes exactly one plan win by compare-and-set on
//! the epoch and on the in-sync generation (see [`Basis`]); every agent then carries out the steps whose
//! actor it is. [`check`] is the linter that both the planner's tests and `Ledger::apply` use.

mod check;

pub use check::{Note, check};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Epoch, Instance, NodeId, SyncGeneration};
use crate::run::{switchover, takeover};
use crate::why::Why;

/// A definition of a sequence of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runbook {
    /// Unplanned: the holder is lost, or nobody holds the baton.
    Takeover,
    /// Planned: the holder passes the baton, with nothing lost.
    Switchover,
}

impl Runbook {
    /// The word in the history and on screen.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Takeover => "takeover",
            Self::Switchover => "switchover",
        }
    }

    /// Newest version of its step table that this agent can carry out.
    #[must_use]
    pub const fn version(self) -> u16 {
        match self {
            Self::Takeover => takeover::VERSION,
            Self::Switchover => switchover::VERSION,
        }
    }
}

/// Every step that a runbook can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The target has applied everything, its replication runs, and what it will need is there.
    PrepareTarget,
    /// The holder's services are stopped, its event scheduler is off, transactions under way have had their patience.
    DrainHolder,
    /// The holder accepts no write any more, its ports are closed, and what it has is noted.
    CloseHolder,
    /// The target has everything that the closed holder has, its stream is cut, and MySQL accepts writes (behind closed
    /// ports).
    CatchUp,
    /// The lease of the old epoch has ended; the optional power-fence hook has run.
    FenceOld,
    /// The target's own connection to the old primary is dropped in the kernel, read back, and what was received is captured.
    CutStream,
    /// The VIP answers at the target, its database ports still closed by reset.
    HoldVip,
    /// Everything that was received is applied.
    DrainRelayLog,
    /// MySQL accepts writes (behind closed ports).
    PromoteMysql,
    /// The ports are open and Redis is a primary: clients are answered from here on.
    OpenPorts,
    /// Role-bound services that need no writable database are healthy.
    StartIndependent,
    /// Role-bound services that need the database are healthy.
    StartServices,
    /// The old holder follows the new one.
    AttachOld,
    /// Seen from the witness, through the VIP: writes and reads work, and the right machine answers.
    Validate,
}

impl Step {
    /// All steps, in the order of the runbooks.
    pub const ALL: [Self; 14] = [
        Self::PrepareTarget,
        Self::DrainHolder,
        Self::CloseHolder,
        Self::CatchUp,
        Self::FenceOld,
        Self::CutStream,
        Self::HoldVip,
        Self::DrainRelayLog,
        Self::PromoteMysql,
        Self::OpenPorts,
        Self::StartIndependent,
        Self::StartServices,
        Self::AttachOld,
        Self::Validate,
    ];

    /// The name as in the design's table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrepareTarget => "prepare_target",
            Self::DrainHolder => "drain_holder",
            Self::CloseHolder => "close_holder",
            Self::CatchUp => "catch_up",
            Self::FenceOld => "fence_old",
            Self::CutStream => "cut_stream",
            Self::HoldVip => "hold_vip",
            Self::DrainRelayLog => "drain_relay_log",
            Self::PromoteMysql => "promote_mysql",
            Self::OpenPorts => "open_ports",
            Self::StartIndependent => "start_independent",
            Self::StartServices => "start_services",
            Self::AttachOld => "attach_old",
            Self::Validate => "validate",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What may happen after a step was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Can be undone, also when it failed or crashed half way.
    Undoable,
    /// The point of no return: from its start on, only forward.
    Pivot,
    /// Never a reason to undo anything; may fail and leave the run degraded.
    Forward,
}

/// One step of a plan, with everything that its actor needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Which step.
    pub step: Step,
    /// The only node that may carry it out.
    pub actor: NodeId,
    /// What may happen after it was started.
    pub kind: Kind,
    /// Steps that must have succeeded before it starts.
    pub after: Vec<Step>,
    /// Time limit of one attempt, in milliseconds.
    pub limit_ms: u64,
    /// Number of attempts, at least 1.
    pub attempts: u32,
}

/// What the planner saw in the ledger; a plan is applied only if it is still so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Epoch of the ledger that the plan was made from.
    pub epoch: Epoch,
    /// In-sync generation that the plan was made from.
    pub sync: SyncGeneration,
    /// Start identity of the target's database, which the ledger must carry beside the target's in-sync flag.
    /// `None` when the target was the last holder, whose own data needs no proof, or when there is no MySQL.
    pub target_instance: Option<Instance>,
}

/// An immutable plan of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which runbook.
    pub runbook: Runbook,
    /// Version of the runbook's step table; an agent that does not know it does not act.
    pub version: u16,
    /// The epoch that the run begins; one more than its basis.
    pub epoch: Epoch,
    /// The holder that loses the baton, if there is one.
    pub from: Option<NodeId>,
    /// The data node that gets it.
    pub to: NodeId,
    /// What the planner saw.
    pub basis: Basis,
    /// Why this is done, with evidence.
    pub why: Vec<Why>,
    /// For how many milliseconds the leader had suspected that the holder is lost; `None`: it did not.
    #[serde(default)]
    pub detected_ms_ago: Option<u64>,
    /// The evidence of each voter: milliseconds since it last heard from the holder, `None`: never. Who was silent itself is not in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holder_heard_ms: BTreeMap<NodeId, Option<u64>>,
    /// Who asked for it; `None`: the leader decided by itself.
    #[serde(default)]
    pub asked_by: Option<String>,
    /// How long transactions under way may go on before their sessions are ended, in milliseconds. Switchover only.
    #[serde(default)]
    pub drain_patience_ms: u64,
    /// The steps, each after those that it waits for.
    pub steps: Vec<PlannedStep>,
}

impl Plan {
    /// The step's entry in this plan.
    #[must_use]
    pub fn step(&self, step: Step) -> Option<&PlannedStep> {
        self.steps.iter().find(|s| s.step == step)
    }
}
