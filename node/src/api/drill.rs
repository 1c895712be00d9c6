//! What is asked and answered about drills: data only. Field names and words are stable; fields may be added.
//!
//! One path, `POST /v1/drill`: an order for the node that is named, whichever agent is asked, answered with what that
//! node knows of drills. Orders on the ledger go by any node.

use std::fmt;

pub use baton_runbooks::ledger::{Drill, DrillId, EndedDrill};
use baton_runbooks::model::NodeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::DrillLevel;

/// What an agent can do to its own node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// SIGKILL to the database server.
    MysqldKill,
    /// SIGSTOP to the database server; a watchdog thaws it.
    MysqldFreeze,
    /// SIGKILL to Redis.
    RedisKill,
    /// SIGKILL to the agent itself.
    AgentKill,
    /// SIGSTOP to the agent itself; a watchdog thaws it.
    AgentFreeze,
    /// SIGKILL to the containers of a role-bound service.
    ContainerKill,
    /// SIGSTOP to the main processes of a role-bound service, and to those that take their place; a watchdog thaws them.
    ContainerUnhealthy,
    /// Packets of the peers that are named are dropped, both ways.
    Partition,
    /// Packets to the peers that are named are dropped; what they send arrives.
    OneWay,
    /// What the peer's database sends becomes a trickle.
    ReplicationLag,
    /// A file of bounded size fills the file system of the database's data.
    ReplicaDiskFull,
    /// The site's own command cuts the node's power.
    PowerOff,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::MysqldKill,
        Self::MysqldFreeze,
        Self::RedisKill,
        Self::AgentKill,
        Self::AgentFreeze,
        Self::ContainerKill,
        Self::ContainerUnhealthy,
        Self::Partition,
        Self::OneWay,
        Self::ReplicationLag,
        Self::ReplicaDiskFull,
        Self::PowerOff,
    ];

    /// How deep it reaches.
    #[must_use]
    pub const fn level(self) -> DrillLevel {
        match self {
            Self::MysqldKill
            | Self::MysqldFreeze
            | Self::RedisKill
            | Self::AgentKill
            | Self::AgentFreeze
            | Self::ContainerKill
            | Self::ContainerUnhealthy => DrillLevel::L3,
            Self::Partition | Self::OneWay | Self::ReplicationLag => DrillLevel::L4,
            Self::ReplicaDiskFull | Self::PowerOff => DrillLevel::L5,
        }
    }

    /// The agent of the node cannot be asked while it stands.
    #[must_use]
    pub const fn silences_its_agent(self) -> bool {
        match self {
            Self::AgentKill | Self::AgentFreeze | Self::PowerOff => true,
            Self::MysqldKill
            | Self::MysqldFreeze
            | Self::RedisKill
            | Self::ContainerKill
            | Self::ContainerUnhealthy
            | Self::Partition
            | Self::OneWay
            | Self::ReplicationLag
            | Self::ReplicaDiskFull => false,
        }
    }

    /// Its name, as files and screens have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MysqldKill => "mysqld-kill",
            Self::MysqldFreeze => "mysqld-freeze",
            Self::RedisKill => "redis-kill",
            Self::AgentKill => "agent-kill",
            Self::AgentFreeze => "agent-freeze",
            Self::ContainerKill => "container-kill",
            Self::ContainerUnhealthy => "container-unhealthy",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::ReplicationLag => "replication-lag",
            Self::ReplicaDiskFull => "replica-disk-full",
            Self::PowerOff => "power-off",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One fault, for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSpec {
    /// What.
    pub kind: FaultKind,
    /// It is healed after so many milliseconds, whoever is alive. For what cannot be healed: how long it counts as under
    /// way.
    pub duration_ms: u64,
    /// From whom it is cut off, for [`FaultKind::Partition`] and [`FaultKind::OneWay`]; whose stream, for
    /// [`FaultKind::ReplicationLag`].
    #[serde(default)]
    pub peers: Vec<NodeId>,
    /// Which service, for [`FaultKind::ContainerKill`] and [`FaultKind::ContainerUnhealthy`]; `None`: the first.
    #[serde(default)]
    pub service: Option<String>,
    /// MiB that are left free, for [`FaultKind::ReplicaDiskFull`].
    #[serde(default)]
    pub leave_mib: Option<u64>,
    /// What still passes, for [`FaultKind::ReplicationLag`].
    #[serde(default)]
    pub kib_per_second: Option<u32>,
}

/// How far a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultPhase {
    /// What heals it stands ready and was seen; nothing is broken.
    Armed,
    /// It was injected and its effect was seen, or it silences the one who would look.
    Biting,
    /// Nothing of it is left, as was seen.
    Healed,
    /// Something of it is left.
    Stuck,
}

