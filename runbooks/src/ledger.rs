//! The ledger: what Raft replicates. Who holds the baton, since which epoch, who is in sync, which run is under way.
//!
//! [`Ledger::apply`] is the replicated state machine: total, deterministic, without a clock. It never panics, since a
//! panic here would be one on every voter at every restart; what is not legal is answered with a [`Rejection`].
//!
//! Five rules carry the safety argument:
//! 1. **Everything is compare-and-set.** A command names the epoch (and for the flag the in-sync generation) that it
//!    was made from; if the ledger has moved on, nothing happens.
//! 2. **A change of holder and the fate of the in-sync set happen in one `apply`.** `StartRun` makes the target the
//!    holder of the next epoch and raises the in-sync generation, so no in-sync command of the old epoch can follow.
//! 3. **The set [`Ledger::in_sync`] says who has every acknowledged write besides the holder.** Before the pivot nobody
//!    can acknowledge a write in the new epoch, so the last holder and the target both keep their place; the `Started`
//!    of the pivot clears the set, because from then on writes may be acknowledged that only the target has.
//! 4. **A switchover passes the baton with the `Started` of its pivot**, and that is legal only when the target has been seen
//!    to have everything that the closed holder has. Nothing but the undo of the closing, or the end of the run, lets the
//!    old holder acknowledge again, and both take the target's word back in the same `apply`.
//! 5. **An operator's word stands for one takeover.** [`Complete::Accepted`] ends with the run that used it, whatever came
//!    of it, with the holder's next word on the in-sync set, and when it is withdrawn. It never makes a node complete.
//! 6. **While a pause stands, no run starts and nothing is released.** See [`pause`].

mod answer;
mod apply;
pub mod command;
pub mod drill;
mod forced;
pub mod pause;
mod runs;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::lease::granter::{Appointment, PausedEpoch};
use crate::model::{Epoch, Generation, Instance, NodeId, NodeKind, PauseId, RunId, SyncGeneration, WallMs};
use crate::plan::Plan;
use crate::run::{Run, RunState};
use crate::why::Why;
pub use answer::{Rejection, Response};
pub use command::Command;
pub use drill::{Drill, DrillCommand, DrillId, EndedDrill};
pub use forced::Forced;
pub use pause::{EndedPause, Pause, PauseOrder};

/// Number of ended runs that the ledger keeps with their journals.
pub const HISTORY_MAX: usize = 64;

/// What the ledger knows of a node that has every acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Complete {
    /// It was the holder: what it acknowledged is in its own log and engine.
    Holder,
    /// It received a canary under semi-sync, and is complete as long as this instance runs.
    Replica {
        /// Start identity of the database and its replication threads.
        instance: Instance,
    },
    /// It may lack acknowledged writes, and an operator accepts their loss for the next takeover.
    Accepted {
        /// Start identity of the database and its replication threads that the operator saw.
        instance: Instance,
        /// What is accepted.
        loss: LossAccepted,
    },
}

/// The loss that an operator accepts, for one takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossAccepted {
    /// Who accepts it.
    pub by: String,
    /// Writes of the last so many milliseconds may be lost; `None`: any.
    pub at_most_ms: Option<u64>,
}

impl Complete {
    /// Only an operator's word stands behind it.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        match self {
            Self::Accepted { .. } => true,
            Self::Holder | Self::Replica { .. } => false,
        }
    }

    /// The start that it speaks of; `None`: any.
    #[must_use]
    pub const fn instance(&self) -> Option<&Instance> {
        match self {
            Self::Replica { instance } | Self::Accepted { instance, .. } => Some(instance),
            Self::Holder => None,
        }
    }
}

/// The holder has closed and gave up its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The epoch that it gave up.
    pub epoch: Epoch,
    /// The start of its agent that has closed.
    pub boot: u64,
    /// Why it could not serve.
    pub why: Why,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRun {
    /// The run with its journal, which does not change any more.
    #[serde(with = "crate::shared")]
    pub run: Arc<Run>,
    /// How it ended.
    pub state: RunState,
}

