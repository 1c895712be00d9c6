//! What the client saw, made small enough to keep: counts, gaps, and tenths of a second for the plot.

use super::{Bucket, ClientRecord, Gap, Reconnecting};
use crate::check::{KindVerdict, Visits, steady};
use crate::experiment::Figure;
use crate::history::{History, Kind, Outcome, Write};

/// Periods of the load (10 ms each) without an acknowledgement from which on it is called a gap, microseconds.
const GAP_MIN_US: u64 = 100_000;

/// Buckets that are kept: an hour of them. What comes later is counted, and not plotted.
const BUCKETS_MAX: usize = 36_000;

/// Gaps that are kept, the first ones: a flapping service must not fill the disk with evidence.
const GAPS_MAX: usize = 1_000;

impl ClientRecord {
    /// Length of a bucket, milliseconds.
    pub const BUCKET_MS: u64 = 100;

    /// What a client's history says of one database. `injected_us`: when faults were injected, in their order; `end_us` is
    /// when its load was told to stop.
    #[must_use]
    pub fn new(
        kind: Kind,
        judged: &KindVerdict,
        history: &History,
        injected_us: &[u64],
        end_us: u64,
    ) -> Self {
        let mut writes: Vec<&Write> = history.writes.iter().filter(|write| write.kind == kind).collect();
        writes.sort_unstable_by_key(|write| (write.intended_us, write.id));
        let count = |ids: &[u64]| ids.len() as u64;
        Self {
            kind,
            attempted: judged.attempted as u64,
            acknowledged: judged.acknowledged as u64,
            unread: judged.unread,
            lost: count(&judged.lost),
            duplicated: count(&judged.duplicated),
            resurrected: count(&judged.resurrected),
            interleaved: count(&judged.interleaved),
            outage_ms: judged.outage_us.div_ceil(1000),
            restored: judged.restored,
            reconnecting: judged.visits.map(Reconnecting::from),
            sustained_ms: steady::sustained_us(&writes, injected_us, end_us).map(|us| us.div_ceil(1000)),
            gaps: gaps(&writes, end_us),
            buckets: buckets(&writes),
        }
    }

    /// What was measured of a figure, milliseconds; `None`: it was not.
    #[must_use]
    pub fn figure(&self, figure: Figure) -> Option<u64> {
        match figure {
            Figure::ConnectGap => self.reconnecting.map(|seen| seen.connect_gap_ms),
            Figure::ReadGap => self.reconnecting.map(|seen| seen.read_gap_ms),
            Figure::SustainedRecovery => self.sustained_ms,
        }
    }
}

impl From<Visits> for Reconnecting {
    fn from(seen: Visits) -> Self {
        Self {
            attempted: seen.attempted as u64,
            connected: seen.connected as u64,
            read: seen.read as u64,
            connect_gap_ms: seen.connect_gap_us.div_ceil(1000),
            read_gap_ms: seen.read_gap_us.div_ceil(1000),
        }
    }
}

fn gaps(writes: &[&Write], end_us: u64) -> Vec<Gap> {
    // By the end, not the start: a write that waited through the outage and was then acknowledged fills no gap.
    let mut acknowledged: Vec<u64> = writes
        .iter()
        .filter(|write| write.outcome == Outcome::Acknowledged)
        .map(|write| write.ended_us)
        .collect();
    acknowledged.sort_unstable();
    let next = acknowledged.iter().copied().skip(1).chain([end_us]);
    let pairs = acknowledged.iter().copied().zip(next);
    pairs
        .filter(|(from, to)| to.saturating_sub(*from) >= GAP_MIN_US)
        .map(|(from, to)| Gap { from_ms: from / 1000, to_ms: to.div_ceil(1000) })
        .take(GAPS_MAX)
        .collect()
}

