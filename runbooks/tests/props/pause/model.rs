//! One holder, two nodes that lead in turns, a ledger as a register: a pause in real time.

use baton_runbooks::lease::granter::{Granter, Office};
use baton_runbooks::lease::holder::{Door, Holder};
use baton_runbooks::lease::{Grant, LongLease, Renewal};
use baton_runbooks::ledger::{Command, Ledger, PauseOrder};
use baton_runbooks::model::{Epoch, Mono, NodeId, PauseId, Term, WallMs};

use super::{Act, FOR_MS, TERMS, Variant};

/// Something that arrives later.
enum Event {
    Question { renewal: Renewal, back: u64, write: u64 },
    Answer { grant: Grant, write: u64 },
    Permit { seq: u64, lasts: u64, voids: u64, boot: u64 },
    Command(Command),
}

#[derive(Clone)]
struct Leader {
    node: usize,
    term: u64,
    elected_at: u64,
    acked_at: u64,
    view: Ledger,
}

pub(super) struct Model {
    variant: Variant,
    pub(super) now: u64,
    /// Of the holder and of both nodes that lead in turns.
    rates: [u64; 3],
    ledger: Ledger,
    paused_at: u64,
    holder: Holder,
    view: Ledger,
    boot: u64,
    counted: Option<(PauseId, Mono)>,
    over: Option<PauseId>,
    /// Of the long slot: number of the ticket, its end in real time, the end of its permit.
    slot: Option<(u64, u64, u64)>,
    voids: u64,
    pub(super) open: Vec<(u64, u64)>,
    leader: Leader,
    deposed: Option<Leader>,
    granters: [Granter; 3],
    queue: Vec<(u64, Event)>,
    pub(super) taken_over_at: Option<u64>,
}

fn node(number: usize) -> NodeId {
    NodeId::from(["db1", "db2", "mon"][number])
}

impl Model {
    pub(super) fn new(variant: Variant, rates: [u64; 3]) -> Self {
        let mut ledger = Ledger::default();
        let _ = ledger.apply(super::super::ledger::bootstrap());
        let to = node(0);
        let _ = ledger.apply(Command::StartRun {
            plan: Box::new(super::super::ledger::plan(&ledger, &to)),
            at: WallMs(0),
        });
        ledger.run = None;
        let leader = Leader { node: 2, term: 1, elected_at: 90_000, acked_at: 100_000, view: ledger.clone() };
        let mut model = Self {
            variant,
            now: 100_000,
            rates,
            view: ledger.clone(),
            ledger,
            paused_at: 0,
            holder: Holder::new(to, TERMS, 1),
            boot: 1,
            counted: None,
            over: None,
            slot: None,
            voids: 0,
            open: Vec::new(),
            leader,
            deposed: None,
            granters: [0, 1, 2].map(|number| Granter::new(node(number), TERMS)),
            queue: Vec::new(),
            taken_over_at: None,
        };
        model.start();
        model
    }

    fn start(&mut self) {
        self.holder.appoint(Some(Epoch(1)));
        self.holder.open(Door::Ports);
    }

    fn local(&self, node: usize, at: u64) -> Mono {
        Mono(7_000 * (node as u64 + 1) + at * self.rates[node] / 1_000)
    }

    /// Real milliseconds, rounded up, that a kernel timer of `ms` takes on the holder.
    fn real(&self, ms: u64) -> u64 {
        (ms * 1_000).div_ceil(self.rates[0])
    }

