//! Every fault that a drill can inject, with what must be known of it before it is.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Level, Role};

/// What is done to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Nothing: every agent is asked whether a takeover would work now.
    Rehearsal,
    /// Nothing: the days left of every certificate of the group are read.
    CertificateExpiring,
    /// The baton is passed to the target.
    Switchover,
    /// `SIGKILL` to the database server; its supervisor may start it again.
    MysqldKill,
    /// `SIGSTOP` to the database server; `SIGCONT` heals it.
    MysqldFreeze,
    /// `SIGKILL` to Redis or Valkey.
    RedisKill,
    /// `SIGKILL` to the agent.
    AgentKill,
    /// `SIGSTOP` to the agent; `SIGCONT` heals it.
    AgentFreeze,
    /// The witness's agent is stopped like a frozen one: nobody watches from outside, two votes are left.
    WitnessLoss,
    /// `SIGKILL` to a role-bound container.
    ContainerKill,
    /// `SIGSTOP` to a role-bound container's main process, and to whatever takes its place: its health check fails as long
    /// as it stands.
    ContainerUnhealthy,
    /// All packets between the target and the hosts of the other agents are dropped, both ways. Clients on those hosts are cut
    /// off with them; clients elsewhere still reach the target.
    Partition,
    /// All packets between the target and one peer are dropped, both ways.
    PartitionPair,
    /// Packets from the target to one peer are dropped; those of the other way pass.
    OneWay,
    /// The replication stream to the target is slowed down to a trickle.
    ReplicationLag,
    /// A file of bounded size fills the file system of the replica's database.
    ReplicaDiskFull,
    /// The target's power is cut by the site's own hook.
    PowerOff,
}

/// Who ends a fault if everybody who injected it is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Heal {
    /// There is nothing to end.
    Nothing,
    /// The kernel: what drops packets is an element with a timeout.
    Kernel,
    /// A process of its own, started and seen before the fault, that outlives runner and agent.
    Watchdog,
    /// The service's own supervisor, or Baton itself: what was killed is started again.
    Supervisor,
    /// People, or the site's hook.
    Site,
}

/// What must be seen before a fault counts as having taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Every agent has answered.
    Answered,
    /// The ledger has another holder.
    HolderChanged,
    /// The process id is gone, or is another process.
    ProcessGone,
    /// The kernel says that the process is stopped.
    ProcessStopped,
    /// The container's engine says that it does not run.
    ContainerStopped,
    /// The container's engine says that it is unhealthy.
    ContainerUnhealthy,
    /// What was cut counts dropped packets.
    PacketsDropped,
    /// What was slowed down counts dropped packets, and the replica is not in sync, or further behind than before.
    LagGrows,
    /// The file system has no more than what was to be left.
    DiskFull,
    /// No agent hears the target.
    NotHeard,
}

impl Fault {
    /// Every fault, from the shallowest.
    pub const ALL: [Self; 17] = [
        Self::Rehearsal,
        Self::CertificateExpiring,
        Self::Switchover,
        Self::MysqldKill,
        Self::MysqldFreeze,
        Self::RedisKill,
        Self::AgentKill,
        Self::AgentFreeze,
        Self::WitnessLoss,
        Self::ContainerKill,
        Self::ContainerUnhealthy,
        Self::Partition,
        Self::PartitionPair,
        Self::OneWay,
        Self::ReplicationLag,
        Self::ReplicaDiskFull,
        Self::PowerOff,
    ];

