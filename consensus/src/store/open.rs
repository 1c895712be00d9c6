//! Opening a log: is it ours, is it whole?
//!
//! Every page's checksum is verified and every record is decoded before the log is used. A log that fails that is
//! *damaged*: it is left alone, and the node takes no part in votes, since nobody can tell which of its promises are
//! gone. A log of another node or cluster is refused altogether, and so is one to which a newer version has written what
//! this one does not know (see [`crate::newer`]): it is whole, and every promise in it counts.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use openraft::alias::VoteOf;
use openraft::entry::RaftEntry;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, StorageBackend, StorageError, TableError};
use serde::Deserialize;

use super::{FORMAT, Identity, LOG, META, Store, key, put};
use crate::error::StartError;
use crate::machine::Machine;
use crate::newer::{Newer, decode};
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
        Ok(Ok(Verified::Ours(store, identity, machine))) => (store, identity, machine),
        Ok(Ok(Verified::NotOurs(identity))) => return Err(not_ours(file, &identity, &fresh)),
        Ok(Ok(Verified::OfNewerFormat(format))) => return Err(of_newer_format(file, format)),
        Ok(Err(error)) => match Newer::in_error(&error) {
            Some(newer) => return Err(StartError::Newer { file, newer: newer.clone() }),
            None => return Ok(Opened::Damaged { why: error.to_string() }),
        },
        Err(_) => return Ok(Opened::Damaged { why: "the database cannot be read".to_owned() }),
    };
    // A new file is lost at a power failure unless its directory is synced too.
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(directory)?;
    Ok(Opened::Sound { store, identity, machine })
}

/// Why a log of `found` is not used by `fresh`.
fn not_ours(file: PathBuf, found: &Identity, fresh: &Identity) -> StartError {
    let is_same_node = found.cluster == fresh.cluster && found.node == fresh.node;
    if is_same_node && found.format > FORMAT {
        return of_newer_format(file, found.format);
    }
    let name = |id: &Identity| format!("node {} of cluster {} (format {})", id.node, id.cluster, id.format);
    StartError::Foreign { file, found: name(found), expected: name(fresh) }
}

fn of_newer_format(file: PathBuf, format: u32) -> StartError {
    StartError::Newer { file, newer: Newer::named(&format!("format {format}")) }
}

/// The log in `dir` is retired since the cluster has gone on in a higher generation without it. Asked of a log that is newer than
/// this version: nothing else of it is looked at. One of the same generation is the log of another survivor, and which of the two
/// counts is not known yet. `false` too if the file is of another format, in which nothing can be asked for.
///
/// # Errors
/// The disk's.
pub(crate) fn is_newer_outranked(dir: &Path) -> io::Result<bool> {
    let db =
        Database::builder().set_cache_size(CACHE_BYTES).open(dir.join(FILE)).map_err(io::Error::other)?;
    if format_of(&db)?.is_none_or(|(format, _)| format != FORMAT) {
        return Ok(false);
    }
    Store { db: Arc::new(db), stamp: Arc::default(), standing: None }.is_outranked()
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

/// What was found in a file that can be read.
enum Verified {
    /// A log that can be used.
    Ours(Store, Identity, Box<Machine>),
    /// A log of somebody else, or of another format. What else is in it is not looked at.
    NotOurs(Identity),
    /// A log of a newer format, which does not say in this one's words whose it is.
    OfNewerFormat(u32),
}

/// What the record of the identity has in every format.
#[derive(Deserialize)]
struct Marked {
    format: u32,
}

/// The format of the file, and the whole record that says so; `None`: there is none yet. Nothing is written.
fn format_of(db: &Database) -> io::Result<Option<(u32, Vec<u8>)>> {
    let t = db.begin_read().map_err(io::Error::other)?;
    let meta = match t.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(io::Error::other(error)),
    };
    let Some(record) = meta.get(key::IDENTITY).map_err(io::Error::other)? else { return Ok(None) };
    let record = record.value().to_vec();
    let Marked { format } = decode(&record)?;
    Ok(Some((format, record)))
}

