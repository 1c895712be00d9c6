//! Closing the server to writes, within a budget, with an honest answer.
//!
//! ```text
//! session A:  SET GLOBAL read_only ────────(waits for locks)────────→ done
//! session B:  kill clients · kill again every 50 ms while A waits · kill what is left · read back
//! ```
//!
//! `read_only` waits behind every running write and every `LOCK TABLES`, and while it waits no new write gets in,
//! so the sessions in the way are killed. When the budget is used up A is killed too: on MySQL an abandoned
//! statement takes effect later. What counts is what the server says at the end, when A is gone: before, it may be
//! what A asked for.
//!
//! So are the agent's own sessions that write: a canary whose acknowledgement does not come any more holds its lock for
//! ever, and the server would never close.
//!
//! A commit that waits for a semi-sync acknowledgement is released by KILL on MariaDB. MySQL (9.7) only disconnects
//! its client, so that nobody hears of an acknowledgement, and the commit waits on with its lock: until the replica
//! answers or semi-sync is switched off the server stays open, which is what [`Closing::StillOpen`] then says. A node
//! that is no holder any more may never get that answer; [`Mysql::close_over_waiting_commits`] is for it.
//!
//! ```text
//! A:  SET GLOBAL super_read_only ──(waits for the commits; no new write begins)────────────→ done
//! B:        sees A wait · kills clients · semi-sync off: the commits end, nobody hears ┘
//! ```

use std::time::Duration;

use baton_runbooks::observe::Flavour;
use tokio::time::Instant;

use super::flavour;
use super::session::{Session, cell};
use super::{Mysql, MysqlError, PING_MAX, Purpose};

/// What came of closing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// The server refuses writes of clients, and says so.
    Closed {
        /// Client sessions that were ended.
        killed: u64,
        /// Duration in milliseconds.
        took_ms: u64,
    },
    /// The server accepts writes, and says so.
    StillOpen {
        /// What stood in the way.
        why: String,
    },
    /// The server does not say. It must be taken for open.
    Unknown {
        /// Why it could not be asked.
        why: String,
    },
}

/// The two sessions that closing takes, dialled while clients are still served. Dropped unused, both are closed.
#[derive(Debug)]
pub struct Ready {
    closer: Session,
    killer: Session,
}

/// How long sessions are waited for that only save time.
const READY_MAX: Duration = Duration::from_millis(250);
/// Pause between two rounds of killing while `read_only` waits.
const ROUND: Duration = Duration::from_millis(50);
/// Reading back has its own time, so that a used-up budget still ends in an answer.
const READ_BACK: Duration = Duration::from_millis(500);
/// The longest `lock_wait_timeout` that MySQL takes, in seconds: a year.
const LOCK_WAIT_MAX_S: u64 = 31_536_000;
/// `SET GLOBAL read_only` gives up after the session's `lock_wait_timeout`, 1 s; it is tried again this often at most.
const ATTEMPTS_MAX: u32 = 20;

impl Mysql {
    /// Closes the server to writes of clients within `budget`, and half a second each for making sure that nothing
    /// of it still waits and for reading back. Ends all client
    /// sessions; replicas, the agent and the server's own threads stay.
    ///
    /// The event scheduler should be off before: an event of a privileged definer writes on a read-only MariaDB.
    pub async fn close_writes(&self, budget: Duration) -> Closing {
        self.close(None, budget, Waiting::Stay).await
    }

    /// As [`Mysql::close_writes`], on sessions that were dialled before if they still answer. Dialling takes milliseconds in
    /// which a holder that hands over serves nobody.
    pub async fn close_writes_with(&self, ready: Option<Ready>, budget: Duration) -> Closing {
        self.close(ready, budget, Waiting::Stay).await
    }

    /// Dials what closing takes, within a quarter of a second. `None`: closing has to dial for itself.
    pub async fn ready_to_close(&self) -> Option<Ready> {
        match self.dial_to_close(Instant::now() + READY_MAX).await {
            Ok(ready) => Some(ready),
            Err(error) => {
                tracing::debug!(error = chain(&error), "no sessions for closing yet");
                None
            }
        }
    }

    /// As [`Mysql::close_writes`], and commits that wait for a replica's acknowledgement are finished without one. None of
    /// them is acknowledged: their clients, the agent's canary among them, are disconnected before, and from then until the server is closed no
    /// other write begins. They stay in the binary log, as they would after a crash, and may be extra.
    ///
    /// On MySQL semi-sync's source side is off afterwards if it closed, and on again if it did not; on MariaDB this is [`Mysql::close_writes`], which finishes them. Only
    /// for a server whose node is no holder, and only with everybody else excluded who opens it or switches semi-sync.
    pub async fn close_over_waiting_commits(&self, budget: Duration) -> Closing {
        self.close(None, budget, Waiting::Finish).await
    }

