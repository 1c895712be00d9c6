//! From the ledger and the node rows to what people read: run records, phases, and the closing sentence.
//!
//! Pure functions; the wall clock is a parameter and only ever shown.

use std::collections::BTreeMap;

use baton_runbooks::agent::Suspicion;
use baton_runbooks::decide::local::{self, Wish};
use baton_runbooks::decide::{Action, Decision};
use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{NodeId, NodeKind, WallMs};
use baton_runbooks::plan::{PlannedStep, Step};
use baton_runbooks::run::{Entry, Event, Run, RunState, StepStatus};
use baton_runbooks::why::Why;
use jiff::Timestamp;

use super::types::{
    Alarm, DecisionRow, NodeRow, Role, RunRecord, RunResult, Status, StepRecord, StepState, SuspicionRow,
    Sync,
};

pub mod away;
pub mod forced;
pub mod paused;
#[cfg(test)]
mod tests;

/// Decisions that a view keeps. A decision is noted when it changes, so this reaches back over hours of peace.
pub const DECISIONS_MAX: usize = 100;

/// The steps whose success is a phase, in the order of the runbooks. Services are a phase of their own, see [`phases`].
const PHASES: [(&str, Step); 12] = [
    ("prepared", Step::PrepareTarget),
    ("drained_clients", Step::DrainHolder),
    ("closed", Step::CloseHolder),
    ("caught_up", Step::CatchUp),
    ("fenced", Step::FenceOld),
    ("cut", Step::CutStream),
    ("vip_held", Step::HoldVip),
    ("drained", Step::DrainRelayLog),
    ("promoted", Step::PromoteMysql),
    ("open", Step::OpenPorts),
    ("attached", Step::AttachOld),
    ("validated", Step::Validate),
];

/// Names of all phases, in the order in which they are shown.
pub const PHASE_NAMES: [&str; 14] = [
    "decided",
    "prepared",
    "drained_clients",
    "closed",
    "caught_up",
    "fenced",
    "cut",
    "vip_held",
    "drained",
    "promoted",
    "open",
    "services_healthy",
    "attached",
    "validated",
];

