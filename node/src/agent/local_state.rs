//! What the agent must remember on its own disk, beside the Raft log: which database instance it opened for writing.
//!
//! A database that runs writable and was *not* opened by an agent boots writable, and gets no lease (design, section 6).
//! An agent that restarts must be able to tell the two apart.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The file, and what it says.
#[derive(Debug)]
pub(crate) struct LocalState {
    path: PathBuf,
    opened: Mutex<Option<String>>,
}

impl LocalState {
    /// Reads the file in `dir`, if there is one.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        fs::create_dir_all(dir).with_context(|| format!("create the state directory {}", dir.display()))?;
        let path = dir.join("opened");
        let opened = match fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        Ok(Self { path, opened: Mutex::new(opened) })
    }

    /// The server instance that was opened last.
    pub(crate) fn opened(&self) -> Option<String> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that `server` is about to be opened; returns once it is on disk.
    pub(crate) fn note_opening(&self, server: &str) -> io::Result<()> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.as_deref() == Some(server) {
            return Ok(());
        }
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(server.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        *opened = Some(server.to_owned());
        Ok(())
    }
}

/// A number that no other start of an agent has.
pub(crate) fn draw_boot() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