/// A change of the in-sync flag, kept for `baton history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncChange {
    /// The epoch in which it happened.
    pub epoch: Epoch,
    /// The generation that it began.
    pub generation: SyncGeneration,
    /// The replica that is in sync from then on; `None`: none is.
    pub replica: Option<NodeId>,
    /// Why.
    pub reason: String,
}

/// The replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Name of the cluster; empty before the first entry.
    pub cluster: String,
    /// Raised by a forced recovery only.
    pub generation: Generation,
    /// All nodes.
    pub members: BTreeMap<NodeId, NodeKind>,
    /// The in-sync rule applies.
    pub mysql: bool,
    /// Raised at every change of holder.
    pub epoch: Epoch,
    /// Who holds the baton; `None`: vacant.
    pub holder: Option<NodeId>,
    /// Who held it before, for people.
    pub last_holder: Option<NodeId>,
    /// The holder gave up its lease.
    pub released: Option<Released>,
    /// Raised at every change of the in-sync set.
    pub sync_generation: SyncGeneration,
    /// Nodes other than the holder that have every acknowledged write.
    pub in_sync: BTreeMap<NodeId, Complete>,
    /// The run under way.
    pub run: Option<Run>,
    /// Number of runs so far.
    pub runs: RunId,
    /// Ended runs, oldest first, at most [`HISTORY_MAX`].
    pub history: Vec<EndedRun>,
    /// Changes of the in-sync flag, oldest first, at most [`HISTORY_MAX`].
    pub sync_history: Vec<SyncChange>,
    /// The drill under way. Decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// Number of drills so far.
    #[serde(default, skip_serializing_if = "DrillId::is_none")]
    pub drills: DrillId,
    /// Ended drills, oldest first, at most [`HISTORY_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended_drills: Vec<EndedDrill>,
    /// The pause that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Number of pauses so far.
    #[serde(default)]
    pub pauses: PauseId,
    /// Pauses that are over, oldest first, at most [`HISTORY_MAX`].
    #[serde(default)]
    pub pause_history: Vec<EndedPause>,
    /// Forced recoveries, oldest first, at most [`HISTORY_MAX`].
    #[serde(default)]
    pub forced: Vec<Forced>,
}

impl Ledger {
    /// The node holds the baton and its epoch has been opened: the run that gave it the baton is past its pivot, or
    /// has ended.
    #[must_use]
    pub fn is_open_for(&self, node: &NodeId) -> bool {
        self.holder.as_ref() == Some(node)
            && self.run.as_ref().is_none_or(|run| run.plan.to != *node || run.is_open())
    }

    /// The holder gave its lease back, and nobody has got it since.
    #[must_use]
    pub fn has_released(&self) -> bool {
        self.holder.is_some() && self.released.as_ref().is_some_and(|released| released.epoch == self.epoch)
    }

    /// What the granter has to know of a pause.
    #[must_use]
    pub fn paused(&self) -> Option<PausedEpoch> {
        self.pause.as_ref().map(|pause| PausedEpoch {
            id: pause.id,
            for_ms: pause.order.for_ms,
            claimed_by: pause.claimed_by,
            resumed: pause.resumed_by.is_some(),
        })
    }

    /// What the granter has to know.
    #[must_use]
    pub fn appointment(&self) -> Appointment {
        let passing = self.run.as_ref().filter(|run| run.is_passing());
        let opened = self.holder.as_ref().is_some_and(|holder| self.is_open_for(holder));
        let run = self.run.as_ref().filter(|_| !opened);
        Appointment {
            holder: self.holder.clone(),
            epoch: self.epoch,
            released: self.has_released(),
            waits_for_operator: run.is_some_and(|run| matches!(run.state(), RunState::NeedsOperator { .. })),
            passed_by: passing.and_then(|run| run.plan.from.clone()),
            paused: self.paused(),
        }
    }

    /// The other data nodes.
    pub fn other_data_nodes<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a NodeId> {
        self.members
            .iter()
            .filter(move |(id, kind)| **kind == NodeKind::Data && *id != node)
            .map(|(id, _)| id)
    }

