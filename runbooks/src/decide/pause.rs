//! What is looked at before an operator pauses.
//!
//! Any node answers, from its own view. What is ordered is what was shown, and the ledger takes it only in the epoch in which
//! it was shown.

use serde::{Deserialize, Serialize};

use super::switchover::{Check, View};
use crate::lease::on_any_clock_ms;
use crate::ledger::PauseOrder;
use crate::ledger::pause::{PAUSE_MAX_MS, PAUSE_MIN_MS};
use crate::model::Epoch;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseWanted {
    /// What is ordered.
    pub order: PauseOrder,
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausePreflight {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// The epoch that would be kept; `None`: something stands in the way.
    pub epoch: Option<Epoch>,
    /// How long, from the order, nobody may take over if the holder cannot confirm the end, in milliseconds.
    pub at_most_ms: u64,
}

/// Looks at everything that has to be so before a pause.
#[must_use]
pub fn preflight(view: &View<'_>, wanted: &PauseWanted) -> PausePreflight {
    let ledger = view.ledger;
    let mut checks = Vec::new();
    let mut note = |code: &str, ok: bool, evidence: String| {
        checks.push(Check { code: code.to_owned(), ok, evidence });
    };
    match &ledger.pause {
        Some(pause) => {
            note("not-paused", false, format!("pause {} by {} is not over", pause.id, pause.order.by));
        }
        None => note("not-paused", true, "no pause stands".to_owned()),
    }
    match &ledger.run {
        Some(run) => note("no-run", false, format!("run {} is in progress", run.id)),
        None => note("no-run", true, "no run is in progress".to_owned()),
    }
    let holder = ledger.holder.as_ref();
    let report = holder.and_then(|holder| view.reports.get(holder));
    let fresh = report.filter(|heard| view.now.since_ms(heard.at) <= view.report_max_ms);
    match (holder, fresh) {
        (None, _) => note("holder-serves", false, "nobody holds the baton".to_owned()),
        (Some(holder), None) => note("holder-serves", false, format!("no report from {holder}")),
        (Some(holder), Some(heard)) if heard.report.serving && !ledger.has_released() => {
            note("holder-serves", true, format!("{holder} serves, and goes on serving"));
        }
        (Some(holder), Some(_)) => {
            note("holder-serves", false, format!("{holder} does not serve; look at `baton explain`"));
        }
    }
    let for_ms = wanted.order.for_ms;
    let limits =
        format!("{for_ms} ms; {} s at least, {} h at most", PAUSE_MIN_MS / 1000, PAUSE_MAX_MS / 3_600_000);
    note("length", (PAUSE_MIN_MS..=PAUSE_MAX_MS).contains(&for_ms), limits);
    let reason = wanted.order.reason.trim();
    note(
        "reason",
        !reason.is_empty(),
        if reason.is_empty() { "say why".to_owned() } else { reason.to_owned() },
    );
    let epoch = checks.iter().all(|check| check.ok).then_some(ledger.epoch);
    PausePreflight { checks, epoch, at_most_ms: on_any_clock_ms(for_ms) }
}
