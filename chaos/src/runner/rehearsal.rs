//! The rehearsal: every agent says what stands in the way of a takeover now, and each step of one is held against what is
//! known before it. Nothing is tried.

use std::fmt;

use baton_node::api::types::{NodeRow, Status, SwitchoverAnswer, SwitchoverRequest, Sync};
use baton_node::config::NodeKind;

use super::agents::heard;
use super::steps::{DRAIN_MS, Stage};
use crate::experiment::Method;

/// Alarms that say that another machine has the virtual IP, or answers for it.
const VIP_ALARMS: [&str; 2] = ["vip-taken", "vip-contested"];

impl Stage {
    /// Every agent says whether a takeover would work now.
    pub(super) async fn rehearse(&mut self, index: usize, method: &Method, status: &Status) -> bool {
        let place = self.begin(index, method, status, &status.node);
        let mut obstacles = Vec::new();
        for row in &status.nodes {
            let words = if row.silent { "is silent".to_owned() } else { row.obstacles.join("; ") };
            let says = if words.is_empty() { "could hold the baton, or vote" } else { words.as_str() };
            self.note(row.name.as_str(), format!("{}: {says}", row.state));
            if !words.is_empty() {
                obstacles.push(format!("{}: {words}", row.name));
            }
        }
        self.note("ledger", status.sentence.clone());
        for alarm in &status.alarms {
            self.note("ledger", format!("{}: {}", alarm.code, alarm.text));
        }
        let blocked = self.rehearse_steps(status).await;
        let answered = heard(status) == status.nodes.len();
        let mut effect =
            format!("{} of {} agents answered; {}", heard(status), status.nodes.len(), status.sentence);
        if !obstacles.is_empty() {
            effect.push_str(&format!(" Obstacles: {}", obstacles.join(", ")));
        }
        if !blocked.is_empty() {
            effect.push_str(&format!(" Steps with something in their way: {}", blocked.join(", ")));
        }
        self.was_asked(place, answered, effect);
        answered
    }

    /// Notes what is known of each step of a takeover. Returns those in whose way something was seen.
    async fn rehearse_steps(&mut self, status: &Status) -> Vec<&'static str> {
        let Some(target) = target(status) else {
            self.note("runner", "no step of a takeover is looked at: nobody holds the baton");
            return Vec::new();
        };
        // Without a plan an agent only looks. What a planned move wants of its target, a takeover wants, too.
        let request = SwitchoverRequest {
            to: Some(target.name.clone()),
            by: self.agents.by.clone(),
            drain_patience_ms: DRAIN_MS,
            plan: None,
            drill: None,
        };
        let looked = self.agents.client.switchover(&request).await.map_err(|error| error.to_string());
        let steps = Known { status, target, looked }.steps();
        for step in &steps {
            self.note(status.node.as_str(), step.to_string());
        }
        steps.iter().filter(|step| step.outlook == Outlook::Blocked).map(|step| step.name).collect()
    }
}

/// Who would take over from the holder.
fn target(status: &Status) -> Option<&NodeRow> {
    let holder = status.holder.as_ref()?;
    status.nodes.iter().find(|row| row.kind == NodeKind::Data && row.name != *holder)
}

/// What is known of a step before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// What it needs was seen.
    Clear,
    /// Something stands in its way.
    Blocked,
    /// Only doing it would show.
    Untried,
}

/// A step of a takeover, held against what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// As the runbook calls it.
    name: &'static str,
    outlook: Outlook,
    evidence: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.outlook {
            Outlook::Clear => "nothing in its way",
            Outlook::Blocked => "SOMETHING IN ITS WAY",
            Outlook::Untried => "not tried",
        };
        write!(f, "takeover step {}: {words}; {}", self.name, self.evidence)
    }
}

/// What the steps are held against.
struct Known<'a> {
    status: &'a Status,
    /// Who would take over.
    target: &'a NodeRow,
    /// What an agent looks at before a planned move, or why it did not.
    looked: Result<SwitchoverAnswer, String>,
}

