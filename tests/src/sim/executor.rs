//! The executor: one step each, check, act, verify; its effects are noted for the invariants.

use baton_runbooks::agent::{Input, StepResult};
use baton_runbooks::lease::holder::Door;
use baton_runbooks::plan::Step;
use baton_runbooks::run::{Run, StepStatus};

use super::event::{Event, Job};
use super::mysql::TxSet;
use super::node::{DATA, NAMES};
use super::planted::Planted;
use super::world::World;
use crate::invariants::Effect;

/// Milliseconds until a step that cannot go on looks again.
const AGAIN_MS: u64 = 20;

/// A drain that makes no progress for this long fails, in milliseconds.
pub(super) const STILL_MS: u64 = 3_000;

impl World {
    /// A step, or an undo, is given to an executor.
    pub(super) fn spawn(&mut self, node: usize, mut job: Job) {
        let what = if job.undo { "undoes" } else { "does" };
        self.tell(|| format!("{} {what} {} attempt {}", NAMES[node], job.planned.step, job.attempt));
        let slow = self.rng.chance(self.swarm.step_slow);
        let due = self.now + if slow { self.rng.range(100, 900) } else { self.rng.range(3, 60) };
        let due = if job.planned.step == Step::DrainHolder && !job.undo {
            due + self.transactions_last(node)
        } else {
            due
        };
        let limit_ms = if job.planned.step == Step::DrainRelayLog { STILL_MS } else { job.planned.limit_ms };
        job.deadline = self.now + limit_ms;
        let boot = self.nodes[node].boot;
        if self.has(Planted::StepExecutedTwice) && !job.undo {
            let again = Job { silent: true, ..job.clone() };
            self.queue.put(due + 150, Event::Step(node, boot, Box::new(again)));
        }
        self.queue.put(due, Event::Step(node, boot, Box::new(job)));
    }

    /// It acts now, or looks again a little later.
    pub(super) fn work(&mut self, node: usize, mut job: Box<Job>) {
        let unchecked = job.silent || self.has(Planted::OldActorNotChecked);
        let result = if !unchecked && !self.is_current(node, &job) {
            Some(failed("stale"))
        } else if job.undo {
            self.undo(node, &job)
        } else {
            self.act(node, &mut job)
        };
        let result = result.or_else(|| (self.now >= job.deadline).then(|| failed("time limit")));
        let Some(result) = result else {
            let boot = self.nodes[node].boot;
            self.queue.put(self.now + AGAIN_MS, Event::Step(node, boot, job));
            return;
        };
        if job.silent {
            return;
        }
        let (run, epoch, step, attempt, undo) = (job.run, job.epoch, job.planned.step, job.attempt, job.undo);
        self.feed(node, Input::StepEnded { run, epoch, step, attempt, undo, result });
    }

    /// The node's own fence, before each effect: the epoch, the run and the step still are as they were when it was asked
    /// for. A switchover's epoch has not begun before its pivot, so it is the run that names the epoch.
    fn is_current(&self, node: usize, job: &Job) -> bool {
        let run = self.applied(node).run.as_ref();
        let run = run.filter(|run| run.id == job.run && run.plan.epoch == job.epoch);
        run.is_some_and(|run| match run.status(job.planned.step) {
            StepStatus::Acting { attempt } => !job.undo && attempt == job.attempt,
            StepStatus::Undoing => job.undo,
            StepStatus::Pending
            | StepStatus::Done
            | StepStatus::Failed { .. }
            | StepStatus::Skipped
            | StepStatus::Undone
            | StepStatus::Stuck { .. } => false,
        })
    }

