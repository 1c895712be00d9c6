//! The transition function of a run. Total: whatever is not legal is refused with the reason.

use std::fmt;

use super::{Entry, Event, Run, RunState};
use crate::model::NodeId;
use crate::plan::{Kind, PlannedStep, Step};

/// Where one step stands, by its newest entry in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepStatus {
    /// Nothing has happened.
    Pending,
    /// Started, no outcome: may have had an effect.
    Acting {
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Succeeded.
    Done,
    /// The attempt failed: may have had an effect.
    Failed {
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// The leader gave up waiting for it.
    Skipped,
    /// Its undo has begun.
    Undoing,
    /// Its effect is gone.
    Undone,
    /// Its undo failed.
    Stuck {
        /// What failed.
        error: String,
    },
}

/// What an actor has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Propose `Started`, then check, act, verify, and propose the outcome.
    Act {
        /// Which step.
        step: Step,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// `Started` is in the journal without an outcome: check first, act if need be, propose the outcome.
    Resume {
        /// Which step.
        step: Step,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Propose `UndoStarted` (unless it stands already), undo, propose the outcome.
    Undo {
        /// Which step.
        step: Step,
        /// `UndoStarted` stands in the journal already.
        resumed: bool,
    },
}

/// Why an entry was refused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Illegal {
    /// The plan does not have this step.
    UnknownStep,
    /// The entry does not come from the step's actor.
    NotTheActor,
    /// A step that this one waits for has not succeeded.
    Waits,
    /// The step is not in a state in which this can happen to it.
    OutOfOrder,
    /// The run has ended.
    Ended,
    /// The run aborts and starts nothing any more.
    Aborting,
    /// Nothing is undone unless the run aborts, and never after the pivot was started.
    NoUndo,
    /// A later step has to be undone first.
    UndoOrder,
    /// Only forward steps can be skipped.
    NotForward,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownStep => "the plan does not have this step",
            Self::NotTheActor => "another node is this step's actor",
            Self::Waits => "a step that it waits for has not succeeded",
            Self::OutOfOrder => "the step is not in a state for this",
            Self::Ended => "the run has ended",
            Self::Aborting => "the run aborts",
            Self::NoUndo => "no undo here",
            Self::UndoOrder => "a later step is undone first",
            Self::NotForward => "only forward steps can be skipped",
        })
    }
}

impl Run {
    /// Where `step` stands: its newest entry says so. A step that the plan does not have is `Pending`.
    #[must_use]
    pub fn status(&self, step: Step) -> StepStatus {
        let Some(newest) = self.journal.iter().rev().find(|entry| entry.step == step) else {
            return StepStatus::Pending;
        };
        match &newest.event {
            Event::Started => StepStatus::Acting { attempt: newest.attempt },
            Event::Succeeded { .. } => StepStatus::Done,
            Event::Failed { .. } => StepStatus::Failed { attempt: newest.attempt },
            Event::Skipped { .. } => StepStatus::Skipped,
            Event::UndoStarted => StepStatus::Undoing,
            Event::UndoFinished => StepStatus::Undone,
            Event::UndoFailed { error } => StepStatus::Stuck { error: error.clone() },
        }
    }

    /// Where the run stands.
    #[must_use]
    pub fn state(&self) -> RunState {
        if self.abandoned.is_some() {
            return RunState::Abandoned;
        }
        // Most runs know of no failure, and this is asked many times a second.
        let failed = |entry: &Entry| matches!(entry.event, Event::Failed { .. } | Event::UndoFailed { .. });
        if self.journal.iter().any(failed)
            && let Some(ended) = self.plan.steps.iter().find_map(|s| self.needs_operator(s))
        {
            return ended;
        }
        if self.aborting.is_some() && !self.is_past_pivot() {
            let left = self.plan.steps.iter().any(|s| self.has_effect_to_undo(s));
            return if left { RunState::Undoing } else { RunState::RolledBack };
        }
        let mut faultless = true;
        for planned in &self.plan.steps {
            match self.status(planned.step) {
                StepStatus::Done => {}
                StepStatus::Skipped => faultless = false,
                StepStatus::Failed { attempt }
                    if planned.kind == Kind::Forward && attempt >= planned.attempts =>
                {
                    faultless = false;
                }
                StepStatus::Pending if planned.kind == Kind::Forward && self.waits_for_lost(planned) => {
                    faultless = false;
                }
                StepStatus::Pending
                | StepStatus::Acting { .. }
                | StepStatus::Failed { .. }
                | StepStatus::Undoing
                | StepStatus::Undone
                | StepStatus::Stuck { .. } => return RunState::Running,
            }
        }
        if faultless { RunState::Completed } else { RunState::Degraded }
    }

