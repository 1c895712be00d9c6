//! What the leader does about a run that is under way: nothing, as long as its actors are there.

use super::{Action, Decision, Facts, candidate};
use crate::model::NodeId;
use crate::plan::{Kind, PlannedStep, Runbook};
use crate::run::{Run, RunState, StepStatus};
use crate::why::Why;

/// Added to a forward step's own limit before the leader goes on without it, in milliseconds: the actor's own time limit
/// must end first and be journalled.
const OVERDUE_SLACK_MS: u64 = 1_000;

pub(super) fn supervise(facts: &Facts<'_>, run: &Run) -> Decision {
    match run.state() {
        RunState::NeedsOperator { step, reason } => {
            Decision::hold([Why::RunNeedsOperator { run: run.id, step: step.as_str().to_owned(), reason }])
        }
        RunState::Running | RunState::Undoing => {
            if run.is_past_pivot() {
                go_forward(facts, run)
            } else {
                match run.plan.runbook {
                    Runbook::Takeover => watch_target(facts, run),
                    Runbook::Switchover => watch_both(facts, run),
                }
            }
        }
        RunState::Completed | RunState::Degraded | RunState::RolledBack | RunState::Abandoned => {
            Decision::hold([in_progress(run)])
        }
    }
}

fn in_progress(run: &Run) -> Why {
    let acting = |planned: &&PlannedStep| match run.status(planned.step) {
        StepStatus::Acting { .. } | StepStatus::Undoing => true,
        StepStatus::Pending
        | StepStatus::Done
        | StepStatus::Failed { .. }
        | StepStatus::Skipped
        | StepStatus::Undone
        | StepStatus::Stuck { .. } => false,
    };
    let steps = run.plan.steps.iter().filter(acting).map(|s| s.step.as_str().to_owned()).collect();
    Why::RunInProgress { run: run.id, steps }
}

/// Before the pivot: a target that is away, and whose lease has ended, loses the baton if somebody else can have it.
fn watch_target(facts: &Facts<'_>, run: &Run) -> Decision {
    let target = &run.plan.to;
    if !facts.is_silent(target) {
        return Decision::hold([in_progress(run)]);
    }
    let away = Why::ActorAway { node: target.clone(), silent_ms: facts.silent_ms(target) };
    if let Some((gap_ms, left_ms)) = facts.settling {
        return Decision::hold([Why::OwnGap { gap_ms, left_ms }, away]);
    }
    let left_ms = facts.takeover_at.map_or(u64::MAX, |at| at.since_ms(facts.now));
    if left_ms > 0 {
        return Decision::hold([away, Why::LeaseNotEnded { epoch: run.plan.epoch, left_ms }]);
    }
    let others: Vec<&NodeId> = facts.ledger.other_data_nodes(target).collect();
    let obstacles: Vec<Why> = others.iter().filter_map(|node| candidate::obstacle(facts, node)).collect();
    if obstacles.len() == others.len() {
        return Decision::hold([away].into_iter().chain(obstacles));
    }
    let reason = away.to_string();
    Decision { action: Action::AbandonRun { reason }, why: vec![away] }
}

/// A switchover before its pivot. A holder that is lost is taken over from, with whatever the target has by then; a target
/// that is away ends the run, and the holder, whose lease goes on, opens again by itself.
fn watch_both(facts: &Facts<'_>, run: &Run) -> Decision {
    if let Ok(cause) = super::may_take_over(facts) {
        return super::take_over(facts, cause, None);
    }
    let target = &run.plan.to;
    if !facts.is_silent(target) {
        return Decision::hold([in_progress(run)]);
    }
    let away = Why::ActorAway { node: target.clone(), silent_ms: facts.silent_ms(target) };
    if let Some((gap_ms, left_ms)) = facts.settling {
        return Decision::hold([Why::OwnGap { gap_ms, left_ms }, away]);
    }
    Decision { action: Action::AbandonRun { reason: away.to_string() }, why: vec![away] }
}

/// After the pivot: only forward. A forward step that is overdue is skipped, so that a dead witness ends no run late;
/// and so are all that remain when the new holder is lost itself, so that the run does not stand in the way of the next.
fn go_forward(facts: &Facts<'_>, run: &Run) -> Decision {
    let target = &run.plan.to;
    let is_away = facts.is_silent(target) && facts.is_lease_over();
    let away = || Why::ActorAway { node: target.clone(), silent_ms: facts.silent_ms(target) };
    if !run.is_open() {
        let away = is_away.then(away);
        return Decision::hold([in_progress(run)].into_iter().chain(away));
    }
    if let Some(why) = lost(facts, is_away.then(away)) {
        let remains = run.plan.steps.iter().find(|s| s.kind == Kind::Forward && is_open(run, s));
        if let Some(planned) = remains {
            let action = Action::Skip { step: planned.step, reason: why.to_string() };
            return Decision { action, why: vec![why] };
        }
    }
    for planned in run.plan.steps.iter().filter(|s| s.kind == Kind::Forward) {
        let Some(since) = facts.ready_since.get(&planned.step) else { continue };
        let waited_ms = facts.now.since_ms(*since);
        let limit_ms = planned.limit_ms * u64::from(planned.attempts) + OVERDUE_SLACK_MS;
        if is_open(run, planned) && waited_ms > limit_ms {
            let step = planned.step.as_str().to_owned();
            let why = Why::StepOverdue { step, node: planned.actor.clone(), waited_ms };
            return Decision {
                action: Action::Skip { step: planned.step, reason: why.to_string() },
                why: vec![why],
            };
        }
    }
    Decision::hold([in_progress(run)])
}

/// Why the new holder is lost: it gave its lease back, or it is away and its lease has ended.
fn lost(facts: &Facts<'_>, away: Option<Why>) -> Option<Why> {
    let released = facts.ledger.released.as_ref().filter(|_| facts.ledger.has_released());
    let released = released.map(|r| Why::HolderReleased { epoch: r.epoch, because: r.why.to_string() });
    released.or_else(|| away.filter(|_| facts.settling.is_none()))
}

fn is_open(run: &Run, planned: &PlannedStep) -> bool {
    match run.status(planned.step) {
        StepStatus::Pending | StepStatus::Acting { .. } => true,
        StepStatus::Failed { attempt } => attempt < planned.attempts,
        StepStatus::Done
        | StepStatus::Skipped
        | StepStatus::Undoing
        | StepStatus::Undone
        | StepStatus::Stuck { .. } => false,
    }
}
