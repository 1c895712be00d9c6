//! The rehearsal: every agent says what stands in the way of a takeover now, and each step of one is held against what is
//! known before it. Nothing is tried.

use std::fmt;
use std::path::Path;

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
            effect.push_str(&format!(" With something in the way: {}", blocked.join(", ")));
        }
        self.was_asked(place, answered, effect);
        answered
    }

    /// Notes what is known of what a takeover wants before its first step, and of each step. Returns those in whose way something
    /// was seen.
    async fn rehearse_steps(&mut self, status: &Status) -> Vec<&'static str> {
        let mut lines = conditions(status);
        match target(status) {
            Some(target) => lines.extend(self.look_at_steps(status, target).await),
            None => self.note("runner", "no step of a takeover is looked at: nobody holds the baton"),
        }
        for line in &lines {
            self.note(status.node.as_str(), line.to_string());
        }
        lines.iter().filter(|line| line.outlook == Outlook::Blocked).map(|line| line.name).collect()
    }

    async fn look_at_steps(&self, status: &Status, target: &NodeRow) -> Vec<Line> {
        // Without a plan an agent only looks.
        let request = SwitchoverRequest {
            to: Some(target.name.clone()),
            by: self.agents.by.clone(),
            drain_patience_ms: DRAIN_MS,
            plan: None,
            drill: None,
        };
        let looked = self.agents.client.switchover(&request).await.map_err(|error| error.to_string());
        Known { status, target, looked, fence_hook: self.fence_hook.as_deref() }.steps()
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

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What a takeover wants before it begins.
    Condition,
    /// A step of it.
    Step,
}

/// A part of a takeover, held against what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    part: Part,
    /// A step as the runbook calls it, a condition as the look before a switchover does.
    name: &'static str,
    outlook: Outlook,
    evidence: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Condition => "condition",
            Part::Step => "step",
        };
        let words = match self.outlook {
            Outlook::Clear => "nothing in its way",
            Outlook::Blocked => "SOMETHING IN ITS WAY",
            Outlook::Untried => "not tried",
        };
        write!(f, "takeover {part} {}: {words}; {}", self.name, self.evidence)
    }
}

/// Without these the leader begins no takeover, whatever is known of its steps.
fn conditions(status: &Status) -> Vec<Line> {
    let pause = match &status.paused {
        Some(pause) => {
            let words = format!("pause {} by {} stands; `baton resume` ends it", pause.number, pause.by);
            (Outlook::Blocked, words)
        }
        None => (Outlook::Clear, "no pause stands".to_owned()),
    };
    let run = match &status.run {
        Some(run) => (Outlook::Blocked, format!("run {} ({}) is not over", run.number, run.runbook)),
        None => (Outlook::Clear, "no run is in progress".to_owned()),
    };
    lines(Part::Condition, [("not-paused", pause), ("no-run", run)])
}

