//! Two nodes are lost for long, and an operator lets the third go on alone: `baton force`, and the return of the others.
//!
//! ```text
//! fault: both others are lost ─▶ force: preflight, order on disk, the agent ends ─▶ its next start founds a log of its own
//!        they come back ─▶ greetings: the lower generation closes, and votes no more ─▶ rejoin: an empty log, taken in
//! ```
//!
//! What is looked at before, and what the ledger makes of it, is the real code; the order, the greetings and the membership are
//! modelled on the consensus crate. The operator's word that the others are off is true in most seeds. Where it is not, two
//! nodes may serve until they hear of each other, and no longer.

use baton_runbooks::decide::force::ForceWanted;
use baton_runbooks::ledger::Forced;
use baton_runbooks::model::{Generation, NodeId, WallMs};

use super::event::Event;
use super::fault::Fault;
use super::hands::BOTH;
use super::node::NAMES;
use super::operator::OperatorAct;
use super::planted::Planted;
use super::raft::View;
use super::rng::Rng;
use super::swarm::START_MS;
use super::world::World;

/// The operator looks again so often whether the survivor leads, before the others come back, in milliseconds.
pub(super) const AGAIN_MS: u64 = 500;

/// A stream of chance of its own: the other seeds are what they were without it.
const STREAM: u64 = 0x0F0C_E000_0000_0000;

/// Percent of the seeds with faults and operators.
const PERCENT: u64 = 8;

/// An agent that starts hears and asks nobody in Raft before its peers have greeted, or this time has passed, in milliseconds.
const SETTLE_MS: u64 = 1_000;

/// So long an order counts, in milliseconds.
const ORDER_MS: u64 = 60_000;

/// Longer than any schedule, in milliseconds.
const FOR_GOOD_MS: u64 = 1_000_000;

/// What is true of "the others are off".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Both hosts are off, and stay so until the survivor leads.
    True,
    /// They run, and the survivor is cut off from them.
    CutOff,
    /// They are stopped, and go on later.
    Frozen,
}

/// What a seed draws.
#[derive(Debug, Clone, Copy)]
pub struct Forcing {
    /// Who goes on alone.
    pub survivor: usize,
    /// When it is cut off already, before the others are lost: they may decide without it.
    pub away_at: Option<u64>,
    /// When the others are lost.
    pub lost_at: [u64; 2],
    /// What the operator's word is worth.
    pub word: Word,
    /// When they come back, at the earliest.
    pub returns_at: u64,
    /// Which of the two comes back later, and by how much.
    pub late: (usize, u64),
}

impl Forcing {
    /// Most seeds draw none.
    pub fn draw(seed: u64) -> Option<Self> {
        let mut rng = Rng::new(seed ^ STREAM);
        if !rng.chance(PERCENT) {
            return None;
        }
        let survivor = rng.index(2);
        let first = START_MS + rng.range(500, 5_000);
        let lost_at = [first, if rng.chance(50) { first } else { first + rng.range(1, 2_500) }];
        let away_at = rng.chance(40).then(|| first.saturating_sub(rng.range(200, 4_000)));
        let word = match rng.range(0, 9) {
            0 | 1 => Word::CutOff,
            2 => Word::Frozen,
            _ => Word::True,
        };
        let returns_at = first + rng.range(11_000, 22_000);
        let late_ms = if rng.chance(50) { rng.range(1, 6_000) } else { 0 };
        Some(Self { survivor, away_at, lost_at, word, returns_at, late: (rng.index(2), late_ms) })
    }

    fn others(&self) -> [usize; 2] {
        [1 - self.survivor, 2]
    }
}

/// An order on disk.
#[derive(Debug, Clone)]
pub struct Order {
    forced: Forced,
    /// The log, and how far it had come.
    place: (usize, usize, u64),
    at: u64,
}

