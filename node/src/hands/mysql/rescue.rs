//! Saving what a restarted MariaDB replica had received and not applied, when the primary is gone.
//!
//! ```text
//! replica restarted (skip_slave_start) → look at the relay logs → copy them aside → mariadb-binlog | mariadb
//!   from gtid_slave_pos on → gtid_slave_pos := what is executed → promote, or attach
//! ```
//!
//! Starting replication instead would purge the relay logs and ask the primary again, which no longer answers. MySQL
//! keeps its relay logs and needs none of this: there the applying thread is just started. The account needs
//! BINLOG REPLAY, and for saved transactions that were logged as statements (DDL, and everything under
//! `binlog_format` STATEMENT or MIXED) the privileges of those statements: without them the replay ends at the first.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use baton_runbooks::observe::Flavour;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::Instant;

use super::flavour::quote;
use super::promote::{Look, bad_set, look};
use super::{Mysql, MysqlAccess, MysqlError, Purpose, gtid};

/// What came of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Position before.
    pub from: String,
    /// Position after.
    pub to: String,
    /// Number of transactions replayed.
    pub transactions: u64,
    /// Where the relay logs were copied to.
    pub copies: Vec<PathBuf>,
}

/// What is kept of the programs' complaints, in bytes.
const COMPLAINT_MAX: u64 = 4096;

/// What `mariadb-binlog` says when the logs have nothing after the start position.
const NOTHING_NEWER: &str = "never reached expected GTID state";

impl Mysql {
    /// Replays the relay logs that a restart left behind, after copying them to `aside`, an existing directory.
    /// Refused unless the server is a closed MariaDB replica whose threads both stand still and whose semi-sync
    /// source is off. Repeating it is harmless: it begins where the last one ended.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when refused, when a file cannot be copied, or with the programs' words.
    pub async fn replay_saved_relay_logs(
        &self,
        aside: &Path,
        deadline: Duration,
    ) -> Result<Replayed, MysqlError> {
        let what = "replay relay logs";
        let end = Instant::now() + deadline;
        let left = || end.saturating_duration_since(Instant::now());
        if self.semi_sync_status(left()).await?.source_enabled {
            return Err(MysqlError::answer(what, "refused: the semi-sync source is on"));
        }
        let mut session = self.session(Purpose::Control, left()).await?;
        let flavour = session.flavour;
        let out = look(&mut session, what, left()).await;
        self.park(Purpose::Control, session);
        let before = out?;
        let running =
            before.replication.as_ref().is_none_or(|replica| replica.sql_running || replica.receiver_alive);
        if flavour == Flavour::Mysql || !before.read_only || running {
            return Err(MysqlError::answer(what, "refused: not a closed MariaDB replica that stands still"));
        }
        let from = newest(&before)?;
        let copies = self.copy_relay_logs(aside, left()).await?;
        if !copies.is_empty() {
            pipe(self.access(), &from, &copies, left()).await?;
        }
        let mut session = self.session(Purpose::Control, left()).await?;
        let mut out = look(&mut session, what, left()).await;
        if let Ok(after) = &out {
            // Replication, if it is started one day, must not ask for these again.
            let set = format!("SET GLOBAL gtid_slave_pos={}", quote(&newest(after)?));
            out = session.query(what, set, left()).await.and(out);
        }
        self.park(Purpose::Control, session);
        let to = newest(&out?)?;
        let transactions = gtid::backlog(flavour, &to, &from).map_err(|bad| bad_set(what, &bad))?;
        Ok(Replayed { from, to, transactions, copies })
    }

    pub(super) async fn copy_relay_logs(
        &self,
        aside: &Path,
        deadline: Duration,
    ) -> Result<Vec<PathBuf>, MysqlError> {
        let what = "copy relay logs";
        let ask = "SELECT @@global.datadir AS datadir, @@global.relay_log_index AS relay_index";
        let answers = self.control(what, |_| ask.to_owned(), deadline).await?;
        let answer = answers.first().ok_or_else(|| MysqlError::answer(what, "no row"))?;
        let data = PathBuf::from(answer.text("datadir"));
        let (index, aside) = (data.join(answer.text("relay_index")), aside.to_path_buf());
        let copying = tokio::task::spawn_blocking(move || {
            let listed = std::fs::read_to_string(&index)?;
            let mut copies = Vec::new();
            for line in listed.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let log = data.join(line);
                let copy = aside.join(log.file_name().unwrap_or_default());
                std::fs::copy(&log, &copy)?;
                copies.push(copy);
            }
            Ok::<_, std::io::Error>(copies)
        });
        match tokio::time::timeout(deadline, copying).await {
            Ok(Ok(Ok(copies))) => Ok(copies),
            Ok(Ok(Err(error))) => Err(MysqlError::answer(what, error.to_string())),
            Ok(Err(error)) => Err(MysqlError::answer(what, error.to_string())),
            Err(_) => Err(MysqlError::Timeout {
                what,
                after_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}

/// The newest position of what is executed, by whichever way it came.
fn newest(seen: &Look) -> Result<String, MysqlError> {
    gtid::union(Flavour::Mariadb, &seen.binlog_pos, &seen.slave_pos)
        .map_err(|bad| bad_set("replay relay logs", &bad))
}

/// `mariadb-binlog … | mariadb`: one that fails, or a used-up deadline, ends both.
async fn pipe(
    access: &MysqlAccess,
    from: &str,
    logs: &[PathBuf],
    deadline: Duration,
) -> Result<(), MysqlError> {
    let what = "replay relay logs";
    let failed = |error: std::io::Error| MysqlError::answer(what, error.to_string());
    let mut reader = Command::new("mariadb-binlog");
    reader
        .arg("--no-defaults")
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !from.is_empty() {
        reader.arg(format!("--start-position={from}"));
    }
    let mut reader = reader.args(logs).spawn().map_err(failed)?;
    let Some(text) = reader.stdout.take() else {
        return Err(MysqlError::answer(what, "mariadb-binlog has no output"));
    };
    let text: Stdio = text.try_into().map_err(failed)?;
    let mut writer = Command::new("mariadb")
        .args(["--no-defaults", "--binary-mode", "--user", &access.user])
        .arg(format!("--socket={}", access.socket.display()))
        .env("MYSQL_PWD", &access.password)
        .kill_on_drop(true)
        .stdin(text)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (said, complained) = (reader.stderr.take(), writer.stderr.take());
    let work = async { tokio::join!(reader.wait(), writer.wait(), complaint(said), complaint(complained)) };
    let Ok((read, written, said, complained)) = tokio::time::timeout(deadline, work).await else {
        return Err(MysqlError::Timeout {
            what,
            after_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        });
    };
    let is_written = written.is_ok_and(|status| status.success());
    // The one complaint of mariadb-binlog that is none: the logs end where this would begin.
    if is_written && (read.is_ok_and(|status| status.success()) || said.contains(NOTHING_NEWER)) {
        return Ok(());
    }
    Err(MysqlError::answer(what, format!("{complained} {said}").trim().to_owned()))
}

async fn complaint(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        // What cannot be read is only missing from a message.
        let _ = (&mut pipe).take(COMPLAINT_MAX).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
