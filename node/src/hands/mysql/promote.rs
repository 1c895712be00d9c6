//! From replica to primary without losing what was received.
//!
//! ```text
//! (stream cut by the caller) → capture_received → drain → promote → (ports opened) ⋯ beside the path: detach
//! ```
//!
//! The receiving thread is left alone on the path: stopping it against a lost primary takes seconds on MariaDB,
//! and with both threads stopped MariaDB throws away what is not applied. What a cut thread holds is fixed.

use std::time::Duration;

use baton_runbooks::observe::{Flavour, ReplicationFacts};
use tokio::time::Instant;

use super::close::Closing;
use super::facts::replication;
use super::flavour::{self, Threads};
use super::semisync::Switch;
use super::session::{Answer, Session};
use super::standing::Standing;
use super::{Mysql, MysqlError, Purpose, gtid};

/// What a replica had received when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Transactions received, in the family's notation; what a promotion must have applied.
    pub received: String,
    /// Transactions applied.
    pub applied: String,
    /// How many are received and not applied.
    pub backlog: u64,
}

/// How a drain goes on, at each look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainProgress {
    /// Transactions applied.
    pub applied: String,
    /// How many are left.
    pub backlog: u64,
    /// Milliseconds since anything moved.
    pub still_ms: u64,
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// Everything asked for is applied.
    Reached,
    /// The applying thread stopped with an error.
    ApplierError {
        /// The server's error number.
        errno: u32,
        /// The server's words.
        message: String,
    },
    /// Both threads stand still. On MariaDB starting them again would throw away what is not applied.
    BothThreadsStopped {
        /// Where it stopped.
        left: DrainProgress,
    },
    /// The applying thread runs, and nothing has moved for the time allowed.
    NoProgress {
        /// Where it stopped.
        left: DrainProgress,
    },
}

/// How often a drain looks for progress; what it waits for is noticed at once.
const LOOK_EVERY_S: f64 = 0.05;
/// Deadline of one look. The server waits [`LOOK_EVERY_S`] itself.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

impl Mysql {
    /// What this replica has received. Ask after the stream was cut; on MySQL the executed set is included.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] if this server follows nobody.
    pub async fn capture_received(&self, deadline: Duration) -> Result<Captured, MysqlError> {
        let what = "capture received";
        let mut session = self.session(Purpose::Control, deadline).await?;
        let out = look(&mut session, what, deadline).await;
        let flavour = session.flavour;
        self.park(Purpose::Control, session);
        let look = out?;
        let facts = look.replication.ok_or_else(|| MysqlError::answer(what, "the server follows nobody"))?;
        let backlog =
            gtid::backlog(flavour, &facts.received, &look.applied).map_err(|bad| bad_set(what, &bad))?;
        Ok(Captured { received: facts.received, applied: look.applied, backlog })
    }

    /// Waits until `to` is applied. Ends on success, on an applier error, or when nothing has moved for
    /// `still_max`; not on duration. `on_progress` hears of each look, every 50 ms. An applying thread that stands
    /// still without an error is started once, if the receiving thread is alive.
    ///
    /// # Errors
    /// [`MysqlError`] if the server does not answer.
    pub async fn drain(
        &self,
        to: &str,
        still_max: Duration,
        mut on_progress: impl FnMut(&DrainProgress) + Send,
    ) -> Result<Drained, MysqlError> {
        let mut session = self.session(Purpose::Control, LOOK_DEADLINE).await?;
        let out = drain_on(&mut session, to, still_max, &mut on_progress).await;
        self.park(Purpose::Control, session);
        out
    }

    /// Opens this server to writes: stops the applying thread only, switches the semi-sync source off, lets clients
    /// write, reads back. Refused unless `drained_to` is applied, and whatever was received after that was noted. A server
    /// that is promoted already is left as it is. A server that is started anew meanwhile is not promoted: it is judged and
    /// opened on one session.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when refused, or when the server reads closed afterwards.
    pub async fn promote(&self, drained_to: &str, deadline: Duration) -> Result<(), MysqlError> {
        let end = Instant::now() + deadline;
        let (mut session, seen) = self.stands_on(end).await?;
        let out = self.promote_on(&mut session, &seen, drained_to, end).await;
        self.park(Purpose::Control, session);
        out
    }

