//! An operator accepts what the node that takes over may lack, or takes that back.

use baton_runbooks::decide::loss::{Accept, Acceptance};
use baton_runbooks::ledger::Command;
use baton_runbooks::model::{NodeId, SyncGeneration};
use tokio::sync::{mpsc, oneshot};

use super::{Look, propose, refused};
use crate::agent::{Context, clock};
use crate::api::server::CommandError;
use crate::api::types::TakeoverAnswer;

/// Looks, and notes the acceptance that the operator saw if nothing stands in its way now. The leader does the rest.
pub(super) async fn accept(
    context: &Context,
    looks: &mpsc::Sender<Look>,
    wanted: Accept,
    acceptance: Option<Acceptance>,
) -> Result<TakeoverAnswer, CommandError> {
    let (reply, answer) = oneshot::channel();
    looks.send(Look::Loss { wanted, reply }).await.map_err(|_| CommandError::NoQuorum)?;
    let preflight = answer.await.map_err(|_| CommandError::NoQuorum)?;
    let Some(acceptance) = acceptance else { return Ok(TakeoverAnswer { preflight, run: None }) };
    let Some(present) = preflight.acceptance.clone() else { return Err(refused(&preflight.checks)) };
    // Who accepts is what the agent knows, not what came back; all else must be what the operator saw.
    if (Acceptance { loss: present.loss.clone(), ..acceptance }) != present {
        return Err(CommandError::Refused { reason: "something has changed since you looked".to_owned() });
    }
    let Acceptance { epoch, generation, node, instance, loss } = present;
    let command = Command::AcceptLoss { epoch, generation, node, instance, loss, at: clock::wall() };
    let next = context.consensus.committed().borrow().ledger.runs.next();
    propose(context, command).await?;
    Ok(TakeoverAnswer { preflight, run: Some(next) })
}

/// Takes it back.
pub(super) async fn withdraw(
    context: &Context,
    generation: SyncGeneration,
    node: NodeId,
    by: String,
) -> Result<(), CommandError> {
    let epoch = context.consensus.committed().borrow().ledger.epoch;
    let command = Command::WithdrawLoss { epoch, generation, node, by, at: clock::wall() };
    propose(context, command).await.map(drop)
}
