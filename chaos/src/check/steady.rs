//! Sustained recovery: how long after a fault writes are acknowledged steadily again. Pure.
//!
//! One acknowledgement is no service, and a service that comes and goes is none either. Writes are acknowledged steadily
//! from an instant on if two things are so:
//!
//! 1. of those that are to begin within five seconds from then on, 99 in 100 are acknowledged: it is well;
//! 2. until the next fault, or the end, half a second never passes without an acknowledgement: it stays so. Some faults
//!    bite only when a lease ends, and some outages come when a fault is healed.
//!
//! A fault after which nothing was steady before the next one is counted on: its recovery is that of the next.

use crate::history::{Outcome, Write};

/// Over which time it must be well, microseconds: as long as the runner waits for the outcome of a fault to be steady. Where
/// less of it is left before the next fault or the end, that counts.
pub(crate) const STEADY_FOR_US: u64 = 5_000_000;
/// So much of it must be left: less proves nothing.
pub(crate) const STEADY_MIN_US: u64 = 1_000_000;
/// Percent of the writes that are acknowledged when it is well.
pub(crate) const WELL_PERCENT: u64 = 99;
/// Quiet for so long, it is away, microseconds: fifty writes.
pub(crate) const QUIET_US: u64 = 500_000;

/// The longest time from a fault until writes were acknowledged steadily, microseconds. `writes`: of one kind, in any order;
/// `injected_us`: when faults were injected, in their order. `None`: there was no fault, or after the last one they were not
/// acknowledged steadily again.
#[must_use]
pub fn sustained_us(writes: &[&Write], injected_us: &[u64], end_us: u64) -> Option<u64> {
    let seen = Seen::new(writes);
    let mut longest: Option<u64> = None;
    let mut since: Option<u64> = None;
    for (index, from_us) in injected_us.iter().copied().enumerate() {
        let until_us = injected_us.get(index + 1).copied().unwrap_or(end_us);
        let began_us = since.take().unwrap_or(from_us);
        match seen.steady_from(from_us, until_us) {
            Some(at_us) => longest = longest.max(Some(at_us - began_us)),
            None => since = Some(began_us),
        }
    }
    if since.is_some() { None } else { longest }
}

/// Writes in the two orders in which they are asked for.
struct Seen {
    /// When each was to begin, in order.
    intended: Vec<u64>,
    /// How many of the first so many of them were acknowledged.
    acknowledged: Vec<u64>,
    /// When each acknowledgement came, in order.
    ends: Vec<u64>,
}

impl Seen {
    fn new(writes: &[&Write]) -> Self {
        let mut sorted = writes.to_vec();
        sorted.sort_unstable_by_key(|write| write.intended_us);
        let mut seen = Self { intended: Vec::new(), acknowledged: vec![0], ends: Vec::new() };
        for write in sorted {
            seen.intended.push(write.intended_us);
            if write.outcome == Outcome::Acknowledged {
                seen.ends.push(write.ended_us);
            }
            seen.acknowledged.push(seen.ends.len() as u64);
        }
        seen.ends.sort_unstable();
        seen
    }

    /// The first acknowledgement in this span from which on they come steadily, until the span ends.
    fn steady_from(&self, from_us: u64, until_us: u64) -> Option<u64> {
        let place = |at_us: u64| self.ends.partition_point(|end| *end < at_us);
        let inside = &self.ends[place(from_us)..place(until_us.max(from_us))];
        let mut last_us = from_us;
        let mut first = 0;
        for (index, end_us) in inside.iter().copied().enumerate() {
            if end_us - last_us >= QUIET_US {
                first = index;
            }
            last_us = end_us;
        }
        if until_us.saturating_sub(last_us) >= QUIET_US {
            return None;
        }
        let mut candidates =
            inside[first..].iter().copied().take_while(|at_us| at_us + STEADY_MIN_US <= until_us);
        candidates.find(|at_us| self.is_well(*at_us, until_us.min(at_us + STEADY_FOR_US)))
    }

