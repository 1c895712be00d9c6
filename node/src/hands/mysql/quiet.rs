//! What still writes on a primary that is about to close: events, and transactions under way.

use std::time::Duration;

use super::semisync::Switch;
use super::session::cell;
use super::{Mysql, MysqlError, flavour};

impl Mysql {
    /// True if the event scheduler runs.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn events_run(&self, deadline: Duration) -> Result<bool, MysqlError> {
        let what = "read event_scheduler";
        let text = "SELECT @@global.event_scheduler AS scheduler".to_owned();
        let answers = self.control(what, |_| text, deadline).await?;
        let answer = answers.first().filter(|answer| !answer.rows.is_empty());
        let answer = answer.ok_or_else(|| MysqlError::answer(what, "no row"))?;
        Ok(flavour::is_on(&answer.text("scheduler")))
    }

    /// Switches the event scheduler. Needs SUPER on MariaDB; without it the server's error 1227 comes back.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn event_scheduler(&self, to: Switch, deadline: Duration) -> Result<(), MysqlError> {
        let text = format!("SET GLOBAL event_scheduler={}", if to == Switch::On { "ON" } else { "OFF" });
        self.control("event scheduler", |_| text, deadline).await.map(|_| ())
    }

    /// Transactions of clients that have been open for a second or longer. Shorter ones end by themselves sooner than they
    /// could be waited for; on a busy server there is always one.
    ///
    /// InnoDB tells in whole seconds, and in the zone of the host, when a transaction began; the zone of this session, in which
    /// `NOW()` is, is set to that one ([`flavour::session_setup`]).
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn long_transactions(&self, deadline: Duration) -> Result<u64, MysqlError> {
        let what = "long transactions";
        let access = self.access();
        let own = [access.user.clone(), access.replication_user.clone()];
        let text = |flavour| {
            let clients = flavour::client_sessions(flavour, [own[0].as_str(), own[1].as_str()]);
            format!(
                "SELECT COUNT(*) AS open FROM information_schema.innodb_trx WHERE \
                 trx_started <= NOW() - INTERVAL 1 SECOND AND trx_mysql_thread_id IN ({clients})"
            )
        };
        let answers = self.control(what, text, deadline).await?;
        let row = answers.first().and_then(|answer| answer.rows.first());
        row.and_then(|row| cell(row, "open")).ok_or_else(|| MysqlError::answer(what, "no row"))
    }
}
