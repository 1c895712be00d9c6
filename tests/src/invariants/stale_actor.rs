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
    if epoch == before.epoch {
        return Ok(());
    }
    Err(format!("accepted in epoch {}: {command}, made in epoch {epoch}", before.epoch))
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
        | Command::ClaimPause { .. }
        | Command::Resume { .. }
        | Command::EndPause { .. }
        | Command::ExpirePause { .. } => None,
    }
}

/// A door is open under an epoch that is over.
pub fn check(at: u64, node: &Node, newest: &Ledger) -> Result<(), String> {
    let Some(epoch) = node.holder.epoch().filter(|epoch| *epoch < newest.epoch) else { return Ok(()) };
    let door = [Door::Vip, Door::Ports].into_iter().find(|door| node.gate.is_open(*door, at));
    match door {
        None => Ok(()),
        Some(door) => Err(format!(
            "{} is open for {door:?} in epoch {epoch}; epoch {} has begun",
            node.name, newest.epoch
        )),
    }
}