    /// `None`: not yet.
    fn act(&mut self, node: usize, job: &mut Job) -> Option<StepResult> {
        if self.now >= super::swarm::START_MS && self.rng.chance(self.swarm.step_fails) {
            return Some(failed("bad luck"));
        }
        match job.planned.step {
            Step::PrepareTarget
            | Step::DrainHolder
            | Step::CloseHolder
            | Step::AttachOld
            | Step::CutStream
            | Step::DrainRelayLog
            | Step::PromoteMysql
            | Step::OpenPorts
                if !self.db(node).answers(self.now) =>
            {
                None
            }
            Step::PrepareTarget => self.prepare_target(node, job),
            Step::DrainHolder => Some(self.drain_holder(node, job)),
            Step::CloseHolder => self.close_holder(node, job),
            Step::CatchUp => self.catch_up(node, job),
            Step::AttachOld => self.attach_old(node, job),
            Step::FenceOld | Step::StartIndependent | Step::StartServices => {
                self.effect(node, job);
                Some(done())
            }
            Step::Validate => self.is_answered().then(done),
            Step::HoldVip => {
                self.effect(node, job);
                self.open(node, Door::Vip);
                self.nodes[node].gate.is_open(Door::Vip, self.now).then(done)
            }
            Step::CutStream => Some(self.cut_stream(node, job)),
            Step::DrainRelayLog => self.drain(node, job),
            Step::PromoteMysql => Some(self.promote(node, job)),
            Step::OpenPorts => {
                if self.has(Planted::UndoneAfterPivot) && job.attempt > 1 {
                    self.effect(node, &Job { undo: true, ..job.clone() });
                }
                if self.redis(node).is_some_and(|redis| !redis.up) {
                    return None;
                }
                self.see_redis_first(node);
                if self.db(node).read_only {
                    self.cut(node);
                    let db = self.db_mut(node);
                    if db.sql_running {
                        db.drain();
                    }
                    if !self.may_promote(node) {
                        return Some(failed("what was received is not applied"));
                    }
                }
                self.effect(node, job);
                self.make_writable(node);
                self.serve_redis(node);
                self.open(node, Door::Vip);
                self.open(node, Door::Ports);
                self.nodes[node].gate.is_open(Door::Ports, self.now).then(done)
            }
        }
    }

    fn is_answered(&self) -> bool {
        DATA.iter().any(|data| self.nodes[*data].gate.is_open(Door::Vip, self.now))
    }

    fn cut_stream(&mut self, node: usize, job: &Job) -> StepResult {
        self.effect(node, job);
        let seen = self.applied(node).run.as_ref().and_then(|run| run.plan.basis.target_instance.clone());
        self.cut(node);
        let unseen = self.has(Planted::FlagSurvivesRestart);
        let db = self.db(node);
        if !unseen && seen.is_some_and(|seen| seen != *db.instance()) {
            return failed("another instance than the plan's");
        }
        let mut facts = vec![
            ("received".to_owned(), db.received.to_fact()),
            ("boot".to_owned(), self.nodes[node].host_boots.to_string()),
        ];
        if db.follows.is_none() {
            facts.push(("stream".to_owned(), "none".to_owned()));
        }
        StepResult::Done { facts }
    }

    pub(super) fn cut(&mut self, node: usize) {
        if !self.has(Planted::StreamNotCut) {
            let db = self.db_mut(node);
            db.cut = true;
            db.connected = false;
        }
    }

    /// The cut is in force, and has been since what was received was noted.
    fn is_still_cut(&self, node: usize) -> bool {
        let run = self.applied(node).run.as_ref();
        let noted = |key| run.and_then(|run| run.fact(Step::CutStream, key));
        let same_boot = noted("boot").is_none_or(|boot| boot == self.nodes[node].host_boots.to_string());
        let is_cut = self.db(node).cut || self.has(Planted::StreamNotCut);
        noted("stream") == Some("none") || (is_cut && same_boot)
    }

    /// What the cut has captured, or the closed holder has noted, is applied here, and whatever came since.
    fn may_promote(&self, node: usize) -> bool {
        let db = self.db(node);
        // Planted: who does not cut does not look, either.
        let looks = db.follows.is_some() && !self.has(Planted::StreamNotCut);
        self.has_captured(node) && (!looks || db.executed.missing(&db.received) == 0)
    }

    /// What the cut has captured, or the closed holder has noted, is applied here.
    fn has_captured(&self, node: usize) -> bool {
        let run = self.applied(node).run.as_ref();
        let noted = |run: &Run| {
            let captured = run.fact(Step::CutStream, "received");
            captured.or_else(|| run.fact(Step::CloseHolder, "position")).map(TxSet::from_fact)
        };
        let captured = run.and_then(noted);
        captured.is_some_and(|captured| self.db(node).executed.missing(&captured) == 0)
    }

