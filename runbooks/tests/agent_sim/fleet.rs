//! The fake databases and the fake kernel: transaction sets with semi-sync, and doors of tickets and permits.

use std::collections::BTreeSet;

use baton_runbooks::lease::holder::Door;
use baton_runbooks::model::Instance;
use baton_runbooks::observe::{Flavour, MysqlFacts, ReplicationFacts, SemiSyncFacts};

/// Slots of the kernel's ring.
pub const SLOTS: u64 = 8;

/// Tickets and permits of one node with the real instant at which each ends.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    tickets: [[u64; SLOTS as usize]; 2],
    permits: [[u64; SLOTS as usize]; 2],
}

const fn side(door: Door) -> usize {
    match door {
        Door::Vip => 0,
        Door::Ports => 1,
    }
}

impl Gate {
    pub fn ticket(&mut self, door: Door, slot: u64, until: u64) {
        self.tickets[side(door)][slot as usize] = until;
        self.permits[side(door)][slot as usize] = 0;
    }

    pub fn permit(&mut self, door: Door, slot: u64, until: u64) {
        self.permits[side(door)][slot as usize] = until;
    }

    pub fn void(&mut self, door: Door) {
        self.tickets[side(door)] = Default::default();
        self.permits[side(door)] = Default::default();
    }

    pub fn is_open(&self, door: Door, at: u64) -> bool {
        let (tickets, permits) = (&self.tickets[side(door)], &self.permits[side(door)]);
        tickets.iter().zip(permits).any(|(ticket, permit)| at < *ticket && at < *permit)
    }
}

/// A commit that waits for the replica's acknowledgement.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub tx: u64,
    pub canary: Option<u64>,
}

/// One MariaDB: its relay log is thrown away when it restarts.
#[derive(Debug, Clone)]
pub struct Mysql {
    pub starts: u64,
    pub threads: u64,
    pub up: bool,
    pub frozen_until: u64,
    pub read_only: bool,
    pub executed: BTreeSet<u64>,
    pub received: BTreeSet<u64>,
    pub canary: u64,
    pub received_canary: u64,
    /// Index of the node that it follows.
    pub follows: Option<usize>,
    pub sql_running: bool,
    pub cut: bool,
    pub connected: bool,
    pub source: bool,
    pub yes_tx: u64,
    pub no_tx: u64,
    pub clients: u64,
    pub waiting: Vec<Waiting>,
}

impl Mysql {
    pub fn new() -> Self {
        Self {
            starts: 1,
            threads: 1,
            up: true,
            frozen_until: 0,
            read_only: true,
            executed: BTreeSet::new(),
            received: BTreeSet::new(),
            canary: 0,
            received_canary: 0,
            follows: None,
            sql_running: false,
            cut: false,
            connected: false,
            source: false,
            yes_tx: 0,
            no_tx: 0,
            clients: 0,
            waiting: Vec::new(),
        }
    }

    pub fn stop(&mut self) {
        self.up = false;
        self.connected = false;
        self.waiting.clear();
    }

    /// Boots read-only, with semi-sync off and replication stopped; what was received and not applied is gone.
    pub fn start(&mut self) {
        self.starts += 1;
        self.threads += 1;
        self.up = true;
        self.frozen_until = 0;
        self.read_only = true;
        self.received = self.executed.clone();
        self.received_canary = self.canary;
        self.follows = None;
        self.sql_running = false;
        self.cut = false;
        self.source = false;
        self.yes_tx = 0;
        self.no_tx = 0;
    }

    pub fn answers(&self, at: u64) -> bool {
        self.up && at >= self.frozen_until
    }

    pub fn server(&self) -> String {
        format!("{}@1", self.starts)
    }

    pub fn instance(&self) -> Instance {
        Instance { boot: "boot".into(), server: self.server(), threads: format!("{0}/{0}", self.threads) }
    }

    pub fn facts(&self, node: usize) -> MysqlFacts {
        let replication = self.follows.map(|source| ReplicationFacts {
            source_host: address(source),
            source_port: 3306,
            io_running: self.connected,
            sql_running: self.sql_running,
            io_errno: 0,
            sql_errno: 0,
            error: String::new(),
            received: format!("0-{node}-{}", self.received.len()),
        });
        MysqlFacts {
            flavour: Flavour::Mariadb,
            version: "10.11".into(),
            instance: self.instance(),
            read_only: self.read_only,
            executed: format!("0-{node}-{}", self.executed.len()),
            position: format!("0-{node}-{}", self.executed.len()),
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
            apply_backlog: Some((self.received.len() - self.executed.len().min(self.received.len())) as u64),
            sessions: 1,
        }
    }
}

/// The address under which a replica follows a node.
pub fn address(node: usize) -> String {
    format!("10.0.0.{}", node + 1)
}
