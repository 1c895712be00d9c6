//! What operators ask for: looked at by the core, proposed to the ledger, answered with what became of it.

mod force;
mod loss;
mod pause;
pub(super) mod rejoin;

use std::sync::Arc;
use std::time::Duration;

use baton_consensus::{Applied, ProposeError};
use baton_runbooks::decide::force::{ForcePreflight, ForceWanted};
use baton_runbooks::decide::loss::{Accept, LossPreflight};
use baton_runbooks::decide::pause::{PausePreflight, PauseWanted};
use baton_runbooks::decide::switchover::{Check, Preflight, Wanted};
use baton_runbooks::ledger::{Command, DrillId, Response};
use baton_runbooks::model::RunId;
use baton_runbooks::plan::Plan;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Context, clock, drill, resync};
use crate::api::server::{COMMANDS_MAX, CommandError, Operator};
use crate::api::types::SwitchoverAnswer;

/// A proposal takes milliseconds; this bounds the operator's wait.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(5);
/// Questions that may wait for the core.
const LOOKS_MAX: usize = 4;

/// A question that only the owner of the core can answer.
#[derive(Debug)]
pub(super) enum Look {
    /// Can the baton be passed?
    Switchover { wanted: Wanted, reply: oneshot::Sender<Preflight> },
    /// Can this node go on alone?
    Force { wanted: ForceWanted, reply: oneshot::Sender<ForcePreflight> },
    /// Can the cluster be paused?
    Pause { wanted: PauseWanted, reply: oneshot::Sender<PausePreflight> },
    /// What would a takeover lose?
    Loss { wanted: Accept, reply: oneshot::Sender<LossPreflight> },
}

/// Carries out operators' commands; what the core has to look at comes out of the receiver.
pub(super) fn serve(context: &Context, mut commands: mpsc::Receiver<Operator>) -> mpsc::Receiver<Look> {
    let context = context.clone();
    let (looks, look) = mpsc::channel(LOOKS_MAX);
    let places = Arc::new(Semaphore::new(COMMANDS_MAX));
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            match command {
                Operator::AcknowledgeRun { run, by, expected_epoch, reply } => {
                    let epoch = context.consensus.committed().borrow().ledger.epoch;
                    let outcome = if epoch == expected_epoch {
                        propose(&context, Command::AcknowledgeRun { run, by, at: clock::wall() }).await
                    } else {
                        Err(CommandError::Refused {
                            reason: format!("the epoch is {epoch}, not {expected_epoch}"),
                        })
                    };
                    let _ = reply.send(outcome.map(drop));
                }
                Operator::AbortRun { run, by, reply } => {
                    let command = Command::AbortRun { run, by, at: clock::wall() };
                    let _ = reply.send(propose(&context, command).await.map(drop));
                }
                Operator::Resync { request, reply } => {
                    // Other nodes are asked, which takes seconds; nobody else is to wait for that.
                    let context = context.clone();
                    tokio::spawn(async move {
                        let _ = reply.send(resync::ask(&context, request).await);
                    });
                }
                Operator::Drill { request, reply } => {
                    let context = context.clone();
                    tokio::spawn(async move {
                        let _ = reply.send(drill::ask(&context, request).await);
                    });
                }
                Operator::Switchover { wanted, plan, drill: number, reply } => {
                    // For a drill other nodes are asked, and nobody else is to wait for that, unless somebody asks for
                    // more of them at once than people do.
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
                    let (context, looks) = (context.clone(), looks.clone());
                    tokio::spawn(async move {
                        let answer = switchover(&context, &looks, wanted, plan, number, &reply).await;
                        let _ = reply.send(answer);
                        drop(place);
                    });
                }
                Operator::AcceptLoss { wanted, acceptance, reply } => {
                    let _ = reply.send(loss::accept(&context, &looks, wanted, acceptance).await);
                }
                Operator::Pause { wanted, epoch, reply } => {
                    let _ = reply.send(pause::begin(&context, &looks, wanted, epoch).await);
                }
                Operator::Resume { pause, by, reply } => {
                    let _ = reply.send(pause::resume(&context, pause, by).await);
                }
                Operator::Force { wanted, generation, reply } => {
                    let _ = reply.send(force::go_on_alone(&context, &looks, wanted, generation).await);
                }
                Operator::Rejoin { request, reply } => {
                    let context = context.clone();
                    tokio::spawn(async move {
                        let _ = reply.send(rejoin::ask(&context, request).await);
                    });
                }
                Operator::WithdrawLoss { generation, node, by, reply } => {
                    let _ = reply.send(loss::withdraw(&context, generation, node, by).await);
                }
            }
        }
    });
    look
}

