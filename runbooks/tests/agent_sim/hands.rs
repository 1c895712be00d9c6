//! The fake hands: what the driver, its executors and the keeper's hands do in the real agent.

use baton_runbooks::agent::{Input, Output, Stamped, StepResult};
use baton_runbooks::decide::local::Role;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::Command;
use baton_runbooks::model::WallMs;
use baton_runbooks::observe::Observation;
use baton_runbooks::plan::Step;
use baton_runbooks::sync::Keep;

use crate::node::{Job, NAMES};
use crate::raft::Proposal;
use crate::world::World;

const BOTH: [Door; 2] = [Door::Vip, Door::Ports];

impl World {
    pub fn feed(&mut self, node: usize, input: Input) {
        let (now, wall) = (self.nodes[node].local(self.now), WallMs(self.now));
        let Some(agent) = &mut self.nodes[node].agent else { return };
        for output in agent.handle(Stamped { now, wall, input }) {
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Propose { ticket, command, as_leader, ends } => {
                if let Command::Release { .. } = command {
                    self.close(node, &BOTH);
                }
                if ends.is_some_and(|epoch| !self.end(node, epoch)) {
                    self.later(node, 5, Input::Proposed { ticket, accepted: Some(false) });
                    return;
                }
                self.propose(node, ticket, command, as_leader.map(|term| term.0));
            }
            Output::RunStep { run, epoch, attempt, planned } => {
                self.spawn(node, Job { due: 0, deadline: 0, run, epoch, attempt, planned, undo: false });
            }
            Output::UndoStep { run, epoch, attempt, planned } => {
                self.spawn(node, Job { due: 0, deadline: 0, run, epoch, attempt, planned, undo: true });
            }
            Output::Wish { wish } => {
                let why: Vec<String> = wish.why.iter().map(ToString::to_string).collect();
                self.tell(format!("{} is to be {:?}: {}", NAMES[node], wish.role, why.join(", ")));
                self.nodes[node].wish = Some(wish);
                self.reconcile(node);
            }
            Output::Keep { keep } => self.keep(node, &keep),
            Output::Decided { decision } => {
                let why: Vec<String> = decision.why.iter().map(ToString::to_string).collect();
                self.tell(format!(
                    "{} decides {}: {}",
                    NAMES[node],
                    decision.action.as_str(),
                    why.join(", ")
                ));
            }
        }
    }

    fn end(&mut self, node: usize, epoch: baton_runbooks::model::Epoch) -> bool {
        let office = self.office(node);
        let released = self.applied(node).released.as_ref().map(|released| released.boot);
        let it = &mut self.nodes[node];
        if self.options.blind_end {
            it.granter.end(epoch);
            return true;
        }
        it.granter.end_if_over(it.local(self.now), &office, epoch, released)
    }

    fn propose(&mut self, node: usize, ticket: u64, command: Command, as_leader: Option<u64>) {
        let boot = self.nodes[node].boot;
        self.nodes[node].proposals.push(self.now);
        let chaos = !self.is_calm();
        let mut delay = self.rng.range(2, 12);
        let mut silent = false;
        if chaos && self.rng.chance(5) {
            self.tell(format!("{}: lost: {command}", NAMES[node]));
            self.later(node, 500, Input::Proposed { ticket, accepted: None });
            return;
        }
        if chaos && self.rng.chance(5) {
            silent = true;
            delay += if as_leader.is_some() { 0 } else { self.rng.range(0, 2_500) };
            self.later(node, 500, Input::Proposed { ticket, accepted: None });
        }
        let due = self.now + delay;
        self.raft.proposals.push(Proposal { due, from: node, boot, ticket, command, as_leader, silent });
    }

    pub fn close(&mut self, node: usize, doors: &[Door]) {
        for door in doors {
            self.nodes[node].holder.close(*door);
            self.nodes[node].gate.void(*door);
        }
    }

    fn open(&mut self, node: usize, door: Door) {
        if !self.nodes[node].holder.is_open(door) {
            self.nodes[node].holder.open(door);
            self.renew(node);
        }
    }

