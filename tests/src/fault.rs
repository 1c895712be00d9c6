//! What can go wrong, and what must come of it.
//!
//! Every fault is injected, then *verified*: a fault that did not bite proves nothing, and its run is inconclusive.
//! A fault that has a *heal* is healed in the same run, since a node that comes back is half of the trouble. Faults of
//! links are made in the switch; the others are made from outside of the host, as a kernel or another program would.

mod act;
pub mod back;
mod command;
mod forced;
mod foreign;
mod loading;
mod lost;
mod paused;
mod resync;
mod step;
mod told;

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::{Lab, Port};

/// How often the holder may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// Never.
    None,
    /// Exactly once.
    One,
    /// Once or never.
    AtMostOne,
    /// Once or twice.
    OneOrTwo,
    /// Exactly twice.
    Two,
    /// Twice at most.
    AtMostTwo,
    /// Exactly four times.
    Four,
}

impl Changes {
    /// Whether `changes` is what is expected.
    #[must_use]
    pub fn admits(self, changes: u64) -> bool {
        match self {
            Self::None => changes == 0,
            Self::One => changes == 1,
            Self::AtMostOne => changes <= 1,
            Self::OneOrTwo => (1..=2).contains(&changes),
            Self::Two => changes == 2,
            Self::AtMostTwo => changes <= 2,
            Self::Four => changes == 4,
        }
    }
}

/// When the client is to be served again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// While the fault lasts.
    DuringFault,
    /// Once the fault is healed; it may be earlier.
    AfterHeal,
    /// Only once the fault is healed: whoever acknowledges earlier risks what is promised.
    NotBeforeHeal,
}

/// What must come of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// How often the holder changes.
    pub changes: Changes,
    /// When the client is served again.
    pub served: Served,
    /// Longest outage of MySQL and of Redis, milliseconds, on a machine that is busy with other things. The figures of
    /// the benchmark are far lower.
    pub outage_max_ms: Option<u64>,
    /// How much longer the outage of Redis may be.
    pub redis_later_ms: u64,
    /// How long the fault lasts before it is healed; none: it is not healed.
    pub heal_after: Option<Duration>,
    /// The why code by which the agents must say, before the heal, that nothing is done.
    pub refusal: Option<&'static str>,
    /// An operator accepts that acknowledged writes of MySQL are lost, and some are.
    pub loses: bool,
    /// How many acknowledged writes of Redis may be lost; none: they are counted, and nothing is promised.
    pub redis_lost_max: Option<usize>,
}

impl Expectation {
    /// The same where the fault strikes at this point of a run, for instance `open_ports:acted`: a target that is lost behind the
    /// point of no return is waited for, since it alone may serve.
    #[must_use]
    pub fn at(self, fault: Fault, point: &str) -> Self {
        let step = point.split(':').next().unwrap_or_default();
        let waited_for = fault == Fault::TargetLossDuringTakeover && BEHIND_THE_PIVOT.contains(&step);
        if waited_for { Self { served: Served::NotBeforeHeal, ..self } } else { self }
    }
}

/// Who is who when the fault is injected.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Where.
    pub lab: &'a Lab,
    /// The holder.
    pub primary: Port,
    /// The other data node.
    pub backup: Port,
    /// For what happens at a moment within something that lasts: how late in it.
    pub spread: Duration,
    /// How often the agent of the holder's host had been started.
    agent_starts: u32,
}

impl<'a> Scene<'a> {
    /// The scene in which `primary` serves.
    #[must_use]
    pub fn new(lab: &'a Lab, primary: Port) -> Self {
        let backup = if primary == Port::Db1 { Port::Db2 } else { Port::Db1 };
        // Without agents it was never started.
        let agent_starts = lab.host(primary).process("agent").map_or(0, |agent| agent.starts());
        Self { lab, primary, backup, spread: Duration::ZERO, agent_starts }
    }
}

