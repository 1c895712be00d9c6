//! Where the invariants look at the world.

use baton_runbooks::ledger::Command;
use baton_runbooks::model::NodeId;

use super::mysql::Tx;
use super::node::{DATA, NAMES};
use super::operator::OperatorAct;
use super::raft::Committed;
use super::swarm::{END_MS, START_MS};
use super::world::World;
use crate::invariants::{
    Effect, accepted_loss, acked_at_replica, epoch_monotonic, lease_never_overlaps,
    no_effect_without_journal, no_lost_write, no_undo_after_pivot, one_change, one_holder, outranked, redis,
    redundancy_returns, run_settles, served_again, stale_actor, undo_before_pivot,
};

/// An acknowledged write younger than this is news, in milliseconds.
const LOOK_BACK_MS: u64 = 500;

impl World {
    /// After every event.
    pub(super) fn check(&mut self) {
        let (at, raft) = (self.now, &self.raft);
        let [one, two, ..] = self.nodes.as_slice() else { return };
        let it = &mut self.invariants;
        let logs = [raft.views[0].log, raft.views[1].log];
        let same = logs[0] == logs[1];
        // Two that go on each without the other, since an operator was mistaken, may both serve until they hear of each other.
        if same || !self.mistaken {
            it.hold(at, one_holder::NAME, one_holder::check(at, &one.gate, &two.gate));
            let apart = if same {
                it.line(logs[0]).released.check(at, one, two)
            } else {
                lease_never_overlaps::Released::default().check(at, one, two)
            };
            it.hold(at, lease_never_overlaps::NAME, apart);
        }
        for (node, log) in [one, two].into_iter().zip(logs) {
            it.hold(at, stale_actor::NAME, stale_actor::check(at, node, raft.logs[log].newest()));
            let closed = it.line(log).run_settles.check(at, node);
            it.hold(at, run_settles::NAME, closed);
        }
        if raft.newest_log() > 0 {
            for (node, view) in [one, two].into_iter().zip(&raft.views) {
                let told = view.outranked.map_or(Ok(()), |(since, _)| outranked::check(at, node, since));
                it.hold(at, outranked::NAME, told);
            }
        }
        let newest = raft.newest_log();
        if let Some(owed) = it.line_mut(newest).undo_before_pivot.owes(at) {
            self.must_serve(&owed);
        }
    }

    /// A switchover of a seed without faults was taken back a while ago.
    fn must_serve(&mut self, owed: &NodeId) {
        let serves = (0..2).any(|node| self.nodes[node].name == *owed && self.is_serving(node));
        let outcome = if serves || !self.swarm.planned {
            Ok(())
        } else {
            Err(format!("a switchover was taken back, and {owed} does not serve"))
        };
        self.invariants.hold(self.now, undo_before_pivot::NAME, outcome);
    }

    /// An entry was committed in this log.
    pub(super) fn committed(&mut self, log: usize, command: &Command, entry: &Committed) {
        let (at, before, after) = (self.now, &entry.before, &entry.after);
        let it = &mut self.invariants;
        let is_newest = log == self.raft.newest_log();
        it.hold(at, outranked::NAME, outranked::committed(is_newest, self.mistaken));
        it.line_mut(log).released.committed(before, after);
        let redis = it.line_mut(log).redis.committed(before, after, &self.nodes);
        it.hold(at, redis::NAME, redis);
        it.hold(at, epoch_monotonic::NAME, epoch_monotonic::committed(command, before, after));
        it.hold(at, stale_actor::NAME, stale_actor::committed(command, entry.accepted, before));
        let settles = it.line_mut(log).run_settles.committed(at, command, before, after);
        it.hold(at, run_settles::NAME, settles);
        it.hold(at, no_undo_after_pivot::NAME, no_undo_after_pivot::committed(after));
        let nodes = self.nodes.iter().zip(&self.raft.views).filter(|(_, view)| view.log == log);
        let nodes = nodes.map(|(node, _)| node);
        let undone = it.line_mut(log).undo_before_pivot.committed(at, before, after, nodes);
        it.hold(at, undo_before_pivot::NAME, undone);
        let words = it.line_mut(log).accepted_loss.committed(command, entry.accepted, before, after);
        it.hold(at, accepted_loss::NAME, words);
        let carried = it.line_mut(log).accepted_loss.carried(before, after);
        if let Some((node, at_most_ms)) = carried
            && let Some(db) = self.nodes.iter().find(|it| it.name == node).and_then(|it| it.db.as_ref())
        {
            let span_ms = it.line_mut(log).no_lost_write.forgive(db);
            it.hold(at, accepted_loss::NAME, accepted_loss::carried(span_ms, at_most_ms));
        }
        if self.swarm.single && at >= START_MS {
            let changes = it.line_mut(log).one_change.committed(command, before, after);
            it.hold(at, one_change::NAME, changes);
        }
    }

    /// A log was founded by force.
    pub(super) fn forced(&mut self, survivor: usize, entry: &Committed) {
        self.invariants.forced(self.now, &entry.before, &entry.after, &self.nodes[survivor]);
    }

    /// A hand touched the world.
    pub(super) fn took_effect(&mut self, effect: &Effect) {
        let at = self.now;
        let journalled = no_effect_without_journal::effect(effect, self.applied(effect.node));
        let log = self.raft.views[effect.node].log;
        let forward = no_undo_after_pivot::effect(effect, self.raft.logs[log].newest());
        let it = &mut self.invariants;
        it.hold(at, no_undo_after_pivot::NAME, forward);
        it.hold(at, no_effect_without_journal::NAME, journalled);
        let reverse = it.line_mut(log).undo_before_pivot.effect(effect);
        it.hold(at, undo_before_pivot::NAME, reverse);
    }

