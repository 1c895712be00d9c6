//! The driver's side of the contract (`baton_runbooks`, crate documentation): inputs in, outputs carried out in order.

use std::rc::Rc;
use std::sync::Arc;

use baton_runbooks::agent::{Input, LeaseFacts, Output, Stamped};
use baton_runbooks::lease::granter::Office;
use baton_runbooks::ledger::{Command, Complete};
use baton_runbooks::model::{Epoch, Term, WallMs};
use baton_runbooks::observe::{DiskFacts, NodeReport, Observation, ProbeFailure};
use baton_runbooks::run::Event as Entered;
use baton_runbooks::why::Obstacle;

use super::event::Event;
use super::node::{NAMES, Standing};
use super::planted::Planted;
use super::raft::Proposal;
use super::world::World;
use crate::invariants::no_storm;

/// A proposal that nobody answers has an unknown fate after this long, in milliseconds.
const ANSWER_MS: u64 = 500;

impl World {
    /// One input; all its outputs are begun before the next one.
    pub(super) fn feed(&mut self, node: usize, input: Input) {
        self.tell_input(node, &input);
        self.inputs += 1;
        let (now, wall) = (self.nodes[node].local(self.now), WallMs(self.now));
        let Some(agent) = &mut self.nodes[node].agent else { return };
        for output in agent.handle(Stamped { now, wall, input }) {
            self.carry_out(node, output);
        }
    }

    fn tell_input(&mut self, node: usize, input: &Input) {
        let name = NAMES[node];
        match input {
            Input::Tick | Input::Office { .. } | Input::Lease { .. } | Input::Report { .. } => {}
            Input::Observed { observation: Observation::Mysql { .. } | Observation::Redis { .. } } => {}
            Input::Committed { index, .. } => self.tell(|| format!("{name} applies {index}")),
            Input::Observed { .. }
            | Input::Proposed { .. }
            | Input::StepEnded { .. }
            | Input::Opening { .. }
            | Input::Canary { .. } => self.tell(|| format!("{name} takes {input:?}")),
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Propose { ticket, command, as_leader, ends } => {
                self.carry_to_log(node, ticket, command, as_leader.map(|term| term.0), ends);
            }
            Output::RunStep { run, epoch, attempt, planned } => {
                self.spawn(
                    node,
                    super::event::Job {
                        deadline: 0,
                        run,
                        epoch,
                        attempt,
                        planned,
                        undo: false,
                        silent: false,
                    },
                );
            }
            Output::UndoStep { run, epoch, attempt, planned } => {
                self.spawn(
                    node,
                    super::event::Job {
                        deadline: 0,
                        run,
                        epoch,
                        attempt,
                        planned,
                        undo: true,
                        silent: false,
                    },
                );
            }
            Output::Wish { wish } => {
                self.tell(|| {
                    let why: Vec<String> = wish.why.iter().map(ToString::to_string).collect();
                    format!("{} is to be {:?}: {}", NAMES[node], wish.role, why.join(", "))
                });
                self.nodes[node].wish = Some(wish.into());
                self.reconcile(node);
            }
            Output::Keep { keep } => self.keep(node, &keep),
            Output::Decided { decision } => self.tell(|| {
                let why: Vec<String> = decision.why.iter().map(ToString::to_string).collect();
                format!("{} decides {}: {}", NAMES[node], decision.action.as_str(), why.join(", "))
            }),
        }
    }

    fn carry_to_log(
        &mut self,
        node: usize,
        ticket: u64,
        command: Command,
        as_leader: Option<u64>,
        ends: Option<Epoch>,
    ) {
        if matches!(command, Command::Release { .. }) && !self.has(Planted::ReleaseBeforeClosing) {
            self.close(node, &super::hands::BOTH);
        }
        if matches!(command, Command::SyncOut { .. }) && self.has(Planted::SourceOffBeforeApplied) {
            self.source_off(node);
        }
        if !self.is_pause_over(node, &command) || ends.is_some_and(|epoch| !self.end(node, epoch)) {
            self.later(node, 5, Input::Proposed { ticket, accepted: Some(false) });
            return;
        }
        if self.has(Planted::ActsBeforeJournal) {
            self.act_before_journal(node, &command);
        }
        self.propose(node, ticket, command, as_leader, ends);
    }