/// The steps of a takeover that its target carries out, in their order.
pub const TARGET_STEPS: [&str; 8] = [
    "fence_old",
    "cut_stream",
    "hold_vip",
    "drain_relay_log",
    "promote_mysql",
    "open_ports",
    "start_independent",
    "start_services",
];
/// Those of them that begin with the point of no return. Services that need no database are started beside all others.
const BEHIND_THE_PIVOT: [&str; 2] = ["open_ports", "start_services"];
/// The steps of a switchover before its point of no return, in their order.
pub const SWITCHOVER_STEPS: [&str; 4] = ["prepare_target", "drain_holder", "close_holder", "catch_up"];
/// Where a fault of a switchover strikes if nothing else is asked for.
pub const USUAL_SWITCHOVER_STEP: &str = "catch_up:acted";
/// Where a fault of a takeover strikes if nothing else is asked for.
pub const USUAL_STEP: &str = "promote_mysql:started";

macro_rules! faults {
    ($($variant:ident $name:literal $what:literal;)*) => {
        /// A fault that the lab can inject.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $(#[doc = $what] $variant,)* }

        impl Fault {
            /// Every fault.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }
        }
    };
}

faults! {
    PowerLoss "power-loss" "the primary's host is off the wire and every process of it is killed";
    PowerReturn "power-return"
        "the primary loses power while commits wait for the replica's acknowledgement; later it is back";
    AgentKill "agent-kill" "the primary's agent is killed and restarted by its supervisor";
    AgentFreeze "agent-freeze" "the primary's agent is stopped, and thawed later";
    DriverHang "driver-hang" "the driver of the primary's agent hangs while its lease thread lives on, and goes on later";
    HostFreeze "host-freeze" "every process of the primary's host is stopped, and thawed later";
    MysqldKill "mysqld-kill" "the primary's MySQL server is killed";
    MysqldFreeze "mysqld-freeze" "the primary's MySQL server is stopped, and thawed later";
    RedisKill "redis-kill" "the primary's Redis server is killed";
    RedisLoading "redis-loading"
        "the backup's Redis is restarted and loads its data for seconds; meanwhile the primary loses power";
    ServiceGone "service-gone" "the container of the primary's service is removed, so that no restart brings it back";
    DiskFull "disk-full" "the file system of the primary's MySQL data is filled, and emptied later";
    GatewayCut "gateway-cut" "the primary loses its way to the clients; the nodes see each other";
    LinkDown "link-down" "the primary's port has no carrier for a while";
    PartitionPrimary "partition-primary" "the primary is cut off from both other nodes, not from clients, for a while";
    PartitionPair "partition-pair" "primary and backup are cut off from each other; both see witness and clients";
    OneWayIn "one-way-in" "nothing from the other nodes reaches the primary; what it sends arrives";
    OneWayOut "one-way-out" "nothing of the primary reaches the other nodes; what they send arrives";
    PrimaryWitnessCut "primary-witness-cut" "primary and witness are cut off from each other for a while";
    WitnessLoss "witness-loss" "the witness loses power";
    BackupLoss "backup-loss" "the backup loses power";
    ReplicaBehind "replica-behind" "replication is cut until the replica is out of sync, then the primary loses power";
    VipRemoved "vip-removed" "another program removes the virtual IP from the primary";
    RulesFlushed "rules-flushed" "another program flushes every nftables rule of the primary";
    VipForeignOwner "vip-foreign-owner"
        "a machine that is no node answers for the virtual IP; then the primary loses power; later that machine is gone";
    LeaderLossDuringTakeover "leader-loss-during-takeover"
        "the primary's MySQL is killed; at a step of the takeover the leader loses power, for good";
    TargetCrashDuringTakeover "target-crash-during-takeover"
        "the primary loses power; at a step the target's agent dies and is restarted by its supervisor";
    TargetLossDuringTakeover "target-loss-during-takeover"
        "the primary is cut off; at a step the target loses power and the primary is back; later the target is too";
    LossAccepted "loss-accepted"
        "as replica-behind, and an operator lets the backup take over with what it has";
    ClusterRestart "cluster-restart" "all three hosts lose power and come back, once in each order of the three";
    AgentsRestart "agents-restart" "all three agents are killed; backup and witness are back first, the primary's seconds later";
    QuorumLoss "quorum-loss" "backup and witness lose power";
    Forced "forced"
        "primary and witness lose power, and an operator forces the backup to go on alone; later both are back and rejoin";
    PausedQuorumLoss "paused-quorum-loss"
        "an operator pauses, then backup and witness lose power, and come back; then the pause is ended";
    PausedAgentRestart "paused-agent-restart"
        "an operator pauses, then the primary is cut off and its agent is restarted; later it is back, and the pause is ended";
    PausedPrimaryLoss "paused-primary-loss" "an operator pauses for a minute, then the primary loses power";
    Switchover "switchover" "no fault: an operator passes the baton";
    SwitchoverFails "switchover-fails" "an operator passes the baton, and a step before the point of no return fails";
    Resync "resync"
        "the primary is cut off and somebody writes into it; back, it is in quarantine, and an operator resyncs it";
    ResyncInterrupted "resync-interrupted"
        "the same, but a copy breaks, one does not start, and the agent dies; then the operator repeats the resync";
    ResyncAutomatic "resync-automatic"
        "the same, in a cluster whose agents resync by themselves";
    SwitchoverCrash "switchover-crash"
        "an operator passes the baton; at a step its actor's agent dies and is restarted by its supervisor";
    SwitchoverBack "switchover-back" "no fault: an operator passes the baton there and back";
    SwitchoverAborted "switchover-aborted" "no fault: an operator passes the baton, and thinks better of it";
    PauseResume "pause-resume" "no fault: an operator pauses, and resumes after some seconds";
    CommandsRefused "commands-refused"
        "no fault: an operator orders a takeover, a resync and a force in a healthy cluster, which refuses them";
    ResyncOrdered "resync-ordered"
        "replication is cut until the replica is out of sync; it is back, and an operator has it copied anew";
}

