//! The world that a run changes: hosts, their lasting effects, one trouble, and the actors that carry the run on.

use std::collections::BTreeMap;

use baton_runbooks::decide::local::{LocalFacts, Role, Wish, decide_local};
use baton_runbooks::detect::{Detector, Patience};
use baton_runbooks::ledger::{Command, Ledger};
use baton_runbooks::model::{Mono, NodeId, NodeKind, RunId, WallMs};
use baton_runbooks::plan::{Basis, Plan, Runbook, Step};
use baton_runbooks::run::{Entry, Event, Next, Run, RunState, table, takeover};
use baton_runbooks::why::Why;

/// What is true of one data node, and how often each lasting effect was brought about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    pub fenced: bool,
    pub cut: bool,
    pub vip: bool,
    pub drained: bool,
    pub writable: bool,
    pub open: bool,
    pub services: bool,
    /// Effects that were brought about when they did not hold yet.
    pub effects: BTreeMap<Step, u32>,
}

impl Host {
    pub fn fact(&mut self, step: Step) -> Option<&mut bool> {
        match step {
            Step::FenceOld => Some(&mut self.fenced),
            Step::CutStream => Some(&mut self.cut),
            Step::HoldVip => Some(&mut self.vip),
            Step::DrainRelayLog => Some(&mut self.drained),
            Step::PromoteMysql => Some(&mut self.writable),
            Step::OpenPorts => Some(&mut self.open),
            Step::StartIndependent | Step::StartServices => Some(&mut self.services),
            Step::PrepareTarget
            | Step::DrainHolder
            | Step::CloseHolder
            | Step::CatchUp
            | Step::AttachOld
            | Step::Validate => None,
        }
    }

    /// Check, then act.
    pub fn act(&mut self, step: Step) {
        assert!(step != Step::OpenPorts || (self.writable && self.vip), "opened before it could serve");
        if self.fact(step).is_some_and(|holds| !std::mem::replace(holds, true)) {
            *self.effects.entry(step).or_default() += 1;
        }
    }

    pub fn undo(&mut self, step: Step) {
        match step {
            Step::HoldVip => self.vip = false,
            Step::PromoteMysql => self.writable = false,
            // The cut stands until the node follows an open holder.
            Step::FenceOld | Step::CutStream | Step::DrainRelayLog => {}
            Step::PrepareTarget | Step::DrainHolder | Step::CloseHolder | Step::CatchUp | Step::AttachOld => {
                panic!("{step} is no step of a takeover")
            }
            Step::OpenPorts | Step::StartIndependent | Step::StartServices | Step::Validate => {
                panic!("{step} is never undone")
            }
        }
    }

    /// The kernel closes what no lease holds open.
    pub const fn lapse(&mut self) {
        self.vip = false;
        self.open = false;
    }
}

/// What goes wrong at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// The act fails this many times, before or after it had its effect.
    Fails {
        step: Step,
        times: u32,
        after_effect: bool,
    },
    /// The undo of this step fails.
    UndoFails {
        step: Step,
    },
    /// The actor's agent dies: with `Started` applied and nothing done; with the effect there and no outcome.
    Dies {
        step: Step,
        after_effect: bool,
    },
}

pub struct World {
    pub ledger: Ledger,
    pub hosts: BTreeMap<NodeId, Host>,
    pub trouble: Trouble,
    pub failed: u32,
    pub died: bool,
    /// Every act and undo is carried out twice, and every entry is sent twice.
    pub twice: bool,
}

pub fn name(node: &str) -> NodeId {
    NodeId::from(node)
}

impl World {
    /// db1 served and is lost; db2 has everything; the takeover to db2 has been started.
    pub fn new(trouble: Trouble, twice: bool) -> Self {
        let mut world = Self::serving();
        world.host("db1").lapse();
        world.start("db2");
        world.trouble = trouble;
        world.twice = twice;
        world
    }

