//! G7 **A stale actor is harmless.** What carries an old epoch is refused by the ledger, and no door is open under an epoch
//! whose successor has begun.

use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::{Command, Ledger};
use baton_runbooks::model::Epoch;

use crate::sim::node::Node;

/// Its name.
pub const NAME: &str = "stale_actor";

/// The ledger accepted a command that speaks under another epoch than its own.
pub fn committed(command: &Command, accepted: bool, before: &Ledger) -> Result<(), String> {
    let Some(epoch) = speaks_under(command).filter(|_| accepted) else { return Ok(()) };
    // The steps of a switchover speak of the epoch that begins with its pivot.
    let of_run = before.run.as_ref().filter(|_| is_of_run(command)).map(|run| run.plan.epoch);
    let current = of_run.unwrap_or(before.epoch);
    if epoch == current {
        return Ok(());
    }
    Err(format!("accepted in epoch {current}: {command}, made in epoch {epoch}"))
}

fn speaks_under(command: &Command) -> Option<Epoch> {
    match command {
        Command::StartRun { plan, .. } => Some(plan.basis.epoch),
        Command::Journal { epoch, .. }
        | Command::AbandonRun { epoch, .. }
        | Command::AcceptLoss { epoch, .. }
        | Command::WithdrawLoss { epoch, .. }
        | Command::SyncOut { epoch, .. }
        | Command::SyncIn { epoch, .. }
        | Command::Pause { epoch, .. }
        | Command::Release { epoch, .. } => Some(*epoch),
        Command::Bootstrap { .. }
        | Command::AbortRun { .. }
        | Command::AcknowledgeRun { .. }
        | Command::Drill { .. }
        | Command::ClaimPause { .. }
        | Command::Resume { .. }
        | Command::EndPause { .. }
        | Command::ExpirePause { .. } => None,
    }
}

const fn is_of_run(command: &Command) -> bool {
    match command {
        Command::Journal { .. } | Command::AbandonRun { .. } => true,
        Command::Bootstrap { .. }
        | Command::StartRun { .. }
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
    }
}

/// A door is open under an epoch that is over. The VIP of who passes the baton still answers, with resets, until the new
/// holder may take it; also when that never does.
#[inline]
pub fn check(at: u64, node: &Node, newest: &Ledger) -> Result<(), String> {
    match node.holder.epoch() {
        Some(epoch) if epoch < newest.epoch => doors(at, node, epoch, newest),
        Some(_) | None => Ok(()),
    }
}

fn doors(at: u64, node: &Node, epoch: Epoch, newest: &Ledger) -> Result<(), String> {
    let passes = || {
        newest.newest_run().is_some_and(|(run, _)| {
            let plan = &run.plan;
            plan.epoch == newest.epoch && plan.from.as_ref() == Some(&node.name) && run.is_passing()
        })
    };
    let mut open = [Door::Vip, Door::Ports].into_iter().filter(|door| node.gate.is_open(*door, at));
    let door = open.find(|door| *door == Door::Ports || !passes());
    match door {
        None => Ok(()),
        Some(door) => Err(format!(
            "{} is open for {door:?} in epoch {epoch}; epoch {} has begun",
            node.name, newest.epoch
        )),
    }
}
