//! What must hold after every step.

use baton_runbooks::lease::holder::Door;
use baton_runbooks::run::{Event, RunState};

use crate::world::World;

/// More proposals of one node within a second than any protocol needs.
const PROPOSALS_MAX: usize = 60;

impl World {
    pub fn check(&mut self) {
        self.one_holder();
        self.no_undo_after_pivot();
        self.no_storm();
    }

    fn one_holder(&mut self) {
        let at = self.now;
        for door in [Door::Vip, Door::Ports] {
            if (0..2).all(|node| self.nodes[node].gate.is_open(door, at)) {
                self.violate(format!("two nodes open for {door:?}"));
            }
        }
    }

    /// Called at every acknowledgement of `node`: it must have every write that was acknowledged before.
    pub fn acknowledged(&mut self, node: usize, tx: u64) {
        if self.last_acker != Some((node, self.nodes[node].db.as_ref().unwrap().starts)) {
            let db = self.nodes[node].db.as_ref().unwrap();
            let lost = self.acked.difference(&db.executed).count();
            if lost > 0 {
                self.violate(format!("{} serves without {lost} acknowledged writes", self.nodes[node].name));
            }
            self.last_acker = Some((node, self.nodes[node].db.as_ref().unwrap().starts));
        }
        self.acked.insert(tx);
        self.ack_times.push(self.now);
    }

    fn no_undo_after_pivot(&mut self) {
        let ledger = self.raft.ledger();
        let Some(run) = &ledger.run else { return };
        let undone = run.journal.iter().any(|entry| entry.event == Event::UndoStarted);
        if run.is_past_pivot() && undone {
            self.violate("undone after the pivot".to_owned());
        }
    }

    fn no_storm(&mut self) {
        let at = self.now;
        for node in 0..3 {
            self.nodes[node].proposals.retain(|then| at - then < 1_000);
            if self.nodes[node].proposals.len() > PROPOSALS_MAX {
                self.violate(format!("{} proposes without end", self.nodes[node].name));
            }
        }
    }

    pub fn violate(&mut self, what: String) {
        if self.violations.len() < 5 {
            self.tell(format!("VIOLATION {what}"));
            self.violations.push(format!("{} {what}", self.now));
        }
    }

    pub fn needs_operator(&self) -> bool {
        let run = self.raft.ledger().run.as_ref();
        run.is_some_and(|run| matches!(run.state(), RunState::NeedsOperator { .. }))
    }

    pub fn acked_lately(&self, ms: u64) -> bool {
        self.ack_times.last().is_some_and(|at| self.now - at < ms)
    }

    /// Lengths of the times without an acknowledgement since `from`.
    pub fn gaps(&self, from: u64) -> Vec<u64> {
        let times: Vec<u64> = self.ack_times.iter().copied().filter(|at| *at >= from).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    pub fn longest_gap(&self, from: u64) -> u64 {
        let last = self.ack_times.last().map_or(0, |at| self.now - at);
        self.gaps(from).into_iter().max().unwrap_or(self.now).max(last)
    }

    pub fn is_serving(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        let db = it.db.as_ref().unwrap();
        it.gate.is_open(Door::Ports, self.now)
            && it.gate.is_open(Door::Vip, self.now)
            && !db.read_only
            && db.answers(self.now)
    }

    pub fn decisions(&self) -> Vec<String> {
        let line = |node: &crate::node::Node| {
            let agent = node.agent.as_ref()?;
            let why: Vec<String> = agent.decision()?.why.iter().map(ToString::to_string).collect();
            Some(format!("{}: {}", node.name, why.join(", ")))
        };
        self.nodes.iter().filter_map(line).collect()
    }

    pub fn story(&self) -> String {
        self.trace.join("\n")
    }
}
