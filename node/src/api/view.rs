//! From the ledger and the node rows to what people read: decisions, alarms, and the closing sentence.
//!
//! Pure functions; the wall clock is a parameter and only ever shown.

use baton_runbooks::agent::Suspicion;
use baton_runbooks::decide::local::{self, Wish};
use baton_runbooks::decide::{Action, Decision};
use baton_runbooks::model::{NodeId, NodeKind, WallMs};
use baton_runbooks::why::Why;
use jiff::Timestamp;

use super::alarm::AlarmCode;
use super::types::{
    Alarm, DecisionRow, NodeRow, Role, RunRecord, RunResult, Status, StepState, SuspicionRow, Sync,
};

pub mod away;
pub mod forced;
pub mod paused;
mod runs;
#[cfg(test)]
mod tests;
mod told;

pub use runs::{PHASE_NAMES, history, run_record};

/// Decisions that a view keeps. A decision is noted when it changes, so this reaches back over hours of peace.
pub const DECISIONS_MAX: usize = 100;

/// The instant as a timestamp; one outside the calendar is shown as 1970.
#[must_use]
pub fn timestamp(wall: WallMs) -> Timestamp {
    i64::try_from(wall.0)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A decision of the leader's half, as a row.
#[must_use]
pub fn decision_row(decision: &Decision, at: WallMs) -> DecisionRow {
    let action = match &decision.action {
        Action::Hold => "hold".to_owned(),
        Action::StartRun { plan } => {
            format!("start {} to {}, epoch {}", plan.runbook.as_str(), plan.to, plan.epoch)
        }
        Action::AbandonRun { reason } => format!("abandon the run: {reason}"),
        Action::Skip { step, reason } => format!("skip {step}: {reason}"),
        Action::ExpirePause { pause } => format!("end pause {pause}"),
    };
    DecisionRow { at: timestamp(at), action, why: decision.why.clone() }
}

/// What a node decided about itself, as a row.
#[must_use]
pub fn wish_row(wish: &Wish, at: WallMs) -> DecisionRow {
    let mut action = match &wish.role {
        local::Role::Witness => "be the witness".to_owned(),
        local::Role::Closed { follow: Some(primary) } => format!("stay closed and follow {primary}"),
        local::Role::Closed { follow: None } => "stay closed".to_owned(),
        local::Role::Acquiring { epoch } => format!("take the baton, epoch {epoch}"),
        local::Role::Receiving { epoch } => format!("get the baton, epoch {epoch}"),
        local::Role::Serving { epoch, ports, .. } => {
            format!("serve, epoch {epoch}{}", if *ports { "" } else { ", ports closed" })
        }
    };
    if let Some(why) = &wish.release {
        action.push_str(&format!("; give the lease back ({})", why.own_code()));
    }
    DecisionRow { at: timestamp(at), action, why: wish.why.clone() }
}

/// A suspicion that came to nothing, as a row.
#[must_use]
pub fn suspicion_row(suspicion: &Suspicion) -> SuspicionRow {
    SuspicionRow {
        at: timestamp(suspicion.at),
        holder: suspicion.holder.clone(),
        lasted_ms: suspicion.lasted_ms,
        why: suspicion.why.clone(),
        cleared_by: suspicion.cleared_by.clone(),
    }
}

/// Appends a decision if it differs from the newest one in what was decided or in the codes of its reasons; evidence
/// that only counts on is brought up to date in place. The list stays within [`DECISIONS_MAX`].
pub fn note_decision(rows: &mut Vec<DecisionRow>, row: DecisionRow) {
    let codes = |row: &DecisionRow| row.why.iter().map(Why::code).collect::<Vec<_>>();
    match rows.last_mut() {
        Some(last) if last.action == row.action && codes(last) == codes(&row) => last.why = row.why,
        Some(_) | None => {
            rows.push(row);
            let surplus = rows.len().saturating_sub(DECISIONS_MAX);
            rows.drain(..surplus);
        }
    }
}

/// Fills in `ok`, `sentence`, and the alarms that follow from the rows themselves.
#[must_use]
pub fn conclude(mut status: Status) -> Status {
    status.alarms.extend(row_alarms(&status.nodes, &status.version));
    status.alarms.extend(slow_takeover(&status));
    status.alarms.extend(told::alarms(&status));
    let conclusion = sentence(&status);
    status.ok = conclusion.is_ok();
    status.sentence = match conclusion {
        Ok(text) | Err(text) => text,
    };
    status
}

/// Of the 30 s until the service is back so many are for what the new holder has to do, applying included, in milliseconds.
const ACTIVATE_BUDGET_MS: u64 = 20_000;

/// What the replica is behind in applying has to be applied first: at about the speed at which it was written, if the applier
/// keeps up at all. Told before any fault.
fn slow_takeover(status: &Status) -> Option<Alarm> {
    let Sync::InSync { replica } = &status.sync else { return None };
    let row = status.nodes.iter().find(|row| row.name == *replica && !row.silent)?;
    let lag_ms = row.lag_ms.filter(|ms| *ms > ACTIVATE_BUDGET_MS)?;
    Some(AlarmCode::SlowTakeover.alarm(format!(
        "{replica} has the writes of {} s left to apply first, and only {} s are meant for that",
        lag_ms / 1_000,
        ACTIVATE_BUDGET_MS / 1_000
    )))
}

/// Differences between the nodes' agents that an operator should mend.
#[must_use]
pub fn row_alarms(rows: &[NodeRow], own_version: &str) -> Vec<Alarm> {
    let heard = || rows.iter().filter(|row| !row.silent && row.heard_ms_ago.is_some());
    let configs = heard().filter(|row| !row.config_matches).map(|row| {
        AlarmCode::ConfigDiffers.alarm(format!(
            "the configuration of {} has other values than this node's; install the same file on all",
            row.name
        ))
    });
    let versions = heard().filter(|row| !row.version.is_empty() && row.version != own_version).map(|row| {
        AlarmCode::VersionDiffers.alarm(format!(
            "{} runs version {}, this node {own_version}; finish the upgrade",
            row.name, row.version
        ))
    });
    let divided = rows.iter().filter(|row| !row.unheard_by.is_empty()).map(|row| {
        let by: Vec<&str> = row.unheard_by.iter().map(NodeId::as_str).collect();
        let (by, name) = (by.join(" and "), &row.name);
        AlarmCode::Unreachable.alarm(format!(
            "{name} is not heard by {by}, and by others it is; look at the network between them"
        ))
    });
    configs.chain(versions).chain(divided).chain(heard().filter_map(boots_open)).collect()
}

/// Told of a holder that serves too: it is refused at its next lease.
fn boots_open(row: &NodeRow) -> Option<Alarm> {
    let why = Why::RedisBootsOpen;
    row.obstacles.iter().any(|obstacle| *obstacle == why.own_code()).then(|| Alarm {
        code: why.own_code().to_owned(),
        text: format!(
            "Redis on {} took writes before any agent had opened it, so that node gets no new lease; write `replicaof 127.0.0.1 1` \
             and `min-replicas-to-write 99` into its redis.conf, then restart it",
            row.name
        ),
    })
}

/// The closing sentence: `Ok` if a takeover would work now and nothing is to be mended, otherwise what would not work,
/// why, and what to do.
///
/// # Errors
/// The sentence that says what is wrong.
pub fn sentence(status: &Status) -> Result<String, String> {
    if let Some(outranked) = status.alarms.iter().find(|alarm| alarm.code == AlarmCode::Outranked.as_str()) {
        return Err(format!("NOT OK: {}.", outranked.text));
    }
    if let Some(pause) = &status.paused {
        return Err(paused::sentence(pause, status));
    }
    if status.leader.is_none() {
        return Err(no_leader(status));
    }
    let newer = status.alarms.iter().find(|alarm| alarm.code == AlarmCode::NewerLog.as_str());
    // The leader says it of another node; every other one of itself, and what its ledger says is old.
    if let Some(own) = newer.filter(|_| status.leader.as_ref() != Some(&status.node)) {
        return Err(format!("NOT OK: {}.", own.text));
    }
    if let Some(run) = &status.run {
        match run.result {
            RunResult::NeedsOperator => return Err(needs_operator(run)),
            RunResult::Running | RunResult::Undoing => return Err(under_way(run)),
            RunResult::Completed | RunResult::Degraded | RunResult::RolledBack | RunResult::Abandoned => {}
        }
    }
    let Some(holder) = &status.holder else { return Err(vacant(status)) };
    let holder_row = status.nodes.iter().find(|row| row.name == *holder);
    if let Some(trouble) = holder_row.and_then(|row| holder_trouble(row, status)) {
        return Err(trouble);
    }
    let replica = status.nodes.iter().find(|row| row.kind == NodeKind::Data && row.name != *holder);
    let witness = status.nodes.iter().find(|row| row.kind == NodeKind::Witness);
    let mut troubles: Vec<String> = Vec::new();
    troubles.extend(replica.and_then(|row| replica_trouble(row, status)));
    troubles.extend(witness.and_then(|row| witness_trouble(row, holder)));
    troubles.extend(newer.map(|alarm| format!("{}.", alarm.text)));
    // The takeover's own probe would find it, whoever the candidate is.
    let contested = status.alarms.iter().find(|alarm| alarm.code == AlarmCode::VipContested.as_str());
    troubles.extend(
        contested.map(|alarm| {
            format!("a takeover from {holder} would stop before the virtual IP: {}.", alarm.text)
        }),
    );
    let Some(replica) = replica else { return Err("NOT OK: there is no second data node.".to_owned()) };
    if !troubles.is_empty() {
        return Err(format!("NOT OK: {}", troubles.join(" Also: ")));
    }
    let lag =
        replica.lag_ms.map_or_else(String::new, |ms| format!(" (lag {}.{} s)", ms / 1000, ms % 1000 / 100));
    match status.alarms.as_slice() {
        [] => Ok(format!("OK: {} can take over now{lag}. Tolerates one failure.", replica.name)),
        [one] => Err(format!("ATTENTION: {} can take over now{lag}, but {}.", replica.name, one.text)),
        [first, rest @ ..] => Err(format!(
            "ATTENTION: {} can take over now{lag}, but {} (and {} more).",
            replica.name,
            first.text,
            rest.len()
        )),
    }
}

fn name_or(node: Option<&NodeId>, otherwise: &str) -> String {
    node.map_or_else(|| otherwise.to_owned(), ToString::to_string)
}

fn silence(row: &NodeRow) -> String {
    row.heard_ms_ago.map_or_else(
        || "silent (never heard)".to_owned(),
        |ms| format!("silent (last heard {}.{} s ago)", ms / 1000, ms % 1000 / 100),
    )
}

fn no_leader(status: &Status) -> String {
    let silent: Vec<&str> =
        status.nodes.iter().filter(|row| row.silent).map(|row| row.name.as_str()).collect();
    if silent.is_empty() {
        return "NOT OK: there is no leader yet, so nothing is decided; an election takes less than a second.".to_owned();
    }
    format!(
        "NOT OK: there is no leader: {} sees no majority, so nothing is decided and nobody can take over. Bring back \
         {} or the network to it.",
        status.node,
        silent.join(" or ")
    )
}

fn needs_operator(run: &RunRecord) -> String {
    format!(
        "NOT OK: run {} ({} to {}) stopped and needs an operator: {}. Both databases are closed to writes. Mend the \
         cause, then `baton run ack {}`.",
        run.number,
        run.runbook,
        run.to,
        run.failure.as_deref().unwrap_or("no reason was noted"),
        run.number
    )
}

fn under_way(run: &RunRecord) -> String {
    let done = run.steps.iter().filter(|step| step.state == StepState::Done).count();
    let acting: Vec<&str> = run
        .steps
        .iter()
        .filter(|step| matches!(step.state, StepState::Acting | StepState::Undoing))
        .map(|step| step.step.as_str())
        .collect();
    let at = if acting.is_empty() { String::new() } else { format!(", at {}", acting.join(" and ")) };
    let from = run.from.as_ref().map_or_else(String::new, |from| format!(" from {from}"));
    format!(
        "WAIT: run {} is {}: {}{from} to {}, {done} of {} steps done{at}, {}.{} s so far.",
        run.number,
        if run.result == RunResult::Undoing { "being undone" } else { "under way" },
        run.runbook,
        run.to,
        run.steps.len(),
        run.elapsed_ms / 1000,
        run.elapsed_ms % 1000 / 100
    )
}

/// Nobody holds the baton: says of each data node what stands in its way.
fn vacant(status: &Status) -> String {
    let reasons: Vec<String> = status
        .nodes
        .iter()
        .filter(|row| row.kind == NodeKind::Data)
        .map(|row| match (row.silent, row.obstacles.as_slice()) {
            (true, _) => format!("{} is {}", row.name, silence(row)),
            (false, []) => format!("{} is ready", row.name),
            (false, obstacles) => format!("{}: {}", row.name, obstacles.join(", ")),
        })
        .collect();
    let leader = name_or(status.leader.as_ref(), "the leader");
    format!(
        "NOT OK: nobody holds the baton, clients are not served ({}). `baton explain` on {leader} says what is awaited.",
        reasons.join("; ")
    )
}

fn holder_trouble(row: &NodeRow, status: &Status) -> Option<String> {
    let leader = name_or(status.leader.as_ref(), "the leader");
    if row.silent {
        return Some(format!(
            "NOT OK: {} holds the baton and is {}; `baton explain` on {leader} says what is awaited.",
            row.name,
            silence(row)
        ));
    }
    if row.serving {
        // It has a lease, and nobody is answered.
        let closed = status.alarms.iter().find(|alarm| alarm.code == AlarmCode::HolderClosed.as_str());
        return closed.map(|closed| format!("NOT OK: {}.", closed.text));
    }
    let why = if row.obstacles.is_empty() { row.state.clone() } else { row.obstacles.join(", ") };
    Some(format!(
        "NOT OK: {} holds the baton and does not serve: {why}. See `baton explain` on {}.",
        row.name, row.name
    ))
}

/// Why the witness would be no second vote after the holder's loss, and what to do.
fn witness_trouble(row: &NodeRow, holder: &NodeId) -> Option<String> {
    let without = format!("if {holder} were lost now, no majority would be left and nobody could take over");
    if row.silent {
        return Some(format!("the witness {} is {}: {without}. Bring it back.", row.name, silence(row)));
    }
    if row.obstacles.is_empty() {
        return None;
    }
    Some(format!("the witness {} does not count ({}): {without}.", row.name, row.obstacles.join(", ")))
}

/// Why the other data node could not take over now, and what to do.
fn replica_trouble(row: &NodeRow, status: &Status) -> Option<String> {
    let holder = name_or(status.holder.as_ref(), "the holder");
    if row.silent {
        return Some(format!(
            "nobody could take over from {holder}: {} is {}. Bring it back.",
            row.name,
            silence(row)
        ));
    }
    if row.role == Role::Closed {
        return Some(away::closed(row, &holder));
    }
    if !row.obstacles.is_empty() {
        return Some(format!("{} could not take over now: {}.", row.name, row.obstacles.join(", ")));
    }
    match &status.sync {
        Sync::OutOfSync { reason } => Some(format!(
            "{} could not take over now, since it may lack acknowledged writes: {reason}. It is in sync again once it \
             has caught up.",
            row.name
        )),
        Sync::InSync { .. } | Sync::NotApplicable => None,
    }
}
