//! Saving transactions that no other server has, before anything overwrites them.
//!
//! ```text
//! binary log ── mariadb-binlog -v ──▶ Digest ──wanted lines──▶ NAME.sql.new ─sync, rename─▶ NAME.sql
//!                                        └── counts per table ─▶ NAME.json.new ─sync, rename─▶ NAME.json
//! ```
//!
//! The SQL has each row twice: as a server reads it and, in comments, as people do. The summary comes last, so that an
//! export with a summary is whole, and one without is begun anew. The server is only read; what it received and never
//! applied is in no binary log, so its relay logs are copied beside.

pub mod digest;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use baton_runbooks::observe::{ExportFacts, Flavour};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::gtid::{self, Errant};
use super::promote::bad_set;
use super::session::cell;
use super::{Mysql, MysqlError};
use digest::{Counts, Digest};

/// What is kept of the program's complaints, in bytes.
const COMPLAINT_MAX: u64 = 4096;
/// Deadline of one statement.
const STATEMENT: Duration = Duration::from_secs(5);

/// Rows of one table that were changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// A finished export, as its summary says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The transactions, as the refusal named them.
    pub extra: String,
    /// The SQL.
    pub file: PathBuf,
    /// Transactions found in the binary log. 0: it has none of them, since they were purged or never got there (MariaDB
    /// counts a transaction whose write failed on a full disk); only the data directory may tell then.
    pub transactions: u64,
    /// Transactions that were looked for; on MariaDB at most that many, since numbers are shared among servers.
    pub transactions_max: u64,
    /// Statements that are logged as text, such as DDL.
    pub statements: u64,
    /// Rows changed, by `schema.table`.
    pub tables: BTreeMap<String, RowCounts>,
    /// Copies of relay logs with transactions that were received and not applied.
    pub relay_logs: Vec<PathBuf>,
}

impl Export {
    /// The export of `extra` in `dir`, if it was finished.
    #[must_use]
    pub fn find(dir: &Path, extra: &str) -> Option<Self> {
        let text = std::fs::read_to_string(dir.join(format!("{}.json", name(extra)))).ok()?;
        let found: Self = serde_json::from_str(&text).ok()?;
        (found.extra == extra && found.file.exists()).then_some(found)
    }

    /// Rows changed, in all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|rows| rows.inserted + rows.updated + rows.deleted).sum()
    }

    /// What other nodes are told.
    #[must_use]
    pub fn facts(&self) -> ExportFacts {
        ExportFacts {
            transactions: self.transactions,
            file: self.file.display().to_string(),
            rows: self.rows(),
            tables: u64::try_from(self.tables.len()).unwrap_or(u64::MAX),
            statements: self.statements,
        }
    }
}

/// The program that prints a binary log of this family.
#[must_use]
pub const fn reader(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "mariadb-binlog",
        Flavour::Mysql => "mysqlbinlog",
    }
}

/// The same transactions have the same files.
fn name(extra: &str) -> String {
    let hash = extra.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("extra-{hash:016x}")
}

/// Everything that the thread which reads and writes needs.
struct Work {
    program: PathBuf,
    logs: Vec<PathBuf>,
    flavour: Flavour,
    wanted: Errant,
    sets: String,
    sql: PathBuf,
    until: std::time::Instant,
}

