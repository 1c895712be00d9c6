//! What happens next: a queue of events, in the order of their instants, then of their making.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_runbooks::agent::Input;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::lease::{Grant, Refusal, Renewal, Surrender};
use baton_runbooks::model::{Epoch, RunId};
use baton_runbooks::observe::NodeReport;
use baton_runbooks::plan::PlannedStep;

use super::fault::Fault;
use super::operator::OperatorAct;
use super::raft::Proposal;

/// Something that is due at an instant. What names a start of an agent is dropped when that start is over.
#[derive(Debug)]
pub enum Event {
    /// A fault.
    Fault(Box<Fault>),
    /// A fault of the seed whose target is drawn when it is due.
    Trouble,
    /// A host, an agent or a database may start again.
    Live(usize),
    /// A frozen agent goes on.
    Thaw(usize),
    /// The core's clock.
    Tick(usize, u64),
    /// Probes end; the node is made what the wish says.
    Probe(usize, u64),
    /// A report is sent.
    Report(usize, u64),
    /// The lease thread asks.
    Renew(usize, u64),
    /// The holder writes a canary.
    Canary(usize, u64),
    /// An input of the core.
    Input(usize, u64, Box<Input>),
    /// A node's report arrives.
    News(usize, Arc<NodeReport>),
    /// The greeting of a node with this log arrives.
    Hello(usize, usize),
    /// A message of a lease thread arrives.
    Mail(usize, Box<Mail>),
    /// A permit that was computed before its agent froze.
    Permit(usize, u64, Box<Permit>),
    /// A step that is being carried out may end.
    Step(usize, u64, Box<Job>),
    /// A leader of a term reaches the others.
    Heartbeat(usize, u64),
    /// A follower's patience may have ended.
    Campaign(usize),
    /// A proposal reaches the leader.
    Append(Box<Proposal>),
    /// A node applies what is committed.
    Apply(usize),
    /// The replica receives; the number drops an event that a sooner one replaced.
    Stream(usize, u64),
    /// The replica applies.
    Replay(usize),
    /// Clients behind the VIP write, and jobs on the servers.
    Clients,
    /// Semi-sync's time-out, which a planted bug lets happen.
    FallBack(usize),
    /// Semi-sync is set late, which a planted bug lets happen.
    LateSource(usize),
    /// An operator does something, and will again.
    Operator(OperatorAct),
    /// An operator does something once.
    Order(OperatorAct),
    /// Everything is repaired.
    Heal,
}

/// A step or an undo in an executor's hands.
#[derive(Debug, Clone)]
pub struct Job {
    /// The attempt fails then.
    pub deadline: u64,
    /// As in the core's output.
    pub run: RunId,
    /// As in the core's output.
    pub epoch: Epoch,
    /// As in the core's output.
    pub attempt: u32,
    /// As in the core's output.
    pub planned: PlannedStep,
    /// It is the undo.
    pub undo: bool,
    /// Its end is told to nobody.
    pub silent: bool,
}

/// What travels between the lease threads.
#[derive(Debug, Clone)]
pub enum Mail {
    /// A question for a grant; `relay` passes it on, since the leader may not hear the holder itself.
    Renew {
        /// The question.
        renewal: Renewal,
        /// Who passed it on.
        relay: Option<usize>,
    },
    /// A node that held the baton is closed; a peer passes it on to the leader, once.
    Surrender {
        /// Its word.
        surrender: Surrender,
        /// A peer passed it on.
        relayed: bool,
    },
    /// Goes back the way that the question came.
    Grant {
        /// The answer.
        grant: Grant,
        /// For whom.
        to: usize,
    },
    /// So does the refusal of a long lease.
    Refused {
        /// The answer.
        refusal: Refusal,
        /// For whom.
        to: usize,
    },
}

/// A permit that is written late.
#[derive(Debug, Clone)]
pub struct Permit {
    /// Slot of the ring.
    pub slot: u64,
    /// Doors.
    pub doors: Vec<Door>,
    /// As computed, on the node's own clock.
    pub timeout_ms: u64,
}

/// Instants that the ring covers; what is due later waits beside it.
const RING: usize = 1_024;

/// Instants per word of [`Queue::busy`].
const WORD: usize = 64;

/// Nobody.
const NONE: u32 = u32::MAX;

/// The queue: for every millisecond near enough a list, all of them in one arena; and a heap of the far future.
#[derive(Debug)]
pub struct Queue {
    /// Places of events; those that are free are in a list of their own.
    places: Vec<Place>,
    free: u32,
    /// First and last place of each instant's list.
    lists: Vec<(u32, u32)>,
    /// A bit for every instant that has a list.
    busy: [u64; RING / WORD],
    /// The millisecond that is being taken from.
    now: u64,
    far: BTreeMap<u64, Vec<Event>>,
    /// The first instant of the far future.
    far_from: u64,
}

#[derive(Debug)]
struct Place {
    event: Option<Event>,
    next: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            lists: vec![(NONE, NONE); RING],
            busy: [0; RING / WORD],
            now: 0,
            far: BTreeMap::new(),
            far_from: u64::MAX,
        }
    }
}

