//! What must hold in every world: one file per guarantee. Nothing here looks into the code under test: it looks at the kernel,
//! the databases, the committed log and the effects of hands.
//!
//! | file | guarantee | looked at |
//! |---|---|---|
//! | [`one_holder`] | G1 one holder | after every event |
//! | [`lease_never_overlaps`] | G1, as the agents believe | after every event |
//! | [`no_lost_write`] | G2 no acknowledged write is lost | at acknowledgements and promotions |
//! | [`accepted_loss`] | G2, the exception: an operator's word | at commits |
//! | [`acked_at_replica`] | G2, the promise of the in-sync flag | at acknowledgements |
//! | [`redis`] | G3 a switchover loses nothing of Redis, an empty one wipes nothing | at commits, at copies |
//! | [`run_settles`] | G5 a run is never forgotten, never done twice | at commits, after every event |
//! | [`one_change`] | G6 one fault, one change | at commits, in seeds with one fault |
//! | [`stale_actor`] | G7 a stale actor is harmless | at commits, after every event |
//! | [`undo_before_pivot`] | G8 undo before the point of no return | at effects and commits |
//! | [`no_undo_after_pivot`] | G8, the other side | at effects and commits |
//! | [`no_effect_without_journal`] | steps are driven by the ledger | at effects |
//! | [`epoch_monotonic`] | epochs fence | at commits |
//! | [`outranked`] | force: the lower generation is over | at commits, after every event |
//! | [`no_storm`] | no protocol proposes without end | at proposals |
//! | [`served_again`] | liveness after the repair | at the end |
//! | [`redundancy_returns`] | liveness after the repair: in sync, nothing open | at the end |

pub mod accepted_loss;
pub mod acked_at_replica;
pub mod epoch_monotonic;
pub mod lease_never_overlaps;
pub mod no_effect_without_journal;
pub mod no_lost_write;
pub mod no_storm;
pub mod no_undo_after_pivot;
pub mod one_change;
pub mod one_holder;
pub mod outranked;
pub mod redis;
pub mod redundancy_returns;
pub mod run_settles;
pub mod served_again;
pub mod stale_actor;
pub mod undo_before_pivot;

use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{Epoch, RunId};
use baton_runbooks::plan::Step;

use crate::sim::node::Node;

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in milliseconds.
    pub at: u64,
    /// Name of the invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

/// A hand touched the world for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// On which node.
    pub node: usize,
    /// For which run.
    pub run: RunId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Which step.
    pub step: Step,
    /// Which attempt.
    pub attempt: u32,
    /// It took the step back.
    pub undo: bool,
}

/// What the invariants remember of one log: after a force there may be clients on both sides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    pub(crate) accepted_loss: accepted_loss::Words,
    pub(crate) released: lease_never_overlaps::Released,
    pub(crate) no_lost_write: no_lost_write::Acknowledged,
    pub(crate) one_change: one_change::Changes,
    pub(crate) redis: redis::Acknowledged,
    pub(crate) run_settles: run_settles::Runs,
    pub(crate) undo_before_pivot: undo_before_pivot::Effects,
}

impl Line {
    /// The survivor goes on from `before`, and what the others did without it counts no more. What it lacks of acknowledged
    /// writes is lost with the operator's word: now if it holds the baton, else with its takeover.
    fn forced(&mut self, at: u64, before: &Ledger, after: &Ledger, survivor: &Node) {
        let holds = after.holder.as_ref() == Some(&survivor.name);
        self.released.forced(before);
        self.accepted_loss.forced((!holds).then(|| survivor.name.clone()));
        self.run_settles.forced(at, after);
        self.undo_before_pivot.forced(after);
        if let Some(db) = survivor.db.as_ref().filter(|_| holds) {
            self.no_lost_write.forgive(db);
            self.redis.forced(survivor);
        }
    }
}

/// What the invariants remember.
#[derive(Debug)]
pub struct Invariants {
    /// The first violation.
    pub found: Option<Violation>,
    pub(crate) no_storm: no_storm::Proposals,
    /// One for each log.
    lines: Vec<Line>,
}

impl Default for Invariants {
    fn default() -> Self {
        Self { found: None, no_storm: no_storm::Proposals::default(), lines: vec![Line::default()] }
    }
}

impl Invariants {
    /// What is remembered of a log.
    pub(crate) fn line(&self, log: usize) -> &Line {
        &self.lines[log]
    }

    /// The same.
    pub(crate) fn line_mut(&mut self, log: usize) -> &mut Line {
        &mut self.lines[log]
    }

    /// Another log is founded on what `log` has.
    pub(crate) fn fork(&mut self, log: usize) {
        let line = self.lines[log].clone();
        self.lines.push(line);
    }

    /// The newest log was founded by force.
    pub(crate) fn forced(&mut self, at: u64, before: &Ledger, after: &Ledger, survivor: &Node) {
        self.hold(at, epoch_monotonic::NAME, epoch_monotonic::forced(before, after, &survivor.name));
        if let Some(line) = self.lines.last_mut() {
            line.forced(at, before, after, survivor);
        }
    }

    /// Number of takeovers that an operator's word on a loss carried.
    pub(crate) fn carried(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.accepted_loss.carried)
    }

    /// Keeps the first violation.
    pub fn hold(&mut self, at: u64, invariant: &'static str, outcome: Result<(), String>) {
        if let Err(detail) = outcome
            && self.found.is_none()
        {
            self.found = Some(Violation { at, invariant, detail });
        }
    }
}
