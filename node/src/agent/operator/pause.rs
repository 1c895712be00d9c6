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
    let pause = context.consensus.committed().borrow().ledger.pauses.next();
    propose(context, Command::Pause { epoch, order, at: clock::wall() }).await?;
    Ok(PauseAnswer { preflight, pause: Some(pause) })
}

/// Ends the pause that stands; its number.
pub(super) async fn resume(context: &Context, by: String) -> Result<PauseId, CommandError> {
    let pause = context.consensus.committed().borrow().ledger.pause.as_ref().map(|pause| pause.id);
    let Some(pause) = pause else {
        return Err(CommandError::Refused { reason: "no pause stands".to_owned() });
    };
    propose(context, Command::Resume { pause, by, at: clock::wall() }).await?;
    Ok(pause)
}
