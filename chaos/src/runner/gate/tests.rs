//! The gate on trial: what is amiss refuses a drill, each by the check that is there for it, and by no other.

use baton_node::api::types::{Alarm, Sync};
use serde_json::json;

use super::*;
use crate::experiment::shipped;
use crate::runner::sample::{status, view, with_services};
use crate::runner::timeline::tests::run;

/// What is spoiled, by what, and the check that must refuse.
type Case = (&'static str, fn(&mut Status, &mut [DrillView]), &'static str);

const CASES: &[Case] = &[
    ("an agent is silent", |status, _| status.nodes[2].silent = true, "quorum"),
    ("nobody leads", |status, _| status.leader = None, "quorum"),
    ("two serve", |status, _| status.nodes[1].serving = true, "one-holder"),
    ("nobody serves", |status, _| status.nodes[0].serving = false, "one-holder"),
    ("nobody holds", |status, _| status.holder = None, "one-holder"),
    (
        "another one serves",
        |status, _| (status.nodes[0].serving, status.nodes[1].serving) = (false, true),
        "one-holder",
    ),
    (
        "the replica lacks writes",
        |status, _| status.sync = Sync::OutOfSync { reason: "semi-sync is off".into() },
        "in-sync",
    ),
    ("the replica is far behind", |status, _| status.nodes[1].lag_ms = Some(LAG_MAX_MS + 1), "lag"),
    ("a takeover would not work", |status, _| status.ok = false, "ready"),
    ("a run is under way", |status, _| status.run = Some(run(7, "takeover", "db1")), "no-run"),
    ("there is a pause", |status, _| status.paused = Some(pause()), "no-pause"),
    (
        "there is an alarm",
        |status, _| status.alarms.push(Alarm { code: "disk".into(), text: "nearly full".into() }),
        "no-alarm",
    ),
    ("another configuration", |status, _| status.nodes[1].config_matches = false, "same-configuration"),
    ("another drill", |_, views| views[1].drill = Some(drill()), "no-drill"),
    ("something was left", |_, views| views[0].leftovers.push("peers are severed".into()), "no-leftovers"),
    ("out of hours", |_, views| views[1].outside_window = Some("drills are for Mon".into()), "window"),
    ("too soon", |_, views| views[2].cooldown_left_ms = 1, "cooldown"),
];

fn pause() -> baton_node::api::pause::PauseRow {
    let pause = json!({
        "number": 3, "by": "ann", "reason": "a new switch", "at": "2026-01-01T00:00:00Z",
        "until": "2026-01-01T01:00:00Z", "alone": false, "resumed_by": null, "seen_by": ["db1"], "unseen_by": [],
        "armed_ms": null, "over_in_ms": null,
    });
    serde_json::from_value(pause).expect("the form of a pause")
}

fn drill() -> baton_node::api::drill::Drill {
    let drill = json!({
        "number": 4, "name": "mysqld-killed", "experiment": "", "by": "ann", "at_node": "db2", "lease_ms": 10_000,
        "beat": 7, "aborted": null, "at": 0,
    });
    serde_json::from_value(drill).expect("the form of a drill")
}

/// What the cluster and the drills of all nodes say to an experiment.
fn checks(id: &str, spoil: fn(&mut Status, &mut [DrillView])) -> Vec<GateCheck> {
    let experiment = shipped::named(id).unwrap().experiment;
    let (mut status, mut views) = (status(), ["db1", "db2", "mon"].map(view));
    spoil(&mut status, &mut views);
    let mut checks = cluster(&status, experiment.level);
    checks.extend(drills(&views, &status, &experiment));
    checks
}

fn refusing(checks: &[GateCheck]) -> Vec<&str> {
    checks.iter().filter(|check| !check.passed).map(|check| check.code.as_str()).collect()
}

#[test]
fn each_fact_that_is_amiss_is_refused_by_its_own_check_and_by_no_other() {
    for (name, spoil, code) in CASES {
        let checks = checks("mysqld-killed", *spoil);
        assert_eq!(refusing(&checks), [*code], "{name}: {checks:?}");
    }
}

