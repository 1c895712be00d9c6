//! One connection, its deadlines, and the place where idle ones wait.

use std::sync::Mutex;
use std::time::Duration;

use baton_runbooks::observe::Flavour;
use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use tokio::time::Instant;

use super::flavour;
use super::{MysqlAccess, MysqlError, Purpose};
use crate::hands::deadline::within;
use crate::hands::server::{self, ServerId};

/// The answer to one statement of a text: rows, possibly none, and the number of rows changed.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    pub(super) affected: u64,
}

impl Answer {
    /// The value in `column` of the first row; `None` without a row, without the column, or for NULL.
    pub(super) fn get<T: FromValue>(&self, column: &str) -> Option<T> {
        cell(self.rows.first()?, column)
    }

    /// A text column of the first row, empty instead of NULL.
    pub(super) fn text(&self, column: &str) -> String {
        self.get(column).unwrap_or_default()
    }
}

/// The value in `column` of a row; `None` without the column, for NULL, and for another type.
pub(super) fn cell<T: FromValue>(row: &Row, column: &str) -> Option<T> {
    row.get_opt::<Option<T>, _>(column)?.ok()?
}

/// A connection that is good for another call, with what was learnt when it was dialled.
#[derive(Debug)]
pub(super) struct Session {
    conn: Option<Conn>,
    pub(super) flavour: Flavour,
    pub(super) version: String,
    /// The process at the other end: it cannot change while the connection lives.
    pub(super) server: ServerId,
    /// The server's number of this connection, for KILL.
    pub(super) id: u32,
}

impl Session {
    pub(super) async fn dial(
        access: &MysqlAccess,
        purpose: Purpose,
        deadline: Duration,
    ) -> Result<Self, MysqlError> {
        let what = "connect";
        let socket = access.socket.clone();
        let connect = |source| MysqlError::Connect { socket: access.socket.display().to_string(), source };
        let server = server::listener(&socket).await.map_err(connect)?;
        let opts = opts(access);
        let setup = flavour::session_setup(purpose == Purpose::Replicated);
        let dialled = within(deadline, async move {
            let mut conn = Conn::new(opts).await?;
            let answers = collect(&mut conn, setup).await?;
            Ok((conn, answers))
        });
        let (conn, answers) = dialled
            .await
            .map_err(|elapsed| MysqlError::elapsed(what, elapsed))?
            .map_err(|error| MysqlError::of(what, error))?;
        if !server::is_alive(server) {
            return Err(MysqlError::answer(what, "the server process changed meanwhile"));
        }
        let version = answers.last().map(|answer| answer.text("version")).unwrap_or_default();
        let id = conn.id();
        Ok(Self { conn: Some(conn), flavour: flavour::of_version(&version), version, server, id })
    }

    /// False after a call that was given up or broke.
    pub(super) fn is_usable(&self) -> bool {
        self.conn.is_some()
    }

    /// Runs a text of one or more statements and stops at the first that fails. One answer for each statement; a
    /// last one that returns no rows may have none, so a text whose answers matter ends in a `SELECT`.
    pub(super) async fn query(
        &mut self,
        what: &'static str,
        sql: String,
        deadline: Duration,
    ) -> Result<Vec<Answer>, MysqlError> {
        self.bounded(what, deadline, |mut conn| async move {
            let answers = collect(&mut conn, sql).await;
            (conn, answers)
        })
        .await
    }

    pub(super) async fn ping(&mut self, deadline: Duration) -> Result<(), MysqlError> {
        self.bounded("ping", deadline, |mut conn| async move {
            let pong = conn.ping().await;
            (conn, pong)
        })
        .await
    }

    /// The connection goes into the work and comes back with the result, or not at all.
    async fn bounded<T, F>(
        &mut self,
        what: &'static str,
        deadline: Duration,
        work: impl FnOnce(Conn) -> F,
    ) -> Result<T, MysqlError>
    where
        T: Send + 'static,
        F: Future<Output = (Conn, mysql_async::Result<T>)> + Send + 'static,
    {
        let Some(conn) = self.conn.take() else {
            return Err(MysqlError::answer(what, "the session broke in an earlier call"));
        };
        let (conn, out) =
            within(deadline, work(conn)).await.map_err(|elapsed| MysqlError::elapsed(what, elapsed))?;
        match out {
            Ok(out) => {
                self.conn = Some(conn);
                Ok(out)
            }
            Err(error) => {
                if !error.is_fatal() {
                    self.conn = Some(conn);
                }
                Err(MysqlError::of(what, error))
            }
        }
    }
}

fn opts(access: &MysqlAccess) -> Opts {
    OptsBuilder::default()
        .socket(Some(access.socket.display().to_string()))
        .user(Some(access.user.clone()))
        .pass(Some(access.password.clone()))
        // Both given: no round trip to ask for them.
        .wait_timeout(Some(28_800))
        .max_allowed_packet(Some(16 << 20))
        .stmt_cache_size(0)
        .into()
}

async fn collect(conn: &mut Conn, sql: String) -> mysql_async::Result<Vec<Answer>> {
    let mut result = conn.query_iter(sql).await?;
    let mut answers = Vec::new();
    loop {
        let affected = result.affected_rows();
        let rows: Vec<Row> = result.collect().await?;
        answers.push(Answer { rows, affected });
        if result.is_empty() {
            // "Empty" is also a last statement without rows, and one that failed: taken once more, an error comes out.
            result.collect::<Row>().await?;
            return Ok(answers);
        }
    }
}

/// Idle sessions, one for each purpose. A second one that comes back is closed.
#[derive(Debug, Default)]
pub(super) struct Lot {
    idle: Mutex<[Option<(Session, Instant)>; 4]>,
}

/// An idle session is not used again after this time: servers close idle connections, by default after hours,
/// on some installations after a minute.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A session that was used this lately is not asked whether it still answers: what is done every second needs no second
/// round trip, and whoever finds it broken after all tries again anyway.
const WARM_MAX: Duration = Duration::from_millis(1500);

impl Lot {
    /// A session and whether it was used a moment ago.
    pub(super) fn take(&self, purpose: Purpose) -> Option<(Session, bool)> {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (session, since) = idle[purpose as usize].take()?;
        (since.elapsed() < IDLE_MAX).then(|| (session, since.elapsed() < WARM_MAX))
    }

    pub(super) fn put(&self, purpose: Purpose, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        idle[purpose as usize] = Some((session, Instant::now()));
    }
}
