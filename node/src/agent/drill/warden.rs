//! The agent's end of a watchdog: started, heard to be ready, told to go.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::drill::watchdog::{BITES, FAILS, GO, READY};
use crate::hands::server::{self, ServerId};

/// A program of ours that reads a file and opens some descriptors.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// A stop, or room for a file, takes milliseconds.
const BITES_WITHIN: Duration = Duration::from_secs(5);

/// A watchdog that stands ready or bites. Dropping it ends one that was not told to go, and no other.
#[derive(Debug)]
pub(super) struct Warden {
    child: Child,
    input: ChildStdin,
    words: Lines<BufReader<ChildStdout>>,
    id: ServerId,
}

impl Warden {
    /// Starts one for the note at `path` and waits until it says that it is ready.
    ///
    /// # Errors
    /// It is not.
    pub(super) async fn start(path: &Path) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| format!("this program is not found: {e}"))?;
        let mut child = Command::new(program)
            .arg("drill-watchdog")
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("the watchdog cannot be started: {e}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err("no pipes".to_owned()) };
        let mut words = BufReader::new(output).lines();
        let said = tokio::time::timeout(READY_WITHIN, words.next_line()).await;
        match said {
            Ok(Ok(Some(line))) if line.trim() == READY => {}
            Ok(Ok(said)) => return Err(format!("the watchdog is not ready: it says {said:?}")),
            Ok(Err(error)) => return Err(format!("the watchdog is not heard: {error}")),
            Err(_) => return Err(format!("the watchdog is not ready after {} s", READY_WITHIN.as_secs())),
        }
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or("the watchdog has ended")?;
        let id = server::of_pid(pid).map_err(|e| format!("the watchdog has ended: {e}"))?;
        Ok(Self { child, input, words, id })
    }

    /// Its process.
    pub(super) const fn id(&self) -> ServerId {
        self.id
    }

    /// Tells it to go. From here on it heals by itself.
    ///
    /// # Errors
    /// It is gone; nothing was broken.
    pub(super) async fn go(&mut self) -> Result<(), String> {
        let told = async {
            self.input.write_all(format!("{GO}\n").as_bytes()).await?;
            self.input.flush().await
        };
        told.await.map_err(|e| format!("the watchdog is gone: {e}"))
    }

    /// Waits until it says that the fault bites, and with what evidence.
    ///
    /// # Errors
    /// It could not inject it, and has healed.
    pub(super) async fn bites(&mut self) -> Result<String, String> {
        let said = tokio::time::timeout(BITES_WITHIN, self.words.next_line()).await;
        let line = match said {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => return Err("the watchdog ended".to_owned()),
            Ok(Err(error)) => return Err(format!("the watchdog is not heard: {error}")),
            Err(_) => return Err("the watchdog says nothing".to_owned()),
        };
        match line.split_once(' ') {
            Some((BITES, seen)) => Ok(seen.to_owned()),
            Some((FAILS, why)) => Err(why.to_owned()),
            Some(_) | None => Err(format!("the watchdog says {line:?}")),
        }
    }

    /// Waits until it has ended; it ends when everything is healed.
    pub(super) async fn ended(self) {
        let Self { mut child, input, words, .. } = self;
        // One that was never told to go ends when nobody can tell it any more.
        drop(input);
        let _ = child.wait().await;
        drop(words);
    }
}