    async fn close(&self, ready: Option<Ready>, budget: Duration, waiting: Waiting) -> Closing {
        let started = Instant::now();
        let end = started + budget;
        let mut killed = 0;
        let attempt = match self.close_until(ready, end, waiting, &mut killed).await {
            Ok(()) => Ok(()),
            Err(GaveUp { error, is_over: true }) => Err(error),
            Err(GaveUp { error, is_over: false }) => {
                return Closing::Unknown { why: format!("the statement may still wait: {}", chain(&error)) };
            }
        };
        match self.is_read_only(READ_BACK).await {
            Ok(true) => Closing::Closed {
                killed,
                took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
            Ok(false) => Closing::StillOpen {
                why: attempt.map_or_else(|error| chain(&error), |()| "reads open".into()),
            },
            Err(error) => Closing::Unknown { why: chain(&error) },
        }
    }

    async fn close_until(
        &self,
        ready: Option<Ready>,
        end: Instant,
        waiting: Waiting,
        killed: &mut u64,
    ) -> Result<(), GaveUp> {
        let left = || end.saturating_duration_since(Instant::now());
        let nothing_begun = |error| GaveUp { error, is_over: true };
        let Ready { mut closer, mut killer } = self.still_ready(ready, end).await.map_err(nothing_begun)?;
        // MariaDB finishes them with their sessions. With semi-sync off a local client that came meanwhile was told of its
        // commit there (10.11).
        let waiting = if closer.flavour == Flavour::Mysql { waiting } else { Waiting::Stay };
        if waiting == Waiting::Finish {
            // Between two attempts, with semi-sync off, a write could begin and be acknowledged. Nor may it give up while the
            // agent stands still: it is ended below.
            let patience = format!("SET SESSION lock_wait_timeout={LOCK_WAIT_MAX_S}");
            closer.query("close writes", patience, left()).await.map_err(nothing_begun)?;
        }
        let mut is_set = false;
        let counts = (killed, &mut is_set);
        let out = match self.close_with(&mut closer, &mut killer, (end, waiting), counts).await {
            Ok(()) => Ok(()),
            // Never writable with semi-sync off: while the closer waits no write begins.
            Err(error) if waiting == Waiting::Finish && !is_set && !self.wait_again(&mut killer).await => {
                Err(GaveUp { error, is_over: false })
            }
            Err(error) => Err(GaveUp { error, is_over: self.end_session(&mut killer, closer.id).await }),
        };
        self.park(Purpose::Control, killer);
        // What was set stays set, whoever could not be killed after it.
        if is_set { Ok(()) } else { out }
    }

    /// What was dialled before, if both sessions still answer, or new ones.
    async fn still_ready(&self, ready: Option<Ready>, end: Instant) -> Result<Ready, MysqlError> {
        if let Some(mut ready) = ready {
            let patience = PING_MAX.min(end.saturating_duration_since(Instant::now()));
            let (closer, killer) = tokio::join!(ready.closer.ping(patience), ready.killer.ping(patience));
            if closer.is_ok() && killer.is_ok() {
                return Ok(ready);
            }
        }
        self.dial_to_close(end).await
    }

    async fn dial_to_close(&self, end: Instant) -> Result<Ready, MysqlError> {
        let left = || end.saturating_duration_since(Instant::now());
        let killer = self.session(Purpose::Control, left()).await?;
        let closer = Session::dial(self.access(), Purpose::Control, left()).await?;
        Ok(Ready { closer, killer })
    }

    /// Commits wait for a replica again. False if that was not seen within [`READ_BACK`].
    async fn wait_again(&self, killer: &mut Session) -> bool {
        let end = Instant::now() + READ_BACK;
        let left = || end.saturating_duration_since(Instant::now());
        while !left().is_zero() {
            if !self.dial_again(killer, left()).await {
                return false;
            }
            let on = flavour::semi_sync_source(killer.flavour, true).to_owned();
            if killer.query("wait for the replica again", on, left()).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// A session that can be used, the same one if it can. False: there is none.
    async fn dial_again(&self, session: &mut Session, left: Duration) -> bool {
        if session.is_usable() {
            return true;
        }
        let dialled = Session::dial(self.access(), Purpose::Control, left).await;
        dialled.map(|fresh| *session = fresh).is_ok()
    }

    /// Kills the session until the server knows it no more. False if that was not seen within [`READ_BACK`].
    async fn end_session(&self, killer: &mut Session, id: u32) -> bool {
        let end = Instant::now() + READ_BACK;
        let left = || end.saturating_duration_since(Instant::now());
        while !left().is_zero() {
            if !self.dial_again(killer, left()).await {
                return false;
            }
            match killer.query("kill own statement", format!("KILL {id}"), left()).await {
                // ER_NO_SUCH_THREAD
                Err(MysqlError::Server { code: 1094, .. }) => return true,
                Ok(_) | Err(_) => tokio::time::sleep(ROUND / 10).await,
            }
        }
        false
    }

    async fn close_with(
        &self,
        closer: &mut Session,
        killer: &mut Session,
        (end, waiting): (Instant, Waiting),
        (killed, is_set): (&mut u64, &mut bool),
    ) -> Result<(), MysqlError> {
        let what = "close writes";
        let left = || end.saturating_duration_since(Instant::now());
        *killed += self.kill_clients_on(killer, left()).await?;
        let id = closer.id;
        let mut unfinished = waiting == Waiting::Finish;
        for _ in 0..ATTEMPTS_MAX {
            let set = closer.query(what, flavour::close(closer.flavour).to_owned(), left());
            tokio::pin!(set);
            let out = loop {
                tokio::select! {
                    out = &mut set => break out,
                    () = tokio::time::sleep(ROUND) => {
                        // In this order: who writes when the closer waits is among the sessions that are ended.
                        let finish = unfinished && waits_for_lock(killer, id, left()).await?;
                        *killed += self.kill_clients_on(killer, left()).await?;
                        let own = flavour::own_writers(killer.flavour, &self.access().user);
                        kill_listed(killer, own, left()).await?;
                        // A statement without time is sent all the same, and the server carries it out.
                        if finish && !left().is_zero() {
                            let off = flavour::semi_sync_source(killer.flavour, false).to_owned();
                            killer.query("finish waiting commits", off, left()).await?;
                            unfinished = false;
                        }
                    }
                }
            };
            match out {
                // ER_LOCK_WAIT_TIMEOUT: somebody held a lock longer than it takes to be killed.
                Err(MysqlError::Server { code: 1205, .. }) if !left().is_zero() => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    *is_set = true;
                    // Transactions begun before cannot commit, but their sessions read through a closed port's back.
                    *killed += self.kill_clients_on(killer, left().max(READ_BACK)).await?;
                    return Ok(());
                }
            }
        }
        Err(MysqlError::answer(what, "locks were held through every attempt"))
    }

    /// Ends all client sessions once and says how many. Sessions that connect meanwhile are not among them.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn kill_clients(&self, deadline: Duration) -> Result<u64, MysqlError> {
        let mut session = self.session(Purpose::Control, deadline).await?;
        let out = self.kill_clients_on(&mut session, deadline).await;
        self.park(Purpose::Control, session);
        out
    }

    async fn kill_clients_on(&self, session: &mut Session, deadline: Duration) -> Result<u64, MysqlError> {
        let access = self.access();
        let own = [access.user.as_str(), access.replication_user.as_str()];
        let list = flavour::client_sessions(session.flavour, own);
        kill_listed(session, list, deadline).await
    }
}

/// What becomes of commits that wait for a replica's acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// They wait on.
    Stay,
    /// They end without one.
    Finish,
}

