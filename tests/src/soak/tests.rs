//! The judge of a round on trial: what is planted in a history must come out as a violation that names round and seed.

use std::collections::BTreeMap;

use baton_chaos::check::{Bounds, Finals, check};
use baton_chaos::history::{Answer, History, Kind, Outcome as Ended, Write};

use super::summary::tests::passed;
use super::*;

const PERIOD_US: u64 = 10_000;
const WRITES: u64 = 300;

/// Three seconds of a client whose service was away from 1.0 s to 2.0 s, and moved from `a` to `b` meanwhile.
fn history() -> History {
    let away = |id: &u64| (100..200).contains(id);
    let server = |id: u64| if id < 100 { "11" } else { "12" };
    let write = |kind, id: u64| Write {
        kind,
        id,
        intended_us: id * PERIOD_US,
        started_us: id * PERIOD_US,
        ended_us: id * PERIOD_US + 500,
        outcome: Ended::Acknowledged,
        server: Some(server(id).into()),
    };
    let ids = || (0..WRITES).filter(|id| !away(id));
    let answer = |probe: u64| Answer { probe, at_us: probe * PERIOD_US, mac: server(probe).into() };
    History {
        writes: Kind::ALL.into_iter().flat_map(|kind| ids().map(move |id| write(kind, id))).collect(),
        answers: ids().map(answer).collect(),
        probe_period_us: PERIOD_US,
        ..History::default()
    }
}

fn contents(without: &[u64]) -> Finals {
    let ids: BTreeMap<u64, u32> = (0..WRITES)
        .filter(|id| !(100..200).contains(id) && !without.contains(id))
        .map(|id| (id, 1))
        .collect();
    Finals(Kind::ALL.into_iter().map(|kind| (kind, ids.clone())).collect())
}

fn round() -> Round {
    passed(4).round
}

fn played(history: &History, finals: &Finals, holder_changes: u32) -> Summary {
    let bounds = Bounds { fault_us: 1_000_000, end_us: WRITES * PERIOD_US, holder_changes };
    let verdict = check(history, finals, bounds);
    let report = crate::run::judge_of(&round().expectation(), round().fault, verdict, bounds);
    let played = play::judged(&round(), "a", Ok((report, History::default())));
    let kept = (played.outcome == Outcome::Fail).then(|| PathBuf::from("failed/9-4"));
    Summary::of(9, "mariadb", 1, &[Played { kept, ..played }], &[])
}

#[test]
fn a_good_round_is_no_violation() {
    let summary = played(&history(), &contents(&[]), 1);
    assert_eq!((summary.rounds, summary.violations, summary.two_holders_ms), (1, 0, 0), "{}", summary.text());
    assert_eq!(summary.outage_ms, [1_010]);
}

#[test]
fn a_planted_lost_write_is_a_violation() {
    let summary = played(&history(), &contents(&[42]), 1);
    assert_eq!((summary.violations, summary.lost_acknowledged, summary.lost_acknowledged_redis), (1, 1, 1));
    let failure = &summary.failures[0];
    assert_eq!((failure.round, failure.seed, &failure.kept), (4, 9, &Some(PathBuf::from("failed/9-4"))));
    assert!(
        failure.reasons[0].contains("mysql: 1 writes acknowledged and lost, the first is 42"),
        "{failure:?}"
    );
    assert_eq!(failure.reasons.len(), 1, "Redis promises less: {failure:?}");
}

#[test]
fn a_planted_second_holder_is_a_violation() {
    let mut history = history();
    // The old one answers on for 200 ms.
    let late = (200..220).map(|probe| Answer { probe, at_us: probe * PERIOD_US + 100, mac: "11".into() });
    history.answers.extend(late);
    let summary = played(&history, &contents(&[]), 1);
    assert_eq!((summary.violations, summary.two_holders_ms), (1, 200), "{}", summary.text());
    assert!(summary.failures[0].reasons[0].contains("two machines answered"), "{:?}", summary.failures);
}

#[test]
fn a_change_of_holder_that_is_not_expected_is_a_violation() {
    for changes in [0, 2] {
        let summary = played(&history(), &contents(&[]), changes);
        assert_eq!(summary.violations, 1, "{changes}");
        let reasons = summary.failures[0].reasons.join("; ");
        assert!(reasons.contains(&format!("the holder changed {changes} times")), "{reasons}");
    }
}

/// What a round leaves to be looked for whose contents were all there.
fn remembered() -> Vec<Remembered> {
    vec![Remembered::of(3, 0, &history(), &contents(&[]))]
}

#[test]
fn a_planted_loss_that_is_found_later_is_a_violation_and_is_counted() {
    let mut later = passed(4);
    look_for(&remembered(), Ok(Port::Db1), |_, _| contents(&[]), &mut later);
    assert_eq!((later.outcome, later.reasons.len(), later.lost.len()), (Outcome::Pass, 0, 0));
    look_for(&remembered(), Ok(Port::Db1), |_, _| contents(&[42, 43]), &mut later);
    let summary = Summary::of(9, "mariadb", 1, &[passed(3), later], &[]);
    assert_eq!((summary.violations, summary.lost_acknowledged, summary.lost_acknowledged_redis), (1, 2, 2));
    let reasons = summary.failures[0].reasons.join("; ");
    assert!(
        reasons.contains("mysql: 2 writes of round 3, which were there at its end, are lost"),
        "{reasons}"
    );
}

#[test]
fn writes_that_nobody_can_be_asked_about_are_a_violation() {
    let mut later = passed(4);
    let nobody = Err(anyhow::anyhow!("no host has power"));
    look_for(&remembered(), nobody, |_, _| contents(&[]), &mut later);
    let summary = Summary::of(9, "mariadb", 1, &[later], &[]);
    assert_eq!((summary.violations, summary.lost_acknowledged), (1, 0));
    let reasons = summary.failures[0].reasons.join("; ");
    assert!(reasons.contains("cannot be looked for: no host has power"), "{reasons}");
}

#[test]
fn the_last_look_at_a_lab_is_for_the_last_round_in_it() {
    let own = Played { lab: "b".into(), outcome: Outcome::Fail, ..passed(6) };
    let played = [passed(4), passed(5), own];
    assert_eq!(last_in(&played, "a"), Some(1), "a round that failed in a lab of its own hides nothing");
    assert_eq!((last_in(&played, "b"), last_in(&played, "c")), (Some(2), None));
}

#[test]
fn a_round_that_comes_to_no_end_is_a_violation() {
    let played = play::judged(&round(), "a", Err(anyhow::anyhow!("a whole cluster: not within 90 s")));
    let summary = Summary::of(9, "mariadb", 1, &[played], &[]);
    assert_eq!((summary.rounds, summary.violations), (1, 1));
    assert!(
        summary.text().contains("came to no end: a whole cluster: not within 90 s"),
        "{}",
        summary.text()
    );
}
