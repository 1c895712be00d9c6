//! Following another server: comparing, attaching, starting.
//!
//! ```text
//! extra_transactions → (none) → attach → start_replication
//!                    → (some) → refused: quarantine is the caller's
//! ```
//!
//! MySQL attaches a diverged server without a word, and MariaDB replays an ex-primary from the beginning of the
//! binary log unless `gtid_slave_pos` is set to what it has. So both are checked here, before anything changes.

use std::time::Duration;

use baton_runbooks::observe::Flavour;
use tokio::time::Instant;

use super::flavour::{self, Source, Threads};
use super::promote::{Look, bad_set, look};
use super::session::Session;
use super::{Mysql, MysqlError, Purpose, gtid};

/// Whom to follow, and what it had when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceServer {
    /// Host or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `MysqlFacts::executed` of that server, asked *after* this server's own, or what is in flight looks errant.
    pub executed: String,
}

/// What came of attaching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// The source is set; nothing runs yet. Or it was set already, and is left as it was, but for how long it is tried.
    Attached,
    /// This server has transactions that the source does not have. Nothing was changed.
    Refused {
        /// The transactions, in the family's notation.
        extra: String,
    },
}

/// What a server has, to be compared with what another one says *after* that: what is in flight is extra otherwise.
pub struct Had {
    flavour: Flavour,
    seen: Look,
}

impl Had {
    /// Transactions that `theirs` (`MysqlFacts::executed`) does not have: executed, or received and not applied. Empty: none.
    ///
    /// # Errors
    /// [`MysqlError::Answer`] if one of the sets cannot be read.
    pub fn extra(&self, theirs: &str) -> Result<String, MysqlError> {
        extra_of(self.flavour, &self.seen, theirs)
    }
}

impl Mysql {
    /// What this server has now.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn had(&self, deadline: Duration) -> Result<Had, MysqlError> {
        let mut session = self.session(Purpose::Control, deadline).await?;
        let out = look(&mut session, "look at what is here", deadline).await;
        let flavour = session.flavour;
        self.park(Purpose::Control, session);
        Ok(Had { flavour, seen: out? })
    }

    /// Transactions of this server that `theirs` (`MysqlFacts::executed`) does not have: executed, or received and
    /// not applied. Empty: none.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] if one of the sets cannot be read.
    pub async fn extra_transactions(&self, theirs: &str, deadline: Duration) -> Result<String, MysqlError> {
        self.had(deadline).await?.extra(theirs)
    }

    /// Makes this closed server a replica of `source`, without starting it. Refused when it has transactions that
    /// the source lacks, and on a server that accepts writes.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] on a writable server or an unreadable set.
    pub async fn attach(&self, source: &SourceServer, deadline: Duration) -> Result<Attached, MysqlError> {
        let end = Instant::now() + deadline;
        let mut session = Session::dial(self.access(), Purpose::Control, deadline).await?;
        let out = self.attach_on(&mut session, source, end).await;
        self.park(Purpose::Control, session);
        out
    }

    async fn attach_on(
        &self,
        session: &mut Session,
        source: &SourceServer,
        end: Instant,
    ) -> Result<Attached, MysqlError> {
        let what = "attach";
        let left = || end.saturating_duration_since(Instant::now());
        let flavour = session.flavour;
        let seen = look(session, what, left()).await?;
        if !seen.read_only {
            return Err(MysqlError::answer(what, "refused: the server accepts writes"));
        }
        let extra = extra_of(flavour, &seen, &source.executed)?;
        if !extra.is_empty() {
            return Ok(Attached::Refused { extra });
        }
        let follows = seen
            .replication
            .as_ref()
            .is_some_and(|replica| replica.source_host == source.host && replica.source_port == source.port);
        // The source side first: left on, the applier waits at each transaction for nobody's acknowledgement.
        let mut text =
            [flavour::semi_sync_source(flavour, false), flavour::semi_sync_replica_on(flavour)].join("; ");
        if !follows {
            if seen.replication.is_some() {
                text = format!("{text}; {}", flavour::stop(flavour, Threads::Both));
            }
            let pos = slave_pos(flavour, &seen)?;
            let access = self.access();
            let whom = Source {
                host: &source.host,
                port: source.port,
                user: &access.replication_user,
                password: &access.replication_password,
            };
            text = format!("{text}; {}", flavour::attach(flavour, whom, pos.as_deref()));
        } else if seen
            .replication
            .as_ref()
            .is_some_and(|replica| replica.sql_running && !replica.receiver_alive)
        {
            // With both stopped MySQL would delete what was received and not applied; then it is told once the applier runs.
            text = format!("{text}; {}", flavour::outlast(flavour));
        }
        session.query(what, text, left()).await?;
        Ok(Attached::Attached)
    }

    /// True if the receiving thread would give up on a lost source soon, as MySQL's does unless it is told otherwise.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn gives_up_soon(&self, deadline: Duration) -> Result<bool, MysqlError> {
        let flavour = self.flavour(deadline).await?;
        let column = flavour::replica_columns(flavour).attempts;
        if column.is_empty() {
            return Ok(false);
        }
        let status = |flavour: Flavour| flavour::replica_status(flavour).to_owned();
        let answers = self.control("how long a source is tried", status, deadline).await?;
        let attempts = answers.first().and_then(|status| status.get::<u64>(column));
        // Nought is without end.
        Ok(attempts.is_some_and(|attempts| attempts != 0 && attempts < flavour::ATTEMPTS))
    }

    /// Starts a receiving thread that runs anew, with another word on how long it tries a lost source, while the applier goes
    /// on. Only with the source alive: what is under way is asked for again. Refused beside an applier that stands still: MySQL
    /// would delete what was received and not applied.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when refused.
    pub async fn outlast_source(&self, deadline: Duration) -> Result<(), MysqlError> {
        let what = "outlast the source";
        let mut session = self.session(Purpose::Control, deadline).await?;
        let out = outlast_on(&mut session, what, deadline).await;
        self.park(Purpose::Control, session);
        out
    }

    /// Starts both replication threads. On MariaDB what was received and not applied before both were stopped is
    /// asked for again, and lost if the source no longer has it: start only with the source alive.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn start_replication(&self, deadline: Duration) -> Result<(), MysqlError> {
        self.control("start replication", |flavour| flavour::start(flavour, Threads::Both), deadline)
            .await
            .map(|_| ())
    }
}

