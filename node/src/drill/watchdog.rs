//! The watchdog: a process that injects one fault, waits, and heals it, whatever becomes of the agent.
//!
//! Its words go to standard output, one per line: `ready`, `bites …`, `fails …`. It reads one line, `go`. Before that line it has
//! broken nothing, and ends when its input ends. After it, only the deadline or a SIGTERM counts, and both heal.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Told, SignalKind, signal};
use tokio::sync::oneshot;

use super::Note;
use crate::api::drill::FaultKind;
use crate::hands::containers::{Containers, Target};
use crate::hands::server::{self, ServerId, Watch};

/// What the watchdog says when it stands ready.
pub const READY: &str = "ready";
/// What it says, with what it saw, when the fault bites.
pub const BITES: &str = "bites";
/// What it says, with the reason, when the fault could not be injected; everything is healed then.
pub const FAILS: &str = "fails";
/// What it waits for.
pub const GO: &str = "go";

/// An agent that is to be stopped gets this long to say that it will be.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// A stop is seen within microseconds unless the process hangs in the kernel.
const STOPS_WITHIN: Duration = Duration::from_secs(1);
/// An armed fault that nobody injects is given up.
const WAITS_FOR_GO: Duration = Duration::from_secs(60);
/// Room that is taken at once, bytes.
const FILL_STEP: u64 = 256 << 20;
/// Between two steps.
const FILL_PAUSE: Duration = Duration::from_millis(1);
/// Between two looks for a process that has taken the place of a stopped one. A service that is restarted needs longer than
/// this to pass a health check.
const GUARD_EVERY: Duration = Duration::from_millis(200);
/// An engine that serves answers within milliseconds.
const ENGINE_WITHIN: Duration = Duration::from_secs(2);
/// What could not be healed at the deadline is tried again this often.
const AGAIN: Duration = Duration::from_millis(200);

