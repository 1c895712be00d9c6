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
    let mut phases =
        vec![(Phase::Detect, detect, true), (Phase::Vip, vip_took, vip_over), (Phase::Activate, activate_took, activate_over)];
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
