//! The contract of the switchover: what its steps do to the world, and the same troubles as for the takeover.

use baton_runbooks::decide::local::Role;
use baton_runbooks::ledger::Command;
use baton_runbooks::model::{NodeId, RunId, WallMs};
use baton_runbooks::plan::{Basis, Kind, Plan, Runbook, Step};
use baton_runbooks::run::{Entry, Event, RunState, switchover, table};

use crate::is_before_pivot;
use crate::world::{Host, Trouble, World, name};

impl World {
    /// db1 serves; the switchover to db2 has been started.
    fn passing(trouble: Trouble, twice: bool) -> Self {
        let mut world = Self::serving();
        world.pass();
        world.trouble = trouble;
        world.twice = twice;
        world
    }

    fn pass(&mut self) {
        let scope = table::Scope { mysql: true, independent_services: true, services: true };
        let (from, to) = (name("db1"), name("db2"));
        let (epoch, sync) = (self.ledger.epoch, self.ledger.sync_generation);
        let waits = switchover::Waits { patience_ms: 5_000, new_leader_ms: 1_470 };
        let plan = Plan {
            runbook: Runbook::Switchover,
            version: switchover::VERSION,
            epoch: epoch.next(),
            basis: Basis { epoch, sync, target_instance: None },
            why: Vec::new(),
            detected_ms_ago: None,
            holder_heard_ms: Default::default(),
            asked_by: Some("an operator".to_owned()),
            drain_patience_ms: 5_000,
            steps: switchover::steps(&from, &to, self.ledger.witness(), scope, waits),
            from: Some(from),
            to,
        };
        self.apply(Command::StartRun { plan: Box::new(plan), at: WallMs(0) });
    }

    pub fn act_passing(&mut self, actor: &NodeId, step: Step) {
        let old = self.hosts[&name("db1")].clone();
        let host = self.hosts.get_mut(actor).unwrap();
        match step {
            Step::PrepareTarget | Step::AttachOld | Step::Validate => {}
            Step::DrainHolder => host.services = false,
            Step::CloseHolder => (host.open, host.writable) = (false, false),
            Step::CatchUp => {
                assert!(!old.open && !old.writable, "it caught up with a holder that goes on");
                (host.cut, host.writable) = (true, true);
            }
            Step::OpenPorts => {
                assert!(host.writable && !old.open && !old.writable, "opened beside the old holder");
                (host.vip, host.open) = (true, true);
                // It lets go as soon as it sees who the ledger's holder is, and before the new one is granted a lease.
                self.host("db1").lapse();
            }
            Step::StartIndependent | Step::StartServices => {
                assert!(host.open && !old.services, "services beside those of the old holder");
                host.services = true;
            }
            Step::FenceOld | Step::CutStream | Step::HoldVip | Step::DrainRelayLog | Step::PromoteMysql => {
                panic!("{step} is no step of a switchover")
            }
        }
    }

    pub fn undo_passing(&mut self, actor: &NodeId, step: Step) {
        let target = self.hosts[&name("db2")].clone();
        let host = self.hosts.get_mut(actor).unwrap();
        match step {
            Step::PrepareTarget => {}
            Step::DrainHolder => host.services = true,
            Step::CloseHolder => {
                assert!(!target.writable, "the old holder opens beside a target that takes writes");
                (host.open, host.writable) = (true, true);
            }
            // The cut stands until the node follows an open holder.
            Step::CatchUp => host.writable = false,
            Step::OpenPorts
            | Step::StartIndependent
            | Step::StartServices
            | Step::AttachOld
            | Step::Validate => panic!("{step} is never undone"),
            Step::FenceOld | Step::CutStream | Step::HoldVip | Step::DrainRelayLog | Step::PromoteMysql => {
                panic!("{step} is no step of a switchover")
            }
        }
    }

    /// The holder of a switchover that was given up makes itself what it is by itself: open, with its services.
    fn reopen(&mut self) {
        let role = self.wish("db1").role;
        assert!(matches!(role, Role::Serving { ports: true, services: true, .. }), "{role:?}");
        let host = self.host("db1");
        (host.vip, host.open, host.writable, host.services) = (true, true, true, true);
    }

    /// The world agrees with what the ledger claims of run 2, the switchover.
    fn agrees_on_passing(&mut self) -> RunState {
        let state = self.outcome(RunId(2));
        self.reconcile();
        if state == RunState::Abandoned {
            self.reopen();
        }
        let (db1, db2) = (&self.hosts[&name("db1")], &self.hosts[&name("db2")]);
        let serves = |host: &Host| host.vip && host.open && host.writable;
        let is_shut = |host: &Host| !host.vip && !host.open && !host.writable;
        match &state {
            RunState::Completed | RunState::Degraded => {
                assert!(serves(db2) && is_shut(db1) && !db1.services, "{db1:?} {db2:?}");
                assert_eq!(self.ledger.holder, Some(name("db2")));
            }
            RunState::RolledBack | RunState::Abandoned => {
                assert!(serves(db1) && db1.services && is_shut(db2) && !db2.services, "{db1:?} {db2:?}");
                assert_eq!(self.ledger.holder, Some(name("db1")));
            }
            RunState::NeedsOperator { step, .. } if is_before_pivot(*step) => {
                let both = db1.writable && db2.writable;
                assert!(!(db2.vip || db2.open || both), "{db1:?} {db2:?}");
                assert_eq!(self.ledger.holder, Some(name("db1")));
            }
            RunState::NeedsOperator { .. } => assert!(is_shut(db1) && is_shut(db2), "{db1:?} {db2:?}"),
            RunState::Running | RunState::Undoing => panic!("nobody ended the run: {state:?}"),
        }
        state
    }
}