    /// What `node` has to do now; several at once where steps wait for nothing of one another.
    #[must_use]
    pub fn next(&self, node: &NodeId) -> Vec<Next> {
        match self.state() {
            RunState::Running => self.plan.steps.iter().filter_map(|s| self.next_of(s, node)).collect(),
            RunState::Undoing => self.next_undo(node).into_iter().collect(),
            RunState::Completed
            | RunState::Degraded
            | RunState::RolledBack
            | RunState::Abandoned
            | RunState::NeedsOperator { .. } => Vec::new(),
        }
    }

    /// Appends `entry`, or says why it is not legal. Repeating the last entry of a step is legal and changes nothing.
    ///
    /// # Errors
    /// See [`Illegal`].
    pub fn record(&mut self, entry: Entry) -> Result<(), Illegal> {
        let planned = self.plan.step(entry.step).ok_or(Illegal::UnknownStep)?.clone();
        let leader_speaks = matches!(entry.event, Event::Skipped { .. });
        if !leader_speaks && entry.by != planned.actor {
            return Err(Illegal::NotTheActor);
        }
        if self.repeats(&entry) {
            return Ok(());
        }
        if self.state().is_ended() {
            return Err(Illegal::Ended);
        }
        self.is_legal(&planned, &entry)?;
        let fails_for_good = matches!(entry.event, Event::Failed { .. })
            && entry.attempt >= planned.attempts
            && planned.kind == Kind::Undoable
            && self.aborting.is_none();
        if fails_for_good {
            self.aborting = Some(format!("{} failed", planned.step));
        }
        self.journal.push(entry);
        Ok(())
    }

    fn repeats(&self, entry: &Entry) -> bool {
        self.journal.iter().rev().find(|e| e.step == entry.step).is_some_and(|last| {
            last.attempt == entry.attempt && last.event == entry.event && last.by == entry.by
        })
    }

    fn is_legal(&self, planned: &PlannedStep, entry: &Entry) -> Result<(), Illegal> {
        let status = self.status(planned.step);
        match (&entry.event, status) {
            (Event::Started, StepStatus::Pending) if entry.attempt == 1 => self.may_start(planned),
            (Event::Started, StepStatus::Failed { attempt })
                if entry.attempt == attempt + 1 && entry.attempt <= planned.attempts =>
            {
                self.may_start(planned)
            }
            (Event::Succeeded { .. } | Event::Failed { .. }, StepStatus::Acting { attempt })
                if attempt == entry.attempt =>
            {
                Ok(())
            }
            (
                Event::Skipped { .. },
                StepStatus::Pending | StepStatus::Acting { .. } | StepStatus::Failed { .. },
            ) => {
                if planned.kind == Kind::Forward {
                    Ok(())
                } else {
                    Err(Illegal::NotForward)
                }
            }
            (
                Event::UndoStarted,
                StepStatus::Acting { .. } | StepStatus::Done | StepStatus::Failed { .. },
            ) => self.may_undo(planned),
            (Event::UndoFinished | Event::UndoFailed { .. }, StepStatus::Undoing) => Ok(()),
            (
                Event::Started
                | Event::Succeeded { .. }
                | Event::Failed { .. }
                | Event::Skipped { .. }
                | Event::UndoStarted
                | Event::UndoFinished
                | Event::UndoFailed { .. },
                _,
            ) => Err(Illegal::OutOfOrder),
        }
    }

