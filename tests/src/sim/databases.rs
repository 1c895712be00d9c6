//! What happens in and between the databases: clients, jobs and canaries write, the replica receives, acknowledges, applies.

use baton_runbooks::agent::Input;
use baton_runbooks::decide::local::Role;
use baton_runbooks::lease::holder::Door;

use super::event::Event;
use super::mysql::{Tx, Waiting};
use super::node::DATA;
use super::planted::Planted;
use super::world::World;

/// Milliseconds between a client's writes.
const WRITE_MS: u64 = 40;

/// Milliseconds between writes of jobs on the server itself, which need no open port.
const JOB_MS: u64 = 160;

/// The replica's connection is looked at this often when nothing is written, in milliseconds.
const STREAM_MS: u64 = 50;

/// Connections of clients: each has one write under way at most.
const CLIENTS: usize = 8;

/// Milliseconds after which a planted semi-sync gives up.
const FALL_BACK_MS: u64 = 500;

impl World {
    /// The database answers and takes writes.
    pub fn is_writable(&self, node: usize) -> bool {
        self.nodes[node].db.as_ref().is_some_and(|db| db.answers(self.now) && !db.read_only)
    }

    /// Both doors are open: a client gets through, and an acknowledgement gets out.
    pub fn is_reached(&self, node: usize) -> bool {
        let gate = &self.nodes[node].gate;
        gate.is_open(Door::Vip, self.now) && gate.is_open(Door::Ports, self.now)
    }

    /// Clients behind the VIP write, and jobs wherever the database lets them.
    pub(super) fn clients(&mut self) {
        self.queue.put(self.now + WRITE_MS, Event::Clients);
        for node in DATA {
            if self.is_reached(node) {
                self.write_redis(node);
            }
            if !self.is_writable(node) || self.db(node).waiting.len() >= CLIENTS {
                continue;
            }
            if self.is_reached(node) {
                self.write(node, None, true);
            }
            if self.now.is_multiple_of(JOB_MS) {
                self.write(node, None, false);
            }
        }
    }

    pub(super) fn canary_due(&mut self, node: usize) {
        // A target that is writable behind closed ports writes none: its own would stand for the holder's.
        let serving = self.nodes[node].wish.as_ref().is_some_and(|wish| match &wish.role {
            Role::Serving { ports, .. } => *ports,
            Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } | Role::Receiving { .. } => false,
        });
        if serving && self.is_writable(node) {
            self.canary(node);
        }
    }

    pub(super) fn canary(&mut self, node: usize) {
        let at = self.now;
        if at < self.nodes[node].canary_busy_until {
            return;
        }
        let newest = self.nodes[node].canary_newest.max(self.db(node).canary);
        let it = &mut self.nodes[node];
        it.canary_busy_until = at + 10_000;
        it.canary_newest = newest + 1;
        let number = it.canary_newest;
        self.later(node, 0, Input::Canary { number, committed: false });
        self.write(node, Some(number), false);
    }

    fn write(&mut self, node: usize, canary: Option<u64>, client: bool) {
        let since = self.now;
        let db = self.db_mut(node);
        let Some(origin) = db.origin else { return };
        let tx = Tx { origin, number: db.executed.upto(origin) + 1 };
        db.executed.add(tx);
        db.canary = db.canary.max(canary.unwrap_or(0));
        let one = Waiting { tx, canary, client, since };
        let sent = self.has(Planted::AcknowledgedWhenSent) && self.db(1 - node).connected;
        let db = self.db_mut(node);
        if db.source && !sent {
            db.waiting.push(one);
            if self.has(Planted::SemiSyncFallsBack) {
                self.queue.put(since + FALL_BACK_MS, Event::FallBack(node));
            }
        } else {
            self.commit_ends(node, one);
        }
        let other = 1 - node;
        if self.db(other).connected {
            let due = since + self.rng.range(1, 6) + self.slowness(node, other);
            self.schedule_stream(other, due);
        }
    }

    /// Planted: a commit has waited for long enough, so semi-sync is off until the replica is back.
    pub(super) fn fall_back(&mut self, node: usize) {
        let at = self.now;
        if self.db(node).waiting.iter().any(|one| at >= one.since + FALL_BACK_MS) {
            self.source_off(node);
        }
    }

    /// A commit ends. A client hears of it only through open doors.
    pub(super) fn commit_ends(&mut self, node: usize, one: Waiting) {
        if let Some(number) = one.canary {
            self.nodes[node].canary_busy_until = 0;
            self.later(node, 1, Input::Canary { number, committed: true });
        }
        if one.client && self.is_reached(node) {
            self.ack_times.push(self.now);
            self.acknowledged(node, one.tx);
        }
    }

    /// The replica's stream is looked at no later than `due`.
    pub(super) fn schedule_stream(&mut self, node: usize, due: u64) {
        let (number, planned) = self.streams[node];
        if due < planned {
            self.streams[node] = (number + 1, due);
            self.queue.put(due, Event::Stream(node, number + 1));
        }
    }

    /// The replica receives what is there, and acknowledges it.
    pub(super) fn stream(&mut self, node: usize, number: u64) {
        if self.streams[node].0 != number {
            return;
        }
        self.stream_redis(node);
        let (at, other) = (self.now, 1 - node);
        self.streams[node] = (number, u64::MAX);
        self.schedule_stream(node, at + STREAM_MS);
        let linked = self.talk(node, other);
        let [one, two, ..] = self.nodes.as_mut_slice() else { return };
        let (replica, source) = if node == 0 { (one, two) } else { (two, one) };
        let (Some(db), Some(source)) = (&mut replica.db, &mut source.db) else { return };
        db.connected =
            db.follows == Some(other) && db.io_started && !db.cut && db.answers(at) && source.up && linked;
        source.clients = u64::from(db.connected);
        if !db.connected || !source.answers(at) {
            return;
        }
        db.received.join(&source.executed);
        db.received_canary = db.received_canary.max(source.canary);
        if !std::mem::replace(&mut self.replaying[node], true) {
            let due = at + 1 + self.rng.range(0, self.swarm.lag_ms);
            self.queue.put(due, Event::Replay(node));
        }
        if source.source {
            // In the order in which they were written, so what the replica has comes first.
            let acked = source.waiting.iter().take_while(|one| db.received.has(one.tx)).count();
            source.yes_tx += acked as u64;
            for _ in 0..acked {
                let one = self.db_mut(other).waiting.remove(0);
                self.commit_ends(other, one);
            }
        }
    }

    /// The replica applies what it has received.
    pub(super) fn replay(&mut self, node: usize) {
        self.replaying[node] = false;
        let at = self.now;
        let db = self.db_mut(node);
        if db.answers(at) && db.sql_running && at >= db.applier_stopped_until {
            db.drain();
        }
    }
}
