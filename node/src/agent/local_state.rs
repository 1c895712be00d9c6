//! What the agent must remember on its own disk, beside the Raft log: which database instance it opened for writing, which one
//! it found writable, how it found Redis, and that it stopped the event scheduler.
//!
//! A database that runs writable and was *not* opened by an agent boots writable, and gets no lease (design, section 6).
//! An agent that restarts must be able to tell the two apart, and must still know it when an earlier one has closed it.
//! Each process of Redis is judged once, when it is first seen; that is on disk before it is opened.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_runbooks::observe::{RedisBoot, RedisFacts};

/// The files, and what they say.
#[derive(Debug, Clone)]
pub(crate) struct LocalState {
    opened: Noted,
    writable_boot: Noted,
    redis_boot: Noted,
    /// The newest; it may not be on disk yet.
    redis_judged: Arc<Mutex<Option<RedisBoot>>>,
    events_path: PathBuf,
    events_stopped: Arc<AtomicBool>,
}

/// A server instance, and what is said of it, in a file of its own.
#[derive(Debug, Clone)]
struct Noted {
    path: PathBuf,
    server: Arc<Mutex<Option<String>>>,
}

impl Noted {
    fn open(path: PathBuf) -> anyhow::Result<Self> {
        use anyhow::Context;
        let server = match fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        Ok(Self { path, server: Arc::new(Mutex::new(server)) })
    }

    fn get(&self) -> Option<String> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns once it is on disk. The disk is waited for on a thread of its own: a hung one must not stop the tasks that
    /// close.
    async fn note(&self, server: &str) -> io::Result<()> {
        if self.get().as_deref() == Some(server) {
            return Ok(());
        }
        let (path, text) = (self.path.clone(), server.to_owned());
        let written = tokio::task::spawn_blocking(move || write(&path, &text));
        match tokio::time::timeout(SYNC_MAX, written).await {
            Ok(written) => written.map_err(io::Error::other)??,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not end a sync")),
        }
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server.to_owned());
        Ok(())
    }
}

/// What this agent has done about the event scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Events {
    /// It runs, or does not, as somebody else wants it.
    Untouched,
    /// This agent stopped it for a switchover, and has to start it again.
    Stopped,
}

/// A sync on a disk that serves takes milliseconds. One that hangs must not hold up whoever opens for longer than this.
const SYNC_MAX: Duration = Duration::from_secs(2);

impl LocalState {
    /// Reads the files in `dir`, if there are any.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        fs::create_dir_all(dir).with_context(|| format!("create the state directory {}", dir.display()))?;
        let opened = Noted::open(dir.join("opened"))?;
        let writable_boot = Noted::open(dir.join("writable-boot"))?;
        let redis_boot = Noted::open(dir.join("redis-boot"))?;
        let redis_judged = Arc::new(Mutex::new(redis_boot.get().and_then(|line| read_boot(&line))));
        let events_path = dir.join("events-stopped");
        let events_stopped = Arc::new(AtomicBool::new(events_path.exists()));
        Ok(Self { opened, writable_boot, redis_boot, redis_judged, events_path, events_stopped })
    }

    /// This agent, or an earlier one, stopped the event scheduler.
    pub(crate) fn events(&self) -> Events {
        if self.events_stopped.load(Ordering::Acquire) { Events::Stopped } else { Events::Untouched }
    }

    /// Notes what is about to be done, or has been done, about the event scheduler; returns once it is on disk.
    pub(crate) async fn note_events(&self, events: Events) -> io::Result<()> {
        if self.events() == events {
            return Ok(());
        }
        let path = self.events_path.clone();
        let noted = tokio::task::spawn_blocking(move || match events {
            Events::Stopped => write(&path, "stopped"),
            Events::Untouched => fs::remove_file(&path),
        });
        match tokio::time::timeout(SYNC_MAX, noted).await {
            Ok(noted) => noted.map_err(io::Error::other)??,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not end a sync")),
        }
        self.events_stopped.store(events == Events::Stopped, Ordering::Release);
        Ok(())
    }

    /// The server instance that was opened last.
    pub(crate) fn opened(&self) -> Option<String> {
        self.opened.get()
    }

    /// Notes that `server` is about to be opened; returns once it is on disk.
    pub(crate) async fn note_opening(&self, server: &str) -> io::Result<()> {
        self.opened.note(server).await
    }

    /// The server instance that was found writable last, although no agent had opened it.
    pub(crate) fn writable_boot(&self) -> Option<String> {
        self.writable_boot.get()
    }

    /// Notes that `server` was found writable; returns once it is on disk.
    pub(crate) async fn note_writable_boot(&self, server: &str) -> io::Result<()> {
        self.writable_boot.note(server).await
    }

    /// How the newest process of Redis was found that an agent of this node has seen.
    pub(crate) fn redis_boot(&self) -> Option<RedisBoot> {
        self.redis_judged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Judges the process that these facts are of. Nothing is written here: a disk that hangs must not delay a probe.
    pub(crate) fn judge_redis(&self, facts: &RedisFacts) {
        let mut judged = self.redis_judged.lock().unwrap_or_else(PoisonError::into_inner);
        *judged = Some(RedisBoot::of(judged.take(), facts));
    }

    /// Returns once the newest judgement is on disk.
    pub(crate) async fn note_redis_boot(&self) -> io::Result<()> {
        match self.redis_boot() {
            Some(boot) => self.redis_boot.note(&boot_line(&boot)).await,
            None => Ok(()),
        }
    }
}

