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
        self.peers(leader).filter(move |node| self.raft.views[*node].term <= term)
    }

    /// Who has the same log, takes part in it, and is reached.
    fn peers(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let log = self.raft.views[node].log;
        (0..3)
            .filter(move |peer| *peer != node && self.takes_part(*peer) && self.talk(node, *peer))
            .filter(move |peer| self.raft.views[*peer].log == log)
    }

    /// A leader reaches a majority of those who vote.
    fn has_quorum(&self, leader: usize) -> bool {
        self.raft.log(leader).is_majority(self.followers(leader).chain([leader]))
    }

    fn votes(&self, node: usize) -> bool {
        self.votes_in(self.raft.views[node].log, node)
    }

    fn votes_in(&self, log: usize, node: usize) -> bool {
        self.raft.logs[log].voters[node]
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
        if !self.takes_part(leader) {
            return;
        }
        let newer = self.peers(leader).map(|n| self.raft.views[n].term).max().filter(|newer| *newer > term);
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
        let last = self.raft.log(leader).last();
        // Nothing here changes who follows.
        let mut followers = [false; 3];
        self.followers(leader).for_each(|node| followers[node] = true);
        for node in (0..3).filter(|node| followers[*node]) {
            let patience = self.rng.range(300, 600);
            self.raft.views[leader].reached_at[node] = at;
            let view = &mut self.raft.views[node];
            (view.term, view.leader, view.heard_at, view.patience) = (term, Some(leader), at, patience);
            view.append(last);
            view.uncommitted.clear();
            self.schedule_apply(node);
        }
        if !self.raft.log(leader).is_majority((0..3).filter(|node| followers[*node] || *node == leader)) {
            return;
        }
        self.take_in(leader);
        let due = at + self.rng.range(0, self.swarm.ack_ms);
        let view = &mut self.raft.views[leader];
        view.acks.push_back((due, at));
        view.uncommitted.clear();
        if view.own_from == 0 {
            // The first entry of its own term.
            let log = &mut self.raft.logs[view.log];
            let last = log.newest().clone();
            log.states.push(last);
            log.stamp(at);
            view.own_from = log.last();
            view.append(log.last());
        }
        self.schedule_apply(leader);
    }

    /// Who was taken in votes as soon as it has everything.
    fn take_in(&mut self, leader: usize) {
        let (log, last) = (self.raft.views[leader].log, self.raft.log(leader).last());
        for (node, name) in NAMES.into_iter().enumerate() {
            let is_ready = !self.votes_in(log, node) && self.raft.views[node].applied == last;
            if is_ready && self.followers(leader).any(|follower| follower == node) {
                self.raft.logs[log].voters[node] = true;
                self.tell(|| format!("{name} votes again"));
            }
        }
    }

    /// The witness should lead; and a leader that does not reach the holder lets the other data node try.
    fn steer(&mut self, leader: usize) {
        let at = self.now;
        let view = &self.raft.views[leader];
        if view.own_from == 0 || at - view.elected_at <= STEER_MS {
            return;
        }
        let holder = self.applied(leader).holder.as_ref();
        let holder = holder.and_then(|name| self.position(name));
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
        let next = next.filter(|next| self.followers(leader).any(|node| node == *next) && self.votes(*next));
        // Whoever is to lead must reach the holder better than this one does.
        let better = next.filter(|next| holder.is_none_or(|h| h == *next || self.talk(*next, h)));
        if let Some(next) = better {
            self.elect(next, Some(leader));
        }
    }

    /// A follower's patience may have ended.
    pub(super) fn campaign(&mut self, node: usize) {
        let at = self.now;
        self.raft.views[node].campaigning = false;
        if !self.takes_part(node) || !self.votes(node) {
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
        let voter = self.peers(node).filter(|peer| self.votes(*peer)).find(free);
        if self.raft.log(node).is_majority(voter.into_iter().chain([node])) {
            self.elect(node, voter);
        } else {
            self.schedule_campaign(node, at + again);
        }
    }

    /// For no reason that the agents know.
    pub(super) fn move_leader(&mut self, to: usize) {
        let voter = self.peers(to).find(|peer| self.votes(*peer));
        let can = self.takes_part(to) && self.votes(to) && !self.raft.leads(to);
        if let Some(voter) = voter.filter(|_| can) {
            self.elect(to, Some(voter));
        }
    }

    /// One of a quorum has every committed entry, so the winner has too; what was only appended may be lost.
    fn elect(&mut self, node: usize, voter: Option<usize>) {
        let at = self.now;
        self.raft.term += 1;
        let term = self.raft.term;
        let log = &mut self.raft.logs[self.raft.views[node].log];
        log.term = term;
        let last = log.last();
        for member in [node].into_iter().chain(voter) {
            let view = &mut self.raft.views[member];
            (view.term, view.heard_at, view.leader) = (term, at, Some(node));
        }
        let view = &mut self.raft.views[node];
        (view.elected_at, view.acked_at, view.own_from, view.reached_at) = (at, None, 0, [at; 3]);
        view.append(last);
        view.acks.clear();
        self.queue.put(at + self.rng.range(1, HEARTBEAT_MS), Event::Heartbeat(node, term));
        if let Some(voter) = voter {
            let due = at + self.raft.views[voter].patience;
            self.schedule_campaign(voter, due);
        }
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
        let (from, log) = (proposal.from, proposal.log);
        if self.raft.views[from].log != log {
            // It was put aside, or founded anew, with everything that was on its way.
            return;
        }
        let forwarded = self.has(Planted::TakeoverIsForwarded);
        let leader = match proposal.as_leader.filter(|_| !forwarded) {
            Some(term) => Some(from).filter(|n| self.raft.leads(*n) && self.raft.views[*n].term == term),
            None => self.raft.views[from].leader.filter(|leader| *leader == from || self.talk(from, *leader)),
        };
        let leads = |leader: &usize| self.raft.leads(*leader) && self.raft.views[*leader].log == log;
        let leader = leader.filter(|leader| self.takes_part(*leader) && leads(leader));
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
        if !self.has_quorum(leader) {
            // Appended without a quorum: committed later, or lost with the term. For the end of an epoch the driver waits.
            if proposal.ends.is_none() {
                self.reply(&proposal, None);
                proposal.silent = true;
            }
            if proposal.appended.replace(term) != Some(term) {
                self.raft.views[leader].uncommitted.push(proposal.command.clone());
            }
            self.queue.put(self.now + AGAIN_MS, Event::Append(Box::new(proposal)));
            return;
        }
        for node in 0..3 {
            if node == leader || self.followers(leader).any(|follower| follower == node) {
                let logged = self.raft.log(leader).last() + 1;
                self.raft.views[node].append(logged);
            }
        }
        let accepted = self.commit(log, &proposal.command);
        self.reply(&proposal, Some(accepted));
    }

    /// An entry that a quorum has. Invariants look at it before anybody acts on it.
    pub(super) fn commit(&mut self, log: usize, command: &Command) -> bool {
        let committed = self.raft.commit(log, command.clone(), self.options.planted);
        self.raft.logs[log].stamp(self.now);
        self.tell(|| {
            let refused = if committed.accepted { "" } else { " (refused)" };
            format!("ledger {}: {command}{refused}", standing(&committed.after))
        });
        self.committed(log, command, &committed);
        let moved = !Arc::ptr_eq(&committed.before, &committed.after);
        match command {
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
        let newest = self.raft.log(node).last();
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
        self.raft.views[node].applying = false;
        let (view, log) = (&self.raft.views[node], self.raft.log(node));
        let (newest, founded_on) = (log.last(), log.founded_on);
        let Some(leader) = view.leader.filter(|_| view.applied < newest && self.takes_part(node)) else {
            return;
        };
        let led = &self.raft.views[leader];
        let fresh = led.log == view.log && led.term == log.term && self.takes_part(leader);
        let near = leader == node || self.talk(node, leader);
        if fresh && near && (leader != node || self.has_quorum(node)) {
            let step = if self.rng.chance(20) { 1 } else { newest };
            let view = &mut self.raft.views[node];
            let applied = (view.applied + step).min(newest).max(founded_on);
            view.append(view.logged.max(applied));
            view.applied = applied;
            self.tell_committed(node);
            self.schedule_apply(node);
        }
    }
}

fn standing(ledger: &baton_runbooks::ledger::Ledger) -> String {
    format!("epoch {} generation {}", ledger.epoch, ledger.sync_generation)
}
