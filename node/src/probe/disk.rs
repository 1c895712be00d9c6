//! The probe of a disk: how much room is left, and whether a small write gets to it in time.
//!
//! Asking a file system that is frozen or whose storage is gone hangs without end, and nothing can take the hanging
//! thread back. So one thread does all the looking; while it hangs no other look is begun, and each probe says at its
//! deadline that nothing has come.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use baton_runbooks::observe::DiskFacts;
use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::sync::oneshot;

/// Name of the file that is written. In a data directory a plain file with a dot is nobody's table.
const FILE: &str = ".baton-disk-probe";
/// Bytes written: one sector, the smallest write that a device can refuse.
const SECTOR: usize = 512;

/// A probe of the file system that holds one directory.
#[derive(Debug)]
pub struct DiskProbe {
    looks: SyncSender<oneshot::Sender<DiskFacts>>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    facts: DiskFacts,
    /// The answer of a look that was given up and has not ended, as far as we know.
    hanging: Option<oneshot::Receiver<DiskFacts>>,
}

impl DiskProbe {
    /// Starts the looking thread for `dir`, which ends when the probe is dropped (or when its disk lets it).
    ///
    /// # Errors
    /// The system's error if no thread can be started.
    pub fn new(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        let (looks, wanted) = sync_channel(1);
        std::thread::Builder::new().name("baton-disk".to_owned()).spawn(move || serve(&dir, &wanted))?;
        let facts = DiskFacts { free_bytes: 0, read_only: false, sync_ms: None };
        Ok(Self { looks, last: Mutex::new(Last { facts, hanging: None }) })
    }

    /// Looks once. `sync_ms` is `None` when the write did not end well within `deadline`, or an earlier one has not
    /// ended yet; the other fields are then from the last look that ended. A full disk has `free_bytes` 0.
    pub async fn look(&self, deadline: Duration) -> DiskFacts {
        let waiting = self.last().hanging.take();
        let mut answer = match waiting {
            Some(answer) => answer,
            None => {
                let (sender, answer) = oneshot::channel();
                if self.looks.try_send(sender).is_err() {
                    return self.nothing();
                }
                answer
            }
        };
        match tokio::time::timeout(deadline, &mut answer).await {
            Ok(Ok(facts)) => {
                self.last().facts = facts;
                facts
            }
            Ok(Err(_)) => self.nothing(),
            Err(_) => {
                self.last().hanging = Some(answer);
                self.nothing()
            }
        }
    }

    fn nothing(&self) -> DiskFacts {
        DiskFacts { sync_ms: None, ..self.last().facts }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(dir: &Path, wanted: &Receiver<oneshot::Sender<DiskFacts>>) {
    for answer in wanted {
        // Nobody listens any more if the probe was dropped meanwhile.
        let _ = answer.send(look(dir));
    }
}

fn look(dir: &Path) -> DiskFacts {
    let mut facts = DiskFacts { free_bytes: 0, read_only: false, sync_ms: None };
    if let Ok(stat) = statvfs(dir) {
        facts.free_bytes = stat.blocks_available().saturating_mul(stat.fragment_size());
        facts.read_only = stat.flags().contains(FsFlags::ST_RDONLY);
    }
    let started = Instant::now();
    let written = write(dir);
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match written.as_ref().map_err(io::Error::raw_os_error) {
        Ok(()) => facts.sync_ms = Some(took_ms),
        // The kernel remounts a broken file system read-only without saying so in its flags.
        Err(Some(libc::EROFS)) => facts.read_only = true,
        Err(Some(libc::ENOSPC | libc::EDQUOT)) => {
            facts.free_bytes = 0;
            facts.sync_ms = Some(took_ms);
        }
        Err(_) => {}
    }
    facts
}

fn write(dir: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(FILE))?;
    file.write_all(&[b'.'; SECTOR])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_disk_that_works() {
        let dir = tempfile::tempdir().unwrap();
        let probe = DiskProbe::new(dir.path()).unwrap();
        for _ in 0..3 {
            let facts = probe.look(D).await;
            assert!(facts.free_bytes > 0 && !facts.read_only && facts.sync_ms.is_some(), "{facts:?}");
        }
    }

    #[tokio::test]
    async fn a_read_only_file_system() {
        let probe = DiskProbe::new("/proc/sys").unwrap();
        assert_eq!(probe.look(D).await.sync_ms, None);
    }

    /// A FIFO in the place of the file: opening it for writing hangs until somebody reads.
    #[tokio::test]
    async fn a_disk_that_hangs_has_one_look_in_flight_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join(FILE);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let probe = DiskProbe::new(dir.path()).unwrap();
        for _ in 0..3 {
            let facts = probe.look(Duration::from_millis(20)).await;
            assert_eq!(facts.sync_ms, None);
        }
        // Somebody reads and goes: the write ends, with an error since a FIFO cannot be synced.
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || std::fs::read(fifo)
        });
        let facts = probe.look(D).await;
        assert_eq!(facts.sync_ms, None);
        reader.join().unwrap().unwrap();
        std::fs::remove_file(&fifo).unwrap();
        assert!(probe.look(D).await.sync_ms.is_some());
    }
}