    async fn promote_on(
        &self,
        session: &mut Session,
        seen: &Standing,
        drained_to: &str,
        end: Instant,
    ) -> Result<(), MysqlError> {
        let what = "promote";
        let later = seen.replication.as_ref().map(|replica| replica.received.as_str());
        for received in [drained_to].into_iter().chain(later) {
            let is_applied = gtid::contains(seen.flavour, &seen.position, received);
            if !is_applied.map_err(|bad| bad_set(what, &bad))? {
                let detail = format!("refused: {received} was received, {} is applied", seen.position);
                return Err(MysqlError::answer(what, detail));
            }
        }
        let flavour = session.flavour;
        let mut text = Vec::new();
        if seen.replication.as_ref().is_some_and(|replica| replica.sql_running) {
            text.push(flavour::stop(flavour, Threads::Sql));
        }
        // Only if it is on: on MySQL switching off can take a second.
        if seen.read_only && self.is_source_on(session, end).await? {
            text.push(flavour::semi_sync_source(flavour, false).to_owned());
        }
        text.extend([flavour::open(flavour).to_owned(), flavour::read_only(flavour).to_owned()]);
        let left = end.saturating_duration_since(Instant::now());
        let answers = session.query(what, text.join("; "), left).await?;
        if answers.last().is_none_or(|answer| flavour::is_on(&answer.text("read_only"))) {
            return Err(MysqlError::answer(what, "the server still refuses writes"));
        }
        Ok(())
    }

    /// True if clients may write here and nothing is applied from elsewhere.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn is_promoted(&self, deadline: Duration) -> Result<bool, MysqlError> {
        Ok(self.standing(deadline).await?.is_promoted())
    }

    /// Undoes a promotion of which no client has heard: closes, then lets the applying thread go on if the receiving
    /// one is still there. What it had received stays.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] if the server could not be closed.
    pub async fn undo_promotion(&self, budget: Duration) -> Result<(), MysqlError> {
        let what = "undo promotion";
        match self.close_writes(budget).await {
            Closing::Closed { .. } => {}
            Closing::StillOpen { why } | Closing::Unknown { why } => {
                return Err(MysqlError::answer(what, why));
            }
        }
        let mut session = self.session(Purpose::Control, budget).await?;
        let mut out = look(&mut session, what, budget).await;
        if let Ok(seen) = &out
            && seen.replication.as_ref().is_some_and(|replica| replica.receiver_alive && !replica.sql_running)
        {
            let start = flavour::start(session.flavour, Threads::Sql);
            out = session.query(what, start, budget).await.and(out);
        }
        self.park(Purpose::Control, session);
        out.map(|_| ())
    }

    /// Forgets the old primary, beside the path: stops both threads and resets. Against a lost primary this takes
    /// seconds on MariaDB (`kill_conn_timeout` and more). Refused on a server that is not promoted: what it has
    /// received and not applied would be thrown away.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when refused.
    pub async fn detach(&self, deadline: Duration) -> Result<(), MysqlError> {
        let what = "detach";
        let facts = self.facts(deadline).await?;
        if facts.replication.is_none() {
            return Ok(());
        }
        if facts.read_only {
            return Err(MysqlError::answer(what, "refused: the server is not promoted"));
        }
        // A session of its own: the control session must not be busy for seconds.
        let mut session = Session::dial(self.access(), Purpose::Control, deadline).await?;
        let text = format!(
            "{}; {}",
            flavour::stop(session.flavour, Threads::Both),
            flavour::forget_source(session.flavour)
        );
        session.query(what, text, deadline).await.map(|_| ())
    }

    /// Lets clients write again, on a primary whose switchover is undone. The semi-sync source is set to
    /// `semi_sync` first, so that no commit slips through unprotected.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when the server reads closed afterwards.
    pub async fn open_writes(&self, semi_sync: Switch, deadline: Duration) -> Result<(), MysqlError> {
        let what = "open writes";
        let text = |flavour: Flavour| {
            let source = flavour::semi_sync_source(flavour, semi_sync == Switch::On);
            format!("{source}; {}; {}", flavour::open(flavour), flavour::read_only(flavour))
        };
        let answers = self.control(what, text, deadline).await?;
        match answers.last().map(|answer| flavour::is_on(&answer.text("read_only"))) {
            Some(false) => Ok(()),
            Some(true) | None => Err(MysqlError::answer(what, "the server still refuses writes")),
        }
    }

    /// True if the server refuses writes of clients.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn is_read_only(&self, deadline: Duration) -> Result<bool, MysqlError> {
        let what = "read read_only";
        let answers = self.control(what, |flavour| flavour::read_only(flavour).to_owned(), deadline).await?;
        let answer = answers.first().filter(|answer| !answer.rows.is_empty());
        let answer = answer.ok_or_else(|| MysqlError::answer(what, "no row"))?;
        Ok(flavour::is_on(&answer.text("read_only")))
    }
}

