//! Faults that strike at a step of a run: at which, and what the failpoint of the step's actor does then.

use super::{Fault, Scene, USUAL_STEP, USUAL_SWITCHOVER_STEP};
use crate::lab::Port;

/// What an agent does when it comes to the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// It waits until it is told to go on.
    Hold,
    /// The step fails.
    Fail,
    /// It dies.
    Kill,
}

impl Action {
    /// The word in a failpoint.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Fail => "fail",
            Self::Kill => "kill",
        }
    }
}

impl Fault {
    /// What happens at the step; `None`: it does not strike at one. A new fault has to say.
    const fn at_the_step(self) -> Option<Action> {
        match self {
            Self::LeaderLossDuringTakeover => Some(Action::Hold),
            Self::SwitchoverFails => Some(Action::Fail),
            Self::TargetCrashDuringTakeover | Self::TargetLossDuringTakeover | Self::SwitchoverCrash => {
                Some(Action::Kill)
            }
            Self::PowerLoss
            | Self::PowerReturn
            | Self::AgentKill
            | Self::AgentFreeze
            | Self::DriverHang
            | Self::HostFreeze
            | Self::MysqldKill
            | Self::MysqldFreeze
            | Self::RedisKill
            | Self::RedisLoading
            | Self::ServiceGone
            | Self::DiskFull
            | Self::GatewayCut
            | Self::LinkDown
            | Self::PartitionPrimary
            | Self::PartitionPair
            | Self::OneWayIn
            | Self::OneWayOut
            | Self::PrimaryWitnessCut
            | Self::WitnessLoss
            | Self::BackupLoss
            | Self::ReplicaBehind
            | Self::VipRemoved
            | Self::RulesFlushed
            | Self::VipForeignOwner
            | Self::LossAccepted
            | Self::ClusterRestart
            | Self::AgentsRestart
            | Self::QuorumLoss
            | Self::Forced
            | Self::PausedQuorumLoss
            | Self::PausedAgentRestart
            | Self::PausedPrimaryLoss
            | Self::Switchover
            | Self::Resync
            | Self::ResyncInterrupted
            | Self::ResyncAutomatic
            | Self::SwitchoverBack
            | Self::SwitchoverAborted
            | Self::PauseResume
            | Self::CommandsRefused
            | Self::ResyncOrdered => None,
        }
    }

    /// What an agent is to be told before the injection, and whose. `at`: the step at which to strike, and its moment.
    #[must_use]
    pub fn failpoint(self, scene: Scene<'_>, at: &str) -> Option<(Port, String)> {
        let action = self.at_the_step()?;
        let actor = match at.split(':').next() {
            Some("drain_holder" | "close_holder" | "attach_old") => scene.primary,
            Some("validate") => Port::Mon,
            Some(_) | None => scene.backup,
        };
        Some((actor, format!("{at}:{}", action.as_str())))
    }

    /// Whether it strikes at a step of a run.
    #[must_use]
    pub const fn strikes_at_a_step(self) -> bool {
        self.at_the_step().is_some()
    }

    /// Whether it strikes at a step of a switchover.
    #[must_use]
    pub fn is_of_a_switchover(self) -> bool {
        matches!(self, Self::SwitchoverFails | Self::SwitchoverCrash)
    }

    /// Where it strikes if nothing else is asked for.
    #[must_use]
    pub fn usual_step(self) -> &'static str {
        if self.is_of_a_switchover() { USUAL_SWITCHOVER_STEP } else { USUAL_STEP }
    }
}
