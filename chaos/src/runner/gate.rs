//! What is looked at before anything is broken. Each check says what it saw; one that fails refuses the drill.

use baton_node::api::drill::{DrillView, FaultKind};
use baton_node::api::types::Status;
use baton_node::config::{DrillLevel, NodeId};

use super::agents::{Agents, cast, heard, is_in_sync, services};
use super::cast::{Aim, aim};
use super::certificates;
use super::record::of_status;
use crate::evidence::GateCheck;
use crate::experiment::{Experiment, Fault, Level, Mode, Probe};

/// A replica that is further behind could not be promoted in time.
const LAG_MAX_MS: u64 = 5_000;

/// What the gate saw, for the rest of the drill.
#[derive(Debug)]
pub struct Seen {
    /// The cluster.
    pub status: Status,
    /// What each node says of drills; a node that could not be asked is missing.
    pub views: Vec<DrillView>,
    /// The checks.
    pub checks: Vec<GateCheck>,
}

impl Seen {
    /// The first check that failed.
    #[must_use]
    pub fn refusal(&self) -> Option<&GateCheck> {
        self.checks.iter().find(|check| !check.passed)
    }
}

fn check(code: &str, passed: bool, seen: impl Into<String>) -> GateCheck {
    GateCheck { code: code.to_owned(), passed, seen: seen.into() }
}

/// Looks at everything.
///
/// # Errors
/// The agent at this machine cannot be asked.
pub async fn look(
    agents: &Agents,
    experiment: &Experiment,
) -> Result<Seen, baton_node::api::client::ClientError> {
    let status = agents.status().await?;
    let mut views = Vec::new();
    let reads = certificates::only_reads(experiment);
    // Who is silent there is what such a drill finds, and no reason not to look.
    let mut checks = if reads { Vec::new() } else { cluster(&status, experiment.level) };
    for row in &status.nodes {
        match agents.look(&row.name).await {
            Ok(view) => views.push(view),
            Err(_) if reads => {}
            Err(error) => checks.push(check("orders", false, format!("{}: {error}", row.name))),
        }
    }
    checks.extend(drills(&views, &status, experiment));
    checks.extend(methods(&status, &views, experiment));
    checks.extend(steady(&status, &views, experiment));
    Ok(Seen { status, views, checks })
}

/// The cluster is well: after the drill's fault nothing else may be missing.
fn cluster(status: &Status, level: Level) -> Vec<GateCheck> {
    let all = status.nodes.len();
    let silent: Vec<&str> =
        status.nodes.iter().filter(|row| row.silent).map(|row| row.name.as_str()).collect();
    let leader = status.leader.as_ref().map_or("nobody", NodeId::as_str);
    let mut checks = vec![check(
        "quorum",
        heard(status) == all && status.leader.is_some(),
        format!("{} of {all} agents are heard{}, {leader} leads", heard(status), list(" except ", &silent)),
    )];
    if level <= Level::L1 {
        // A rehearsal asks just that.
        return checks;
    }
    let serving: Vec<&str> =
        status.nodes.iter().filter(|row| row.serving).map(|row| row.name.as_str()).collect();
    let holder = status.holder.as_ref().map_or("nobody", NodeId::as_str);
    checks.push(check(
        "one-holder",
        serving == [holder],
        format!("{holder} holds the baton in epoch {}, {} serves", status.epoch, list("", &serving)),
    ));
    checks.push(check("in-sync", is_in_sync(status), sync_words(status)));
    let lags = status.nodes.iter().filter_map(|row| Some((row, row.lag_ms?)));
    let behind: Vec<String> = lags.map(|(row, lag)| format!("{} is {lag} ms behind", row.name)).collect();
    let too_far = status.nodes.iter().any(|row| row.lag_ms.is_some_and(|lag| lag > LAG_MAX_MS));
    checks.push(check("lag", !too_far, if behind.is_empty() { "no lag".into() } else { behind.join(", ") }));
    checks.push(check("ready", status.ok, status.sentence.clone()));
    let run = status.run.as_ref().map(|run| format!("run {} ({}) is under way", run.number, run.runbook));
    checks.push(check("no-run", run.is_none(), run.unwrap_or_else(|| "no run is under way".into())));
    let pause = status.paused.as_ref().map(|pause| {
        format!("pause {} by {} stands: {}; baton resume ends it", pause.number, pause.by, pause.reason)
    });
    checks.push(check("no-pause", pause.is_none(), pause.unwrap_or_else(|| "there is no pause".into())));
    let alarms: Vec<&str> = status.alarms.iter().map(|alarm| alarm.code.as_str()).collect();
    let words = if alarms.is_empty() { "no alarm".to_owned() } else { alarms.join(", ") };
    checks.push(check("no-alarm", alarms.is_empty(), words));
    let other: Vec<&str> =
        status.nodes.iter().filter(|row| !row.config_matches).map(|row| row.name.as_str()).collect();
    let words =
        if other.is_empty() { "equal on all nodes".to_owned() } else { list("another one on ", &other) };
    checks.push(check("same-configuration", other.is_empty(), words));
    checks
}