/// Looks, and proposes the plan that the operator saw if nothing stands in its way now, and he still waits: `asker` is where
/// the answer goes. `number`: the drill that wants it.
async fn switchover(
    context: &Context,
    looks: &mpsc::Sender<Look>,
    wanted: Wanted,
    plan: Option<Box<Plan>>,
    number: Option<DrillId>,
    asker: &oneshot::Sender<Result<SwitchoverAnswer, CommandError>>,
) -> Result<SwitchoverAnswer, CommandError> {
    // Before the look, which is to be fresh when the plan is proposed.
    if let (Some(number), Some(plan)) = (number, &plan) {
        drill::may_pass(context, number, &wanted.by, &plan.to).await?;
    }
    let (reply, answer) = oneshot::channel();
    let gone = |_| CommandError::NoQuorum;
    looks.send(Look::Switchover { wanted, reply }).await.map_err(|_| CommandError::NoQuorum)?;
    let preflight = answer.await.map_err(gone)?;
    let Some(plan) = plan else { return Ok(SwitchoverAnswer { preflight, run: None }) };
    let Some(present) = &preflight.plan else { return Err(refused(&preflight.checks)) };
    if present.basis != plan.basis || present.steps != plan.steps || present.to != plan.to {
        return Err(CommandError::Refused {
            reason: "something has changed since the plan was made".to_owned(),
        });
    }
    // Who asked is what the agent knows, not what the plan says that came back.
    let plan = Box::new(Plan { asked_by: present.asked_by.clone(), ..*plan });
    let command = Command::StartRun { plan: plan.clone(), at: clock::wall() };
    if asker.is_closed() {
        return Err(CommandError::TimedOut);
    }
    let applied = propose(context, command).await?;
    let run = started(context, &plan, applied.index).await?;
    Ok(SwitchoverAnswer { preflight, run: Some(run) })
}

/// What stands in the way.
fn refused(checks: &[Check]) -> CommandError {
    let failed = checks.iter().filter(|check| !check.ok);
    let failed: Vec<String> = failed.map(|check| format!("{}: {}", check.code, check.evidence)).collect();
    CommandError::Refused { reason: failed.join("; ") }
}

/// The number that the ledger gave to the run of `plan`.
async fn started(context: &Context, plan: &Plan, index: u64) -> Result<RunId, CommandError> {
    let mut committed = context.consensus.committed();
    let applied =
        tokio::time::timeout(PROPOSE_DEADLINE, committed.wait_for(|state| state.index >= index)).await;
    let applied = applied.map_err(|_| CommandError::TimedOut)?.map_err(|_| CommandError::NoQuorum)?;
    let ledger = &applied.ledger;
    let mut runs = ledger.run.iter().chain(ledger.history.iter().rev().map(|ended| &*ended.run));
    runs.find(|run| *run.plan == *plan).map(|run| run.id).ok_or(CommandError::TimedOut)
}

pub(super) async fn propose(context: &Context, command: Command) -> Result<Applied, CommandError> {
    match context.consensus.propose(command, PROPOSE_DEADLINE).await {
        Ok(applied) => match &applied.response {
            Response::Accepted => Ok(applied),
            Response::Rejected { rejection } => Err(CommandError::Refused { reason: rejection.to_string() }),
        },
        Err(ProposeError::Unknown) => Err(CommandError::TimedOut),
        Err(
            ProposeError::LeaderOnly { .. }
            | ProposeError::NotLeader { .. }
            | ProposeError::NoLeader
            | ProposeError::NoPart { .. }
            | ProposeError::Shutdown,
        ) => Err(CommandError::NoQuorum),
    }
}
