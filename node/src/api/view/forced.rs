//! A forced recovery as people read it.

use baton_runbooks::ledger::{Forced, Ledger};
use baton_runbooks::model::NodeId;

use super::super::alarm::AlarmCode;
use super::super::force::ForcedRecord;
use super::super::types::Alarm;
use super::timestamp;

/// All forced recoveries, newest last.
#[must_use]
pub fn history(ledger: &Ledger) -> Vec<ForcedRecord> {
    let record = |forced: &Forced| ForcedRecord {
        generation: forced.generation,
        survivor: forced.survivor.clone(),
        gave_up: forced.gave_up.clone(),
        last_index: forced.last_index,
        loss_accepted: forced.loss.is_some(),
        by: forced.by.clone(),
        reason: forced.reason.clone(),
        at: timestamp(forced.at),
    };
    ledger.forced.iter().map(record).collect()
}

/// As long as a node that was given up is not back. `is_back`: it takes part in the present generation. `is_old`: it is there with
/// a log of a lower one.
pub fn alarm(
    ledger: &Ledger,
    is_back: impl Fn(&NodeId) -> bool,
    is_old: impl Fn(&NodeId) -> bool,
) -> Option<Alarm> {
    let forced = ledger.forced.last()?;
    let away: Vec<&NodeId> = forced.gave_up.iter().filter(|node| !is_back(node)).collect();
    if away.is_empty() {
        return None;
    }
    let names = |nodes: &[&NodeId]| nodes.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(" and ");
    let old: Vec<&NodeId> = away.iter().copied().filter(|node| is_old(node)).collect();
    let way_out = if old.is_empty() {
        "start them when they may come back".to_owned()
    } else {
        let orders: Vec<String> = old.iter().map(|node| format!("`baton rejoin {node}`")).collect();
        format!("run {}", orders.join(" and "))
    };
    Some(AlarmCode::Forced.alarm(format!(
        "{} goes on in generation {}, forced by {} ({}) at {}; {} given up and not back: {way_out}",
        forced.survivor,
        forced.generation,
        forced.by,
        forced.reason,
        timestamp(forced.at).strftime("%Y-%m-%d %H:%M:%SZ"),
        names(&away),
    )))
}

#[cfg(test)]
mod tests {
    use baton_runbooks::model::{Generation, WallMs};

    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.force(Forced {
            generation: Generation(1),
            founder: String::new(),
            survivor: "db2".into(),
            gave_up: vec!["db1".into(), "mon".into()],
            last_index: 70,
            loss: None,
            by: "ann".to_owned(),
            reason: "fire".to_owned(),
            at: WallMs(0),
        });
        ledger
    }

    #[test]
    fn it_is_loud_until_everybody_is_back() {
        let text = alarm(&ledger(), |_| false, |node| *node == NodeId::from("db1")).unwrap().text;
        for part in
            ["db2 goes on in generation 1", "forced by ann (fire)", "db1 and mon", "run `baton rejoin db1`"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        let both = alarm(&ledger(), |_| false, |_| true).unwrap().text;
        assert!(both.ends_with("run `baton rejoin db1` and `baton rejoin mon`"), "{both}");
        let one = alarm(&ledger(), |node| *node == NodeId::from("db1"), |_| false).unwrap().text;
        assert!(one.contains("; mon given up and not back: start them"), "{one}");
        assert_eq!(alarm(&ledger(), |_| true, |_| false), None);
        assert_eq!(history(&ledger()).len(), 1, "the history keeps it");
    }
}