fn buckets(writes: &[&Write]) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    for write in writes {
        let index =
            usize::try_from(write.intended_us / (1000 * ClientRecord::BUCKET_MS)).unwrap_or(usize::MAX);
        if index >= BUCKETS_MAX {
            break;
        }
        if buckets.len() <= index {
            buckets.resize(index + 1, Bucket::default());
        }
        let bucket = &mut buckets[index];
        match write.outcome {
            Outcome::Acknowledged => {
                bucket.acknowledged += 1;
                let took_ms = write.ended_us.saturating_sub(write.intended_us).div_ceil(1000);
                bucket.slowest_ms = bucket.slowest_ms.max(u32::try_from(took_ms).unwrap_or(u32::MAX));
            }
            Outcome::Refused { .. } | Outcome::Unknown { .. } => bucket.failed += 1,
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(id: u64, intended_us: u64, ended_us: u64, outcome: Outcome) -> Write {
        Write { kind: Kind::Mysql, id, intended_us, started_us: intended_us, ended_us, outcome, server: None }
    }

    #[test]
    fn an_outage_is_one_gap_and_empty_buckets() {
        let refused = || Outcome::Refused { error: "refused".into() };
        let history = History {
            writes: vec![
                write(1, 0, 2_000, Outcome::Acknowledged),
                write(2, 50_000, 52_500, Outcome::Acknowledged),
                write(3, 300_000, 301_000, refused()),
                // Waited through the outage: acknowledged after it, so that the gap lasts until then.
                write(4, 60_000, 900_000, Outcome::Acknowledged),
                write(5, 910_000, 912_000, Outcome::Acknowledged),
            ],
            ..History::default()
        };
        let record = ClientRecord::new(Kind::Mysql, &KindVerdict::default(), &history, &[], 950_000);
        assert_eq!(record.gaps, [Gap { from_ms: 52, to_ms: 900 }]);
        let acknowledged: Vec<u32> = record.buckets.iter().map(|bucket| bucket.acknowledged).collect();
        assert_eq!(acknowledged, [3, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(record.buckets[0].slowest_ms, 840);
        assert_eq!(record.buckets[3].failed, 1);
    }

    #[test]
    fn sustained_recovery_is_counted_from_the_injection_in_milliseconds() {
        let acknowledged =
            (100..400).map(|id| write(id, id * 10_000, id * 10_000 + 2_500, Outcome::Acknowledged));
        let history = History { writes: acknowledged.collect(), ..History::default() };
        let of = |kind, injected_us: &[u64]| {
            ClientRecord::new(kind, &KindVerdict::default(), &history, injected_us, 4_000_000).sustained_ms
        };
        assert_eq!(of(Kind::Mysql, &[600_000]), Some(403), "the first acknowledgement came at 1,002.5 ms");
        assert_eq!(of(Kind::Mysql, &[]), None);
        assert_eq!(of(Kind::Redis, &[600_000]), None, "the other database's writes");
    }

    #[test]
    fn what_the_client_saw_that_keeps_no_connection_is_kept_in_milliseconds() {
        let visits =
            Visits { attempted: 9, connected: 7, read: 6, connect_gap_us: 300_001, read_gap_us: 400_000 };
        let judged = KindVerdict { visits: Some(visits), ..KindVerdict::default() };
        let record = ClientRecord::new(Kind::Mysql, &judged, &History::default(), &[], 0);
        let wanted =
            Reconnecting { attempted: 9, connected: 7, read: 6, connect_gap_ms: 301, read_gap_ms: 400 };
        assert_eq!(record.reconnecting, Some(wanted));
        let without = ClientRecord::new(Kind::Mysql, &KindVerdict::default(), &History::default(), &[], 0);
        assert_eq!(without.reconnecting, None);
    }

    #[test]
    fn a_service_that_does_not_come_back_is_a_gap_until_the_end() {
        let history =
            History { writes: vec![write(1, 0, 2_000, Outcome::Acknowledged)], ..History::default() };
        let record = ClientRecord::new(Kind::Mysql, &KindVerdict::default(), &history, &[], 5_000_000);
        assert_eq!(record.gaps, [Gap { from_ms: 2, to_ms: 5_000 }]);
    }
}