    /// db1 serves; db2 has everything.
    pub fn serving() -> Self {
        let hosts = ["db1", "db2", "mon"].map(|node| (name(node), Host::default())).into();
        let mut world = Self {
            ledger: Ledger::default(),
            hosts,
            trouble: Trouble::None,
            failed: 0,
            died: false,
            twice: false,
        };
        let members = [("db1", NodeKind::Data), ("db2", NodeKind::Data), ("mon", NodeKind::Witness)];
        let members = members.map(|(node, kind)| (name(node), kind)).into();
        world.apply(Command::Bootstrap {
            cluster: "c".into(),
            members,
            initial_holder: name("db1"),
            mysql: false,
        });
        world.start("db1");
        world.carry_on();
        world
    }

    pub fn apply(&mut self, command: Command) {
        let answer = self.ledger.apply(command);
        assert!(answer.is_accepted(), "{answer:?}");
    }

    pub fn start(&mut self, to: &str) {
        let scope = table::Scope { mysql: true, independent_services: true, services: true };
        let to = name(to);
        let plan = Plan {
            runbook: Runbook::Takeover,
            version: takeover::VERSION,
            epoch: self.ledger.epoch.next(),
            from: self.ledger.holder.clone(),
            basis: Basis {
                epoch: self.ledger.epoch,
                sync: self.ledger.sync_generation,
                target_instance: None,
            },
            why: vec![Why::Vacant],
            detected_ms_ago: None,
            holder_heard_ms: Default::default(),
            asked_by: None,
            drain_patience_ms: 0,
            steps: takeover::steps(&to, self.ledger.witness(), scope),
            to,
        };
        self.apply(Command::StartRun { plan: Box::new(plan), at: WallMs(0) });
    }

    pub fn host(&mut self, node: &str) -> &mut Host {
        self.hosts.get_mut(&name(node)).unwrap()
    }

    pub fn journal(&mut self, run: &Run, step: Step, attempt: u32, event: Event) {
        let by = run.plan.step(step).unwrap().actor.clone();
        let entries = vec![Entry { step, attempt, event, by, at: WallMs(0) }];
        let command = Command::Journal { run: run.id, epoch: run.plan.epoch, entries };
        self.apply(command.clone());
        if self.twice && self.ledger.run.is_some() {
            // A repeated entry is accepted, or the run has ended with it.
            let before = self.ledger.clone();
            let _ = self.ledger.apply(command);
            assert_eq!(self.ledger, before, "an entry that comes twice changes nothing");
        }
    }

    /// Every actor does what the ledger asks of it, until nothing is left to do or the actor has died.
    pub fn carry_on(&mut self) {
        for _ in 0..200 {
            let Some(run) = self.ledger.run.clone() else { return };
            let todo =
                ["db1", "db2", "mon"].into_iter().find_map(|node| run.next(&name(node)).into_iter().next());
            let Some(next) = todo else { return };
            self.do_one(&run, &next);
            if self.died {
                return;
            }
        }
        panic!("the run does not end: {:?}", self.ledger.run);
    }

    pub fn do_one(&mut self, run: &Run, next: &Next) {
        match next {
            Next::Act { step, attempt } => self.journal(run, *step, *attempt, Event::Started),
            Next::Resume { step, attempt } => self.act(run, *step, *attempt),
            Next::Undo { step, resumed: false } => self.journal(run, *step, 1, Event::UndoStarted),
            Next::Undo { step, resumed: true } => {
                if self.trouble == (Trouble::UndoFails { step: *step }) {
                    self.journal(run, *step, 1, Event::UndoFailed { error: "no".into() });
                    return;
                }
                let actor = run.plan.step(*step).unwrap().actor.clone();
                for _ in 0..self.times() {
                    match run.plan.runbook {
                        Runbook::Takeover => self.hosts.get_mut(&actor).unwrap().undo(*step),
                        Runbook::Switchover => self.undo_passing(&actor, *step),
                    }
                }
                self.journal(run, *step, 1, Event::UndoFinished);
            }
        }
    }

    pub const fn times(&self) -> u32 {
        if self.twice { 2 } else { 1 }
    }

