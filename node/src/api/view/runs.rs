//! From a run's plan and journal to its record: result, phases, steps.

use std::collections::BTreeMap;

use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{NodeId, WallMs};
use baton_runbooks::plan::{PlannedStep, Step};
use baton_runbooks::run::{Entry, Event, Run, RunState, StepStatus};
use baton_runbooks::why::Why;

use super::super::types::{RunRecord, RunResult, StepRecord, StepState};
use super::timestamp;

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
        holder_heard_ms_before: run.plan.holder_heard_ms.clone(),
        actors: actors(run),
        loss_accepted: loss_accepted(&run.plan.why),
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
        Some(why) => why.own_code().to_owned(),
        None => "unknown".to_owned(),
    }
}

/// Only who acts writes that a step was started; the leader's entries are of what it leaves out.
fn actors(run: &Run) -> Vec<NodeId> {
    let mut actors: Vec<NodeId> = Vec::new();
    for entry in run.journal.iter().filter(|entry| entry.event == Event::Started) {
        if !actors.contains(&entry.by) {
            actors.push(entry.by.clone());
        }
    }
    actors
}

fn loss_accepted(why: &[Why]) -> Option<String> {
    why.iter()
        .find_map(|why| if let Why::LossAccepted { loss, .. } = why { Some(loss.clone()) } else { None })
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