fn sync_words(status: &Status) -> String {
    use baton_node::api::types::Sync;
    match &status.sync {
        Sync::InSync { replica } => format!("{replica} has every acknowledged write"),
        Sync::OutOfSync { reason } => format!("no replica is in sync: {reason}"),
        Sync::NotApplicable => "there is no MySQL".to_owned(),
    }
}

/// No other drill, nothing left of one, inside the window, the cooldown over.
fn drills(views: &[DrillView], status: &Status, experiment: &Experiment) -> Vec<GateCheck> {
    let mut checks = Vec::new();
    let under_way = views.iter().find_map(|view| view.drill.as_ref());
    let words = under_way.map(|drill| format!("drill {} ({}) is under way", drill.number, drill.name));
    checks.push(check("no-drill", words.is_none(), words.unwrap_or_else(|| "no drill is under way".into())));
    let left: Vec<String> = views
        .iter()
        .flat_map(|view| view.leftovers.iter().map(|left| format!("{}: {left}", view.node)))
        .collect();
    let words =
        if left.is_empty() { "nothing is left of an earlier drill".to_owned() } else { left.join("; ") };
    checks.push(check("no-leftovers", left.is_empty(), words));
    if experiment.level <= Level::L1 {
        return checks;
    }
    for view in views {
        let passed = view.outside_window.is_none();
        let words = view.outside_window.clone().unwrap_or_else(|| "inside its window".into());
        checks.push(check("window", passed, format!("{}: {words}", view.node)));
    }
    if let Some(own) = views.iter().find(|view| view.node == status.node) {
        let left = own.cooldown_left_ms.div_ceil(1_000);
        let words = match left {
            0 => "over".to_owned(),
            left => format!("{left} s are left of the cooldown after the last drill"),
        };
        checks.push(check("cooldown", left == 0, words));
    }
    checks
}

/// Each method can be done now, is allowed where it strikes, and leaves a way to end it.
fn methods(status: &Status, views: &[DrillView], experiment: &Experiment) -> Vec<GateCheck> {
    let mut checks = Vec::new();
    for (index, method) in experiment.method.iter().enumerate() {
        let number = index + 1;
        let target = experiment.targets.get(&method.target).map(|target| target.role);
        let nodes = target.map(|role| cast(status, role)).unwrap_or_default();
        if nodes.is_empty() {
            checks.push(check("target", false, format!("method {number}: nobody is {}", method.target)));
            continue;
        }
        match aim(status, experiment, method) {
            Err(why) => checks.push(check("target", false, format!("method {number}: {why}"))),
            Ok(Aim::Fault { node, spec }) => {
                let here = node == status.node && (spec.kind.silences_its_agent() || cuts(spec.kind));
                let words = format!("method {number}: the agent of {node} is not the one that is asked");
                let failed = format!(
                    "method {number} takes the agent of {node} away, and this runner needs it; run it on another node"
                );
                checks.push(check("way-back", !here, if here { failed } else { words }));
                checks.push(allowed(views, &node, spec.kind.level(), number, Some(method.duration.ms())));
                checks.extend(switch(views, &node, spec.kind, number));
            }
            Ok(Aim::Switchover { node }) => {
                // The node that is asked and the two that pass the baton say each for itself whether it may be passed.
                let nodes = [Some(&status.node), status.holder.as_ref(), Some(&node)];
                let nodes: std::collections::BTreeSet<&NodeId> = nodes.into_iter().flatten().collect();
                checks.extend(nodes.iter().map(|node| allowed(views, node, DrillLevel::L2, number, None)));
                let words = format!("method {number}: passes the baton to {node}");
                checks.push(check("target", true, words));
            }
            Ok(Aim::Rehearsal | Aim::Certificates) => {}
        }
    }
    checks
}

