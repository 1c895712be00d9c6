//! What happens between the nodes: elections and commits, replication, clients.

use baton_runbooks::agent::Input;
use baton_runbooks::lease::holder::Door;

use crate::fleet::Waiting;
use crate::node::NAMES;
use crate::raft::Proposal;
use crate::world::World;

impl World {
    pub fn consensus(&mut self) {
        if self.now.is_multiple_of(50) {
            for node in 0..3 {
                if self.able(node) && self.raft.leads(node) {
                    self.heartbeat(node);
                }
            }
            self.steer();
        }
        for node in 0..3 {
            self.campaign(node);
        }
        let at = self.now;
        let (due, rest) =
            std::mem::take(&mut self.raft.proposals).into_iter().partition(|proposal| proposal.due <= at);
        self.raft.proposals = rest;
        let due: Vec<Proposal> = due;
        for proposal in due {
            self.append(proposal);
        }
        for node in 0..3 {
            self.apply(node);
        }
    }

    fn followers(&self, leader: usize) -> Vec<usize> {
        let term = self.raft.views[leader].term;
        (0..3)
            .filter(|node| *node != leader && self.able(*node) && self.talk(leader, *node))
            .filter(|node| self.raft.views[*node].term <= term)
            .collect()
    }

    fn heartbeat(&mut self, leader: usize) {
        let at = self.now;
        let term = self.raft.views[leader].term;
        let newer =
            (0..3).filter(|n| self.able(*n) && self.talk(leader, *n)).map(|n| self.raft.views[n].term).max();
        if let Some(newer) = newer.filter(|newer| *newer > term) {
            let view = &mut self.raft.views[leader];
            view.leader = None;
            view.term = newer;
            view.heard_at = at;
            return;
        }
        let followers = self.followers(leader);
        for node in &followers {
            let patience = self.rng.range(300, 600);
            let view = &mut self.raft.views[*node];
            view.term = term;
            view.leader = Some(leader);
            view.heard_at = at;
            view.patience = patience;
        }
        if !followers.is_empty() {
            let view = &mut self.raft.views[leader];
            view.acked_at = Some(at);
            if view.own_from == 0 {
                // The first entry of its own term.
                let last = self.raft.states.last().unwrap().clone();
                self.raft.states.push(last);
                self.raft.commands.push("new term".to_owned());
                self.raft.views[leader].own_from = self.raft.states.len() - 1;
            }
        }
    }

    fn campaign(&mut self, node: usize) {
        let at = self.now;
        let view = &self.raft.views[node];
        if !self.able(node) || view.leader == Some(node) || at - view.heard_at <= view.patience {
            return;
        }
        let patience = self.rng.range(300, 600);
        self.raft.views[node].patience = at - self.raft.views[node].heard_at + patience / 3;
        let free = |voter: &usize| {
            let theirs = &self.raft.views[*voter];
            theirs.leader != Some(*voter) && at - theirs.heard_at >= 250
                || theirs.leader == Some(*voter) && theirs.acked_at.is_none_or(|acked| at - acked >= 250)
        };
        let voter = (0..3).filter(|n| *n != node && self.able(*n) && self.talk(node, *n)).find(free);
        if let Some(voter) = voter {
            self.elect(node, voter);
        }
    }

    /// One of a quorum has every committed entry, so the winner has too; what was only appended may be lost.
    fn elect(&mut self, node: usize, voter: usize) {
        let at = self.now;
        self.raft.term += 1;
        let term = self.raft.term;
        for member in [node, voter] {
            let view = &mut self.raft.views[member];
            view.term = term;
            view.heard_at = at;
            view.leader = Some(node);
        }
        let view = &mut self.raft.views[node];
        (view.elected_at, view.acked_at, view.own_from) = (at, None, 0);
        self.tell(format!("{} leads in term {term}", NAMES[node]));
    }

    fn steer(&mut self) {
        let at = self.now;
        let Some(leader) = (0..2).find(|n| self.able(*n) && self.raft.leads(*n)) else { return };
        let settled = at - self.raft.views[leader].elected_at > 1_500;
        if settled && self.raft.views[leader].own_from > 0 && self.followers(leader).contains(&2) {
            self.elect(2, leader);
        }
    }

