//! What outlives an agent that bears the fault of a drill: the note on disk, and the watchdog.
//!
//! ```text
//! note on disk ─▶ watchdog started, in a session of its own ─▶ "ready" ─▶ "go" ─▶ fault ─▶ "bites" ─▶ deadline ─▶ healed
//!                 an agent that dies before "go" has broken nothing; after it the watchdog needs nobody any more
//! ```
//!
//! What the kernel ends by itself (packets that are dropped) needs no watchdog. Whatever else stands for a while does:
//! a stopped process, a file that fills a disk. The next agent on this node reads the note and heals what it finds,
//! should a supervisor have killed both.

pub mod watchdog;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::api::drill::{FaultKind, FaultState};
use crate::hands::server::{self, ServerId, Watch};

/// Name of the note, in the directory of the agent's state.
const NOTE: &str = "drill-fault";
/// Name of the file that fills a disk. In a data directory a plain file with a dot is nobody's table.
pub const FILLER: &str = ".baton-drill-fill";

/// A disk that serves takes milliseconds, a watchdog that was told to end hardly more.
const DISK_WITHIN: Duration = Duration::from_secs(2);

/// The note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What everybody is told.
    pub state: FaultState,
    /// The boot of this host in which it was written: no process and no rule outlives one.
    pub boot: String,
    /// Processes that are or may be stopped, as `pid@ticks`.
    pub stopped: Vec<String>,
    /// The file that fills a disk.
    pub filler: Option<PathBuf>,
    /// Bytes that it is to have at most.
    pub filler_bytes: u64,
    /// Bytes that stay free whatever else is written meanwhile.
    #[serde(default)]
    pub leave_bytes: u64,
    /// Socket of the engine whose containers are kept stopped.
    #[serde(default)]
    pub engine: Option<PathBuf>,
    /// Names of those containers: whatever takes the place of a stopped process is stopped as well.
    #[serde(default)]
    pub containers: Vec<String>,
    /// File with more processes that are or may be stopped, one per line: the watchdog adds each before it stops it.
    #[serde(default)]
    pub more_stopped: Option<PathBuf>,
    /// The watchdog, as `pid@ticks`.
    pub watchdog: Option<String>,
}

/// Where the note is.
#[must_use]
pub fn note_path(state_dir: &Path) -> PathBuf {
    state_dir.join(NOTE)
}

/// Where the list of more processes is that goes with the note at `path`.
#[must_use]
pub fn more_path(path: &Path) -> PathBuf {
    path.with_extension("stopped")
}

