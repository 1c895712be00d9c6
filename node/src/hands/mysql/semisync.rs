//! Switching semi-synchronous replication, as the ledger says.
//!
//! The source side follows the role. Left on at a replica, its applier waits at each transaction for an
//! acknowledgement that nobody gives, and a promotion that stops replication then throws away what was received.

use std::time::{Duration, Instant};

use baton_runbooks::observe::{Flavour, SemiSyncFacts};

use super::flavour::{self, Threads};
use super::session::{Answer, Session, cell};
use super::{Mysql, MysqlError, Purpose};

/// How long a session is waited for that only saves time.
const SECOND_SESSION_MAX: Duration = Duration::from_millis(250);
/// Pause between two looks whether the statement that switches off has let the commits go.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Whether a side of semi-sync is to be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Commits wait for the replica.
    On,
    /// Commits wait for nobody; switching off lets those that wait go at once.
    Off,
}

impl Mysql {
    /// Switches the source side and reads it back. On sets wait point `AFTER_SYNC`, waiting without a replica, and
    /// the longest time-out first, so that it is never on with other values. On is refused on a read-only server:
    /// the source side is on at a primary only. Off on MySQL ends the agents' dump threads: the replica they serve connects
    /// again by itself.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when the server says something else afterwards.
    pub async fn semi_sync_source(
        &self,
        to: Switch,
        deadline: Duration,
    ) -> Result<SemiSyncFacts, MysqlError> {
        let what = "semi-sync source";
        let before = self.facts(deadline).await?;
        let now = &before.semi_sync;
        let as_wanted = match to {
            Switch::On if before.read_only => {
                return Err(MysqlError::answer(what, "refused: the server is read-only"));
            }
            Switch::On => now.source_enabled && now.variables_as_wanted,
            Switch::Off => !now.source_enabled,
        };
        if as_wanted {
            return Ok(before.semi_sync);
        }
        let set = |flavour| flavour::semi_sync_source(flavour, to == Switch::On).to_owned();
        let set = match (before.flavour, to) {
            (Flavour::Mysql, Switch::Off) => self.off_on_mysql(what, deadline).await,
            (Flavour::Mysql, Switch::On) | (Flavour::Mariadb, Switch::On | Switch::Off) => {
                self.control(what, set, deadline).await.map(drop)
            }
        };
        match set {
            // MariaDB 10.11: the statement can hang in the end of its acknowledgement thread, seen a few times in ten
            // thousand when semi-sync had been switched on a moment before. It ends when the dump threads do; the replica
            // that they serve connects again by itself.
            Err(MysqlError::Timeout { .. }) if to == Switch::Off => {
                self.end_dump_threads(None, deadline).await.map(drop)?
            }
            ended => ended?,
        }
        let after = self.facts(deadline).await?.semi_sync;
        let done = match to {
            Switch::On => after.source_enabled && after.variables_as_wanted,
            Switch::Off => !after.source_enabled,
        };
        if done {
            Ok(after)
        } else {
            Err(MysqlError::answer(what, format!("switched {to:?}, reads {after:?}")))
        }
    }