    /// Makes the node what the newest wish says, whatever it finds. Repeated.
    pub fn reconcile(&mut self, node: usize) {
        let Some(wish) = self.nodes[node].wish.clone() else { return };
        if self.nodes[node].holder.epoch() != wish.renew {
            self.close(node, &BOTH);
            self.nodes[node].holder.appoint(wish.renew);
            self.renew(node);
        }
        match wish.role {
            Role::Witness | Role::Acquiring { .. } | Role::Receiving { .. } => {}
            Role::Closed { follow } => {
                self.close(node, &BOTH);
                if self.nodes[node].db.as_ref().unwrap().answers(self.now) {
                    self.nodes[node].db.as_mut().unwrap().read_only = true;
                    if let Some(other) =
                        follow.and_then(|name| NAMES.iter().position(|n| *n == name.as_str()))
                    {
                        self.follow(node, other);
                    }
                }
            }
            Role::Serving { ports, semi_sync, .. } => {
                self.open(node, Door::Vip);
                if !ports {
                    self.close(node, &[Door::Ports]);
                } else if self.nodes[node].db.as_ref().unwrap().answers(self.now) {
                    self.open_database(node, semi_sync);
                    self.open(node, Door::Ports);
                }
            }
        }
    }

    /// A replica again, if it has nothing that the other lacks.
    fn follow(&mut self, node: usize, other: usize) {
        let db = self.nodes[node].db.as_ref().unwrap();
        let is_set = db.follows == Some(other) && db.sql_running && !db.cut;
        let is_subset = || db.executed.is_subset(&self.nodes[other].db.as_ref().unwrap().executed);
        if !is_set && is_subset() {
            let db = self.nodes[node].db.as_mut().unwrap();
            db.follows = Some(other);
            db.sql_running = true;
            db.cut = false;
            db.source = false;
            db.waiting.clear();
            db.threads += 1;
            db.received = db.executed.clone();
            db.received_canary = db.canary;
        }
    }

    fn open_database(&mut self, node: usize, semi_sync: bool) {
        let db = self.nodes[node].db.as_ref().unwrap();
        let (server, read_only) = (db.server(), db.read_only);
        if self.nodes[node].opened.as_ref() != Some(&server) {
            self.nodes[node].opened = Some(server.clone());
            self.feed(node, Input::Opening { server });
        } else if !read_only {
            return;
        }
        let db = self.nodes[node].db.as_mut().unwrap();
        if semi_sync {
            db.source = true;
        }
        db.follows = None;
        db.read_only = false;
    }

    fn keep(&mut self, node: usize, keep: &Keep) {
        let at = self.now;
        self.tell(format!("{} keeps {keep:?}", NAMES[node]));
        if !self.nodes[node].db.as_ref().unwrap().answers(at) || !self.is_writable(node) {
            return;
        }
        match keep {
            Keep::SourceOn => self.nodes[node].db.as_mut().unwrap().source = true,
            Keep::SourceOff => {
                let db = self.nodes[node].db.as_mut().unwrap();
                db.source = false;
                db.no_tx += db.waiting.len() as u64;
                let waiting = std::mem::take(&mut db.waiting);
                for one in waiting {
                    self.commit_ends(node, one);
                }
            }
            Keep::Canary => self.canary(node),
            Keep::Nothing | Keep::ProposeOut { .. } | Keep::ProposeIn { .. } => {}
        }
    }

    fn spawn(&mut self, node: usize, mut job: Job) {
        let what = if job.undo { "undoes" } else { "does" };
        self.tell(format!("{} {what} {} attempt {}", NAMES[node], job.planned.step, job.attempt));
        job.due =
            self.now + if self.rng.chance(10) { self.rng.range(100, 900) } else { self.rng.range(3, 60) };
        job.deadline = self.now + job.planned.limit_ms.min(20_000);
        self.nodes[node].jobs.push(job);
    }

