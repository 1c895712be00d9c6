//! An operator pauses, or ends a pause.

use baton_runbooks::decide::pause::PauseWanted;
use baton_runbooks::ledger::Command;
use baton_runbooks::model::{Epoch, PauseId};
use tokio::sync::{mpsc, oneshot};

use super::{Look, propose, refused};
use crate::agent::{Context, clock};
use crate::api::pause::PauseAnswer;
use crate::api::server::CommandError;

/// Looks, and pauses if nothing stands in the way in the epoch that the operator saw.
pub(super) async fn begin(
    context: &Context,
    looks: &mpsc::Sender<Look>,
    wanted: PauseWanted,
    epoch: Option<Epoch>,
) -> Result<PauseAnswer, CommandError> {
    let (reply, answer) = oneshot::channel();
    let order = wanted.order.clone();
    looks.send(Look::Pause { wanted, reply }).await.map_err(|_| CommandError::NoQuorum)?;
    let preflight = answer.await.map_err(|_| CommandError::NoQuorum)?;
    let Some(epoch) = epoch else { return Ok(PauseAnswer { preflight, pause: None }) };
    if preflight.epoch.is_none() {
        return Err(refused(&preflight.checks));
    }
    propose(context, Command::Pause { epoch, order: order.clone(), at: clock::wall() }).await?;
    // Applied here: the ledger has given it a number. Somebody else's has another order.
    let ledger = context.consensus.committed().borrow().ledger.clone();
    let ended = ledger.pause_history.last().map(|ended| &ended.pause);
    let mine = ledger.pause.as_ref().into_iter().chain(ended).find(|pause| pause.order == order);
    Ok(PauseAnswer { preflight, pause: mine.map(|pause| pause.id) })
}

/// Ends the pause that stands, if it is the one that was meant; its number.
pub(super) async fn resume(
    context: &Context,
    meant: Option<PauseId>,
    by: String,
) -> Result<PauseId, CommandError> {
    let stands = context.consensus.committed().borrow().ledger.pause.as_ref().map(|pause| pause.id);
    // This node may not have heard of it yet: the ledger knows.
    let Some(pause) = meant.or(stands) else {
        return Err(CommandError::Refused { reason: "no pause stands".to_owned() });
    };
    propose(context, Command::Resume { pause, by, at: clock::wall() }).await?;
    Ok(pause)
}