    /// Another look, at the moment of proposing: a grant may have been given since the core looked.
    fn end(&mut self, node: usize, epoch: Epoch) -> bool {
        let office = self.office(node);
        let released = self.applied(node).released.as_ref().map(|released| released.boot);
        self.paused_lease(node, &office);
        let blind = self.has(Planted::EndWithoutAnotherLook);
        let goes_on = self.has(Planted::GrantAfterEndProposed);
        let it = &mut self.nodes[node];
        if blind {
            it.granter.end(epoch);
            return true;
        }
        let over = it.granter.end_if_over(it.local(self.now), &office, epoch, released);
        if goes_on {
            it.granter.go_on(epoch);
        }
        over
    }

    fn propose(
        &mut self,
        node: usize,
        ticket: u64,
        command: Command,
        as_leader: Option<u64>,
        ends: Option<Epoch>,
    ) {
        self.tell(|| format!("{} proposes {command}", NAMES[node]));
        let storm = self.invariants.no_storm.proposed(self.now, node);
        self.invariants.hold(self.now, no_storm::NAME, storm);
        let (boot, log) = (self.nodes[node].boot, self.raft.views[node].log);
        let due = self.now + 2 + self.rng.range(0, self.swarm.propose_ms);
        let trouble = self.now >= super::swarm::START_MS;
        let lost = trouble && self.rng.chance(self.swarm.lost);
        let unknown = !lost && trouble && self.rng.chance(self.swarm.unknown);
        let proposal = Proposal {
            from: node,
            boot,
            ticket,
            command,
            log,
            as_leader,
            ends,
            doubtful: false,
            silent: unknown,
            appended: None,
        };
        if lost || unknown {
            self.lose_fate(&proposal);
        }
        if unknown {
            let late = due + self.rng.range(0, if as_leader.is_some() { 900 } else { 2_500 });
            self.queue.put(late, Event::Append(Box::new(proposal)));
        } else if !lost {
            self.queue.put(due, Event::Append(Box::new(proposal)));
        }
    }

    /// Nobody answers. What ends an epoch is proposed again until its fate is known, since nothing is granted before; for
    /// everything else the core is told that nobody knows.
    fn lose_fate(&mut self, proposal: &Proposal) {
        let (node, ticket) = (proposal.from, proposal.ticket);
        self.tell(|| format!("{}: nobody answers: {}", NAMES[node], proposal.command));
        if proposal.ends.is_some() {
            let again = Proposal { doubtful: true, silent: false, ..proposal.clone() };
            self.queue.put(self.now + ANSWER_MS, Event::Append(Box::new(again)));
        } else {
            self.later(node, ANSWER_MS, Input::Proposed { ticket, accepted: None });
        }
    }

    /// An operator's command goes through the agent's API; nobody waits for the answer here.
    pub(super) fn propose_for_operator(&mut self, node: usize, command: Command) {
        let (boot, log) = (self.nodes[node].boot, self.raft.views[node].log);
        let proposal = Proposal {
            from: node,
            boot,
            ticket: u64::MAX,
            command,
            log,
            as_leader: None,
            ends: None,
            doubtful: false,
            silent: true,
            appended: None,
        };
        let delay = 2 + self.rng.range(0, self.swarm.propose_ms);
        self.queue.put(self.now + delay, Event::Append(Box::new(proposal)));
    }