/// `pid@ticks open` or `pid@ticks closed`.
fn boot_line(boot: &RedisBoot) -> String {
    format!("{} {}", boot.server, if boot.open { "open" } else { "closed" })
}

/// `None` for anything else: the process is judged anew.
fn read_boot(line: &str) -> Option<RedisBoot> {
    let (server, found) = line.split_once(' ')?;
    let open = match found {
        "open" => true,
        "closed" => false,
        _ => return None,
    };
    Some(RedisBoot { server: server.to_owned(), open })
}

/// Writes a small file under a temporary name, and gives it its own when it is on disk.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// A number that no other start of an agent has.
pub(crate) fn draw_boot() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_opened_is_known_to_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let state = LocalState::open(dir.path()).unwrap();
        assert_eq!(state.opened(), None);
        state.note_opening("12@34").await.unwrap();
        state.note_opening("12@34").await.unwrap();
        assert_eq!(state.opened().as_deref(), Some("12@34"));
        assert_eq!(LocalState::open(dir.path()).unwrap().opened().as_deref(), Some("12@34"));
    }

    #[tokio::test]
    async fn what_was_found_writable_is_known_to_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let state = LocalState::open(dir.path()).unwrap();
        assert_eq!(state.writable_boot(), None);
        state.note_writable_boot("12@34").await.unwrap();
        assert_eq!(LocalState::open(dir.path()).unwrap().writable_boot().as_deref(), Some("12@34"));
        assert_eq!(LocalState::open(dir.path()).unwrap().opened(), None);
    }

    fn redis(server: &str, min_replicas_to_write: u64) -> RedisFacts {
        RedisFacts {
            server: server.to_owned(),
            primary: true,
            loading: false,
            link_up: false,
            follows: None,
            offset: 0,
            keys: 0,
            min_replicas_to_write,
        }
    }

    #[tokio::test]
    async fn how_redis_was_found_is_known_to_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let of = |server: &str, open| Some(RedisBoot { server: server.to_owned(), open });
        let next = || LocalState::open(dir.path()).unwrap();
        let state = next();
        state.note_redis_boot().await.unwrap();
        assert_eq!(next().redis_boot(), None, "none was seen");
        for (server, min_replicas, open) in [("12@34", 0, true), ("56@78", 99, false)] {
            state.judge_redis(&redis(server, min_replicas));
            assert_eq!(state.redis_boot(), of(server, open));
            state.note_redis_boot().await.unwrap();
            // It is judged once.
            state.judge_redis(&redis(server, 99 - min_replicas));
            state.note_redis_boot().await.unwrap();
            let next = next();
            assert_eq!(next.redis_boot(), of(server, open));
            next.judge_redis(&redis(server, 99 - min_replicas));
            assert_eq!(next.redis_boot(), of(server, open));
        }
        std::fs::write(dir.path().join("redis-boot"), "what is this").unwrap();
        assert_eq!(next().redis_boot(), None);
    }

    #[tokio::test]
    async fn stopped_events_are_known_to_the_next_agent_until_they_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = LocalState::open(dir.path()).unwrap();
        assert_eq!(state.events(), Events::Untouched);
        state.note_events(Events::Stopped).await.unwrap();
        assert_eq!(LocalState::open(dir.path()).unwrap().events(), Events::Stopped);
        state.note_events(Events::Untouched).await.unwrap();
        assert_eq!(LocalState::open(dir.path()).unwrap().events(), Events::Untouched);
    }
}