impl World {
    /// Puts what the seed has drawn into the queue; when the others come back.
    pub(super) fn begin_forcing(&mut self) -> Option<u64> {
        let forcing = self.swarm.forcing?;
        let both = |one: usize, other: usize, for_ms: u64| {
            [Fault::Cut { from: one, to: other, for_ms }, Fault::Cut { from: other, to: one, for_ms }]
        };
        let others = forcing.others();
        for (node, lost_at) in others.into_iter().zip(forcing.lost_at) {
            if let Some(away_at) = forcing.away_at {
                let for_ms = lost_at + 500 - away_at;
                both(forcing.survivor, node, for_ms).into_iter().for_each(|fault| self.plan(away_at, fault));
            }
            match forcing.word {
                Word::True => self.plan(lost_at, Fault::HostCrash { node, for_ms: FOR_GOOD_MS }),
                Word::Frozen => {
                    let for_ms = forcing.returns_at - lost_at;
                    self.plan(lost_at, Fault::HostFreeze { node, for_ms });
                }
                Word::CutOff => {
                    both(forcing.survivor, node, FOR_GOOD_MS)
                        .into_iter()
                        .for_each(|fault| self.plan(lost_at, fault));
                }
            }
        }
        // A pause would be waited out for longer than the schedule lasts.
        self.swarm.verbs.retain(|act| *act != OperatorAct::Pause);
        for act in
            [OperatorAct::AcknowledgeRun, OperatorAct::AcceptLoss, OperatorAct::Force, OperatorAct::Rejoin]
        {
            if !self.swarm.verbs.contains(&act) {
                self.swarm.verbs.push(act);
            }
        }
        Some(forcing.returns_at)
    }

    /// Who knows what is at stake lets nobody come back before the survivor leads.
    pub(super) fn waits_for_survivor(&self) -> bool {
        let Some(forcing) = self.swarm.forcing.filter(|forcing| forcing.word == Word::True) else {
            return false;
        };
        let survivor = forcing.survivor;
        let leads = self.raft.leads(survivor) && self.raft.views[survivor].own_from > 0;
        self.nodes[survivor].ordered.is_some() || (self.raft.newest_log() > 0 && !leads)
    }

    /// One of the two that were off comes back later than everything else.
    pub(super) fn return_late(&mut self) {
        let Some(forcing) = self.swarm.forcing else { return };
        let (which, late_ms) = forcing.late;
        let node = forcing.others()[which];
        if late_ms > 0 && self.nodes[node].agent.is_none() {
            let until = self.now + late_ms;
            self.nodes[node].host_down_until = until;
            self.queue.put(until, Event::Live(node));
        }
    }

    /// What the operator of such a seed tries again and again.
    pub(super) fn order_recovery(&mut self, rejoin: bool) {
        if rejoin {
            for node in 0..3 {
                self.rejoin(node);
            }
        } else if let Some(forcing) = self.swarm.forcing {
            let off = forcing.others().into_iter().all(|node| self.is_off(node));
            if off || forcing.word != Word::True {
                self.force(forcing.survivor);
            }
        }
    }

    fn is_off(&self, node: usize) -> bool {
        self.now < self.nodes[node].host_down_until
    }

    /// `baton force` on `node`, whatever became of the others. It refuses while they were heard lately.
    pub fn force(&mut self, node: usize) {
        let others: Vec<usize> = (0..3).filter(|other| *other != node).collect();
        let wanted = ForceWanted {
            others_are_off: others.iter().map(|other| NodeId::from(NAMES[*other])).collect(),
            accept_loss: true,
            reason: "a test".to_owned(),
            by: "operator".to_owned(),
        };
        let (now, wall) = (self.nodes[node].local(self.now), WallMs(self.now));
        let view = &self.raft.views[node];
        let place = (view.log, view.logged, view.term);
        // A log that must not vote must not found anything either, unless both were forced to the same generation.
        let retired = view.outranked.is_some_and(|(_, by)| by != self.generation(view.log));
        let agent = self.nodes[node].agent.as_ref().filter(|_| !retired && self.able(node));
        let forced = agent.and_then(|agent| agent.force_preflight(now, wall, &wanted).forced);
        let Some(forced) = forced else { return };
        // Who is off at this moment and comes back by itself was not off, either.
        let comes_back = self.swarm.forcing.is_some_and(|forcing| forcing.word != Word::True);
        self.mistaken |= comes_back || others.iter().any(|other| !self.is_off(*other));
        self.tell(|| format!("operator at {}: force to generation {}", NAMES[node], forced.generation));
        self.nodes[node].ordered = Some(Order { forced, place, at: self.now });
        self.end_agent(node);
    }

