//! What this node lets drills do: each limit on its own, with the value that it was held against.

use std::time::Duration;

use baton_runbooks::ledger::{DrillId, Ledger};
use baton_runbooks::model::{NodeId, NodeKind};
use jiff::{Timestamp, Zoned};

use super::{Context, ledger, others, power, when};
use crate::api::drill::{FaultKind, FaultSpec};
use crate::config::{Config, Drill, DrillLevel};

/// A node whose report is older than this is not there to carry on.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// Whether a drill of this level may begin at this node.
///
/// # Errors
/// Why not.
pub(super) fn begin(context: &Context, level: DrillLevel) -> Result<(), String> {
    let config = &context.config;
    allowed(config, level)?;
    if level <= DrillLevel::L1 { Ok(()) } else { broken(&config.drill, &ledger(context), &Zoned::now()) }
}

/// Window and cooldown, for whatever breaks something or passes the baton: asked again for each fault and each move, since
/// whoever begins a drill says himself how deep it reaches.
fn broken(config: &Drill, ledger: &Ledger, now: &Zoned) -> Result<(), String> {
    if let Some(outside) = outside(config, now) {
        return Err(outside);
    }
    match cooldown_at(config, ledger, now.timestamp()) {
        0 => Ok(()),
        left => Err(format!(
            "the last drill ended less than {} ago; wait {} s more, or shorten drill.cooldown",
            config.cooldown,
            left.div_ceil(1_000)
        )),
    }
}

/// Whether this fault of this drill may be armed here.
///
/// # Errors
/// Why not.
pub(super) fn fault(context: &Context, number: DrillId, spec: &FaultSpec) -> Result<(), String> {
    let silent: Vec<&NodeId> =
        others(context).filter(|other| context.hands.peer_lately(other, HEARD_WITHIN).is_none()).collect();
    let ledger = ledger(context);
    limits(&context.config, &ledger, number, spec, &silent, &Zoned::now())?;
    fits(context, &ledger, spec)
}

/// The node's own limits, whatever is to be broken. `silent`: other nodes that were not heard lately.
fn limits(
    config: &Config,
    ledger: &Ledger,
    number: DrillId,
    spec: &FaultSpec,
    silent: &[&NodeId],
    now: &Zoned,
) -> Result<(), String> {
    allowed(config, spec.kind.level())?;
    broken(&config.drill, ledger, now)?;
    let max_ms = config.drill.duration_max.as_ms();
    if !(1..=max_ms).contains(&spec.duration_ms) {
        return Err(format!(
            "{} lets no fault stand for {} ms; drill.duration_max is {}",
            config.node, spec.duration_ms, config.drill.duration_max
        ));
    }
    goes_on(config, ledger, number)?;
    if let Some(run) = ledger.run.as_ref().filter(|run| run.plan.to == config.node) {
        return Err(format!("{} is to take over by run {}", config.node, run.id));
    }
    // Two agents must be left to decide, this one counted unless it is what is taken away.
    if silent.len() > usize::from(!takes_a_vote(spec.kind)) {
        let names: Vec<&str> = silent.iter().map(|node| node.as_str()).collect();
        return Err(format!(
            "{} not heard for {} s, and two of three agents must be left",
            names.join(" and "),
            HEARD_WITHIN.as_secs()
        ));
    }
    Ok(())
}

/// Whether this drill may pass the baton from this node, or to it.
///
/// # Errors
/// Why not.
pub(super) fn pass(context: &Context, number: DrillId) -> Result<(), String> {
    passes(&context.config, &ledger(context), number, &Zoned::now())
}

/// The node's own limits on a drill that passes the baton. Whether it can be passed at all, the core says, as to everybody.
fn passes(config: &Config, ledger: &Ledger, number: DrillId, now: &Zoned) -> Result<(), String> {
    allowed(config, DrillLevel::L2)?;
    broken(&config.drill, ledger, now)?;
    goes_on(config, ledger, number)
}

/// The drill is under way, and is not to end.
fn goes_on(config: &Config, ledger: &Ledger, number: DrillId) -> Result<(), String> {
    match &ledger.drill {
        Some(drill) if drill.number == number => match &drill.aborted {
            None => Ok(()),
            Some(reason) => Err(format!("drill {number} is to end: {reason}")),
        },
        Some(_) | None => Err(format!("drill {number} is not under way, as far as {} knows", config.node)),
    }
}

fn allowed(config: &Config, level: DrillLevel) -> Result<(), String> {
    if level <= config.drill.allow {
        return Ok(());
    }
    Err(format!(
        "{} allows drills up to {}, not {level}; drill.allow in its configuration says so",
        config.node, config.drill.allow
    ))
}

/// The node's vote is lost or in doubt while it stands.
const fn takes_a_vote(kind: FaultKind) -> bool {
    match kind {
        FaultKind::AgentKill
        | FaultKind::AgentFreeze
        | FaultKind::Partition
        | FaultKind::OneWay
        | FaultKind::PowerOff => true,
        FaultKind::MysqldKill
        | FaultKind::MysqldFreeze
        | FaultKind::RedisKill
        | FaultKind::ContainerKill
        | FaultKind::ContainerUnhealthy
        | FaultKind::ReplicationLag
        | FaultKind::ReplicaDiskFull => false,
    }
}

