//! Running the operator's own programs.
//!
//! A hook is an absolute path and its arguments, never a line for a shell. It runs in a process group of its own,
//! with an environment that the agent gives it and nothing else, and within a deadline; when that has passed the whole
//! group is killed. What it says is kept up to a limit. Whether a failure stops the run is the caller's to decide.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// What is kept of a hook's output, in bytes. It goes into the history, which is replicated.
pub const OUTPUT_MAX: usize = 64 * 1024;

/// After the hook has ended, how long its output is waited for: something that it left running may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(250);

/// Where a hook's programs are looked for. The agent's own PATH depends on how it was started.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A hook as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The program; absolute.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// Why a hook cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHook {
    /// Nothing is named.
    #[error("a hook needs a program")]
    Empty,
    /// A relative path would depend on the agent's directory and PATH.
    #[error("the hook's program must be an absolute path: {0:?}")]
    NotAbsolute(String),
}

impl Hook {
    /// A hook from its words, the program first.
    ///
    /// # Errors
    /// [`BadHook`].
    pub fn new(words: &[String]) -> Result<Self, BadHook> {
        let (program, args) = words.split_first().ok_or(BadHook::Empty)?;
        if !Path::new(program).is_absolute() {
            return Err(BadHook::NotAbsolute(program.clone()));
        }
        Ok(Self { program: program.into(), args: args.to_vec() })
    }
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookEnd {
    /// It exited with this status; 0 is success.
    Exited {
        /// The status.
        code: i32,
    },
    /// A signal ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It did not end within its deadline, and its group was killed. What it had done by then is not known.
    TimedOut {
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// It could not be started.
    NotStarted {
        /// The system's words.
        detail: String,
    },
}

/// What came of running a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRun {
    /// How it ended.
    pub end: HookEnd,
    /// Standard output and error, as they came, up to [`OUTPUT_MAX`].
    pub output: String,
    /// More came than was kept.
    pub is_cut: bool,
    /// Duration in milliseconds.
    pub took_ms: u64,
}

impl HookRun {
    /// True if the hook exited with status 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.end == HookEnd::Exited { code: 0 }
    }
}

/// Runs a hook with `env` (`BATON_EPOCH`, `BATON_RUN`, …) and PATH as its whole environment. If the caller goes
/// away, the hook's group is killed.
pub async fn run(hook: &Hook, env: &BTreeMap<String, String>, deadline: Duration) -> HookRun {
    let started = Instant::now();
    let output = Arc::new(Mutex::new(Output::default()));
    let end = match start(hook, env) {
        Ok(group) => follow(group, &output, deadline).await,
        Err(error) => HookEnd::NotStarted { detail: format!("{}: {error}", hook.program.display()) },
    };
    let output = std::mem::take(&mut *output.lock().unwrap_or_else(PoisonError::into_inner));
    HookRun {
        end,
        output: String::from_utf8_lossy(&output.kept).into_owned(),
        is_cut: output.is_cut,
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// A running hook; its whole group is killed on drop unless it was let go.
struct Group {
    child: Child,
    group: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // Fails if all of it has ended by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

fn start(hook: &Hook, env: &BTreeMap<String, String>) -> std::io::Result<Group> {
    let child = Command::new(&hook.program)
        .args(&hook.args)
        .env_clear()
        .env("PATH", PATH)
        .envs(env)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    Ok(Group { child, group })
}

async fn follow(mut group: Group, output: &Arc<Mutex<Output>>, deadline: Duration) -> HookEnd {
    let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
    let reading = async {
        tokio::join!(keep(stdout, output), keep(stderr, output));
    };
    tokio::pin!(reading);
    let mut is_read = false;
    let waited = tokio::time::timeout(deadline, async {
        loop {
            tokio::select! {
                status = group.child.wait() => break status,
                () = &mut reading, if !is_read => is_read = true,
            }
        }
    })
    .await;
    let end = match waited {
        Err(_) => HookEnd::TimedOut { after_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) },
        Ok(Err(error)) => HookEnd::NotStarted { detail: format!("waiting for it failed: {error}") },
        Ok(Ok(status)) => {
            // What it left running on purpose goes on.
            group.group = None;
            match (status.code(), status.signal()) {
                (Some(code), _) => HookEnd::Exited { code },
                (None, signal) => HookEnd::Signalled { signal: signal.unwrap_or(0) },
            }
        }
    };
    drop(group);
    if !is_read {
        let _ = tokio::time::timeout(OUTPUT_GRACE, reading).await;
    }
    end
}

#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    is_cut: bool,
}

/// Reads to the end, so that the hook never blocks on a full pipe, and keeps what there is room for.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, output: &Arc<Mutex<Output>>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let room = OUTPUT_MAX - output.kept.len();
        output.is_cut |= read > room;
        output.kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}
