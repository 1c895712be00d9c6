//! How each family speaks of replicas: their status, their threads, their source.

use std::fmt::Write as _;

use baton_runbooks::observe::Flavour;

use super::quote;

/// Column names of the replication status.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaColumns {
    /// Host of the source.
    pub host: &'static str,
    /// Port of the source.
    pub port: &'static str,
    /// State of the receiving thread: Yes, No, Connecting or Preparing.
    pub io: &'static str,
    /// State of the applying thread.
    pub sql: &'static str,
    /// Received transactions.
    pub received: &'static str,
    /// Attempts to reach the source before the receiving thread ends for good; empty: not told.
    pub attempts: &'static str,
}

/// Column names of the replication status in the family's words.
#[must_use]
pub const fn replica_columns(flavour: Flavour) -> ReplicaColumns {
    match flavour {
        Flavour::Mariadb => ReplicaColumns {
            host: "Master_Host",
            port: "Master_Port",
            io: "Slave_IO_Running",
            sql: "Slave_SQL_Running",
            received: "Gtid_IO_Pos",
            attempts: "",
        },
        Flavour::Mysql => ReplicaColumns {
            host: "Source_Host",
            port: "Source_Port",
            io: "Replica_IO_Running",
            sql: "Replica_SQL_Running",
            received: "Retrieved_Gtid_Set",
            attempts: "Source_Retry_Count",
        },
    }
}

/// Replication status, and what is executed: `executed` and, on MariaDB, the positions from which to attach.
#[must_use]
pub const fn replica_status(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => {
            "SHOW SLAVE STATUS; SELECT @@global.read_only AS read_only, @@global.gtid_binlog_state AS executed, \
             @@global.gtid_binlog_pos AS binlog_pos, @@global.gtid_slave_pos AS slave_pos, \
             @@global.gtid_slave_pos AS applied, \
             (SELECT COALESCE(SUM(trx_rows_modified),0) FROM information_schema.innodb_trx) AS modified"
        }
        Flavour::Mysql => {
            "SHOW REPLICA STATUS; SELECT (@@global.super_read_only AND @@global.read_only) AS read_only, @@global.gtid_executed AS executed, \
             '' AS binlog_pos, '' AS slave_pos, @@global.gtid_executed AS applied, \
             (SELECT COALESCE(SUM(trx_rows_modified),0) FROM information_schema.innodb_trx) AS modified"
        }
    }
}

/// Waits until `set` is applied or `seconds` have passed; the column `outcome` is 0 when it is applied.
#[must_use]
pub fn wait_applied(flavour: Flavour, set: &str, seconds: f64) -> String {
    let set = quote(set);
    match flavour {
        Flavour::Mariadb => format!("SELECT MASTER_GTID_WAIT({set},{seconds}) AS outcome"),
        Flavour::Mysql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET({set},{seconds}) AS outcome"),
    }
}

/// Starts or stops replication threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Both.
    Both,
    /// The receiving thread.
    Io,
    /// The applying thread.
    Sql,
}

impl Threads {
    const fn words(self) -> &'static str {
        match self {
            Self::Both => "",
            Self::Io => " IO_THREAD",
            Self::Sql => " SQL_THREAD",
        }
    }
}

/// Starts replication threads.
#[must_use]
pub fn start(flavour: Flavour, threads: Threads) -> String {
    format!("START {}{}", replica_word(flavour), threads.words())
}

/// Stops replication threads.
#[must_use]
pub fn stop(flavour: Flavour, threads: Threads) -> String {
    format!("STOP {}{}", replica_word(flavour), threads.words())
}

/// Forgets the source. Leaves the executed set alone.
#[must_use]
pub fn forget_source(flavour: Flavour) -> String {
    format!("RESET {} ALL", replica_word(flavour))
}

const fn replica_word(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SLAVE",
        Flavour::Mysql => "REPLICA",
    }
}

/// Where a replica is to attach.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Host or address.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Replication account.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
}

/// Points a stopped replica at a source. `slave_pos` (MariaDB) is set first when it is not what it must be.
///
/// A lost source is noticed after `slave_net_timeout`, 60 s by default, whatever the heartbeat; a frozen one holds
/// `STOP SLAVE` for `kill_conn_timeout` (0 does not mean none: 24 s were measured); and MySQL 8.4 gives up for
/// good after ten attempts unless it is told otherwise.
#[must_use]
pub fn attach(flavour: Flavour, source: Source<'_>, slave_pos: Option<&str>) -> String {
    let Source { host, port, user, password } = source;
    let (host, user, password) = (quote(host), quote(user), quote(password));
    let mut sql = String::new();
    match flavour {
        Flavour::Mariadb => {
            sql.push_str(
                "SET GLOBAL slave_net_timeout=5; SET GLOBAL rpl_semi_sync_slave_kill_conn_timeout=1; ",
            );
            if let Some(pos) = slave_pos {
                let _ = write!(sql, "SET GLOBAL gtid_slave_pos={}; ", quote(pos));
            }
            let _ = write!(
                sql,
                "CHANGE MASTER TO MASTER_HOST={host}, MASTER_PORT={port}, MASTER_USER={user}, \
                 MASTER_PASSWORD={password}, MASTER_USE_GTID=slave_pos, MASTER_HEARTBEAT_PERIOD=1, \
                 MASTER_CONNECT_RETRY=1"
            );
        }
        Flavour::Mysql => {
            let _ = write!(
                sql,
                "SET GLOBAL replica_net_timeout=5; CHANGE REPLICATION SOURCE TO SOURCE_HOST={host}, \
                 SOURCE_PORT={port}, SOURCE_USER={user}, SOURCE_PASSWORD={password}, SOURCE_AUTO_POSITION=1, \
                 GET_SOURCE_PUBLIC_KEY=1, SOURCE_HEARTBEAT_PERIOD=1, SOURCE_CONNECT_RETRY=1, \
                 SOURCE_RETRY_COUNT=86400"
            );
        }
    }
    sql
}

/// So often a replica tries to reach its source, once a second, before it gives up for good.
pub const ATTEMPTS: u64 = 86_400;

/// Lets a replica whose receiving thread has ended, and whose applier runs, try for as long as [`attach`] does, without another
/// word on its source: what it received and did not apply stays. With both stopped MySQL deletes it. MariaDB takes no such word
/// beside a running applier, and tries for long by itself.
#[must_use]
pub const fn outlast(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => {
            "SET GLOBAL slave_net_timeout=5; SET GLOBAL rpl_semi_sync_slave_kill_conn_timeout=1"
        }
        Flavour::Mysql => {
            "SET GLOBAL replica_net_timeout=5; CHANGE REPLICATION SOURCE TO SOURCE_HEARTBEAT_PERIOD=1, \
             SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400"
        }
    }
}
