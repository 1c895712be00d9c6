//! Observations: what a probe saw, at one moment, on one node. The first word of the pipeline
//! *observation → verdict → decision → plan → run → step*.
//!
//! An observation carries facts or the way in which the probe failed; it never says what the facts mean.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::exposure::Exposure;
use crate::model::{Epoch, Generation, Instance, Mono, NodeId, PauseId};

/// How a probe failed. Each is a different verdict: only some of them mean that the target is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "failure")]
pub enum ProbeFailure {
    /// The operating system refused the connection: nothing listens.
    Refused,
    /// No answer from the application within the probe's deadline. The kernel may well have accepted the connection.
    Timeout {
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// The server answered that it has no connection left (MySQL 1040). Never means dead.
    TooManyConnections,
    /// The server refused the credentials (MySQL 1045, Redis NOAUTH/WRONGPASS). Never means dead.
    WrongCredentials {
        /// The server's own words.
        message: String,
    },
    /// The server answered with another error.
    Error {
        /// The server's or the driver's own words.
        message: String,
    },
}

/// Which server family speaks. Differences live in one place of the node crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// MariaDB 10.6 and later.
    Mariadb,
    /// MySQL 8.0.26 and later.
    Mysql,
}

/// State of a replica's two threads and of its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationFacts {
    /// Host that the replica is configured to follow.
    pub source_host: String,
    /// Port that the replica is configured to follow.
    pub source_port: u16,
    /// The receiving thread is connected and running.
    pub io_running: bool,
    /// The receiving thread exists, connected or not. One that gave up on its source has to be started again.
    #[serde(default)]
    pub receiver_alive: bool,
    /// The applying thread is running.
    pub sql_running: bool,
    /// Last error number of the receiving thread, 0 for none.
    pub io_errno: u32,
    /// Last error number of the applying thread, 0 for none.
    pub sql_errno: u32,
    /// The server's words for the newer of the two errors.
    pub error: String,
    /// Transaction set received from the primary, in the flavour's own notation.
    pub received: String,
}

/// Counters and state of semi-synchronous replication on this server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemiSyncFacts {
    /// The source side is switched on.
    pub source_enabled: bool,
    /// The replica side is switched on.
    pub replica_enabled: bool,
    /// The source side's status is ON: commits wait for an acknowledgement.
    pub source_on: bool,
    /// The replica side's status is ON.
    pub replica_on: bool,
    /// Number of semi-sync replicas attached.
    pub clients: u64,
    /// Sessions that wait for an acknowledgement at this moment.
    pub waiting: u64,
    /// Commits acknowledged by the replica since the server's start.
    pub yes_tx: u64,
    /// Commits *not* acknowledged by the replica since the server's start. Must not move while in sync.
    pub no_tx: u64,
    /// Wait point AFTER_SYNC, wait without a replica ON, and the longest time-out: as the design's section 6 wants them.
    pub variables_as_wanted: bool,
}

/// What the probe of the local MySQL or MariaDB saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MysqlFacts {
    /// Server family.
    pub flavour: Flavour,
    /// Server version as it calls itself.
    pub version: String,
    /// Start identity of the server and its replication threads.
    pub instance: Instance,
    /// The server refuses writes of ordinary accounts (`super_read_only` on MySQL, `read_only` on MariaDB).
    pub read_only: bool,
    /// Transaction set executed here (`gtid_binlog_state` on MariaDB, `gtid_executed` on MySQL).
    pub executed: String,
    /// Newest position, as `baton` prints it (`gtid_current_pos` on MariaDB, `gtid_executed` on MySQL).
    pub position: String,
    /// Replication from a primary, if configured.
    pub replication: Option<ReplicationFacts>,
    /// Semi-sync state.
    pub semi_sync: SemiSyncFacts,
    /// Value of the newest canary that this server has applied (0: none).
    pub canary_applied: u64,
    /// Transactions received and not yet applied; `None` when the server cannot tell.
    pub apply_backlog: Option<u64>,
    /// Sessions of ordinary clients.
    pub sessions: u64,
}

/// What the probe of the local Redis saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisFacts {
    /// Process id and start time of the server, as `pid@ticks`.
    pub server: String,
    /// True for a primary.
    pub primary: bool,
    /// The dataset is still being loaded: alive, but not serving.
    pub loading: bool,
    /// The replica's link to its primary is up.
    pub link_up: bool,
    /// `host:port` that a replica follows.
    pub follows: Option<String>,
    /// Replication offset in bytes: written on a primary, processed on a replica.
    pub offset: u64,
    /// Number of keys over all databases.
    pub keys: u64,
    /// `min-replicas-to-write`: 0 lets clients write.
    pub min_replicas_to_write: u64,
}

impl RedisFacts {
    /// A primary that takes writes.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.primary && self.min_replicas_to_write == 0
    }
}

