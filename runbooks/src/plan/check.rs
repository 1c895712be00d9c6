//! The linter for plans: finds what must never be proposed.

use std::collections::BTreeSet;
use std::fmt;

use super::{Kind, Plan, Step};
use crate::ledger::Ledger;
use crate::model::{NodeId, NodeKind};

/// One thing that is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// The new epoch is not one more than the basis.
    EpochNotNext,
    /// A node in the plan is not a member.
    NotAMember(NodeId),
    /// The target is not a data node.
    TargetIsNotData(NodeId),
    /// The target already holds the baton.
    TargetIsHolder(NodeId),
    /// A step stands twice in the plan.
    Twice(Step),
    /// A step waits for one that does not come before it.
    WaitsForLater(Step, Step),
    /// The plan has no pivot, or more than one.
    PivotCount(usize),
    /// An undoable step waits for the pivot, so it could never be undone.
    UndoableAfterPivot(Step),
    /// The pivot does not wait, directly or indirectly, for this undoable step.
    PivotDoesNotWait(Step),
    /// Limit or number of attempts is zero.
    NoBudget(Step),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EpochNotNext => write!(f, "the epoch is not one more than the basis"),
            Self::NotAMember(node) => write!(f, "{node} is not a member"),
            Self::TargetIsNotData(node) => write!(f, "{node} has no data and cannot hold the baton"),
            Self::TargetIsHolder(node) => write!(f, "{node} holds the baton already"),
            Self::Twice(step) => write!(f, "{step} stands twice in the plan"),
            Self::WaitsForLater(step, other) => {
                write!(f, "{step} waits for {other}, which does not come before it")
            }
            Self::PivotCount(n) => write!(f, "a plan has one pivot, this one has {n}"),
            Self::UndoableAfterPivot(step) => write!(f, "{step} is undoable but waits for the pivot"),
            Self::PivotDoesNotWait(step) => write!(f, "the pivot does not wait for {step}"),
            Self::NoBudget(step) => write!(f, "{step} has no time limit or no attempt"),
        }
    }
}

/// Everything that is wrong with `plan` against `ledger`; empty for a good plan.
#[must_use]
pub fn check(plan: &Plan, ledger: &Ledger) -> Vec<Note> {
    let mut notes = Vec::new();
    if plan.epoch != plan.basis.epoch.next() {
        notes.push(Note::EpochNotNext);
    }
    for node in plan.steps.iter().map(|s| &s.actor).chain([&plan.to]).chain(plan.from.as_ref()) {
        if !ledger.members.contains_key(node) {
            notes.push(Note::NotAMember(node.clone()));
        }
    }
    if ledger.members.get(&plan.to).is_some_and(|kind| *kind != NodeKind::Data) {
        notes.push(Note::TargetIsNotData(plan.to.clone()));
    }
    if plan.from.as_ref() == Some(&plan.to) {
        notes.push(Note::TargetIsHolder(plan.to.clone()));
    }
    check_order(plan, &mut notes);
    check_pivot(plan, &mut notes);
    notes.sort();
    notes.dedup();
    notes
}

fn check_order(plan: &Plan, notes: &mut Vec<Note>) {
    let mut seen = BTreeSet::new();
    for planned in &plan.steps {
        if planned.limit_ms == 0 || planned.attempts == 0 {
            notes.push(Note::NoBudget(planned.step));
        }
        for other in &planned.after {
            if !seen.contains(other) {
                notes.push(Note::WaitsForLater(planned.step, *other));
            }
        }
        if !seen.insert(planned.step) {
            notes.push(Note::Twice(planned.step));
        }
    }
}

fn check_pivot(plan: &Plan, notes: &mut Vec<Note>) {
    let pivots: Vec<_> = plan.steps.iter().filter(|s| s.kind == Kind::Pivot).collect();
    let [pivot] = pivots.as_slice() else {
        notes.push(Note::PivotCount(pivots.len()));
        return;
    };
    let before = ancestors(plan, pivot.step);
    for planned in plan.steps.iter().filter(|s| s.kind == Kind::Undoable) {
        if ancestors(plan, planned.step).contains(&pivot.step) {
            notes.push(Note::UndoableAfterPivot(planned.step));
        } else if !before.contains(&planned.step) {
            notes.push(Note::PivotDoesNotWait(planned.step));
        }
    }
}

/// The steps that `step` waits for, directly or indirectly. Ends also on a plan with a cycle.
fn ancestors(plan: &Plan, step: Step) -> BTreeSet<Step> {
    let mut found = BTreeSet::new();
    let mut open = vec![step];
    while let Some(next) = open.pop() {
        for other in plan.step(next).map(|s| s.after.as_slice()).unwrap_or_default() {
            if found.insert(*other) {
                open.push(*other);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