const fn slot(due: u64) -> usize {
    due as usize % RING
}

impl Queue {
    /// `event` happens at `due`, after whatever was put there before. What is due already happens now.
    pub fn put(&mut self, due: u64, event: Event) {
        let due = due.max(self.now);
        if due - self.now < RING as u64 {
            self.append(slot(due), event);
        } else {
            self.far.entry(due).or_default().push(event);
            self.far_from = self.far_from.min(due);
        }
    }

    fn append(&mut self, slot: usize, event: Event) {
        let number = self.free;
        let number = if let Some(free) = self.places.get_mut(number as usize) {
            self.free = free.next;
            free.next = NONE;
            free.event = Some(event);
            number
        } else {
            self.places.push(Place { event: Some(event), next: NONE });
            self.places.len() as u32 - 1
        };
        let (first, last) = &mut self.lists[slot];
        if *first == NONE {
            *first = number;
            self.busy[slot / WORD] |= 1 << (slot % WORD);
        } else {
            self.places[*last as usize].next = number;
        }
        *last = number;
    }

    /// When the event that was taken last was due.
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Takes the next event, unless it is due later than `until`. It comes as it lies in its place: events are many, and to
    /// put each one together with its instant would cost as much as to find it.
    pub fn take(&mut self, until: u64) -> Option<Event> {
        loop {
            let slot = slot(self.now);
            let (first, _) = self.lists[slot];
            if let Some(place) = self.places.get_mut(first as usize) {
                let next = std::mem::replace(&mut place.next, self.free);
                let event = place.event.take();
                self.free = first;
                self.lists[slot].0 = next;
                if next == NONE {
                    self.busy[slot / WORD] &= !(1 << (slot % WORD));
                }
                return event;
            }
            if self.now >= until {
                return None;
            }
            self.advance(until);
        }
    }

    /// To the next instant that has something, but past none at which something comes near, and not past `until`.
    fn advance(&mut self, until: u64) {
        let far = self.far_from.saturating_sub(RING as u64 - 1);
        let bound = if far > self.now { until.min(far) } else { until };
        let from = slot(self.now + 1);
        let here = self.busy[from / WORD] >> (from % WORD);
        let step = if here != 0 {
            u64::from(here.trailing_zeros())
        } else {
            // The rest of this word is empty; the next one is looked at in its turn.
            (WORD - from % WORD) as u64 - 1
        };
        self.now = (self.now + 1 + step).min(bound);
        // What has come near goes into its list before anything else can be put at that instant.
        let near = self.now + RING as u64 - 1;
        if self.far_from == near
            && let Some((_, events)) = self.far.pop_first()
        {
            for event in events {
                self.append(slot(near), event);
            }
            self.far_from = self.far.keys().next().copied().unwrap_or(u64::MAX);
        }
    }

    /// The next grant that is on its way to `node`.
    pub fn next_grant(&self, node: usize) -> Option<&Grant> {
        let near = (self.now..self.now + RING as u64).flat_map(|due| self.list(slot(due)));
        near.chain(self.far.values().flatten()).find_map(|event| {
            let Event::Mail(to, mail) = event else { return None };
            match mail.as_ref() {
                Mail::Grant { grant, to: holder } if *to == node && *holder == node => Some(grant),
                Mail::Grant { .. } | Mail::Refused { .. } | Mail::Renew { .. } | Mail::Surrender { .. } => {
                    None
                }
            }
        })
    }

    fn list(&self, slot: usize) -> impl Iterator<Item = &Event> {
        let first = self.places.get(self.lists[slot].0 as usize);
        let places = std::iter::successors(first, |place| self.places.get(place.next as usize));
        places.filter_map(|place| place.event.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue, until: u64) -> Vec<(u64, usize)> {
        let number = |event| match event {
            Event::Live(number) => number,
            other => panic!("nobody put {other:?}"),
        };
        std::iter::from_fn(|| queue.take(until).map(|event| (queue.now(), number(event)))).collect()
    }

    #[test]
    fn events_come_in_the_order_of_their_instants_then_of_their_making() {
        let mut queue = Queue::default();
        // The far future, what comes near while others are put at the same instant, and what is due already.
        let dues = [70, 3, 9_000, 70, 3, 1_023, 1_024, 20_000, 64, 63, 9_000, 0];
        for (number, due) in dues.into_iter().enumerate() {
            queue.put(due, Event::Live(number));
        }
        assert_eq!(drain(&mut queue, 63), [(0, 11), (3, 1), (3, 4), (63, 9)]);
        queue.put(5, Event::Live(90));
        assert_eq!(drain(&mut queue, 4_999), [(63, 90), (64, 8), (70, 0), (70, 3), (1_023, 5), (1_024, 6)]);
        queue.put(9_000, Event::Live(91));
        assert_eq!(drain(&mut queue, 19_999), [(9_000, 2), (9_000, 10), (9_000, 91)]);
        assert_eq!(drain(&mut queue, 30_000), [(20_000, 7)]);
        assert_eq!(drain(&mut queue, 30_000), []);
    }
}