/// Runs the watchdog for the note at `path`, on a runtime of one thread.
///
/// # Errors
/// The note cannot be read, or what it names is not there.
pub async fn run(path: &Path) -> io::Result<()> {
    // A session of its own: no terminal and no process group of the agent's reaches it. It leads one already only if
    // somebody started it by hand.
    let _ = nix::unistd::setsid();
    let note = Note::read(path)?.ok_or_else(|| io::Error::other("there is no note"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let targets = open(&note)?;
    say(READY, "")?;
    if !told_to_go().await {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_millis(note.state.spec.duration_ms);
    match inject(&note, &targets, deadline, &mut terminate).await {
        Ok(seen) => {
            // Nobody may be left who listens.
            let _ = say(BITES, &seen);
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                _ = terminate.recv() => {}
                () = guard(&note) => {}
            }
        }
        Err(error) => {
            let _ = say(FAILS, &error.to_string());
        }
    }
    while note.heal().is_err() {
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// The processes that the note names, each by a descriptor that no later process can take over.
fn open(note: &Note) -> io::Result<Vec<(ServerId, Watch)>> {
    let open = |process: &String| {
        let id: ServerId = process.parse()?;
        let watch = Watch::open(id)?.ok_or_else(|| io::Error::other(format!("{process} has ended")))?;
        Ok((id, watch))
    };
    note.stopped.iter().map(open).collect()
}

async fn told_to_go() -> bool {
    let (tell, told) = oneshot::channel();
    // A thread that is simply left behind if nothing comes.
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = tell.send(io::stdin().read_line(&mut line).is_ok() && line.trim() == GO);
    });
    matches!(tokio::time::timeout(WAITS_FOR_GO, told).await, Ok(Ok(true)))
}

async fn inject(
    note: &Note,
    targets: &[(ServerId, Watch)],
    deadline: Instant,
    terminate: &mut Told,
) -> io::Result<String> {
    if note.state.spec.kind == FaultKind::AgentFreeze {
        tokio::time::sleep(LAST_WORDS).await;
    }
    let mut seen = Vec::new();
    for (id, watch) in targets {
        watch.signal(Signal::SIGSTOP as i32)?;
        let until = Instant::now() + STOPS_WITHIN;
        while server::state(*id) != Some('T') {
            if Instant::now() >= until {
                return Err(io::Error::other(format!("{id} does not stop")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen.push(format!("the kernel says that {id} is stopped"));
    }
    if let Some(filler) = &note.filler {
        let bytes = fill(filler, note, deadline, terminate).await?;
        seen.push(format!("{} has {} MiB", filler.display(), bytes >> 20));
    }
    Ok(seen.join("; "))
}

/// Stops whatever takes the place of a stopped process of a container, until it is dropped. Each is written down before it
/// is stopped: whoever heals in this process's place must know it. An engine that does not answer is asked again.
async fn guard(note: &Note) {
    let Some(engine) = &note.engine else { return std::future::pending().await };
    let engine = Containers::new(engine);
    let mut known: BTreeSet<String> = note.stopped.iter().cloned().collect();
    loop {
        tokio::time::sleep(GUARD_EVERY).await;
        for name in &note.containers {
            let target = Target::Container(name.clone());
            let mains = engine.checked_mains(&target, ENGINE_WITHIN).await.unwrap_or_default();
            for process in mains.into_iter().filter_map(|main| main.process.ok()) {
                if !known.contains(&process.to_string()) && replace(note, process).await.is_ok() {
                    known.insert(process.to_string());
                }
            }
        }
    }
}

async fn replace(note: &Note, process: ServerId) -> io::Result<()> {
    let noted = note.clone();
    super::disk(move || noted.add_stopped(process)).await?;
    match Watch::open(process)? {
        Some(watch) => watch.signal(Signal::SIGSTOP as i32),
        None => Ok(()),
    }
}

/// Takes the room without writing it, in steps, so that it can be told to stop. A file system that cannot do that says so
/// (EOPNOTSUPP), and the fault cannot be done there: what the C library does instead writes every block, for minutes.
async fn fill(path: &Path, note: &Note, deadline: Instant, terminate: &mut Told) -> io::Result<u64> {
    let file = std::fs::File::create(path)?;
    let free = super::free_bytes(path)?;
    let bytes = note.filler_bytes.min(free.saturating_sub(note.leave_bytes));
    let mut filled = 0;
    while filled < bytes {
        if Instant::now() >= deadline {
            return Err(io::Error::other("its time was over before the disk was full"));
        }
        // A turn for the signal, too.
        if tokio::time::timeout(FILL_PAUSE, terminate.recv()).await.is_ok() {
            return Err(io::Error::other("told to end while it filled the disk"));
        }
        let step = FILL_STEP.min(bytes - filled);
        let place = libc::off_t::try_from(filled).map_err(io::Error::other)?;
        let length = libc::off_t::try_from(step).map_err(io::Error::other)?;
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), place, length)?;
        filled += step;
    }
    Ok(filled)
}

fn say(word: &str, more: &str) -> io::Result<()> {
    use std::io::Write;
    let mut out = io::stdout().lock();
    writeln!(out, "{word} {more}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{note, sleeper};
    use super::*;

    #[tokio::test]
    async fn a_fault_is_injected_and_seen() {
        let dir = tempfile::tempdir().unwrap();
        let filler = dir.path().join("filler");
        let (mut child, id) = sleeper();
        let note = Note {
            stopped: vec![id.to_string()],
            filler: Some(filler.clone()),
            filler_bytes: 1 << 20,
            ..note(FaultKind::MysqldFreeze, 1)
        };
        let targets = open(&note).unwrap();
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(600);
        inject(&note, &targets, deadline, &mut terminate).await.unwrap();
        assert_eq!(server::state(id), Some('T'));
        assert_eq!(std::fs::metadata(&filler).unwrap().len(), 1 << 20);
        note.heal().unwrap();
        let late = fill(&filler, &note, Instant::now(), &mut terminate).await;
        assert!(late.is_err(), "nothing is filled when the time is over");
        let brim = Note { leave_bytes: u64::MAX, ..note.clone() };
        assert_eq!(fill(&filler, &brim, deadline, &mut terminate).await.unwrap(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(open(&note).is_err(), "who has ended cannot be stopped");
    }
}
