//! Real servers for the tests of the hands: MariaDB, MySQL and Redis on temporary directories, with Unix sockets and
//! loopback ports, ended by their process id when a test ends, however it ends.
// Not every test program uses everything.
#![allow(clippy::unwrap_used, dead_code, unused_macros, unused_imports)]

pub mod database;
pub mod pair;
pub mod redis;

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A generous deadline for conditions on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child process that dies with the test: killed on drop, and by the kernel if the test's thread is gone.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        Self { child: command.process_group(0).spawn().unwrap() }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Stops it, and returns when all its threads stand still: until then one may still answer.
    pub fn freeze(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
        let started = Instant::now();
        while !self.stands_still() {
            assert!(started.elapsed() < PATIENCE, "process {} does not stop", self.pid());
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn stands_still(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks.flatten().all(|task| {
            // A thread that is gone stands still, too. The state follows the name, which ends at the last bracket.
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        })
    }

    pub fn thaw(&self) {
        self.signal(nix::sys::signal::Signal::SIGCONT);
    }

    /// Waits until it ends by itself, for as long as patience lasts.
    pub fn wait(&mut self) {
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// How it has ended; `None`: it runs.
    pub fn end(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills and reaps.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Says that a test cannot run here: `what` is missing, which `packages` bring. `make test` installs them, so there it is a
/// failure: a test that is skipped unseen proves nothing.
pub fn skip(what: &str, packages: &str) {
    let allowed = std::env::var_os("BATON_TEST_NO_SKIP").is_none();
    assert!(allowed, "no {what}: its packages are {packages}, and `make packages` installs them");
    eprintln!("skipped: no {what}");
}

/// A loopback port that nobody has at this moment: below those that the kernel hands out to whoever connects, and no two
/// calls of a process return the same.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + offset).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `condition` gives a value; panics with `what` when [`PATIENCE`] is used up.
pub async fn eventually<T, F>(what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