/// Replication as the server tells it at one moment.
pub(super) struct Look {
    pub(super) replication: Option<ReplicationFacts>,
    pub(super) read_only: bool,
    pub(super) executed: String,
    pub(super) applied: String,
    pub(super) binlog_pos: String,
    pub(super) slave_pos: String,
    /// Rows changed by open transactions: what moves while one long transaction is applied.
    modified: u64,
}

pub(super) async fn look(
    session: &mut Session,
    what: &'static str,
    deadline: Duration,
) -> Result<Look, MysqlError> {
    let flavour = session.flavour;
    let answers = session.query(what, flavour::replica_status(flavour).to_owned(), deadline).await?;
    let [status, own] = answers.as_slice() else {
        return Err(MysqlError::answer(what, "an answer is missing"));
    };
    read_look(flavour, status, own)
}

fn read_look(flavour: Flavour, status: &Answer, own: &Answer) -> Result<Look, MysqlError> {
    let executed = own.text("executed").replace('\n', "");
    Ok(Look {
        replication: status.rows.first().map(|row| replication(flavour, row, &executed)).transpose()?,
        read_only: flavour::is_on(&own.text("read_only")),
        applied: own.text("applied").replace('\n', ""),
        binlog_pos: own.text("binlog_pos"),
        slave_pos: own.text("slave_pos"),
        modified: own.get("modified").unwrap_or(0),
        executed,
    })
}

async fn drain_on(
    session: &mut Session,
    to: &str,
    still_max: Duration,
    on_progress: &mut (impl FnMut(&DrainProgress) + Send),
) -> Result<Drained, MysqlError> {
    let what = "drain";
    let flavour = session.flavour;
    let mut moved_at = Instant::now();
    let mut last: Option<(String, u64)> = None;
    let mut has_started = false;
    loop {
        let waited =
            session.query(what, flavour::wait_applied(flavour, to, LOOK_EVERY_S), LOOK_DEADLINE).await?;
        if waited.first().and_then(|answer| answer.get::<i64>("outcome")) == Some(0) {
            return Ok(Drained::Reached);
        }
        let seen = look(session, what, LOOK_DEADLINE).await?;
        let mark = (seen.applied.clone(), seen.modified);
        if last.as_ref() != Some(&mark) {
            last = Some(mark);
            moved_at = Instant::now();
        }
        let backlog = gtid::backlog(flavour, to, &seen.applied).map_err(|bad| bad_set(what, &bad))?;
        let still = moved_at.elapsed();
        let still_ms = u64::try_from(still.as_millis()).unwrap_or(u64::MAX);
        let progress = DrainProgress { applied: seen.applied, backlog, still_ms };
        on_progress(&progress);
        let facts = seen.replication.ok_or_else(|| MysqlError::answer(what, "the server follows nobody"))?;
        if facts.sql_errno != 0 {
            return Ok(Drained::ApplierError { errno: facts.sql_errno, message: facts.error });
        }
        if !facts.sql_running && !facts.receiver_alive {
            return Ok(Drained::BothThreadsStopped { left: progress });
        }
        if !facts.sql_running && !has_started {
            has_started = true;
            session.query(what, flavour::start(flavour, Threads::Sql), LOOK_DEADLINE).await?;
        }
        if still >= still_max {
            return Ok(Drained::NoProgress { left: progress });
        }
    }
}

pub(super) fn bad_set(what: &'static str, bad: &gtid::BadSet) -> MysqlError {
    MysqlError::answer(what, bad.to_string())
}
