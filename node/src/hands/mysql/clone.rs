//! Copying another MySQL's data by its clone plugin, into a directory of its own.
//!
//! ```text
//! local server ── CLONE INSTANCE … DATA DIRECTORY ──▶ the other server's port ──▶ files in an empty place
//! ```
//!
//! The local server receives; what it has itself stays as it is. Both need the plugin, `replication_user` needs
//! BACKUP_ADMIN at the other one, and the agent's account here. A copy knows its own transactions, so it needs no
//! place told. MariaDB has nothing like it.

use std::path::Path;
use std::time::Duration;

use baton_runbooks::observe::Flavour;

use super::flavour::quote;
use super::session::{Session, cell};
use super::{Mysql, MysqlError, Purpose};

impl Mysql {
    /// True if the clone plugin is loaded and active.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn has_clone_plugin(&self, deadline: Duration) -> Result<bool, MysqlError> {
        let ask = "SELECT COUNT(*) AS active FROM information_schema.plugins \
                   WHERE plugin_name='clone' AND plugin_status='ACTIVE'";
        let answers = self.control("look for the clone plugin", |_| ask.to_owned(), deadline).await?;
        Ok(answers.first().and_then(|answer| answer.get::<u64>("active")) == Some(1))
    }

    /// Copies the server at `host` and `port` into `into`, which must not exist, in a directory that the server may write.
    /// Whether a copy that was given up is still being written is not known: see [`Mysql::end_clones`].
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] on MariaDB.
    pub async fn clone_into(
        &self,
        host: &str,
        port: u16,
        into: &Path,
        deadline: Duration,
    ) -> Result<(), MysqlError> {
        let what = "clone";
        // Not the one that is kept: it is in use for as long as the copy takes.
        let mut session = Session::dial(self.access(), Purpose::Control, deadline).await?;
        if session.flavour == Flavour::Mariadb {
            return Err(MysqlError::answer(what, "MariaDB has no clone plugin"));
        }
        let access = self.access();
        let sql = format!(
            "SET GLOBAL clone_valid_donor_list={}; \
             CLONE INSTANCE FROM {}@{}:{port} IDENTIFIED BY {} DATA DIRECTORY = {}",
            quote(&format!("{host}:{port}")),
            quote(&access.replication_user),
            quote(host),
            quote(&access.replication_password),
            quote(&into.display().to_string())
        );
        session.query(what, sql, deadline).await.map(drop)
    }

    /// Bytes that the newest clone has received.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn clone_progress(&self, deadline: Duration) -> Result<u64, MysqlError> {
        let ask =
            "SELECT CAST(COALESCE(SUM(data), 0) AS UNSIGNED) AS bytes FROM performance_schema.clone_progress";
        let answers = self.control("progress of the clone", |_| ask.to_owned(), deadline).await?;
        Ok(answers.first().and_then(|answer| answer.get("bytes")).unwrap_or(0))
    }

    /// Ends clones that are still received, such as one that an earlier agent began.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn end_clones(&self, deadline: Duration) -> Result<(), MysqlError> {
        let what = "end earlier clones";
        let ask = "SELECT pid AS pid FROM performance_schema.clone_status WHERE state='In Progress'";
        let answers = self.control(what, |_| ask.to_owned(), deadline).await?;
        let running = answers.first().map(|answer| answer.rows.as_slice()).unwrap_or_default();
        for pid in running.iter().filter_map(|row| cell::<u64>(row, "pid")) {
            match self.control(what, |_| format!("KILL {pid}"), deadline).await {
                // ER_NO_SUCH_THREAD: it has ended meanwhile.
                Err(error) if !error.is_code(1094) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}
