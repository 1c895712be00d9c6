//! What travels between nodes beside Raft: reports, and what the lease threads say to each other.

use std::sync::Arc;

use baton_runbooks::observe::NodeReport;

use super::event::{Event, Mail};
use super::world::World;

/// A report wakes no thread: it leaves with a heartbeat of Raft, after two of them at the latest, and is taken with the next
/// input of the core, a tick at the latest. In milliseconds, as shipped.
pub(super) const REPORT_WAITS_MS: u64 = 260;

impl World {
    /// A report leaves. Where there is more than one log, its link says first of which this node's is. No report overtakes
    /// another: they use one connection.
    pub(super) fn send_report(&mut self, from: usize, to: usize, report: &Arc<NodeReport>) {
        self.greet(from, to);
        let waits = self.rng.range(0, REPORT_WAITS_MS);
        if let Some(arrives) = self.arrives(from, to) {
            let due = (arrives + waits).max(self.told_at[from][to]);
            self.told_at[from][to] = due;
            self.queue.put(due, Event::News(to, Arc::clone(report)));
        }
    }

    /// A message leaves.
    pub(super) fn send(&mut self, from: usize, to: usize, mail: Mail) {
        if let Some(due) = self.arrives(from, to) {
            self.queue.put(due, Event::Mail(to, Box::new(mail)));
        }
    }

    /// When a message that leaves now arrives; `None`: it is lost.
    pub(super) fn arrives(&mut self, from: usize, to: usize) -> Option<u64> {
        let passes = self.passes(from, to);
        passes.then(|| self.now + self.rng.range(1, self.swarm.mail_ms) + self.slowness(from, to))
    }

    /// A message has arrived; an agent that is frozen reads it when it thaws.
    pub(super) fn arrived<T>(&mut self, to: usize, what: T, again: fn(usize, T) -> Event) -> Option<T> {
        let it = &self.nodes[to];
        if it.agent.is_none() || self.now < it.host_down_until {
            return None;
        }
        if self.now < it.frozen_until {
            let thawed = it.frozen_until;
            self.queue.put(thawed, again(to, what));
            return None;
        }
        Some(what)
    }

    /// What the lease threads say to each other.
    pub(super) fn deliver(&mut self, to: usize, mail: Mail) {
        match mail {
            Mail::Renew { renewal, relay } => self.answer(to, renewal, relay),
            Mail::Surrender { surrender, relayed } => self.hear_surrender(to, surrender, relayed),
            Mail::Grant { grant, to: holder } if holder == to => self.granted(to, &grant),
            Mail::Grant { grant, to: holder } => self.send(to, holder, Mail::Grant { grant, to: holder }),
            Mail::Refused { refusal, to: holder } => self.refuse_long(to, holder, holder, refusal),
        }
    }
}
