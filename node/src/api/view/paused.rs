//! A pause as people read it.

use std::collections::BTreeMap;

use baton_runbooks::decide::Heard;
use baton_runbooks::ledger::{Ledger, Pause};
use baton_runbooks::model::{Mono, NodeId, NodeKind, WallMs};
use baton_runbooks::observe::PausedFacts;

use super::super::pause::{PauseRecord, PauseRow};
use super::super::types::Status;
use super::{name_or, timestamp};

/// The pause that is not over. Reports older than `report_max_ms` say nothing of it.
#[must_use]
pub fn row(
    ledger: &Ledger,
    reports: &BTreeMap<NodeId, Heard>,
    now: Mono,
    report_max_ms: u64,
) -> Option<PauseRow> {
    let pause = ledger.pause.as_ref()?;
    let said = |node: &NodeId| -> Option<&PausedFacts> {
        let heard = reports.get(node).filter(|heard| now.since_ms(heard.at) <= report_max_ms)?;
        heard.report.paused.as_ref().filter(|said| said.pause == pause.id)
    };
    let (seen_by, unseen_by) = ledger.members.keys().cloned().partition(|node| said(node).is_some());
    let holder = ledger.holder.as_ref().and_then(said);
    Some(PauseRow {
        number: pause.id,
        by: pause.order.by.clone(),
        reason: pause.order.reason.clone(),
        at: timestamp(pause.at),
        until: timestamp(WallMs(pause.at.0.saturating_add(pause.order.for_ms))),
        alone: pause.order.alone,
        resumed_by: pause.resumed_by.clone(),
        seen_by,
        unseen_by,
        armed_ms: holder.and_then(|said| said.armed_ms),
        over_in_ms: ledger.members.keys().filter_map(|node| said(node)?.over_in_ms).min(),
    })
}

/// All pauses of the ledger, newest last.
#[must_use]
pub fn history(ledger: &Ledger) -> Vec<PauseRecord> {
    let record = |pause: &Pause| PauseRecord {
        number: pause.id,
        by: pause.order.by.clone(),
        reason: pause.order.reason.clone(),
        at: timestamp(pause.at),
        for_ms: pause.order.for_ms,
        alone: pause.order.alone,
        ended_at: None,
        ended: None,
    };
    let ended = ledger.pause_history.iter().map(|ended| PauseRecord {
        ended_at: Some(timestamp(ended.ended_at)),
        ended: Some(ended.ended.clone()),
        ..record(&ended.pause)
    });
    ended.chain(ledger.pause.as_ref().map(record)).collect()
}

/// What will not happen, who wants it so, why, and until when.
pub(super) fn sentence(pause: &PauseRow, status: &Status) -> String {
    let holder = name_or(status.holder.as_ref(), "the holder");
    let until = pause.until.strftime("%H:%M:%SZ");
    let who = format!("by {}: {}", pause.by, pause.reason);
    if let Some(resumed_by) = &pause.resumed_by {
        let left = pause.over_in_ms.map_or_else(
            || "until the longest that it was given has ended".to_owned(),
            |ms| format!("for {} s more at the longest", ms.div_ceil(1000)),
        );
        return format!(
            "PAUSED until {holder} confirms: {resumed_by} has ended the pause ({who}), and {holder} has not said yet that \
             its lifetimes are short again. Nobody takes over before, {left}."
        );
    }
    let serves = match status.nodes.iter().find(|row| row.kind == NodeKind::Data && Some(&row.name) == status.holder.as_ref()) {
        Some(row) if row.serving => match pause.armed_ms {
            Some(_) => format!("{holder} serves on, with or without its agent and a majority"),
            None => format!("{holder} serves, but has not said that it goes on without a majority"),
        },
        Some(_) | None => format!("{holder} does not serve as far as this node knows, and stays so"),
    };
    let alone = if pause.alone { ", and waits for no replica" } else { "" };
    format!(
        "PAUSED until about {until} {who}. Until then nobody takes over, whatever happens; no switchover, no resync. \
         {serves}{alone}. `baton resume` ends it."
    )
}