/// The instant as a timestamp; one outside the calendar is shown as 1970.
#[must_use]
pub fn timestamp(wall: WallMs) -> Timestamp {
    i64::try_from(wall.0)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// All runs of the ledger, newest last, the one under way included.
#[must_use]
pub fn history(ledger: &Ledger, now: WallMs) -> Vec<RunRecord> {
    let ended = ledger.history.iter().map(|ended| record(&ended.run, &ended.state, now));
    ended.chain(ledger.run.as_ref().map(|run| run_record(run, now))).collect()
}

/// One run that is under way or needs an operator.
#[must_use]
pub fn run_record(run: &Run, now: WallMs) -> RunRecord {
    record(run, &run.state(), now)
}

fn record(run: &Run, state: &RunState, now: WallMs) -> RunRecord {
    let until = match state {
        RunState::Running | RunState::Undoing => now,
        RunState::Completed
        | RunState::Degraded
        | RunState::RolledBack
        | RunState::Abandoned
        | RunState::NeedsOperator { .. } => run.journal.last().map_or(run.at, |entry| entry.at),
    };
    RunRecord {
        number: run.id,
        at: timestamp(run.at),
        runbook: run.plan.runbook.as_str().to_owned(),
        from: run.plan.from.clone(),
        to: run.plan.to.clone(),
        epoch: run.plan.epoch,
        cause: run.plan.asked_by.as_ref().map_or_else(|| cause(&run.plan.why), |by| format!("asked by {by}")),
        why: run.plan.why.clone(),
        result: result(state),
        failure: failure(run, state),
        elapsed_ms: since(run, until),
        phases_ms: phases(run),
        detected_ms_before: run.plan.detected_ms_ago,
        steps: run.plan.steps.iter().map(|planned| step_record(run, planned, now)).collect(),
    }
}

const fn since(run: &Run, at: WallMs) -> u64 {
    at.0.saturating_sub(run.at.0)
}

const fn result(state: &RunState) -> RunResult {
    match state {
        RunState::Running => RunResult::Running,
        RunState::Undoing => RunResult::Undoing,
        RunState::Completed => RunResult::Completed,
        RunState::Degraded => RunResult::Degraded,
        RunState::RolledBack => RunResult::RolledBack,
        RunState::Abandoned => RunResult::Abandoned,
        RunState::NeedsOperator { .. } => RunResult::NeedsOperator,
    }
}

/// The reason that names what happened to the holder, before reasons that only say who comes next.
fn cause(why: &[Why]) -> String {
    let of_holder = why.iter().find(|why| {
        matches!(
            why,
            Why::HolderReleased { .. } | Why::LeaseEnded { .. } | Why::Vacant | Why::ActorAway { .. }
        )
    });
    match of_holder.or(why.first()) {
        Some(Why::HolderReleased { because, .. }) => format!("holder-released: {because}"),
        Some(why) => why.code().to_owned(),
        None => "unknown".to_owned(),
    }
}

fn failure(run: &Run, state: &RunState) -> Option<String> {
    if let RunState::NeedsOperator { step, reason } = state {
        return Some(format!("{step}: {reason}"));
    }
    if let Some(reason) = &run.abandoned {
        return Some(reason.clone());
    }
    if let Some(reason) = &run.aborting {
        // What failed first; what was given up because of it comes after.
        let first =
            run.journal.iter().find_map(|entry| note(entry).map(|text| format!("{}: {text}", entry.step)));
        return Some(if reason.starts_with("aborted by") {
            reason.clone()
        } else {
            first.unwrap_or_else(|| reason.clone())
        });
    }
    if *state != RunState::Degraded {
        return None;
    }
    run.journal.iter().rev().find_map(|entry| note(entry).map(|text| format!("{}: {text}", entry.step)))
}

fn note(entry: &Entry) -> Option<&str> {
    match &entry.event {
        Event::Failed { error } | Event::UndoFailed { error } => Some(error),
        Event::Skipped { reason } => Some(reason),
        Event::Started | Event::Succeeded { .. } | Event::UndoStarted | Event::UndoFinished => None,
    }
}

/// Milliseconds from the run's start to the success of `step`.
fn succeeded_ms(run: &Run, step: Step) -> Option<u64> {
    run.journal
        .iter()
        .find(|entry| entry.step == step && matches!(entry.event, Event::Succeeded { .. }))
        .map(|entry| since(run, entry.at))
}

/// Phases that were reached, from the wall clocks of the nodes that carried the steps out.
fn phases(run: &Run) -> BTreeMap<String, u64> {
    let mut phases: BTreeMap<String, u64> = BTreeMap::from([("decided".to_owned(), 0)]);
    for (name, step) in PHASES {
        phases.extend(succeeded_ms(run, step).map(|ms| (name.to_owned(), ms)));
    }
    let services: Vec<Option<u64>> = [Step::StartIndependent, Step::StartServices]
        .into_iter()
        .filter(|step| run.plan.step(*step).is_some())
        .map(|step| succeeded_ms(run, step))
        .collect();
    let healthy = services.iter().copied().collect::<Option<Vec<u64>>>().and_then(|ms| ms.into_iter().max());
    phases.extend(healthy.map(|ms| ("services_healthy".to_owned(), ms)));
    phases
}

fn step_record(run: &Run, planned: &PlannedStep, now: WallMs) -> StepRecord {
    let entries: Vec<&Entry> = run.journal.iter().filter(|entry| entry.step == planned.step).collect();
    let state = match run.status(planned.step) {
        StepStatus::Pending => StepState::Pending,
        StepStatus::Acting { .. } => StepState::Acting,
        StepStatus::Done => StepState::Done,
        StepStatus::Failed { .. } => StepState::Failed,
        StepStatus::Skipped => StepState::Skipped,
        StepStatus::Undoing => StepState::Undoing,
        StepStatus::Undone => StepState::Undone,
        StepStatus::Stuck { .. } => StepState::Stuck,
    };
    let started = entries.first().map(|entry| entry.at);
    let until = match state {
        StepState::Acting | StepState::Undoing if run.abandoned.is_none() => Some(now),
        StepState::Pending
        | StepState::Acting
        | StepState::Undoing
        | StepState::Done
        | StepState::Failed
        | StepState::Skipped
        | StepState::Undone
        | StepState::Stuck => entries.last().map(|entry| entry.at),
    };
    let facts = entries.iter().rev().find_map(|entry| match &entry.event {
        Event::Succeeded { facts } => Some(facts.iter().cloned().collect()),
        Event::Started
        | Event::Failed { .. }
        | Event::Skipped { .. }
        | Event::UndoStarted
        | Event::UndoFinished
        | Event::UndoFailed { .. } => None,
    });
    StepRecord {
        step: planned.step.as_str().to_owned(),
        actor: planned.actor.clone(),
        state,
        attempts: entries.iter().map(|entry| entry.attempt).max().unwrap_or(0),
        started_ms: started.map(|at| since(run, at)),
        took_ms: started.zip(until).map(|(from, to)| to.0.saturating_sub(from.0)),
        limit_ms: planned.limit_ms,
        facts: facts.unwrap_or_default(),
        note: entries.iter().rev().find_map(|entry| note(entry)).map(str::to_owned),
    }
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
        action.push_str(&format!("; give the lease back ({})", why.code()));
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
    let conclusion = sentence(&status);
    status.ok = conclusion.is_ok();
    status.sentence = match conclusion {
        Ok(text) | Err(text) => text,
    };
    status
}

/// Differences between the nodes' agents that an operator should mend.
#[must_use]
pub fn row_alarms(rows: &[NodeRow], own_version: &str) -> Vec<Alarm> {
    let heard = || rows.iter().filter(|row| !row.silent && row.heard_ms_ago.is_some());
    let configs = heard().filter(|row| !row.config_matches).map(|row| Alarm {
        code: "config-differs".to_owned(),
        text: format!(
            "the configuration of {} has other values than this node's; install the same file on all",
            row.name
        ),
    });
    let versions =
        heard().filter(|row| !row.version.is_empty() && row.version != own_version).map(|row| Alarm {
            code: "version-differs".to_owned(),
            text: format!(
                "{} runs version {}, this node {own_version}; finish the upgrade",
                row.name, row.version
            ),
        });
    configs.chain(versions).collect()
}

/// The closing sentence: `Ok` if a takeover would work now and nothing is to be mended, otherwise what would not work,
/// why, and what to do.
///
/// # Errors
/// The sentence that says what is wrong.
pub fn sentence(status: &Status) -> Result<String, String> {
    if let Some(outranked) = status.alarms.iter().find(|alarm| alarm.code == "outranked") {
        return Err(format!("NOT OK: {}.", outranked.text));
    }
    if let Some(pause) = &status.paused {
        return Err(paused::sentence(pause, status));
    }
    if status.leader.is_none() {
        return Err(no_leader(status));
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
    troubles.extend(witness.filter(|row| row.silent).map(|row| {
        format!(
            "the witness {} is {}: if {holder} were lost now, no majority would be left and nobody could take over. \
             Bring it back.",
            row.name,
            silence(row)
        )
    }));
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
        return None;
    }
    let why = if row.obstacles.is_empty() { row.state.clone() } else { row.obstacles.join(", ") };
    Some(format!(
        "NOT OK: {} holds the baton and does not serve: {why}. See `baton explain` on {}.",
        row.name, row.name
    ))
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
