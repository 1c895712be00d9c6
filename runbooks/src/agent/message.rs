//! What goes into the core and what comes out of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decide::local::Wish;
use crate::decide::{Decision, Policy};
use crate::detect::Patience;
use crate::lease::granter::Office;
use crate::ledger::Ledger;
use crate::ledger::command::Command;
use crate::model::{Epoch, Mono, NodeId, PauseId, RunId, Term, WallMs};
use crate::observe::{NodeReport, Observation, RedisBoot};
use crate::plan::{PlannedStep, Step};
use crate::sync::Keep;

/// What the lease thread says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFacts {
    /// The epoch that is being renewed here, and until when its lease is valid.
    pub held: Option<(Epoch, Mono)>,
    /// The earliest instant at which a takeover may be decided; `None` while this node does not lead.
    pub takeover_at: Option<Mono>,
    /// The same, after the holder gave its lease back; `None` as long as it has not.
    pub released_at: Option<Mono>,
    /// When the newest grant was given by this node.
    pub granted_at: Option<Mono>,
    /// The pause that this leader sees, and the earliest instant at which it may take it for over by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_over: Option<(PauseId, Mono)>,
    /// The pause for which both doors are held open by long leases here, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<(PauseId, Mono)>,
    /// The pause for which this agent's long leases are void and read back, while it lives on short ones. It asks for no long
    /// one of that pause any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_again: Option<PauseId>,
}

impl LeaseFacts {
    /// The same but for instants that have moved on, which is what a renewal does: nothing ends sooner, nothing begins.
    #[must_use]
    pub fn only_prolongs(&self, before: &Self) -> bool {
        let Self { held, takeover_at, released_at, granted_at, pause_over, long, short_again } = self;
        let later = |new: &Option<Mono>, old: &Option<Mono>| new.is_some() == old.is_some() && new >= old;
        let epoch = |held: &Option<(Epoch, Mono)>| held.map(|(epoch, _)| epoch);
        let end = |held: &Option<(Epoch, Mono)>| held.map(|(_, end)| end);
        epoch(held) == epoch(&before.held)
            && later(&end(held), &end(&before.held))
            && later(takeover_at, &before.takeover_at)
            && later(granted_at, &before.granted_at)
            && *released_at == before.released_at
            && (pause_over, long, short_again) == (&before.pause_over, &before.long, &before.short_again)
    }
}

/// What a step's actor brings back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum StepResult {
    /// The post-condition holds.
    Done {
        /// What was learned.
        facts: Vec<(String, String)>,
    },
    /// It could not be done, or not be undone.
    Failed {
        /// What failed.
        error: String,
    },
}

/// Everything that can happen to the core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "input")]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A probe of this node ended.
    Observed {
        /// What it saw.
        observation: Observation,
    },
    /// A node's report arrived.
    Report {
        /// What it says.
        #[serde(with = "crate::shared")]
        report: Arc<NodeReport>,
    },
    /// The ledger was applied here up to `index`.
    Committed {
        /// Raft log index.
        index: u64,
        /// The state. Shared: it is whole, with every journal, and comes with every entry.
        #[serde(with = "crate::shared")]
        ledger: Arc<Ledger>,
    },
    /// This node's standing in Raft changed, or was refreshed.
    Office {
        /// The standing.
        office: Office,
    },
    /// The lease thread's view changed, or was refreshed.
    Lease {
        /// The view. By itself it is as large as all else together, and every input is moved some times on its way.
        lease: Box<LeaseFacts>,
    },
    /// A proposal ended.
    Proposed {
        /// As in [`Output::Propose`].
        ticket: u64,
        /// The ledger accepted it; `None`: its fate is unknown.
        accepted: Option<bool>,
    },
    /// An executor has ended a step or an undo.
    StepEnded {
        /// Which run.
        run: RunId,
        /// The epoch of its plan.
        epoch: Epoch,
        /// Which step.
        step: Step,
        /// Which attempt.
        attempt: u32,
        /// It was the undo.
        undo: bool,
        /// How it ended.
        result: StepResult,
    },
    /// The driver is about to open this database instance for writing.
    Opening {
        /// The server's `pid@ticks`.
        server: String,
    },
    /// A canary's commit was begun, or ended well.
    Canary {
        /// Its number.
        number: u64,
        /// It ended.
        committed: bool,
    },
}

/// An input with the instants at which it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// Monotonic.
    pub now: Mono,
    /// Wall clock, for people.
    pub wall: WallMs,
    /// The input.
    #[serde(flatten)]
    pub input: Input,
}

/// Everything that the core asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "output")]
pub enum Output {
    /// Propose this. `as_leader` names the term in which this node must still lead; `ends` names the epoch for which the
    /// granter must stop *before* the proposal is made.
    Propose {
        /// Comes back with the fate.
        ticket: u64,
        /// What to propose.
        command: Command,
        /// Only as the leader of this term.
        as_leader: Option<Term>,
        /// Grant nothing more for this epoch.
        ends: Option<Epoch>,
    },
    /// Carry out a step: check, act if need be, verify.
    RunStep {
        /// Which run.
        run: RunId,
        /// The epoch of its plan.
        epoch: Epoch,
        /// Which attempt.
        attempt: u32,
        /// The step.
        planned: PlannedStep,
    },
    /// Undo a step.
    UndoStep {
        /// Which run.
        run: RunId,
        /// The epoch of its plan.
        epoch: Epoch,
        /// Which attempt is journalled.
        attempt: u32,
        /// The step.
        planned: PlannedStep,
    },
    /// Make the node so. Repeated only when it changes.
    Wish {
        /// What this node is to be.
        wish: Wish,
    },
    /// Do this about semi-sync.
    Keep {
        /// What.
        keep: Keep,
    },
    /// The leader's decision changed.
    Decided {
        /// The decision.
        decision: Decision,
    },
}

/// What an agent is told at its start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// The address under which a replica follows this node.
    pub own_address: String,
    /// For the leader's decisions.
    pub policy: Policy,
    /// For the detector.
    pub patience: Patience,
    /// Milliseconds without an acknowledgement after which the replica is out of sync.
    pub sync_patience_ms: u64,
    /// Redis is configured.
    pub redis: bool,
    /// Names of the services that run at the holder only.
    #[serde(default)]
    pub holder_services: Vec<String>,
    /// Version and configuration hash, for reports.
    pub version: String,
    /// Hash of the configuration.
    pub config_hash: String,
    /// What a new leader waits before it grants anything, in milliseconds.
    #[serde(default)]
    pub new_leader_ms: u64,
    /// The database instance that an earlier agent opened for writing.
    pub opened: Option<String>,
    /// The database instance that an earlier agent found writable although none had opened it.
    #[serde(default)]
    pub writable_boot: Option<String>,
    /// How an earlier agent found the newest process of Redis that it saw.
    #[serde(default)]
    pub redis_boot: Option<RedisBoot>,
    /// Drawn at random at this start of the agent, as in its renewals.
    pub boot: u64,
}