    /// The fate of a proposal goes back to the start of the agent that made it.
    pub(super) fn reply(&mut self, proposal: &Proposal, accepted: Option<bool>) {
        let node = proposal.from;
        if proposal.silent || self.nodes[node].boot != proposal.boot {
            return;
        }
        if let (Some(false), Some(epoch)) = (accepted, proposal.ends) {
            self.nodes[node].granter.go_on(epoch);
        }
        if accepted == Some(false) && self.has(Planted::ProposedWithoutEnd) {
            let again = proposal.clone();
            return self.propose(node, again.ticket, again.command, again.as_leader, again.ends);
        }
        let ms = self.rng.range(1, 25);
        self.later(node, ms, Input::Proposed { ticket: proposal.ticket, accepted });
    }

    /// The core hears of what is applied here.
    pub(super) fn tell_committed(&mut self, node: usize) {
        let applied = self.raft.views[node].applied;
        if applied > 0 {
            let ledger = Arc::clone(self.raft.applied(node));
            self.feed(node, Input::Committed { index: applied as u64, ledger });
        }
    }

    /// The core's clock: its lease, if that has changed; then its standing or, if that is as it was, the time alone. Time
    /// passes with every input, so the real driver too feeds one for both.
    pub(super) fn tick(&mut self, node: usize) {
        self.lapse(node);
        let (standing, office) = self.stands(node);
        let released = self.applied(node).released.as_ref().map(|released| released.boot);
        let paused = self.paused_lease(node, &office);
        let it = &mut self.nodes[node];
        let lease = LeaseFacts {
            held: it.holder.epoch().zip(it.holder.ends_at()),
            takeover_at: it.granter.takeover_at(&office),
            released_at: released.and_then(|boot| it.granter.released_at(&office, boot)),
            granted_at: it.granter.granted_at(),
            ..paused
        };
        if it.lease != lease {
            it.lease = lease.clone();
            let scenario = if node == 2 { self.options.view_lag_ms } else { 0 };
            let lag_ms = scenario.max(self.rng.range(0, self.swarm.view_ms));
            // Late, and in order: a view never overtakes a newer one.
            let due = (self.now + lag_ms).max(self.nodes[node].lease_due);
            self.nodes[node].lease_due = due;
            if due == self.now {
                self.feed(node, Input::Lease { lease: Box::new(lease) });
            } else {
                self.later(node, due - self.now, Input::Lease { lease: Box::new(lease) });
            }
        }
        if self.nodes[node].standing.is_none_or(|told| told.is_outdated(standing)) {
            self.nodes[node].standing = Some(standing);
            self.feed(node, Input::Office { office: Office::clone(&office) });
        } else {
            self.feed(node, Input::Tick);
        }
    }

    fn standing(&mut self, node: usize) -> Standing {
        let acked_at = self.raft.acked_at(node, self.now);
        let view = &self.raft.views[node];
        let leads = view.leader == Some(node);
        Standing {
            term: view.term,
            leader: view.leader,
            own: leads && view.applied >= view.own_from && view.own_from > 0,
            acked_at: acked_at.filter(|_| leads),
        }
    }

    /// This node's standing in Raft, as its lease thread sees it at this moment.
    pub(super) fn office(&mut self, node: usize) -> Rc<Office> {
        self.stands(node).1
    }

    /// The same as the core hears of it. Most of the time it is what it was.
    fn stands(&mut self, node: usize) -> (Standing, Rc<Office>) {
        let standing = self.standing(node);
        let known = self.nodes[node].office.as_ref().filter(|(known, _)| *known == standing);
        if let Some((_, office)) = known.filter(|_| self.options.planted.is_none()) {
            return (standing, Rc::clone(office));
        }
        let office = Rc::new(self.office_of(node, standing));
        self.nodes[node].office = Some((standing, Rc::clone(&office)));
        (standing, office)
    }

