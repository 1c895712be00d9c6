//! Epochs fence: epoch, in-sync generation and number of runs never fall; an epoch rises by one, only by a takeover's start or
//! the pivot of a switchover, and the holder changes only with it or by becoming nobody.

use baton_runbooks::ledger::{Command, Ledger};
use baton_runbooks::model::NodeId;
use baton_runbooks::plan::Runbook;
use baton_runbooks::run::Run;

/// Its name.
pub const NAME: &str = "epoch_monotonic";

/// The cluster was forced: the survivor keeps the epoch, and the baton if it has it, unless it is a replica whose pivot was not
/// begun; nobody is called complete.
pub fn forced(before: &Ledger, after: &Ledger, survivor: &NodeId) -> Result<(), String> {
    let kept = (after.epoch, after.runs) == (before.epoch, before.runs);
    let run = before.run.as_ref().filter(|run| run.plan.to == *survivor);
    let opens = run.is_none_or(|run| run.is_past_pivot() || run.plan.basis.target_instance.is_none());
    let holder = before.holder.as_ref().filter(|holder| *holder == survivor && opens);
    let complete = after.in_sync.values().any(|known| !known.is_accepted());
    if kept && after.holder.as_ref() == holder && after.sync_generation > before.sync_generation && !complete
    {
        return Ok(());
    }
    Err(format!(
        "force made epoch {} of epoch {}, with another holder, or with complete nodes",
        after.epoch, before.epoch
    ))
}

/// An entry was committed.
pub fn committed(command: &Command, before: &Ledger, after: &Ledger) -> Result<(), String> {
    if after.epoch < before.epoch
        || after.sync_generation < before.sync_generation
        || after.runs < before.runs
    {
        return Err(format!("{command} turned the ledger back"));
    }
    let starts = match command {
        Command::StartRun { plan, .. } => plan.runbook == Runbook::Takeover,
        Command::Journal { .. } => before.run.as_ref().is_some_and(Run::is_before_passing),
        Command::Bootstrap { .. }
        | Command::AbandonRun { .. }
        | Command::AbortRun { .. }
        | Command::AcknowledgeRun { .. }
        | Command::AcceptLoss { .. }
        | Command::WithdrawLoss { .. }
        | Command::SyncOut { .. }
        | Command::SyncIn { .. }
        | Command::Release { .. }
        | Command::Drill { .. }
        | Command::Pause { .. }
        | Command::ClaimPause { .. }
        | Command::Resume { .. }
        | Command::EndPause { .. }
        | Command::ExpirePause { .. } => false,
    };
    if after.epoch != before.epoch && (!starts || after.epoch != before.epoch.next()) {
        return Err(format!("{command} made epoch {} of epoch {}", after.epoch, before.epoch));
    }
    let passed = after.holder != before.holder && after.holder.is_some();
    if passed && after.epoch == before.epoch {
        return Err(format!("{command} passed the baton within epoch {}", after.epoch));
    }
    if after.in_sync != before.in_sync && after.sync_generation == before.sync_generation && after.epoch.0 > 0
    {
        return Err(format!("{command} changed the in-sync set within generation {}", after.sync_generation));
    }
    Ok(())
}