impl Mysql {
    /// Writes the transactions `extra` (of [`Mysql::attach`]'s refusal) into `dir`, which is made if need be. `program`
    /// prints a binary log; see [`reader`]. One that was finished before is not repeated.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when the binary log does not have them any more, a file cannot be read or
    /// written, or with the program's words.
    pub async fn export_extra(
        &self,
        extra: &str,
        dir: &Path,
        program: &Path,
        deadline: Duration,
    ) -> Result<Export, MysqlError> {
        let what = "export extra transactions";
        if let Some(found) = Export::find(dir, extra) {
            return Ok(found);
        }
        let end = Instant::now() + deadline;
        let failed = |error: io::Error| MysqlError::answer(what, error.to_string());
        let flavour = self.flavour(STATEMENT).await?;
        let (sets, received) = parts(extra);
        let wanted = gtid::errant(flavour, sets).map_err(|bad| bad_set(what, &bad))?;
        let transactions_max = wanted.count_max();
        private_dir(dir).map_err(failed)?;
        let mut relay_logs = Vec::new();
        if received {
            let aside = dir.join(name(extra));
            private_dir(&aside).map_err(failed)?;
            relay_logs = self.copy_relay_logs(&aside, end.saturating_duration_since(Instant::now())).await?;
        }
        let sql = dir.join(format!("{}.sql", name(extra)));
        let work = Work {
            program: program.to_owned(),
            logs: self.logs_with(flavour, &wanted).await?,
            flavour,
            wanted,
            sets: sets.to_owned(),
            sql: sql.clone(),
            until: end.into_std(),
        };
        let read = tokio::task::spawn_blocking(move || write_sql(work));
        let counts = read.await.map_err(|error| MysqlError::answer(what, error.to_string()))?;
        let Counts { transactions, statements, tables } = counts.map_err(failed)?;
        let export = Export {
            extra: extra.to_owned(),
            file: sql,
            transactions,
            transactions_max,
            statements,
            tables,
            relay_logs,
        };
        let text = serde_json::to_vec_pretty(&export).map_err(|error| failed(error.into()))?;
        let summary = dir.join(format!("{}.json", name(extra)));
        tokio::task::spawn_blocking(move || keep(&summary, |file| file.write_all(&text)))
            .await
            .map_err(|error| MysqlError::answer(what, error.to_string()))?
            .map_err(failed)?;
        Ok(export)
    }

    /// The binary logs from the one on in which the first of `wanted` is.
    async fn logs_with(&self, flavour: Flavour, wanted: &Errant) -> Result<Vec<PathBuf>, MysqlError> {
        let what = "list binary logs";
        let ask = "SHOW BINARY LOGS; SELECT @@global.log_bin_basename AS base";
        let answers = self.control(what, |_| ask.to_owned(), STATEMENT).await?;
        let [logs, base] = answers.as_slice() else {
            return Err(MysqlError::answer(what, "an answer is missing"));
        };
        let dir = PathBuf::from(base.text("base")).parent().map(Path::to_owned).unwrap_or_default();
        let names: Vec<String> = logs.rows.iter().filter_map(|row| cell(row, "Log_name")).collect();
        let mut first = 0;
        if flavour == Flavour::Mariadb {
            for (place, log) in names.iter().enumerate().rev() {
                if self.state_before(log).await.is_some_and(|state| {
                    wanted.all_begin_after(&state).is_ok_and(|all_begin_after| all_begin_after)
                }) {
                    first = place;
                    break;
                }
            }
        }
        Ok(names.into_iter().skip(first).map(|log| dir.join(log)).collect())
    }

    /// What MariaDB had executed before a log file began. Unknown: the file is read, which costs time only.
    async fn state_before(&self, log: &str) -> Option<String> {
        let ask = format!("SHOW BINLOG EVENTS IN {} LIMIT 3", super::flavour::quote(log));
        let answers = self.control("look into a binary log", |_| ask, STATEMENT).await.ok()?;
        let rows = &answers.first()?.rows;
        let list =
            rows.iter().find(|row| cell::<String>(row, "Event_type").as_deref() == Some("Gtid_list"))?;
        Some(cell::<String>(list, "Info")?.trim_matches(['[', ']']).to_owned())
    }
}

/// The transactions in the binary log, and whether there are some that were received only.
#[must_use]
pub fn parts(extra: &str) -> (&str, bool) {
    match extra.split_once("received ") {
        None => (extra, false),
        Some((sets, _)) => (sets.trim_end_matches([';', ' ']), true),
    }
}

