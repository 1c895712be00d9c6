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
//! | [`no_storm`] | no protocol proposes without end | at proposals |
//! | [`served_again`] | liveness after the repair | at the end |

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
pub mod redis;
pub mod run_settles;
pub mod served_again;
pub mod stale_actor;
pub mod undo_before_pivot;

use baton_runbooks::model::{Epoch, RunId};
use baton_runbooks::plan::Step;

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

/// What the invariants remember.
#[derive(Debug, Default)]
pub struct Invariants {
    /// The first violation.
    pub found: Option<Violation>,
    pub(crate) accepted_loss: accepted_loss::Words,
    pub(crate) released: lease_never_overlaps::Released,
    pub(crate) no_lost_write: no_lost_write::Acknowledged,
    pub(crate) no_storm: no_storm::Proposals,
    pub(crate) one_change: one_change::Changes,
    pub(crate) redis: redis::Acknowledged,
    pub(crate) run_settles: run_settles::Runs,
    pub(crate) undo_before_pivot: undo_before_pivot::Effects,
}

impl Invariants {
    /// Keeps the first violation.
    pub fn hold(&mut self, at: u64, invariant: &'static str, outcome: Result<(), String>) {
        if let Err(detail) = outcome
            && self.found.is_none()
        {
            self.found = Some(Violation { at, invariant, detail });
        }
    }
}
