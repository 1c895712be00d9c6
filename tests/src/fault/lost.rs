//! How many acknowledged writes of Redis a fault may cost.
//!
//! Replication of Redis is asynchronous, so what it has not carried when its source is lost is promised to nobody. How much that
//! can be is known all the same, at the client's hundred writes a second: nothing where the holder stays or the baton is passed;
//! hardly anything where nothing held the stream up; what a lease lets through where the holder serves on, cut off from its
//! replica.

use super::Fault;

/// Nothing is in the way of the stream: a replica on the same switch is not half a second behind.
const UNDER_WAY: usize = 50;
/// The holder is cut off and serves until its lease ends: 120 writes, and what a busy machine adds.
const OF_A_LEASE: usize = 200;
/// Two seconds, and a little: for so long Redis puts off writing its log while the disk is busy.
const UNSAVED: usize = 250;

impl Fault {
    /// How many acknowledged writes of Redis may be missing afterwards; none: as many as there are.
    #[must_use]
    pub fn redis_lost_max(self) -> Option<usize> {
        match self {
            // Whoever acknowledged holds the baton to the end, and its Redis lives; or it has all the time for catching up,
            // in a planned move or because the clients are cut off and the replica is not.
            Self::AgentKill
            | Self::GatewayCut
            | Self::PrimaryWitnessCut
            | Self::WitnessLoss
            | Self::BackupLoss
            | Self::VipRemoved
            | Self::RulesFlushed
            | Self::AgentsRestart
            | Self::QuorumLoss
            | Self::PausedQuorumLoss
            | Self::PausedAgentRestart
            | Self::Switchover
            | Self::SwitchoverFails
            | Self::SwitchoverBack
            | Self::SwitchoverAborted
            | Self::PauseResume
            | Self::CommandsRefused
            | Self::ResyncOrdered => Some(0),
            Self::PowerLoss
            | Self::PowerReturn
            | Self::AgentFreeze
            | Self::DriverHang
            | Self::HostFreeze
            | Self::MysqldKill
            | Self::MysqldFreeze
            | Self::RedisKill
            | Self::ServiceGone
            | Self::DiskFull
            | Self::LinkDown
            | Self::LeaderLossDuringTakeover
            | Self::TargetCrashDuringTakeover
            | Self::VipForeignOwner
            | Self::PausedPrimaryLoss
            | Self::SwitchoverCrash => Some(UNDER_WAY),
            Self::PartitionPrimary
            | Self::PartitionPair
            | Self::OneWayIn
            | Self::OneWayOut
            | Self::Resync
            | Self::ResyncInterrupted
            | Self::ResyncAutomatic => Some(OF_A_LEASE),
            // The old holder is cut off, and what the target acknowledged may be lost with its power.
            Self::TargetLossDuringTakeover => Some(OF_A_LEASE + UNDER_WAY),
            // It loses power, and serves again with what it had saved.
            Self::ReplicaBehind => Some(UNSAVED),
            // Six times without power; a replica that was loading meanwhile; an operator who accepts what is lost.
            Self::ClusterRestart | Self::RedisLoading | Self::LossAccepted | Self::Forced => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Changes;

    #[test]
    fn a_holder_that_stays_with_its_power_loses_nothing() {
        let loses_power = [Fault::ReplicaBehind, Fault::ClusterRestart];
        for fault in Fault::ALL.iter().filter(|fault| !loses_power.contains(fault)) {
            let expected = fault.expectation();
            assert_eq!(expected.redis_lost_max, fault.redis_lost_max(), "{}", fault.name());
            if expected.changes == Changes::None {
                assert_eq!(expected.redis_lost_max, Some(0), "{}", fault.name());
            }
        }
    }
}
