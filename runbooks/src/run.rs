//! Runs: one execution of a plan, as a fold of its journal.
//!
//! ```text
//!            Started        Succeeded
//!  Pending ──────────▶ Acting ──────────▶ Done
//!     │                 │  ▲ Started (next attempt)
//!     │ Skipped         │  │
//!     │ (forward only)  ▼  │
//!     │               Failed ── attempts used up, before the pivot: the run aborts
//!     ▼                 │
//!  Skipped              ▼ UndoStarted (aborting only, in reverse order)
//!                     Undoing ──────────▶ Undone      (UndoFailed: the run needs an operator)
//! ```
//!
//! The journal is in the ledger, so it survives the death of any agent. A step is *started* in the journal
//! before anything is done, so a step without an outcome may have had an effect: its actor resumes it by
//! check-then-act, and an abort undoes it as if it had succeeded. From the `Started` of the pivot on, no
//! undo is legal.

mod machine;
pub mod switchover;
pub mod table;
pub mod takeover;

pub use machine::{Illegal, Next, StepStatus};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, RunId, WallMs};
use crate::plan::{Kind, Plan, Runbook, Step};

/// Something that happened to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The actor is about to act. Applied before the effect.
    Started,
    /// The post-condition was seen to hold.
    Succeeded {
        /// What the actor learned, as `key: value` for people and for later steps.
        facts: Vec<(String, String)>,
    },
    /// The attempt failed.
    Failed {
        /// What failed, in words.
        error: String,
    },
    /// The leader gives up waiting for a forward step.
    Skipped {
        /// Why.
        reason: String,
    },
    /// The actor is about to undo.
    UndoStarted,
    /// The effect is gone.
    UndoFinished,
    /// The undo failed; an operator must look.
    UndoFailed {
        /// What failed, in words.
        error: String,
    },
}

/// One line of a run's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which step.
    pub step: Step,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Who says so.
    pub by: NodeId,
    /// Wall clock of `by`, for people.
    pub at: WallMs,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum RunState {
    /// Steps remain.
    Running,
    /// The run failed before the pivot and takes back what it did.
    Undoing,
    /// Every step succeeded.
    Completed,
    /// The baton was passed, but a forward step failed or was skipped.
    Degraded,
    /// Everything that was done is undone. After a takeover nobody holds the baton; after a switchover the old holder does.
    RolledBack,
    /// The run was ended before its aim: its actor stayed away, a takeover followed, or an operator acknowledged it.
    Abandoned,
    /// The run stopped and both databases are closed to writes.
    NeedsOperator {
        /// The step that could not be done or undone.
        step: Step,
        /// What failed.
        reason: String,
    },
}

impl RunState {
    /// The run will not move by itself any more.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        match self {
            Self::Running | Self::Undoing => false,
            Self::Completed
            | Self::Degraded
            | Self::RolledBack
            | Self::Abandoned
            | Self::NeedsOperator { .. } => true,
        }
    }

    /// The word in the history.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Completed => "completed",
            Self::Degraded => "degraded",
            Self::RolledBack => "rolled back",
            Self::Abandoned => "abandoned",
            Self::NeedsOperator { .. } => "needs operator",
        }
    }
}

/// One execution of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// What it does. Shared: it is immutable, and every entry of the journal makes another ledger.
    #[serde(with = "crate::shared")]
    pub plan: Arc<Plan>,
    /// When the leader proposed it, for people.
    pub at: WallMs,
    /// What happened, in the order of the Raft log.
    pub journal: Vec<Entry>,
    /// Set once the run aborts: the reason.
    pub aborting: Option<String>,
    /// Set once the leader ended the run because its actor stayed away: the reason.
    pub abandoned: Option<String>,
}

impl Run {
    /// A run that has not begun.
    #[must_use]
    pub fn new(id: RunId, plan: impl Into<Arc<Plan>>, at: WallMs) -> Self {
        Self { id, plan: plan.into(), at, journal: Vec::new(), aborting: None, abandoned: None }
    }

    /// The point of no return is behind us: the pivot's `Started` is in the journal.
    #[must_use]
    pub fn is_past_pivot(&self) -> bool {
        self.plan
            .steps
            .iter()
            .filter(|s| s.kind == Kind::Pivot)
            .any(|s| self.journal.iter().any(|e| e.step == s.step && e.event == Event::Started))
    }

    /// The baton has been passed: the pivot has succeeded.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.plan
            .steps
            .iter()
            .filter(|s| s.kind == Kind::Pivot)
            .all(|s| matches!(self.status(s.step), StepStatus::Done))
    }

    /// The target had everything applied that it had received, also if the step was taken back since.
    #[must_use]
    pub fn has_drained(&self) -> bool {
        self.journal
            .iter()
            .any(|e| e.step == Step::DrainRelayLog && matches!(e.event, Event::Succeeded { .. }))
    }

    /// A switchover whose baton has not been passed: the ledger's holder still is the old one.
    #[must_use]
    pub fn is_before_passing(&self) -> bool {
        self.plan.runbook == Runbook::Switchover && !self.is_past_pivot()
    }

    /// The baton was passed by a switchover and the new holder has not opened yet: the old one may still be letting go.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.plan.runbook == Runbook::Switchover && self.is_past_pivot() && !self.is_open()
    }

    /// The holder's services are stopped for this switchover.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_before_passing() && is_in_effect(&self.status(Step::DrainHolder))
    }

    /// The holder is closed, or being closed, for this switchover.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.is_before_passing() && is_in_effect(&self.status(Step::CloseHolder))
    }

    /// The steps act on the target's databases; it neither follows nor is closed by itself.
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        self.is_before_passing()
            && match self.status(Step::CatchUp) {
                StepStatus::Acting { .. }
                | StepStatus::Done
                | StepStatus::Failed { .. }
                | StepStatus::Undoing
                | StepStatus::Stuck { .. } => true,
                StepStatus::Pending | StepStatus::Skipped | StepStatus::Undone => false,
            }
    }

    /// A fact that a step left in the journal.
    #[must_use]
    pub fn fact(&self, step: Step, key: &str) -> Option<&str> {
        self.journal.iter().rev().filter(|e| e.step == step).find_map(|e| match &e.event {
            Event::Succeeded { facts } => facts.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()),
            Event::Started
            | Event::Failed { .. }
            | Event::Skipped { .. }
            | Event::UndoStarted
            | Event::UndoFinished
            | Event::UndoFailed { .. } => None,
        })
    }
}

/// The step may have had its effect, and nobody is taking it back yet. From the start of its undo on, the reconciler brings
/// the node back to what it was.
const fn is_in_effect(status: &StepStatus) -> bool {
    match status {
        StepStatus::Acting { .. } | StepStatus::Done | StepStatus::Failed { .. } => true,
        StepStatus::Pending
        | StepStatus::Skipped
        | StepStatus::Undoing
        | StepStatus::Undone
        | StepStatus::Stuck { .. } => false,
    }
}
