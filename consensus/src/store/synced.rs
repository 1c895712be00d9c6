//! What the log promises of the disk: a vote and an append are on it before they are answered for, and an error of it is
//! passed on, once and for all.
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::alias::{EntryOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use redb::StorageBackend;
use tokio::sync::watch;

use super::Store;
use super::open::on;
use crate::standing::Standing;
use crate::types::{LogId, Stamp, TypeConfig};

type Entry = EntryOf<TypeConfig>;
type Vote = VoteOf<TypeConfig>;

/// A disk whose power can fail: what was written since the last sync is lost then.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug, Default)]
struct Platters {
    written: Vec<u8>,
    synced: Vec<u8>,
    syncs: u32,
    next_sync_fails: bool,
}

impl Disk {
    fn platters(&self) -> MutexGuard<'_, Platters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn syncs(&self) -> u32 {
        self.platters().syncs
    }

    fn fail_once(&self) {
        self.platters().next_sync_fails = true;
    }

    /// The log that is found when the power is back.
    fn after_power_failure(&self) -> Store {
        let synced = self.platters().synced.clone();
        let left = Platters { written: synced.clone(), synced, ..Platters::default() };
        on(Self(Arc::new(Mutex::new(left)))).unwrap()
    }
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let from = usize::try_from(offset).unwrap();
    from..from + length
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platters().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.platters();
        let found = platters.written.get(range(offset, out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.platters().written.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platters = self.platters();
        if std::mem::take(&mut platters.next_sync_fails) {
            return Err(io::Error::other("the disk does not take it"));
        }
        platters.synced = platters.written.clone();
        platters.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.platters();
        let place =
            platters.written.get_mut(range(offset, data.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        place.copy_from_slice(data);
        Ok(())
    }
}

fn vote() -> Vote {
    Vote::new(3, 1)
}

fn entry() -> Entry {
    <Entry as RaftEntry>::new(LogId::new(*vote().leader_id(), 0), EntryPayload::Blank)
}

#[tokio::test]
async fn a_vote_is_synced_before_it_is_answered() {
    let disk = Disk::default();
    let mut store = on(disk.clone()).unwrap();
    let before = disk.syncs();
    store.save_vote(&vote()).await.unwrap();
    assert!(disk.syncs() > before, "answered without a sync");
    assert_eq!(disk.after_power_failure().read_vote().await.unwrap(), Some(vote()));
}

#[tokio::test]
async fn an_append_is_synced_before_it_is_reported() {
    let disk = Disk::default();
    let mut store = on(disk.clone()).unwrap();
    let before = disk.syncs();
    let (report, mut reported) = TypeConfig::oneshot::<io::Result<()>>();
    store.append([entry()], IOFlushed::signal(report)).await.unwrap();
    assert!(matches!(reported.try_recv(), Ok(Ok(()))), "nothing was reported");
    assert!(disk.syncs() > before, "reported without a sync");
    assert_eq!(disk.after_power_failure().entries(0, u64::MAX).unwrap(), vec![entry()]);
}

/// What is only written down is not counted as synced: otherwise the tests above would prove nothing.
#[tokio::test]
async fn what_is_not_synced_is_lost_with_the_power() {
    let disk = Disk::default();
    let mut store = on(disk.clone()).unwrap();
    let committed = Some(LogId::new(*vote().leader_id(), 0));
    store.save_committed(committed).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), committed);
    assert_eq!(disk.after_power_failure().read_committed().await.unwrap(), None);
}

#[tokio::test]
async fn a_vote_that_cannot_be_synced_is_not_given() {
    let disk = Disk::default();
    let mut store = on(disk.clone()).unwrap();
    disk.fail_once();
    store.save_vote(&vote()).await.unwrap_err();
    assert_eq!(store.stamp(), Stamp::default(), "peers are not told of it");
    // The disk would take it now. That it did would prove nothing of what was lost before.
    let before = disk.syncs();
    store.save_vote(&vote()).await.unwrap_err();
    assert_eq!(disk.syncs(), before, "tried again after an error");
    assert_eq!(disk.after_power_failure().read_vote().await.unwrap(), None);
}

#[tokio::test]
async fn an_append_that_cannot_be_synced_is_not_reported() {
    let disk = Disk::default();
    let standing = watch::Sender::new(Standing::default());
    let mut store = on(disk.clone()).unwrap().noting_in(standing.clone());
    disk.fail_once();
    for _ in 0..2 {
        let (report, mut reported) = TypeConfig::oneshot::<io::Result<()>>();
        store.append([entry()], IOFlushed::signal(report)).await.unwrap_err();
        assert!(!matches!(reported.try_recv(), Ok(Ok(()))), "reported although it is not on the disk");
        assert_eq!(store.stamp(), Stamp::default(), "peers are not told of it");
        assert!(standing.borrow().own_append_pending_since.is_some(), "it is not over");
    }
    assert!(disk.after_power_failure().entries(0, u64::MAX).unwrap().is_empty());
}
