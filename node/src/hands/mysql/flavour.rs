//! What the two families say differently: statements, names of variables, of columns, of threads.
//!
//! MariaDB 10.6 and later, MySQL 8.0.26 and later (the first with `SHOW REPLICA STATUS`, `CHANGE REPLICATION
//! SOURCE` and the semi-sync plugins named source/replica). Everything else of [`super`] speaks to the server
//! in these words only. Run against MariaDB 10.11 and MySQL 9.7.

mod replica;

use baton_runbooks::observe::Flavour;

pub use replica::{
    ATTEMPTS, ReplicaColumns, Source, Threads, attach, forget_source, outlast, replica_columns,
    replica_status, start, stop, wait_applied,
};

/// The family of a server that calls itself `version`.
#[must_use]
pub fn of_version(version: &str) -> Flavour {
    if version.to_ascii_lowercase().contains("mariadb") { Flavour::Mariadb } else { Flavour::Mysql }
}

/// `text` as a string literal, for sessions whose `sql_mode` is empty.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{1a}' => out.push_str("\\Z"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// `name` as an identifier.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// What each session sets first; its last answer has a column `version`.
///
/// A metadata or row lock must never hold an agent's statement for the server's defaults of a day and 50 s, and
/// while `SET GLOBAL read_only` waits for a lock it blocks every new writer. The zone is the host's, whatever
/// `default_time_zone` says: in that zone InnoDB tells when a transaction began.
#[must_use]
pub fn session_setup(binlogged: bool) -> String {
    let log = if binlogged { "" } else { ", SESSION sql_log_bin=0" };
    format!(
        "SET SESSION sql_mode='', SESSION time_zone='SYSTEM', SESSION lock_wait_timeout=1, \
         SESSION innodb_lock_wait_timeout=1{log}; SELECT VERSION() AS version"
    )
}

/// The text of the probe. Answers: 0 variables and canary (one row), 1 semi-sync status as name and value,
/// 2 replication status; on MySQL 3 semi-sync variables as name and value, since without the plugin they do not exist.
///
/// Names are chosen so that no answer waits for the binary log's lock: `SHOW MASTER STATUS` would hang as long
/// as two commits wait for a semi-sync acknowledgement.
#[must_use]
pub fn probe(flavour: Flavour, canary: Option<&str>, own_users: [&str; 2]) -> String {
    let canary = canary.map_or_else(
        || "0".to_owned(),
        |schema| format!("(SELECT value FROM {}.canary WHERE id=1)", identifier(schema)),
    );
    let own = own_users.map(quote).join(",");
    match flavour {
        Flavour::Mariadb => format!(
            "SELECT @@global.read_only AS read_only, @@global.gtid_binlog_state AS executed, \
             @@global.gtid_current_pos AS position, \
             @@global.rpl_semi_sync_master_enabled AS source_enabled, \
             @@global.rpl_semi_sync_slave_enabled AS replica_enabled, \
             @@global.rpl_semi_sync_master_wait_point AS wait_point, \
             @@global.rpl_semi_sync_master_wait_no_slave AS wait_no_replica, \
             @@global.rpl_semi_sync_master_timeout AS timeout, {canary} AS canary, p.* FROM \
             (SELECT COUNT(CASE WHEN user NOT IN ('system user','event_scheduler',{own}) \
             AND command NOT LIKE 'Binlog Dump%' AND command<>'Daemon' THEN 1 END) AS sessions, \
             MAX(CASE WHEN command='Slave_IO' THEN id END) AS io_thread, \
             MAX(CASE WHEN command='Slave_SQL' THEN id END) AS sql_thread \
             FROM information_schema.processlist) p; \
             SHOW STATUS LIKE 'Rpl\\_semi\\_sync\\_%'; SHOW SLAVE STATUS"
        ),
        Flavour::Mysql => format!(
            "SELECT (@@global.super_read_only AND @@global.read_only) AS read_only, @@global.gtid_executed AS executed, \
             @@global.gtid_executed AS position, {canary} AS canary, p.* FROM \
             (SELECT COUNT(CASE WHEN type='FOREGROUND' AND processlist_user NOT IN \
             ('system user','event_scheduler',{own}) AND processlist_command NOT LIKE 'Binlog Dump%' \
             AND processlist_command<>'Daemon' THEN 1 END) AS sessions, \
             MAX(CASE WHEN name IN ('thread/sql/replica_io','thread/sql/slave_io') THEN processlist_id END) AS io_thread, \
             MAX(CASE WHEN name IN ('thread/sql/replica_sql','thread/sql/slave_sql') THEN processlist_id END) AS sql_thread \
             FROM performance_schema.threads) p; \
             SHOW STATUS LIKE 'Rpl\\_semi\\_sync\\_%'; SHOW REPLICA STATUS; \
             SHOW GLOBAL VARIABLES LIKE 'rpl\\_semi\\_sync\\_%'"
        ),
    }
}