async fn outlast_on(session: &mut Session, what: &'static str, deadline: Duration) -> Result<(), MysqlError> {
    let flavour = session.flavour;
    let seen = look(session, what, deadline).await?;
    if !seen.replication.is_some_and(|replica| replica.sql_running) {
        return Err(MysqlError::answer(what, "refused: the applier stands still"));
    }
    let (stop, start) = (flavour::stop(flavour, Threads::Io), flavour::start(flavour, Threads::Io));
    session.query(what, format!("{stop}; {}; {start}", flavour::outlast(flavour)), deadline).await.map(drop)
}

fn extra_of(flavour: Flavour, seen: &Look, theirs: &str) -> Result<String, MysqlError> {
    let bad = |bad: gtid::BadSet| bad_set("extra transactions", &bad);
    let mut extra = gtid::extra(flavour, &seen.executed, theirs).map_err(bad)?;
    // What was received and never applied is errant too, if the source does not have it: it may have been
    // acknowledged to a client.
    if let Some(replica) = &seen.replication
        && !gtid::contains(flavour, theirs, &replica.received).map_err(bad)?
    {
        let received = format!("{}received {}", if extra.is_empty() { "" } else { "; " }, replica.received);
        extra.push_str(&received);
    }
    Ok(extra)
}

/// What `gtid_slave_pos` must be set to before attaching; `None` if it is that already, and on MySQL.
///
/// A server that was a primary has its own transactions only in its binary log; a server that was cloned has them
/// only in `gtid_slave_pos`. So it is the newer of both, per domain.
fn slave_pos(flavour: Flavour, seen: &Look) -> Result<Option<String>, MysqlError> {
    if flavour == Flavour::Mysql {
        return Ok(None);
    }
    let bad = |bad: gtid::BadSet| bad_set("attach", &bad);
    let wanted = gtid::union(flavour, &seen.binlog_pos, &seen.slave_pos).map_err(bad)?;
    let is_set = gtid::is_same(flavour, &wanted, &seen.slave_pos).map_err(bad)?;
    Ok((!is_set).then_some(wanted))
}
