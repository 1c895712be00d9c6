//! The phases of a run of the ledger, as a drill budgets them.
//!
//! The ledger's instants are wall clocks of the nodes that carried the steps out; the runner's are monotonic. Both are brought
//! together by the runner's own wall clock at its start, so a node whose clock is off shifts its phases. What is judged
//! against the outage is the client's clock alone.

use baton_node::api::types::{RunRecord, RunResult};
use jiff::Timestamp;

use crate::evidence::PhaseRecord;
use crate::experiment::{Budgets, Phase};

/// Milliseconds from a run's start to its marks: virtual IP held, everything running, seen from outside.
fn marks(run: &RunRecord) -> [Option<u64>; 3] {
    let at = |names: &[&str]| names.iter().filter_map(|name| run.phases_ms.get(*name).copied()).max();
    [at(&["vip_held"]), at(&["promoted", "open", "services_healthy"]), at(&["validated"])]
}

/// The phases of a run while it goes on: milliseconds so far, and whether each is over.
#[must_use]
pub fn progress(run: &RunRecord) -> Vec<(Phase, u64, bool)> {
    let [vip, activate, validate] = marks(run);
    let detect = run.detected_ms_before.unwrap_or(0);
    let so_far = |mark: Option<u64>, from: u64| match mark {
        Some(to) => (to.saturating_sub(from), true),
        None => (run.elapsed_ms.saturating_sub(from), run.result != RunResult::Running),
    };
    let (vip_took, vip_over) = so_far(vip, 0);
    let (activate_took, activate_over) = so_far(activate.filter(|_| validate.is_some() || vip_over), 0);
    let mut phases = vec![
        (Phase::Detect, detect, true),
        (Phase::Vip, vip_took, vip_over),
        (Phase::Activate, activate_took, activate_over),
    ];
    if let Some(activate) = activate {
        let (took, over) = so_far(validate, activate);
        phases.push((Phase::Validate, took, over));
    }
    phases
}

/// The phases of a run for the record. `bit_ms`: when the fault that it came of took effect, by the runner's clock;
/// `None` for a switchover, which is decided by itself.
#[must_use]
pub fn phases(
    run: &RunRecord,
    bit_ms: Option<u64>,
    budgets: &Budgets,
    runner_started: Timestamp,
) -> Vec<PhaseRecord> {
    let since = run.at.as_millisecond() - runner_started.as_millisecond();
    let decided_ms = u64::try_from(since).unwrap_or(0);
    let [vip, activate, validate] = marks(run);
    let record = |phase: Phase, from_ms: u64, to_ms: u64| PhaseRecord {
        run: run.number.0,
        phase,
        from_ms,
        to_ms: to_ms.max(from_ms),
        budget_ms: budgets.of(phase).ms(),
        source: "ledger".into(),
    };
    let mut phases = Vec::new();
    if let Some(bit_ms) = bit_ms {
        phases.push(record(Phase::Detect, bit_ms.min(decided_ms), decided_ms));
    }
    phases.extend(vip.map(|ms| record(Phase::Vip, decided_ms, decided_ms + ms)));
    phases.extend(activate.map(|ms| record(Phase::Activate, decided_ms, decided_ms + ms)));
    if let (Some(activate), Some(validate)) = (activate, validate) {
        phases.push(record(Phase::Validate, decided_ms + activate, decided_ms + validate));
    }
    phases
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A takeover from db1 to db2, as an agent's history has it.
    pub(in super::super) fn run(number: u64, runbook: &str, from: &str) -> RunRecord {
        let json = serde_json::json!({
            "number": number, "at": "2026-01-01T00:00:10Z", "runbook": runbook, "from": from, "to": "db2",
            "epoch": 2, "cause": "mysql-dead", "why": [], "result": "completed", "failure": null, "elapsed_ms": 900,
            "phases_ms": {"decided": 0, "vip_held": 100, "promoted": 300, "open": 350, "validated": 500},
            "detected_ms_before": 40, "steps": [],
        });
        serde_json::from_value(json).expect("the form of a run")
    }

    #[test]
    fn phases_follow_each_other_from_the_fault_on() {
        let started: Timestamp = "2026-01-01T00:00:00Z".parse().expect("an instant");
        let phases = phases(&run(1, "takeover", "db1"), Some(9_800), &Budgets::default(), started);
        let spans: Vec<(Phase, u64, u64)> =
            phases.iter().map(|phase| (phase.phase, phase.from_ms, phase.to_ms)).collect();
        assert_eq!(
            spans,
            [
                (Phase::Detect, 9_800, 10_000),
                (Phase::Vip, 10_000, 10_100),
                (Phase::Activate, 10_000, 10_350),
                (Phase::Validate, 10_350, 10_500),
            ]
        );
    }

    #[test]
    fn a_switchover_has_nothing_to_detect_and_a_missing_mark_no_phase() {
        let started: Timestamp = "2026-01-01T00:00:00Z".parse().expect("an instant");
        let bare = RunRecord { phases_ms: BTreeMap::new(), ..run(1, "switchover", "db1") };
        assert_eq!(phases(&bare, None, &Budgets::default(), started), []);
        // The fault cannot come after what came of it, whatever the clocks say.
        let early = phases(&run(1, "takeover", "db1"), Some(99_000), &Budgets::default(), started);
        assert_eq!(early[0].took_ms(), 0);
    }

    #[test]
    fn progress_of_a_run_under_way_grows_until_each_mark() {
        let mut going = run(1, "takeover", "db1");
        going.result = RunResult::Running;
        going.phases_ms = BTreeMap::from([("decided".to_owned(), 0), ("vip_held".to_owned(), 100)]);
        let seen = progress(&going);
        assert_eq!(seen[1], (Phase::Vip, 100, true));
        assert_eq!(seen[2], (Phase::Activate, 900, false));
    }
}