    /// It ends by itself, with its doors closed, and its supervisor starts it again.
    fn end_agent(&mut self, node: usize) {
        self.close(node, &BOTH);
        let it = &mut self.nodes[node];
        it.stop_agent();
        let due = self.now + self.rng.range(100, 1_200);
        it.agent_down_until = it.agent_down_until.max(due);
        self.queue.put(it.agent_down_until, Event::Live(node));
    }

    /// An order is carried out before the agent takes part in anything, if its log is what it was.
    pub(super) fn go_on_alone(&mut self, node: usize) {
        let Some(order) = self.nodes[node].ordered.take() else { return };
        let view = &self.raft.views[node];
        let old = view.log;
        if (old, view.logged, view.term) != order.place || self.now - order.at > ORDER_MS {
            self.tell(|| format!("{}: the order does not count any more", NAMES[node]));
            return;
        }
        let appended = self.raft.fork(node);
        let log = self.raft.newest_log();
        self.invariants.fork(old);
        for command in appended {
            self.commit(log, &command);
        }
        let founder = format!("{} {log}", NAMES[node]);
        let forced = if self.has(Planted::ForceKeepsGeneration) {
            let before = self.raft.log(node).newest();
            let (generation, founder) = (before.generation, before.founder().to_owned());
            Forced { generation, founder, ..order.forced }
        } else {
            Forced { founder, ..order.forced }
        };
        self.tell(|| format!("{} goes on alone in generation {}", NAMES[node], forced.generation));
        let committed = self.raft.found(node, forced);
        self.raft.logs[log].stamp(self.now);
        self.forced(node, &committed);
    }

    /// A start of an agent: it greets, and waits for greetings.
    pub(super) fn settle(&mut self, node: usize) {
        if self.raft.newest_log() == 0 {
            return;
        }
        self.raft.views[node].settled_at = self.now + SETTLE_MS;
        for peer in (0..3).filter(|peer| *peer != node) {
            self.greet(node, peer);
            self.greet(peer, node);
        }
    }

    /// A node says which log it has, to whom it has a link.
    pub(super) fn greet(&mut self, from: usize, to: usize) {
        let view = &self.raft.views[from];
        let (log, is_member) = (view.log, view.logged > 0);
        let speaks = self.raft.newest_log() > 0 && is_member && self.able(from) && self.talk(from, to);
        if let Some(due) = speaks.then(|| self.arrives(from, to)).flatten() {
            self.queue.put(due, Event::Hello(to, log));
        }
    }

    fn generation(&self, log: usize) -> Generation {
        self.raft.logs[log].newest().generation
    }

    /// The higher generation wins; of two that were founded to the same one none does.
    pub(super) fn hear_hello(&mut self, node: usize, log: usize) {
        let view = &self.raft.views[node];
        let (own, since) = (view.log, view.outranked);
        if own == log || view.logged == 0 || self.has(Planted::LowerGenerationGoesOn) {
            return;
        }
        let (mine, theirs) = (self.generation(own), self.generation(log));
        let founder = |log: usize| self.raft.logs[log].newest().founder();
        let counts = theirs > mine || (theirs == mine && founder(log) != founder(own));
        if !counts || since.is_some_and(|(_, by)| by >= theirs) {
            return;
        }
        let view = &mut self.raft.views[node];
        view.outranked = Some((since.map_or(self.now, |(since, _)| since), theirs));
        view.leader = None;
        view.uncommitted.clear();
        self.tell(|| format!("{} of generation {mine} is told of generation {theirs}", NAMES[node]));
    }

    /// `baton rejoin` on `node`: its log is put aside, and it comes back with an empty one.
    pub fn rejoin(&mut self, node: usize) {
        let view = &self.raft.views[node];
        let is_lower = view.outranked.is_some_and(|(_, by)| by > self.generation(view.log));
        if !is_lower || !self.able(node) {
            return;
        }
        self.tell(|| format!("operator at {}: rejoin", NAMES[node]));
        let log = self.raft.newest_log();
        let view = &mut self.raft.views[node];
        let (patience, heard_at, campaigning) = (view.patience, view.heard_at, view.campaigning);
        *view = View { log, patience, heard_at, campaigning, ..View::default() };
        self.end_agent(node);
    }
}