/// The text of the short look. Answers: 0 `read_only` and `position`, 1 replication status; in this order, so that nothing counts
/// as applied that was not yet received when that was asked.
#[must_use]
pub const fn standing(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => {
            "SELECT @@global.read_only AS read_only, @@global.gtid_current_pos AS position; SHOW SLAVE STATUS"
        }
        Flavour::Mysql => {
            "SELECT (@@global.super_read_only AND @@global.read_only) AS read_only, \
             @@global.gtid_executed AS position; SHOW REPLICA STATUS"
        }
    }
}

/// Reads whether semi-sync's source side is switched on, as column `source_enabled`. Without its plugin MySQL does not know the
/// variable: error 1193.
#[must_use]
pub const fn source_enabled(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SELECT @@global.rpl_semi_sync_master_enabled AS source_enabled",
        Flavour::Mysql => "SELECT @@global.rpl_semi_sync_source_enabled AS source_enabled",
    }
}

/// Name of a semi-sync variable or status without the family's words: `source_enabled`, `replica_status`, …
#[must_use]
pub fn semi_sync_name(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("rpl_semi_sync_").unwrap_or(&name);
    name.replace("master", "source")
        .replace("slave", "replica")
        .replace("source_wait_no_replica", "wait_no_replica")
        .replace("source_wait_point", "wait_point")
        .replace("source_timeout", "timeout")
}

/// True for the strings and numbers that mean an option is on. MariaDB 12 knows more than ON and OFF for
/// `read_only` (`NO_LOCK`, `NO_LOCK_NO_ADMIN`), all of which refuse writes.
#[must_use]
pub fn is_on(value: &str) -> bool {
    !matches!(value.trim().to_ascii_uppercase().as_str(), "" | "0" | "OFF" | "NO" | "FALSE")
}

/// Shortest of the longest semi-sync time-outs that the families allow, in milliseconds: 49 days.
pub const SEMI_SYNC_TIMEOUT_MS_MIN: u64 = 4_294_967_295;

/// Switches the source side of semi-sync. On sets the wait point and time-outs of the design first.
#[must_use]
pub const fn semi_sync_source(flavour: Flavour, on: bool) -> &'static str {
    match (flavour, on) {
        (Flavour::Mariadb, true) => {
            "SET GLOBAL rpl_semi_sync_master_wait_point='AFTER_SYNC'; \
             SET GLOBAL rpl_semi_sync_master_wait_no_slave=ON; \
             SET GLOBAL rpl_semi_sync_master_timeout=18446744073709551615; \
             SET GLOBAL rpl_semi_sync_master_enabled=ON"
        }
        (Flavour::Mariadb, false) => "SET GLOBAL rpl_semi_sync_master_enabled=OFF",
        (Flavour::Mysql, true) => {
            "SET GLOBAL rpl_semi_sync_source_wait_point='AFTER_SYNC'; \
             SET GLOBAL rpl_semi_sync_source_wait_no_replica=ON; \
             SET GLOBAL rpl_semi_sync_source_wait_for_replica_count=1; \
             SET GLOBAL rpl_semi_sync_source_timeout=4294967295; \
             SET GLOBAL rpl_semi_sync_source_enabled=ON"
        }
        (Flavour::Mysql, false) => "SET GLOBAL rpl_semi_sync_source_enabled=OFF",
    }
}

/// MySQL: whether commits wait for a replica now, as column `Value`. Answered while the server's variables are locked.
pub const SOURCE_STATUS: &str = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_status'";

/// Switches the replica side of semi-sync on. Takes effect when the receiving thread connects next.
#[must_use]
pub const fn semi_sync_replica_on(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL rpl_semi_sync_slave_enabled=ON",
        Flavour::Mysql => "SET GLOBAL rpl_semi_sync_replica_enabled=ON",
    }
}

/// Reads whether the server refuses writes, as column `read_only`.
///
/// On MySQL `super_read_only` reads ON from the moment that somebody asks for it, also while the statement still waits for
/// locks and clients write; when it fails, it reads OFF again. `read_only`, which it switches with it, turns when it is true.
#[must_use]
pub const fn read_only(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SELECT @@global.read_only AS read_only",
        Flavour::Mysql => "SELECT (@@global.super_read_only AND @@global.read_only) AS read_only",
    }
}

