//! The steps that only a switchover has, as the real hands carry them out.

use baton_runbooks::agent::StepResult;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::plan::Step;
use baton_runbooks::run::StepStatus;

use super::event::Job;
use super::executor::{STILL_MS, done, failed};
use super::mysql::TxSet;
use super::planted::Planted;
use super::world::World;

/// Closing waits so long for a canary that is on its way, in milliseconds.
const CANARY_MAX_MS: u64 = 700;

/// Redis must have what the closed holder has within this time, in milliseconds.
const OFFSET_MAX_MS: u64 = 1_000;

/// The target tries to be read-only again for so long, in milliseconds; then the old holder opens all the same.
const UNDO_MAX_MS: u64 = 2_000;

impl World {
    /// How long transactions under way go on, in milliseconds: no longer than their patience.
    pub(super) fn transactions_last(&mut self, node: usize) -> u64 {
        let patience_ms = self.applied(node).run.as_ref().map_or(0, |run| run.plan.drain_patience_ms);
        self.rng.range(0, patience_ms)
    }

    /// Everything received is applied, and replication runs.
    pub(super) fn prepare_target(&mut self, node: usize, job: &Job) -> Option<StepResult> {
        let at = self.now;
        let db = self.db_mut(node);
        if db.follows.is_none() || !db.connected || !db.sql_running {
            return Some(failed("replication does not run"));
        }
        if self.redis(node).is_some_and(|redis| !redis.link_up || redis.primary) {
            return Some(failed("Redis does not follow the holder"));
        }
        let db = self.db_mut(node);
        if at >= db.applier_stopped_until {
            db.drain();
        }
        if db.executed.missing(&db.received) > 0 {
            return None;
        }
        self.effect(node, job);
        Some(done())
    }

    pub(super) fn drain_holder(&mut self, node: usize, job: &Job) -> StepResult {
        if self.is_given_up(node) {
            return failed("given up");
        }
        self.effect(node, job);
        done()
    }

    fn is_given_up(&self, node: usize) -> bool {
        self.applied(node).run.as_ref().is_none_or(|run| run.aborting.is_some())
    }

    /// No canary is on its way; ports closed, read-only, sessions ended, and then what is there is noted.
    pub(super) fn close_holder(&mut self, node: usize, job: &Job) -> Option<StepResult> {
        if self.now < self.nodes[node].canary_busy_until {
            let began = job.deadline.saturating_sub(job.planned.limit_ms);
            return (self.now >= began + CANARY_MAX_MS).then(|| failed("a canary is not acknowledged"));
        }
        self.effect(node, job);
        self.close(node, &[Door::Ports]);
        self.close_database(node);
        if let Some(redis) = &mut self.nodes[node].redis {
            redis.open = false;
        }
        let redis = self.redis(node).map(|redis| redis.data.to_fact());
        let db = self.db_mut(node);
        for one in &mut db.waiting {
            one.client = false;
        }
        let mut facts = vec![("position".to_owned(), db.executed.to_fact())];
        facts.extend(redis.map(|noted| ("redis".to_owned(), noted)));
        Some(StepResult::Done { facts })
    }

    /// Has what the closed holder has, seen twice with the cut in between, and accepts writes behind closed ports.
    pub(super) fn catch_up(&mut self, node: usize, job: &mut Job) -> Option<StepResult> {
        let at = self.now;
        if !self.db(node).answers(at) {
            return Some(failed("MySQL does not answer here"));
        }
        if self.is_given_up(node) {
            return Some(failed("given up"));
        }
        let run = self.applied(node).run.as_ref()?;
        if run.status(Step::CloseHolder) != StepStatus::Done {
            return None;
        }
        let noted = TxSet::from_fact(run.fact(Step::CloseHolder, "position")?);
        let redis = run.fact(Step::CloseHolder, "redis").map(TxSet::from_fact);
        let unseen = self.has(Planted::CatchUpNotAwaited);
        let db = self.db_mut(node);
        if !unseen {
            job.deadline = job.deadline.min(at + STILL_MS);
            if !db.sql_running {
                return Some(failed("both replication threads are stopped"));
            }
            if at >= db.applier_stopped_until {
                db.drain();
            }
            if db.executed.missing(&noted) > 0 {
                return None;
            }
            if noted.missing(&db.executed) > 0 || noted.missing(&db.received) > 0 {
                return Some(failed("the positions differ"));
            }
        }
        let redis = redis.filter(|_| !self.has(Planted::OffsetNotAwaited));
        if let (Some(noted), Some(here)) = (redis, self.redis(node)) {
            if !here.up {
                return Some(failed("Redis does not answer here"));
            }
            if !here.link_up || here.data.missing(&noted) > 0 {
                job.deadline = job.deadline.min(at + OFFSET_MAX_MS);
                return None;
            }
        }
        self.effect(node, job);
        self.cut(node);
        self.make_writable(node);
        Some(done())
    }

    /// The reconciler opens again, for as long as it takes; here it is only seen to.
    pub(super) fn undo_close_holder(&mut self, node: usize, job: &Job) -> Option<StepResult> {
        let is_open = self.nodes[node].gate.is_open(Door::Ports, self.now) && self.is_writable(node);
        if !is_open && self.now + job.planned.limit_ms / 5 < job.deadline {
            return None;
        }
        self.effect(node, job);
        Some(done())
    }

    /// Read-only again. The old holder must not stay closed for a server here that does not answer.
    pub(super) fn undo_catch_up(&mut self, node: usize, job: &Job) -> Option<StepResult> {
        if self.db(node).answers(self.now) {
            if !self.has(Planted::UndoForgetsDatabase) {
                self.close_database(node);
            }
        } else {
            let began = job.deadline.saturating_sub(job.planned.limit_ms);
            if self.now < began + UNDO_MAX_MS {
                return None;
            }
            self.invariants.line_mut(self.raft.views[node].log).undo_before_pivot.gave_up(job.run);
        }
        self.effect(node, job);
        Some(done())
    }

    /// The reconciler makes the old holder follow; here it is only seen to.
    pub(super) fn attach_old(&mut self, node: usize, job: &Job) -> Option<StepResult> {
        let db = self.db(node);
        if db.follows.is_none() || !db.connected || !db.sql_running {
            return None;
        }
        if self.redis(node).is_some_and(|redis| !redis.link_up) {
            return None;
        }
        self.effect(node, job);
        Some(done())
    }
}
