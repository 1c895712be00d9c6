//! What the rounds have covered: which faults really bit and cut the holder, which steps were struck, how old the lease was.

use std::collections::BTreeMap;

use baton_chaos::history::Kind;
use serde::Serialize;

use super::draw::{POINTS, steps};
use super::summary::Played;
use crate::fault::Fault;
use crate::run::Outcome;

/// Clients that were away for longer were cut off; a busy machine alone lets a write wait for less.
const CUT_MS: u64 = 250;
/// Width of the classes in which ages of leases are counted, milliseconds. A renewal is due every 200 ms.
const AGE_CLASS_MS: u64 = 50;

/// What one kind of round came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many rounds.
    pub rounds: usize,
    /// In how many the fault was seen to bite.
    pub bit: usize,
    /// In how many the holder changed.
    pub holder_changed: usize,
    /// In how many clients of MySQL were away for more than 250 ms.
    pub cut: usize,
    /// In how many the harness could not vouch for what it saw.
    pub inconclusive: usize,
    /// In how many something was broken.
    pub violations: usize,
    /// Outages of MySQL, milliseconds.
    pub outage_ms: Vec<u64>,
}

/// By what was done.
pub(super) fn tallies(played: &[Played]) -> BTreeMap<String, Tally> {
    let mut faults: BTreeMap<String, Tally> = BTreeMap::new();
    for one in played {
        let tally = faults.entry(one.round.name()).or_default();
        tally.rounds += 1;
        tally.bit += usize::from(one.bit);
        tally.holder_changed += usize::from(one.holder_changes > 0);
        let outage_ms = one.outage_ms.get(&Kind::Mysql).copied();
        tally.cut += usize::from(outage_ms.is_some_and(|ms| ms > CUT_MS));
        tally.inconclusive += usize::from(one.outcome == Outcome::Inconclusive);
        tally.violations += usize::from(one.outcome == Outcome::Fail);
        tally.outage_ms.extend(outage_ms);
    }
    faults
}

/// How often each step was struck at which a fault can strike, those with none included.
pub(super) fn struck(played: &[Played]) -> BTreeMap<String, usize> {
    let of = |fault: Fault, at: &str| {
        format!("{} {at}", if fault.is_of_a_switchover() { "switchover" } else { "takeover" })
    };
    let docker = played.iter().any(|one| one.round.docker);
    let mut hits = BTreeMap::new();
    for fault in Fault::ALL.iter().copied() {
        let all =
            steps(fault, docker).into_iter().flat_map(|step| POINTS.map(|point| format!("{step}:{point}")));
        hits.extend(all.map(|at| (of(fault, &at), 0)));
    }
    for one in played.iter().filter(|one| one.bit) {
        if let Some(at) = &one.round.at {
            *hits.entry(of(one.round.fault, at)).or_default() += 1;
        }
    }
    hits
}

/// How many faults struck at which age of the lease.
pub(super) fn ages(played: &[Played]) -> BTreeMap<u64, usize> {
    let mut classes = BTreeMap::new();
    for age_ms in played.iter().filter_map(|one| one.lease_age_ms) {
        *classes.entry(age_ms / AGE_CLASS_MS * AGE_CLASS_MS).or_default() += 1;
    }
    classes
}

/// How the switchovers ended during which a fault struck.
pub(super) fn begun_codes(played: &[Played]) -> BTreeMap<i32, usize> {
    let mut codes = BTreeMap::new();
    for code in played.iter().filter_map(|one| one.begun_code) {
        *codes.entry(code).or_default() += 1;
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::passed;
    use super::*;

    #[test]
    fn a_step_counts_as_struck_only_if_the_fault_bit() {
        let at = |number, bit| {
            let mut one = Played { bit, ..passed(number) };
            one.round.fault = Fault::SwitchoverCrash;
            one.round.at = Some("close_holder:acted".into());
            one
        };
        let hits = struck(&[at(1, true), at(2, false), at(3, true)]);
        assert_eq!(hits["switchover close_holder:acted"], 2);
        assert_eq!(hits["takeover open_ports:started"], 0, "what was never struck is named");
        let service = "takeover start_independent:acted";
        assert!(!hits.contains_key(service), "without container engines there is no such step");
        let mut with_docker = at(4, true);
        with_docker.round.docker = true;
        assert_eq!(struck(&[with_docker])[service], 0);
    }
}
