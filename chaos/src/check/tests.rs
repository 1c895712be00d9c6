//! The judge judged: each kind of damage is planted and must be found; what is clean must pass.

use super::*;
use crate::history::Lateness;

const FAULT_US: u64 = 500_000;

fn write(id: u64, started_us: u64, server: &str, outcome: Outcome) -> Write {
    Write {
        kind: Kind::Mysql,
        id,
        intended_us: started_us,
        started_us,
        ended_us: started_us + 3_000,
        outcome,
        server: Some(server.to_owned()),
    }
}

fn refused() -> Outcome {
    Outcome::Refused { error: "read only".into() }
}

fn unknown() -> Outcome {
    Outcome::Unknown { error: "time-out".into() }
}

/// `db1` serves until the fault, nobody for 300 ms, then `db2`.
fn takeover() -> (History, Finals) {
    let mut history = History { probe_period_us: 10_000, ..History::default() };
    let mut there = BTreeMap::new();
    for id in 0..150 {
        let at_us = id * 10_000;
        let (server, outcome) = match at_us {
            0..FAULT_US => ("11", Outcome::Acknowledged),
            FAULT_US..800_000 => ("11", if id % 2 == 0 { refused() } else { unknown() }),
            _ => ("12", Outcome::Acknowledged),
        };
        if outcome == Outcome::Acknowledged {
            there.insert(id, 1);
            history.answers.push(Answer { probe: id, at_us: at_us + 100, mac: format!("mac-{server}") });
        }
        history.writes.push(write(id, at_us, server, outcome));
    }
    (history, Finals(BTreeMap::from([(Kind::Mysql, there)])))
}

fn judge(history: &History, finals: &Finals) -> Verdict {
    check(history, finals, Bounds { fault_us: FAULT_US, end_us: 1_500_000, holder_changes: 1 })
}

fn mysql(verdict: &Verdict) -> &KindVerdict {
    &verdict.kinds[&Kind::Mysql]
}

#[test]
fn a_clean_takeover_passes() {
    let (history, finals) = takeover();
    let verdict = judge(&history, &finals);
    assert!(verdict.is_safe(Kind::Mysql), "{verdict:?}");
    assert_eq!(verdict.two_holders_ms, 0);
    assert_eq!(verdict.reigns.len(), 2);
    let judged = mysql(&verdict);
    assert_eq!((judged.handovers, judged.restored), (1, true));
    assert_eq!(judged.outage_us, 803_000 - 493_000);
    assert_eq!(judged.servers, BTreeMap::from([("11".to_owned(), 50), ("12".to_owned(), 70)]));
}

#[test]
fn a_lost_write_is_found() {
    let (history, mut finals) = takeover();
    finals.0.get_mut(&Kind::Mysql).unwrap().remove(&49);
    let verdict = judge(&history, &finals);
    assert_eq!(mysql(&verdict).lost, [49]);
    assert!(!verdict.is_safe(Kind::Mysql));
}

#[test]
fn an_unanswered_write_may_be_there_or_not() {
    let (history, mut finals) = takeover();
    finals.0.get_mut(&Kind::Mysql).unwrap().insert(51, 1);
    assert!(judge(&history, &finals).is_safe(Kind::Mysql));
}

#[test]
fn a_duplicated_write_is_found() {
    let (history, mut finals) = takeover();
    finals.0.get_mut(&Kind::Mysql).unwrap().insert(48, 2);
    let verdict = judge(&history, &finals);
    assert_eq!(mysql(&verdict).duplicated, [48]);
    assert!(!verdict.is_safe(Kind::Mysql));
}

#[test]
fn a_write_acknowledged_twice_is_found() {
    let (mut history, finals) = takeover();
    history.writes.push(write(90, 1_400_000, "12", Outcome::Acknowledged));
    assert_eq!(mysql(&judge(&history, &finals)).duplicated, [90]);
}

#[test]
fn a_resurrected_write_is_found() {
    let (history, mut finals) = takeover();
    finals.0.get_mut(&Kind::Mysql).unwrap().insert(50, 1);
    let verdict = judge(&history, &finals);
    assert_eq!(mysql(&verdict).resurrected, [50]);
    assert!(!verdict.is_safe(Kind::Mysql));
}

#[test]
fn an_interleaved_acknowledgement_is_found() {
    let (mut history, mut finals) = takeover();
    // The old holder acknowledges one more, started after the new one's first acknowledgement.
    history.writes.push(write(1000, 1_000_500, "11", Outcome::Acknowledged));
    finals.0.get_mut(&Kind::Mysql).unwrap().insert(1000, 1);
    let verdict = judge(&history, &finals);
    let judged = mysql(&verdict);
    assert_eq!(judged.handovers, 3, "db1, db2, db1, db2");
    assert!(judged.interleaved.contains(&1000));
    assert!(!verdict.is_safe(Kind::Mysql));
}

#[test]
fn a_late_acknowledgement_of_an_early_write_proves_nothing() {
    let (mut history, mut finals) = takeover();
    // Started before the fault, acknowledged after the new holder's first: it may have been done before.
    let mut slow = write(1000, 480_000, "11", Outcome::Acknowledged);
    slow.ended_us = 850_000;
    history.writes.push(slow);
    finals.0.get_mut(&Kind::Mysql).unwrap().insert(1000, 1);
    let verdict = judge(&history, &finals);
    assert!(verdict.is_safe(Kind::Mysql), "{:?}", mysql(&verdict).interleaved);
}