const LONG: Option<Duration> = Some(Duration::from_secs(8));

impl Fault {
    /// The fault of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().copied().find(|fault| fault.name() == name);
        found.with_context(|| {
            let near = Self::near(name).join(" and ");
            let near = if near.is_empty() { near } else { format!(", but there is {near}") };
            format!("no fault is called {name}{near}; `target/debug/lab list` shows them all")
        })
    }

    /// The names that have `name` in them, or are in it.
    fn near(name: &str) -> Vec<&'static str> {
        let is_near = |known: &&str| !name.is_empty() && (known.contains(name) || name.contains(*known));
        Self::ALL.iter().map(|fault| fault.name()).filter(is_near).collect()
    }

    /// What must come of it.
    #[must_use]
    pub fn expectation(self) -> Expectation {
        let of = |changes, outage_max_ms, heal_after| Expectation {
            changes,
            served: Served::DuringFault,
            outage_max_ms: Some(outage_max_ms),
            redis_later_ms: 0,
            heal_after,
            refusal: None,
            loses: false,
            redis_lost_max: self.redis_lost_max(),
        };
        let healed = |heal_after| Expectation {
            served: Served::AfterHeal,
            outage_max_ms: None,
            ..of(Changes::None, 0, Some(heal_after))
        };
        match self {
            Self::PowerLoss | Self::MysqldKill | Self::RedisKill => of(Changes::One, 4_000, None),
            // MySQL does not wait for Redis, which loads for some 7 s.
            Self::RedisLoading => Expectation { redis_later_ms: 16_000, ..of(Changes::One, 4_000, None) },
            Self::AgentFreeze
            | Self::HostFreeze
            | Self::MysqldFreeze
            | Self::LinkDown
            | Self::PartitionPrimary
            | Self::PowerReturn
            | Self::Resync
            | Self::ResyncInterrupted
            | Self::ResyncAutomatic => of(Changes::One, 5_000, LONG),
            Self::GatewayCut | Self::OneWayIn | Self::OneWayOut => of(Changes::One, 6_000, LONG),
            // The driver's silence comes first, and the service goes on through it.
            Self::DriverHang => of(Changes::One, 6_000, Some(Duration::from_secs(12))),
            Self::DiskFull => of(Changes::One, 8_000, Some(Duration::from_secs(12))),
            // The agent tries to bring the service back for 25 s first; the databases serve on meanwhile.
            Self::ServiceGone => of(Changes::One, 35_000, None),
            Self::AgentKill => of(Changes::None, 3_000, None),
            // The witness hears both, so the agents know that it is the network between the two.
            Self::PartitionPair => {
                Expectation { refusal: Some("unreachable"), ..of(Changes::AtMostOne, 5_000, LONG) }
            }
            Self::PrimaryWitnessCut => of(Changes::None, 3_000, LONG),
            Self::WitnessLoss => of(Changes::None, 3_000, None),
            // Waiting commits are released through the ledger within 2 s, and half a second is the machine's.
            Self::BackupLoss => of(Changes::None, 2_500, LONG),
            Self::VipRemoved | Self::RulesFlushed => of(Changes::None, 1_000, None),
            // Three takeovers come to nothing, each in an epoch of its own. After a minute there is one more.
            Self::VipForeignOwner => {
                let (changes, served) = (Changes::Four, Served::NotBeforeHeal);
                Expectation { changes, served, refusal: Some("anti-flap"), ..healed(Duration::from_secs(20)) }
            }
            Self::LeaderLossDuringTakeover => of(Changes::One, 10_000, None),
            // Only target and witness are left, so its restart is a loss of the quorum for about as long as a lease lasts: it
            // goes on with its run, or its lease has ended and it gets the baton anew, once.
            Self::TargetCrashDuringTakeover => of(Changes::OneOrTwo, 6_000, None),
            // Before the point of no return the last holder may get the baton anew; behind it only the target may, and it goes on
            // with its run or gets it anew.
            Self::TargetLossDuringTakeover => {
                Expectation { changes: Changes::OneOrTwo, ..healed(Duration::from_secs(10)) }
            }
            Self::ReplicaBehind => {
                let refusal = Some("candidate-not-in-sync");
                Expectation { refusal, served: Served::NotBeforeHeal, ..healed(Duration::from_secs(10)) }
            }
            // An operator's command, and the lease's end before it can be obeyed.
            Self::LossAccepted => Expectation { loses: true, ..of(Changes::One, 20_000, None) },
            // The longest of six times without power, with up to three nodes to boot.
            Self::ClusterRestart => of(Changes::None, 20_000, None),
            // Longer than a lease and what a new leader waits: without patience the backup would have taken over.
            Self::AgentsRestart => of(Changes::None, 15_000, None),
            Self::QuorumLoss => {
                Expectation { served: Served::NotBeforeHeal, ..healed(Duration::from_secs(6)) }
            }
            // The silence that the survivor wants to see, a restart, an election, a wait, a takeover.
            Self::Forced => of(Changes::One, 45_000, LONG),
            // The service goes on through all of it: a second is the machine's.
            Self::PausedQuorumLoss => of(Changes::None, 1_000, LONG),
            // Clients are reset by an agent that has not looked at its database yet only if that takes too long.
            Self::PausedAgentRestart => of(Changes::None, 1_500, LONG),
            // The pause, what is waited for the clocks' rates, and a takeover.
            Self::PausedPrimaryLoss => of(Changes::One, 75_000, None),
            Self::Switchover => of(Changes::One, 2_000, None),
            Self::SwitchoverFails => of(Changes::None, 6_000, None),
            Self::SwitchoverCrash => of(Changes::AtMostOne, 10_000, None),
            Self::SwitchoverBack => of(Changes::Two, 2_000, None),
            Self::SwitchoverAborted => of(Changes::AtMostOne, 6_000, None),
            Self::PauseResume | Self::CommandsRefused => of(Changes::None, 1_000, None),
            // Waiting commits are released through the ledger within 2 s, and half a second is the machine's.
            Self::ResyncOrdered => of(Changes::None, 2_500, None),
        }
    }

    /// Whether the lab needs container engines.
    #[must_use]
    pub fn needs_docker(self) -> bool {
        self == Self::ServiceGone
    }

    /// Whether the lab needs a file system that can be filled.
    #[must_use]
    pub fn needs_small_disk(self) -> bool {
        self == Self::DiskFull
    }

    /// Whether agents have to be told something by their failpoints.
    #[must_use]
    pub fn needs_failpoints(self) -> bool {
        matches!(self, Self::DriverHang | Self::SwitchoverAborted) || self.strikes_at_a_step()
    }

    /// Whether the service is away already, or back again, when the injection has ended.
    #[must_use]
    pub fn bites_at_once(self) -> bool {
        self.strikes_at_a_step()
            || matches!(
                self,
                Self::Switchover
                    | Self::SwitchoverBack
                    | Self::SwitchoverAborted
                    | Self::LossAccepted
                    | Self::ClusterRestart
                    | Self::AgentsRestart
                    | Self::PausedPrimaryLoss
                    | Self::Forced
            )
    }

    /// Injects it.
    ///
    /// # Errors
    /// It cannot be injected.
    pub fn inject(self, scene: Scene<'_>) -> Result<()> {
        act::inject(self, scene).with_context(|| format!("inject {}", self.name()))
    }

    /// Waits until it is seen to bite.
    ///
    /// # Errors
    /// It does not: what the run shows is worth nothing.
    pub fn verify(self, scene: Scene<'_>) -> Result<()> {
        act::verify(self, scene).with_context(|| format!("{} did not bite", self.name()))
    }

    /// Waits until the agents have put back what was taken from them.
    ///
    /// # Errors
    /// They have not.
    pub fn repaired(self, scene: Scene<'_>) -> Result<()> {
        act::repaired(self, scene).with_context(|| format!("after {}", self.name()))
    }

    /// Looks for the evidence that must stand beside the code of a refusal.
    ///
    /// # Errors
    /// No agent told it.
    pub fn told(self, refusals: &[String]) -> Result<()> {
        match self.expectation().refusal {
            Some("candidate-not-in-sync") => told::by_how_much(refusals),
            Some("unreachable") => told::from_whom(refusals),
            Some(_) | None => Ok(()),
        }
    }

    /// Undoes it.
    ///
    /// # Errors
    /// It cannot be undone, or has no end.
    pub fn heal(self, scene: Scene<'_>) -> Result<()> {
        if self.expectation().heal_after.is_none() {
            bail!("{} has no end", self.name());
        }
        act::heal(self, scene).with_context(|| format!("heal {}", self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_is_answered_with_those_near_it() {
        let said = |name: &str| Fault::named(name).unwrap_err().to_string();
        assert_eq!(
            said("one-way"),
            "no fault is called one-way, but there is one-way-in and one-way-out; `target/debug/lab list` shows them all"
        );
        assert_eq!(said("fire"), "no fault is called fire; `target/debug/lab list` shows them all");
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()).unwrap(), *fault);
        }
    }

    /// The evidence is looked for by the code of the refusal: both codes that have one are expected of a fault.
    #[test]
    fn both_refusals_with_evidence_are_looked_at() {
        for (fault, looked_at) in
            [(Fault::ReplicaBehind, true), (Fault::PartitionPair, true), (Fault::VipForeignOwner, false)]
        {
            assert_eq!(fault.told(&[]).is_err(), looked_at, "{}", fault.name());
        }
    }
}
