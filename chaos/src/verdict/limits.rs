//! Figures beside the outage for which a drill's file names a longest time: what was seen of each, and whether it held.

use std::fmt;

use crate::evidence::{ClientRecord, Record};
use crate::experiment::{Figure, Span};
use crate::history::Kind;

/// So much must be left before the end of the load for writes to count as steady, milliseconds: an instant that is nearer to
/// the end says nothing.
const STEADY_MIN_MS: u64 = 1_000;

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

/// Where no steady writes were seen after the last fault: from it until the last instant at which they could have been.
fn unsteady_ms(record: &Record, client: &ClientRecord) -> Option<u64> {
    let injected_ms = record.faults.iter().filter_map(|fault| fault.injected_ms).max()?;
    let end_ms = client.buckets.len() as u64 * ClientRecord::BUCKET_MS;
    end_ms.checked_sub(injected_ms.saturating_add(STEADY_MIN_MS))
}
