//! Hosts, databases and agents start, and frozen agents go on.

use baton_runbooks::agent::Input;
use baton_runbooks::observe::Observation;

use super::event::Event;
use super::node::{NAMES, TERMS};
use super::world::World;

/// Percent of the starts of an agent that know less of the log than the one before, where that may be.
const FORGETS: u64 = 75;

impl World {
    /// Starts what is due to start.
    pub(super) fn live(&mut self, node: usize) {
        let at = self.now;
        let planted = self.options.planted;
        let it = &mut self.nodes[node];
        if at < it.host_down_until {
            return;
        }
        if let Some(db) = it.db.as_mut().filter(|db| !db.up && at >= it.db_down_until) {
            db.start();
        }
        let (due, forgets) = (at >= it.redis_down_until, it.redis_forgets);
        if let Some(redis) = it.redis.as_mut().filter(|redis| !redis.up && due) {
            redis.start(forgets);
        }
        if it.agent.is_some() || at < it.agent_down_until {
            return;
        }
        it.start_agent(node, planted);
        it.started_at = at;
        let boot = it.boot;
        self.forget_committed(node);
        self.go_on_alone(node);
        let view = &mut self.raft.views[node];
        view.heard_at = at;
        if view.leader == Some(node) {
            view.leader = None;
        }
        self.schedule_campaign(node, at + 300);
        self.tell(|| format!("{} starts its agent", NAMES[node]));
        self.settle(node);
        self.tell_committed(node);
        for again in [Event::Tick, Event::Report, Event::Renew] {
            let due = at + self.rng.range(0, 40);
            self.queue.put(due, again(node, boot));
        }
        if self.nodes[node].db.is_some() {
            let due = at + self.rng.range(0, 90);
            self.queue.put(due, Event::Probe(node, boot));
            self.queue.put(due + 900, Event::Canary(node, boot));
        }
    }

    /// How far the log is committed is synced with the next entry, not by itself: a start may know less of that than the last
    /// one did, until a leader tells it. The snapshot that its log was founded on is on disk.
    fn forget_committed(&mut self, node: usize) {
        let founded_on = self.raft.log(node).founded_on.max(1);
        let view = &self.raft.views[node];
        let (kept, known) = (view.kept.max(founded_on), view.applied);
        if known <= kept || !self.rng.chance(FORGETS) {
            return;
        }
        let applied = self.rng.range(kept as u64, known as u64 - 1) as usize;
        self.raft.views[node].applied = applied;
        self.tell(|| format!("{} knows of {applied} entries, and knew of {known}", NAMES[node]));
    }

    /// The agent has the processor again, and the lease thread says for how long it had not.
    pub(super) fn thaw(&mut self, node: usize) {
        let at = self.now;
        let it = &self.nodes[node];
        if it.agent.is_none() || at < it.frozen_until {
            return;
        }
        let gap_ms = it.real(at - it.frozen_since);
        if gap_ms > 3 * TERMS.renew_ms {
            let observation = Observation::OwnGap { gap_ms };
            self.feed(node, Input::Observed { observation });
        }
    }
}