    fn append(&mut self, mut proposal: Proposal) {
        let at = self.now;
        let from = proposal.from;
        let leader = match proposal.as_leader {
            Some(term) => Some(from).filter(|n| self.raft.leads(*n) && self.raft.views[*n].term == term),
            None => self.raft.views[from].leader.filter(|leader| *leader == from || self.talk(from, *leader)),
        };
        let leader = leader.filter(|leader| self.able(*leader) && self.raft.leads(*leader));
        let ticket = proposal.ticket;
        if !self.able(from) && proposal.as_leader.is_some() {
            return;
        }
        let Some(leader) = leader else {
            self.reply(&proposal, Input::Proposed { ticket, accepted: Some(false) });
            return;
        };
        if self.followers(leader).is_empty() {
            // Appended without a quorum: committed later, or lost with the term.
            if proposal.as_leader.is_none() && !proposal.silent {
                self.reply(&proposal, Input::Proposed { ticket, accepted: None });
                proposal.silent = true;
            }
            proposal.due = at + 50;
            self.raft.proposals.push(proposal);
            return;
        }
        let accepted = self.raft.commit(proposal.command.clone());
        let text = self.raft.commands.last().unwrap().clone();
        self.tell(format!("ledger: {text}"));
        self.reply(&proposal, Input::Proposed { ticket, accepted: Some(accepted) });
    }

    fn reply(&mut self, proposal: &Proposal, input: Input) {
        let it = &self.nodes[proposal.from];
        if it.agent.is_some() && it.boot == proposal.boot && !proposal.silent {
            let ms = self.rng.range(1, 25);
            self.later(proposal.from, ms, input);
        }
    }

    fn apply(&mut self, node: usize) {
        let newest = self.raft.states.len() - 1;
        let view = &self.raft.views[node];
        let Some(leader) = view.leader.filter(|_| view.applied < newest && self.able(node)) else { return };
        let fresh = self.raft.views[leader].term == self.raft.term && self.able(leader);
        let near = leader == node || (self.talk(node, leader) && self.rng.chance(50));
        if fresh && near && (leader != node || !self.followers(node).is_empty()) {
            self.raft.views[node].applied = newest;
            self.tell_committed(node);
        }
    }

    pub fn replicate(&mut self) {
        for node in 0..2 {
            let other = 1 - node;
            let (at, linked, lucky) = (self.now, self.talk(node, other), self.rng.chance(80));
            let mut source = self.nodes[other].db.take().unwrap();
            let db = self.nodes[node].db.as_mut().unwrap();
            db.connected = db.follows == Some(other) && !db.cut && db.answers(at) && source.up && linked;
            let streams = db.connected && source.answers(at);
            // What is received is a subset of what is there, so the lengths tell whether anything is missing.
            if streams && db.received.len() < source.executed.len() {
                let newest = db.received.last().map_or(0, |tx| tx + 1);
                db.received.extend(source.executed.range(newest..));
            }
            if streams && db.received.len() < source.executed.len() {
                db.received.extend(source.executed.iter().copied());
            }
            if streams {
                db.received_canary = db.received_canary.max(source.canary);
            }
            if db.answers(at) && db.sql_running && lucky {
                if db.executed.len() != db.received.len() {
                    let newest = db.executed.last().map_or(0, |tx| tx + 1);
                    db.executed.extend(db.received.range(newest..));
                }
                if db.executed.len() != db.received.len() {
                    db.executed.extend(db.received.iter().copied());
                }
                db.canary = db.canary.max(db.received_canary);
            }
            source.clients = u64::from(db.connected);
            let mut acked = Vec::new();
            if streams && source.source {
                let received = |one: &Waiting| db.received.contains(&one.tx);
                (acked, source.waiting) = source.waiting.iter().copied().partition(received);
                source.yes_tx += acked.len() as u64;
            }
            self.nodes[other].db = Some(source);
            for one in acked {
                self.commit_ends(other, one);
            }
        }
    }

    /// A writer behind the VIP.
    pub fn clients(&mut self) {
        if !self.now.is_multiple_of(20) {
            return;
        }
        for node in 0..2 {
            let open = |door| self.nodes[node].gate.is_open(door, self.now);
            let few = self.nodes[node].db.as_ref().unwrap().waiting.len() < 8;
            if open(Door::Vip) && open(Door::Ports) && self.is_writable(node) && few {
                self.write(node, None);
            }
        }
    }
}
