//! Processes of a host: started in its namespace, reaped, restarted where a service manager would do so, found again
//! by the namespace that they stand in.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::shell;
use super::wait;

/// How long a service manager waits before it starts a service again.
pub const RESTART_AFTER: Duration = Duration::from_millis(100);

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name for messages.
    pub name: String,
    /// Network namespace of the host.
    pub netns: String,
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Additional environment; read again at each start.
    pub env: Arc<Mutex<Vec<(String, String)>>>,
    /// Where both its outputs are appended.
    pub log: PathBuf,
    /// Whether it is started again when it ends while the host has power.
    pub restart: bool,
    /// Whether the host has power.
    pub powered: Arc<AtomicBool>,
}

/// A started process.
#[derive(Debug, Clone)]
pub struct Process {
    name: String,
    pid: Arc<AtomicI32>,
    starts: Arc<AtomicU32>,
    supervised: Arc<AtomicBool>,
    /// Beside its log; a supervisor that is told to hold it starts nothing until it is told to go on.
    supervision: PathBuf,
}

/// While this file is there nobody starts the process again: somebody has stopped it on purpose.
pub const HELD: &str = "held";
/// While this file is there the process has a supervisor.
pub const SUPERVISED: &str = "supervised";

impl Process {
    /// From now on it is started again when it ends while the host has power, unless somebody stops it on purpose.
    ///
    /// # Errors
    /// The file that says so cannot be written.
    pub fn supervise(&self) -> Result<()> {
        std::fs::write(self.supervision.with_extension(SUPERVISED), [])?;
        self.supervised.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// From now on its supervisor does not start it again when it ends: somebody stops it on purpose.
    ///
    /// # Errors
    /// The file that says so cannot be written.
    pub fn hold(&self) -> Result<()> {
        Ok(std::fs::write(self.supervision.with_extension(HELD), [])?)
    }

    /// Its present pid, unless it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match self.pid.load(Ordering::SeqCst) {
            0 => None,
            pid => Some(Pid::from_raw(pid)),
        }
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::SeqCst)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// The state letter of the kernel: `T` stopped, `S` sleeping, `R` running; none if it has ended.
    #[must_use]
    pub fn state(&self) -> Option<char> {
        state(self.pid()?)
    }
}

/// The state letter of a process.
#[must_use]
pub fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Resident memory of a process, KiB.
///
/// # Errors
/// It has ended.
pub fn resident_kib(pid: Pid) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kib.context("VmRSS is there")?.trim().parse()?)
}

/// Starts a process and a thread that reaps it.
///
/// # Errors
/// It cannot be started at all. A program that ends at once is seen by who waits for it to be ready.
pub fn start(spec: Spec) -> Result<Process> {
    // What was said to the supervisor of an earlier one is over.
    for word in [HELD, SUPERVISED] {
        let _ = std::fs::remove_file(spec.log.with_extension(word));
    }
    let child = spawn(&spec)?;
    let process = Process {
        name: spec.name.clone(),
        pid: Arc::new(AtomicI32::new(pid_of(&child))),
        starts: Arc::new(AtomicU32::new(1)),
        supervised: Arc::new(AtomicBool::new(spec.restart)),
        supervision: spec.log.clone(),
    };
    let watched = process.clone();
    std::thread::Builder::new()
        .name(format!("reap-{}", spec.name))
        .spawn(move || reap(&spec, child, &watched))?;
    Ok(process)
}

/// Watches a process that somebody else has started, as if it had been started here.
///
/// # Errors
/// No thread can be started.
pub fn adopt(name: String, pid: Pid) -> Result<Process> {
    let process = Process {
        name: name.clone(),
        pid: Arc::new(AtomicI32::new(pid.as_raw())),
        starts: Arc::new(AtomicU32::new(1)),
        supervised: Arc::default(),
        supervision: PathBuf::new(),
    };
    let watched = process.clone();
    std::thread::Builder::new().name(format!("watch-{name}")).spawn(move || {
        while state(pid).is_some_and(|state| state != 'Z') && wait::pass(wait::EVERY).is_ok() {}
        watched.pid.store(0, Ordering::SeqCst);
    })?;
    Ok(process)
}

fn reap(spec: &Spec, mut child: Child, process: &Process) {
    loop {
        let ended = child.wait();
        process.pid.store(0, Ordering::SeqCst);
        if ended.is_err() || !process.supervised.load(Ordering::SeqCst) {
            return;
        }
        let is_held = || process.supervision.with_extension(HELD).exists();
        loop {
            if wait::pass(RESTART_AFTER).is_err() || !spec.powered.load(Ordering::SeqCst) {
                return;
            }
            if !is_held() {
                break;
            }
        }
        match spawn(spec) {
            Ok(again) => child = again,
            Err(_) => return,
        }
        process.starts.fetch_add(1, Ordering::SeqCst);
        process.pid.store(pid_of(&child), Ordering::SeqCst);
    }
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid is an i32")
}

fn spawn(spec: &Spec) -> Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(&spec.log).context("open the log")?;
    let env = spec.env.lock().expect("nobody panics with the environment in hand").clone();
    shell::inside(&spec.netns, &spec.program)
        .args(&spec.args)
        .envs(env)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: the terminal's interrupt is for the harness, which takes the lab down in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", spec.name))
}

/// Every process that stands in a network namespace, whoever started it. Zombies are not among them.
#[must_use]
pub fn in_netns(path: &Path) -> Vec<Pid> {
    let Ok(wanted) = std::fs::metadata(path) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        })
        .map(Pid::from_raw)
        .collect()
}

/// Sends a signal to every process in a network namespace; returns how many there were.
#[must_use]
pub fn signal_all(path: &Path, signal: Signal) -> usize {
    // A process that ends meanwhile is as good as one that got the signal.
    in_netns(path).into_iter().filter(|pid| kill(*pid, signal).is_ok()).count()
}

/// Kills until nothing is left in a network namespace.
///
/// # Errors
/// Something survives for 10 s.
pub fn kill_all(path: &Path) -> Result<()> {
    wait::until_true("every process of the host to end", Duration::from_secs(10), || {
        Ok(signal_all(path, Signal::SIGKILL) == 0)
    })
}
