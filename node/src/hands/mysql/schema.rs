//! The agent's own tables.
//!
//! | table | written | binary log | for |
//! |---|---|---|---|
//! | `canary` | on the primary | yes | timed from the primary to the replica; its receipt proves that semi-sync works |
//! | `probe` | on the primary | no | the local write probe: whether the server can still commit, without waiting for anybody |
//!
//! The tables themselves are made on the primary and travel by replication: made on both, the replica's would be
//! transactions of its own. Rows of `probe` differ between the nodes on purpose; they never travel, so nothing
//! compares or applies them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::flavour::identifier;
use super::session::{Answer, Session};
use super::{Mysql, MysqlError, Purpose};

/// What the agent's schema holds. InnoDB: another engine would not tell whether the log device can commit.
fn tables(schema: &str) -> String {
    let schema = identifier(schema);
    format!(
        "CREATE DATABASE IF NOT EXISTS {schema}; \
         CREATE TABLE IF NOT EXISTS {schema}.canary (id TINYINT PRIMARY KEY, value BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB; \
         CREATE TABLE IF NOT EXISTS {schema}.probe (id TINYINT PRIMARY KEY, n BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB; \
         INSERT IGNORE INTO {schema}.canary VALUES (1,0)"
    )
}

impl Mysql {
    /// Makes the agent's schema and tables where they are missing. On the primary only, while it is writable: what
    /// it makes is written to the binary log and may wait for a semi-sync acknowledgement. Refused on a server that
    /// refuses writes of clients (the agent's account could write there all the same).
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] if the server is read-only.
    pub async fn ensure_schema(&self, deadline: Duration) -> Result<(), MysqlError> {
        let what = "ensure schema";
        if self.is_read_only(deadline).await? {
            return Err(MysqlError::answer(what, "the server is read-only"));
        }
        // Looked for first: on an existing schema nothing must be logged at each start.
        if self.has_schema(deadline).await? {
            self.shared.lacks_tables.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let mut session = Session::dial(self.access(), Purpose::Replicated, deadline).await?;
        session.query(what, tables(&self.access().schema), deadline).await?;
        self.park(Purpose::Replicated, session);
        self.shared.probes_without_canary.store(0, Ordering::Relaxed);
        self.shared.lacks_tables.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The write probe or the canary found a table missing, or the canary's row, since [`Mysql::ensure_schema`] was last
    /// done: somebody dropped it.
    #[must_use]
    pub fn lacks_tables(&self) -> bool {
        self.shared.lacks_tables.load(Ordering::Relaxed)
    }

    /// Notes what a write to the agent's tables says of them.
    pub(super) fn note_tables(&self, written: &Result<Vec<Answer>, MysqlError>) {
        // ER_BAD_DB_ERROR, ER_NO_SUCH_TABLE
        if let Err(MysqlError::Server { code: 1049 | 1146, .. }) = written {
            self.note_missing();
        }
    }

    pub(super) fn note_missing(&self) {
        self.shared.lacks_tables.store(true, Ordering::Relaxed);
    }

    /// True if both tables and the canary's row are there.
    ///
    /// # Errors
    /// [`MysqlError`] if the server cannot be asked.
    pub async fn has_schema(&self, deadline: Duration) -> Result<bool, MysqlError> {
        let schema = identifier(&self.access().schema);
        let sql = format!(
            "SELECT COUNT(*) AS n FROM {schema}.probe; SELECT COUNT(*) AS n FROM {schema}.canary WHERE id=1"
        );
        match self.control("look for the schema", |_| sql, deadline).await {
            Ok(answers) => Ok(answers.last().and_then(|answer| answer.get::<u64>("n")) == Some(1)),
            Err(MysqlError::Server { code: 1049 | 1146, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