    fn may_start(&self, planned: &PlannedStep) -> Result<(), Illegal> {
        if self.aborting.is_some() {
            return Err(Illegal::Aborting);
        }
        if planned.after.iter().any(|other| self.status(*other) != StepStatus::Done) {
            return Err(Illegal::Waits);
        }
        Ok(())
    }

    fn may_undo(&self, planned: &PlannedStep) -> Result<(), Illegal> {
        if self.aborting.is_none() || self.is_past_pivot() {
            return Err(Illegal::NoUndo);
        }
        let later = self.plan.steps.iter().skip_while(|s| s.step != planned.step).skip(1);
        if later.into_iter().any(|s| self.has_effect_to_undo(s)) {
            return Err(Illegal::UndoOrder);
        }
        Ok(())
    }

    /// May have had an effect that is not undone yet. Forward steps are undone by the role change itself.
    fn has_effect_to_undo(&self, planned: &PlannedStep) -> bool {
        planned.kind != Kind::Forward
            && match self.status(planned.step) {
                StepStatus::Acting { .. }
                | StepStatus::Done
                | StepStatus::Failed { .. }
                | StepStatus::Undoing
                | StepStatus::Stuck { .. } => true,
                StepStatus::Pending | StepStatus::Skipped | StepStatus::Undone => false,
            }
    }

    /// A forward step that waits for one which failed for good or was skipped will never start.
    fn waits_for_lost(&self, planned: &PlannedStep) -> bool {
        planned.after.iter().filter_map(|other| self.plan.step(*other)).any(|other| {
            match self.status(other.step) {
                StepStatus::Skipped => true,
                StepStatus::Failed { attempt } => other.kind == Kind::Forward && attempt >= other.attempts,
                StepStatus::Pending => other.kind == Kind::Forward && self.waits_for_lost(other),
                StepStatus::Acting { .. }
                | StepStatus::Done
                | StepStatus::Undoing
                | StepStatus::Undone
                | StepStatus::Stuck { .. } => false,
            }
        })
    }

    fn needs_operator(&self, planned: &PlannedStep) -> Option<RunState> {
        let reason = match self.status(planned.step) {
            StepStatus::Stuck { error } => error,
            StepStatus::Failed { attempt } if planned.kind == Kind::Pivot && attempt >= planned.attempts => {
                self.journal.iter().rev().find_map(|e| match &e.event {
                    Event::Failed { error } if e.step == planned.step => Some(error.clone()),
                    Event::Started
                    | Event::Succeeded { .. }
                    | Event::Failed { .. }
                    | Event::Skipped { .. }
                    | Event::UndoStarted
                    | Event::UndoFinished
                    | Event::UndoFailed { .. } => None,
                })?
            }
            StepStatus::Pending
            | StepStatus::Acting { .. }
            | StepStatus::Done
            | StepStatus::Failed { .. }
            | StepStatus::Skipped
            | StepStatus::Undoing
            | StepStatus::Undone => return None,
        };
        Some(RunState::NeedsOperator { step: planned.step, reason })
    }

    fn next_of(&self, planned: &PlannedStep, node: &NodeId) -> Option<Next> {
        if planned.actor != *node {
            return None;
        }
        match self.status(planned.step) {
            StepStatus::Pending => {
                self.may_start(planned).ok().map(|()| Next::Act { step: planned.step, attempt: 1 })
            }
            StepStatus::Acting { attempt } => Some(Next::Resume { step: planned.step, attempt }),
            StepStatus::Failed { attempt } if attempt < planned.attempts => {
                self.may_start(planned).ok().map(|()| Next::Act { step: planned.step, attempt: attempt + 1 })
            }
            StepStatus::Failed { .. }
            | StepStatus::Done
            | StepStatus::Skipped
            | StepStatus::Undoing
            | StepStatus::Undone
            | StepStatus::Stuck { .. } => None,
        }
    }

    fn next_undo(&self, node: &NodeId) -> Option<Next> {
        let last = self.plan.steps.iter().rev().find(|s| self.has_effect_to_undo(s))?;
        if last.actor != *node {
            return None;
        }
        Some(Next::Undo { step: last.step, resumed: self.status(last.step) == StepStatus::Undoing })
    }
}
