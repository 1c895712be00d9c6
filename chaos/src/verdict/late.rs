//! What the runner's own weakness could have made of what its clients saw. Pure.
//!
//! A runner that stands still begins no write and reads no answer: its clients see a service that is away for as long, and the
//! writes that fell due meanwhile come all at once, more than may be under way. A record does not keep when that was, only how
//! late the latest timer was, and that not more than one in a hundred was later than [`LATE_MAX_US`]. So that much is left out
//! of whatever breaks a limit: what breaks it all the same is broken beyond doubt, and of the rest nobody knows.
//!
//! A runner that stands still again and again takes something from a share of writes each time, so one write in a hundred is
//! left out of that, if it is more. Of a time only the longest is: one that lies inside of it adds nothing.

use super::limits::{gap_ms, is_at_end};
use super::{LATE_MAX_US, Limited};
use crate::check::AT_THE_END_US;
use crate::check::steady::QUIET_US;
use crate::evidence::{ClientRecord, Gap, Harness, ProbeRecord, Record};
use crate::experiment::{Figure, Mode, Probe, Tolerance};
use crate::history::Kind;

/// Time between two writes of one kind, milliseconds: that of [`crate::load::LoadOptions::every_10_ms`].
const WRITE_EVERY_MS: u64 = 10;
/// A write keeps its place among those under way for so long at most, milliseconds: its connection and its answer may each take
/// 0.4 s. While all places are taken no write begins.
const HELD_MS: u64 = 800;
/// Of so many timers one may be later than [`LATE_MAX_US`] in a runner whose 99th percentile is not. Each write has its timer.
const LATE_SHARE: u64 = 100;

/// What is left out, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Of a time, milliseconds. [`u64::MAX`]: the runner has measured no times.
    ms: u64,
    /// Writes of one database that fell due while the latest timer was late; 0: the runner was on time.
    late_writes: u64,
    /// Writes that could not be begun: they may all be of one database.
    overflowed: u64,
}

impl Allowance {
    /// What the record says of its runner. Up to [`LATE_MAX_US`] a runner counts as one that was on time.
    pub(super) fn of(record: &Record) -> Self {
        let Harness { lateness, overflowed } = record.harness;
        if lateness.p99_us > LATE_MAX_US {
            return Self { ms: u64::MAX, late_writes: 0, overflowed };
        }
        let late_ms = if lateness.max_us > LATE_MAX_US { lateness.max_us.div_ceil(1_000) } else { 0 };
        let held_ms = if overflowed > 0 { HELD_MS } else { 0 };
        Self { ms: late_ms + held_ms, late_writes: late_ms / WRITE_EVERY_MS, overflowed }
    }

    /// How many writes of a database may be missing that the runner has not begun in time. All timers that were late may lie in
    /// the span of a probe, however short that is beside the drill.
    fn writes(self, record: &Record, kind: Kind) -> u64 {
        let late = match self.late_writes {
            0 => 0,
            once => once.max(writes(record, kind, Mode::Continuous).div_ceil(LATE_SHARE)),
        };
        late.saturating_add(self.overflowed)
    }

    /// Whether the runner was late all along: then nothing is known of times.
    pub(super) const fn is_all(self) -> bool {
        self.ms == u64::MAX
    }

    /// Whether a time is over its limit beyond doubt.
    pub(super) const fn is_over(self, seen_ms: u64, limit_ms: u64) -> bool {
        seen_ms.saturating_sub(self.ms) > limit_ms
    }

    /// Whether a database whose writes were not acknowledged again was away at the end beyond doubt: a runner that stood still
    /// when its load ended has heard nothing in its last second.
    pub(super) fn is_away(self, client: &ClientRecord) -> bool {
        let last = client.gaps.last().filter(|gap| self.ms > 0 && is_at_end(client, gap));
        last.map_or(!self.is_all(), |gap| self.is_over(gap_ms(gap), AT_THE_END_US / 1_000))
    }

    /// Whether a figure that is over its limit is so beyond doubt.
    pub(super) fn is_figure_over(self, record: &Record, limited: &Limited) -> bool {
        if self.ms == 0 || self.is_all() {
            return !self.is_all();
        }
        let limit_ms = limited.limit.ms();
        match limited.figure {
            Figure::ConnectGap | Figure::ReadGap => {
                limited.seen_ms.is_some_and(|seen_ms| self.is_over(seen_ms, limit_ms))
            }
            Figure::SustainedRecovery => self.unsteady_ms(record, limited.kind) > limit_ms,
        }
    }

    /// For how long after the last fault writes were not steady, beyond doubt, milliseconds. A runner that is late for a moment
    /// ends what was steady, however long after the fault that is. So only what was quiet for longer than that counts, and not
    /// what is quiet at the end, after which nothing is known.
    fn unsteady_ms(self, record: &Record, kind: Kind) -> u64 {
        let injected_ms = record.faults.iter().filter_map(|fault| fault.injected_ms).max();
        let client = record.clients.iter().find(|client| client.kind == kind);
        let (Some(injected_ms), Some(client)) = (injected_ms, client) else { return 0 };
        let is_sure = |gap: &&Gap| !is_at_end(client, gap) && self.is_over(gap_ms(gap), QUIET_US / 1_000);
        let last_ms = client.gaps.iter().filter(is_sure).map(|gap| gap.to_ms).max().unwrap_or(0);
        last_ms.saturating_sub(self.ms).saturating_sub(injected_ms)
    }

    /// Whether a steady-state probe that did not hold is broken beyond doubt. Only shares of writes are the runner's own measure.
    pub(super) fn is_broken(self, record: &Record, probe: &ProbeRecord) -> bool {
        let kind = match probe.probe {
            Probe::MysqlWrites => Kind::Mysql,
            Probe::RedisWrites => Kind::Redis,
            Probe::VipOwners
            | Probe::HolderChanges
            | Probe::Agents
            | Probe::InSync
            | Probe::Ready
            | Probe::UnhealthyServices
            | Probe::ReplicationLag
            | Probe::CertificateDays => return true,
        };
        // A share that is too large is none of the runner's doing.
        let low = Tolerance::least(&probe.tolerance)
            .and_then(|least| probe.value.filter(|value| *value < least).map(|value| (value, least)));
        let Some((value, least)) = low else { return true };
        let left_out = self.writes(record, kind);
        if left_out == 0 || self.is_all() {
            return !self.is_all();
        }
        let all = writes(record, kind, probe.mode);
        all > 0 && value + 100.0 * float(left_out) / float(all) < least
    }
}

/// How many writes of a database a probe's share is of, at least.
fn writes(record: &Record, kind: Kind, mode: Mode) -> u64 {
    let from_ms = match mode {
        Mode::Before | Mode::Continuous => 0,
        // After the last heal redundancy took no longer than the longest of all waits for it.
        Mode::After => {
            let healed_ms = record.faults.iter().filter_map(|fault| fault.healed_ms).max().unwrap_or(0);
            healed_ms.saturating_add(record.redundancy_ms.unwrap_or(0))
        }
    };
    let first = usize::try_from(from_ms.div_ceil(ClientRecord::BUCKET_MS)).unwrap_or(usize::MAX);
    let client = record.clients.iter().find(|client| client.kind == kind);
    let buckets = client.and_then(|client| client.buckets.get(first..)).unwrap_or_default();
    buckets.iter().map(|bucket| u64::from(bucket.acknowledged) + u64::from(bucket.failed)).sum()
}

/// A count of writes; those of a drill are far below what is cut off here.
fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
