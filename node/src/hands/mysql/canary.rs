//! The two small writes: the canary that travels, and the write probe that stays.

use std::time::Duration;

use tokio::time::Instant;

use super::flavour::{self, identifier};
use super::{Mysql, MysqlError, Purpose};

/// A canary that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// The value written.
    pub value: u64,
    /// A position that has the canary's transaction: on MariaDB its own, on MySQL all that was executed then. The
    /// peer has received the canary when its received set [contains](super::gtid::contains) this.
    pub position: String,
    /// Time of the commit, in milliseconds, a wait for the acknowledgement included.
    pub took_ms: u64,
}

impl Mysql {
    /// Commits `value` as the canary, on the primary only. Refused on a read-only server: there it would be a
    /// transaction of its own.
    ///
    /// With semi-sync on, the commit waits for the replica's acknowledgement. A canary that was given up may still
    /// be committed; while it waits it holds its row, so that the next one fails after a second with the
    /// server's error 1205.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Timeout`] if it was not acknowledged within `deadline`.
    pub async fn canary(&self, value: u64, deadline: Duration) -> Result<Canary, MysqlError> {
        let what = "canary";
        let started = Instant::now();
        let mut session = self.session(Purpose::Replicated, deadline).await?;
        let table = format!("{}.canary", identifier(&self.access().schema));
        let sql = format!(
            // The condition goes through a variable of the session: should the statement itself be what is logged,
            // the replica must not judge by its own read_only.
            "{}; SET @baton_open={}; UPDATE {table} SET value={value} WHERE id=1 AND value<>{value} AND @baton_open; {}",
            flavour::read_only(session.flavour),
            flavour::not_read_only(session.flavour),
            flavour::own_position(session.flavour)
        );
        let left = deadline.saturating_sub(started.elapsed());
        let out = session.query(what, sql, left).await;
        self.park(Purpose::Replicated, session);
        self.note_tables(&out);
        let answers = out?;
        let [before, _, update, position] = answers.as_slice() else {
            return Err(MysqlError::answer(what, "an answer is missing"));
        };
        if flavour::is_on(&before.text("read_only")) {
            return Err(MysqlError::answer(what, "the server is read-only"));
        }
        if update.affected == 0 {
            self.note_missing();
            return Err(MysqlError::answer(
                what,
                "no row was changed: the row is missing or has this value already",
            ));
        }
        Ok(Canary { value, position: position.text("position").replace('\n', ""), took_ms: ms(started) })
    }

    /// Commits a change in the agent's probe table, past the binary log, and says how long it took in milliseconds.
    /// It waits for the disk and for nothing else, so that commits that wait for the replica are not taken for a
    /// hung server. At most one at a time; the caller sees to it that this node is the primary.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Timeout`] if it was not committed within `deadline`, [`MysqlError::Answer`]
    /// without a write if the server is read-only.
    pub async fn write_probe(&self, deadline: Duration) -> Result<u64, MysqlError> {
        let what = "write probe";
        let started = Instant::now();
        let mut session = self.session(Purpose::WriteProbe, deadline).await?;
        let table = format!("{}.probe", identifier(&self.access().schema));
        let sql = format!(
            "{}; INSERT INTO {table} (id,n) SELECT 1,1 FROM DUAL WHERE {} ON DUPLICATE KEY UPDATE n=n+1; SELECT 1",
            flavour::read_only(session.flavour),
            flavour::not_read_only(session.flavour)
        );
        let left = deadline.saturating_sub(started.elapsed());
        let out = session.query(what, sql, left).await;
        self.park(Purpose::WriteProbe, session);
        self.note_tables(&out);
        match out?.as_slice() {
            [before, _, _] if flavour::is_on(&before.text("read_only")) => {
                Err(MysqlError::answer(what, "the server is read-only"))
            }
            [_, write, _] if write.affected > 0 => Ok(ms(started)),
            _ => Err(MysqlError::answer(what, "no row was written")),
        }
    }
}

fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
