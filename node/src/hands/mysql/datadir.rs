//! The data directory of the local server while it is replaced by a copy of another's.
//!
//! ```text
//! DIR                  the server's directory
//! DIR.baton-incoming   the copy, until it is whole; rubbish after an interruption
//! DIR.baton-before     the old directory, until the node is in sync again
//! DIR.baton-kept-N     an old directory that nobody is to remove
//! ```
//!
//! All lie beside each other, so that a swap is two renames. Everything here blocks. Nothing here looks whether a
//! server runs: that is the caller's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

/// Small files of the old directory that a copy does not bring and the server, or its package, wants back: certificates,
/// what says which version wrote the directory, and settings of this very server. Not its `auto.cnf`: under a new identity
/// it never gives a number again that one of its old transactions had.
const CARRIED: [&str; 4] = [".pem", ".flag", "_upgrade_info", "mysqld-auto.cnf"];
/// A server that writes its copy itself makes the last directory.
const NESTED: &str = "data";

/// The directory, by its real path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    path: PathBuf,
}

/// What stands in the directory's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The node's own data.
    Own,
    /// Perhaps the copy of an earlier attempt, with the node's own data aside.
    Attempt,
}

/// Why a directory cannot be replaced.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It is the root of a file system, so nothing can take its place by a rename.
    #[error("{} is a mount point; move the data into a directory below it and set mysql.data_dir", path.display())]
    MountPoint {
        /// The directory.
        path: PathBuf,
    },
    /// A process works in it: a server that does not listen, perhaps.
    #[error("process {pid} works in {}; end it", path.display())]
    InUse {
        /// The process.
        pid: String,
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory cannot be used.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { verb, path, source }
}

impl DataDir {
    /// The directory that the configuration names. An interrupted swap may have left it away; its links are followed
    /// only while it is there.
    #[must_use]
    pub fn new(configured: &Path) -> Self {
        Self { path: fs::canonicalize(configured).unwrap_or_else(|_| configured.to_owned()) }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the copy comes in.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.beside(".baton-incoming")
    }

