//! What a rehearsal says of a takeover, held against what agents say.

use baton_node::api::types::Alarm;
use serde_json::json;

use super::*;
use crate::runner::sample::status;
use crate::runner::timeline::tests::run;

/// The runbook's page; a test of the agent's keeps it beside its table.
const PAGE: &str = include_str!("../../../../docs/runbooks/takeover.md");

/// What an agent says before a planned move that nothing stands in the way of.
fn looked() -> SwitchoverAnswer {
    let check = |code: &str, evidence: &str| json!({"code": code, "ok": true, "evidence": evidence});
    let checks = [
        check("in-sync", "db2 has every acknowledged write"),
        check("caught-up", "3 transactions received and not applied"),
        check("replication", "both replication threads run"),
        check("redis", "follows, at offset 7"),
    ];
    let answer = json!({"preflight": {"checks": checks, "plan": null}, "run": null});
    serde_json::from_value(answer).expect("the form of an answer")
}

/// Everything that the steps are held against.
struct Scene {
    status: Status,
    looked: Result<SwitchoverAnswer, String>,
    fence_hook: Option<&'static Path>,
}

impl Scene {
    fn new() -> Self {
        let mut status = status();
        status.nodes[1].redis = Some("healthy".into());
        Self { status, looked: Ok(looked()), fence_hook: None }
    }

    fn steps(&self) -> Vec<Line> {
        let target = target(&self.status).expect("db2 could take over");
        let (status, looked, fence_hook) = (&self.status, self.looked.clone(), self.fence_hook);
        Known { status, target, looked, fence_hook }.steps()
    }

    /// What is said of a step.
    fn step(&self, name: &str) -> Line {
        self.steps().into_iter().find(|step| step.name == name).expect("a step of that name")
    }
}

fn fail(scene: &mut Scene, code: &str) {
    let checks = &mut scene.looked.as_mut().expect("it was looked").preflight.checks;
    checks.iter_mut().filter(|check| check.code == code).for_each(|check| check.ok = false);
}

/// The target says that this stands in its way.
fn lacks(scene: &mut Scene, what: &str) {
    scene.status.nodes[1].obstacles.push(what.into());
}

#[test]
fn the_steps_are_those_of_the_runbook() {
    let table = PAGE.split("<!-- steps:").nth(1).unwrap().split("<!-- end of steps -->").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let names: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    let steps = Scene::new().steps();
    assert_eq!(steps.iter().map(|step| step.name).collect::<Vec<_>>(), names);
}