#[test]
fn each_act_and_undo_twice_is_the_same_as_once() {
    let failing = Trouble::Fails { step: Step::CatchUp, times: 9, after_effect: true };
    for trouble in [Trouble::None, failing] {
        let [mut once, mut twice] = [false, true].map(|twice| World::passing(trouble, twice));
        once.carry_on();
        twice.carry_on();
        assert_eq!(once.agrees_on_passing(), twice.agrees_on_passing());
        assert_eq!(once.hosts, twice.hosts);
    }
}

#[test]
fn an_error_at_each_step() {
    for def in switchover::TABLE {
        for after_effect in [false, true] {
            for times in 1..=def.attempts {
                let mut world = World::passing(Trouble::Fails { step: def.step, times, after_effect }, false);
                world.carry_on();
                let state = world.agrees_on_passing();
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
    for def in switchover::TABLE.iter().filter(|def| def.kind == Kind::Undoable) {
        let mut world = World::passing(Trouble::UndoFails { step: def.step }, false);
        world.carry_on();
        let state = world.agrees_on_passing();
        let is_there = matches!(state, RunState::NeedsOperator { step, .. } if step == def.step);
        assert!(is_there, "{}: {state:?}", def.step);
    }
}

#[test]
fn a_crash_at_each_boundary_is_resumed_by_the_same_node() {
    for def in switchover::TABLE {
        for after_effect in [false, true] {
            let mut world = World::passing(Trouble::Dies { step: def.step, after_effect }, false);
            world.carry_on();
            assert!(world.died, "{} was never reached", def.step);
            world.died = false;
            world.carry_on();
            assert_eq!(world.agrees_on_passing(), RunState::Completed, "{} {after_effect}", def.step);
        }
    }
}

/// The actor stays away. Before the pivot the leader abandons the run, the old holder opens again, and nothing that the old run's
/// actors say counts any more; a new switchover comes to its end. After the pivot nothing is taken back.
#[test]
fn a_crash_at_each_boundary_is_abandoned_or_kept() {
    for def in switchover::TABLE {
        for after_effect in [false, true] {
            let mut world = World::passing(Trouble::Dies { step: def.step, after_effect }, false);
            world.carry_on();
            let old = world.ledger.run.clone().unwrap();
            let (run, epoch, at) = (old.id, old.plan.epoch, WallMs(0));
            let abandon = Command::AbandonRun { run, epoch, reason: "away".into(), at };
            let accepted = world.ledger.apply(abandon).is_accepted();
            assert_eq!(accepted, is_before_pivot(def.step), "{}", def.step);
            if !accepted {
                continue;
            }
            assert_eq!(world.agrees_on_passing(), RunState::Abandoned, "{}", def.step);
            world.pass();
            let before = world.ledger.clone();
            for planned in &old.plan.steps {
                for event in [
                    Event::Started,
                    Event::Succeeded { facts: Vec::new() },
                    Event::UndoStarted,
                    Event::UndoFinished,
                ] {
                    let (step, by) = (planned.step, planned.actor.clone());
                    let entries = vec![Entry { step, attempt: 1, event, by, at }];
                    assert!(
                        !world.ledger.apply(Command::Journal { run, epoch, entries }).is_accepted(),
                        "{step}"
                    );
                }
            }
            assert_eq!(world.ledger, before);
            world.died = false;
            world.carry_on();
            assert_eq!(world.outcome(RunId(3)), RunState::Completed);
            world.reconcile();
            assert!(world.hosts[&name("db2")].open && !world.hosts[&name("db1")].open);
        }
    }
}

#[test]
fn after_the_pivot_nothing_is_undone() {
    for def in switchover::TABLE.iter().filter(|def| !is_before_pivot(def.step)) {
        let mut world =
            World::passing(Trouble::Fails { step: def.step, times: 99, after_effect: true }, false);
        world.carry_on();
        let state = world.agrees_on_passing();
        assert!(!matches!(state, RunState::RolledBack | RunState::Abandoned), "{}: {state:?}", def.step);
        let runs = world.ledger.history.iter().map(|ended| &*ended.run).chain(world.ledger.run.as_ref());
        let undone = runs.flat_map(|run| &run.journal).any(|entry| entry.event == Event::UndoStarted);
        assert!(!undone, "{}", def.step);
    }
}
