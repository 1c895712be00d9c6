//! G2, the exception: what an operator accepts is lost by the one takeover that the word was given for, and no more than was
//! accepted. A word appears only by an operator's command, carries one takeover, and is spent with it, whatever comes of it.

use baton_runbooks::ledger::{Command, Complete, Ledger};
use baton_runbooks::model::{NodeId, RunId};

/// Its name.
pub const NAME: &str = "accepted_loss";

/// Added to what was accepted, in milliseconds: canaries and reports are looked at in turns, on clocks with rates of their own.
const SLACK_MS: u64 = 250;

/// What operators have accepted.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// For whom it stands, and how much.
    standing: Option<(NodeId, Option<u64>)>,
    /// The takeover that uses it.
    used: Option<(RunId, Option<u64>)>,
    /// Number of takeovers that went past their pivot by an operator's word.
    pub(crate) carried: u64,
}

impl Words {
    /// An entry was committed.
    pub fn committed(
        &mut self,
        command: &Command,
        accepted: bool,
        before: &Ledger,
        after: &Ledger,
    ) -> Result<(), String> {
        match command {
            Command::AcceptLoss { node, loss, .. } if accepted => {
                self.standing = Some((node.clone(), loss.at_most_ms));
            }
            Command::StartRun { plan, .. } if accepted && before.runs != after.runs => {
                self.used = None;
                if before.in_sync.get(&plan.to).is_some_and(Complete::is_accepted) {
                    let word = self.standing.take_if(|(node, _)| *node == plan.to);
                    let Some((_, at_most_ms)) = word else {
                        return Err(format!("run {} uses a word that was used before", after.runs));
                    };
                    self.used = Some((after.runs, at_most_ms));
                }
            }
            Command::StartRun { .. }
            | Command::AcceptLoss { .. }
            | Command::Bootstrap { .. }
            | Command::Journal { .. }
            | Command::AbandonRun { .. }
            | Command::AbortRun { .. }
            | Command::AcknowledgeRun { .. }
            | Command::WithdrawLoss { .. }
            | Command::SyncOut { .. }
            | Command::SyncIn { .. }
            | Command::Release { .. }
            | Command::Drill { .. }
            | Command::Pause { .. }
            | Command::ClaimPause { .. }
            | Command::Resume { .. }
            | Command::EndPause { .. }
            | Command::ExpirePause { .. } => {}
        }
        Ok(())
    }

    /// The cluster was forced, and `word` is the survivor that takes over with what it has.
    pub fn forced(&mut self, word: Option<NodeId>) {
        self.standing = word.map(|node| (node, None));
        self.used = None;
    }

    /// The takeover that passes its pivot with this entry, and the loss that was accepted for it.
    pub fn carried(&mut self, before: &Ledger, after: &Ledger) -> Option<(NodeId, Option<u64>)> {
        let (id, at_most_ms) = self.used?;
        let was = before.run.as_ref().filter(|run| run.id == id)?.is_past_pivot();
        let now = after.newest_run().map(|(run, _)| run)?;
        if was || now.id != id || !now.is_past_pivot() {
            return None;
        }
        self.used = None;
        self.carried += 1;
        Some((now.plan.to.clone(), at_most_ms))
    }
}

/// A takeover by an operator's word loses the acknowledged writes of `span_ms`.
pub fn carried(span_ms: u64, at_most_ms: Option<u64>) -> Result<(), String> {
    match at_most_ms {
        Some(bound) if span_ms > bound + bound / 20 + SLACK_MS => {
            Err(format!("the writes of {span_ms} ms are lost; those of {bound} ms were accepted"))
        }
        Some(_) | None => Ok(()),
    }
}
