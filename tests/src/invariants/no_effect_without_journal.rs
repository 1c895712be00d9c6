//! Steps are driven by the ledger: nothing happens for a step unless its actor's node has applied the entry that says so, the
//! run is the newest there, and the entry has no outcome yet.

use baton_runbooks::ledger::Ledger;
use baton_runbooks::run::StepStatus;

use super::Effect;
use crate::sim::node::NAMES;

/// Its name.
pub const NAME: &str = "no_effect_without_journal";

/// A hand touched the world; `applied` is the ledger of its node.
pub fn effect(effect: &Effect, applied: &Ledger) -> Result<(), String> {
    let Some(run) = applied.run.as_ref().filter(|run| run.id == effect.run) else {
        return Err(format!(
            "{} for run {}, which is not the newest at {}",
            effect.step, effect.run, NAMES[effect.node]
        ));
    };
    let Some(planned) = run.plan.step(effect.step) else {
        return Err(format!("{} is not in the plan of run {}", effect.step, effect.run));
    };
    if planned.actor.as_str() != NAMES[effect.node] {
        return Err(format!("{} is not the actor of {}", NAMES[effect.node], effect.step));
    }
    let status = run.status(effect.step);
    let expected = match &status {
        StepStatus::Acting { attempt } => !effect.undo && *attempt == effect.attempt,
        StepStatus::Undoing => effect.undo,
        StepStatus::Pending
        | StepStatus::Done
        | StepStatus::Failed { .. }
        | StepStatus::Skipped
        | StepStatus::Undone
        | StepStatus::Stuck { .. } => false,
    };
    if expected {
        return Ok(());
    }
    let what = if effect.undo { "undone" } else { "done" };
    Err(format!("{} is {what} at {}, where it is {status:?}", effect.step, NAMES[effect.node]))
}