fn lines<const N: usize>(part: Part, all: [(&'static str, (Outlook, String)); N]) -> Vec<Line> {
    let line = |(name, (outlook, evidence))| Line { part, name, outlook, evidence };
    all.into_iter().map(line).collect()
}

/// What the steps are held against.
struct Known<'a> {
    status: &'a Status,
    /// Who would take over.
    target: &'a NodeRow,
    /// What an agent looks at before a planned move, or why it did not. A planned move wants more than a takeover does.
    looked: Result<SwitchoverAnswer, String>,
    /// The program of the fence hook in the configuration of the node at which the runner stands.
    fence_hook: Option<&'a Path>,
}

impl Known<'_> {
    /// Every step, in the order of the runbook's table.
    fn steps(&self) -> Vec<Line> {
        let cut = format!("it is a rule in the kernel of {}", self.target.name);
        let all = [
            ("fence_old", self.fence()),
            ("cut_stream", (Outlook::Untried, cut)),
            ("hold_vip", self.vip()),
            ("drain_relay_log", self.drain()),
            ("promote_mysql", self.promote()),
            ("open_ports", self.redis()),
            ("start_independent", self.services()),
            ("start_services", self.services()),
            ("validate", self.witness()),
        ];
        lines(Part::Step, all)
    }

    /// The lease ends by itself. A hook is run by the one who takes over, and a rehearsal runs none.
    fn fence(&self) -> (Outlook, String) {
        let (name, lease_ms) = (&self.target.name, self.status.lease.length_ms);
        let lease = format!("a lost holder's lease lasts {lease_ms} ms at most");
        match self.fence_hook {
            Some(program) => (Outlook::Untried, format!("{lease}; the fence hook is {}", program.display())),
            // The hash of a configuration covers the hook.
            None if self.target.heard_ms_ago.is_some() && self.target.config_matches => {
                (Outlook::Clear, format!("{lease}; no fence hook is configured"))
            }
            None => (Outlook::Untried, format!("{lease}; whether {name} has a fence hook is not known")),
        }
    }

    /// What the agent has seen by the check of this code, and whether the check passed.
    ///
    /// # Errors
    /// Why that is not known.
    fn seen(&self, code: &str) -> Result<(bool, &str), String> {
        let looked = self.looked.as_ref().map_err(|why| format!("nobody has looked: {why}"))?;
        let check = looked.preflight.checks.iter().find(|check| check.code == code);
        let check = check.ok_or_else(|| format!("{} does not say", self.target.name))?;
        Ok((check.ok, check.evidence.as_str()))
    }

    /// What the target says that it lacks itself: nobody who says so is chosen.
    fn lacks(&self, is_meant: impl Fn(&str) -> bool) -> Option<(Outlook, String)> {
        let meant = self.target.obstacles.iter().map(String::as_str).filter(|text| is_meant(text));
        let meant: Vec<&str> = meant.collect();
        (!meant.is_empty()).then(|| (Outlook::Blocked, meant.join("; ")))
    }

    /// A drain takes what there is, and starts an applier that only stands, as long as the receiver lives.
    fn drain(&self) -> (Outlook, String) {
        if self.status.sync == Sync::NotApplicable {
            return (Outlook::Clear, "there is no MySQL".to_owned());
        }
        if let Some(lacks) = self.lacks(|text| text.starts_with("applier stopped")) {
            return lacks;
        }
        let (runs, threads) = match self.seen("replication") {
            Ok(seen) => seen,
            Err(why) => return (Outlook::Untried, why),
        };
        let backlog = self.seen("caught-up").map_or_else(|why| why, |(_, backlog)| backlog.to_owned());
        (if runs { Outlook::Clear } else { Outlook::Untried }, format!("{threads}; {backlog}"))
    }

    /// Only what has every acknowledged write is promoted.
    fn promote(&self) -> (Outlook, String) {
        if self.status.sync == Sync::NotApplicable {
            return (Outlook::Clear, "there is no MySQL".to_owned());
        }
        if let Some(lacks) = self.lacks(|text| text.starts_with("mysql")) {
            return lacks;
        }
        match self.seen("in-sync") {
            Ok((true, seen)) => (Outlook::Clear, seen.to_owned()),
            Ok((false, seen)) => (Outlook::Blocked, seen.to_owned()),
            Err(why) => (Outlook::Untried, why),
        }
    }

    /// A Redis whose link to the holder is down is made the primary like any other.
    fn redis(&self) -> (Outlook, String) {
        let name = &self.target.name;
        if self.target.silent {
            return (Outlook::Untried, format!("{name} is silent"));
        }
        if let Some(lacks) = self.lacks(|text| text.starts_with("redis")) {
            return lacks;
        }
        match &self.target.redis {
            Some(verdict) => (Outlook::Clear, format!("{name} says of its Redis: {verdict}")),
            None => (Outlook::Clear, "there is no Redis".to_owned()),
        }
    }

    /// Whom a node hears answer for the address, only the one that was asked has told.
    fn vip(&self) -> (Outlook, String) {
        match self.status.alarms.iter().find(|alarm| VIP_ALARMS.contains(&alarm.code.as_str())) {
            Some(alarm) => (Outlook::Blocked, alarm.text.clone()),
            None => {
                let node = &self.status.node;
                let says = format!("{node} has heard no other machine that answers for the virtual IP");
                (Outlook::Clear, says)
            }
        }
    }

    fn services(&self) -> (Outlook, String) {
        let name = &self.target.name;
        let says = || format!("{name} names none that it lacks; whether one gets healthy, its start shows");
        self.lacks(|text| text.contains("service")).unwrap_or_else(|| (Outlook::Untried, says()))
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
mod tests;
