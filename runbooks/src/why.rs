//! Why: stable codes with evidence, attached to every decision, also to 'hold'.
//!
//! The doc comment of each variant is the operator's page on that code; `docs/why.md` is made from it and a test keeps
//! the two together. Codes are for ever: a code that is no longer produced stays reserved.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Epoch, NodeId, PauseId, RunId};

/// Why something was decided, or not decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Why {
    /// The holder renews its lease; there is nothing to do.
    HolderHealthy {
        /// Who holds the baton.
        holder: NodeId,
        /// Milliseconds since its newest grant.
        granted_ms_ago: u64,
    },
    /// This node is not the Raft leader; only the leader decides on takeovers. Look at the leader's `baton explain`.
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The leader has no recent acknowledgement of a quorum. Without one nothing is decided: another leader may exist.
    NoQuorum {
        /// Milliseconds since a quorum last acknowledged; `None`: never.
        acknowledged_ms_ago: Option<u64>,
    },
    /// A new leader waits until every lease that its predecessor may have granted has ended.
    NewLeaderWaits {
        /// Milliseconds left.
        left_ms: u64,
    },
    /// All agents that are there have just started, and the last holder's has not been heard since. It is preferred, so it is
    /// waited for: `timing.cold_start_patience` after the first start. Start its agent; or wait.
    ColdStart {
        /// Who is waited for.
        holder: NodeId,
        /// Milliseconds left.
        left_ms: u64,
    },
    /// The holder is silent, but the lease that it was granted has not ended: until then it may still serve.
    LeaseNotEnded {
        /// The holder's epoch.
        epoch: Epoch,
        /// Milliseconds left, margin included.
        left_ms: u64,
    },
    /// The holder's lease has ended, margin included, and was not renewed: the kernel has closed it.
    LeaseEnded {
        /// The epoch whose lease ended.
        epoch: Epoch,
        /// Milliseconds since it ended, margin included.
        ended_ms_ago: u64,
    },
    /// The holder found that it cannot serve, closed itself, and gave the lease back.
    HolderReleased {
        /// The epoch that it gave up.
        epoch: Epoch,
        /// The holder's reason, as its code.
        because: String,
    },
    /// Nobody holds the baton. The leader gives it to any node that could have it; the other codes beside this one say what
    /// stands in each node's way.
    Vacant,
    /// A run is under way; nothing else is started beside it.
    RunInProgress {
        /// Which run.
        run: RunId,
        /// The steps that are being carried out.
        steps: Vec<String>,
    },
    /// A run stopped and waits for an operator. Both databases are closed to writes. Read the reason, mend it, then
    /// `baton run ack N`.
    RunNeedsOperator {
        /// Which run.
        run: RunId,
        /// The step that failed.
        step: String,
        /// What failed.
        reason: String,
    },
    /// The run's actor is away: its lease has ended and no report has come from it.
    ActorAway {
        /// The actor.
        node: NodeId,
        /// Milliseconds since its last report; `None`: never.
        silent_ms: Option<u64>,
    },
    /// A forward step did not end within its time; the run goes on without it.
    StepOverdue {
        /// The step.
        step: String,
        /// Its actor.
        node: NodeId,
        /// Milliseconds since it could have started.
        waited_ms: u64,
    },
    /// The only node that could take over sends no reports. Start its agent, or mend its network.
    CandidateSilent {
        /// The node.
        node: NodeId,
        /// Milliseconds since its last report; `None`: never.
        silent_ms: Option<u64>,
    },
    /// The only node that could take over may lack acknowledged writes. An automatic takeover would lose them. Bring the
    /// last holder back; or, if it is lost for good, `baton takeover --accept-data-loss`.
    CandidateNotInSync {
        /// The node.
        node: NodeId,
        /// By how much, as far as is known.
        behind: String,
    },
    /// An operator has accepted what the node that takes over may lack: `baton takeover --accept-data-loss`. The last holder,
    /// when it comes back, has writes that nobody else has.
    LossAccepted {
        /// The node.
        node: NodeId,
        /// Who accepted it.
        by: String,
        /// What may be lost, as far as is known.
        loss: String,
    },
    /// An operator has accepted a loss, but the leader finds that more may be lost, or does not know how much. Nothing is
    /// started. Accept more, or `any`, or bring the last holder back.
    LossTooLarge {
        /// The node.
        node: NodeId,
        /// What was accepted: writes of so many milliseconds.
        at_most_ms: u64,
        /// What may be lost, as far as is known.
        loss: String,
    },
    /// The database of the node that could take over was restarted, or its replication threads were, after it was last
    /// seen in sync. It may have thrown received transactions away. Bring the last holder back; or, if it is lost for good,
    /// `baton takeover --accept-data-loss`.
    CandidateRestarted {
        /// The node.
        node: NodeId,
        /// Start identity in the ledger.
        ledger: String,
        /// Start identity now.
        now: String,
    },
    /// The only node that could take over has something that stands in the way. Each obstacle is a code of this page; mend it
    /// there.
    CandidateUnfit {
        /// The node.
        node: NodeId,
        /// What stands in the way.
        obstacles: Vec<String>,
    },
    /// Takeovers to this node failed repeatedly within a short time. The next automatic attempt waits.
    AntiFlap {
        /// The node.
        node: NodeId,
        /// Number of failed attempts.
        failed: u32,
        /// Milliseconds until the next attempt.
        left_ms: u64,
    },
    /// This agent was stopped or had no processor for a while, so it does not judge others yet.
    OwnGap {
        /// Length of the gap in milliseconds.
        gap_ms: u64,
        /// Milliseconds of regular ticks still wanted.
        left_ms: u64,
    },
    /// The baton goes to this node.
    Candidate {
        /// The node.
        node: NodeId,
    },
    /// This node does not hold the baton: no VIP, ports closed, databases read-only, services of the holder stopped.
    NotHolder,
    /// This node holds the baton and its lease is valid: everything is open.
    Serving {
        /// The epoch.
        epoch: Epoch,
    },
    /// This node holds the baton, but the run that gave it has not reached the opening yet.
    NotOpenedYet {
        /// The run.
        run: RunId,
    },
    /// This node passes the baton in a switchover: its ports are closed and its databases accept no writes. It opens again if
    /// the run fails before its point of no return.
    HandingOver {
        /// The run.
        run: RunId,
    },
    /// This node gets the baton in a switchover: the steps act on its databases, and nothing is open yet.
    ReceivingBaton {
        /// The run.
        run: RunId,
    },
    /// This node holds the baton but its lease has ended: the kernel has closed it, and clients are reset.
    LeaseLapsed {
        /// The epoch.
        epoch: Epoch,
    },
    /// The local MySQL's process has ended. Start it; its own log says why it ended.
    MysqlDead,
    /// The local MySQL takes connections and gives no answer. Look for a disk that hangs, or a machine without memory; end it if
    /// it does not come back.
    MysqlHung,
    /// The local MySQL answers reads, but a write does not end. Look for a full or hanging disk, and for a global lock
    /// (`SHOW PROCESSLIST`).
    MysqlWriteStalled,
    /// The local MySQL refuses the agent's credentials. Never taken for a dead server. Set the account's password again to what
    /// `mysql.password_file` says, or the file to what the account has, and restart the agent.
    MysqlWrongCredentials,
    /// The local MySQL has no connection left for the agent. Never taken for a dead server. Raise `max_connections` or end
    /// sessions; with CONNECTION ADMIN the agent has one in reserve.
    MysqlTooManyConnections,
    /// The local MySQL was started writable. It gets no lease: set `read_only=1` in its configuration and restart it.
    MysqlBootsWritable,
    /// The semi-sync counters or variables moved while the ledger says 'in sync'. The ports are closed until the ledger says
    /// 'out of sync', mostly for some milliseconds. If it comes again: somebody switches semi-sync, or another semi-sync replica
    /// is attached; find them. If it stays: there is no quorum, or the database has not been seen since the agent started.
    SemiSyncBroken {
        /// What moved.
        detail: String,
    },
    /// The local Redis does not answer. Start it, or look at its log.
    RedisDown {
        /// How it failed.
        detail: String,
    },
    /// The local Redis came back without data while the other node has it. It is not made the primary: its replica would
    /// be wiped. The baton goes to the other node if that is fit; this Redis then gets its data back as a replica. Find out
    /// why it was empty: `appendonly`, or a removed file.
    RedisEmpty {
        /// Number of keys at the other node.
        keys: u64,
    },
    /// The data disk is full. Make room; the databases go on by themselves.
    DiskFull {
        /// Free bytes left.
        free_bytes: u64,
    },
    /// The data disk is read-only. The kernel's log says why; mend or replace it.
    DiskReadOnly,
    /// A write on the data disk does not end. The kernel's log says which device hangs.
    DiskStalled,
    /// The interface that bears the VIP has no carrier. Cable, port, switch.
    LinkDown {
        /// Interface.
        interface: String,
    },
    /// The clients' gateway does not answer this node, and answers the other one. Cable, port, switch, VLAN of this node.
    GatewayLost {
        /// Its address.
        address: String,
    },
    /// Another program takes the VIP away and it cannot be restored. Find it (`ip monitor address`): keepalived, networkd, a
    /// script.
    VipLost {
        /// What was tried.
        detail: String,
    },
    /// A role-bound service that was healthy in this epoch is gone after its own restarts. The baton is passed on for it at
    /// most once: an epoch that began because of a service is not given up because of one.
    ServiceDown {
        /// Name.
        name: String,
        /// Its state.
        state: String,
    },
    /// Commits wait for the replica's acknowledgement; that is not a hung database, so the lease is not given back.
    CommitsWaitForReplica {
        /// Sessions that wait.
        waiting: u64,
    },
    /// The other node would not be better: nothing is released.
    OtherNotBetter {
        /// What the other node lacks.
        because: String,
    },
    /// An operator has paused: nobody takes over and nothing is given back, whatever happens to the holder or its databases.
    /// `baton resume` ends it; it ends by itself when its time is up.
    Paused {
        /// Which pause.
        pause: PauseId,
        /// Who ordered it.
        by: String,
        /// Why, in the operator's words.
        reason: String,
    },
    /// An operator has ended the pause, but the holder has not confirmed that it lives on short lifetimes again: it may serve
    /// until the longest that it was given has ended. Start its agent, or mend its network; or wait.
    PauseNotConfirmed {
        /// Which pause.
        pause: PauseId,
        /// Milliseconds until nobody needs to be asked; `None`: not known here.
        left_ms: Option<u64>,
    },
    /// The pause is over for everybody, whatever the holder's clock says: the leader has waited for all of it, with the
    /// margin.
    PauseOver {
        /// Which pause.
        pause: PauseId,
    },
}