fn verify(db: Database, fresh: &Identity) -> io::Result<Verified> {
    // First, since nothing else of another format needs to be readable here, and nothing of it is changed.
    if let Some((format, record)) = format_of(&db)?.filter(|(format, _)| *format != FORMAT) {
        return match decode(&record) {
            Ok(identity) => Ok(Verified::NotOurs(identity)),
            Err(_) if format > FORMAT => Ok(Verified::OfNewerFormat(format)),
            Err(error) => Err(error),
        };
    }
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
    if identity.cluster != fresh.cluster || identity.node != fresh.node {
        return Ok(Verified::NotOurs(identity));
    }
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
    let machine = Box::new(machine.with_store(store.clone()));
    Ok(Verified::Ours(store, identity, machine))
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

#[cfg(test)]
pub(crate) mod tests {
    use baton_runbooks::model::Generation;
    use openraft::RaftSnapshotBuilder;
    use redb::{TableDefinition, WriteTransaction};

    use super::*;
    use crate::machine::tests::newer_state;
    use crate::types::Incarnation;
    use crate::wire::tests::{entry, made_newer};

    pub(crate) fn identity() -> Identity {
        Identity {
            format: FORMAT,
            cluster: "shop".to_owned(),
            node: "db1".into(),
            incarnation: Incarnation("a".to_owned()),
            raft_id: Some(1),
            generation: Generation::default(),
            founder: Incarnation::default(),
        }
    }

    /// A directory with a log of this node's that was then changed.
    fn with(change: impl FnOnce(&WriteTransaction) -> io::Result<()>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let Opened::Sound { store, .. } = open(dir.path(), identity()).unwrap() else {
            panic!("a new log is damaged")
        };
        store.write(Durability::Immediate, change).unwrap();
        dir
    }

    /// A directory with a log whose first entry is this text.
    fn with_entry(text: &str) -> tempfile::TempDir {
        with(|t| {
            let mut log = t.open_table(LOG).map_err(io::Error::other)?;
            log.insert(0, text.as_bytes()).map_err(io::Error::other)?;
            Ok(())
        })
    }

    /// What this version does not know in the log in `dir`, which stays as it is.
    fn newer_at_start(dir: &Path) -> String {
        let file = dir.join(FILE);
        let refused = match open(dir, identity()) {
            Err(refused) => refused,
            Ok(Opened::Sound { .. }) => panic!("the log is used"),
            Ok(Opened::Damaged { why }) => panic!("the log is called damaged: {why}"),
        };
        let words = refused.to_string();
        for part in [file.to_str().unwrap(), "upgrade", "do not remove it", env!("CARGO_PKG_VERSION")] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert!(file.exists());
        let StartError::Newer { newer, .. } = refused else { panic!("{words}") };
        newer.name
    }

    #[test]
    fn an_entry_with_a_newer_command_is_no_damage_and_stays() {
        let text = serde_json::to_string(&entry()).unwrap();
        let dir = with_entry(&made_newer(&text));
        assert_eq!(newer_at_start(dir.path()), "frobnicate");
        assert_eq!(newer_at_start(dir.path()), "frobnicate", "whenever it is started");
        // The upgrade, as far as it can be had here: this version reads what it knows.
        let known = with_entry(&text);
        assert!(matches!(open(known.path(), identity()).unwrap(), Opened::Sound { .. }));
    }

    #[test]
    fn an_entry_that_is_cut_off_is_damage_whatever_its_command() {
        let text = made_newer(&serde_json::to_string(&entry()).unwrap());
        for broken in [&text[..text.len() - 1], "", "{}"] {
            let dir = with_entry(broken);
            assert!(matches!(open(dir.path(), identity()).unwrap(), Opened::Damaged { .. }), "{broken}");
        }
    }

    /// A log of this node's in `dir` whose snapshot is of a newer version.
    pub(crate) async fn with_newer_snapshot(dir: &Path) -> Store {
        let Opened::Sound { store, mut machine, .. } = open(dir, identity()).unwrap() else {
            panic!("a new log is damaged")
        };
        machine.build_snapshot().await.unwrap();
        let mut stored: serde_json::Value = store.get(key::SNAPSHOT).unwrap().unwrap();
        stored["state"] = newer_state().into();
        store.write(Durability::Immediate, |t| put(t, key::SNAPSHOT, &stored)).unwrap();
        store
    }

    #[tokio::test]
    async fn a_newer_snapshot_is_no_damage_either() {
        let dir = tempfile::tempdir().unwrap();
        drop(with_newer_snapshot(dir.path()).await);
        assert_eq!(newer_at_start(dir.path()), "frobnicate");
    }

    /// A directory with a log of which this stands in the identity's place, and which has nothing else that can be read.
    fn with_identity(record: &serde_json::Value) -> tempfile::TempDir {
        with(|t| {
            put(t, key::IDENTITY, record)?;
            t.delete_table(LOG).map_err(io::Error::other)?;
            t.open_table(TableDefinition::<&str, &str>::new("log")).map_err(io::Error::other)?;
            Ok(())
        })
    }

    #[test]
    fn a_log_of_a_newer_format_is_told_from_another_nodes() {
        let newer = Identity { format: FORMAT + 1, ..identity() };
        let newer = with_identity(&serde_json::to_value(newer).unwrap());
        assert_eq!(newer_at_start(newer.path()), "format 2");
        let foreign: [fn(&mut Identity); 3] = [
            |id| id.node = "db2".into(),
            |id| (id.format, id.cluster) = (FORMAT + 1, "other".to_owned()),
            |id| id.format = FORMAT - 1,
        ];
        for change in foreign {
            let dir = tempfile::tempdir().unwrap();
            let mut found = identity();
            change(&mut found);
            assert!(matches!(open(dir.path(), found).unwrap(), Opened::Sound { .. }));
            let Err(refused) = open(dir.path(), identity()) else { panic!("another's log is used") };
            assert!(matches!(refused, StartError::Foreign { .. }), "{refused}");
        }
    }

    /// Its fields may be gone or of another type, and so may the tables.
    #[test]
    fn a_newer_format_needs_to_have_nothing_but_its_number() {
        for record in [
            serde_json::json!({"format": 2}),
            serde_json::json!({"format": 2, "cluster": {"name": "shop"}, "node": 1, "incarnation": null}),
        ] {
            let dir = with_identity(&record);
            assert_eq!(newer_at_start(dir.path()), "format 2");
            assert_eq!(newer_at_start(dir.path()), "format 2", "nothing was written");
            assert!(!is_newer_outranked(dir.path()).unwrap());
        }
        for record in [serde_json::json!({"format": 1}), serde_json::json!({"format": "two"})] {
            let dir = with_identity(&record);
            assert!(matches!(open(dir.path(), identity()).unwrap(), Opened::Damaged { .. }), "{record}");
        }
    }
}