    /// As files write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rehearsal => "rehearsal",
            Self::CertificateExpiring => "certificate-expiring",
            Self::Switchover => "switchover",
            Self::MysqldKill => "mysqld-kill",
            Self::MysqldFreeze => "mysqld-freeze",
            Self::RedisKill => "redis-kill",
            Self::AgentKill => "agent-kill",
            Self::AgentFreeze => "agent-freeze",
            Self::WitnessLoss => "witness-loss",
            Self::ContainerKill => "container-kill",
            Self::ContainerUnhealthy => "container-unhealthy",
            Self::Partition => "partition",
            Self::PartitionPair => "partition-pair",
            Self::OneWay => "one-way",
            Self::ReplicationLag => "replication-lag",
            Self::ReplicaDiskFull => "replica-disk-full",
            Self::PowerOff => "power-off",
        }
    }

    /// How deep it reaches.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Rehearsal | Self::CertificateExpiring => Level::L1,
            Self::Switchover => Level::L2,
            Self::MysqldKill
            | Self::MysqldFreeze
            | Self::RedisKill
            | Self::AgentKill
            | Self::AgentFreeze
            | Self::WitnessLoss
            | Self::ContainerKill
            | Self::ContainerUnhealthy => Level::L3,
            Self::Partition | Self::PartitionPair | Self::OneWay | Self::ReplicationLag => Level::L4,
            Self::ReplicaDiskFull | Self::PowerOff => Level::L5,
        }
    }

    /// Who ends it if everybody who injected it is dead.
    #[must_use]
    pub const fn heal(self) -> Heal {
        match self {
            Self::Rehearsal | Self::CertificateExpiring | Self::Switchover => Heal::Nothing,
            Self::MysqldKill | Self::RedisKill | Self::AgentKill | Self::ContainerKill => Heal::Supervisor,
            Self::MysqldFreeze
            | Self::AgentFreeze
            | Self::WitnessLoss
            | Self::ContainerUnhealthy
            | Self::ReplicaDiskFull => Heal::Watchdog,
            Self::Partition | Self::PartitionPair | Self::OneWay | Self::ReplicationLag => Heal::Kernel,
            Self::PowerOff => Heal::Site,
        }
    }

    /// Whether it may be done to an installation that people use: it ends by itself or at its supervisor, touches one
    /// process or only packets, and leaves nothing on a disk.
    #[must_use]
    pub const fn is_safe_outside_lab(self) -> bool {
        match self {
            Self::Rehearsal
            | Self::CertificateExpiring
            | Self::Switchover
            | Self::MysqldKill
            | Self::MysqldFreeze
            | Self::RedisKill
            | Self::AgentKill
            | Self::AgentFreeze
            | Self::WitnessLoss
            | Self::ContainerKill
            | Self::ContainerUnhealthy
            | Self::Partition
            | Self::PartitionPair
            | Self::OneWay
            | Self::ReplicationLag => true,
            // What shares the file system is hit too; a host that was cut off may not come back.
            Self::ReplicaDiskFull | Self::PowerOff => false,
        }
    }

    /// Which roles it may hit.
    #[must_use]
    pub const fn roles(self) -> &'static [Role] {
        match self {
            Self::Rehearsal | Self::CertificateExpiring => &[Role::Everyone],
            Self::Switchover | Self::ReplicationLag | Self::ReplicaDiskFull => &[Role::Backup],
            Self::MysqldKill | Self::MysqldFreeze | Self::RedisKill => &[Role::Holder, Role::Backup],
            Self::AgentKill | Self::AgentFreeze => &[Role::Holder, Role::Backup, Role::Witness, Role::Leader],
            Self::WitnessLoss => &[Role::Witness],
            Self::ContainerKill | Self::ContainerUnhealthy => &[Role::Holder],
            Self::Partition | Self::PartitionPair | Self::OneWay | Self::PowerOff => {
                &[Role::Holder, Role::Backup, Role::Witness]
            }
        }
    }

    /// What must be seen before it counts as having taken effect.
    #[must_use]
    pub const fn effect(self) -> Effect {
        match self {
            Self::Rehearsal | Self::CertificateExpiring => Effect::Answered,
            Self::Switchover => Effect::HolderChanged,
            Self::MysqldKill | Self::RedisKill | Self::AgentKill => Effect::ProcessGone,
            Self::MysqldFreeze | Self::AgentFreeze | Self::WitnessLoss => Effect::ProcessStopped,
            Self::ContainerKill => Effect::ContainerStopped,
            Self::ContainerUnhealthy => Effect::ContainerUnhealthy,
            Self::Partition | Self::PartitionPair | Self::OneWay => Effect::PacketsDropped,
            Self::ReplicationLag => Effect::LagGrows,
            Self::ReplicaDiskFull => Effect::DiskFull,
            Self::PowerOff => Effect::NotHeard,
        }
    }

    /// Whether it stands until it is healed; otherwise it is done once.
    #[must_use]
    pub const fn stands(self) -> bool {
        match self.heal() {
            Heal::Nothing | Heal::Supervisor => false,
            Heal::Kernel | Heal::Watchdog | Heal::Site => true,
        }
    }

    /// One sentence: what is done.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Rehearsal => "asks every agent whether a takeover would work now; changes nothing",
            Self::CertificateExpiring => {
                "reads how many days every certificate of the group has left; changes nothing"
            }
            Self::Switchover => "passes the baton to the backup",
            Self::MysqldKill => "kills the database server (SIGKILL)",
            Self::MysqldFreeze => {
                "stops the database server (SIGSTOP); it still accepts connections and never answers"
            }
            Self::RedisKill => "kills Redis (SIGKILL)",
            Self::AgentKill => "kills the agent (SIGKILL)",
            Self::AgentFreeze => "stops the agent (SIGSTOP)",
            Self::WitnessLoss => "stops the witness's agent (SIGSTOP): two votes are left",
            Self::ContainerKill => "kills a role-bound container (SIGKILL)",
            Self::ContainerUnhealthy => {
                "stops a role-bound container's main process (SIGSTOP), and each that takes its place"
            }
            Self::Partition => {
                "drops all packets between the target and the other agents' hosts, both ways; clients elsewhere reach it"
            }
            Self::PartitionPair => "drops all packets between the target and one peer, both ways",
            Self::OneWay => "drops packets from the target to one peer; the other way is open",
            Self::ReplicationLag => "slows the replication stream to the target down to a trickle",
            Self::ReplicaDiskFull => {
                "fills the file system of the replica's database with one file of bounded size"
            }
            Self::PowerOff => "cuts the target's power by the site's own hook",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Heal {
    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing to heal",
            Self::Kernel => "kernel",
            Self::Watchdog => "watchdog",
            Self::Supervisor => "supervisor",
            Self::Site => "site",
        }
    }
}

