//! One holder: the open intervals of different epochs never overlap, under drifting clocks, delays, losses, agents that
//! freeze between computing and writing, restarts, re-elections and releases.
//!
//! The model has real time in milliseconds. Two data nodes hold the baton in turns; whoever leads grants and, when the
//! granter says so, ends the epoch. Raft is a register: a leader is elected only after the last one's newest acknowledged
//! message was sent, which is what a quorum's intersection gives.

use std::collections::BTreeMap;

use baton_runbooks::lease::granter::{Appointment, Granter, Office};
use baton_runbooks::lease::holder::{Door, Holder};
use baton_runbooks::lease::{Grant, Renewal, Terms};
use baton_runbooks::model::{Epoch, Mono, NodeId, Term};
use proptest::prelude::*;

const TERMS: Terms = Terms { lease_ms: 1_200, renew_ms: 200, margin_ms: 150, age_max_ms: 400, slots: 8 };

/// What the test plants to see that the property can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Real,
    /// The kernel gets no ticket before the question: the permit alone opens, for the whole lease, from when it is written.
    NoTicket,
    /// The lease is counted from the moment at which the grant arrived.
    FromReceipt,
    /// Nobody waits for the margin, nor a new leader for its predecessor's leases.
    NoWaiting,
    /// A release lets the takeover start although another start of the agent holds a lease.
    AnyRelease,
}

#[derive(Debug, Clone)]
enum Act {
    /// The holder's lease thread asks; delays of the question and the answer, and of the write of the permit.
    Renew {
        there: u64,
        back: u64,
        write: u64,
    },
    Wait(u64),
    /// The leader's newest acknowledged message was sent this long ago.
    Acknowledge(u64),
    Elect {
        late: u64,
    },
    /// A new start of the holder's agent; what is in the kernel stays.
    Restart,
    /// The holder closes and gives its lease back; the command is applied later.
    Release {
        late: u64,
    },
    /// The leader looks whether it may end the epoch.
    Decide,
}

fn act() -> impl Strategy<Value = Act> {
    let delay = prop_oneof![4 => 0..30u64, 2 => 30..400u64, 1 => 400..2_500u64];
    let delays = (delay.clone(), delay.clone(), prop_oneof![4 => Just(0u64), 1 => 0..1_500u64]);
    prop_oneof![
        6 => delays.prop_map(|(there, back, write)| Act::Renew { there, back, write }),
        6 => (1..400u64).prop_map(Act::Wait),
        4 => (0..420u64).prop_map(Act::Acknowledge),
        1 => (0..300u64).prop_map(|late| Act::Elect { late }),
        1 => Just(Act::Restart),
        1 => (0..600u64).prop_map(|late| Act::Release { late }),
        6 => Just(Act::Decide),
    ]
}

/// Something that arrives later.
enum Event {
    Question(usize, Renewal),
    Answer(usize, u64, Grant, u64),
    Permit { node: usize, epoch: Epoch, slot: u64, seq: u64, lasts: u64, closes: u64 },
    Release { epoch: Epoch, boot: u64 },
}

/// A leader as it sees itself, and what it has applied.
#[derive(Clone, Copy)]
struct Leader {
    node: usize,
    term: u64,
    elected_at: u64,
    acked_at: u64,
    epoch: Epoch,
    holder: usize,
    released: Option<u64>,
}

struct Model {
    variant: Variant,
    now: u64,
    rates: [u64; 4],
    nodes: [Holder; 2],
    boots: u64,
    boot: [u64; 2],
    /// Closings of each node so far; a permit that was computed before one is void.
    closes: [u64; 2],
    /// Per node and slot: the number of the ticket and its end in real time.
    tickets: BTreeMap<(usize, u64), (u64, u64)>,
    queue: Vec<(u64, Event)>,
    leader: Leader,
    /// The last one, who does not know yet that it leads no more. Its acknowledgements stand still.
    deposed: Option<Leader>,
    granters: Vec<Granter>,
    open: Vec<(Epoch, u64, u64)>,
    /// Of the way back and of the write of the permit, by node and number.
    delays: BTreeMap<(usize, u64, u64), (u64, u64)>,
}

impl Model {
    fn new(variant: Variant, rates: [u64; 4]) -> Self {
        let name = |node: usize| NodeId::from(["db1", "db2", "mon", "other"][node]);
        let holder = |node| Holder::new(name(node), TERMS, node as u64 + 1);
        let mut model = Self {
            variant,
            now: 100_000,
            rates,
            nodes: [holder(0), holder(1)],
            boots: 2,
            boot: [1, 2],
            closes: [0, 0],
            tickets: BTreeMap::new(),
            queue: Vec::new(),
            leader: Leader {
                node: 2,
                term: 1,
                elected_at: 90_000,
                acked_at: 100_000,
                epoch: Epoch(1),
                holder: 0,
                released: None,
            },
            deposed: None,
            granters: (0..4).map(|node| Granter::new(name(node), TERMS)).collect(),
            open: Vec::new(),
            delays: BTreeMap::new(),
        };
        model.appoint();
        model
    }