    /// Where the old directory is kept.
    #[must_use]
    pub fn before(&self) -> PathBuf {
        self.beside(".baton-before")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name: OsString = self.path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new("/"))
    }

    /// Whether a swap by renames is possible.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn check(&self) -> Result<(), DataDirError> {
        let parent = fs::metadata(self.parent()).map_err(failed("look at", self.parent()))?;
        let found = if self.path.exists() { self.path.clone() } else { self.before() };
        let own = fs::metadata(&found).map_err(failed("look at", &found))?;
        if own.dev() == parent.dev() {
            Ok(())
        } else {
            Err(DataDirError::MountPoint { path: self.path.clone() })
        }
    }

    /// Free bytes for a copy, those of an interrupted one included.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn free_bytes(&self) -> Result<u64, DataDirError> {
        let stat = statvfs(self.parent())
            .map_err(|errno| failed("look at the file system of", self.parent())(errno.into()))?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        Ok(free.saturating_add(bytes_in(&self.incoming())))
    }

    /// Removes what an interrupted copy left, puts the old directory back if nothing has taken its place, and makes an
    /// empty directory for the copy. An old directory beside the node's own data is of an earlier resync, and goes.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn begin(&self, standing: Standing) -> Result<PathBuf, DataDirError> {
        let (incoming, before) = (self.incoming(), self.before());
        remove(&incoming)?;
        remove(&self.beside(".baton-nested"))?;
        if !self.path.exists() && before.exists() {
            fs::rename(&before, &self.path).map_err(failed("put back", &before))?;
            self.sync_parent()?;
        }
        match standing {
            Standing::Own => remove(&before)?,
            Standing::Attempt => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&incoming).map_err(failed("make", &incoming))?;
        Ok(incoming)
    }

    /// As [`DataDir::begin`], for a copy that the local server writes: the answer does not exist, in a directory of the
    /// server's account.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn begin_nested(&self, standing: Standing) -> Result<PathBuf, DataDirError> {
        let incoming = self.begin(standing)?;
        let old = fs::metadata(&self.path).map_err(failed("look at", &self.path))?;
        give(&incoming, old.uid(), old.gid())?;
        Ok(incoming.join(NESTED))
    }

    /// Takes a copy that was begun with [`DataDir::begin_nested`] out of its directory.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn unnest(&self) -> Result<(), DataDirError> {
        let (incoming, outer) = (self.incoming(), self.beside(".baton-nested"));
        remove(&outer)?;
        fs::rename(&incoming, &outer).map_err(failed("rename", &incoming))?;
        fs::rename(outer.join(NESTED), &incoming).map_err(failed("rename", &outer.join(NESTED)))?;
        remove(&outer)
    }

    /// Gives the whole copy to the old directory's owner, brings what a copy lacks, and syncs its file system.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn dress(&self) -> Result<(), DataDirError> {
        let incoming = self.incoming();
        let old = fs::metadata(&self.path).map_err(failed("look at", &self.path))?;
        for entry in fs::read_dir(&self.path).map_err(failed("read", &self.path))?.flatten() {
            let name = entry.file_name();
            let is_carried = CARRIED.iter().any(|end| name.to_string_lossy().ends_with(end));
            let to = incoming.join(&name);
            if is_carried && entry.path().is_file() && !to.exists() {
                fs::copy(entry.path(), &to).map_err(failed("copy", &entry.path()))?;
            }
        }
        give(&incoming, old.uid(), old.gid())?;
        fs::set_permissions(&incoming, fs::Permissions::from_mode(old.mode() & 0o7777))
            .map_err(failed("set the mode of", &incoming))?;
        let dir = File::open(&incoming).map_err(failed("open", &incoming))?;
        nix::unistd::syncfs(&dir).map_err(|errno| failed("sync", &incoming)(errno.into()))
    }

    /// Puts the copy in place. The old directory is kept beside; if one is there already, it is the one with the node's
    /// own data, and what stands in place is the copy of an earlier attempt, which is removed.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn swap(&self) -> Result<(), DataDirError> {
        if let Some(pid) = worker_in(&self.path) {
            return Err(DataDirError::InUse { pid, path: self.path.clone() });
        }
        let before = self.before();
        if before.exists() {
            remove(&self.path)?;
        } else {
            fs::rename(&self.path, &before).map_err(failed("move away", &self.path))?;
        }
        let incoming = self.incoming();
        fs::rename(&incoming, &self.path).map_err(failed("put in place", &incoming))?;
        self.sync_parent()
    }

    /// Removes a copy that came to nothing.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn drop_incoming(&self) -> Result<(), DataDirError> {
        remove(&self.incoming())
    }

    /// Removes the old directory.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn drop_before(&self) -> Result<(), DataDirError> {
        remove(&self.before())
    }

    /// Keeps the old directory for good, under a name that no resync touches, and returns that.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn keep_before(&self, number: u64) -> Result<PathBuf, DataDirError> {
        let (before, kept) = (self.before(), self.beside(&format!(".baton-kept-{number}")));
        fs::rename(&before, &kept).map_err(failed("rename", &before))?;
        self.sync_parent().map(|()| kept)
    }

    fn sync_parent(&self) -> Result<(), DataDirError> {
        let parent = self.parent();
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed("sync", parent))
    }
}

/// A process whose working directory is this one: a server makes its data directory that.
fn worker_in(dir: &Path) -> Option<String> {
    let own = fs::metadata(dir).ok()?;
    let is_there = |entry: &fs::DirEntry| {
        // Also of processes in other mount namespaces: the kernel's link leads to the very directory.
        fs::metadata(entry.path().join("cwd"))
            .is_ok_and(|cwd| (cwd.dev(), cwd.ino()) == (own.dev(), own.ino()))
    };
    let worker = fs::read_dir("/proc").ok()?.flatten().find(is_there)?;
    Some(worker.file_name().to_string_lossy().into_owned())
}