impl Effect {
    /// As files write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::HolderChanged => "holder-changed",
            Self::ProcessGone => "process-gone",
            Self::ProcessStopped => "process-stopped",
            Self::ContainerStopped => "container-stopped",
            Self::ContainerUnhealthy => "container-unhealthy",
            Self::PacketsDropped => "packets-dropped",
            Self::LagGrows => "lag-grows",
            Self::DiskFull => "disk-full",
            Self::NotHeard => "not-heard",
        }
    }

    /// One clause: what must be seen.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Answered => "every agent has answered",
            Self::HolderChanged => "the ledger has another holder",
            Self::ProcessGone => "the process is gone",
            Self::ProcessStopped => "the kernel says that the process is stopped",
            Self::ContainerStopped => "the engine says that the container does not run",
            Self::ContainerUnhealthy => "the engine says that the container is unhealthy",
            Self::PacketsDropped => "the rule counts dropped packets",
            Self::LagGrows => "packets are dropped, and the replica is out of sync or further behind",
            Self::DiskFull => "the file system has no more space than was to be left",
            Self::NotHeard => "no agent hears the target",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As serde writes it.
    fn wire(value: &impl Serialize) -> String {
        serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn names_are_those_of_the_file() {
        for fault in Fault::ALL {
            assert_eq!(wire(&fault), fault.name());
            assert_eq!(wire(&fault.effect()), fault.effect().name());
        }
        for role in Role::ALL {
            assert_eq!(wire(&role), role.name());
        }
    }

    #[test]
    fn what_is_safe_outside_a_lab_ends_by_itself() {
        for fault in Fault::ALL {
            let needs_people = fault.heal() == Heal::Site;
            assert!(!(fault.is_safe_outside_lab() && needs_people), "{fault}");
            assert!(!(fault.is_safe_outside_lab() && fault.level() == Level::L5), "{fault}");
            assert!(!fault.roles().is_empty(), "{fault}");
        }
    }
}