#[test]
fn a_cluster_that_is_well_passes_every_check() {
    let checks = checks("mysqld-killed", |status, _| status.nodes[1].lag_ms = Some(LAG_MAX_MS));
    assert!(refusing(&checks).is_empty(), "{checks:?}");
    let made: std::collections::BTreeSet<&str> = checks.iter().map(|check| check.code.as_str()).collect();
    let tried: std::collections::BTreeSet<&str> = CASES.iter().map(|(_, _, code)| *code).collect();
    assert_eq!(made, tried, "every check is on trial");
}

#[test]
fn a_rehearsal_asks_for_a_quorum_and_for_nothing_of_a_drill() {
    for (name, spoil, code) in CASES {
        let checks = checks("rehearsal", *spoil);
        let asks = ["quorum", "no-drill", "no-leftovers"].contains(code);
        let wanted: Vec<&str> = asks.then_some(*code).into_iter().collect();
        assert_eq!(refusing(&checks), wanted, "{name}: {checks:?}");
    }
}

fn failed(id: &str, views: &[DrillView]) -> Vec<String> {
    let experiment = shipped::named(id).unwrap().experiment;
    let checks = methods(&status(), views, &experiment);
    checks.into_iter().filter(|check| !check.passed).map(|check| check.seen).collect()
}

#[test]
fn power_is_cut_only_where_the_node_has_a_command_for_it() {
    let mut views = ["db1", "db2", "mon"].map(view);
    let refused = failed("power-cut", &views);
    assert!(refused.len() == 1 && refused[0].contains("db1 has no command"), "{refused:?}");
    assert!(refused[0].contains("drill.power_off"), "{refused:?}");
    views[0].power_off = true;
    assert_eq!(failed("power-cut", &views), Vec::<String>::new());
    views[0].allow = DrillLevel::L4;
    let refused = failed("power-cut", &views);
    assert!(refused.len() == 1 && refused[0].contains("drill.allow"), "{refused:?}");
    let here = DrillView { power_off: true, ..view("db1") };
    let asked_there = Status { node: "db1".into(), ..status() };
    let experiment = shipped::named("power-cut").unwrap().experiment;
    let checks = methods(&asked_there, &[here], &experiment);
    assert!(checks.iter().any(|check| check.code == "way-back" && !check.passed), "{checks:?}");
}

#[test]
fn certificates_that_end_too_soon_before_refuse_a_deeper_drill() {
    use baton_node::api::drill::CertificateDays;
    let mut experiment = shipped::named("switchover-and-back").unwrap().experiment;
    let state = shipped::named("certificates").unwrap().experiment.steady_state;
    let days = state.into_iter().find(|state| state.probe == Probe::CertificateDays).unwrap();
    let days = crate::experiment::SteadyState { mode: vec![Mode::Before], ..days };
    experiment.steady_state = vec![days];
    let said = |own| {
        let certificate_days = Some(CertificateDays { own, authority: 3_000 });
        ["db1", "db2", "mon"].map(|node| DrillView { certificate_days, ..view(node) })
    };
    let passed = |own| steady(&status(), &said(own), &experiment).iter().all(|check| check.passed);
    assert!(passed(30) && !passed(29));
}

#[test]
fn a_service_that_is_not_healthy_or_was_not_seen_refuses() {
    let experiment = shipped::named("mysqld-killed").unwrap().experiment;
    let refused = |status: &Status| {
        let checks = steady(status, &[], &experiment);
        checks.into_iter().filter(|check| !check.passed).map(|check| check.seen).collect::<Vec<_>>()
    };
    assert_eq!(refused(&with_services(&["healthy"])), [""; 0]);
    assert_eq!(refused(&with_services(&["healthy", "stopped"])), ["services are healthy: 1, wanted <= 0"]);
    for state in ["unknown", "not-seen"] {
        let wanted = ["services are healthy: not known, wanted <= 0"];
        assert_eq!(refused(&with_services(&["healthy", state])), wanted, "{state}");
    }
    assert_eq!(refused(&status()), [""; 0], "an older agent says nothing of services");
}