    /// Whether enough of the writes were acknowledged that were to begin in this span.
    fn is_well(&self, from_us: u64, until_us: u64) -> bool {
        let place = |at_us: u64| self.intended.partition_point(|intended| *intended < at_us);
        let (first, after) = (place(from_us), place(until_us));
        let all = (after - first) as u64;
        let acknowledged = self.acknowledged[after] - self.acknowledged[first];
        all > 0 && acknowledged * 100 >= all * WELL_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Kind;

    const END_US: u64 = 15_000_000;
    const FAULT_US: u64 = 1_000_000;

    /// A write every 10 ms until the end, each answered after 3 ms; those that begin when `fails` says so are refused.
    fn sustained(injected_us: &[u64], fails: impl Fn(u64) -> bool) -> Option<u64> {
        let write = |id: u64| {
            let at_us = id * 10_000;
            let refused = || Outcome::Refused { error: "refused".into() };
            let outcome = if fails(at_us) { refused() } else { Outcome::Acknowledged };
            let (started_us, ended_us) = (at_us, at_us + 3_000);
            Write { kind: Kind::Mysql, id, intended_us: at_us, started_us, ended_us, outcome, server: None }
        };
        let writes: Vec<Write> = (0..END_US / 10_000).map(write).collect();
        // In no order, as in a history.
        let mixed: Vec<&Write> =
            writes.iter().rev().step_by(2).chain(writes.iter().rev().skip(1).step_by(2)).collect();
        assert_eq!(mixed.len(), writes.len());
        sustained_us(&mixed, injected_us, END_US)
    }

    #[test]
    fn one_outage_ends_with_the_first_acknowledgement_after_it() {
        let away = |at_us: u64| (FAULT_US..1_500_000).contains(&at_us);
        assert_eq!(sustained(&[FAULT_US], away), Some(503_000));
    }

    #[test]
    fn what_fails_now_and_then_is_steady_and_what_is_acknowledged_now_and_then_is_not() {
        assert_eq!(sustained(&[FAULT_US], |at_us| at_us == 2_000_000), Some(3_000));
        let flaps = |at_us: u64| (FAULT_US..3_000_000).contains(&at_us) && !at_us.is_multiple_of(200_000);
        assert_eq!(sustained(&[FAULT_US], flaps), Some(2_003_000));
    }

    #[test]
    fn a_fault_that_bites_late_is_recovered_from_late() {
        let away = |at_us: u64| (8_000_000..9_000_000).contains(&at_us);
        assert_eq!(sustained(&[FAULT_US], away), Some(8_003_000));
        let shortly = |at_us: u64| (8_000_000..8_200_000).contains(&at_us);
        assert_eq!(sustained(&[FAULT_US], shortly), Some(3_000), "too short to be away");
    }

    #[test]
    fn what_is_not_seen_for_a_second_is_not_steady() {
        assert_eq!(sustained(&[FAULT_US], |at_us| at_us >= FAULT_US), None, "never back");
        assert_eq!(sustained(&[FAULT_US], |at_us| (FAULT_US..14_500_000).contains(&at_us)), None);
        let back = sustained(&[FAULT_US], |at_us| (FAULT_US..13_900_000).contains(&at_us));
        assert_eq!(back, Some(12_903_000));
        assert_eq!(sustained(&[FAULT_US], |at_us| at_us >= 14_000_000), None, "away at the end");
        assert_eq!(sustained(&[], |_| false), None, "no fault");
        assert_eq!(sustained_us(&[], &[FAULT_US], END_US), None, "no writes");
    }

    #[test]
    fn of_several_faults_the_slowest_counts_and_one_that_overlaps_is_counted_on() {
        let away =
            |at_us: u64| (FAULT_US..1_500_000).contains(&at_us) || (8_000_000..9_200_000).contains(&at_us);
        assert_eq!(sustained(&[FAULT_US, 8_000_000], away), Some(1_203_000));
        let overlap =
            |at_us: u64| (FAULT_US..1_800_000).contains(&at_us) || (2_000_000..2_300_000).contains(&at_us);
        assert_eq!(sustained(&[FAULT_US, 2_000_000], overlap), Some(1_303_000), "since the first");
    }
}
