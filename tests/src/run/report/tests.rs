//! The judgement on trial: what is shown of a run, and what of it makes the run fail.

use super::*;
use crate::fault::Served;

fn agents() -> Driver {
    Driver::Agents { profile: "standard".into() }
}

/// A run as it should be: the holder has changed so often, and nothing was lost. After two changes the first one holds again.
fn seen(changes: u32) -> Seen {
    let after = if changes == 1 { Port::Db2 } else { Port::Db1 };
    let outlasted =
        Outlasted { served: true, served_on: 0, not_restored: None, refusals: Vec::new(), not_whole: None };
    Seen {
        lateness: Lateness::default(),
        bounds: Bounds { fault_us: 1_000_000, end_us: 9_000_000, holder_changes: changes },
        verdict: Verdict {
            kinds: Kind::ALL.into_iter().map(|kind| (kind, KindVerdict::default())).collect(),
            ..Verdict::default()
        },
        before: Reign { holder: Some(Port::Db1), epoch: 1 },
        after: Reign { holder: Some(after), epoch: 1 + u64::from(changes) },
        bit: true,
        doubts: Vec::new(),
        outlasted,
        phases_ms: BTreeMap::from([("decided".to_owned(), 1_340)]),
    }
}

fn losing(kind: Kind, writes: u64, mut seen: Seen) -> Seen {
    seen.verdict.kinds.entry(kind).or_default().lost = (7..7 + writes).collect();
    seen
}

fn away(kind: Kind, ms: u64, mut seen: Seen) -> Seen {
    seen.verdict.kinds.entry(kind).or_default().outage_us = ms * 1000;
    seen
}

/// Why a run fails, if it does.
fn reasons(driver: Driver, fault: Fault, seen: Seen) -> Vec<String> {
    let plan = Plan::usual(driver, fault);
    let report = judge(&plan, &plan.expectation(), seen);
    assert_eq!(report.result == Outcome::Pass, report.reasons.is_empty(), "{}", report.text());
    report.reasons
}

#[test]
fn the_timeline_and_the_closing_line_say_what_was_seen() {
    let report = Report {
        fault: "power-loss".into(),
        system: "baton-standard".into(),
        outage_ms: [(Kind::Mysql, 1_364), (Kind::Redis, 1_351)].into(),
        lost_acknowledged: [(Kind::Mysql, 0), (Kind::Redis, 3)].into(),
        holder_changes: 1,
        phases_ms: [("detected".into(), 756), ("open".into(), 29_500)].into(),
        reasons: vec!["mysql was away for 29500 ms, at most 4000 ms expected".into()],
        refusals: vec!["candidate-not-in-sync".into()],
        holder: "db1 -> db2 epoch 2".into(),
        ..Report::blank(Outcome::Fail)
    };
    let closing = "outage mysql 1.36 s redis 1.35 s · lost acknowledged mysql 0 redis 3 · two holders 0 ms \
        · holder db1 -> db2 epoch 2 · FAIL";
    let expected = [
        "  detected            0.756 s   budget  3 s",
        "  open               29.500 s   budget 28 s  OVER",
        "  held back: candidate-not-in-sync",
        "  mysql was away for 29500 ms, at most 4000 ms expected",
        closing,
    ];
    assert_eq!(report.text(), expected.join("\n"));

    // What was not measured is not nothing.
    let mute = Report::blank(Outcome::Inconclusive);
    let closing = "outage mysql - redis - · lost acknowledged mysql - redis - · two holders 0 ms · holder  ";
    assert_eq!(mute.text(), format!("{closing}· INCONCLUSIVE"));
}

#[test]
fn the_json_has_what_programs_read() {
    let report = Report {
        fault: "power-loss".into(),
        outage_ms: [(Kind::Mysql, 1_364), (Kind::Redis, 1_351)].into(),
        lost_acknowledged: [(Kind::Mysql, 0), (Kind::Redis, 3)].into(),
        two_holders_ms: 20,
        holder_changes: 1,
        phases_ms: [("decided".into(), 1_332)].into(),
        ..Report::blank(Outcome::Pass)
    };
    let json = serde_json::to_value(&report).unwrap();
    for (pointer, expected) in [
        ("/fault", serde_json::json!("power-loss")),
        ("/outage_ms/mysql", 1_364.into()),
        ("/outage_ms/redis", 1_351.into()),
        ("/lost_acknowledged/mysql", 0.into()),
        ("/lost_acknowledged/redis", 3.into()),
        ("/two_holders_ms", 20.into()),
        ("/holder_changes", 1.into()),
        ("/phases_ms/decided", 1_332.into()),
        ("/verdict", "PASS".into()),
    ] {
        assert_eq!(json.pointer(pointer), Some(&expected), "{pointer} in {json}");
    }
}

#[test]
fn redis_may_lose_what_the_fault_can_cost_and_no_more() {
    let lost = |fault, changes, writes| reasons(agents(), fault, losing(Kind::Redis, writes, seen(changes)));
    for (fault, changes, most) in [
        (Fault::WitnessLoss, 0, 0),
        (Fault::QuorumLoss, 0, 0),
        (Fault::Switchover, 1, 0),
        (Fault::PowerLoss, 1, 50),
        (Fault::PartitionPrimary, 1, 200),
        // The same fault, with and without a change of holder.
        (Fault::SwitchoverCrash, 1, 50),
        (Fault::SwitchoverCrash, 0, 0),
    ] {
        assert_eq!(lost(fault, changes, most), [""; 0], "{}", fault.name());
        let reasons = lost(fault, changes, most + 1);
        assert_eq!(reasons.len(), 1, "{}: {reasons:?}", fault.name());
        let said = format!("redis: {} writes acknowledged and lost", most + 1);
        assert!(reasons[0].starts_with(&said), "{}: {reasons:?}", fault.name());
    }
    assert_eq!(lost(Fault::RedisLoading, 1, 1_000), [""; 0]);
    assert_eq!(
        lost(Fault::PartitionPrimary, 1, 201),
        ["redis: 201 writes acknowledged and lost, at most 200 expected, the first is 7"]
    );
}