/// Bytes of all files below a directory; what cannot be read counts nothing.
#[must_use]
pub fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

fn remove(dir: &Path) -> Result<(), DataDirError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", dir)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn give(path: &Path, uid: u32, gid: u32) -> Result<(), DataDirError> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(failed("change the owner of", path))?;
    if fs::symlink_metadata(path).map_err(failed("look at", path))?.is_dir() {
        for entry in fs::read_dir(path).map_err(failed("read", path))?.flatten() {
            give(&entry.path(), uid, gid)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the old data, in one that a test may fill.
    fn old() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mysql");
        fs::create_dir(&path).unwrap();
        for (name, text) in [("ibdata1", "old"), ("ca.pem", "own"), ("10.11.flag", ""), ("bin.000001", "x")] {
            fs::write(path.join(name), text).unwrap();
        }
        (dir, DataDir::new(&path))
    }

    fn come_in(data: &DataDir, standing: Standing, text: &str) {
        let incoming = data.begin(standing).unwrap();
        fs::create_dir(incoming.join("app")).unwrap();
        fs::write(incoming.join("ibdata1"), text).unwrap();
        data.dress().unwrap();
    }

    fn content(dir: &Path) -> String {
        fs::read_to_string(dir.join("ibdata1")).unwrap()
    }

    #[test]
    fn a_copy_takes_the_place_of_the_old_data_which_are_kept() {
        let (_dir, data) = old();
        data.check().unwrap();
        come_in(&data, Standing::Own, "copy");
        assert_eq!(content(data.path()), "old", "until it is swapped");
        data.swap().unwrap();
        assert_eq!((content(data.path()), content(&data.before())), ("copy".into(), "old".into()));
        assert!(data.path().join("ca.pem").exists() && data.path().join("10.11.flag").exists());
        assert!(!data.path().join("bin.000001").exists(), "its binary log is not the copy's");
        data.drop_before().unwrap();
        data.drop_before().unwrap();
        assert!(!data.before().exists());
    }

    #[test]
    fn a_directory_that_a_server_works_in_is_not_replaced() {
        let (_dir, data) = old();
        come_in(&data, Standing::Own, "copy");
        let mut server =
            std::process::Command::new("sleep").arg("600").current_dir(data.path()).spawn().unwrap();
        let refused = data.swap().unwrap_err();
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(
            matches!(&refused, DataDirError::InUse { pid, .. } if *pid == server.id().to_string()),
            "{refused}"
        );
        assert_eq!(content(data.path()), "old");
        data.swap().unwrap();
    }

    #[test]
    fn a_second_copy_keeps_the_nodes_own_data_and_not_the_first() {
        let (_dir, data) = old();
        come_in(&data, Standing::Own, "first");
        data.swap().unwrap();
        come_in(&data, Standing::Attempt, "second");
        data.swap().unwrap();
        assert_eq!((content(data.path()), content(&data.before())), ("second".into(), "old".into()));
        // That one has ended; the next replaces what the node has since.
        come_in(&data, Standing::Own, "third");
        data.swap().unwrap();
        assert_eq!((content(data.path()), content(&data.before())), ("third".into(), "second".into()));
        let kept = data.keep_before(7).unwrap();
        assert_eq!((content(&kept), data.before().exists()), ("second".into(), false));
    }

    #[test]
    fn an_interruption_between_the_renames_is_put_right() {
        let (_dir, data) = old();
        come_in(&data, Standing::Own, "copy");
        fs::rename(data.path(), data.before()).unwrap();
        data.check().unwrap();
        let incoming = data.begin(Standing::Attempt).unwrap();
        assert_eq!(content(data.path()), "old");
        assert_eq!(fs::read_dir(incoming).unwrap().count(), 0, "the copy begins anew");
        assert!(data.free_bytes().unwrap() > 0);
    }
}