    /// The witness, if the cluster has one.
    #[must_use]
    pub fn witness(&self) -> Option<&NodeId> {
        self.members.iter().find(|(_, kind)| **kind == NodeKind::Witness).map(|(id, _)| id)
    }

    /// A replica is in sync with the present holder.
    #[must_use]
    pub fn has_replica_in_sync(&self) -> bool {
        self.in_sync.values().any(|complete| match complete {
            Complete::Replica { .. } => true,
            Complete::Holder | Complete::Accepted { .. } => false,
        })
    }

    /// An operator has accepted a loss, and no takeover has used it yet.
    #[must_use]
    pub fn has_accepted_loss(&self) -> bool {
        self.in_sync.values().any(Complete::is_accepted)
    }

    /// Who may still be open when `takeover` begins: the holder that it takes over from, and with none whoever served last. A
    /// target whose run ended before its point of no return never served: the one before it is still to be fenced.
    #[must_use]
    pub fn to_fence<'a>(&'a self, takeover: &'a Plan) -> Option<&'a NodeId> {
        let served = |ended: &'a EndedRun| match &ended.run.plan {
            plan if ended.run.is_past_pivot() => Some(&plan.to),
            plan => plan.from.as_ref(),
        };
        let last = self.history.iter().rev().find_map(served).or(self.last_holder.as_ref());
        takeover.from.as_ref().or(last).filter(|node| **node != takeover.to)
    }

    /// Number of the newest run, ended or not, with its start for people.
    #[must_use]
    pub fn newest_run(&self) -> Option<(&Run, WallMs)> {
        self.run.as_ref().or_else(|| self.history.last().map(|ended| &*ended.run)).map(|run| (run, run.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Basis, Runbook, Step};
    use crate::run::table::Scope;
    use crate::run::{Entry, Event, takeover as runbook};

    fn takeover(from: Option<&str>, to: &str) -> Plan {
        Plan {
            runbook: Runbook::Takeover,
            version: 1,
            epoch: Epoch(2),
            from: from.map(NodeId::from),
            to: NodeId::from(to),
            basis: Basis { epoch: Epoch(1), sync: SyncGeneration(1), target_instance: None },
            why: Vec::new(),
            detected_ms_ago: None,
            holder_heard_ms: Default::default(),
            asked_by: None,
            drain_patience_ms: 0,
            steps: runbook::steps(&NodeId::from(to), None, SCOPE),
        }
    }

    const SCOPE: Scope = Scope { mysql: true, independent_services: false, services: false };

    fn ended(from: Option<&str>, to: &str, past_pivot: bool) -> EndedRun {
        let mut run = Run::new(RunId(1), takeover(from, to), WallMs(0));
        if past_pivot {
            run.journal.push(Entry {
                step: Step::OpenPorts,
                attempt: 1,
                event: Event::Started,
                by: NodeId::from(to),
                at: WallMs(0),
            });
        }
        EndedRun { run: run.into(), state: RunState::RolledBack }
    }

    #[test]
    fn who_never_served_is_not_the_one_to_be_fenced() {
        let history =
            vec![ended(None, "db1", true), ended(Some("db1"), "db2", false), ended(None, "db2", false)];
        let ledger = Ledger { history, last_holder: Some(NodeId::from("db2")), ..Ledger::default() };
        assert_eq!(ledger.to_fence(&takeover(None, "db2")), Some(&NodeId::from("db1")));
        assert_eq!(ledger.to_fence(&takeover(None, "db1")), None, "it was the last to serve itself");
    }

    #[test]
    fn whoever_served_last_is() {
        let history = vec![ended(Some("db1"), "db2", true)];
        let ledger = Ledger { history, last_holder: Some(NodeId::from("db2")), ..Ledger::default() };
        assert_eq!(ledger.to_fence(&takeover(None, "db1")), Some(&NodeId::from("db2")));
        assert_eq!(ledger.to_fence(&takeover(Some("db2"), "db1")), Some(&NodeId::from("db2")));
        assert_eq!(Ledger::default().to_fence(&takeover(None, "db1")), None, "there was no holder");
    }
}