/// What is changed, the steps in whose way something is then, and a part of what is said of the first.
type Case = (&'static str, fn(&mut Scene), &'static [&'static str], &'static str);

const CASES: &[Case] = &[
    ("nothing", |_| {}, &[], ""),
    ("not in sync", |it| fail(it, "in-sync"), &["promote_mysql"], "every acknowledged write"),
    ("behind, which a takeover drains", |it| fail(it, "caught-up"), &[], ""),
    ("a receiver that stands, which a takeover does not need", |it| fail(it, "replication"), &[], ""),
    ("a Redis whose link is down, which a takeover does not need", |it| fail(it, "redis"), &[], ""),
    (
        "an applier with an error",
        |it| lacks(it, "applier stopped with error 1062: Duplicate entry"),
        &["drain_relay_log"],
        "error 1062",
    ),
    ("a database that hangs", |it| lacks(it, "mysql-hung"), &["promote_mysql"], "mysql-hung"),
    ("a Redis that is down", |it| lacks(it, "redis-down: dead"), &["open_ports"], "redis-down: dead"),
    (
        "another machine",
        |it| it.status.alarms.push(Alarm { code: "vip-contested".into(), text: "02:99 answers".into() }),
        &["hold_vip"],
        "02:99 answers",
    ),
    (
        "another alarm",
        |it| it.status.alarms.push(Alarm { code: "quarantine".into(), text: "db1".into() }),
        &[],
        "",
    ),
    (
        "a service that is missing",
        |it| lacks(it, "service-down: web is missing"),
        &["start_independent", "start_services"],
        "web is missing",
    ),
    ("no witness", |it| it.status.nodes[2].silent = true, &["validate"], "mon is silent"),
];

#[test]
fn what_stands_in_the_way_of_a_step_is_said_of_that_step() {
    for (name, change, blocked, says) in CASES {
        let mut scene = Scene::new();
        change(&mut scene);
        let steps = scene.steps();
        let found: Vec<&Line> = steps.iter().filter(|step| step.outlook == Outlook::Blocked).collect();
        assert_eq!(found.iter().map(|step| step.name).collect::<Vec<_>>(), *blocked, "{name}");
        let first = found.first().map(ToString::to_string).unwrap_or_default();
        assert!(first.contains(says), "{name}: {first}");
        assert!(first.is_empty() || first.contains("SOMETHING IN ITS WAY"), "{name}: {first}");
    }
}

#[test]
fn what_nobody_has_looked_at_is_not_called_clear() {
    let outlook = |scene: &Scene, name: &str| scene.step(name).outlook;
    let looked_at = ["drain_relay_log", "promote_mysql"];
    let of_data = ["drain_relay_log", "promote_mysql", "open_ports"];
    let mut scene = Scene::new();
    for name in of_data {
        assert_eq!(outlook(&scene, name), Outlook::Clear, "{name}");
    }
    scene.looked.as_mut().expect("it was looked").preflight.checks.clear();
    for name in looked_at {
        assert_eq!(outlook(&scene, name), Outlook::Untried, "{name}: db2 does not say");
    }
    scene.looked = Err("there is no leader".into());
    for name in looked_at {
        assert_eq!(outlook(&scene, name), Outlook::Untried, "{name}: nobody has looked");
    }
    (scene.status.sync, scene.status.nodes[1].redis) = (Sync::NotApplicable, None);
    for name in of_data {
        assert_eq!(outlook(&scene, name), Outlook::Clear, "{name}: there is none");
    }
    scene.status.nodes[1].silent = true;
    assert_eq!(
        outlook(&scene, "open_ports"),
        Outlook::Untried,
        "who is silent has not said that there is none"
    );
    scene.status.holder = None;
    assert_eq!(target(&scene.status), None);
}

#[test]
fn replication_that_does_not_run_is_neither_clear_nor_in_the_way() {
    let mut scene = Scene::new();
    fail(&mut scene, "replication");
    let step = scene.step("drain_relay_log");
    assert_eq!(step.outlook, Outlook::Untried);
    assert!(step.evidence.contains("3 transactions received"), "{step}");
}

#[test]
fn a_fence_hook_is_not_tried_and_one_that_is_not_known_is_not_ruled_out() {
    let mut scene = Scene::new();
    assert_eq!(scene.step("fence_old").outlook, Outlook::Clear);
    scene.fence_hook = Some(Path::new("/usr/local/sbin/fence"));
    let step = scene.step("fence_old");
    assert_eq!(step.outlook, Outlook::Untried);
    assert!(step.evidence.contains("/usr/local/sbin/fence"), "{step}");
    scene.fence_hook = None;
    scene.status.nodes[1].config_matches = false;
    assert_eq!(scene.step("fence_old").outlook, Outlook::Untried, "another configuration");
    (scene.status.nodes[1].config_matches, scene.status.nodes[1].heard_ms_ago) = (true, None);
    assert_eq!(scene.step("fence_old").outlook, Outlook::Untried, "never heard");
}

#[test]
fn the_node_that_has_heard_of_no_other_machine_is_named() {
    let step = Scene::new().step("hold_vip");
    assert!(step.outlook == Outlook::Clear && step.evidence.starts_with("mon has heard"), "{step}");
}

#[test]
fn a_pause_and_a_run_stand_before_all_steps() {
    let said = |status: &Status| conditions(status).iter().map(ToString::to_string).collect::<Vec<_>>();
    let well = said(&status());
    assert!(well.iter().all(|line| line.contains(": nothing in its way")), "{well:?}");
    assert!(well[0].starts_with("takeover condition not-paused"), "{well:?}");
    assert!(well[1].starts_with("takeover condition no-run"), "{well:?}");
    let pause = json!({
        "number": 3, "by": "ann", "reason": "a new switch", "at": "2026-01-01T00:00:00Z",
        "until": "2026-01-01T01:00:00Z", "alone": false, "resumed_by": null, "seen_by": ["db1"], "unseen_by": [],
        "armed_ms": null, "over_in_ms": null,
    });
    let mut paused = status();
    paused.paused = serde_json::from_value(pause).expect("the form of a pause");
    let lines = said(&paused);
    assert!(lines[0].contains("SOMETHING IN ITS WAY; pause 3 by ann stands"), "{lines:?}");
    assert_eq!(lines[1], well[1]);
    let mut moving = status();
    moving.run = Some(run(7, "switchover", "db1"));
    let lines = said(&moving);
    assert_eq!(lines[0], well[0]);
    assert!(lines[1].contains("SOMETHING IN ITS WAY; run 7 (switchover) is not over"), "{lines:?}");
}