/// What a node knows of a fault that it bears or bore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultState {
    /// Of which drill.
    pub drill: DrillId,
    /// What.
    pub spec: FaultSpec,
    /// How far it is.
    pub phase: FaultPhase,
    /// When its heal stood ready.
    pub armed_at: Timestamp,
    /// When it was seen to bite.
    #[serde(default)]
    pub bit_at: Option<Timestamp>,
    /// When what it causes was seen too, for [`FaultKind::ContainerUnhealthy`]: the engine's own checks take their time.
    #[serde(default)]
    pub shows_at: Option<Timestamp>,
    /// When it was seen to be healed.
    #[serde(default)]
    pub healed_at: Option<Timestamp>,
    /// What ends it, and how that was seen to be ready.
    pub heal: String,
    /// What was seen of its effect.
    #[serde(default)]
    pub effect: String,
    /// Why it was healed, and what was seen then.
    #[serde(default)]
    pub healed: String,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "order")]
pub enum DrillOrder {
    /// Only look.
    Look,
    /// Take the drill's place in the ledger.
    Begin {
        /// The next number, as the one who drills saw it.
        number: DrillId,
        /// Name of the experiment.
        name: String,
        /// Hash of the experiment.
        experiment: String,
        /// How deep it reaches.
        level: DrillLevel,
        /// Milliseconds without a renewal after which it is over.
        lease_ms: u64,
    },
    /// Whoever drills still lives; for the ledger.
    Renew {
        /// Which drill.
        number: DrillId,
        /// The beat that he saw.
        beat: u64,
    },
    /// The same for one node that bears a fault and may be cut off from the ledger.
    Keep {
        /// Which drill.
        number: DrillId,
    },
    /// The drill is to end, and everybody heals.
    Abort {
        /// Which drill.
        number: DrillId,
        /// Why.
        reason: String,
    },
    /// The drill has ended.
    End {
        /// Which drill.
        number: DrillId,
        /// The verdict.
        verdict: String,
        /// Hash of the last record of the evidence.
        evidence: String,
    },
    /// Say whether this drill may pass the baton from this node, or to it. Changes nothing; a node that does not allow it
    /// refuses the order.
    MayPass {
        /// Which drill.
        number: DrillId,
    },
    /// Make the heal of a fault ready. Breaks nothing.
    Arm {
        /// Which drill.
        number: DrillId,
        /// The fault.
        fault: FaultSpec,
    },
    /// Inject the fault that is armed.
    Inject {
        /// Which drill.
        number: DrillId,
    },
    /// Heal what the node bears of drills.
    Heal {
        /// Why.
        reason: String,
    },
}

/// Body of `POST /v1/drill`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillRequest {
    /// The node that it is for; `None`: the one that is asked.
    pub node: Option<NodeId>,
    /// Name of the operator. The agent adds the user id that the kernel reports.
    pub by: String,
    /// What is wanted.
    #[serde(flatten)]
    pub order: DrillOrder,
}

/// Whole days until the certificates end that an agent uses; negative once they have. One that was renewed counts when its
/// agent was started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateDays {
    /// Of the node's own.
    pub own: i64,
    /// Of the authority that has signed it.
    pub authority: i64,
}

/// What a node knows of drills: the answer of `POST /v1/drill`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillView {
    /// The node.
    pub node: NodeId,
    /// Its wall clock.
    pub at: Timestamp,
    /// Version of its agent.
    pub version: String,
    /// The deepest level that it allows.
    pub allow: DrillLevel,
    /// Why no fault may be injected by the clock now; `None`: it may.
    #[serde(default)]
    pub outside_window: Option<String>,
    /// Milliseconds until the cooldown after the last drill is over; 0: it is.
    pub cooldown_left_ms: u64,
    /// No fault stands longer, milliseconds.
    pub duration_max_ms: u64,
    /// The drill under way, as this node has applied it.
    #[serde(default)]
    pub drill: Option<Drill>,
    /// Number of drills so far.
    pub drills: DrillId,
    /// The newest drills that have ended, newest last.
    #[serde(default)]
    pub ended: Vec<EndedDrill>,
    /// The fault that this node bears or bore last.
    #[serde(default)]
    pub fault: Option<FaultState>,
    /// What of drills is left in its kernel or on its disks; empty: nothing, or it was not looked, for
    /// [`DrillOrder::MayPass`].
    #[serde(default)]
    pub leftovers: Vec<String>,
    /// It has a command that cuts its power, `drill.power_off`, and the program is there.
    #[serde(default)]
    pub power_off: bool,
    /// Other nodes that it does not hear now.
    #[serde(default)]
    pub not_heard: Vec<NodeId>,
    /// How long its certificates last; `None`: it does not know.
    #[serde(default)]
    pub certificate_days: Option<CertificateDays>,
    /// What this node knows of what runs on it, for the record: `kernel`.
    #[serde(default)]
    pub versions: std::collections::BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_written_and_read() {
        let fault = FaultSpec {
            kind: FaultKind::OneWay,
            duration_ms: 1,
            peers: vec!["db2".into()],
            service: None,
            leave_mib: None,
            kib_per_second: None,
        };
        let number = DrillId(3);
        for order in [DrillOrder::Look, DrillOrder::MayPass { number }, DrillOrder::Arm { number, fault }] {
            let request = DrillRequest { node: Some("db1".into()), by: "ann".into(), order };
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<DrillRequest>(&text).unwrap(), request, "{text}");
        }
    }

    #[test]
    fn names_are_those_of_the_wire() {
        for kind in FaultKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