    /// A client was told that its write is safe.
    pub(super) fn acknowledged(&mut self, node: usize, tx: Tx) {
        let at = self.now;
        let log = self.raft.views[node].log;
        let newest = self.raft.logs[log].newest();
        let received = acked_at_replica::check(newest, &self.nodes[1 - node], tx);
        self.invariants.hold(at, acked_at_replica::NAME, received);
        if let Some(db) = &self.nodes[node].db {
            let kept = self.invariants.line_mut(log).no_lost_write.acknowledged(at, node, db, tx);
            self.invariants.hold(at, no_lost_write::NAME, kept);
        }
    }

    /// A server was promoted, and threw away what it had received and not applied.
    pub(super) fn promoted(&mut self, node: usize, thrown_away: u32) {
        self.invariants.hold(self.now, no_lost_write::NAME, no_lost_write::promoted(node, thrown_away));
    }

    /// The schedule is over: service is back, and complete; where everything was repaired, redundancy is too.
    pub fn check_end(&mut self) {
        let (at, needs_operator) = (self.now, self.needs_operator());
        let serving = DATA.into_iter().find(|node| self.is_serving(*node));
        let log = serving.map_or(self.raft.newest_log(), |node| self.raft.views[node].log);
        let acknowledged = &self.invariants.line(log).no_lost_write;
        let lost_at = |node: usize| acknowledged.lost_at(self.db(node));
        // Where nobody may serve before an operator comes, one of both still has everything.
        let lost = serving.map_or_else(|| lost_at(0).min(lost_at(1)), lost_at);
        let outcome = served_again::check(at, self.ack_times.last().copied(), needs_operator, lost);
        self.invariants.hold(at, served_again::NAME, outcome);
        if self.healed_at.is_some() {
            let outcome = redundancy_returns::check(&self.redundancy());
            self.invariants.hold(at, redundancy_returns::NAME, outcome);
        }
    }

    fn redundancy(&self) -> redundancy_returns::End {
        let ledger = self.ledger();
        let newest = self.raft.newest_log();
        let due = self.raft.logs[newest].last_at(self.now.saturating_sub(redundancy_returns::APPLIED_MS));
        let has_all = |node: usize| {
            let view = &self.raft.views[node];
            self.nodes[node].agent.is_some() && view.log == newest && view.applied >= due
        };
        let comes = self.swarm.verbs.contains(&OperatorAct::AcknowledgeRun);
        redundancy_returns::End {
            run: ledger.run.as_ref().map(|run| run.id),
            abandoned: self.needs_operator() && !comes,
            paused: ledger.pause.is_some(),
            in_sync: ledger.has_replica_in_sync(),
            attached: DATA.into_iter().any(|node| self.db(node).connected),
            redis_attached: DATA.into_iter().any(|node| self.redis(node).is_none_or(|redis| redis.link_up)),
            behind: NAMES.into_iter().enumerate().find(|(node, _)| !has_all(*node)).map(|(_, name)| name),
        }
    }

    /// Repaired, and nothing is left to be done: the holder serves in sync, every node has the whole log, the witness leads.
    pub fn is_settled(&self) -> bool {
        let last = self.raft.logs[self.raft.newest_log()].last();
        let served = self.ack_times.last().is_some_and(|ack| self.now - ack < LOOK_BACK_MS);
        self.healed_at.is_some()
            && self.raft.leads(2)
            && self.raft.views.iter().all(|view| view.applied == last)
            && served
            && redundancy_returns::check(&self.redundancy()).is_ok()
    }

    /// When the schedule is over: what is repaired late has as long as everything else to come to rest.
    pub fn ends_at(&self) -> u64 {
        self.healed_at.map_or(END_MS, |healed_at| END_MS.max(healed_at + served_again::BOUND_MS))
    }

    /// Some seeds run on although they are at rest: what comes late must not come unseen.
    pub const fn runs_on(&self) -> bool {
        self.seed.is_multiple_of(8)
    }

    /// A run needs an operator.
    pub fn needs_operator(&self) -> bool {
        self.invariants.line(self.raft.newest_log()).run_settles.needs_operator()
    }

    /// Clients are answered by this node.
    pub fn is_serving(&self, node: usize) -> bool {
        self.is_reached(node) && self.is_writable(node)
    }

    /// Lengths of the times without an acknowledgement since `from`.
    pub fn gaps(&self, from: u64) -> Vec<u64> {
        let times: Vec<u64> = self.ack_times.iter().copied().filter(|at| *at >= from).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The longest of them, one that still lasts included.
    pub fn longest_gap(&self, from: u64) -> u64 {
        let last = self.ack_times.last().map_or(0, |at| self.now - at);
        self.gaps(from).into_iter().max().unwrap_or(self.now).max(last)
    }

    /// What each node decides, for a message.
    pub fn decisions(&self) -> Vec<String> {
        let line = |node: &super::node::Node| {
            let agent = node.agent.as_ref()?;
            let why: Vec<String> = agent.decision()?.why.iter().map(ToString::to_string).collect();
            Some(format!("{}: {}", node.name, why.join(", ")))
        };
        self.nodes.iter().filter_map(line).collect()
    }
}
