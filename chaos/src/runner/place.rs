//! A drill's place in the ledger, and the draft of its record.
//!
//! ```text
//! draft: ASKED ─▶ order to begin ─▶ draft: RUNNER_DIED ─▶ whatever is broken
//! ```
//!
//! The first draft comes before the order: a runner that dies right after it would leave a drill in the ledger that has no
//! record. The price is a record, now and then, of a drill that was never begun; it says that nothing was broken.

use baton_node::api::client::ClientError;
use baton_node::api::drill::{DrillId, DrillOrder, DrillView};
use baton_node::api::types::ErrorCode;

use super::pulse::LEASE_MS;
use super::{Acted, Drill, Keeper, gate};
use crate::evidence::{Ending, Record};
use crate::verdict::judge;

/// What a draft says of a drill that has no place in the ledger yet, or does not know of it.
const ASKED: &str = "the runner died as it asked for its place in the ledger; nothing was broken";
/// What a draft says of how its drill ended, until that is known.
const RUNNER_DIED: &str = "the runner died";
/// What its record says then.
const HEALED: &str = "the runner died; the agents healed what it had broken";

/// A drill that is not to go on.
#[derive(Debug)]
pub(super) struct Unplaced {
    /// Why.
    pub why: String,
    /// Its number for the record; 0: the ledger has certainly no such drill.
    pub drill: u64,
}

impl Drill<'_> {
    /// Keeps a draft, takes the place in the ledger, and keeps a draft that says so. From then on something may be broken.
    ///
    /// # Errors
    /// No draft can be kept, or the place is not to be had.
    pub(super) async fn take_place(&mut self, number: DrillId, keeper: &impl Keeper) -> Result<(), Unplaced> {
        let unkept =
            |why: String, drill: u64| Unplaced { why: format!("the evidence cannot be kept: {why}"), drill };
        let known = self.record(Ending::Interrupted { why: ASKED.into() }, Acted::default()).await;
        let known = Record { drill: number.0, ..known };
        keeper.draft(&known).map_err(|why| unkept(why, 0))?;
        if let Err(error) = self.begin(number).await {
            let drill = if is_unclear(&error) { number.0 } else { 0 };
            return Err(Unplaced { why: error.to_string(), drill });
        }
        self.number = Some(number);
        self.screen.say(&format!("drill {number} has its place in the ledger"));
        keeper.draft(&interrupted(known, RUNNER_DIED)).map_err(|why| unkept(why, number.0))
    }

    /// An answer that was lost is no refusal: then the ledger says whose the place is.
    async fn begin(&self, number: DrillId) -> Result<(), ClientError> {
        let experiment = self.options.source.sha256();
        let order = DrillOrder::Begin {
            number,
            name: self.experiment().id.clone(),
            experiment: experiment.clone(),
            level: gate::node_level(self.experiment().level),
            lease_ms: LEASE_MS,
        };
        let Err(error) = self.options.agents.order(None, order).await else { return Ok(()) };
        if !is_unclear(&error) {
            return Err(error);
        }
        let view = self.options.agents.order(None, DrillOrder::Look).await;
        let is_begun = view.is_ok_and(|view| is_ours(&view, number, &experiment));
        if is_begun { Ok(()) } else { Err(error) }
    }
}

/// What a runner that died has left, as the record of an interrupted drill. A whole record that could not be put into the
/// chain is left, too: it stays what it is.
#[must_use]
pub fn left(draft: Record) -> Record {
    if draft.ending == (Ending::Interrupted { why: RUNNER_DIED.into() }) {
        return interrupted(draft, HEALED);
    }
    draft
}

fn interrupted(record: Record, why: &str) -> Record {
    let mut record = Record { ending: Ending::Interrupted { why: why.into() }, ..record };
    record.judgement = judge(&record);
    record
}

/// Whether an order that ended so may have been carried out all the same, then or later.
pub(super) fn is_unclear(error: &ClientError) -> bool {
    match error {
        ClientError::NoAgent { .. } | ClientError::Denied { .. } => false,
        ClientError::TimedOut { .. } | ClientError::Broken { .. } | ClientError::Decode { .. } => true,
        ClientError::Answered { body, .. } => match body.code {
            ErrorCode::NotFound | ErrorCode::BadRequest | ErrorCode::Refused => false,
            ErrorCode::NoQuorum | ErrorCode::TimedOut | ErrorCode::Busy | ErrorCode::Stopping => true,
        },
    }
}

/// Whether the drill under way is the one that this runner has just asked for. Two runners of one machine exclude each
/// other, and nobody has renewed it.
fn is_ours(view: &DrillView, number: DrillId, experiment: &str) -> bool {
    view.drill.as_ref().is_some_and(|drill| {
        drill.number == number
            && drill.at_node == view.node
            && drill.experiment == experiment
            && drill.beat == 0
            && drill.aborted.is_none()
    })
}

#[cfg(test)]
mod tests;
