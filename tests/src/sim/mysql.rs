//! One fake MariaDB: transaction sets, a relay log that a restart throws away, semi-sync with the longest time-out.

use std::fmt::Write as _;

use baton_runbooks::model::Instance;
use baton_runbooks::observe::{Flavour, MysqlFacts, ReplicationFacts, SemiSyncFacts};

/// Room for a position: probes are many, and each one says it.
const POSITION_LEN: usize = 16;

/// A transaction: who wrote it first, and its number there, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tx {
    /// A stretch in which one server was open for writing.
    pub origin: usize,
    /// Number within the stretch.
    pub number: u32,
}

/// A set of transactions. Replication keeps the order, so a set is a number per origin: it has everything up to there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxSet(Vec<u32>);

impl TxSet {
    /// The highest number of an origin.
    pub fn upto(&self, origin: usize) -> u32 {
        self.0.get(origin).copied().unwrap_or(0)
    }

    /// Adds a transaction and everything before it.
    pub fn add(&mut self, tx: Tx) {
        if self.0.len() <= tx.origin {
            self.0.resize(tx.origin + 1, 0);
        }
        self.0[tx.origin] = self.0[tx.origin].max(tx.number);
    }

    /// The transaction is in the set.
    pub fn has(&self, tx: Tx) -> bool {
        self.upto(tx.origin) >= tx.number
    }

    /// Number of transactions of `other` that are not here.
    pub fn missing(&self, other: &Self) -> u32 {
        other.0.iter().enumerate().map(|(origin, n)| n.saturating_sub(self.upto(origin))).sum()
    }

    /// What both have.
    pub fn meet(&self, other: &Self) -> Self {
        Self(self.0.iter().enumerate().map(|(origin, n)| (*n).min(other.upto(origin))).collect())
    }

    /// Takes everything that `other` has.
    pub fn join(&mut self, other: &Self) {
        for (origin, number) in other.0.iter().enumerate() {
            self.add(Tx { origin, number: *number });
        }
    }

    /// Number of transactions.
    pub fn len(&self) -> u32 {
        self.0.iter().sum()
    }

    /// As a step's fact in a journal.
    pub fn to_fact(&self) -> String {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        numbers.join(",")
    }

    /// From a step's fact.
    pub fn from_fact(fact: &str) -> Self {
        Self(fact.split(',').filter_map(|number| number.parse().ok()).collect())
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A commit that waits for the replica's acknowledgement.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Which.
    pub tx: Tx,
    /// It is this canary; `None`: of a client, or of a job.
    pub canary: Option<u64>,
    /// A client behind the VIP waits for its end.
    pub client: bool,
    /// When it began to wait.
    pub since: u64,
}

/// The server.
#[derive(Debug, Clone)]
pub struct Mysql {
    /// What the ledger vouches for, as the starts make it.
    identity: Instance,
    /// Number of its starts.
    pub starts: u64,
    /// Number of starts of its replication threads.
    pub threads: u64,
    /// The process runs.
    pub up: bool,
    /// It answers nothing until then.
    pub frozen_until: u64,
    /// The applier stands still until then.
    pub applier_stopped_until: u64,
    /// Ordinary accounts cannot write.
    pub read_only: bool,
    /// Transactions in its own log.
    pub executed: TxSet,
    /// Transactions in its relay log or applied from it.
    pub received: TxSet,
    /// The newest canary that is applied.
    pub canary: u64,
    /// The newest canary that was received.
    pub received_canary: u64,
    /// The node that it follows.
    pub follows: Option<usize>,
    /// The receiving thread was started.
    pub io_started: bool,
    /// The applying thread runs.
    pub sql_running: bool,
    /// The kernel drops its replication stream.
    pub cut: bool,
    /// The receiving thread is connected.
    pub connected: bool,
    /// Semi-sync's source side is on.
    pub source: bool,
    /// Commits that the replica acknowledged.
    pub yes_tx: u64,
    /// Commits that went on without it.
    pub no_tx: u64,
    /// Semi-sync replicas attached.
    pub clients: u64,
    /// Commits that wait.
    pub waiting: Vec<Waiting>,
    /// The stretch in which it is open for writing.
    pub origin: Option<usize>,
}

/// A server that was just started, as every start leaves it.
impl Default for Mysql {
    fn default() -> Self {
        let mut db = Self {
            identity: Instance { boot: String::new(), server: String::new(), threads: String::new() },
            starts: 1,
            threads: 1,
            up: true,
            frozen_until: 0,
            applier_stopped_until: 0,
            read_only: true,
            executed: TxSet::default(),
            received: TxSet::default(),
            canary: 0,
            received_canary: 0,
            follows: None,
            io_started: false,
            sql_running: false,
            cut: false,
            connected: false,
            source: false,
            yes_tx: 0,
            no_tx: 0,
            clients: 0,
            waiting: Vec::new(),
            origin: None,
        };
        db.identify();
        db
    }
}

impl Mysql {
    /// The process ends. Nobody hears of the commits that wait.
    pub fn stop(&mut self) {
        self.up = false;
        self.connected = false;
        self.waiting.clear();
    }

