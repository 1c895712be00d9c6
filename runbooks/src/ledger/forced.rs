//! A forced recovery in the ledger: what an operator gave up when one survivor went on alone.
//!
//! It is no command: nothing that comes over the network or stands in a log can do it. Consensus applies it once, while it
//! founds the cluster anew on the survivor's log.

use serde::{Deserialize, Serialize};

use super::apply::keep_newest;
use super::{Complete, EndedRun, Ledger, LossAccepted};
use crate::model::{Generation, Instance, NodeId, WallMs};
use crate::run::RunState;

/// Whoever has claimed a pause without the survivor's knowledge. No start of an agent has this number.
const UNKNOWN_CLAIMANT: u64 = 0;

/// A forced recovery; in the history for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// The generation that it began.
    pub generation: Generation,
    /// The log that it was founded on, drawn at random; empty until then, and in what an older agent founded.
    #[serde(default)]
    pub founder: String,
    /// Who went on alone.
    pub survivor: NodeId,
    /// Who was off or wiped, by the operator's word.
    pub gave_up: Vec<NodeId>,
    /// Newest entry of the survivor's log: what the others decided after it is given up.
    pub last_index: u64,
    /// The loss that is accepted for the survivor's takeover; `None`: it holds the baton, or has no MySQL.
    pub loss: Option<(Instance, LossAccepted)>,
    /// Who ordered it.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// When, for people.
    pub at: WallMs,
}

impl Ledger {
    /// What tells this cluster from another one that was forced to the same generation; empty: nothing.
    #[must_use]
    pub fn founder(&self) -> &str {
        self.forced.last().map_or("", |forced| &forced.founder)
    }

    /// A survivor that holds the baton goes on with it: it serves, or its takeover is past the point of no return, or is one to
    /// data that need no proof of where they were received.
    #[must_use]
    pub fn goes_on_with(&self, survivor: &NodeId) -> bool {
        let run = self.run.as_ref().filter(|run| run.plan.to == *survivor && !run.is_past_pivot());
        let received = run.is_some_and(|run| run.plan.basis.target_instance.is_some());
        self.holder.as_ref() == Some(survivor) && !received
    }

    /// The survivor goes on alone. What it does not know may have been decided by the others, so nobody is called complete any
    /// more: a survivor that holds the baton goes on with it, every other one takes over only with an accepted loss.
    ///
    /// A replica whose takeover has not come to its pivot does not hold it yet. It begins anew: the others may have ended
    /// that run without it, and what its steps have seen, such as what was received, is older than the force.
    ///
    /// A pause ends with it only if the survivor holds. Otherwise the holder that was given up may serve under it without its
    /// agent, as long as it lasts: the survivor leads alone and waits it out.
    pub fn force(&mut self, forced: Forced) {
        self.generation = forced.generation;
        let holds = self.goes_on_with(&forced.survivor);
        if let Some(pause) = &mut self.pause {
            let id = pause.id;
            // The others may have noted a claim that the survivor does not know of.
            pause.claimed_by.get_or_insert(UNKNOWN_CLAIMANT);
            if holds {
                self.conclude_pause(|_| format!("pause {id} ended with the forced recovery"), forced.at);
            }
        }
        if !holds {
            if let Some(mut run) = self.run.take() {
                run.abandoned = Some("its nodes were given up by a forced recovery".to_owned());
                self.history.push(EndedRun { run: run.into(), state: RunState::Abandoned });
                keep_newest(&mut self.history);
            }
            let old = self.holder.take().filter(|holder| *holder != forced.survivor);
            self.last_holder = old.or_else(|| self.last_holder.take());
            self.released = None;
        }
        self.change_sync(
            None,
            format!("generation {}: {} went on alone", forced.generation, forced.survivor),
        );
        if let Some((instance, loss)) = forced.loss.clone().filter(|_| !holds) {
            self.in_sync.insert(forced.survivor.clone(), Complete::Accepted { instance, loss });
        }
        self.forced.push(forced);
        keep_newest(&mut self.forced);
    }
}
