//! Figures beside the outage for which a drill's file names a longest time: what was seen of each, and whether it held.

use std::fmt;

use crate::check::steady::{QUIET_US, STEADY_FOR_US, STEADY_MIN_US, WELL_PERCENT};
use crate::evidence::{ClientRecord, Gap, Record};
use crate::experiment::{Figure, Span};
use crate::history::Kind;

/// So much must be left before the end of the load for writes to count as steady, milliseconds: an instant that is nearer to
/// the end says nothing.
const STEADY_MIN_MS: u64 = STEADY_MIN_US / 1_000;

/// One figure of one database, with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Which database.
    pub kind: Kind,
    /// Which figure.
    pub figure: Figure,
    /// The longest that it may be.
    pub limit: Span,
    /// What was measured, milliseconds.
    pub seen_ms: Option<u64>,
    /// It was not seen to end, and was longer than this, milliseconds.
    longer_than_ms: Option<u64>,
}

impl Limited {
    /// Whether it was within its limit; `None`: that is not known.
    #[must_use]
    pub fn held(&self) -> Option<bool> {
        match (self.seen_ms, self.longer_than_ms) {
            (Some(seen_ms), _) => Some(seen_ms <= self.limit.ms()),
            (None, Some(longer_than_ms)) if longer_than_ms >= self.limit.ms() => Some(false),
            (None, Some(_) | None) => None,
        }
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name, limit) = (self.kind, self.figure.name(), self.limit);
        match (self.seen_ms, self.longer_than_ms.filter(|_| self.held().is_some())) {
            (Some(ms), _) => write!(f, "{kind}: a {name} of {ms} ms, at most {limit}"),
            (None, Some(ms)) => write!(f, "{kind}: a {name} of more than {ms} ms, at most {limit}"),
            (None, None) => write!(f, "{kind}: a {name} could not be measured"),
        }
    }
}

/// Every figure that the drill's file limits, of every database that was measured.
#[must_use]
pub fn limited(record: &Record) -> Vec<Limited> {
    let mut all = Vec::new();
    for client in &record.clients {
        for figure in Figure::ALL {
            let Some(limit) = record.experiment.slo.limit(figure, client.kind) else { continue };
            let longer_than_ms = match figure {
                Figure::ConnectGap | Figure::ReadGap => None,
                Figure::SustainedRecovery => unsteady_ms(record, client),
            };
            all.push(Limited {
                kind: client.kind,
                figure,
                limit,
                seen_ms: client.figure(figure),
                longer_than_ms,
            });
        }
    }
    all
}

/// Where no sustained recovery was measured: how long it took at least, from the last fault on. Where writes were steady for a
/// while and fell quiet again, nobody knows when they had recovered: not before that while. Where they never were: not before
/// the last instant at which they could have been.
fn unsteady_ms(record: &Record, client: &ClientRecord) -> Option<u64> {
    let injected_ms = record.faults.iter().filter_map(|fault| fault.injected_ms).max()?;
    let last_ms = end_ms(client).checked_sub(injected_ms.saturating_add(STEADY_MIN_MS))?;
    let first_ms = first_steady_ms(client, injected_ms);
    Some(first_ms.map_or(last_ms, |at_ms| at_ms.saturating_sub(injected_ms)))
}

/// Where the client's load ended.
fn end_ms(client: &ClientRecord) -> u64 {
    client.buckets.len() as u64 * ClientRecord::BUCKET_MS
}

/// Whether it lasted until the client's load ended.
pub(super) fn is_at_end(client: &ClientRecord, gap: &Gap) -> bool {
    gap.to_ms.saturating_add(ClientRecord::BUCKET_MS) >= end_ms(client)
}

/// Before when writes were not steady for a while after `from_ms`, as near as the buckets tell; `None`: they never were. What
/// comes after that while does not count, nor does a moment of quiet at the very end.
fn first_steady_ms(client: &ClientRecord, from_ms: u64) -> Option<u64> {
    let is_quiet = |gap: &&Gap| gap_ms(gap) >= QUIET_US / 1_000;
    let quiet: Vec<&Gap> = client.gaps.iter().filter(is_quiet).collect();
    let end_ms = end_ms(client);
    let is_moment = |gap: &&&Gap| is_at_end(client, gap) && gap_ms(gap) < STEADY_MIN_MS;
    let until_ms = quiet.last().filter(is_moment).map_or(end_ms, |gap| gap.from_ms.min(end_ms));
    let buckets = from_ms.div_ceil(ClientRecord::BUCKET_MS)..;
    let mut whiles = buckets
        .map(|bucket| bucket * ClientRecord::BUCKET_MS)
        .take_while(|at_ms| at_ms + STEADY_MIN_MS <= until_ms)
        .map(|at_ms| (at_ms, until_ms.min(at_ms + STEADY_FOR_US / 1_000)));
    let (at_ms, _) = whiles.find(|(at_ms, to_ms)| {
        !quiet.iter().any(|gap| gap.from_ms < *to_ms && gap.to_ms > *at_ms) && is_well(client, *at_ms, *to_ms)
    })?;
    // The acknowledgement from which on it was so may lie in the bucket before.
    Some(at_ms.saturating_sub(ClientRecord::BUCKET_MS))
}

/// How long it lasted, milliseconds.
pub(super) const fn gap_ms(gap: &Gap) -> u64 {
    gap.to_ms.saturating_sub(gap.from_ms)
}

/// Whether enough of the writes were acknowledged that were to begin in this span.
fn is_well(client: &ClientRecord, from_ms: u64, to_ms: u64) -> bool {
    let place = |at_ms: u64| usize::try_from(at_ms / ClientRecord::BUCKET_MS).unwrap_or(usize::MAX);
    let inside = client.buckets.get(place(from_ms)..place(to_ms)).unwrap_or_default();
    let acknowledged: u64 = inside.iter().map(|bucket| u64::from(bucket.acknowledged)).sum();
    let failed: u64 = inside.iter().map(|bucket| u64::from(bucket.failed)).sum();
    acknowledged > 0 && acknowledged * 100 >= (acknowledged + failed) * WELL_PERCENT
}