    fn local(&self, node: usize, at: u64) -> Mono {
        Mono(7_000 * (node as u64 + 1) + at * self.rates[node] / 1_000)
    }

    /// Real milliseconds, rounded up, that a kernel timer of `ms` takes on this node.
    fn real(&self, node: usize, ms: u64) -> u64 {
        (ms * 1_000).div_ceil(self.rates[node])
    }

    fn office(&self, leader: Leader) -> Office {
        Office {
            is_leader: true,
            term: Term(leader.term),
            leader: None,
            elected_at: Some(self.local(leader.node, leader.elected_at)),
            own_term_applied: true,
            quorum_acked_at: Some(self.local(leader.node, leader.acked_at)),
            append_pending_since: None,
        }
    }

    fn appoint(&mut self) {
        for node in 0..2 {
            let epoch = (node == self.leader.holder).then_some(self.leader.epoch);
            // The old holder may hear of it only when its lease has long ended; the kernel must have closed by itself.
            if epoch.is_some() {
                self.nodes[node].appoint(epoch);
                self.nodes[node].open(Door::Ports);
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(ms) => self.advance(self.now + ms),
            Act::Renew { there, back, write } => {
                for node in 0..2 {
                    self.ask(node, *there, *back, *write);
                }
            }
            Act::Acknowledge(age) => {
                let leader = &mut self.leader;
                leader.acked_at = leader.acked_at.max(self.now - age).max(leader.elected_at);
            }
            Act::Elect { late } => {
                self.deposed = Some(self.leader);
                let term = self.leader.term + 1;
                let node = 5 - self.leader.node;
                self.leader = Leader { node, term, elected_at: self.now, acked_at: self.now, ..self.leader };
                self.advance(self.now + late);
            }
            Act::Restart => {
                let node = self.leader.holder;
                self.boots += 1;
                // What the old process had not written yet is never written.
                self.closes[node] += 1;
                self.boot[node] = self.boots;
                let name = NodeId::from(["db1", "db2"][node]);
                self.nodes[node] = Holder::new(name, TERMS, self.boots);
                self.nodes[node].appoint(Some(self.leader.epoch));
                self.nodes[node].open(Door::Ports);
            }
            Act::Release { late } => {
                let node = self.leader.holder;
                self.close(node);
                let event = Event::Release { epoch: self.leader.epoch, boot: self.boot[node] };
                self.queue.push((self.now + late, event));
            }
            Act::Decide => self.decide(),
        }
    }

    fn close(&mut self, node: usize) {
        self.nodes[node].close(Door::Ports);
        self.closes[node] += 1;
        let now = self.now;
        self.tickets.retain(|(of, _), _| *of != node);
        let epoch = self.nodes[node].epoch();
        for (_, _, until) in self.open.iter_mut().filter(|(of, from, _)| Some(*of) == epoch && *from <= now) {
            *until = (*until).min(now);
        }
    }

    fn ask(&mut self, node: usize, there: u64, back: u64, write: u64) {
        let Some((seq, slot, doors)) = self.nodes[node].next_ticket() else { return };
        if doors.contains(&Door::Ports) {
            let until = self.now + self.real(node, TERMS.ticket_ms());
            self.tickets.insert((node, slot), (seq, until));
        }
        let Some(renewal) = self.nodes[node].renew(seq, self.local(node, self.now)) else { return };
        self.delays.insert((node, renewal.boot, seq), (back, write));
        self.queue.push((self.now + there, Event::Question(node, renewal)));
    }

    fn advance(&mut self, until: u64) {
        while let Some(next) =
            (0..self.queue.len()).min_by_key(|i| self.queue[*i].0).filter(|i| self.queue[*i].0 <= until)
        {
            let (due, event) = self.queue.remove(next);
            self.now = self.now.max(due);
            self.happen(event);
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Question(node, renewal) => {
                // Every other question reaches a leader that was deposed and does not know.
                let asked = self.deposed.filter(|_| renewal.seq.is_multiple_of(2)).unwrap_or(self.leader);
                let holder = Some(NodeId::from(["db1", "db2"][asked.holder]));
                let released = asked.released.is_some();
                let appointment =
                    Appointment { holder, epoch: asked.epoch, released, ..Appointment::default() };
                let (now, office) = (self.local(asked.node, self.now), self.office(asked));
                let (boot, seq) = (renewal.boot, renewal.seq);
                if let Ok(grant) = self.granters[asked.node].grant(now, &office, &appointment, &renewal) {
                    let (back, write) = self.delays[&(node, boot, seq)];
                    self.queue.push((self.now + back, Event::Answer(node, seq, grant, write)));
                }
            }
            Event::Answer(node, seq, grant, write) => {
                let now = self.local(node, self.now);
                let Ok(accepted) = self.nodes[node].accept(&grant, now) else { return };
                if !accepted.doors.contains(&Door::Ports) {
                    return;
                }
                let lasts = match self.variant {
                    Variant::FromReceipt => TERMS.lease_ms,
                    Variant::Real | Variant::NoTicket | Variant::NoWaiting | Variant::AnyRelease => {
                        accepted.ends_at.since_ms(now)
                    }
                };
                let (epoch, slot, closes) = (grant.epoch, accepted.slot, self.closes[node]);
                let permit = Event::Permit { node, epoch, slot, seq, lasts, closes };
                self.queue.push((self.now + write, permit));
            }
            Event::Permit { node, epoch, slot, seq, lasts, closes } => {
                if self.closes[node] != closes {
                    return;
                }
                let permit_ends = self.now + self.real(node, lasts);
                let ends = match (self.variant, self.tickets.get(&(node, slot))) {
                    (Variant::NoTicket | Variant::FromReceipt, _) => permit_ends,
                    // A ticket of another number stands in the slot: the permit was cleared with it.
                    (_, Some((number, ticket_ends))) if *number == seq => permit_ends.min(*ticket_ends),
                    (_, Some(_) | None) => return,
                };
                if self.now < ends {
                    self.open.push((epoch, self.now, ends));
                }
            }
            Event::Release { epoch, boot } => {
                if epoch == self.leader.epoch {
                    self.leader.released = Some(boot);
                }
            }
        }
    }

    fn decide(&mut self) {
        let leader = self.leader;
        let (now, office) = (self.local(leader.node, self.now), self.office(leader));
        let granter = &mut self.granters[leader.node];
        let over = match (self.variant, leader.released) {
            (Variant::NoWaiting, _) => {
                let margin = TERMS.new_leader_wait_ms().max(TERMS.margin_ms);
                granter.takeover_at(&office).is_some_and(|at| at <= now.plus_ms(margin))
            }
            (Variant::AnyRelease, Some(_)) => true,
            (_, released) => granter.end_if_over(now, &office, leader.epoch, released),
        };
        if over {
            self.leader.epoch = leader.epoch.next();
            self.leader.holder = 1 - leader.holder;
            self.leader.released = None;
            self.appoint();
        }
    }

    fn overlap(&self) -> Option<String> {
        self.open.iter().enumerate().find_map(|(i, (epoch, from, until))| {
            let clash = self.open[..i]
                .iter()
                .find(|(other, since, ends)| other != epoch && since < until && from < ends)?;
            Some(format!("epoch {epoch} open {from}..{until}, {clash:?}"))
        })
    }
}

fn run(variant: Variant, rates: [u64; 4], acts: &[Act]) -> Option<String> {
    let mut model = Model::new(variant, rates);
    for act in acts {
        model.act(act);
    }
    model.advance(model.now + 10_000);
    model.overlap()
}

fn rates() -> impl Strategy<Value = [u64; 4]> {
    [rate(), rate(), rate(), rate()]
}

/// Within 5 % of real time.
fn rate() -> impl Strategy<Value = u64> {
    prop_oneof![Just(950u64), Just(1_050u64), 950..=1_050u64]
}

proptest! {
    #![proptest_config(super::at_least(1_500))]
    #[test]
    fn lease_never_overlaps(rates in rates(), acts in prop::collection::vec(act(), 10..120)) {
        let overlap = run(Variant::Real, rates, &acts);
        prop_assert!(overlap.is_none(), "{}", overlap.unwrap());
    }
}

/// Each planted mistake is found within the number of cases that the property itself runs.
#[test]
fn planted_mistakes_are_found() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    for variant in [Variant::NoTicket, Variant::FromReceipt, Variant::NoWaiting, Variant::AnyRelease] {
        let mut runner = TestRunner::deterministic();
        let strategy = (rates(), prop::collection::vec(act(), 10..120));
        let found = (0..3_000).any(|_| {
            let (rates, acts) = strategy.new_tree(&mut runner).unwrap().current();
            run(variant, rates, &acts).is_some()
        });
        assert!(found, "{variant:?} goes unnoticed");
    }
}

/// The property says nothing if nobody ever opens, or nobody ever takes over.
#[test]
fn the_model_is_not_idle() {
    let mut acts = Vec::new();
    for _ in 0..20 {
        acts.extend([Act::Acknowledge(10), Act::Renew { there: 5, back: 5, write: 0 }, Act::Wait(200)]);
    }
    acts.extend([Act::Wait(1_500), Act::Decide, Act::Acknowledge(0)]);
    acts.extend([Act::Renew { there: 5, back: 5, write: 0 }, Act::Wait(100)]);
    let mut model = Model::new(Variant::Real, [1_000; 4]);
    for act in &acts {
        model.act(act);
    }
    assert_eq!(model.leader.epoch, Epoch(2));
    assert!(model.open.iter().any(|(epoch, ..)| *epoch == Epoch(2)), "{:?}", model.open);
    assert!(model.open.len() > 15, "{:?}", model.open);
}
