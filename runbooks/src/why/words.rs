//! What an operator reads: the code, and its evidence in words.

use std::collections::BTreeMap;
use std::fmt;

use super::Why;
use crate::model::NodeId;

fn ago(ms: Option<u64>) -> String {
    ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms ago"))
}

fn unheard(from: &BTreeMap<NodeId, Option<u64>>) -> String {
    let each = from.iter().map(|(by, ms)| match ms {
        Some(ms) => format!("from {by} ({ms} ms)"),
        None => format!("from {by} (never heard)"),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn heard(by: &[NodeId]) -> String {
    if by.is_empty() {
        "nobody".to_owned()
    } else {
        by.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" and ")
    }
}

fn leads(leader: Option<&NodeId>) -> String {
    leader.map_or_else(|| "no leader known".to_owned(), |leader| format!("{leader} leads"))
}

fn lacked(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "not known how much".to_owned(), |bytes| format!("{bytes} bytes"))
}

fn left(ms: Option<u64>) -> String {
    ms.map_or_else(String::new, |ms| format!(", {ms} ms left"))
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.own_code())?;
        match self {
            Self::HolderHealthy { holder, granted_ms_ago } => {
                write!(f, ": {holder}, granted {granted_ms_ago} ms ago")
            }
            Self::NotLeader { leader } => write!(f, ": {}", leads(leader.as_ref())),
            Self::NoQuorum { acknowledged_ms_ago } => {
                write!(f, ": last acknowledged {}", ago(*acknowledged_ms_ago))
            }
            Self::NewLeaderWaits { left_ms } => write!(f, ": {left_ms} ms left"),
            Self::ColdStart { holder, left_ms } => write!(f, ": {holder} is waited for, {left_ms} ms left"),
            Self::LeaseNotEnded { epoch, left_ms } => write!(f, ": epoch {epoch}, {left_ms} ms left"),
            Self::LeaseEnded { epoch, ended_ms_ago } => write!(f, ": epoch {epoch}, {ended_ms_ago} ms ago"),
            Self::Unreachable { node, from, heard_by } => {
                write!(f, ": {node} {}; heard by {}", unheard(from), heard(heard_by))
            }
            Self::HolderReleased { epoch, because } => write!(f, ": epoch {epoch}, because {because}"),
            Self::RunInProgress { run, steps } => write!(f, ": run {run}, {}", steps.join(", ")),
            Self::RunNeedsOperator { run, step, reason } => write!(f, ": run {run}, {step}: {reason}"),
            Self::ActorAway { node, silent_ms } | Self::CandidateSilent { node, silent_ms } => {
                write!(f, ": {node}, last report {}", ago(*silent_ms))
            }
            Self::StepOverdue { step, node, waited_ms } => write!(f, ": {step} at {node}, {waited_ms} ms"),
            Self::CandidateNotInSync { node, behind } => write!(f, ": {node}, {behind}"),
            Self::LossAccepted { node, by, loss } => write!(f, ": {node}, by {by}, {loss}"),
            Self::LossTooLarge { node, at_most_ms, loss } => {
                write!(f, ": {node}, {at_most_ms} ms are accepted: {loss}")
            }
            Self::CandidateRestarted { node, ledger, now } => write!(f, ": {node} was {ledger}, is {now}"),
            Self::CandidateUnfit { node, obstacles } => write!(f, ": {node}, {}", obstacles.join(", ")),
            Self::AntiFlap { node, failed, left_ms } => {
                write!(f, ": {node}, {failed} failed attempts, {left_ms} ms left")
            }
            Self::OwnGap { gap_ms, left_ms } => write!(f, ": {gap_ms} ms, {left_ms} ms left"),
            Self::Candidate { node } => write!(f, ": {node}"),
            Self::Serving { epoch } | Self::LeaseLapsed { epoch } => write!(f, ": epoch {epoch}"),
            Self::NotOpenedYet { run } | Self::HandingOver { run } | Self::ReceivingBaton { run } => {
                write!(f, ": run {run}")
            }
            Self::SemiSyncBroken { detail: what }
            | Self::RedisDown { detail: what }
            | Self::VipLost { detail: what }
            | Self::LinkDown { interface: what }
            | Self::GatewayLost { address: what }
            | Self::OtherNotBetter { because: what } => write!(f, ": {what}"),
            Self::RedisRestarted { was, is } => write!(f, ": {is} instead of {was}"),
            Self::RedisEmpty { keys } => write!(f, ": {keys} keys at the other node"),
            Self::RedisBehind { node, behind_ms, bytes } => {
                write!(f, ": {node} by {behind_ms} ms, {}", lacked(*bytes))
            }
            Self::DiskFull { free_bytes } => write!(f, ": {free_bytes} bytes free"),
            Self::ServiceDown { name, state } => write!(f, ": {name} is {state}"),
            Self::CommitsWaitForReplica { waiting } => write!(f, ": {waiting} sessions"),
            Self::Paused { pause, by, reason } => write!(f, ": pause {pause}, by {by}: {reason}"),
            Self::PauseNotConfirmed { pause, left_ms } => write!(f, ": pause {pause}{}", left(*left_ms)),
            Self::PauseOver { pause } => write!(f, ": pause {pause}"),
            Self::Unknown(newer) => write!(f, " (unknown to this version){newer}"),
            Self::Vacant
            | Self::NotHolder
            | Self::MysqlDead
            | Self::MysqlRefusing
            | Self::MysqlHung
            | Self::MysqlWriteStalled
            | Self::MysqlWrongCredentials
            | Self::MysqlTooManyConnections
            | Self::MysqlBootsWritable
            | Self::RedisBootsOpen
            | Self::DiskReadOnly
            | Self::DiskStalled => Ok(()),
        }
    }
}