    pub fn work(&mut self, node: usize) {
        let at = self.now;
        let (due, rest) =
            std::mem::take(&mut self.nodes[node].jobs).into_iter().partition(|job| job.due <= at);
        self.nodes[node].jobs = rest;
        let due: Vec<Job> = due;
        for mut job in due {
            // The node's own fence: a run that is not the newest that was applied here is not acted upon.
            let current = self.applied(node).run.as_ref().is_some_and(|run| run.id == job.run);
            if !current {
                continue;
            }
            let result = if job.undo { Some(self.undo(node, &job)) } else { self.act(node, &job) };
            let Some(result) = result.or_else(|| (at >= job.deadline).then(|| failed("time limit"))) else {
                job.due = at + 20;
                self.nodes[node].jobs.push(job);
                continue;
            };
            let (run, epoch, step, attempt, undo) =
                (job.run, job.epoch, job.planned.step, job.attempt, job.undo);
            self.feed(node, Input::StepEnded { run, epoch, step, attempt, undo, result });
        }
    }

    /// `None`: not yet.
    fn act(&mut self, node: usize, job: &Job) -> Option<StepResult> {
        let at = self.now;
        let before_pivot =
            matches!(job.planned.step, Step::CutStream | Step::DrainRelayLog | Step::PromoteMysql);
        if before_pivot && !self.is_calm() && self.rng.chance(4) {
            return Some(failed("bad luck"));
        }
        match job.planned.step {
            Step::PrepareTarget
            | Step::DrainHolder
            | Step::CloseHolder
            | Step::CatchUp
            | Step::AttachOld
            | Step::FenceOld
            | Step::StartIndependent
            | Step::StartServices => Some(done()),
            Step::Validate => (0..2).any(|data| self.nodes[data].gate.is_open(Door::Vip, at)).then(done),
            Step::HoldVip => {
                self.open(node, Door::Vip);
                self.nodes[node].gate.is_open(Door::Vip, at).then(done)
            }
            Step::CutStream | Step::DrainRelayLog | Step::PromoteMysql | Step::OpenPorts
                if !self.nodes[node].db.as_ref().unwrap().answers(at) =>
            {
                None
            }
            Step::CutStream => Some(self.cut_stream(node)),
            Step::DrainRelayLog => {
                let db = self.nodes[node].db.as_mut().unwrap();
                db.executed.extend(db.received.iter().copied());
                db.canary = db.canary.max(db.received_canary);
                Some(done())
            }
            Step::PromoteMysql => {
                let db = self.nodes[node].db.as_mut().unwrap();
                if db.follows.take().is_some() {
                    db.threads += 1;
                    db.sql_running = false;
                }
                db.source = false;
                self.open_database(node, false);
                Some(done())
            }
            Step::OpenPorts => {
                self.open(node, Door::Vip);
                self.open(node, Door::Ports);
                self.nodes[node].gate.is_open(Door::Ports, at).then(done)
            }
        }
    }

    fn cut_stream(&mut self, node: usize) -> StepResult {
        let run = self.applied(node).run.clone().unwrap();
        let db = self.nodes[node].db.as_mut().unwrap();
        if run.plan.basis.target_instance.is_some_and(|seen| seen != db.instance()) {
            return failed("another instance than the plan's");
        }
        db.cut = true;
        done()
    }

    fn undo(&mut self, node: usize, job: &Job) -> StepResult {
        match job.planned.step {
            Step::HoldVip => self.close(node, &[Door::Vip]),
            Step::PromoteMysql => self.nodes[node].db.as_mut().unwrap().read_only = true,
            Step::PrepareTarget
            | Step::DrainHolder
            | Step::CloseHolder
            | Step::CatchUp
            | Step::AttachOld
            | Step::FenceOld
            | Step::CutStream
            | Step::DrainRelayLog
            | Step::OpenPorts
            | Step::StartIndependent
            | Step::StartServices
            | Step::Validate => {}
        }
        done()
    }

    pub fn kill_mysql(&mut self, node: usize, for_ms: u64) {
        let at = self.now;
        let it = &mut self.nodes[node];
        let Some(db) = &mut it.db else { return };
        let server = db.server();
        db.stop();
        it.db_down_until = it.db_down_until.max(at + for_ms);
        if it.is_able(at) {
            self.close(node, &[Door::Ports]);
            self.later(node, 1, Input::Observed { observation: Observation::MysqlExited { server } });
        }
    }
}

fn done() -> StepResult {
    StepResult::Done { facts: Vec::new() }
}

fn failed(error: &str) -> StepResult {
    StepResult::Failed { error: error.to_owned() }
}