    fn office_of(&self, node: usize, standing: Standing) -> Office {
        let (view, it) = (&self.raft.views[node], &self.nodes[node]);
        let is_leader = standing.leader == Some(node);
        let elected_at = if self.has(Planted::NewLeaderDoesNotWait) { 0 } else { view.elected_at };
        let acked_at = if self.has(Planted::GrantWithoutQuorum) { Some(self.now) } else { standing.acked_at };
        Office {
            is_leader,
            term: Term(standing.term),
            leader: standing.leader.map(|leader| self.nodes[leader].name.clone()),
            elected_at: is_leader.then(|| it.local(elected_at)),
            own_term_applied: standing.own || (is_leader && self.has(Planted::GrantBeforeOwnTerm)),
            quorum_acked_at: acked_at.filter(|_| is_leader).map(|at| it.local(at)),
            append_pending_since: None,
        }
    }

    /// Probes end, and the hands make the node what the newest wish says.
    pub(super) fn probe(&mut self, node: usize) {
        let at = self.now;
        let bad = at < self.nodes[node].disk_bad_until;
        if bad != self.nodes[node].disk_seen_bad {
            self.nodes[node].disk_seen_bad = bad;
            let facts = DiskFacts { free_bytes: Some(1 << 30), read_only: bad, sync_ms: Some(1) };
            self.feed(node, Input::Observed { observation: Observation::Disk { facts } });
        }
        let observation = self.look_at_mysql(node);
        self.feed(node, Input::Observed { observation });
        self.look_at_redis(node);
        self.reconcile(node);
    }

    fn look_at_mysql(&self, node: usize) -> Observation {
        let (db, it) = (self.db(node), &self.nodes[node]);
        let failure = if !db.up {
            ProbeFailure::Refused
        } else if !db.answers(self.now) {
            ProbeFailure::Timeout { after_ms: 300 }
        } else if self.now < it.lied_until {
            match it.lie {
                0 => ProbeFailure::TooManyConnections,
                1 => ProbeFailure::WrongCredentials { message: "access denied".to_owned() },
                2 => ProbeFailure::Timeout { after_ms: 300 },
                _ => ProbeFailure::Error { message: "server is shutting down".to_owned() },
            }
        } else {
            return Observation::Mysql { facts: db.facts(node).into() };
        };
        Observation::MysqlFailed { failure }
    }

    /// What this node says of itself, to its own core too.
    pub(super) fn report(&mut self, node: usize) {
        let now = self.nodes[node].local(self.now);
        let Some(agent) = &self.nodes[node].agent else { return };
        let mut report = Arc::new(agent.report(now));
        if self.has(Planted::FlagSurvivesRestart) {
            self.pretend_no_restart(node, Arc::make_mut(&mut report));
        }
        if self.raft.views[node].outranked.is_some() {
            let report = Arc::make_mut(&mut report);
            let why = Obstacle::Outranked.with(format_args!(": `baton rejoin {}`", report.node));
            report.obstacles.push(why);
        }
        for peer in (0..3).filter(|peer| *peer != node) {
            self.send_report(node, peer, &report);
        }
        self.feed(node, Input::Report { report });
    }

    /// Planted: the replica names the instance that the ledger vouches for, whatever it is.
    fn pretend_no_restart(&self, node: usize, report: &mut NodeReport) {
        if let Some(Complete::Replica { instance }) = self.applied(node).in_sync.get(&report.node)
            && let Some(mysql) = &mut report.mysql
        {
            Arc::make_mut(mysql).instance = instance.clone();
        }
    }

    fn act_before_journal(&mut self, node: usize, command: &Command) {
        let Command::Journal { run, epoch, entries } = command else { return };
        let started = entries.iter().filter(|entry| entry.event == Entered::Started);
        for entry in started {
            let plan = self.applied(node).run.as_ref().map(|run| &run.plan);
            let Some(planned) = plan.and_then(|plan| plan.step(entry.step)).cloned() else { continue };
            let job = super::event::Job {
                deadline: self.now,
                run: *run,
                epoch: *epoch,
                attempt: entry.attempt,
                planned,
                undo: false,
                silent: true,
            };
            let boot = self.nodes[node].boot;
            self.queue.put(self.now, Event::Step(node, boot, Box::new(job)));
        }
    }
}
