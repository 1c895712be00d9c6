//! Opening a log: is it ours, is it whole?
//!
//! Every page's checksum is verified and every record is decoded before the log is used. A log that fails that is
//! *damaged*: it is left alone, and the node takes no part in votes, since nobody can tell which of its promises are
//! gone. A log of another node or cluster is refused altogether.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use openraft::alias::VoteOf;
use openraft::entry::RaftEntry;
use redb::{Database, DatabaseError, Durability, StorageBackend, StorageError};

use super::{FORMAT, Identity, LOG, META, Store, key, put};
use crate::error::StartError;
use crate::machine::Machine;
use crate::types::{LogId, Stamp, TypeConfig};

/// The log's file in the state directory.
pub(crate) const FILE: &str = "raft.redb";
/// Pages that redb may keep in memory. The whole log has a few hundred kilobytes.
const CACHE_BYTES: usize = 4 << 20;

/// A log that was opened.
pub enum Opened {
    /// It can be used.
    Sound {
        /// The log.
        store: Store,
        /// Whose it is.
        identity: Identity,
        /// What it says is applied.
        machine: Box<Machine>,
    },
    /// It must not be used.
    Damaged {
        /// What was found.
        why: String,
    },
}

/// Opens or creates the log in `dir` for the node that `fresh` describes.
///
/// # Errors
/// See [`StartError`]. Damage is not an error.
pub fn open(dir: &Path, fresh: Identity) -> Result<Opened, StartError> {
    let directory = |source| StartError::Directory { dir: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(directory)?;
    let file = dir.join(FILE);
    // redb may panic on a file that somebody else has written to.
    let opened = catch_unwind(|| {
        Database::builder().set_check_integrity_on_open(true).set_cache_size(CACHE_BYTES).create(&file)
    });
    let db = match opened {
        Ok(Ok(db)) => db,
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => return Err(StartError::InUse { file }),
        Ok(Err(DatabaseError::Storage(StorageError::Io(source)))) if !is_damage(&source) => {
            return Err(StartError::Open { file, source });
        }
        Ok(Err(error)) => return Ok(Opened::Damaged { why: error.to_string() }),
        Err(_) => return Ok(Opened::Damaged { why: "the database cannot be read".to_owned() }),
    };
    let verified = catch_unwind(AssertUnwindSafe(|| verify(db, &fresh)));
    let (store, identity, machine) = match verified {
        Ok(Ok(verified)) => verified,
        Ok(Err(error)) => return Ok(Opened::Damaged { why: error.to_string() }),
        Err(_) => return Ok(Opened::Damaged { why: "the database cannot be read".to_owned() }),
    };
    // A new file is lost at a power failure unless its directory is synced too.
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(directory)?;
    if identity.format != FORMAT || identity.cluster != fresh.cluster || identity.node != fresh.node {
        let name =
            |id: &Identity| format!("node {} of cluster {} (format {})", id.node, id.cluster, id.format);
        return Err(StartError::Foreign { file, found: name(&identity), expected: name(&fresh) });
    }
    Ok(Opened::Sound { store, identity, machine: Box::new(machine) })
}

/// A log in memory, for the storage suite.
#[doc(hidden)]
pub fn in_memory() -> io::Result<Store> {
    on(redb::backends::InMemoryBackend::new())
}

/// A log on something else than a file: nobody's yet, and not verified.
pub(super) fn on(backend: impl StorageBackend) -> io::Result<Store> {
    let db = Database::builder().create_with_backend(backend).map_err(io::Error::other)?;
    create_tables(&db)?;
    Ok(Store { db: Arc::new(db), stamp: Arc::default(), standing: None })
}

fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

fn create_tables(db: &Database) -> io::Result<()> {
    let t = db.begin_write().map_err(io::Error::other)?;
    t.open_table(LOG).map_err(io::Error::other)?;
    t.open_table(META).map_err(io::Error::other)?;
    t.commit().map_err(io::Error::other)
}

fn verify(db: Database, fresh: &Identity) -> io::Result<(Store, Identity, Machine)> {
    create_tables(&db)?;
    let store = Store { db: Arc::new(db), stamp: Arc::default(), standing: None };
    let identity = match store.identity()? {
        Some(identity) => identity,
        None => {
            if store.last_entry()?.is_some() || store.get::<VoteOf<TypeConfig>>(key::VOTE)?.is_some() {
                return Err(io::Error::other("the log does not say whose it is"));
            }
            store.write(Durability::Immediate, |t| put(t, key::IDENTITY, fresh))?;
            fresh.clone()
        }
    };
    let vote: Option<VoteOf<TypeConfig>> = store.get(key::VOTE)?;
    let purged: Option<LogId> = store.get(key::PURGED)?;
    let cut: Option<(u64, u64, u64)> = store.get(key::CUT)?;
    store.seen()?;
    store.retired()?;
    let last = verify_entries(&store, purged)?.or(purged);
    let machine = Machine::recover(store.clone(), purged)?;
    let last = last.as_ref().map(Stamp::of_log).max(cut);
    let stamp =
        Stamp { vote: vote.as_ref().map(Stamp::of_vote).unwrap_or_default(), last: last.unwrap_or_default() };
    let store = Store { stamp: Arc::new(Mutex::new(stamp)), ..store };
    Ok((store.clone(), identity, machine.with_store(store)))
}

/// Decodes every entry and checks that none is missing.
fn verify_entries(store: &Store, purged: Option<LogId>) -> io::Result<Option<LogId>> {
    let first = purged.map_or(0, |purged| purged.index() + 1);
    let mut last = None;
    for (expected, entry) in (first..).zip(store.entries(0, u64::MAX)?) {
        if entry.index() != expected {
            return Err(io::Error::other(format!("entry {expected} of the log is missing")));
        }
        last = Some(entry.log_id());
    }
    Ok(last)
}
