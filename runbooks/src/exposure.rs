//! What Redis may lose: how much of the primary's data its replica does not have, in bytes and in time.
//!
//! Redis replicates asynchronously, so the loss of the primary takes with it what the replica had not processed. The holder's
//! agent compares the two offsets ten times a second (design, 6), twice while nothing is written. No clock of the other node is in
//! it: the age is that of the holder's own look at its offset.

mod following;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::Mono;
pub use following::{Following, UNFOLLOWED_MIN_MS};

/// Looks that are kept while the replica stands still, more than a minute's; then every other one is forgotten.
const LOOKS_MAX: usize = 1_024;

/// What would be lost with the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Bytes of the primary's stream that the replica has not processed.
    pub bytes: u64,
    /// Age of the oldest of them in milliseconds: since the last look of which the replica has all, or since the first look; 0
    /// if it has all.
    pub ms: u64,
}

/// Compares the two offsets, look by look.
#[derive(Debug, Default)]
pub struct Gauge {
    /// When the primary had written how much. The replica lacks something of each but the first.
    written: VecDeque<(Mono, u64)>,
    /// What the replica said last.
    processed: u64,
}

impl Gauge {
    /// The primary had written `written` bytes at `at`, and its replica, asked after that, had processed `processed` of them.
    pub fn look(&mut self, at: Mono, written: u64, processed: u64) -> Exposure {
        if self.written.back().is_some_and(|(_, before)| written < *before) {
            // Another stream.
            self.written.clear();
        }
        self.written.push_back((at, written));
        while self.written.get(1).is_some_and(|(_, next)| *next <= processed) {
            self.written.pop_front();
        }
        if self.written.len() > LOOKS_MAX {
            let mut number = 0_usize;
            self.written.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.processed = processed;
        self.exposed(at, written)
    }

    /// The primary had written `written` bytes at `at`; its replica was not asked, or did not answer: it may have nothing more than
    /// it had. If that is all, the look counts as one of which it has all. `None` before any look, and of another stream.
    pub fn unanswered(&mut self, at: Mono, written: u64) -> Option<Exposure> {
        self.at_least(at, written)?;
        Some(self.look(at, written, self.processed))
    }

    /// The primary does not answer: it had written `written` bytes at some time before `at`, and may have written more. `None` as
    /// in [`Self::unanswered`].
    #[must_use]
    pub fn at_least(&self, at: Mono, written: u64) -> Option<Exposure> {
        self.written.back().filter(|(_, before)| *before <= written).map(|_| self.exposed(at, written))
    }

    fn exposed(&self, at: Mono, written: u64) -> Exposure {
        let bytes = written.saturating_sub(self.processed);
        let since = self.written.front().map_or(0, |(then, _)| at.since_ms(*then));
        Exposure { bytes, ms: if bytes == 0 { 0 } else { since } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(gauge: &mut Gauge, at: u64, written: u64, processed: u64) -> (u64, u64) {
        let Exposure { bytes, ms } = gauge.look(Mono(at), written, processed);
        (bytes, ms)
    }

    #[test]
    fn nothing_is_exposed_while_the_replica_has_all() {
        let mut gauge = Gauge::default();
        assert_eq!(look(&mut gauge, 0, 10, 10), (0, 0));
        // It was asked a moment later, and has more than was seen here.
        assert_eq!(look(&mut gauge, 100, 20, 25), (0, 0));
    }

    #[test]
    fn age_counts_from_the_last_look_at_which_it_had_all() {
        let mut gauge = Gauge::default();
        look(&mut gauge, 0, 10, 10);
        assert_eq!(look(&mut gauge, 100, 30, 10), (20, 100));
        assert_eq!(look(&mut gauge, 200, 50, 10), (40, 200));
        assert_eq!(look(&mut gauge, 300, 60, 35), (25, 200), "it has what was there at 100");
        assert_eq!(look(&mut gauge, 400, 60, 60), (0, 0));
        assert_eq!(look(&mut gauge, 500, 70, 60), (10, 100));
    }

    #[test]
    fn a_replica_that_cannot_be_asked_lacks_ever_more() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.unanswered(Mono(0), 10), None);
        look(&mut gauge, 0, 10, 10);
        assert_eq!(gauge.unanswered(Mono(5_000), 90), Some(Exposure { bytes: 80, ms: 5_000 }));
        look(&mut gauge, 5_100, 100, 40);
        assert_eq!(gauge.unanswered(Mono(5_200), 100), Some(Exposure { bytes: 60, ms: 5_200 }));
        assert_eq!(gauge.unanswered(Mono(5_300), 90), None, "the primary began anew");
    }

    #[test]
    fn age_counts_from_a_look_without_an_answer_if_the_replica_had_all_by_then() {
        let mut gauge = Gauge::default();
        look(&mut gauge, 0, 10, 10);
        assert_eq!(gauge.unanswered(Mono(4_000), 10), Some(Exposure { bytes: 0, ms: 0 }));
        assert_eq!(gauge.unanswered(Mono(4_500), 90), Some(Exposure { bytes: 80, ms: 500 }));
        assert_eq!(
            gauge.unanswered(Mono(5_000), 90),
            Some(Exposure { bytes: 80, ms: 1_000 }),
            "it lacks them"
        );
        // The next answer has what was there at 5,000.
        assert_eq!(look(&mut gauge, 9_000, 100, 90), (10, 4_000));
    }

    #[test]
    fn a_primary_that_does_not_answer_may_have_written_since_it_did() {
        let mut gauge = Gauge::default();
        look(&mut gauge, 0, 10, 10);
        assert_eq!(gauge.at_least(Mono(4_000), 10), Some(Exposure { bytes: 0, ms: 0 }));
        assert_eq!(look(&mut gauge, 4_100, 90, 10), (80, 4_100), "some may be as old as the first look");
        assert_eq!(gauge.at_least(Mono(4_200), 80), None);
    }

    #[test]
    fn a_primary_that_began_anew_is_not_compared_with_what_was_before() {
        let mut gauge = Gauge::default();
        look(&mut gauge, 0, 1_000, 1_000);
        assert_eq!(look(&mut gauge, 9_000, 10, 10), (0, 0));
        assert_eq!(look(&mut gauge, 9_100, 20, 10), (10, 100));
    }

    #[test]
    fn a_replica_that_stands_still_costs_no_more_memory_than_it_may() {
        let mut gauge = Gauge::default();
        look(&mut gauge, 0, 0, 0);
        for n in 1..10_000 {
            assert_eq!(look(&mut gauge, n * 100, n, 0), (n, n * 100));
            assert!(gauge.written.len() <= LOOKS_MAX);
        }
        // What is forgotten makes the age larger, never smaller.
        let (bytes, ms) = look(&mut gauge, 1_000_000, 10_000, 5_000);
        assert!(bytes == 5_000 && ms >= 500_000, "{ms}");
    }
}