    fn office(&self, leader: &Leader) -> Office {
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

    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(ms) => self.advance(self.now + ms),
            Act::Acknowledge(age) => {
                let leader = &mut self.leader;
                leader.acked_at = leader.acked_at.max(self.now - age).max(leader.elected_at);
            }
            Act::Elect => {
                let (node, term) = (3 - self.leader.node, self.leader.term + 1);
                let view = self.ledger.clone();
                let next = Leader { node, term, elected_at: self.now, acked_at: self.now, view };
                self.deposed = Some(std::mem::replace(&mut self.leader, next));
            }
            Act::Pause => {
                let order = PauseOrder { for_ms: FOR_MS, alone: false, reason: "r".into(), by: "me".into() };
                let epoch = self.ledger.epoch;
                if self.ledger.apply(Command::Pause { epoch, order, at: WallMs(0) }).is_accepted() {
                    self.paused_at = self.now;
                }
            }
            Act::Resume => {
                let pause = self.ledger.pauses;
                let _ = self.ledger.apply(Command::Resume { pause, by: "me".into(), at: WallMs(0) });
            }
            Act::See => self.view = self.ledger.clone(),
            Act::Apply => self.leader.view = self.ledger.clone(),
            Act::Claim { late, lost } => {
                let Some(pause) = self.view.pause.as_ref().filter(|_| !lost) else { return };
                let command = Command::ClaimPause { pause: pause.id, by: node(0), boot: self.boot };
                self.queue.push((self.now + late, Event::Command(command)));
            }
            Act::Ask { there, back, write } => self.ask(*there, *back, *write),
            Act::End { late, lost } => self.end(*late, *lost),
            Act::Restart { host } => self.restart(*host),
            Act::Decide => self.decide(),
        }
    }

    /// The agent's rule, in `node/src/lease/thread/pausing.rs`.
    fn ask(&mut self, there: u64, back: u64, write: u64) {
        let now = self.local(0, self.now);
        let Some(pause) = self.view.pause.clone() else { return };
        let counted = self.counted.filter(|(id, _)| *id == pause.id);
        let ends = counted.map_or_else(|| now.plus_ms(FOR_MS), |(_, ends)| ends);
        self.counted = Some((pause.id, ends));
        let latched = self.over == Some(pause.id);
        let left_ms = ends.since_ms(now).saturating_sub(2 * TERMS.lease_ms);
        let claimed = pause.claimed_by == Some(self.boot) && pause.resumed_by.is_none();
        if latched || !claimed || left_ms == 0 {
            return;
        }
        let lease = LongLease { pause: pause.id, length_ms: left_ms };
        let Some((seq, _, _)) = self.holder.next_long_ticket(lease) else { return };
        self.shut_slot();
        self.slot = Some((seq, self.now + self.real(TERMS.long_ticket_ms(left_ms)), 0));
        let Some(renewal) = self.holder.renew_long(seq, now) else { return };
        self.queue.push((self.now + there, Event::Question { renewal, back, write }));
    }

    /// Tickets and permits of the long slot are gone.
    fn shut_slot(&mut self) {
        let now = self.now;
        self.slot = None;
        self.open.iter_mut().for_each(|(_, until)| *until = now.min(*until));
    }

    fn end(&mut self, late: u64, lost: bool) {
        let now = self.local(0, self.now);
        let Some(pause) = self.view.pause.clone() else { return };
        let over = self.counted.is_some_and(|(id, ends)| id == pause.id && ends <= now);
        if pause.resumed_by.is_none() && !over {
            return;
        }
        self.over = Some(pause.id);
        self.holder.drop_long();
        self.voids += 1;
        self.shut_slot();
        let command = Command::EndPause { pause: pause.id, by: node(0), boot: self.boot, at: WallMs(0) };
        if !lost {
            self.queue.push((self.now + late, Event::Command(command)));
        }
    }

    fn restart(&mut self, host: bool) {
        if host {
            self.shut_slot();
        }
        self.boot += 1;
        self.holder = Holder::new(node(0), TERMS, self.boot);
        (self.counted, self.over) = (None, None);
        self.start();
        let now = self.now;
        let left = self.slot.map(|(_, ticket, permit)| ticket.min(permit)).filter(|until| *until > now);
        match (left, &self.view.pause) {
            (Some(until), Some(pause)) if pause.resumed_by.is_none() => {
                let id = pause.id;
                let until = self.local(0, until);
                self.holder.adopt_long(id, until, &[Door::Ports]);
            }
            (Some(_) | None, _) => self.shut_slot(),
        }
    }

    pub(super) fn advance(&mut self, until: u64) {
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
            Event::Question { renewal, back, write } => {
                // Every other question reaches a leader that was deposed and does not know.
                let deposed = self.deposed.as_ref().filter(|_| renewal.seq.is_multiple_of(2));
                let asked = deposed.unwrap_or(&self.leader).clone();
                let (now, office) = (self.local(asked.node, self.now), self.office(&asked));
                let appointment = asked.view.appointment();
                if let Ok(grant) = self.granters[asked.node].grant(now, &office, &appointment, &renewal) {
                    self.queue.push((self.now + back, Event::Answer { grant, write }));
                }
            }
            Event::Answer { grant, write } => {
                let now = self.local(0, self.now);
                let Ok(accepted) = self.holder.accept(&grant, now) else { return };
                if accepted.doors.is_empty() {
                    return;
                }
                let (seq, lasts) = (grant.seq, accepted.ends_at.since_ms(now));
                let (voids, boot) = (self.voids, self.boot);
                self.queue.push((self.now + write, Event::Permit { seq, lasts, voids, boot }));
            }
            Event::Permit { seq, lasts, voids, boot } => {
                // What an old process had not written is never written, nor what was computed before a voiding.
                if self.voids != voids || self.boot != boot {
                    return;
                }
                let permit = self.now + self.real(lasts);
                let Some((number, ticket, noted)) = &mut self.slot else { return };
                if *number == seq {
                    *noted = permit;
                    let ends = permit.min(*ticket);
                    if self.now < ends {
                        self.open.push((self.now, ends));
                    }
                }
            }
            Event::Command(Command::EndPause { pause, by, boot, at }) => {
                let claimed = self.ledger.pause.as_ref().and_then(|pause| pause.claimed_by);
                let any = self.variant == Variant::AnyStartEnds;
                let boot = claimed.filter(|_| any).unwrap_or(boot);
                let _ = self.ledger.apply(Command::EndPause { pause, by, boot, at });
            }
            Event::Command(command) => drop(self.ledger.apply(command)),
        }
    }

    fn decide(&mut self) {
        let leader = self.leader.clone();
        let (now, office) = (self.local(leader.node, self.now), self.office(&leader));
        let granter = &mut self.granters[leader.node];
        granter.see(now, &office, leader.view.paused());
        if let Some(pause) = &leader.view.pause {
            let wait_ms = TERMS.pause_wait_ms(FOR_MS);
            let over = match self.variant {
                Variant::NoRates => {
                    let early = wait_ms - FOR_MS;
                    granter.pause_over(&office).is_some_and(|(_, at)| at.minus_ms(early) <= now)
                }
                Variant::CountedFromTheOrder => self.paused_at + wait_ms <= self.now,
                Variant::Real | Variant::AnyStartEnds => {
                    granter.pause_over(&office).is_some_and(|(_, at)| at <= now)
                }
            };
            if over {
                let by = node(leader.node);
                let command = Command::ExpirePause { pause: pause.id, by, at: WallMs(0) };
                let _ = self.ledger.apply(command);
                self.leader.view = self.ledger.clone();
            }
            return;
        }
        // The ledger itself refuses a takeover while a pause stands, whatever the leader has seen.
        if granter.end_if_over(now, &office, Epoch(1), None) && self.ledger.pause.is_none() {
            self.taken_over_at.get_or_insert(self.now);
        } else {
            granter.go_on(Epoch(1));
        }
    }

    pub(super) fn overlap(&self) -> Option<String> {
        let at = self.taken_over_at?;
        let clash = self.open.iter().find(|(_, until)| *until > at)?;
        Some(format!("taken over at {at}, the old holder was open {}..{}", clash.0, clash.1))
    }
}
