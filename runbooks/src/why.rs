//! Why: stable codes with evidence, attached to every decision, also to 'hold'.
//!
//! The doc comment of each variant is the operator's page on that code; `docs/why.md` is made from it and a test keeps
//! the two together. Codes are for ever: a code that is no longer produced stays reserved.

mod newer;
mod obstacle;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Epoch, NodeId, PauseId, RunId};
pub use newer::Newer;
pub use obstacle::Obstacle;

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
    /// A node is not heard by some, or by all that speak. One that only some do not hear is alive: look at the network between
    /// those. It is evidence, not a reason: what counts is whether its lease can be renewed.
    Unreachable {
        /// The node.
        node: NodeId,
        /// By whom it is not heard, each with milliseconds since the last time; `None`: never.
        from: BTreeMap<NodeId, Option<u64>>,
        /// By whom it is heard.
        heard_by: Vec<NodeId>,
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
    /// The only node that could take over has something that stands in the way. Each obstacle is a code of this page, or one of
    /// its table of obstacles without a code; mend it there.
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
    /// Nothing listens where the local MySQL should: it was not started, it listens elsewhere, or it has just ended. Look for its
    /// process and at `mysql.socket`.
    MysqlRefusing,
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
    /// The local MySQL was found writable, and no agent had opened it: it was started so, or somebody opened it by hand. It gets
    /// no lease: set `read_only=1` in its configuration and restart it.
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
    /// The local Redis was a primary that took writes when the agent first saw its process, and no agent had made it one: its
    /// configuration starts it so, or somebody opened it before the agent saw it. Such a Redis takes writes of local clients before
    /// anybody has decided who holds the baton, and one that boots empty wipes a replica that still follows it. It is closed, and
    /// gets no lease. A holder whose Redis is restarted so while it serves goes on, and gets none the next time. Write
    /// `replicaof 127.0.0.1 1` (or the peer's address and port) and `min-replicas-to-write 99` into `redis.conf`, then restart
    /// Redis: what counts is how the new process is found. If this node serves, `baton switchover` first.
    RedisBootsOpen,
    /// The local Redis came back without data while the other node has it. It is not made the primary: its replica would
    /// be wiped. The baton goes to the other node if that is fit; this Redis then gets its data back as a replica. Find out
    /// why it was empty: `appendonly`, or a removed file.
    RedisEmpty {
        /// Number of keys at the other node.
        keys: u64,
    },
    /// The holder's Redis is another process than the one that served: somebody, or its service manager, started it anew.
    /// What it had not yet saved is lost there, and its replica, which followed it to its end, has it: so the baton goes to
    /// the other node if that is fit, and this Redis follows; not again within some minutes of a takeover for this reason.
    /// Otherwise it serves with what it has, and this reason is seen for a moment only. Look into its log for why it ended.
    /// Before a planned restart: `baton switchover`.
    RedisRestarted {
        /// The process that served, as `pid@ticks`.
        was: String,
        /// The process that answers now.
        is: String,
    },
    /// The Redis of the node that takes over was not seen to follow the holder's for some time before that was last seen to take
    /// writes, or lacked writes of that age: what clients have written into Redis since is lost with the holder. It stops no
    /// takeover, since Redis replicates without waiting. Status says it before (`redis-not-following`).
    RedisBehind {
        /// The node.
        node: NodeId,
        /// Milliseconds for which it was not seen to follow, or the age of the oldest write that it lacked.
        behind_ms: u64,
        /// Bytes that it lacked when the holder last measured; `None`: the two could not be compared.
        bytes: Option<u64>,
    },
    /// The data disk is full. Make room; the databases go on by themselves.
    DiskFull {
        /// Free bytes left.
        free_bytes: u64,
    },
    /// The data disk is read-only. The kernel's log says why; mend or replace it.
    DiskReadOnly,
    /// A write on the data disk does not end, or fails. The kernel's log says which device hangs; a data directory that is missing
    /// or not mounted looks the same.
    DiskStalled,
    /// The interface that bears the VIP has no carrier. Cable, port, switch. A holder gives the baton back for it only when the
    /// carrier stays away for a quarter of the lease, or blinks until it was away for as long altogether.
    LinkDown {
        /// Interface.
        interface: String,
    },
    /// The clients' gateway does not answer this node, and answers the other one. Cable, port, switch, VLAN of this node.
    GatewayLost {
        /// Its address.
        address: String,
    },
    /// The VIP's address cannot be held: the kernel refuses it or did not refresh it in time, or another program took it away and
    /// it cannot be put back. Find that program (`ip monitor address`): keepalived, networkd, a script.
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
    /// An agent of a newer version gave a reason that this one does not know: the cluster is being upgraded. The reason stands
    /// under its own code, marked *unknown to this version*, with its evidence; ask a node of that version what it means. Finish the
    /// upgrade.
    #[serde(untagged)]
    Unknown(Newer),
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

    /// The holder gave its lease back because its Redis had been started anew.
    #[must_use]
    pub fn is_release_for_a_restarted_redis(&self) -> bool {
        matches!(self, Self::HolderReleased { because, .. } if because.starts_with("redis-restarted"))
    }

    /// The code as it came, also of a reason that this version does not know.
    #[must_use]
    pub fn own_code(&self) -> &str {
        if let Self::Unknown(newer) = self { &newer.why } else { self.code() }
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
            Self::Unreachable { .. } => "unreachable",
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
            Self::MysqlRefusing => "mysql-refusing",
            Self::MysqlHung => "mysql-hung",
            Self::MysqlWriteStalled => "mysql-write-stalled",
            Self::MysqlWrongCredentials => "mysql-wrong-credentials",
            Self::MysqlTooManyConnections => "mysql-too-many-connections",
            Self::MysqlBootsWritable => "mysql-boots-writable",
            Self::SemiSyncBroken { .. } => "semi-sync-broken",
            Self::RedisDown { .. } => "redis-down",
            Self::RedisBootsOpen => "redis-boots-open",
            Self::RedisEmpty { .. } => "redis-empty",
            Self::RedisRestarted { .. } => "redis-restarted",
            Self::RedisBehind { .. } => "redis-behind",
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
            Self::Unknown(_) => "unknown",
        }
    }
}