    fn drain(&mut self, node: usize, job: &Job) -> Option<StepResult> {
        if self.has(Planted::RelayLogNotDrained) {
            self.effect(node, job);
            return Some(done());
        }
        let at = self.now;
        let db = self.db_mut(node);
        if db.sql_running && at >= db.applier_stopped_until {
            db.drain();
        }
        let stopped = !db.sql_running;
        if self.has_captured(node) {
            if !self.is_still_cut(node) {
                return Some(failed("the cut is gone"));
            }
            self.effect(node, job);
            return Some(done());
        }
        stopped.then(|| failed("both replication threads are stopped"))
    }

    fn promote(&mut self, node: usize, job: &Job) -> StepResult {
        if !self.has(Planted::RelayLogNotDrained) {
            if !self.is_still_cut(node) {
                return failed("the cut is gone");
            }
            self.cut(node);
            if !self.may_promote(node) {
                return failed("what was received is not applied");
            }
        }
        self.effect(node, job);
        self.make_writable(node);
        done()
    }

    pub(super) fn make_writable(&mut self, node: usize) {
        let db = self.db_mut(node);
        let thrown_away = db.executed.missing(&db.received);
        db.sql_running = false;
        if db.read_only {
            self.source_off(node);
            self.promoted(node, thrown_away);
        }
        self.open_database(node, false);
    }

    fn undo(&mut self, node: usize, job: &Job) -> Option<StepResult> {
        // What a switchover takes back is the reconciler's, and does not fail.
        let may_fail = self.now >= super::swarm::START_MS && !is_handover(job.planned.step);
        if may_fail && self.rng.chance(self.swarm.undo_fails) {
            return Some(failed("bad luck"));
        }
        let step = if self.has(Planted::UndoInForwardOrder) {
            self.first_to_undo(node, job)
        } else {
            job.planned.step
        };
        match step {
            Step::HoldVip => self.close(node, &[Door::Vip]),
            Step::PromoteMysql if self.has(Planted::UndoForgetsDatabase) => {}
            Step::PromoteMysql => {
                // A server that does not answer may be writable when it does again.
                if self.db(node).up && !self.db(node).answers(self.now) {
                    return None;
                }
                self.close_database(node);
            }
            // The cut outlives the undo: it ends when the node follows again.
            Step::CutStream => {}
            Step::CloseHolder => return self.undo_close_holder(node, job),
            Step::CatchUp => return self.undo_catch_up(node, job),
            Step::PrepareTarget
            | Step::DrainHolder
            | Step::AttachOld
            | Step::FenceOld
            | Step::DrainRelayLog
            | Step::OpenPorts
            | Step::StartIndependent
            | Step::StartServices
            | Step::Validate => {}
        }
        let planned = baton_runbooks::plan::PlannedStep { step, ..job.planned.clone() };
        self.effect(node, &Job { planned, ..job.clone() });
        Some(done())
    }

    /// Planted: the first step of the plan that was begun and not yet undone.
    fn first_to_undo(&self, node: usize, job: &Job) -> Step {
        let run = self.applied(node).run.as_ref();
        let undone = self.invariants.line(self.raft.views[node].log).undo_before_pivot.undone(job.run);
        let begun = run.into_iter().flat_map(|run| &run.journal).map(|entry| entry.step);
        let mut begun: Vec<Step> = begun.filter(|step| !undone.contains(step)).collect();
        begun.sort();
        begun.first().copied().unwrap_or(job.planned.step)
    }

    pub(super) fn effect(&mut self, node: usize, job: &Job) {
        let effect = Effect {
            node,
            run: job.run,
            epoch: job.epoch,
            step: job.planned.step,
            attempt: job.attempt,
            undo: job.undo,
        };
        self.took_effect(&effect);
    }
}

/// A step that only a switchover has.
const fn is_handover(step: Step) -> bool {
    match step {
        Step::PrepareTarget | Step::DrainHolder | Step::CloseHolder | Step::CatchUp | Step::AttachOld => true,
        Step::FenceOld
        | Step::CutStream
        | Step::HoldVip
        | Step::DrainRelayLog
        | Step::PromoteMysql
        | Step::OpenPorts
        | Step::StartIndependent
        | Step::StartServices
        | Step::Validate => false,
    }
}

pub(super) fn done() -> StepResult {
    StepResult::Done { facts: Vec::new() }
}

pub(super) fn failed(error: &str) -> StepResult {
    StepResult::Failed { error: error.to_owned() }
}
