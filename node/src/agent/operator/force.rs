//! An operator lets this node go on alone.
//!
//! That is carried out by consensus when it starts the next time, so this agent ends: its supervisor starts it again. Its doors are
//! closed by the clean stop.

use std::time::Duration;

use baton_consensus::force::{self, Boottime, Order};
use baton_runbooks::decide::force::ForceWanted;
use baton_runbooks::model::Generation;
use nix::sys::signal::{Signal, raise};
use tokio::sync::{mpsc, oneshot};

use super::{Look, refused};
use crate::agent::Context;
use crate::api::force::ForceAnswer;
use crate::api::server::CommandError;

/// Until the answer has left.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Looks, and orders if nothing stands in the way of the generation that the operator saw.
pub(super) async fn go_on_alone(
    context: &Context,
    looks: &mpsc::Sender<Look>,
    wanted: ForceWanted,
    generation: Option<Generation>,
) -> Result<ForceAnswer, CommandError> {
    let (reply, answer) = oneshot::channel();
    looks.send(Look::Force { wanted, reply }).await.map_err(|_| CommandError::NoQuorum)?;
    let preflight = answer.await.map_err(|_| CommandError::NoQuorum)?;
    let Some(generation) = generation else { return Ok(ForceAnswer { preflight, ordered: false }) };
    let Some(forced) = preflight.forced.clone() else { return Err(refused(&preflight.checks)) };
    if forced.generation != generation {
        return Err(CommandError::Refused { reason: "something has changed since you looked".to_owned() });
    }
    // A log that must not vote must not found anything either, unless another survivor was forced to the same generation.
    let standing = context.consensus.standing().borrow().clone();
    if let Some(reason) = standing.problem.filter(|_| standing.retired && !standing.forked) {
        return Err(CommandError::Refused { reason });
    }
    let Some(place) = context.consensus.place() else {
        return Err(CommandError::Refused { reason: "this node's log is damaged".to_owned() });
    };
    let given = Boottime::now().map_err(|error| unwritten(&error))?;
    let order = Order { forced, place, given };
    force::order(&context.config.state_dir, &order).map_err(|error| unwritten(&error))?;
    end_soon();
    Ok(ForceAnswer { preflight, ordered: true })
}

fn unwritten(error: &std::io::Error) -> CommandError {
    CommandError::Refused { reason: format!("the order cannot be written: {error}") }
}

/// As if the supervisor had asked for it.
pub(super) fn end_soon() {
    tokio::spawn(async {
        tokio::time::sleep(LAST_WORDS).await;
        if let Err(error) = raise(Signal::SIGTERM) {
            tracing::error!(%error, "cannot end; restart the agent");
        }
    });
}