async fn waits_for_lock(session: &mut Session, id: u32, deadline: Duration) -> Result<bool, MysqlError> {
    let ask = flavour::waits_for_lock(id);
    let answers = session.query("see whether closing waits", ask, deadline).await?;
    Ok(answers.first().and_then(|answer| answer.get::<u64>("waits")) == Some(1))
}

/// Ends the sessions that the query `list` returns as column `id`, and says how many they were.
async fn kill_listed(session: &mut Session, list: String, deadline: Duration) -> Result<u64, MysqlError> {
    let what = "kill sessions";
    let end = Instant::now() + deadline;
    let answers = session.query(what, list, deadline).await?;
    let rows = answers.first().map_or(&[][..], |answer| answer.rows.as_slice());
    let mut killed = 0;
    for id in rows.iter().filter_map(|row| cell::<u64>(row, "id")) {
        let left = end.saturating_duration_since(Instant::now());
        match session.query(what, format!("KILL {id}"), left).await {
            Ok(_) => killed += 1,
            // ER_NO_SUCH_THREAD: it went by itself.
            Err(MysqlError::Server { code: 1094, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(killed)
}

/// Closing was given up.
struct GaveUp {
    error: MysqlError,
    /// The statement that closes is gone for certain; otherwise it may yet take effect.
    is_over: bool,
}

fn chain(error: &MysqlError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