/// How a process of the local Redis was found when an agent of this node first saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisBoot {
    /// The process, as `pid@ticks`.
    pub server: String,
    /// It was open, and no agent had opened it.
    pub open: bool,
}

impl RedisBoot {
    /// The judgement of the process that these facts are of. Each is judged once: what was `known` of it stays, whatever became of
    /// it since.
    #[must_use]
    pub fn of(known: Option<Self>, facts: &RedisFacts) -> Self {
        known
            .filter(|known| known.server == facts.server)
            .unwrap_or_else(|| Self { server: facts.server.clone(), open: facts.is_open() })
    }
}

/// What the write probe of the data directory's disk saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Free bytes for unprivileged writers; 0 when the disk refused a write for want of room. `None` while nobody knows: no look
    /// has ended yet, or the file system could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// The file system is mounted read-only or refused a write with EROFS.
    pub read_only: bool,
    /// Time that a small write with fsync took, in milliseconds; `None` when it did not end well within its deadline.
    pub sync_ms: Option<u64>,
}

/// State of one role-bound service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum ServiceState {
    /// Runs, and its health check (if it has one) passes.
    Healthy,
    /// Runs, health not known yet.
    Starting,
    /// Runs, health check fails.
    Unhealthy {
        /// Last output of the health check.
        detail: String,
    },
    /// Exists and does not run.
    Stopped,
    /// Does not exist on this node.
    Missing,
    /// The engine did not answer. Unknown is never stopped.
    Unknown {
        /// Why the engine could not be asked.
        detail: String,
    },
}

/// One thing that a probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "observed")]
pub enum Observation {
    /// The local MySQL or MariaDB answered.
    Mysql {
        /// The answer.
        #[serde(with = "crate::shared")]
        facts: Arc<MysqlFacts>,
    },
    /// The local MySQL or MariaDB did not answer as it should.
    MysqlFailed {
        /// How the probe failed.
        failure: ProbeFailure,
    },
    /// The unbinlogged local write probe ended well.
    MysqlWrote {
        /// Duration in milliseconds.
        took_ms: u64,
    },
    /// The unbinlogged local write probe failed.
    MysqlWriteFailed {
        /// How the probe failed.
        failure: ProbeFailure,
    },
    /// The server process ended (pidfd).
    MysqlExited {
        /// Process id and start time of the process that ended.
        server: String,
    },
    /// The local Redis answered.
    Redis {
        /// The answer.
        facts: RedisFacts,
    },
    /// The local Redis did not answer as it should.
    RedisFailed {
        /// How the probe failed.
        failure: ProbeFailure,
    },
    /// The data disk was probed.
    Disk {
        /// What the probe saw.
        facts: DiskFacts,
    },
    /// A role-bound service was looked at.
    Service {
        /// Name in the configuration.
        name: String,
        /// Its state.
        state: ServiceState,
    },
    /// Carrier of the interface that bears the VIP.
    Link {
        /// Interface name.
        interface: String,
        /// Carrier is present.
        up: bool,
    },
    /// The clients' gateway was asked for its hardware address.
    Gateway {
        /// Its address.
        address: String,
        /// It answered.
        reachable: bool,
    },
    /// A refresh of the VIP's address failed. The kernel may still have it.
    VipUnheld {
        /// What was tried and what the kernel said.
        detail: String,
        /// Milliseconds for which the kernel keeps the address if no refresh goes well; 0: it is gone.
        left_ms: u64,
    },
    /// The VIP's address was refreshed, after refreshes that had failed.
    VipHeld,
    /// The VIP's address cannot be restored: the kernel refuses it.
    VipUnrestorable {
        /// What was tried and what the kernel said.
        detail: String,
    },
    /// The agent itself had no processor, or was stopped, for this long.
    OwnGap {
        /// Length in milliseconds.
        gap_ms: u64,
    },
}