    /// Ends the threads that still send to a replica of the agents' on a server that is no primary any more, and says how
    /// many. Such a thread notices only when it next sends that its replica has gone. Until then it counts as a semi-sync
    /// client, and when this server is promoted and semi-sync switched on meanwhile, MariaDB was seen to hear no
    /// acknowledgement for up to a second.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn end_old_dump_threads(&self, deadline: Duration) -> Result<u64, MysqlError> {
        let user = self.access().replication_user.clone();
        self.end_dump_threads(Some(user), deadline).await
    }

    /// MySQL: the statement lets waiting commits go, then waits for the thread that reads acknowledgements, which looks up
    /// once a second or when a replica's connection ends. The server's global variables are locked meanwhile: nobody can
    /// connect, and no probe is answered. So the dump threads are ended as soon as the statement has begun to wait.
    async fn off_on_mysql(&self, what: &'static str, deadline: Duration) -> Result<(), MysqlError> {
        let mut setter = self.session(Purpose::Control, deadline).await?;
        let off = flavour::semi_sync_source(setter.flavour, false).to_owned();
        // There before the statement: nobody could connect any more. Where clients have taken every connection but the one
        // that is kept for us, the statement matters and not the second.
        let Ok(mut waker) = self.session(Purpose::Control, deadline.min(SECOND_SESSION_MAX)).await else {
            let ended = setter.query(what, off, deadline).await;
            self.park(Purpose::Control, setter);
            return ended.map(drop);
        };
        let ended = {
            let set = setter.query(what, off, deadline);
            let wake = self.wake_reader_of_acknowledgements(&mut waker, deadline);
            tokio::pin!(set, wake);
            let (ended, woken) = tokio::select! {
                // It looked up by itself meanwhile. What was listed is ended all the same: it is told in one way only.
                ended = &mut set => match ended {
                    Ok(answers) => (Ok(answers), wake.await),
                    Err(error) => (Err(error), Ok(())),
                },
                woken = &mut wake => (set.await, woken),
            };
            if let Err(error) = woken {
                tracing::warn!(%error, "switching semi-sync off may have taken a second: the dump threads were not ended");
            }
            ended
        };
        self.park(Purpose::Control, waker);
        self.park(Purpose::Control, setter);
        ended.map(drop)
    }

    async fn wake_reader_of_acknowledgements(
        &self,
        waker: &mut Session,
        deadline: Duration,
    ) -> Result<(), MysqlError> {
        let what = "wake the reader of acknowledgements";
        let user = self.access().replication_user.clone();
        let list = waker.query(what, flavour::dump_sessions(waker.flavour, Some(&user)), deadline).await?;
        let end = Instant::now() + deadline;
        while !has_let_go(&waker.query(what, flavour::SOURCE_STATUS.to_owned(), deadline).await?) {
            if Instant::now() >= end {
                return Err(MysqlError::answer(what, "the source still waits for its replica"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let rows = list.first().map_or(&[][..], |answer| answer.rows.as_slice());
        for id in rows.iter().filter_map(|row| cell::<u64>(row, "id")) {
            match waker.query(what, format!("KILL {id}"), deadline).await {
                // ER_NO_SUCH_THREAD: it went by itself.
                Ok(_) | Err(MysqlError::Server { code: 1094, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn end_dump_threads(&self, of: Option<String>, deadline: Duration) -> Result<u64, MysqlError> {
        let what = "end the dump threads";
        let list = |flavour| flavour::dump_sessions(flavour, of.as_deref());
        let answers = self.control(what, list, deadline).await?;
        let rows = answers.first().map_or(&[][..], |answer| answer.rows.as_slice());
        let mut ended = 0;
        for id in rows.iter().filter_map(|row| cell::<u64>(row, "id")) {
            match self.control(what, |_| format!("KILL {id}"), deadline).await {
                Ok(_) => ended += 1,
                // ER_NO_SUCH_THREAD: it went by itself.
                Err(MysqlError::Server { code: 1094, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ended)
    }

    /// Switches the replica side on and restarts the receiving thread if it runs without it. Only that thread: with
    /// both stopped MariaDB throws away what was received and not applied, so this is refused while the applying
    /// thread stands still.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when refused.
    pub async fn semi_sync_replica(&self, deadline: Duration) -> Result<SemiSyncFacts, MysqlError> {
        let what = "semi-sync replica";
        let before = self.facts(deadline).await?;
        if !before.semi_sync.replica_enabled {
            self.control(what, |flavour| flavour::semi_sync_replica_on(flavour).to_owned(), deadline).await?;
        }
        let receiving = before.replication.as_ref().is_some_and(|facts| facts.io_running);
        if receiving && !before.semi_sync.replica_on {
            if !before.replication.as_ref().is_some_and(|facts| facts.sql_running) {
                return Err(MysqlError::answer(what, "refused: the applying thread stands still"));
            }
            let restart = |flavour| {
                format!("{}; {}", flavour::stop(flavour, Threads::Io), flavour::start(flavour, Threads::Io))
            };
            self.control(what, restart, deadline).await?;
        }
        let after = self.facts(deadline).await?.semi_sync;
        if after.replica_enabled {
            Ok(after)
        } else {
            Err(MysqlError::answer(what, "switched on, reads off"))
        }
    }

    /// Semi-sync state of both sides.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn semi_sync_status(&self, deadline: Duration) -> Result<SemiSyncFacts, MysqlError> {
        Ok(self.facts(deadline).await?.semi_sync)
    }

    /// On a replica the source side must be off: brings it there, and says whether it had to.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn ensure_relay_rule(&self, deadline: Duration) -> Result<bool, MysqlError> {
        let before = self.facts(deadline).await?;
        if !before.read_only || !before.semi_sync.source_enabled {
            return Ok(false);
        }
        self.semi_sync_source(Switch::Off, deadline).await.map(|_| true)
    }
}

/// True if a source's status says that its commits wait for nobody.
fn has_let_go(status: &[Answer]) -> bool {
    status.first().is_some_and(|answer| answer.text("Value") == "OFF")
}