/// What must hold before, as far as a status says it; the rest is measured. Services of which the
/// holder speaks, and cannot say how they are, refuse: there is nothing that the end could be held against.
fn steady(status: &Status, views: &[DrillView], experiment: &Experiment) -> Vec<GateCheck> {
    if experiment.level <= Level::L1 {
        return Vec::new();
    }
    let states = experiment.steady_state.iter().filter(|state| state.mode.contains(&Mode::Before));
    let checks = states.filter_map(|state| {
        let value = match state.probe {
            Probe::CertificateDays => certificates::least(status, views),
            probe => of_status(probe, status),
        };
        let is_said = state.probe == Probe::UnhealthyServices && services(status).is_some();
        let words = match value {
            Some(value) => value.to_string(),
            None if is_said => "not known".to_owned(),
            None => return None,
        };
        let says = format!("{}: {words}, wanted {}", state.name, state.tolerance);
        Some(check("steady-state", value.is_some_and(|value| state.tolerance.admits(value)), says))
    });
    checks.collect()
}

/// A node whose power is to be cut has a command for that.
fn switch(views: &[DrillView], node: &NodeId, kind: FaultKind, number: usize) -> Option<GateCheck> {
    if kind != FaultKind::PowerOff {
        return None;
    }
    let has = views.iter().any(|view| view.node == *node && view.power_off);
    let words = if has {
        format!("method {number}: {node} has a command that cuts its power; somebody must switch it on again")
    } else {
        format!(
            "method {number}: {node} has no command that cuts its power (drill.power_off), or it is not there"
        )
    };
    Some(check("power-switch", has, words))
}

const fn cuts(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::Partition | FaultKind::OneWay)
}

fn allowed(
    views: &[DrillView],
    node: &NodeId,
    level: DrillLevel,
    number: usize,
    duration_ms: Option<u64>,
) -> GateCheck {
    let Some(view) = views.iter().find(|view| view.node == *node) else {
        return check("allowed", false, format!("method {number}: {node} did not say what it allows"));
    };
    let long = duration_ms.filter(|ms| *ms > view.duration_max_ms);
    let words = match long {
        Some(ms) => format!(
            "method {number}: {ms} ms are asked for, {node} allows {} ms (drill.duration_max)",
            view.duration_max_ms
        ),
        None => format!("method {number} is {level}, {node} allows {} (drill.allow)", view.allow),
    };
    check("allowed", long.is_none() && level <= view.allow, words)
}

/// Why this node lets nobody pass the baton by a drill now.
#[must_use]
pub fn forbids_switchover(view: &DrillView) -> Option<String> {
    let node = &view.node;
    if view.allow < DrillLevel::L2 {
        return Some(format!("{node} allows drills up to {} (drill.allow)", view.allow));
    }
    view.outside_window.as_ref().map(|outside| format!("{node}: {outside}"))
}

fn list(before: &str, names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!("{before}{}", names.join(", ")) }
}

/// The level of an experiment, as nodes count it.
#[must_use]
pub const fn node_level(level: Level) -> DrillLevel {
    match level {
        Level::L0 => DrillLevel::L0,
        Level::L1 => DrillLevel::L1,
        Level::L2 => DrillLevel::L2,
        Level::L3 => DrillLevel::L3,
        Level::L4 => DrillLevel::L4,
        Level::L5 => DrillLevel::L5,
    }
}

/// Whether a takeover from the node that it strikes is what the drill is about.
#[must_use]
pub const fn may_cost_the_baton(fault: Fault) -> bool {
    match fault {
        Fault::MysqldKill
        | Fault::MysqldFreeze
        | Fault::RedisKill
        | Fault::AgentKill
        | Fault::AgentFreeze
        | Fault::ContainerKill
        | Fault::ContainerUnhealthy
        | Fault::Partition
        | Fault::PartitionPair
        | Fault::OneWay
        | Fault::PowerOff => true,
        Fault::Rehearsal
        | Fault::CertificateExpiring
        | Fault::Switchover
        | Fault::WitnessLoss
        | Fault::ReplicationLag
        | Fault::ReplicaDiskFull => false,
    }
}

#[cfg(test)]
mod tests;