#[test]
fn what_other_systems_and_orders_under_way_cost_redis_is_counted_only() {
    let many = || losing(Kind::Redis, 500, seen(1));
    assert_eq!(reasons(Driver::Pacemaker, Fault::PartitionPrimary, many()), [""; 0]);
    assert_eq!(reasons(Driver::Keepalived { advert_ms: 100 }, Fault::PowerLoss, many()), [""; 0]);
    let relaxed = Driver::Agents { profile: "relaxed".into() };
    assert_eq!(reasons(relaxed.clone(), Fault::PartitionPrimary, many()), [""; 0]);
    assert_eq!(reasons(relaxed, Fault::WitnessLoss, losing(Kind::Redis, 1, seen(0))).len(), 1);

    let plan = Plan::usual(agents(), Fault::WitnessLoss);
    let begun = Expectation { changes: Changes::AtMostTwo, ..plan.expectation() };
    assert_eq!(judge(&plan, &begun, many()).reasons, [""; 0]);
    assert_eq!(judge(&plan, &begun, losing(Kind::Mysql, 1, seen(1))).reasons.len(), 1);
}

#[test]
fn the_limit_of_an_outage_is_that_of_both_kinds() {
    for kind in Kind::ALL {
        assert_eq!(reasons(agents(), Fault::PowerLoss, away(kind, 4_000, seen(1))), [""; 0]);
        assert_eq!(
            reasons(agents(), Fault::PowerLoss, away(kind, 4_001, seen(1))),
            [format!("{kind} was away for 4001 ms, at most 4000 ms expected")]
        );
        assert_eq!(reasons(agents(), Fault::QuorumLoss, away(kind, 60_000, seen(0))), [""; 0]);
    }
    let loads = |kind, ms| reasons(agents(), Fault::RedisLoading, away(kind, ms, seen(1)));
    assert_eq!(loads(Kind::Redis, 20_000), [""; 0]);
    assert_eq!((loads(Kind::Redis, 20_001).len(), loads(Kind::Mysql, 4_001).len()), (1, 1));
}

#[test]
fn a_system_of_redis_alone_is_judged_by_redis() {
    let alone = |ms| {
        let mut seen = away(Kind::Redis, ms, seen(1));
        seen.verdict.kinds.remove(&Kind::Mysql);
        reasons(Driver::Sentinel, Fault::PowerLoss, seen)
    };
    assert_eq!(alone(3_900), [""; 0]);
    assert_eq!(alone(4_100), ["redis was away for 4100 ms, at most 4000 ms expected"]);
}

#[test]
fn agents_have_a_record_of_every_takeover() {
    let unrecorded = |changes| Seen { phases_ms: BTreeMap::new(), ..seen(changes) };
    assert_eq!(reasons(agents(), Fault::PowerLoss, unrecorded(1)), ["no agent has a record of the takeover"]);
    assert_eq!(reasons(Driver::Keepalived { advert_ms: 100 }, Fault::PowerLoss, unrecorded(1)), [""; 0]);
    assert_eq!(reasons(agents(), Fault::WitnessLoss, unrecorded(0)), [""; 0]);
}

#[test]
fn a_target_that_is_lost_has_served_or_is_waited_for_and_not_both() {
    let given_up = |handovers| {
        let mut seen = seen(2);
        seen.verdict.kinds.entry(Kind::Redis).or_default().handovers = handovers;
        reasons(agents(), Fault::TargetLossDuringTakeover, seen)
    };
    assert_eq!(given_up(0), [""; 0]);
    assert_eq!(given_up(1), ["the target acknowledged writes, and the last holder serves again"]);
    assert_eq!(reasons(agents(), Fault::TargetLossDuringTakeover, seen(0)).len(), 1, "a run was begun");
    assert_eq!(reasons(agents(), Fault::TargetLossDuringTakeover, seen(3)).len(), 1);

    let usual = Fault::TargetLossDuringTakeover.expectation();
    for (point, served) in [
        ("fence_old:started", Served::AfterHeal),
        ("promote_mysql:acted", Served::AfterHeal),
        ("open_ports:started", Served::NotBeforeHeal),
        ("open_ports:acted", Served::NotBeforeHeal),
        ("start_independent:acted", Served::AfterHeal),
    ] {
        assert_eq!(usual.at(Fault::TargetLossDuringTakeover, point).served, served, "{point}");
    }
    let crash = Fault::TargetCrashDuringTakeover.expectation();
    assert_eq!(crash.at(Fault::TargetCrashDuringTakeover, "open_ports:acted"), crash);
}

#[test]
fn the_point_of_no_return_is_where_the_product_has_it() {
    use baton_runbooks::plan::{Kind, Step};
    let table = baton_runbooks::run::takeover::TABLE;
    let pivots: Vec<Step> = table.iter().filter(|def| def.kind == Kind::Pivot).map(|def| def.step).collect();
    assert_eq!(pivots, [Step::OpenPorts]);
    let behind = table.iter().find(|def| def.step == Step::StartServices).unwrap();
    assert_eq!((Step::OpenPorts.as_str(), behind.after), ("open_ports", &[Step::OpenPorts][..]));
}
