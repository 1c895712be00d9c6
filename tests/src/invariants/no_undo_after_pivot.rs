//! After the pivot's `Started` only forward: nothing of the run is taken back, neither in its journal nor in the world.

use baton_runbooks::ledger::Ledger;
use baton_runbooks::run::{Event, Run};

use super::Effect;

/// Its name.
pub const NAME: &str = "no_undo_after_pivot";

/// An entry was committed.
pub fn committed(after: &Ledger) -> Result<(), String> {
    let Some(run) = after.run.as_ref().or(after.history.last().map(|ended| &*ended.run)) else {
        return Ok(());
    };
    let undone = run.journal.iter().any(|entry| entry.event == Event::UndoStarted);
    if run.is_past_pivot() && undone {
        return Err(format!("run {} is past its pivot and was undone", run.id));
    }
    Ok(())
}

/// A hand touched the world.
pub fn effect(effect: &Effect, newest: &Ledger) -> Result<(), String> {
    let ended = newest.history.iter().map(|ended| &*ended.run);
    let run = ended.chain(&newest.run).find(|run| run.id == effect.run);
    if effect.undo && run.is_some_and(Run::is_past_pivot) {
        return Err(format!("{} of run {} was taken back after the pivot", effect.step, effect.run));
    }
    Ok(())
}