    pub fn act(&mut self, run: &Run, step: Step, attempt: u32) {
        let actor = run.plan.step(step).unwrap().actor.clone();
        let dies = |late| self.trouble == Trouble::Dies { step, after_effect: late } && self.failed == 0;
        if dies(false) {
            (self.died, self.failed) = (true, 1);
            return;
        }
        let late = dies(true);
        let fails = match self.trouble {
            Trouble::Fails { step: at, times, after_effect } if at == step && self.failed < times => {
                Some(after_effect)
            }
            // The undo is what this trouble is about; something has to fail for it to be wanted.
            Trouble::UndoFails { .. } if step == Step::PromoteMysql || step == Step::CatchUp => Some(true),
            Trouble::None | Trouble::Fails { .. } | Trouble::UndoFails { .. } | Trouble::Dies { .. } => None,
        };
        if fails != Some(false) {
            for _ in 0..self.times() {
                match run.plan.runbook {
                    Runbook::Takeover => self.hosts.get_mut(&actor).unwrap().act(step),
                    Runbook::Switchover => self.act_passing(&actor, step),
                }
            }
        }
        if late {
            (self.died, self.failed) = (true, 1);
        } else if fails.is_some() {
            self.failed += 1;
            self.journal(run, step, attempt, Event::Failed { error: "no".into() });
        } else {
            self.journal(run, step, attempt, Event::Succeeded { facts: Vec::new() });
        }
    }

    /// What a data node is by itself, from the ledger.
    pub fn wish(&self, node: &str) -> Wish {
        let patience = Patience {
            refused_count: 2,
            hung_ms: 1,
            stalled_ms: 1,
            disk_free_min: 1,
            settle_ms: 1,
            service_lost_ms: 1,
            link_lost_ms: 1,
        };
        decide_local(&LocalFacts {
            now: Mono(0),
            me: &name(node),
            ledger: &self.ledger,
            lease: Some((self.ledger.epoch, Mono(1_000))),
            detector: &Detector::new(patience),
            boots_writable: false,
            redis_boots_open: false,
            waiting: 0,
            semi_sync_broken: None,
            service_lost: None,
            redis_empty: None,
            redis_restarted: None,
            redis_server: None,
            gateway_lost: None,
            other_lacks: &|| None,
            releasing: None,
            mysql: true,
            redis: false,
        })
    }

    /// The hands make each data node what it is by itself, as far as that is closed.
    pub fn reconcile(&mut self) {
        for node in ["db1", "db2"] {
            if let Role::Closed { .. } = self.wish(node).role {
                let host = self.host(node);
                host.lapse();
                host.writable = false;
                host.services = false;
            }
        }
    }

    pub fn outcome(&self, run: RunId) -> RunState {
        let ended =
            self.ledger.history.iter().find(|ended| ended.run.id == run).map(|ended| ended.state.clone());
        ended.or_else(|| self.ledger.run.as_ref().map(Run::state)).unwrap()
    }

    /// The world agrees with what the ledger claims of run 2.
    pub fn agrees(&mut self) -> RunState {
        let state = self.outcome(RunId(2));
        self.reconcile();
        let (db1, db2) = (self.hosts[&name("db1")].clone(), self.hosts[&name("db2")].clone());
        assert!(!db1.vip && !db1.open, "the lost holder stays closed");
        let serves = db2.vip && db2.open && db2.writable;
        match &state {
            RunState::Completed | RunState::Degraded => assert!(serves, "{db2:?}"),
            RunState::RolledBack => {
                assert!(!db2.vip && !db2.open && !db2.writable, "{db2:?}");
                assert_eq!(self.ledger.holder, None);
            }
            RunState::Abandoned => assert!(!db2.vip && !db2.open && !db2.writable, "{db2:?}"),
            RunState::NeedsOperator { .. } => {
                assert!(!db2.vip && !db2.open && !db2.writable && !db1.writable, "closed to writes: {db2:?}");
            }
            RunState::Running | RunState::Undoing => panic!("nobody ended the run: {state:?}"),
        }
        let again = db2.effects.iter().find(|(step, times)| **times > 1 && **step != Step::StartServices);
        let undone = matches!(state, RunState::RolledBack | RunState::NeedsOperator { .. });
        assert!(again.is_none() || undone, "an effect twice: {again:?}");
        state
    }
}