/// True if an export of `saved` has everything that `extra` names; both as a refusal to attach names it.
///
/// # Errors
/// [`BadSet`](gtid::BadSet) if one of the two cannot be read.
pub fn covers(flavour: Flavour, saved: &str, extra: &str) -> Result<bool, gtid::BadSet> {
    let received =
        |text: &str| text.split_once("received ").map_or_else(String::new, |(_, set)| set.to_owned());
    let logged = |text| gtid::errant(flavour, parts(text).0);
    let is_logged = logged(saved)?.has_all(&logged(extra)?);
    Ok(is_logged && gtid::contains(flavour, &received(saved), &received(extra))?)
}

fn write_sql(work: Work) -> io::Result<Counts> {
    let mut digest = Digest::new(work.flavour, work.wanted.clone());
    let sql = work.sql.clone();
    keep(&sql, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        writeln!(out, "-- Transactions {} of this server, which the holder of the baton lacks.", work.sets)?;
        if work.wanted.count_max() > 0 {
            print_logs(&work, &mut digest, &mut out)?;
        }
        for (table, rows) in &digest.counts().tables {
            let RowCounts { inserted, updated, deleted } = rows;
            writeln!(out, "-- {table}: {inserted} inserted, {updated} updated, {deleted} deleted")?;
        }
        out.flush()
    })?;
    Ok(digest.counts().clone())
}

/// Runs the program over the logs and writes what the digest takes.
fn print_logs(work: &Work, digest: &mut Digest, out: &mut impl Write) -> io::Result<()> {
    let name = work.program.display().to_string();
    let mut command = Command::new(&work.program);
    command.args(["--no-defaults", "-v"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if work.flavour == Flavour::Mysql {
        command.arg(format!("--include-gtids={}", work.sets));
    }
    let mut child = Reaped(command.args(&work.logs).spawn().map_err(|error| {
        let kind = error.kind();
        io::Error::new(kind, format!("{name} cannot be run ({error}); install the package that has it"))
    })?);
    let said = child.0.stderr.take();
    // Beside the reading: a full pipe would stop the program.
    let said = std::thread::Builder::new().name("baton-export".into()).spawn(move || complaint(said))?;
    let mut lines =
        BufReader::with_capacity(1 << 20, child.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if digest.take(&line) {
            out.write_all(&line)?;
        }
        line.clear();
        if std::time::Instant::now() >= work.until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name} did not end in time")));
        }
    }
    let status = child.0.wait()?;
    let said = said.join().unwrap_or_default();
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{name} ended with {status}: {said}")))
    }
}

/// Does not outlive the reading.
struct Reaped(std::process::Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Fails if it has ended, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn complaint(pipe: Option<std::process::ChildStderr>) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        // What cannot be read is only missing from a message.
        let _ = pipe.by_ref().take(COMPLAINT_MAX).read_to_end(&mut kept);
        let _ = io::copy(&mut pipe, &mut io::sink());
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// What is in there are clients' data.
fn private_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a file under a temporary name, and gives it its own when it is on disk.
fn keep(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file = File::create(&fresh)?;
    write(&mut file)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_covers_what_it_was_made_of_and_nothing_later() {
        let saved = "0-1-12..13; received 0-1-15";
        for extra in ["", saved, "0-1-12..13", "received 0-1-15"] {
            assert!(covers(Flavour::Mariadb, saved, extra).unwrap(), "{extra}");
        }
        for extra in ["0-1-12..14; received 0-1-15", "0-1-12..13; received 0-1-16", "0-2-1..1"] {
            assert!(!covers(Flavour::Mariadb, saved, extra).unwrap(), "{extra}");
        }
        assert!(covers(Flavour::Mariadb, "", "").unwrap());
        assert!(!covers(Flavour::Mariadb, "", "received 0-1-3").unwrap(), "nothing was saved");
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        let saved = format!("{uuid}:3-5; received {uuid}:1-5");
        assert!(covers(Flavour::Mysql, &saved, &format!("{uuid}:4")).unwrap());
        assert!(!covers(Flavour::Mysql, &saved, &format!("{uuid}:3-6; received {uuid}:1-6")).unwrap());
        covers(Flavour::Mariadb, "nonsense", "").unwrap_err();
    }
}
