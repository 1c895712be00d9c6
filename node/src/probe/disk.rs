//! The probe of a disk: how much room is left, and whether a small write gets to it in time.
//!
//! Asking a file system that is frozen or whose storage is gone hangs without end, and nothing can take the hanging
//! thread back. So one thread does all the looking; while it hangs no other look is begun, and each probe says at its
//! deadline that nothing has come. What no look has seen yet is told as not known: a holder whose first look is slow must not
//! pass for one whose disk is full, and give the baton away.

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
/// Of a file system that no look has told anything about.
const NOTHING: DiskFacts = DiskFacts { free_bytes: None, read_only: false, sync_ms: None };

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
        Ok(Self { looks, last: Mutex::new(Last { facts: NOTHING, hanging: None }) })
    }

    /// Looks once. `sync_ms` is `None` when the write did not end well within `deadline`, or an earlier one has not
    /// ended yet; the other fields are then from the last look that ended, if there was one. A full disk has `free_bytes` 0.
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
    let mut facts = NOTHING;
    if let Ok(stat) = statvfs(dir) {
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        facts.free_bytes = Some(free);
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
            facts.free_bytes = Some(0);
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
            assert!(
                facts.free_bytes.is_some_and(|free| free > 0) && !facts.read_only && facts.sync_ms.is_some(),
                "{facts:?}"
            );
        }
    }

    /// A data directory that is missing, or not mounted: nobody knows how much room there is.
    #[tokio::test]
    async fn a_missing_directory_is_not_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let probe = DiskProbe::new(dir.path().join("missing")).unwrap();
        assert_eq!(probe.look(D).await, NOTHING);
    }

    /// Runs `command` in the mount namespace of the calling thread.
    fn run(command: &str) {
        let status = std::process::Command::new("sh").args(["-ec", command]).status().unwrap();
        assert!(status.success(), "{command}: {status}");
    }

    /// One file system that is mounted read-only, and one whose flags say nothing while a write gets `EROFS`, as after an error
    /// of the device: there the probe's file is a link to the first.
    #[test]
    fn a_read_only_file_system() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("BATON_TEST_NO_SKIP").is_none(), "mounting needs root");
            eprintln!("skipped: mounting needs root");
            return;
        }
        // In a thread of its own, whose mount namespace ends with it.
        let looked = std::thread::spawn(|| {
            let (mounted, refusing) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            run(&format!(
                "mount --make-rprivate / && mount -t tmpfs -o ro none '{}'",
                mounted.path().display()
            ));
            std::os::unix::fs::symlink(mounted.path().join(FILE), refusing.path().join(FILE)).unwrap();
            let looked = [look(mounted.path()), look(refusing.path())];
            run(&format!("umount '{}'", mounted.path().display()));
            looked
        });
        for facts in looked.join().unwrap() {
            assert!(facts.read_only && facts.sync_ms.is_none() && facts.free_bytes.is_some(), "{facts:?}");
        }
    }

    /// A FIFO in the place of the file: opening it for writing hangs until somebody reads.
    #[tokio::test]
    async fn a_disk_that_hangs_has_one_look_in_flight_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join(FILE);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let probe = DiskProbe::new(dir.path()).unwrap();
        // No look has ended yet, so nothing is known, least of all that there is no room.
        for _ in 0..3 {
            assert_eq!(probe.look(Duration::from_millis(20)).await, NOTHING);
        }
        // Somebody reads and goes: the write ends, with an error since a FIFO cannot be synced.
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || std::fs::read(fifo)
        });
        let facts = probe.look(D).await;
        assert!(facts.sync_ms.is_none() && facts.free_bytes.is_some(), "{facts:?}");
        reader.join().unwrap().unwrap();
        std::fs::remove_file(&fifo).unwrap();
        assert!(probe.look(D).await.sync_ms.is_some());
    }
}