/// Removes a file. Idempotent.
fn gone(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Note {
    /// Reads the note of an agent; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no note.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it, synced.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        crate::agent::write_synced(path, &text)
    }

    /// Removes it, and the list of processes that goes with it. Idempotent.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(path: &Path) -> io::Result<()> {
        Self::remove_more(&more_path(path))?;
        gone(path)
    }

    /// Removes the list of more processes. Idempotent.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_more(path: &Path) -> io::Result<()> {
        gone(path)
    }

    /// Adds a process to the list of those that may be stopped, synced.
    ///
    /// # Errors
    /// There is no list, or the disk refuses.
    pub fn add_stopped(&self, process: ServerId) -> io::Result<()> {
        let path = self.more_stopped.as_ref().ok_or_else(|| io::Error::other("there is no list"))?;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        io::Write::write_all(&mut file, format!("{process}\n").as_bytes())?;
        file.sync_data()
    }

    /// Every process that is or may be stopped.
    fn all_stopped(&self) -> io::Result<Vec<String>> {
        let mut all = self.stopped.clone();
        match self.more_stopped.as_ref().map(std::fs::read_to_string) {
            None => {}
            // A line that a crash has left unfinished is of a process that was not stopped yet.
            Some(Ok(text)) => {
                all.extend(
                    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned),
                );
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Some(Err(error)) => return Err(error),
        }
        Ok(all)
    }

    /// Thaws what is stopped and removes what fills the disk; what the kernel ends is not touched. Idempotent. Says
    /// what was seen afterwards.
    ///
    /// # Errors
    /// Something is left: what.
    pub fn heal(&self) -> Result<String, String> {
        let mut seen = Vec::new();
        let mut left = Vec::new();
        let stopped = self.all_stopped().unwrap_or_else(|error| {
            left.push(format!("the list of stopped processes cannot be read: {error}"));
            self.stopped.clone()
        });
        for process in stopped.iter().filter(|_| self.is_of_this_boot()) {
            match thaw(process) {
                Ok(what) => seen.push(what),
                Err(error) => left.push(format!("{process} is not thawed: {error}")),
            }
        }
        if let Some(filler) = &self.filler {
            match remove_filler(filler) {
                Ok(()) => seen.push(format!("{} is gone", filler.display())),
                Err(error) => left.push(format!("{} cannot be removed: {error}", filler.display())),
            }
        }
        if left.is_empty() { Ok(seen.join("; ")) } else { Err(left.join("; ")) }
    }

    /// A restart of the host ends every process; a pid of before may be anybody's.
    fn is_of_this_boot(&self) -> bool {
        server::boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// Tells the watchdog to heal now; `false`: there is none any more.
    ///
    /// # Errors
    /// The system refuses.
    pub fn wake_watchdog(&self) -> io::Result<bool> {
        let Some(watchdog) = self.watchdog.as_deref().filter(|_| self.is_of_this_boot()) else {
            return Ok(false);
        };
        match Watch::open(watchdog.parse()?)? {
            Some(watch) => watch.signal(Signal::SIGTERM as i32).map(|()| true),
            None => Ok(false),
        }
    }

    /// Tells the watchdog to heal now, and waits until it has ended: as long as it lives it may still break something.
    pub async fn end_watchdog(&self, within: Duration) {
        let (Ok(true), Some(watchdog)) = (self.wake_watchdog(), &self.watchdog) else { return };
        if let Ok(id) = watchdog.parse() {
            let _ = tokio::time::timeout(within, server::exited(id)).await;
        }
    }

    /// Whether this fault stops a process or fills a disk, so that a watchdog ends it.
    #[must_use]
    pub const fn needs_watchdog(kind: FaultKind) -> bool {
        match kind {
            FaultKind::MysqldFreeze
            | FaultKind::AgentFreeze
            | FaultKind::ContainerUnhealthy
            | FaultKind::ReplicaDiskFull => true,
            FaultKind::MysqldKill
            | FaultKind::RedisKill
            | FaultKind::AgentKill
            | FaultKind::ContainerKill
            | FaultKind::Partition
            | FaultKind::OneWay
            | FaultKind::ReplicationLag
            | FaultKind::PowerOff => false,
        }
    }
}

/// Heals what the note at `path` names, without an agent and without a configuration: the watchdog first, then what it may
/// have left, then what is severed. The note stays: the next agent reads it, says what was borne, and removes it.
/// Idempotent. Says what was seen; `None`: there was no note.
///
/// # Errors
/// Something is left: what.
pub async fn heal_noted(path: &Path) -> Result<Option<String>, String> {
    let mended = baton_netops::sever::mend().await.map_err(|error| crate::chain::chain(&error));
    let note = Note::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let Some(note) = note else { return mended.map(|()| None) };
    note.end_watchdog(DISK_WITHIN).await;
    let seen = note.heal()?;
    mended?;
    Ok(Some(format!("{} of drill {} is healed. {seen}", note.state.spec.kind, note.state.drill)))
}

