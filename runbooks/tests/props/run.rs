//! The run machine: it ends for every pattern of faults, never undoes after the pivot, and undoes everything before it.

use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{NodeId, RunId, WallMs};
use baton_runbooks::plan::{Kind, Step};
use baton_runbooks::run::{Entry, Event, Next, Run, RunState, StepStatus};
use proptest::prelude::*;

use super::ledger::{NAMES, bootstrap, plan};

pub fn a_run() -> Run {
    let mut ledger = Ledger::default();
    let _ = ledger.apply(bootstrap());
    Run::new(RunId(1), plan(&ledger, &NodeId::from("db1")), WallMs(0))
}

/// What the actor would journal next.
pub fn answer(run: &Run, next: &Next, well: bool) -> Entry {
    let error = "e".to_owned();
    let (step, attempt, event) = match next {
        Next::Act { step, attempt } => (*step, *attempt, Event::Started),
        Next::Resume { step, attempt } if well => (*step, *attempt, Event::Succeeded { facts: Vec::new() }),
        Next::Resume { step, attempt } => (*step, *attempt, Event::Failed { error }),
        Next::Undo { step, resumed: false } => (*step, 1, Event::UndoStarted),
        Next::Undo { step, resumed: true } if well => (*step, 1, Event::UndoFinished),
        Next::Undo { step, resumed: true } => (*step, 1, Event::UndoFailed { error }),
    };
    let by = run.plan.step(step).unwrap().actor.clone();
    Entry { step, attempt, event, by, at: WallMs(0) }
}

proptest! {
    #![proptest_config(super::at_least(600))]
    #[test]
    fn it_ends_and_never_undoes_after_the_pivot(
        luck in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.8), any::<bool>()), 200),
    ) {
        let mut run = a_run();
        let mut luck = luck.into_iter();
        while !run.state().is_ended() {
            let open: Vec<Next> = NAMES.iter().flat_map(|node| run.next(&NodeId::from(*node))).collect();
            prop_assert!(!open.is_empty(), "stuck in {:?}: {:?}", run.state(), run.journal);
            let (which, well, twice) = luck.next().expect("the run does not end");
            let entry = answer(&run, which.get(&open), well);
            prop_assert!(!run.is_past_pivot() || entry.event != Event::UndoStarted);
            prop_assert_eq!(run.record(entry.clone()), Ok(()));
            if twice && !run.state().is_ended() {
                let before = run.clone();
                prop_assert_eq!(run.record(entry), Ok(()), "the same entry again is legal");
                prop_assert_eq!(&run, &before, "and changes nothing");
            }
        }
        let of = |kind: Kind| run.plan.steps.iter().filter(move |s| s.kind == kind);
        match run.state() {
            RunState::Completed | RunState::Degraded => {
                prop_assert!(of(Kind::Undoable).chain(of(Kind::Pivot)).all(|s| run.status(s.step) == StepStatus::Done));
            }
            RunState::RolledBack => {
                prop_assert!(!run.is_past_pivot());
                let gone = |status| matches!(status, StepStatus::Pending | StepStatus::Undone);
                prop_assert!(of(Kind::Undoable).all(|s| gone(run.status(s.step))));
            }
            RunState::NeedsOperator { step, .. } => {
                let pivot = of(Kind::Pivot).any(|s| s.step == step);
                let stuck = matches!(run.status(step), StepStatus::Stuck { .. });
                prop_assert!(pivot || stuck);
            }
            state => prop_assert!(false, "ended as {state:?}"),
        }
    }
}

/// Every status of a step of every kind against every event, by hand-written rules that know nothing of the machine.
#[test]
fn every_status_meets_every_event() {
    for step in [Step::FenceOld, Step::OpenPorts, Step::StartServices] {
        for status in 0..8 {
            for event in 0..7 {
                one_cell(step, status, event);
            }
        }
    }
}

const STATUSES: [&str; 8] =
    ["pending", "acting", "done", "failed", "failed-for-good", "skipped", "undoing", "undone"];
const EVENTS: [&str; 7] =
    ["started", "succeeded", "failed", "skipped", "undo-started", "undo-finished", "undo-failed"];

fn event(number: usize) -> Event {
    match number {
        0 => Event::Started,
        1 => Event::Succeeded { facts: Vec::new() },
        2 => Event::Failed { error: "e".into() },
        3 => Event::Skipped { reason: "r".into() },
        4 => Event::UndoStarted,
        5 => Event::UndoFinished,
        _ => Event::UndoFailed { error: "other".into() },
    }
}

fn one_cell(step: Step, status: usize, number: usize) {
    let mut run = a_run();
    let planned = run.plan.step(step).unwrap().clone();
    let entry =
        |step: Step, attempt, event| Entry { step, attempt, event, by: NodeId::from("db1"), at: WallMs(0) };
    let steps: Vec<_> = run.plan.steps.iter().map(|s| s.step).take_while(|s| *s != step).collect();
    for before in steps {
        for ok in [event(0), event(1)] {
            run.record(entry(before, 1, ok)).unwrap();
        }
    }
    let last = planned.attempts;
    let (history, attempt): (Vec<(u32, usize)>, u32) = match STATUSES[status] {
        "pending" => (vec![], 1),
        "acting" => (vec![(1, 0)], 1),
        "done" => (vec![(1, 0), (1, 1)], 1),
        "failed" if last > 1 => (vec![(1, 0), (1, 2)], 2),
        "failed-for-good" => ((1..=last).flat_map(|n| [(n, 0), (n, 2)]).collect(), last + 1),
        "skipped" if planned.kind == Kind::Forward => (vec![(1, 3)], 1),
        "undoing" if planned.kind == Kind::Undoable => {
            ((1..=last).flat_map(|n| [(n, 0), (n, 2)]).chain([(last, 4)]).collect(), last)
        }
        "undone" if planned.kind == Kind::Undoable => {
            ((1..=last).flat_map(|n| [(n, 0), (n, 2)]).chain([(last, 4), (last, 5)]).collect(), last)
        }
        _ => return,
    };
    for (attempt, number) in history {
        run.record(entry(step, attempt, event(number))).unwrap();
    }
    let journal = run.journal.len();
    let legal = run.record(entry(step, attempt, event(number))).is_ok() && run.journal.len() > journal;
    let (kind, status, number) = (planned.kind, STATUSES[status], EVENTS[number]);
    let expected = match (status, number) {
        ("pending" | "failed", "started") => true,
        ("acting", "succeeded" | "failed") => true,
        ("pending" | "acting" | "failed", "skipped") => kind == Kind::Forward,
        // Only a step that failed for good makes the run abort, and only an undoable one does.
        ("failed-for-good", "undo-started") => kind == Kind::Undoable,
        ("undoing", "undo-finished" | "undo-failed") => true,
        _ => false,
    };
    assert_eq!(legal, expected, "{kind:?} {status} meets {number}");
}
