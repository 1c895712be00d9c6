//! What happens between the nodes' copies of the log: elections, heartbeats, commits.

use std::sync::Arc;

use baton_runbooks::ledger::Command;
use baton_runbooks::plan::Runbook;

use super::event::Event;
use super::node::{NAMES, TERMS};
use super::operator::OperatorAct;
use super::planted::Planted;
use super::raft::Proposal;
use super::world::World;

/// Milliseconds between a leader's heartbeats.
const HEARTBEAT_MS: u64 = 50;

/// Milliseconds between attempts to reach a quorum.
const AGAIN_MS: u64 = 50;

/// A leader that is not the witness hands over after this long, in milliseconds.
const STEER_MS: u64 = 1_500;

impl World {
    fn followers(&self, leader: usize) -> impl Iterator<Item = usize> + '_ {
        let term = self.raft.views[leader].term;
        (0..3)
            .filter(move |node| *node != leader && self.able(*node) && self.talk(leader, *node))
            .filter(move |node| self.raft.views[*node].term <= term)
    }

    /// The leader of a term reaches whom it can.
    pub(super) fn heartbeat(&mut self, leader: usize, term: u64) {
        let at = self.now;
        let view = &self.raft.views[leader];
        if view.leader != Some(leader) || view.term != term || self.nodes[leader].agent.is_none() {
            return;
        }
        let frozen = self.nodes[leader].frozen_until;
        self.queue.put((at + HEARTBEAT_MS).max(frozen), Event::Heartbeat(leader, term));
        if !self.able(leader) {
            return;
        }
        let newer = (0..3)
            .filter(|n| self.able(*n) && self.talk(leader, *n))
            .map(|n| self.raft.views[n].term)
            .max()
            .filter(|newer| *newer > term);
        if let Some(newer) = newer {
            let view = &mut self.raft.views[leader];
            (view.leader, view.term, view.heard_at) = (None, newer, at);
            let due = at + view.patience;
            self.schedule_campaign(leader, due);
            return;
        }
        self.reach(leader, term);
        self.steer(leader);
    }

    fn reach(&mut self, leader: usize, term: u64) {
        let at = self.now;
        let mut reached = false;
        for node in 0..3 {
            if node == leader || !self.followers(leader).any(|follower| follower == node) {
                continue;
            }
            reached = true;
            let patience = self.rng.range(300, 600);
            self.raft.views[leader].reached_at[node] = at;
            let view = &mut self.raft.views[node];
            (view.term, view.leader, view.heard_at, view.patience) = (term, Some(leader), at, patience);
            self.schedule_apply(node);
        }
        if !reached {
            return;
        }
        let due = at + self.rng.range(0, self.swarm.ack_ms);
        let view = &mut self.raft.views[leader];
        view.acks.push_back((due, at));
        if view.own_from == 0 {
            // The first entry of its own term.
            let last = self.raft.newest().clone();
            self.raft.states.push(last);
            self.raft.views[leader].own_from = self.raft.last();
        }
        self.schedule_apply(leader);
    }

    /// The witness should lead; and a leader that does not reach the holder lets the other data node try.
    fn steer(&mut self, leader: usize) {
        let at = self.now;
        let view = &self.raft.views[leader];
        if view.own_from == 0 || at - view.elected_at <= STEER_MS {
            return;
        }
        let holder = self.applied(leader).holder.as_ref();
        let holder = holder.and_then(|name| NAMES.iter().position(|known| *known == name.as_str()));
        let lost = holder.filter(|holder| {
            *holder != leader && at - view.reached_at[*holder].max(view.elected_at) > TERMS.lease_ms / 2
        });
        // A holder that sends no renewals either is no reason: a new leader would only have to wait anew.
        let granted_at = self.nodes[leader].granter.granted_at();
        let now = self.nodes[leader].local(at);
        let renews = granted_at.is_some_and(|granted| now.since_ms(granted) < TERMS.lease_ms / 4);
        let lost = lost.filter(|_| renews);
        let other = lost.map(|holder| 1 - holder).filter(|other| *other != leader);
        let next = other.or((leader != 2 && lost.is_none()).then_some(2));
        let next = next.filter(|next| self.followers(leader).any(|node| node == *next));
        // Whoever is to lead must reach the holder better than this one does.
        let better = next.filter(|next| holder.is_none_or(|h| h == *next || self.talk(*next, h)));
        if let Some(next) = better {
            self.elect(next, leader);
        }
    }

    /// A follower's patience may have ended.
    pub(super) fn campaign(&mut self, node: usize) {
        let at = self.now;
        self.raft.views[node].campaigning = false;
        if !self.able(node) {
            let later = (at + 100).max(self.nodes[node].frozen_until);
            self.schedule_campaign(node, later);
            return;
        }
        let view = &self.raft.views[node];
        if view.leader == Some(node) {
            return;
        }
        let ends = view.heard_at + view.patience;
        if at <= ends {
            self.schedule_campaign(node, ends + 1);
            return;
        }
        let again = self.rng.range(100, 200);
        let free = |voter: &usize| {
            let theirs = &self.raft.views[*voter];
            let since = if theirs.leader == Some(*voter) { theirs.acked_at } else { Some(theirs.heard_at) };
            since.is_none_or(|since| at - since >= 250)
        };
        let voter = (0..3).filter(|n| *n != node && self.able(*n) && self.talk(node, *n)).find(free);
        match voter {
            Some(voter) => self.elect(node, voter),
            None => self.schedule_campaign(node, at + again),
        }
    }

    /// For no reason that the agents know.
    pub(super) fn move_leader(&mut self, to: usize) {
        let voter = (0..3).find(|n| *n != to && self.able(*n) && self.talk(to, *n));
        if let Some(voter) = voter.filter(|_| self.able(to) && !self.raft.leads(to)) {
            self.elect(to, voter);
        }
    }

    /// One of a quorum has every committed entry, so the winner has too; what was only appended may be lost.
    fn elect(&mut self, node: usize, voter: usize) {
        let at = self.now;
        self.raft.term += 1;
        let term = self.raft.term;
        for member in [node, voter] {
            let view = &mut self.raft.views[member];
            (view.term, view.heard_at, view.leader) = (term, at, Some(node));
        }
        let view = &mut self.raft.views[node];
        (view.elected_at, view.acked_at, view.own_from, view.reached_at) = (at, None, 0, [at; 3]);
        view.acks.clear();
        self.queue.put(at + self.rng.range(1, HEARTBEAT_MS), Event::Heartbeat(node, term));
        let due = at + self.raft.views[voter].patience;
        self.schedule_campaign(voter, due);
        self.tell(|| format!("{} leads in term {term}", NAMES[node]));
    }

    /// Looks at a node's patience, once, at `due`.
    pub(super) fn schedule_campaign(&mut self, node: usize, due: u64) {
        if !std::mem::replace(&mut self.raft.views[node].campaigning, true) {
            self.queue.put(due, Event::Campaign(node));
        }
    }

    /// A proposal reaches whoever leads, or nobody.
    pub(super) fn append(&mut self, mut proposal: Proposal) {
        let from = proposal.from;
        let forwarded = self.has(Planted::TakeoverIsForwarded);
        let leader = match proposal.as_leader.filter(|_| !forwarded) {
            Some(term) => Some(from).filter(|n| self.raft.leads(*n) && self.raft.views[*n].term == term),
            None => self.raft.views[from].leader.filter(|leader| *leader == from || self.talk(from, *leader)),
        };
        let leader = leader.filter(|leader| self.able(*leader) && self.raft.leads(*leader));
        if !self.able(from) && proposal.as_leader.is_some() {
            // The process that would append it stands still; it goes on when that does.
            if self.nodes[from].agent.is_some() && self.now < self.nodes[from].frozen_until {
                let thawed = self.nodes[from].frozen_until;
                self.queue.put(thawed, Event::Append(Box::new(proposal)));
            }
            return;
        }
        let Some(leader) = leader else {
            // What was appended, or proposed before, may still be committed by somebody.
            let doubtful = proposal.doubtful || proposal.appended.is_some();
            self.reply(&proposal, if doubtful { None } else { Some(false) });
            return;
        };
        let term = self.raft.views[leader].term;
        if proposal.appended.is_some_and(|before| before != term) && self.rng.chance(50) {
            self.reply(&proposal, None);
            return;
        }
        if self.followers(leader).next().is_none() {
            // Appended without a quorum: committed later, or lost with the term. For the end of an epoch the driver waits.
            if proposal.ends.is_none() {
                self.reply(&proposal, None);
                proposal.silent = true;
            }
            proposal.appended = Some(term);
            self.queue.put(self.now + AGAIN_MS, Event::Append(Box::new(proposal)));
            return;
        }
        let accepted = self.commit(proposal.command.clone());
        self.reply(&proposal, Some(accepted));
    }

    /// An entry that a quorum has. Invariants look at it before anybody acts on it.
    pub(super) fn commit(&mut self, command: Command) -> bool {
        let committed = self.raft.commit(command.clone(), self.options.planted);
        self.tell(|| {
            let refused = if committed.accepted { "" } else { " (refused)" };
            format!("ledger {}: {command}{refused}", standing(&committed.after))
        });
        self.committed(&command, &committed);
        let moved = !Arc::ptr_eq(&committed.before, &committed.after);
        match &command {
            Command::StartRun { plan, .. } if moved => {
                if plan.runbook == Runbook::Switchover && self.rng.chance(self.swarm.aborts) {
                    let soon = self.now + self.rng.range(0, 900);
                    self.queue.put(soon, Event::Order(OperatorAct::AbortRun));
                }
                self.entry_committed();
            }
            Command::Journal { entries, .. } if moved => {
                for _ in entries {
                    self.entry_committed();
                }
            }
            Command::Bootstrap { .. }
            | Command::StartRun { .. }
            | Command::Journal { .. }
            | Command::AbandonRun { .. }
            | Command::AbortRun { .. }
            | Command::AcknowledgeRun { .. }
            | Command::AcceptLoss { .. }
            | Command::WithdrawLoss { .. }
            | Command::SyncOut { .. }
            | Command::SyncIn { .. }
            | Command::Release { .. }
            | Command::Drill { .. }
            | Command::Pause { .. }
            | Command::ClaimPause { .. }
            | Command::Resume { .. }
            | Command::EndPause { .. }
            | Command::ExpirePause { .. } => {}
        }
        for node in 0..3 {
            self.schedule_apply(node);
        }
        committed.accepted
    }

    fn schedule_apply(&mut self, node: usize) {
        let newest = self.raft.last();
        let view = &mut self.raft.views[node];
        if view.applying || view.applied >= newest {
            return;
        }
        view.applying = true;
        let ms = if view.leader == Some(node) { 6 } else { self.swarm.apply_ms };
        let ms = if view.own_from == 0 { self.swarm.apply_ms } else { ms };
        let due = self.now + self.rng.range(0, ms);
        self.queue.put(due, Event::Apply(node));
    }

    /// A node applies what its leader tells it is committed.
    pub(super) fn apply(&mut self, node: usize) {
        let newest = self.raft.last();
        self.raft.views[node].applying = false;
        let view = &self.raft.views[node];
        let Some(leader) = view.leader.filter(|_| view.applied < newest && self.able(node)) else { return };
        let fresh = self.raft.views[leader].term == self.raft.term && self.able(leader);
        let near = leader == node || self.talk(node, leader);
        if fresh && near && (leader != node || self.followers(node).next().is_some()) {
            let step = if self.rng.chance(20) { 1 } else { newest };
            let applied = (self.raft.views[node].applied + step).min(newest);
            self.raft.views[node].applied = applied;
            self.tell_committed(node);
            self.schedule_apply(node);
        }
    }
}

fn standing(ledger: &baton_runbooks::ledger::Ledger) -> String {
    format!("epoch {} generation {}", ledger.epoch, ledger.sync_generation)
}