/// Whoever runs the drill was heard here within its lease.
///
/// # Errors
/// He was not.
pub(super) fn alive(context: &Context, number: DrillId) -> Result<(), String> {
    heard(&ledger(context), number, context.drills.silent_for(number))
}

/// `silent`: for how long whoever runs this drill was not heard here; `None`: he never was.
fn heard(ledger: &Ledger, number: DrillId, silent: Option<Duration>) -> Result<(), String> {
    let lease_ms = ledger.drill.as_ref().filter(|drill| drill.number == number).map(|drill| drill.lease_ms);
    match (lease_ms, silent) {
        (Some(lease_ms), Some(silent)) if silent <= Duration::from_millis(lease_ms) => Ok(()),
        _ => Err(format!("whoever runs drill {number} was not heard here within its lease")),
    }
}

/// The node has what is to be broken, and the role that goes with it.
fn fits(context: &Context, ledger: &Ledger, spec: &FaultSpec) -> Result<(), String> {
    let config = &context.config;
    let node = &config.node;
    let holds = ledger.holder.as_ref() == Some(node);
    let has_mysql = config.this().kind == NodeKind::Data && config.mysql.is_some();
    let lacks = |what: &str| Err(format!("{node} has no {what}"));
    let unknown = spec.peers.iter().find(|peer| *peer == node || config.find(peer).is_none());
    if let Some(unknown) = unknown {
        return Err(format!("{unknown} is not another node"));
    }
    match spec.kind {
        FaultKind::MysqldKill | FaultKind::MysqldFreeze if !has_mysql => lacks("MySQL"),
        FaultKind::RedisKill if context.hands.redis.is_none() => lacks("Redis"),
        FaultKind::ContainerKill | FaultKind::ContainerUnhealthy if context.hands.services.is_none() => {
            lacks("role-bound service")
        }
        FaultKind::ContainerKill | FaultKind::ContainerUnhealthy
            if !runs_here(config, spec.service.as_deref(), holds) =>
        {
            Err(format!("the service does not run on {node}: its role is another node's"))
        }
        FaultKind::ReplicationLag | FaultKind::ReplicaDiskFull if !has_mysql || holds => {
            Err(format!("{node} has no replica: {} is for the node that follows", spec.kind))
        }
        FaultKind::Partition | FaultKind::OneWay | FaultKind::ReplicationLag if spec.peers.is_empty() => {
            Err(format!("{} needs the names of the peers", spec.kind))
        }
        FaultKind::PowerOff => power::hook(context).map(drop),
        FaultKind::MysqldKill
        | FaultKind::MysqldFreeze
        | FaultKind::RedisKill
        | FaultKind::AgentKill
        | FaultKind::AgentFreeze
        | FaultKind::ContainerKill
        | FaultKind::ContainerUnhealthy
        | FaultKind::Partition
        | FaultKind::OneWay
        | FaultKind::ReplicationLag
        | FaultKind::ReplicaDiskFull => Ok(()),
    }
}

/// The service that is meant is for the role that this node has; `None`: the first of the holder's.
fn runs_here(config: &Config, service: Option<&str>, holds: bool) -> bool {
    let Some(service) = service else { return holds };
    let found = config.services.iter().find(|known| known.name == service);
    found.is_some_and(|found| match found.runs_on {
        crate::config::RunsOn::Holder => holds,
        crate::config::RunsOn::Replica => !holds,
    })
}

/// Why nothing may be injected by the clock.
pub(super) fn outside_window(config: &Drill) -> Option<String> {
    outside(config, &Zoned::now())
}

fn outside(config: &Drill, now: &Zoned) -> Option<String> {
    let window = config.window.filter(|window| !window.is_open(now))?;
    Some(format!("drills are for {window} here, and it is {}", now.strftime("%a %H:%M %Z")))
}

/// Milliseconds until the cooldown after the last drill that broke something or was to is over.
pub(super) fn cooldown_left_ms(config: &Drill, ledger: &Ledger) -> u64 {
    cooldown_at(config, ledger, Timestamp::now())
}

fn cooldown_at(config: &Drill, ledger: &Ledger, now: Timestamp) -> u64 {
    let Some(last) = ledger.ended_drills.last() else { return 0 };
    let since = now.as_millisecond() - when(last.ended_at).as_millisecond();
    left_ms(config.cooldown.as_ms(), since)
}

/// A clock that was set back counts as one whose cooldown is over: it must not lock drills out for as long as it was set
/// back, again and again.
fn left_ms(cooldown_ms: u64, since_ms: i64) -> u64 {
    u64::try_from(since_ms).map_or(0, |since_ms| cooldown_ms.saturating_sub(since_ms))
}

#[cfg(test)]
mod tests;