impl Why {
    /// Says that the holder is, or may be, lost.
    #[must_use]
    pub const fn is_suspicion(&self) -> bool {
        matches!(self, Self::LeaseNotEnded { .. } | Self::LeaseEnded { .. } | Self::HolderReleased { .. })
    }

    /// The holder gave its lease back because a role-bound service was gone.
    #[must_use]
    pub fn is_release_for_a_service(&self) -> bool {
        matches!(self, Self::HolderReleased { because, .. } if because.starts_with("service-down"))
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::HolderHealthy { .. } => "holder-healthy",
            Self::NotLeader { .. } => "not-leader",
            Self::NoQuorum { .. } => "no-quorum",
            Self::NewLeaderWaits { .. } => "new-leader-waits",
            Self::ColdStart { .. } => "cold-start",
            Self::LeaseNotEnded { .. } => "lease-not-ended",
            Self::LeaseEnded { .. } => "lease-ended",
            Self::HolderReleased { .. } => "holder-released",
            Self::Vacant => "vacant",
            Self::RunInProgress { .. } => "run-in-progress",
            Self::RunNeedsOperator { .. } => "run-needs-operator",
            Self::ActorAway { .. } => "actor-away",
            Self::StepOverdue { .. } => "step-overdue",
            Self::CandidateSilent { .. } => "candidate-silent",
            Self::CandidateNotInSync { .. } => "candidate-not-in-sync",
            Self::LossAccepted { .. } => "loss-accepted",
            Self::LossTooLarge { .. } => "loss-too-large",
            Self::CandidateRestarted { .. } => "candidate-restarted",
            Self::CandidateUnfit { .. } => "candidate-unfit",
            Self::AntiFlap { .. } => "anti-flap",
            Self::OwnGap { .. } => "own-gap",
            Self::Candidate { .. } => "candidate",
            Self::NotHolder => "not-holder",
            Self::Serving { .. } => "serving",
            Self::NotOpenedYet { .. } => "not-opened-yet",
            Self::HandingOver { .. } => "handing-over",
            Self::ReceivingBaton { .. } => "receiving-baton",
            Self::LeaseLapsed { .. } => "lease-lapsed",
            Self::MysqlDead => "mysql-dead",
            Self::MysqlHung => "mysql-hung",
            Self::MysqlWriteStalled => "mysql-write-stalled",
            Self::MysqlWrongCredentials => "mysql-wrong-credentials",
            Self::MysqlTooManyConnections => "mysql-too-many-connections",
            Self::MysqlBootsWritable => "mysql-boots-writable",
            Self::SemiSyncBroken { .. } => "semi-sync-broken",
            Self::RedisDown { .. } => "redis-down",
            Self::RedisEmpty { .. } => "redis-empty",
            Self::DiskFull { .. } => "disk-full",
            Self::DiskReadOnly => "disk-read-only",
            Self::DiskStalled => "disk-stalled",
            Self::LinkDown { .. } => "link-down",
            Self::GatewayLost { .. } => "gateway-lost",
            Self::VipLost { .. } => "vip-lost",
            Self::ServiceDown { .. } => "service-down",
            Self::CommitsWaitForReplica { .. } => "commits-wait-for-replica",
            Self::OtherNotBetter { .. } => "other-not-better",
            Self::Paused { .. } => "paused",
            Self::PauseNotConfirmed { .. } => "pause-not-confirmed",
            Self::PauseOver { .. } => "pause-over",
        }
    }
}

