//! A node's own limits on trial: each refuses what it is there for, whoever asks.

use baton_runbooks::ledger::EndedDrill;
use baton_runbooks::model::WallMs;

use super::*;
use crate::api::sample::takeover;
use crate::config::Ms;

const NUMBER: DrillId = DrillId(7);

/// A Friday, 10:00.
fn now() -> Zoned {
    let now: jiff::civil::DateTime = "2026-11-27T10:00".parse().unwrap();
    now.in_tz("UTC").unwrap()
}

fn under_way(number: DrillId) -> baton_runbooks::ledger::Drill {
    baton_runbooks::ledger::Drill {
        number,
        name: "mysqld-frozen".into(),
        experiment: String::new(),
        by: "ann".into(),
        at_node: "mon".into(),
        lease_ms: 10_000,
        beat: 3,
        aborted: None,
        at: WallMs(0),
    }
}

/// A drill that ended so many seconds before [`now`].
fn ended(ago_s: u64) -> EndedDrill {
    let now_ms = u64::try_from(now().timestamp().as_millisecond()).unwrap();
    EndedDrill {
        drill: under_way(DrillId(6)),
        verdict: "PASS".into(),
        evidence: String::new(),
        ended_at: WallMs(now_ms - ago_s * 1_000),
    }
}

/// Everything that [`limits`] looks at.
struct Scene {
    config: Config,
    ledger: Ledger,
    spec: FaultSpec,
    silent: Vec<NodeId>,
}

impl Scene {
    /// Nothing is amiss: db2 is asked to freeze its server for its longest time, in a drill that is under way.
    fn new() -> Self {
        let mut config = Config::parse(&crate::config::example(), "test", &"db2".into()).unwrap();
        config.drill.allow = DrillLevel::L3;
        config.drill.window = Some("Mon-Fri 09:00-17:00".parse().unwrap());
        config.drill.cooldown = Ms(60_000);
        config.drill.duration_max = Ms(30_000);
        let ledger = Ledger {
            holder: Some("db1".into()),
            drill: Some(under_way(NUMBER)),
            ended_drills: vec![ended(3_600), ended(60)],
            ..Ledger::default()
        };
        let spec = FaultSpec {
            kind: FaultKind::MysqldFreeze,
            duration_ms: 30_000,
            peers: Vec::new(),
            service: None,
            leave_mib: None,
            kib_per_second: None,
        };
        Self { config, ledger, spec, silent: vec!["mon".into()] }
    }

    fn answer(&self) -> Result<(), String> {
        let silent: Vec<&NodeId> = self.silent.iter().collect();
        limits(&self.config, &self.ledger, NUMBER, &self.spec, &silent, &now())
    }
}

/// What is changed, by what, and a part of why it is refused; empty: it is not.
type Case = (&'static str, fn(&mut Scene), &'static str);

const CASES: &[Case] = &[
    ("nothing", |_| {}, ""),
    ("deeper than is allowed", |it| it.config.drill.allow = DrillLevel::L2, "drill.allow"),
    (
        "a deeper fault",
        |it| (it.spec.kind, it.spec.peers) = (FaultKind::Partition, vec!["db1".into()]),
        "db2 allows drills up to L3, not L4",
    ),
    (
        "on another day",
        |it| it.config.drill.window = Some("Sat-Sun 09:00-17:00".parse().unwrap()),
        "drills are for Sat-Sun 09:00-17:00 here, and it is Fri 10:00",
    ),
    ("at any time", |it| it.config.drill.window = None, ""),
    (
        "too soon after the last drill",
        |it| it.ledger.ended_drills = vec![ended(3_600), ended(59)],
        "wait 1 s more",
    ),
    ("after no drill", |it| it.ledger.ended_drills.clear(), ""),
    ("too long", |it| it.spec.duration_ms = 30_001, "drill.duration_max"),
    ("for no time", |it| it.spec.duration_ms = 0, "drill.duration_max"),
    ("without a drill", |it| it.ledger.drill = None, "drill 7 is not under way"),
    ("of another drill", |it| it.ledger.drill = Some(under_way(DrillId(8))), "drill 7 is not under way"),
    (
        "of a drill that is to end",
        |it| {
            it.ledger.drill =
                Some(baton_runbooks::ledger::Drill { aborted: Some("a call".into()), ..under_way(NUMBER) });
        },
        "drill 7 is to end: a call",
    ),
    ("on its way to take over", |it| it.ledger.run = Some(takeover()), "db2 is to take over by run 7"),
    (
        "another takes over",
        |it| {
            it.ledger.run = Some(takeover());
            it.config.node = "mon".into();
        },
        "",
    ),
    (
        "alone",
        |it| it.silent.push("db1".into()),
        "mon and db1 not heard for 3 s, and two of three agents must be left",
    ),
    (
        "one is silent, and this one goes",
        |it| it.spec.kind = FaultKind::AgentFreeze,
        "mon not heard for 3 s, and two of three agents must be left",
    ),
    (
        "all are heard, and this one goes",
        |it| {
            it.spec.kind = FaultKind::AgentFreeze;
            it.silent.clear();
        },
        "",
    ),
];

