//! openraft's view of the log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::time::Instant;

use openraft::alias::{EntryOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use redb::{Durability, ReadableDatabase, ReadableTable};

use super::{LOG, Store, key, put};
use crate::newer::decode;
use crate::types::{LogId, Stamp, TypeConfig};

type Entry = EntryOf<TypeConfig>;
type Vote = VoteOf<TypeConfig>;

impl Store {
    /// Says in the standing that an append is under way. Nobody is woken: whoever decides by it looks at it on a
    /// schedule of its own.
    fn note_append(&self, since: Option<Instant>) {
        if let Some(standing) = &self.standing {
            standing.send_if_modified(|standing| {
                standing.own_append_pending_since = since;
                false
            });
        }
    }

    /// Entries from `from` (inclusive) to `to` (exclusive).
    pub(crate) fn entries(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let t = self.db.begin_read().map_err(io::Error::other)?;
        let log = t.open_table(LOG).map_err(io::Error::other)?;
        let found = log.range(from..to).map_err(io::Error::other)?;
        found.map(|row| decode(row.map_err(io::Error::other)?.1.value())).collect()
    }

    pub(super) fn last_entry(&self) -> io::Result<Option<LogId>> {
        let t = self.db.begin_read().map_err(io::Error::other)?;
        let log = t.open_table(LOG).map_err(io::Error::other)?;
        let last = log.last().map_err(io::Error::other)?;
        last.map(|(_, text)| decode::<Entry>(text.value()).map(|entry| entry.log_id())).transpose()
    }
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(from, to)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.get(key::VOTE)
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let purged: Option<LogId> = self.get(key::PURGED)?;
        Ok(LogState { last_purged_log_id: purged, last_log_id: self.last_entry()?.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.write(Durability::Immediate, |t| put(t, key::VOTE, vote))?;
        self.advance(Stamp { vote: Stamp::of_vote(vote), ..Stamp::default() });
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Made durable by the next synced transaction. Losing it loses no safety.
        self.write(Durability::None, |t| put(t, key::COMMITTED, &committed))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.get::<Option<LogId>>(key::COMMITTED)?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.note_append(Some(Instant::now()));
        let mut last = None;
        let written = self.write(Durability::Immediate, |t| {
            let mut log = t.open_table(LOG).map_err(io::Error::other)?;
            for entry in entries {
                let text = serde_json::to_vec(&entry)?;
                log.insert(entry.index(), text.as_slice()).map_err(io::Error::other)?;
                last = Some(entry.log_id());
            }
            Ok(())
        });
        // After an error the mark stays: this append will never be finished.
        written?;
        self.note_append(None);
        if let Some(last) = last {
            self.advance(Stamp { last: Stamp::of_log(&last), ..Stamp::default() });
        }
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index() + 1);
        // The stamp never goes back: what is cut off was on this disk.
        let highest = self.stamp().last;
        self.write(Durability::Immediate, |t| {
            put(t, key::CUT, &highest)?;
            let mut log = t.open_table(LOG).map_err(io::Error::other)?;
            log.retain_in(from.., |_, _| false).map_err(io::Error::other)
        })
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.write(Durability::Immediate, |t| {
            put(t, key::PURGED, &upto)?;
            let mut log = t.open_table(LOG).map_err(io::Error::other)?;
            log.retain_in(..=upto.index(), |_, _| false).map_err(io::Error::other)
        })?;
        // After a snapshot the log jumps forward to where the snapshot ends.
        self.advance(Stamp { last: Stamp::of_log(&upto), ..Stamp::default() });
        Ok(())
    }
}