#[test]
fn a_handover_that_the_ledger_does_not_have_is_found() {
    let (history, finals) = takeover();
    let bounds = Bounds { fault_us: FAULT_US, end_us: 1_500_000, holder_changes: 0 };
    assert_eq!(mysql(&check(&history, &finals, bounds)).interleaved.len(), 70);
}

#[test]
fn two_answers_to_one_request_are_an_overlap() {
    let (mut history, finals) = takeover();
    history.answers.push(Answer { probe: 85, at_us: 850_200, mac: "mac-11".into() });
    assert_eq!(judge(&history, &finals).two_holders_ms, 10);
}

#[test]
fn alternating_answers_are_an_overlap() {
    let (mut history, finals) = takeover();
    history.answers.retain(|answer| answer.probe < 80 || answer.probe % 2 == 0);
    for probe in [91, 93, 95] {
        history.answers.push(Answer { probe, at_us: probe * 10_000, mac: "mac-11".into() });
    }
    assert_eq!(judge(&history, &finals).two_holders_ms, 50);
}

#[test]
fn an_outage_that_does_not_end_lasts_until_the_end() {
    let (mut history, finals) = takeover();
    history.writes.retain(|write| write.started_us < 800_000);
    let verdict = judge(&history, &finals);
    assert!(!mysql(&verdict).restored);
    assert_eq!(mysql(&verdict).outage_us, 1_500_000 - 493_000);
}

#[test]
fn one_acknowledgement_after_the_fault_is_no_service() {
    let (history, finals) = takeover();
    let bounds = Bounds { fault_us: FAULT_US, end_us: 2_600_000, holder_changes: 1 };
    assert!(!mysql(&check(&history, &finals, bounds)).restored, "the last one came 1.1 s before the end");
}

#[test]
fn an_outage_that_begins_some_time_after_the_fault_is_measured() {
    let (history, finals) = takeover();
    let bounds = Bounds { fault_us: 100_000, end_us: 1_500_000, holder_changes: 1 };
    assert_eq!(mysql(&check(&history, &finals, bounds)).outage_us, 803_000 - 493_000);
}

/// A visit every 50 ms, let in and answered within 5 ms each: until the fault, again from `let_in_us` on, and read again
/// from `read_us` on.
fn visits(kind: Kind, let_in_us: u64, read_us: u64) -> Vec<Visit> {
    let serves = |at_us: u64, from_us: u64| at_us < FAULT_US || at_us >= from_us;
    let visit = |intended_us: u64| Visit {
        kind,
        intended_us,
        connected_us: serves(intended_us, let_in_us).then_some(intended_us + 5_000),
        read_us: serves(intended_us, let_in_us.max(read_us)).then_some(intended_us + 10_000),
        error: None,
    };
    (0..30).map(|number| visit(number * 50_000)).collect()
}

#[test]
fn connect_gap_and_read_gap_are_measured_apart_from_the_outage_and_over_its_span() {
    let (mut history, finals) = takeover();
    history.visits = visits(Kind::Mysql, 1_000_000, 1_200_000);
    // One that took long is no gap before the fault: it lies outside the span.
    history.visits.retain(|visit| !(100_000..400_000).contains(&visit.intended_us));
    // What is visited and not written is not judged.
    history.visits.extend(visits(Kind::Redis, 600_000, 600_000));
    let verdict = judge(&history, &finals);
    let judged = mysql(&verdict);
    assert_eq!(judged.outage_us, 803_000 - 493_000, "as without visits");
    let seen = judged.visits.unwrap();
    assert_eq!((seen.attempted, seen.connected, seen.read), (24, 14, 10));
    assert_eq!((seen.connect_gap_us, seen.read_gap_us), (1_005_000 - 455_000, 1_210_000 - 460_000));
    assert_eq!(verdict.kinds.len(), 1);
}

#[test]
fn a_client_that_is_never_let_in_again_waits_until_the_end_and_nobody_s_wait_is_none() {
    let (mut history, finals) = takeover();
    assert_eq!(mysql(&judge(&history, &finals)).visits, None);
    history.visits = visits(Kind::Mysql, u64::MAX, u64::MAX);
    let seen = mysql(&judge(&history, &finals)).visits.unwrap();
    assert_eq!((seen.connect_gap_us, seen.read_gap_us), (1_500_000 - 455_000, 1_500_000 - 460_000));
    history.visits.iter_mut().for_each(|visit| (visit.connected_us, visit.read_us) = (None, None));
    let seen = mysql(&judge(&history, &finals)).visits.unwrap();
    assert_eq!((seen.connected, seen.connect_gap_us), (0, 1_500_000 - FAULT_US), "from the fault on");
}

#[test]
fn contents_that_were_not_read_are_not_safe() {
    let (history, _) = takeover();
    let verdict = judge(&history, &Finals::default());
    assert!(mysql(&verdict).unread && !verdict.is_safe(Kind::Mysql));
}

#[test]
fn a_history_survives_its_file() {
    let (mut history, _) = takeover();
    history.marks.push(crate::history::Mark { at_us: FAULT_US, what: "power-loss".into() });
    history.visits = visits(Kind::Mysql, 600_000, 700_000);
    history.lateness = Lateness::of(vec![5, 1, 900]);
    let path = std::env::temp_dir().join(format!("baton-history-{}.jsonl", std::process::id()));
    history.save(&path).unwrap();
    let read = History::load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read, history);
    assert_eq!(read.lateness.max_us, 900);
}
