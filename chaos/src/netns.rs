//! Threads that live in another network namespace.
//!
//! A thread enters the namespace once, before it makes its first socket, and never leaves it: a socket belongs to the
//! namespace in which it was made, and a thread that goes back and forth makes sockets on the wrong side sooner or
//! later. Nothing here creates or deletes a namespace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

/// Why a thread could not be started in a namespace.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The namespace has no such file.
    #[error("open network namespace {path}")]
    Open {
        /// The file that was to be opened.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused the move; it needs `CAP_SYS_ADMIN`.
    #[error("enter network namespace {path}")]
    Enter {
        /// The namespace's file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: nix::Error,
    },
    /// The thread could not be started at all.
    #[error("start thread {name}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The thread ended before it could say whether it had entered.
    #[error("thread {name} ended before it entered its network namespace")]
    Lost {
        /// The thread's name.
        name: String,
    },
}

/// Moves the calling thread, for the rest of its life, into the namespace whose file is `path`.
///
/// # Errors
/// The file cannot be opened, or the kernel refuses.
pub fn enter(path: &Path) -> Result<(), EnterError> {
    let file = File::open(path).map_err(|source| EnterError::Open { path: path.to_owned(), source })?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|source| EnterError::Enter { path: path.to_owned(), source })
}

/// Starts a thread that enters `netns` (none: stays where it is) and then runs `body`. Returns once it has entered.
///
/// # Errors
/// The thread cannot be started or cannot enter.
pub fn spawn<T: Send + 'static>(
    name: &str,
    netns: Option<PathBuf>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<Option<T>>, EnterError> {
    let (said, hear) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let entered = netns.as_deref().map_or(Ok(()), enter);
            let go = entered.is_ok();
            // The starter may have given up; then nobody is interested in the answer either.
            let _ = said.send(entered);
            go.then(body)
        })
        .map_err(|source| EnterError::Thread { name: name.to_owned(), source })?;
    hear.recv().map_err(|_| EnterError::Lost { name: name.to_owned() })??;
    Ok(thread)
}