fn ago(ms: Option<u64>) -> String {
    ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms ago"))
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())?;
        match self {
            Self::HolderHealthy { holder, granted_ms_ago } => {
                write!(f, ": {holder}, granted {granted_ms_ago} ms ago")
            }
            Self::NotLeader { leader: Some(leader) } => write!(f, ": {leader} leads"),
            Self::NotLeader { leader: None } => write!(f, ": no leader known"),
            Self::NoQuorum { acknowledged_ms_ago } => {
                write!(f, ": last acknowledged {}", ago(*acknowledged_ms_ago))
            }
            Self::NewLeaderWaits { left_ms } => write!(f, ": {left_ms} ms left"),
            Self::ColdStart { holder, left_ms } => write!(f, ": {holder} is waited for, {left_ms} ms left"),
            Self::LeaseNotEnded { epoch, left_ms } => write!(f, ": epoch {epoch}, {left_ms} ms left"),
            Self::LeaseEnded { epoch, ended_ms_ago } => write!(f, ": epoch {epoch}, {ended_ms_ago} ms ago"),
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
            Self::SemiSyncBroken { detail } | Self::RedisDown { detail } | Self::VipLost { detail } => {
                write!(f, ": {detail}")
            }
            Self::RedisEmpty { keys } => write!(f, ": {keys} keys at the other node"),
            Self::DiskFull { free_bytes } => write!(f, ": {free_bytes} bytes free"),
            Self::LinkDown { interface } => write!(f, ": {interface}"),
            Self::GatewayLost { address } => write!(f, ": {address}"),
            Self::ServiceDown { name, state } => write!(f, ": {name} is {state}"),
            Self::CommitsWaitForReplica { waiting } => write!(f, ": {waiting} sessions"),
            Self::OtherNotBetter { because } => write!(f, ": {because}"),
            Self::Paused { pause, by, reason } => write!(f, ": pause {pause}, by {by}: {reason}"),
            Self::PauseNotConfirmed { pause, left_ms: Some(ms) } => {
                write!(f, ": pause {pause}, {ms} ms left")
            }
            Self::PauseNotConfirmed { pause, left_ms: None } | Self::PauseOver { pause } => {
                write!(f, ": pause {pause}")
            }
            Self::Vacant
            | Self::NotHolder
            | Self::MysqlDead
            | Self::MysqlHung
            | Self::MysqlWriteStalled
            | Self::MysqlWrongCredentials
            | Self::MysqlTooManyConnections
            | Self::MysqlBootsWritable
            | Self::DiskReadOnly
            | Self::DiskStalled => Ok(()),
        }
    }
}
