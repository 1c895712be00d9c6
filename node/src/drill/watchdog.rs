//! The watchdog: a process that injects one fault, waits, and heals it, whatever becomes of the agent.
//!
//! Its words go to standard output, one per line: `ready`, `bites …`, `fails …`. It reads one line, `go`. Before that line it has
//! broken nothing, and ends when its input ends. After it, only the deadline or a SIGTERM counts, and both heal.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::Note;
use crate::api::drill::FaultKind;
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
    match inject(&note, &targets).await {
        Ok(seen) => {
            // Nobody may be left who listens.
            let _ = say(BITES, &seen);
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                _ = terminate.recv() => {}
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

async fn inject(note: &Note, targets: &[(ServerId, Watch)]) -> io::Result<String> {
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
        fill(filler, note.filler_bytes)?;
        seen.push(format!("{} has {} MiB", filler.display(), note.filler_bytes >> 20));
    }
    Ok(seen.join("; "))
}

/// Takes the room at once, without writing it where the file system can.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let file = std::fs::File::create(path)?;
    let bytes = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    nix::fcntl::posix_fallocate(&file, 0, bytes)?;
    Ok(())
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
        inject(&note, &targets).await.unwrap();
        assert_eq!(server::state(id), Some('T'));
        assert_eq!(std::fs::metadata(&filler).unwrap().len(), 1 << 20);
        note.heal().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(open(&note).is_err(), "who has ended cannot be stopped");
    }
}