#[test]
fn each_limit_refuses_what_it_is_there_for() {
    for (name, change, why) in CASES {
        let mut scene = Scene::new();
        change(&mut scene);
        let answer = scene.answer();
        assert_eq!(answer.is_ok(), why.is_empty(), "{name}: {answer:?}");
        assert!(answer.err().unwrap_or_default().contains(why), "{name}");
    }
}

/// The same for a drill that wants to pass the baton.
const MOVES: &[Case] = &[
    ("nothing", |_| {}, ""),
    ("no deeper than that", |it| it.config.drill.allow = DrillLevel::L2, ""),
    ("asks at most", |it| it.config.drill.allow = DrillLevel::L1, "db2 allows drills up to L1, not L2"),
    (
        "on another day",
        |it| it.config.drill.window = Some("Sat-Sun 09:00-17:00".parse().unwrap()),
        "drills are for Sat-Sun 09:00-17:00 here, and it is Fri 10:00",
    ),
    (
        "too soon after the last drill",
        |it| it.ledger.ended_drills = vec![ended(3_600), ended(59)],
        "wait 1 s more",
    ),
    ("without a drill", |it| it.ledger.drill = None, "drill 7 is not under way"),
    ("of another drill", |it| it.ledger.drill = Some(under_way(DrillId(8))), "drill 7 is not under way"),
    (
        "of a drill that is to end",
        |it| {
            it.ledger.drill =
                Some(baton_runbooks::ledger::Drill { aborted: Some("a call".into()), ..under_way(NUMBER) });
        },
        "drill 7 is to end: a call",
    ),
];

#[test]
fn a_node_lets_a_drill_pass_the_baton_only_within_its_own_limits() {
    for (name, change, why) in MOVES {
        let mut scene = Scene::new();
        change(&mut scene);
        let answer = passes(&scene.config, &scene.ledger, NUMBER, &now());
        assert_eq!(answer.is_ok(), why.is_empty(), "{name}: {answer:?}");
        assert!(answer.err().unwrap_or_default().contains(why), "{name}");
    }
}

#[test]
fn two_of_three_must_be_left_whatever_takes_a_vote() {
    for kind in FaultKind::ALL {
        let mut scene = Scene::new();
        (scene.config.drill.allow, scene.spec.kind) = (DrillLevel::L5, kind);
        let cuts = matches!(kind, FaultKind::Partition | FaultKind::OneWay);
        assert_eq!(scene.answer().is_err(), kind.silences_its_agent() || cuts, "{kind}");
        scene.silent.clear();
        assert_eq!(scene.answer(), Ok(()), "{kind}");
    }
}

#[test]
fn an_order_counts_only_while_whoever_drills_is_heard() {
    let ledger = Scene::new().ledger;
    let is_heard = |number, ms: Option<u64>| heard(&ledger, number, ms.map(Duration::from_millis)).is_ok();
    assert!(is_heard(NUMBER, Some(0)) && is_heard(NUMBER, Some(10_000)));
    assert!(!is_heard(NUMBER, Some(10_001)), "longer than its lease");
    assert!(!is_heard(NUMBER, None), "never");
    assert!(!is_heard(DrillId(8), Some(0)), "of a drill that is not under way");
    let none = Ledger { drill: None, ..ledger.clone() };
    assert!(heard(&none, NUMBER, Some(Duration::ZERO)).is_err());
}

#[test]
fn a_clock_that_was_set_back_has_no_cooldown_left() {
    assert_eq!([-5, 0, 999, 1_000, 9_999].map(|since| left_ms(1_000, since)), [0, 1_000, 1, 0, 0]);
}
