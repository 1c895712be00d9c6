//! The directory of records: one file each, `000001-mysqld-killed.json`, written once.
//!
//! A record is complete or not there: it is written under another name, synced, renamed, and the directory is synced.
//! A drill under way keeps a draft beside the chain; one that is found when the next drill begins belongs to a runner
//! that died, and becomes a record that says so.
//!
//! Everything here blocks on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::{Record, canonical, hash};

/// The hash before the first record.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Name of the draft of a drill that is under way.
const DRAFT: &str = "draft.json";

/// Name of the file that one writer at a time holds.
const LOCK: &str = "lock";

/// Name of the file that a runner holds for as long as it lives: the draft is its own.
const ALIVE: &str = "runner.lock";

/// A writer needs milliseconds for a record.
const LOCKS_WITHIN: Duration = Duration::from_secs(5);

/// How names of half-written files end.
const HALF: &str = ".half";

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file in it.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A file is not a record.
    #[error("{path} is not a record")]
    Record {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Another drill writes at the moment.
    #[error("{0} is being written to by another drill")]
    Busy(PathBuf),
    /// There is no such record.
    #[error("no record {0:?}; `baton drill history` shows them")]
    Unknown(String),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { path, source }
}

/// A record with the file that it stands in.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub hash: String,
    /// What it says.
    pub record: Record,
}

/// The end of the chain: what the ledger is told, so that three nodes have seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record.
    pub number: u64,
    /// Its hash, 64 hexadecimal digits.
    pub hash: String,
}

/// A directory of records.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The directory; made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// A directory that is only read. It need not be there: then there are no records.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a record at the end of the chain, sets its number and the hash before it, and removes the draft. When this
    /// returns, it is on the disk.
    ///
    /// # Errors
    /// Another writer holds the directory, the last record cannot be read, or the new one cannot be written.
    pub fn append(&self, record: Record) -> Result<Stored, StoreError> {
        let _lock = self.lock()?;
        let head = self.head()?;
        let (number, previous) = head.map_or((1, NO_HASH.to_owned()), |head| (head.number + 1, head.hash));
        let record = Record { number, previous, ..record };
        let path = self.dir.join(format!("{number:06}-{}.json", record.experiment.id));
        let text = self.text(&record, &path)?;
        self.write(&path, &text)?;
        self.discard_draft()?;
        Ok(Stored { path, hash: hash(text.as_bytes()), record })
    }

    /// Keeps what is known so far of a drill that is under way. Replaces the draft before.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_draft(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.dir.join(DRAFT);
        let text = self.text(record, &path)?;
        self.write(&path, &text)
    }

    /// What a runner that died has left.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn draft(&self) -> Result<Option<Record>, StoreError> {
        let path = self.dir.join(DRAFT);
        match fs::read(&path) {
            Ok(bytes) => {
                let record = serde_json::from_slice(&bytes);
                record.map(Some).map_err(|source| StoreError::Record { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Removes the draft.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn discard_draft(&self) -> Result<(), StoreError> {
        let path = self.dir.join(DRAFT);
        match fs::remove_file(&path) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The end of the chain; none if there is no record.
    ///
    /// # Errors
    /// The last record cannot be read.
    pub fn head(&self) -> Result<Option<Head>, StoreError> {
        let Some((number, path)) = self.files()?.pop() else { return Ok(None) };
        let bytes = fs::read(&path).map_err(at(&path))?;
        Ok(Some(Head { number, hash: hash(&bytes) }))
    }

    /// All records, in the order of their numbers. Nothing is verified.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn records(&self) -> Result<Vec<Stored>, StoreError> {
        self.files()?.into_iter().map(|(_, path)| read(&path)).collect()
    }

    /// One record, by its number or by the id of its drill: then the latest of that drill. `last` is the latest of all.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn find(&self, which: &str) -> Result<Stored, StoreError> {
        let wanted = which.parse::<u64>().ok();
        let mut files = self.files()?.into_iter().rev();
        let found = files.find(|(number, path)| match wanted {
            Some(wanted) => *number == wanted,
            None => which == "last" || name_parts(path).is_some_and(|(_, id)| id == which),
        });
        let (_, path) = found.ok_or_else(|| StoreError::Unknown(which.to_owned()))?;
        read(&path)
    }

    /// Files whose names are those of records, by their numbers.
    pub(super) fn files(&self) -> Result<Vec<(u64, PathBuf)>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.dir)(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(at(&self.dir))?.path();
            if let Some((number, _)) = name_parts(&path) {
                files.push((number, path));
            }
        }
        files.sort();
        Ok(files)
    }

    fn text(&self, record: &Record, path: &Path) -> Result<String, StoreError> {
        canonical(record).map_err(|source| StoreError::Record { path: path.to_owned(), source })
    }

    /// Says that a runner lives, until what is returned is dropped: the draft belongs to it and to nobody else.
    ///
    /// # Errors
    /// [`StoreError::Busy`]: another one lives.
    pub fn alive(&self) -> Result<impl Drop + use<>, StoreError> {
        self.try_lock(ALIVE)
    }

    /// Waits a little for another writer.
    fn lock(&self) -> Result<Flock<File>, StoreError> {
        let until = Instant::now() + LOCKS_WITHIN;
        loop {
            match self.try_lock(LOCK) {
                Err(StoreError::Busy(_)) if Instant::now() < until => {
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                done => return done,
            }
        }
    }

    fn try_lock(&self, name: &str) -> Result<Flock<File>, StoreError> {
        let path = self.dir.join(name);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => StoreError::Busy(self.dir.clone()),
            errno => at(&path)(errno.into()),
        })
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("record");
        let half = self.dir.join(format!(".{name}{HALF}"));
        let mut file = File::create(&half).map_err(at(&half))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(&half))?;
        fs::rename(&half, path).map_err(at(path))?;
        self.sync()
    }

    /// Makes names durable.
    fn sync(&self) -> Result<(), StoreError> {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(at(&self.dir))
    }
}

fn read(path: &Path) -> Result<Stored, StoreError> {
    let bytes = fs::read(path).map_err(at(path))?;
    let record = serde_json::from_slice(&bytes)
        .map_err(|source| StoreError::Record { path: path.to_owned(), source })?;
    Ok(Stored { path: path.to_owned(), hash: hash(&bytes), record })
}

/// Number and drill in the name of a record's file.
fn name_parts(path: &Path) -> Option<(u64, &str)> {
    let (number, id) = path.file_name()?.to_str()?.strip_suffix(".json")?.split_once('-')?;
    let is_number = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok()).flatten().map(|number| (number, id))
}
