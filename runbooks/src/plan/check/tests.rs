//! Unit tests of the linter: a plan with one flaw for each of its notes, and plans without any.

use super::*;
use crate::model::{Epoch, SyncGeneration};
use crate::plan::{Basis, PlannedStep, Runbook};
use crate::run::table::Scope;
use crate::run::{switchover, takeover};

fn ledger() -> Ledger {
    let members = [
        (NodeId::from("db1"), NodeKind::Data),
        (NodeId::from("db2"), NodeKind::Data),
        (NodeId::from("mon"), NodeKind::Witness),
    ];
    Ledger { members: members.into(), ..Ledger::default() }
}

const WHOLE: Scope = Scope { mysql: true, independent_services: true, services: true };

fn planned(runbook: Runbook, scope: Scope) -> Plan {
    let (from, to, witness) = (NodeId::from("db1"), NodeId::from("db2"), NodeId::from("mon"));
    let steps = match runbook {
        Runbook::Takeover => takeover::steps(&to, Some(&witness), scope),
        Runbook::Switchover => {
            switchover::steps(&from, &to, Some(&witness), scope, switchover::Waits::default())
        }
    };
    Plan {
        runbook,
        version: runbook.version(),
        epoch: Epoch(3),
        from: Some(from),
        to,
        basis: Basis { epoch: Epoch(2), sync: SyncGeneration(1), target_instance: None },
        why: Vec::new(),
        detected_ms_ago: None,
        holder_heard_ms: Default::default(),
        asked_by: None,
        drain_patience_ms: 0,
        steps,
    }
}

fn of(plan: &mut Plan, step: Step) -> &mut PlannedStep {
    plan.steps.iter_mut().find(|planned| planned.step == step).unwrap()
}

/// One line per note: its pattern, then each note of this kind with a flaw that brings it about, and nothing else.
/// A note without a line does not compile.
macro_rules! flaws {
    ($($kind:pat => [$($note:expr, $spoil:expr;)+])+) => {
        fn flaws() -> Vec<(Note, fn(&mut Plan))> {
            // Exhaustive: this is what asks for a line.
            let _has_a_line = |note: &Note| match note { $($kind => (),)+ };
            let mut found: Vec<(Note, fn(&mut Plan))> = Vec::new();
            $($(
                let note: Note = $note;
                assert!(matches!(note, $kind), "{note:?} stands in another line");
                let spoil: fn(&mut Plan) = $spoil;
                found.push((note, spoil));
            )+)+
            found
        }
    };
}

flaws! {
    Note::EpochNotNext => [
        Note::EpochNotNext, |plan| plan.epoch = plan.basis.epoch;
        Note::EpochNotNext, |plan| plan.epoch = plan.basis.epoch.next().next();
    ]
    Note::NotAMember(_) => [
        Note::NotAMember("db9".into()), |plan| plan.from = Some("db9".into());
        Note::NotAMember("db9".into()), |plan| plan.to = "db9".into();
        Note::NotAMember("db9".into()), |plan| of(plan, Step::Validate).actor = "db9".into();
    ]
    Note::TargetIsNotData(_) => [
        Note::TargetIsNotData("mon".into()), |plan| plan.to = "mon".into();
    ]
    Note::TargetIsHolder(_) => [
        Note::TargetIsHolder("db2".into()), |plan| plan.from = Some("db2".into());
    ]
    Note::Twice(_) => [
        Note::Twice(Step::HoldVip), |plan| {
            let again = of(plan, Step::HoldVip).clone();
            plan.steps.push(again);
        };
    ]
    Note::WaitsForLater(_, _) => [
        // In the plan, but later.
        Note::WaitsForLater(Step::DrainRelayLog, Step::CutStream), |plan| {
            let place = |step: Step| plan.steps.iter().position(|planned| planned.step == step).unwrap();
            let (cut, drain) = (place(Step::CutStream), place(Step::DrainRelayLog));
            plan.steps.swap(cut, drain);
        };
        // Not in the plan.
        Note::WaitsForLater(Step::HoldVip, Step::AttachOld), |plan| {
            of(plan, Step::HoldVip).after.push(Step::AttachOld);
        };
        // Itself.
        Note::WaitsForLater(Step::HoldVip, Step::HoldVip), |plan| {
            of(plan, Step::HoldVip).after.push(Step::HoldVip);
        };
    ]
    Note::PivotCount(_) => [
        Note::PivotCount(0), |plan| of(plan, Step::OpenPorts).kind = Kind::Forward;
        Note::PivotCount(2), |plan| of(plan, Step::StartServices).kind = Kind::Pivot;
    ]
    Note::UndoableAfterPivot(_) => [
        Note::UndoableAfterPivot(Step::StartServices), |plan| {
            of(plan, Step::StartServices).kind = Kind::Undoable;
        };
        // It waits for the pivot through another step only.
        Note::UndoableAfterPivot(Step::Validate), |plan| {
            let validate = of(plan, Step::Validate);
            validate.kind = Kind::Undoable;
            validate.after = vec![Step::StartServices];
        };
    ]
    Note::PivotDoesNotWait(_) => [
        Note::PivotDoesNotWait(Step::HoldVip), |plan| {
            of(plan, Step::OpenPorts).after.retain(|step| *step != Step::HoldVip);
        };
        Note::PivotDoesNotWait(Step::StartIndependent), |plan| {
            of(plan, Step::StartIndependent).kind = Kind::Undoable;
        };
    ]
    Note::NoBudget(_) => [
        Note::NoBudget(Step::FenceOld), |plan| of(plan, Step::FenceOld).limit_ms = 0;
        Note::NoBudget(Step::OpenPorts), |plan| of(plan, Step::OpenPorts).attempts = 0;
    ]
}

#[test]
fn each_flaw_is_found_and_nothing_else() {
    let ledger = ledger();
    for (note, spoil) in flaws() {
        let mut plan = planned(Runbook::Takeover, WHOLE);
        spoil(&mut plan);
        assert_eq!(check(&plan, &ledger), [note]);
    }
}

#[test]
fn a_sound_plan_has_no_flaw() {
    for runbook in [Runbook::Takeover, Runbook::Switchover] {
        for bits in 0..8_u8 {
            let scope =
                Scope { mysql: bits & 1 != 0, independent_services: bits & 2 != 0, services: bits & 4 != 0 };
            let notes = check(&planned(runbook, scope), &ledger());
            assert!(notes.is_empty(), "{runbook:?} {scope:?}: {notes:?}");
        }
    }
}

/// Nobody would take back the closing of a holder that the pivot does not wait for.
#[test]
fn a_switchover_whose_pivot_does_not_wait_for_the_closing_is_refused() {
    let mut plan = planned(Runbook::Switchover, WHOLE);
    of(&mut plan, Step::OpenPorts).after.retain(|step| *step != Step::CloseHolder);
    let wanted = [Note::PivotDoesNotWait(Step::DrainHolder), Note::PivotDoesNotWait(Step::CloseHolder)];
    assert_eq!(check(&plan, &ledger()), wanted);
}

#[test]
fn steps_that_wait_for_each_other_are_found() {
    let mut plan = planned(Runbook::Takeover, WHOLE);
    of(&mut plan, Step::FenceOld).after = vec![Step::OpenPorts];
    let notes = check(&plan, &ledger());
    assert!(notes.contains(&Note::WaitsForLater(Step::FenceOld, Step::OpenPorts)), "{notes:?}");
    assert!(notes.contains(&Note::UndoableAfterPivot(Step::FenceOld)), "{notes:?}");
}