impl Known<'_> {
    /// Every step, in the order of the runbook's table.
    fn steps(&self) -> Vec<Step> {
        let has_mysql = self.status.sync != Sync::NotApplicable;
        let has_redis = self.target.redis.is_some();
        let (name, lease_ms) = (&self.target.name, self.status.lease.length_ms);
        let of_lease = format!("a lost holder's lease lasts {lease_ms} ms at most; a fence hook is not run");
        let cut = format!("it is a rule in the kernel of {name}");
        let all = [
            ("fence_old", (Outlook::Clear, of_lease)),
            ("cut_stream", (Outlook::Untried, cut)),
            ("hold_vip", self.vip()),
            ("drain_relay_log", self.checks("MySQL", has_mysql, &["caught-up", "replication"])),
            ("promote_mysql", self.checks("MySQL", has_mysql, &["in-sync"])),
            ("open_ports", self.checks("Redis", has_redis, &["redis"])),
            ("start_independent", self.services()),
            ("start_services", self.services()),
            ("validate", self.witness()),
        ];
        all.into_iter().map(|(name, (outlook, evidence))| Step { name, outlook, evidence }).collect()
    }

    /// The checks of these codes. `has`: there is what they look at.
    fn checks(&self, of: &str, has: bool, codes: &[&str]) -> (Outlook, String) {
        if !has {
            return (Outlook::Clear, format!("there is no {of}"));
        }
        let looked = match &self.looked {
            Ok(looked) => looked,
            Err(why) => return (Outlook::Untried, format!("nobody has looked: {why}")),
        };
        let checks = looked.preflight.checks.iter().filter(|check| codes.contains(&check.code.as_str()));
        let (mut is_well, mut seen) = (true, Vec::new());
        for check in checks {
            is_well &= check.ok;
            seen.push(check.evidence.as_str());
        }
        match (seen.is_empty(), is_well) {
            (true, _) => (Outlook::Untried, format!("{} does not say", self.target.name)),
            (false, true) => (Outlook::Clear, seen.join("; ")),
            (false, false) => (Outlook::Blocked, seen.join("; ")),
        }
    }

    fn vip(&self) -> (Outlook, String) {
        match self.status.alarms.iter().find(|alarm| VIP_ALARMS.contains(&alarm.code.as_str())) {
            Some(alarm) => (Outlook::Blocked, alarm.text.clone()),
            None => {
                (Outlook::Clear, "no node says that another machine answers for the virtual IP".to_owned())
            }
        }
    }

    fn services(&self) -> (Outlook, String) {
        let named: Vec<&str> = self
            .target
            .obstacles
            .iter()
            .filter(|text| text.contains("service"))
            .map(String::as_str)
            .collect();
        if named.is_empty() {
            let says = format!(
                "{} names none that it lacks; whether one gets healthy, its start shows",
                self.target.name
            );
            return (Outlook::Untried, says);
        }
        (Outlook::Blocked, named.join("; "))
    }

    fn witness(&self) -> (Outlook, String) {
        match self.status.nodes.iter().find(|row| row.kind == NodeKind::Witness) {
            Some(row) if !row.silent => (Outlook::Clear, format!("{} is heard", row.name)),
            Some(row) => (Outlook::Blocked, format!("{} is silent", row.name)),
            None => (Outlook::Blocked, "there is no witness".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_node::api::types::Alarm;
    use serde_json::json;

    use super::*;
    use crate::runner::sample::status;

    /// The runbook's page; a test of the agent's keeps it beside its table.
    const PAGE: &str = include_str!("../../../docs/runbooks/takeover.md");

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
    }

    impl Scene {
        fn new() -> Self {
            let mut status = status();
            status.nodes[1].redis = Some("healthy".into());
            Self { status, looked: Ok(looked()) }
        }

        fn steps(&self) -> Vec<Step> {
            let target = target(&self.status).expect("db2 could take over");
            Known { status: &self.status, target, looked: self.looked.clone() }.steps()
        }
    }

    fn fail(scene: &mut Scene, code: &str) {
        let checks = &mut scene.looked.as_mut().expect("it was looked").preflight.checks;
        checks.iter_mut().filter(|check| check.code == code).for_each(|check| check.ok = false);
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
        ("behind", |it| fail(it, "caught-up"), &["drain_relay_log"], "3 transactions"),
        (
            "replication stands",
            |it| fail(it, "replication"),
            &["drain_relay_log"],
            "both replication threads",
        ),
        ("no Redis that follows", |it| fail(it, "redis"), &["open_ports"], "at offset 7"),
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
            |it| it.status.nodes[1].obstacles.push("service web is missing".into()),
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
            let found: Vec<&Step> = steps.iter().filter(|step| step.outlook == Outlook::Blocked).collect();
            assert_eq!(found.iter().map(|step| step.name).collect::<Vec<_>>(), *blocked, "{name}");
            let first = found.first().map(ToString::to_string).unwrap_or_default();
            assert!(first.contains(says), "{name}: {first}");
            assert!(first.is_empty() || first.contains("SOMETHING IN ITS WAY"), "{name}: {first}");
        }
    }

    #[test]
    fn what_nobody_has_looked_at_is_not_called_clear() {
        let outlook = |scene: &Scene, name: &str| {
            let steps = scene.steps();
            steps.iter().find(|step| step.name == name).map(|step| step.outlook)
        };
        let of_data = ["drain_relay_log", "promote_mysql", "open_ports"];
        let mut scene = Scene::new();
        for name in of_data {
            assert_eq!(outlook(&scene, name), Some(Outlook::Clear), "{name}");
        }
        scene.looked.as_mut().expect("it was looked").preflight.checks.clear();
        for name in of_data {
            assert_eq!(outlook(&scene, name), Some(Outlook::Untried), "{name}: db2 does not say");
        }
        scene.looked = Err("there is no leader".into());
        for name in of_data {
            assert_eq!(outlook(&scene, name), Some(Outlook::Untried), "{name}: nobody has looked");
        }
        (scene.status.sync, scene.status.nodes[1].redis) = (Sync::NotApplicable, None);
        for name in of_data {
            assert_eq!(outlook(&scene, name), Some(Outlook::Clear), "{name}: there is none");
        }
        scene.status.holder = None;
        assert_eq!(target(&scene.status), None);
    }
}