/// The same, and removes the note: an operator's word, with no agent to come.
///
/// # Errors
/// Something is left: what. The note is left too then.
pub async fn heal_here(path: &Path) -> Result<Option<String>, String> {
    let healed = heal_noted(path).await?;
    Note::remove(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(healed)
}

/// Removes the file that fills a disk, and makes that durable. Idempotent.
///
/// # Errors
/// The disk refuses.
pub fn remove_filler(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => match path.parent() {
            // Otherwise it may be back after a crash of the host, with no note that names it.
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Bytes that a database may still use in the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Works on a disk on a thread of its own: one that hangs must not stop the tasks that decide and close.
///
/// # Errors
/// What the work said; [`io::ErrorKind::TimedOut`] if it did not end.
pub(crate) async fn disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::time::timeout(DISK_WITHIN, tokio::task::spawn_blocking(work)).await {
        Ok(done) => done.map_err(io::Error::other)?,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")),
    }
}

/// Lets a stopped process go on, and looks.
fn thaw(process: &str) -> io::Result<String> {
    let id: ServerId = process.parse()?;
    let Some(watch) = Watch::open(id)? else { return Ok(format!("{process} has ended")) };
    watch.signal(Signal::SIGCONT as i32)?;
    match server::state(id) {
        Some('T') => Err(io::Error::other("the kernel still says that it is stopped")),
        Some(_) | None => Ok(format!("{process} runs")),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::drill::{FaultPhase, FaultSpec};

    pub(super) fn note(kind: FaultKind, duration_ms: u64) -> Note {
        let spec = FaultSpec {
            kind,
            duration_ms,
            peers: Vec::new(),
            service: None,
            leave_mib: None,
            kib_per_second: None,
        };
        let state = FaultState {
            drill: baton_runbooks::ledger::DrillId(1),
            spec,
            phase: FaultPhase::Armed,
            armed_at: Timestamp::UNIX_EPOCH,
            bit_at: None,
            shows_at: None,
            healed_at: None,
            heal: String::new(),
            effect: String::new(),
            healed: String::new(),
        };
        Note {
            state,
            boot: server::boot_id().unwrap(),
            stopped: Vec::new(),
            filler: None,
            filler_bytes: 0,
            leave_bytes: 0,
            engine: None,
            containers: Vec::new(),
            more_stopped: None,
            watchdog: None,
        }
    }

    pub(super) fn sleeper() -> (std::process::Child, ServerId) {
        let child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let id = server::of_pid(i32::try_from(child.id()).unwrap()).unwrap();
        (child, id)
    }

    #[test]
    fn what_the_note_names_is_thawed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let filler = dir.path().join(FILLER);
        std::fs::write(&filler, "x").unwrap();
        let (mut child, id) = sleeper();
        Watch::open(id).unwrap().unwrap().signal(Signal::SIGSTOP as i32).unwrap();
        let written = Note {
            stopped: vec![id.to_string()],
            filler: Some(filler.clone()),
            ..note(FaultKind::MysqldFreeze, 1)
        };
        let path = note_path(dir.path());
        written.write(&path).unwrap();
        let read = Note::read(&path).unwrap().unwrap();
        assert_eq!(read, written);
        for _ in 0..2 {
            read.heal().unwrap();
            assert!(server::state(id).is_some_and(|state| state != 'T') && !filler.exists());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        read.heal().expect("an ended process is not stopped");
        Note::remove(&path).unwrap();
        assert_eq!(Note::read(&path).unwrap(), None);
    }

    #[test]
    fn what_was_stopped_later_is_thawed_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = note_path(dir.path());
        let (mut child, id) = sleeper();
        let note = Note { more_stopped: Some(more_path(&path)), ..note(FaultKind::ContainerUnhealthy, 1) };
        note.write(&path).unwrap();
        note.heal().expect("no list is no process");
        note.add_stopped(id).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(more_path(&path))
            .and_then(|mut file| io::Write::write_all(&mut file, b"77"))
            .unwrap();
        Watch::open(id).unwrap().unwrap().signal(Signal::SIGSTOP as i32).unwrap();
        while server::state(id) != Some('T') {
            std::thread::yield_now();
        }
        Note::read(&path).unwrap().unwrap().heal().expect("half a line names nobody");
        assert!(server::state(id).is_some_and(|state| state != 'T'));
        Note::remove(&path).unwrap();
        assert!(!path.exists() && !more_path(&path).exists());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_note_of_another_boot_touches_no_process() {
        let (mut child, id) = sleeper();
        Watch::open(id).unwrap().unwrap().signal(Signal::SIGSTOP as i32).unwrap();
        let old = Note {
            stopped: vec![id.to_string()],
            boot: "another".into(),
            ..note(FaultKind::MysqldFreeze, 1)
        };
        old.heal().unwrap();
        assert!(!old.wake_watchdog().unwrap());
        // A stop is seen a moment after it was asked for.
        while server::state(id) != Some('T') {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
