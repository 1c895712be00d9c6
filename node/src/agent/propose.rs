//! Proposals: what has to be so before the ledger is asked, and what follows from its answer.
//!
//! | command | before | after |
//! |---|---|---|
//! | release | both doors closed and read back | – |
//! | ends an epoch | no lease of it is left, and none is granted any more | grants go on only when it surely is not ended |
//! | in sync | semi-sync is proved once more, under the lock against switching it | the lock is let go |
//! | end of a pause that was waited out | the granter has waited for all of it | – |
//! | out of sync | – | settles older in-sync proposals |

use std::time::Duration;

use baton_consensus::{Applied, ProposeError};
use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::Command;
use baton_runbooks::model::{Epoch, Term};

use super::Context;

/// A proposal takes milliseconds. After this its fate is unknown to the core, which asks again.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Proposes and says what became of it; `None`: nobody knows. `wish` is the number of the wish that it belongs to.
pub(super) async fn propose(
    context: &Context,
    command: Command,
    term: Option<Term>,
    ends: Option<Epoch>,
    wish: u64,
) -> Option<bool> {
    // A holder that gives its lease back is closed, and has read that back, before anybody is told (design, 4.6).
    if let Command::Release { .. } = command
        && let Err(error) = context.lease.close(&[Door::Vip, Door::Ports], wish).await
    {
        tracing::error!(%error, "not released: could not close");
        return Some(false);
    }
    // What was decided from a copy is looked at once more where grants are given.
    if let Command::ExpirePause { pause, .. } = &command
        && !context.lease.is_pause_over(*pause).await.unwrap_or(false)
    {
        return Some(false);
    }
    if let Some(epoch) = ends {
        return propose_end(context, &command, term, epoch).await;
    }
    let settling = match context.sync.before(context, &command).await {
        Ok(settling) => settling,
        Err(why) => {
            tracing::info!(why, "not proposed: in sync is not proved");
            return Some(false);
        }
    };
    let generation = match &command {
        Command::SyncOut { generation, .. } => Some(*generation),
        Command::Bootstrap { .. }
        | Command::StartRun { .. }
        | Command::Journal { .. }
        | Command::AbandonRun { .. }
        | Command::AbortRun { .. }
        | Command::AcknowledgeRun { .. }
        | Command::AcceptLoss { .. }
        | Command::WithdrawLoss { .. }
        | Command::SyncIn { .. }
        | Command::Release { .. }
        | Command::Drill { .. }
        | Command::Pause { .. }
        | Command::ClaimPause { .. }
        | Command::Resume { .. }
        | Command::EndPause { .. }
        | Command::ExpirePause { .. } => None,
    };
    let accepted = fate(&ask(context, &command, term).await);
    settling.settle(accepted);
    if let (Some(generation), Some(true)) = (generation, accepted) {
        context.sync.is_out(generation);
    }
    accepted
}

/// Proposes the end of `epoch`. Nothing more is granted for it from the moment before (design, 4.4), and grants go on only
/// when it is sure that no such proposal can still be applied: a grant given while one is in the log would live on
/// beside the next holder. So a fate that is unknown is found out by proposing the same again: what has been appended
/// in this term is applied before it, and the ledger starts a run once. That ends with the leadership, if not before.
async fn propose_end(context: &Context, command: &Command, term: Option<Term>, epoch: Epoch) -> Option<bool> {
    match context.lease.end(epoch).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::info!(%command, "not proposed: a lease was granted meanwhile");
            return Some(false);
        }
        Err(_) => return None,
    }
    let mut doubtful = false;
    loop {
        let outcome = ask(context, command, term).await;
        let accepted = fate(&outcome);
        let is_settled = match (&outcome, accepted) {
            (Ok(_), Some(false)) => true,
            (Err(_), Some(false)) => !doubtful,
            (_, Some(true) | None) => false,
        };
        if is_settled {
            context.lease.go_on(epoch).await;
        }
        let shut_down = matches!(outcome, Err(ProposeError::Shutdown));
        if accepted.is_some() || shut_down || !leads(context, term) {
            // Earlier attempts may still be applied, whatever became of the last one.
            return if doubtful && !is_settled && accepted == Some(false) { None } else { accepted };
        }
        doubtful = true;
    }
}

fn leads(context: &Context, term: Option<Term>) -> bool {
    let standing = context.consensus.standing();
    let standing = standing.borrow();
    standing.is_leader && Some(standing.term) == term
}

async fn ask(context: &Context, command: &Command, term: Option<Term>) -> Result<Applied, ProposeError> {
    let outcome = match term {
        Some(term) => context.consensus.propose_as_leader(command.clone(), term, PROPOSE_DEADLINE).await,
        None => context.consensus.propose(command.clone(), PROPOSE_DEADLINE).await,
    };
    match &outcome {
        Ok(applied) if applied.response.is_accepted() => {}
        Ok(applied) => tracing::info!(%command, response = ?applied.response, "the ledger refused"),
        Err(error) => tracing::info!(%command, error = crate::chain::chain(error), "not proposed"),
    }
    outcome
}

/// What became of the command: accepted, surely without effect, or nobody knows.
const fn fate(outcome: &Result<Applied, ProposeError>) -> Option<bool> {
    match outcome {
        Ok(applied) => Some(applied.response.is_accepted()),
        Err(
            ProposeError::LeaderOnly { .. }
            | ProposeError::NotLeader { .. }
            | ProposeError::NoLeader
            | ProposeError::NoPart { .. },
        ) => Some(false),
        Err(ProposeError::Unknown | ProposeError::Shutdown) => None,
    }
}

#[cfg(test)]
mod tests {
    use baton_runbooks::ledger::{Rejection, Response};

    use super::*;

    #[test]
    fn only_an_answer_or_a_proposal_that_never_left_has_a_known_fate() {
        let refused = Response::Rejected { rejection: Rejection::PastPivot };
        assert_eq!(fate(&Ok(Applied { index: 1, response: Response::Accepted })), Some(true));
        assert_eq!(fate(&Ok(Applied { index: 1, response: refused })), Some(false));
        assert_eq!(fate(&Err(ProposeError::NoLeader)), Some(false));
        assert_eq!(fate(&Err(ProposeError::NotLeader { term: 3 })), Some(false));
        assert_eq!(fate(&Err(ProposeError::Unknown)), None);
        assert_eq!(fate(&Err(ProposeError::Shutdown)), None);
    }
}
