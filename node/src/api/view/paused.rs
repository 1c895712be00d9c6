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
    let serves = match status
        .nodes
        .iter()
        .find(|row| row.kind == NodeKind::Data && Some(&row.name) == status.holder.as_ref())
    {
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

#[cfg(test)]
mod tests {
    use baton_runbooks::ledger::PauseOrder;
    use baton_runbooks::model::{Epoch, PauseId};

    use super::*;
    use crate::api::{sample, view};

    fn paused(resumed_by: Option<&str>) -> Ledger {
        let (reason, by) = ("new disks".to_owned(), "ann (uid 0)".to_owned());
        let order = PauseOrder { for_ms: 1_800_000, alone: false, reason, by };
        let resumed_by = resumed_by.map(str::to_owned);
        let (id, at) = (PauseId(3), sample::START);
        let pause = Pause { id, epoch: Epoch(2), order, at, claimed_by: Some(1), resumed_by };
        let members = ["db1", "db2"].map(|name| (NodeId::from(name), NodeKind::Data));
        Ledger {
            pause: Some(pause),
            holder: Some("db1".into()),
            members: members.into(),
            ..Ledger::default()
        }
    }

    fn said(ledger: &Ledger, armed_ms: Option<u64>) -> String {
        let row = row(ledger, &BTreeMap::new(), Mono(0), 700).map(|row| PauseRow { armed_ms, ..row });
        let status = view::conclude(Status { paused: row, ..sample::facts() });
        assert!(!status.ok, "a paused cluster is not fine");
        status.sentence
    }

    #[test]
    fn the_sentence_says_what_will_not_happen_who_why_and_until_when() {
        let text = said(&paused(None), Some(900_000));
        for part in [
            "PAUSED",
            "22:10:00Z",
            "ann (uid 0)",
            "new disks",
            "nobody takes over",
            "db1 serves on",
            "baton resume",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        let unsure = said(&paused(None), None);
        assert!(unsure.contains("db1 serves, but has not said"), "{unsure}");
    }

    #[test]
    fn a_pause_that_was_ended_waits_for_the_holder() {
        let text = said(&paused(Some("bob (uid 0)")), Some(900_000));
        assert!(
            text.contains("bob (uid 0) has ended the pause") && text.contains("db1 has not said yet"),
            "{text}"
        );
    }

    #[test]
    fn who_has_not_seen_it_is_named() {
        let row = row(&paused(None), &BTreeMap::new(), Mono(0), 700).unwrap();
        assert_eq!((row.seen_by.len(), row.unseen_by.len()), (0, 2));
    }
}
