//! The contract that every runbook passes, against a model of the *world*, not of the journal: each act and undo twice is the
//! same as once; an error at each step; a crash at each boundary of the journal, resumed by the same node or abandoned by the
//! leader; an old actor that goes on. In the end the world agrees with what the ledger claims. Here for the takeover, in
//! `passing` for the switchover.
#![allow(clippy::unwrap_used)]

#[path = "contract/passing.rs"]
mod passing;
#[path = "contract/world.rs"]
mod world;

use baton_runbooks::ledger::Command;
use baton_runbooks::model::{Epoch, RunId, WallMs};
use baton_runbooks::plan::{Kind, Step};
use baton_runbooks::run::{Entry, Event, RunState, takeover};
use world::{Trouble, World, name};

const fn is_before_pivot(step: Step) -> bool {
    match step {
        Step::PrepareTarget
        | Step::DrainHolder
        | Step::CloseHolder
        | Step::CatchUp
        | Step::FenceOld
        | Step::CutStream
        | Step::HoldVip
        | Step::DrainRelayLog
        | Step::PromoteMysql => true,
        Step::OpenPorts | Step::StartIndependent | Step::StartServices | Step::AttachOld | Step::Validate => {
            false
        }
    }
}

#[test]
fn each_act_and_undo_twice_is_the_same_as_once() {
    let failing = Trouble::Fails { step: Step::PromoteMysql, times: 9, after_effect: true };
    for trouble in [Trouble::None, failing] {
        let [mut once, mut twice] = [false, true].map(|twice| World::new(trouble, twice));
        once.carry_on();
        twice.carry_on();
        assert_eq!(once.agrees(), twice.agrees());
        let plain = |world: &World| {
            world.hosts.values().map(|h| (h.vip, h.open, h.writable, h.cut, h.services)).collect::<Vec<_>>()
        };
        assert_eq!(plain(&once), plain(&twice));
    }
}

#[test]
fn an_error_at_each_step() {
    for def in takeover::TABLE {
        for after_effect in [false, true] {
            for times in 1..=def.attempts {
                let mut world = World::new(Trouble::Fails { step: def.step, times, after_effect }, false);
                world.carry_on();
                let state = world.agrees();
                let expected = match (times < def.attempts, def.kind) {
                    (true, _) => state == RunState::Completed,
                    (false, Kind::Undoable) => state == RunState::RolledBack,
                    (false, Kind::Pivot) => matches!(state, RunState::NeedsOperator { .. }),
                    (false, Kind::Forward) => state == RunState::Degraded,
                };
                assert!(expected, "{} fails {times} times: {state:?}", def.step);
            }
        }
    }
}

#[test]
fn an_undo_that_fails_needs_an_operator() {
    for step in [Step::FenceOld, Step::CutStream, Step::HoldVip, Step::DrainRelayLog, Step::PromoteMysql] {
        let mut world = World::new(Trouble::UndoFails { step }, false);
        world.carry_on();
        let state = world.agrees();
        assert!(matches!(state, RunState::NeedsOperator { step: at, .. } if at == step), "{step}: {state:?}");
    }
}

#[test]
fn a_crash_at_each_boundary_is_resumed_by_the_same_node() {
    for def in takeover::TABLE {
        for after_effect in [false, true] {
            let mut world = World::new(Trouble::Dies { step: def.step, after_effect }, false);
            world.carry_on();
            assert!(world.died, "{} was never reached", def.step);
            world.died = false;
            world.carry_on();
            assert_eq!(world.agrees(), RunState::Completed, "{} after_effect {after_effect}", def.step);
        }
    }
}

/// The actor stays away. Before the pivot the leader abandons the run and the baton goes back; after it nothing is taken back,
/// and only a forward step can be given up.
#[test]
fn a_crash_at_each_boundary_is_abandoned_or_kept() {
    for def in takeover::TABLE {
        for after_effect in [false, true] {
            let mut world = World::new(Trouble::Dies { step: def.step, after_effect }, false);
            world.carry_on();
            let run = world.ledger.run.clone().unwrap();
            let abandon = Command::AbandonRun {
                run: run.id,
                epoch: run.plan.epoch,
                reason: "away".into(),
                at: WallMs(0),
            };
            let accepted = world.ledger.apply(abandon).is_accepted();
            assert_eq!(accepted, !run.is_past_pivot(), "{}", def.step);
            if !accepted {
                continue;
            }
            world.hosts.get_mut(&name("db2")).unwrap().lapse();
            assert_eq!(world.agrees(), RunState::Abandoned);
            world.died = false;
            world.start("db1");
            world.carry_on();
            assert_eq!(world.outcome(RunId(3)), RunState::Completed);
            world.reconcile();
            assert!(world.hosts[&name("db1")].open && !world.hosts[&name("db2")].open);
        }
    }
}

/// An actor that slept through the end of its run goes on with what it had in mind: every entry of it is refused, and it has
/// nothing to do any more. What it does to its own host is closed by the kernel and taken back by its own agent.
#[test]
fn an_old_actor_is_refused() {
    for def in takeover::TABLE.iter().filter(|def| is_before_pivot(def.step)) {
        let mut world = World::new(Trouble::Dies { step: def.step, after_effect: true }, false);
        world.carry_on();
        let old = world.ledger.run.clone().unwrap();
        let abandon =
            Command::AbandonRun { run: old.id, epoch: old.plan.epoch, reason: "away".into(), at: WallMs(0) };
        world.apply(abandon);
        world.start("db1");
        let before = world.ledger.clone();
        for planned in &old.plan.steps {
            for event in [
                Event::Started,
                Event::Succeeded { facts: Vec::new() },
                Event::UndoStarted,
                Event::UndoFinished,
            ] {
                for epoch in [old.plan.epoch, before.epoch, Epoch(0)] {
                    for run in [old.id, before.runs] {
                        let entry = Entry {
                            step: planned.step,
                            attempt: 1,
                            event: event.clone(),
                            by: name("db2"),
                            at: WallMs(0),
                        };
                        let command = Command::Journal { run, epoch, entries: vec![entry] };
                        assert!(!world.ledger.apply(command).is_accepted(), "{} {event:?}", planned.step);
                    }
                }
            }
        }
        assert_eq!(world.ledger, before);
        assert!(world.ledger.run.as_ref().unwrap().next(&name("db2")).is_empty());
    }
}

#[test]
fn after_the_pivot_nothing_is_undone() {
    for def in takeover::TABLE.iter().filter(|def| !is_before_pivot(def.step)) {
        let mut world = World::new(Trouble::Fails { step: def.step, times: 99, after_effect: true }, false);
        world.carry_on();
        let state = world.agrees();
        assert!(!matches!(state, RunState::RolledBack | RunState::Abandoned), "{}: {state:?}", def.step);
        let runs = world.ledger.history.iter().map(|ended| &*ended.run).chain(world.ledger.run.as_ref());
        let undone = runs.flat_map(|run| &run.journal).any(|entry| entry.event == Event::UndoStarted);
        assert!(!undone, "{}", def.step);
    }
}
