//! Commands on the ledger, and what the ledger answers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::pause::PauseOrder;
use super::{DrillCommand, LossAccepted};
use crate::model::{Epoch, Instance, NodeId, NodeKind, PauseId, RunId, SyncGeneration, WallMs};
use crate::plan::{Plan, Runbook};
use crate::run::Entry;
use crate::why::Why;

/// Everything that can be proposed. Each names the authority under which it speaks: an epoch, a generation, a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Command {
    /// First entry of a new cluster. Refused when the ledger has members already.
    Bootstrap {
        /// Name of the cluster.
        cluster: String,
        /// All nodes.
        members: BTreeMap<NodeId, NodeKind>,
        /// The data node whose data counts; the first takeover goes there.
        initial_holder: NodeId,
        /// MySQL is configured, so the in-sync rule applies.
        mysql: bool,
    },
    /// Starts a run. A takeover: leader only, nothing forwarded can start one. A switchover ends no lease by itself, the
    /// holder takes part in it, so any node may propose it for an operator.
    StartRun {
        /// The plan.
        plan: Box<Plan>,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// Entries of the current run's journal, all by one node.
    Journal {
        /// Which run.
        run: RunId,
        /// The epoch of its plan.
        epoch: Epoch,
        /// In order; the first illegal one ends the command and none of the later ones is recorded.
        entries: Vec<Entry>,
    },
    /// The leader ends a run before its pivot because its actor stays away and its lease has ended. Leader only.
    AbandonRun {
        /// Which run.
        run: RunId,
        /// The epoch of its plan.
        epoch: Epoch,
        /// Why.
        reason: String,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// An operator ends a switchover before its pivot; what was done is undone.
    AbortRun {
        /// Which run.
        run: RunId,
        /// Who.
        by: String,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// An operator has read why a run needs one; the run goes to the history and nobody holds the baton.
    AcknowledgeRun {
        /// Which run.
        run: RunId,
        /// Who.
        by: String,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// An operator lets a node that may lack acknowledged writes take over, once. Starts nothing: the leader decides, when the
    /// holder's lease has ended.
    AcceptLoss {
        /// The epoch that the operator saw.
        epoch: Epoch,
        /// The generation that the operator saw.
        generation: SyncGeneration,
        /// The node.
        node: NodeId,
        /// Start identity of its database and threads, as the operator saw it.
        instance: Instance,
        /// What is accepted, and by whom.
        loss: LossAccepted,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// That is taken back: by the operator, or by a leader under which it has stood too long.
    WithdrawLoss {
        /// The epoch in which it was accepted.
        epoch: Epoch,
        /// The generation that the acceptance began.
        generation: SyncGeneration,
        /// The node.
        node: NodeId,
        /// Who.
        by: String,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// The holder: the replica does not acknowledge any more. Once applied, semi-sync may be switched off.
    SyncOut {
        /// The holder's epoch.
        epoch: Epoch,
        /// The generation that the holder saw.
        generation: SyncGeneration,
        /// Who speaks; must be the holder.
        by: NodeId,
        /// Why.
        reason: String,
    },
    /// The holder: the replica has received a canary committed under semi-sync.
    SyncIn {
        /// The holder's epoch.
        epoch: Epoch,
        /// The generation that the holder saw.
        generation: SyncGeneration,
        /// Who speaks; must be the holder.
        by: NodeId,
        /// The replica.
        replica: NodeId,
        /// Start identity of the replica's database and threads.
        instance: Instance,
    },
    /// The holder has closed, read back that it is closed, and gives up its lease.
    Release {
        /// The holder's epoch.
        epoch: Epoch,
        /// Who speaks; must be the holder.
        by: NodeId,
        /// The start of its agent that speaks, as in its renewals. Only this start has latched.
        boot: u64,
        /// Pauses that it knew of. One that began since was a refusal, and the holder serves on: what comes late is not true.
        #[serde(default)]
        pauses: PauseId,
        /// Why it cannot serve.
        why: Why,
    },
    /// A drill begins, goes on, is to end, has ended. Decides nothing.
    Drill {
        /// What.
        drill: DrillCommand,
    },
    /// An operator pauses: for a while nothing changes by itself, and the holder's lifetimes in the kernel last as long.
    Pause {
        /// The epoch that the operator saw.
        epoch: Epoch,
        /// What is ordered.
        order: PauseOrder,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// The holder: this start of its agent is the one that may be granted long lifetimes, and that can say that it has none.
    ClaimPause {
        /// Which pause.
        pause: PauseId,
        /// Who speaks; must be the holder.
        by: NodeId,
        /// The start of its agent, as in its renewals.
        boot: u64,
    },
    /// An operator ends a pause: no long lifetimes are granted any more. It is over when that is safe.
    Resume {
        /// Which pause.
        pause: PauseId,
        /// Who.
        by: String,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// The holder has read back that its long lifetimes are void, and lives on short ones. Its agent asks for no long ones any
    /// more.
    EndPause {
        /// Which pause.
        pause: PauseId,
        /// Who speaks; must be the holder.
        by: NodeId,
        /// The start of its agent that speaks; must have claimed the pause.
        boot: u64,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// The leader has waited until no long lifetimes can be left, whoever granted them. Leader only.
    ExpirePause {
        /// Which pause.
        pause: PauseId,
        /// The leader.
        by: NodeId,
        /// Wall clock, for people.
        at: WallMs,
    },
}

impl Command {
    /// Only the leader itself may propose this; a forwarded one is refused (design, 4.4).
    #[must_use]
    pub fn is_leader_only(&self) -> bool {
        match self {
            Self::Bootstrap { .. } | Self::AbandonRun { .. } | Self::ExpirePause { .. } => true,
            Self::StartRun { plan, .. } => match plan.runbook {
                Runbook::Takeover => true,
                Runbook::Switchover => false,
            },
            Self::Journal { .. }
            | Self::AbortRun { .. }
            | Self::AcknowledgeRun { .. }
            | Self::AcceptLoss { .. }
            | Self::WithdrawLoss { .. }
            | Self::SyncOut { .. }
            | Self::SyncIn { .. }
            | Self::Release { .. }
            | Self::Drill { .. }
            | Self::Pause { .. }
            | Self::ClaimPause { .. }
            | Self::Resume { .. }
            | Self::EndPause { .. } => false,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap { cluster, .. } => write!(f, "bootstrap {cluster}"),
            Self::StartRun { plan, .. } => {
                write!(f, "start {} to {} epoch {}", plan.runbook.as_str(), plan.to, plan.epoch)
            }
            Self::Journal { run, entries, .. } => {
                write!(f, "journal of run {run}, {} entries", entries.len())
            }
            Self::AbandonRun { run, .. } => write!(f, "abandon run {run}"),
            Self::AbortRun { run, by, .. } => write!(f, "abort run {run} for {by}"),
            Self::AcknowledgeRun { run, .. } => write!(f, "acknowledge run {run}"),
            Self::AcceptLoss { node, epoch, loss, .. } => {
                write!(f, "{} accepts what {node} lacks, epoch {epoch}", loss.by)
            }
            Self::WithdrawLoss { node, epoch, by, .. } => {
                write!(f, "{by} withdraws that for {node}, epoch {epoch}")
            }
            Self::SyncOut { epoch, generation, .. } => {
                write!(f, "out of sync, epoch {epoch} generation {generation}")
            }
            Self::SyncIn { replica, epoch, generation, .. } => {
                write!(f, "{replica} in sync, epoch {epoch} generation {generation}")
            }
            Self::Release { epoch, by, .. } => write!(f, "{by} releases epoch {epoch}"),
            Self::Drill { drill } => drill.fmt(f),
            Self::Pause { epoch, order, .. } => {
                write!(f, "{} pauses epoch {epoch} for {} ms", order.by, order.for_ms)
            }
            Self::ClaimPause { pause, by, .. } => write!(f, "{by} claims pause {pause}"),
            Self::Resume { pause, by, .. } => write!(f, "{by} ends pause {pause}"),
            Self::EndPause { pause, by, .. } => write!(f, "{by} has short lifetimes again, pause {pause}"),
            Self::ExpirePause { pause, by, .. } => write!(f, "{by} has waited for pause {pause}"),
        }
    }
}