/// The condition that clients may write. The agent's account may write on a MariaDB that refuses it to clients.
#[must_use]
pub const fn not_read_only(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "(@@global.read_only IN ('0','OFF'))",
        Flavour::Mysql => "(@@global.super_read_only=0)",
    }
}

/// Refuses writes. May wait for locks of other sessions.
#[must_use]
pub const fn close(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL read_only=ON",
        Flavour::Mysql => "SET GLOBAL super_read_only=ON",
    }
}

/// Lets clients write.
#[must_use]
pub const fn open(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL read_only=OFF",
        Flavour::Mysql => "SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF",
    }
}

/// Sessions of clients, as column `id`: neither the server's own, nor replicas', nor the agent's.
#[must_use]
pub fn client_sessions(flavour: Flavour, own_users: [&str; 2]) -> String {
    let own = own_users.map(quote).join(",");
    let (table, id) = match flavour {
        Flavour::Mariadb => ("information_schema.processlist", "id"),
        Flavour::Mysql => ("performance_schema.processlist", "ID"),
    };
    format!(
        "SELECT {id} AS id FROM {table} WHERE user NOT IN ('system user','event_scheduler',{own}) \
         AND command NOT LIKE 'Binlog Dump%' AND command NOT IN ('Daemon','Killed') AND {id}<>CONNECTION_ID()"
    )
}

/// Whether the session `id` of a MySQL waits for a lock, as column `waits`: 1 or 0.
#[must_use]
pub fn waits_for_lock(id: u32) -> String {
    format!(
        "SELECT COUNT(*) AS waits FROM performance_schema.processlist WHERE id={id} AND state LIKE 'Waiting for%'"
    )
}

/// Sessions of the agent's own account in the middle of a write, as column `id`: a canary, or the agent's tables.
#[must_use]
pub fn own_writers(flavour: Flavour, user: &str) -> String {
    let (table, id) = match flavour {
        Flavour::Mariadb => ("information_schema.processlist", "id"),
        Flavour::Mysql => ("performance_schema.processlist", "ID"),
    };
    let writes =
        ["UPDATE", "INSERT", "CREATE", "ALTER"].map(|verb| format!("info LIKE '{verb} %'")).join(" OR ");
    format!(
        "SELECT {id} AS id FROM {table} WHERE user={} AND command NOT IN ('Sleep','Killed') AND ({writes}) \
         AND {id}<>CONNECTION_ID()",
        quote(user)
    )
}

/// Lists the threads that send the binary log to replicas, as column `id`; with a user, those of its replicas.
#[must_use]
pub fn dump_sessions(flavour: Flavour, user: Option<&str>) -> String {
    let (table, id) = match flavour {
        Flavour::Mariadb => ("information_schema.processlist", "id"),
        Flavour::Mysql => ("performance_schema.processlist", "ID"),
    };
    let of_user = user.map_or_else(String::new, |user| format!(" AND user={}", quote(user)));
    format!("SELECT {id} AS id FROM {table} WHERE command LIKE 'Binlog Dump%'{of_user}")
}

/// Position of this session's last transaction, or a set that has it, as column `position`.
#[must_use]
pub const fn own_position(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SELECT @@session.last_gtid AS position",
        Flavour::Mysql => "SELECT @@global.gtid_executed AS position",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(quote("a'b\\"), "'a''b\\\\'");
        assert_eq!(identifier("a`b"), "`a``b`");
    }

    #[test]
    fn every_form_of_read_only() {
        for on in ["ON", "1", "NO_LOCK", "NO_LOCK_NO_ADMIN", "on"] {
            assert!(is_on(on), "{on}");
        }
        for off in ["OFF", "0", "", "off"] {
            assert!(!is_on(off), "{off}");
        }
    }

    #[test]
    fn families_by_version() {
        assert_eq!(of_version("10.11.19-MariaDB-0+deb12u1-log"), Flavour::Mariadb);
        assert_eq!(of_version("9.7.4"), Flavour::Mysql);
    }

    #[test]
    fn semi_sync_names_are_the_same_for_both() {
        assert_eq!(semi_sync_name("Rpl_semi_sync_master_no_tx"), "source_no_tx");
        assert_eq!(semi_sync_name("Rpl_semi_sync_source_clients"), "source_clients");
        assert_eq!(semi_sync_name("Rpl_semi_sync_slave_status"), "replica_status");
        assert_eq!(semi_sync_name("rpl_semi_sync_source_wait_no_replica"), "wait_no_replica");
        assert_eq!(semi_sync_name("rpl_semi_sync_source_timeout"), "timeout");
    }
}
