//! The judge on trial: one planted fact at a time.

mod late;
mod limits;

use super::*;
use crate::evidence::sample::passed;
use crate::evidence::{Ending, Record};
use crate::experiment::{Limits, Mode};
use late::LATE;
use limits::LIMITS;

/// What is changed in a passed drill, and what the verdict must be then, with a part of its first reason.
type Case = (&'static str, fn(&mut Record), Verdict, &'static str);

const CASES: &[Case] = &[
    ("nothing", |_| {}, Verdict::Pass, ""),
    ("planted dual holder", |r| r.two_holders_ms = 1, Verdict::Fail, "two machines"),
    (
        "two holders that ended the drill",
        |r| {
            r.ending = Ending::Aborted { by: "two-holders".into(), why: "two answered".into() };
            r.two_holders_ms = 10;
        },
        Verdict::Fail,
        "two machines answered for the virtual IP for 10 ms",
    ),
    ("planted lost write", |r| r.clients[0].lost = 1, Verdict::Fail, "mysql: 1 writes acknowledged and lost"),
    ("planted second primary", |r| r.clients[0].interleaved = 1, Verdict::Fail, "while another served"),
    ("duplicate", |r| r.clients[1].duplicated = 2, Verdict::Fail, "redis: 2 writes done twice"),
    ("resurrected", |r| r.clients[0].resurrected = 1, Verdict::Fail, "refused and there"),
    ("redis loses, counted only", |r| r.clients[1].lost = 3, Verdict::Pass, ""),
    (
        "redis loses, and may not",
        |r| {
            r.clients[1].lost = 3;
            r.experiment.slo.lost_acknowledged.redis = Some(2);
        },
        Verdict::Fail,
        "redis: 3 writes",
    ),
    ("broken invariant", |r| r.invariants[0].held = Some(false), Verdict::Fail, "one-holder"),
    ("not healed", |r| r.faults[0].heal_verified_ms = None, Verdict::Fail, "not seen healed"),
    ("outage", |r| r.clients[0].outage_ms = 10_001, Verdict::Fail, "an outage of 10001 ms, at most 10s"),
    ("outage at its bound", |r| r.clients[0].outage_ms = 10_000, Verdict::Pass, ""),
    (
        "connect gap, read gap and sustained recovery are reported, not judged, without limits",
        |r| {
            (r.experiment.slo.connect_gap, r.experiment.slo.read_gap) =
                (Limits::default(), Limits::default());
            let seen = r.clients[0].reconnecting.as_mut().unwrap();
            (seen.connect_gap_ms, seen.read_gap_ms) = (60_000, 60_000);
            (r.clients[0].sustained_ms, r.clients[1].sustained_ms) = (Some(60_000), None);
        },
        Verdict::Pass,
        "",
    ),
    (
        "not back",
        |r| r.clients[1].restored = false,
        Verdict::Fail,
        "redis: writes were not acknowledged again",
    ),
    (
        "hypothesis",
        |r| r.probes[1].held = Some(false),
        Verdict::Fail,
        "one machine has the virtual IP (continuous)",
    ),
    ("late once", |r| r.harness.lateness.max_us = 1_000_001, Verdict::Inconclusive, "was 1000 ms late once"),
    (
        "late once does not hide a lost write",
        |r| {
            r.clients[0].lost = 1;
            r.harness.lateness.max_us = 2_900_000;
        },
        Verdict::Fail,
        "acknowledged and lost",
    ),
    (
        "late once and a phase over its budget",
        |r| {
            r.timeline[0].to_ms += 3_000;
            r.harness.lateness.max_us = 2_900_000;
        },
        Verdict::Inconclusive,
        "was 2900 ms late once",
    ),
    (
        "late once does not hide that it was aborted when it was lost",
        |r| {
            r.ending = Ending::Aborted { by: "outage".into(), why: "45 s".into() };
            r.clients[0].outage_ms = 45_000;
            r.harness.lateness.max_us = 2_900_000;
        },
        Verdict::Fail,
        "an outage of 45000 ms",
    ),
    (
        "a fault that ended early",
        |r| {
            r.faults[0].fault = crate::experiment::Fault::MysqldFreeze;
            r.faults[0].stood_ms = Some(5_000);
        },
        Verdict::Inconclusive,
        "stood for 5000 ms instead of 30000 ms",
    ),
    (
        "a fault that stood",
        |r| {
            r.faults[0].fault = crate::experiment::Fault::MysqldFreeze;
            r.faults[0].stood_ms = Some(29_400);
        },
        Verdict::Pass,
        "",
    ),
    (
        "redis has a bound for losses only, and was not measured",
        |r| {
            r.experiment.slo.outage.redis = None;
            r.experiment.slo.lost_acknowledged.redis = Some(0);
            r.clients.truncate(1);
        },
        Verdict::Inconclusive,
        "redis was not measured",
    ),
    (
        "the holder changed too often before it was interrupted",
        |r| {
            r.ending = Ending::Interrupted { why: "run 8 is none of the drill's".into() };
            r.probes[2].held = Some(false);
        },
        Verdict::Fail,
        "the holder changes once (after)",
    ),
    ("redundancy", |r| r.redundancy_ms = None, Verdict::Fail, "redundancy was not back"),
    (
        "redundancy, and so the next method was left out",
        |r| (r.redundancy_ms, r.experiment.methods) = (None, 2),
        Verdict::Fail,
        "redundancy was not back",
    ),
    (
        "late clock hides an outage",
        |r| {
            r.clients[0].outage_ms = 99_000;
            r.harness.lateness.p99_us = LATE_MAX_US + 1;
        },
        Verdict::Inconclusive,
        "timers were 200 ms late",
    ),
    (
        "late clock does not hide two holders",
        |r| {
            r.two_holders_ms = 40;
            r.harness.lateness.p99_us = LATE_MAX_US + 1;
        },
        Verdict::Fail,
        "two machines answered for the virtual IP for 40 ms",
    ),
    ("a late clock at its bound", |r| r.harness.lateness.p99_us = LATE_MAX_US, Verdict::Pass, ""),
    ("overflow", |r| r.harness.overflowed = 1, Verdict::Inconclusive, "could not be started"),
    ("no effect", |r| r.faults[0].verified_ms = None, Verdict::Inconclusive, "was not seen to take effect"),
    (
        "not injected",
        |r| {
            r.faults[0].injected_ms = None;
            r.faults[0].verified_ms = None;
            r.faults[0].heal_verified_ms = None;
        },
        Verdict::Inconclusive,
        "was not injected",
    ),
    (
        "not injected, and the holder did not change",
        |r| {
            r.faults[0].injected_ms = None;
            r.faults[0].verified_ms = None;
            r.faults[0].heal_verified_ms = None;
            r.faults[0].effect = "witness-loss on wit was to stand and is not seen to".into();
            (r.probes[2].value, r.probes[2].held) = (Some(0.0), Some(false));
        },
        Verdict::Inconclusive,
        "was not injected: witness-loss on wit",
    ),
    (
        "not injected, and the holder changed twice",
        |r| {
            r.faults[0].injected_ms = None;
            r.faults[0].heal_verified_ms = None;
            (r.probes[2].value, r.probes[2].held) = (Some(2.0), Some(false));
        },
        Verdict::Fail,
        "the holder changes once (after): 2",
    ),
    (
        "injected, and the holder did not change",
        |r| (r.probes[2].value, r.probes[2].held) = (Some(0.0), Some(false)),
        Verdict::Fail,
        "the holder changes once (after): 0",
    ),
    ("a method left out", |r| r.experiment.methods = 2, Verdict::Inconclusive, "1 of 2 methods"),
    ("no client", |r| r.clients.clear(), Verdict::Inconclusive, "mysql was not measured"),
    ("unread", |r| r.clients[0].unread = true, Verdict::Inconclusive, "contents could not be read"),
    (
        "unread has no losses",
        |r| {
            r.clients[0].unread = true;
            r.clients[0].lost = 500;
        },
        Verdict::Inconclusive,
        "contents could not be read",
    ),
    ("never acknowledged", |r| r.clients[0].acknowledged = 0, Verdict::Inconclusive, "no write was ever"),
    ("unmeasured probe", |r| r.probes[1].held = None, Verdict::Inconclusive, "could not be measured"),
    ("unchecked invariant", |r| r.invariants[0].held = None, Verdict::Inconclusive, "could not be checked"),
    (
        "went on past the gate",
        |r| r.gate[0].passed = false,
        Verdict::Inconclusive,
        "it went on although quorum did not pass",
    ),
    (
        "bad before",
        |r| {
            r.probes[1].mode = Mode::Before;
            r.probes[1].held = Some(false);
        },
        Verdict::Inconclusive,
        "(before)",
    ),
    ("slow phase", |r| r.timeline[0].to_ms += 3_000, Verdict::Degraded, "phase detect of run 7"),
    ("no phases", |r| r.timeline.clear(), Verdict::Degraded, "no phase of it is known"),
    ("refused", |r| r.ending = Ending::Refused { why: "no quorum".into() }, Verdict::Refused, "no quorum"),
    (
        "aborted",
        |r| r.ending = Ending::Aborted { by: "ANNA".into(), why: "a call".into() },
        Verdict::Aborted,
        "ended by ANNA: a call",
    ),
    (
        "aborted when it was lost",
        |r| {
            r.ending = Ending::Aborted { by: "outage".into(), why: "45 s".into() };
            r.clients[0].outage_ms = 45_000;
        },
        Verdict::Fail,
        "an outage of 45000 ms",
    ),
    (
        "interrupted",
        |r| {
            r.ending = Ending::Interrupted { why: "a disk failed on db2".into() };
            r.clients[0].outage_ms = 45_000;
            r.redundancy_ms = None;
        },
        Verdict::Interrupted,
        "a disk failed",
    ),
    (
        "interrupted, and a write was lost",
        |r| {
            r.ending = Ending::Interrupted { why: "a disk failed on db2".into() };
            r.clients[0].lost = 1;
        },
        Verdict::Fail,
        "lost",
    ),
];

#[test]
fn verdicts_follow_from_facts() {
    for (name, change, verdict, reason) in CASES.iter().chain(LIMITS).chain(LATE) {
        let mut record = passed();
        change(&mut record);
        let judgement = judge(&record);
        assert_eq!(judgement.verdict, *verdict, "{name}: {:?}", judgement.reasons);
        let first = judgement.reasons.first().map_or("", String::as_str);
        assert!(first.contains(reason), "{name}: {first:?} does not say {reason:?}");
        assert_eq!(judgement.reasons.is_empty(), *verdict == Verdict::Pass, "{name}");
    }
}

#[test]
fn every_verdict_is_reached() {
    let reached: std::collections::BTreeSet<Verdict> =
        CASES.iter().map(|(_, _, verdict, _)| *verdict).collect();
    assert_eq!(reached, Verdict::ALL.into_iter().collect());
}

#[test]
fn exit_codes_are_those_of_the_product() {
    // 1, 3, 4, 5 and 6 mean the same for every verb; a drill's own begin at 10.
    let codes: Vec<u8> = Verdict::ALL.into_iter().map(Verdict::exit_code).collect();
    assert_eq!(codes, [0, 0, 10, 11, 12, 2, 13]);
}