    /// Boots read-only, with semi-sync off and replication stopped; what was received and not applied is gone.
    pub fn start(&mut self) {
        self.starts += 1;
        self.new_threads();
        self.up = true;
        self.frozen_until = 0;
        self.applier_stopped_until = 0;
        self.read_only = true;
        self.origin = None;
        self.throw_relay_log_away();
        self.source = false;
        self.yes_tx = 0;
        self.no_tx = 0;
    }

    /// Somebody restarted the replication threads.
    pub fn restart_threads(&mut self) {
        if self.up && self.follows.is_some() {
            self.new_threads();
            self.throw_relay_log_away();
            (self.io_started, self.sql_running) = (true, true);
        }
    }

    fn throw_relay_log_away(&mut self) {
        self.received = self.executed.clone();
        self.received_canary = self.canary;
        (self.io_started, self.sql_running) = (false, false);
    }

    /// Applies everything that was received.
    pub fn drain(&mut self) {
        self.executed.join(&self.received);
        self.canary = self.canary.max(self.received_canary);
    }

    /// Follows `other` from where its own log ends.
    pub fn follow(&mut self, other: usize) {
        self.received.join(&self.executed);
        self.received_canary = self.received_canary.max(self.canary);
        self.follows = Some(other);
        (self.io_started, self.sql_running) = (true, true);
        self.new_threads();
        self.source = false;
        self.cut = false;
    }

    /// Everything it had is thrown away for a copy of `other`: a resync.
    pub fn copy(&mut self, other: &Self) {
        self.executed = other.executed.clone();
        self.received = other.executed.clone();
        self.canary = other.canary;
        self.received_canary = other.canary;
        self.waiting.clear();
        self.follows = None;
        self.starts += 1;
        self.new_threads();
    }

    /// The source that a promoted server had is forgotten. Not before it serves: until then it may be closed again.
    pub fn detach(&mut self) {
        if self.follows.take().is_some() {
            self.new_threads();
            (self.io_started, self.sql_running) = (false, false);
        }
    }

    /// It answers queries.
    pub const fn answers(&self, at: u64) -> bool {
        self.up && at >= self.frozen_until
    }

    /// `pid@ticks` of the process.
    pub fn server(&self) -> String {
        format!("{}@1", self.starts)
    }

    /// What the ledger vouches for.
    pub const fn instance(&self) -> &Instance {
        &self.identity
    }

    /// The replication threads were started, or stopped for good: another identity.
    pub fn new_threads(&mut self) {
        self.threads += 1;
        self.identify();
    }

    /// Writable from now on, in a stretch of its own.
    pub fn open(&mut self, origin: usize) {
        self.read_only = false;
        self.origin = Some(origin);
    }

    fn identify(&mut self) {
        self.identity.server = self.server();
        self.identity.threads = format!("{0}/{0}", self.threads);
    }

    /// What a probe sees.
    pub fn facts(&self, node: usize) -> MysqlFacts {
        let replication = self.follows.map(|source| ReplicationFacts {
            source_host: address(source).to_owned(),
            source_port: 3306,
            io_running: self.connected,
            receiver_alive: self.io_started,
            sql_running: self.sql_running,
            io_errno: 0,
            sql_errno: 0,
            error: String::new(),
            received: String::new(),
        });
        let mut position = String::with_capacity(POSITION_LEN);
        // A string takes whatever is written to it.
        let _ = write!(position, "0-{node}-{}", self.executed.len());
        MysqlFacts {
            flavour: Flavour::Mariadb,
            version: String::new(),
            instance: self.identity.clone(),
            read_only: self.read_only,
            executed: String::new(),
            position,
            replication,
            semi_sync: SemiSyncFacts {
                source_enabled: self.source,
                replica_enabled: true,
                source_on: self.source,
                replica_on: self.connected,
                clients: self.clients,
                waiting: self.waiting.len() as u64,
                yes_tx: self.yes_tx,
                no_tx: self.no_tx,
                variables_as_wanted: true,
            },
            canary_applied: self.canary,
            apply_backlog: Some(u64::from(self.executed.missing(&self.received))),
            sessions: 1,
        }
    }
}

/// The address under which a replica follows a node.
pub const fn address(node: usize) -> &'static str {
    match node {
        0 => "10.0.0.1",
        1 => "10.0.0.2",
        _ => "10.0.0.3",
    }
}