/// What one node says of itself to the others, several times a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Who reports.
    pub node: NodeId,
    /// The highest epoch that this node has seen.
    pub epoch: Epoch,
    /// Raft log index that this node has applied.
    pub applied: u64,
    /// Newest facts of the local MySQL; `None` when unknown or not configured.
    #[serde(default, with = "crate::shared::option")]
    pub mysql: Option<Arc<MysqlFacts>>,
    /// Milliseconds since those facts were seen; `None`: it does not say.
    #[serde(default)]
    pub mysql_age_ms: Option<u64>,
    /// The verdict on the local MySQL, as its code.
    pub mysql_verdict: Cow<'static, str>,
    /// Newest facts of the local Redis.
    pub redis: Option<RedisFacts>,
    /// What would be lost with this node's Redis; `None`: it is not the holder's, or its replica was never seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_exposure: Option<Exposure>,
    /// The verdict on the local Redis, as its code.
    pub redis_verdict: Cow<'static, str>,
    /// The verdict on the local disk, as its code.
    pub disk_verdict: Cow<'static, str>,
    /// States of the role-bound services.
    pub services: BTreeMap<String, ServiceState>,
    /// Reasons why this node could not hold the baton at this moment; empty: it could. Each is the words of a [`crate::why::Why`],
    /// or begins with those of a [`crate::why::Obstacle`].
    pub obstacles: Vec<String>,
    /// What an operator should mend here and only this node sees: codes of alarms and reasons, each with its evidence after a colon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// Its ports are ordered open; `None`: no lease opens any here, or it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// A clients' gateway that does not answer this node.
    #[serde(default)]
    pub gateway_lost: Option<String>,
    /// Why this node is not attached, if it has transactions that the holder lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
    /// The newest resync of this node, while it runs and after it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<ResyncFacts>,
    /// The pause that it has seen and that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PausedFacts>,
    /// Generation of the ledger that it knows.
    #[serde(default)]
    pub generation: Generation,
    /// The log on which that generation was founded; empty: it is not known.
    #[serde(default)]
    pub founder: String,
    /// For each other node: milliseconds since this node last heard from it; absent: never.
    pub heard_ms: BTreeMap<NodeId, u64>,
    /// The node holds a valid lease at this moment.
    pub serving: bool,
    /// Milliseconds since this agent started; `None`: it does not say.
    #[serde(default)]
    pub up_ms: Option<u64>,
    /// Version of the agent.
    pub version: String,
    /// Hash of the configuration file.
    pub config_hash: String,
}

/// What a node says of a pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedFacts {
    /// Which.
    pub pause: PauseId,
    /// On the holder: its lifetimes in the kernel last for so many milliseconds; `None`: they are short.
    pub armed_ms: Option<u64>,
    /// On the leader: milliseconds until it takes the pause for over although the holder says nothing.
    pub over_in_ms: Option<u64>,
}

/// A data node whose database has transactions that the holder's lacks: it is kept out, since following would lose or
/// mix them up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The transactions, in the family's notation.
    pub extra: String,
    /// How many they are; before they are exported, how many at most.
    pub transactions: u64,
    /// Where they are saved; `None`: not yet.
    pub export: Option<ExportFacts>,
    /// Why they could not be saved so far.
    pub problem: Option<String>,
}

/// Where a node saved its extra transactions, and what is in there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportFacts {
    /// The file, on that node.
    pub file: String,
    /// Transactions that the binary log still had.
    pub transactions: u64,
    /// Rows changed.
    pub rows: u64,
    /// Tables with changed rows.
    pub tables: u64,
    /// Statements that are logged as text, such as DDL.
    pub statements: u64,
}

/// How far a resync is: a data node replaces its database by a copy of the holder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResyncPhase {
    /// The holder's data come in beside the old ones.
    Copying,
    /// The copy is brought to one moment, and to disk.
    Preparing,
    /// The old database is being stopped.
    Stopping,
    /// The copy takes the place of the old data, which stay beside.
    Swapping,
    /// The database is being started on the copy.
    Starting,
    /// It is told where in the holder's history it stands.
    Seeding,
    /// It follows, and is not in sync yet.
    CatchingUp,
    /// It is in sync.
    Done,
    /// It failed with the old data in place: nothing was changed.
    Failed,
    /// It failed, or was interrupted, with the old data out of place: the node stays closed until it is repeated.
    Stuck,
}

/// The newest resync of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncFacts {
    /// Tells it from an earlier one.
    pub number: u64,
    /// The node that is copied.
    pub from: NodeId,
    /// How far it is, or how it ended.
    pub phase: ResyncPhase,
    /// Bytes that have come in.
    pub bytes: u64,
    /// About as many are expected.
    pub bytes_expected: u64,
    /// Milliseconds since it was begun, or that it took.
    pub took_ms: u64,
    /// Why it failed, or what is to be known of its end.
    pub note: Option<String>,
}

/// An observation with the instant at which its probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// When the probe ended, on the observing node's clock.
    pub at: Mono,
    /// What it saw.
    pub observation: Observation,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recordings outlive the agent that wrote them.
    #[test]
    fn facts_of_a_disk_are_read_as_earlier_versions_wrote_them() {
        let text = r#"{"free_bytes":12,"read_only":false,"sync_ms":null}"#;
        let known = DiskFacts { free_bytes: Some(12), read_only: false, sync_ms: None };
        assert_eq!(serde_json::from_str::<DiskFacts>(text).unwrap(), known);
        let unknown = DiskFacts { free_bytes: None, ..known };
        let text = serde_json::to_string(&unknown).unwrap();
        assert_eq!(serde_json::from_str::<DiskFacts>(&text).unwrap(), unknown);
    }
}
