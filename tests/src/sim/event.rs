//! What happens next: a queue of events, in the order of their instants, then of their making.

use std::collections::{BTreeMap, VecDeque};

use baton_runbooks::agent::Input;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::lease::{Grant, Renewal};
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
    Fault(Fault),
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
    /// A message arrives.
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
    /// An operator does something.
    Operator(OperatorAct),
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

/// What travels between nodes beside Raft.
#[derive(Debug, Clone)]
pub enum Mail {
    /// A node's report.
    Report(Box<NodeReport>),
    /// A question for a grant; `relay` passes it on, since the leader may not hear the holder itself.
    Renew {
        /// The question.
        renewal: Renewal,
        /// Who passed it on.
        relay: Option<usize>,
    },
    /// Goes back the way that the question came.
    Grant {
        /// The answer.
        grant: Grant,
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
const RING: usize = 4_096;

/// The queue: a ring with a list for every millisecond, and a heap of the far future.
#[derive(Debug)]
pub struct Queue {
    ring: Vec<VecDeque<Event>>,
    /// The millisecond that is being taken from.
    now: u64,
    far: BTreeMap<u64, Vec<Event>>,
    /// The first instant of the far future.
    far_from: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            ring: (0..RING).map(|_| VecDeque::new()).collect(),
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
            self.ring[slot(due)].push_back(event);
        } else {
            self.far.entry(due).or_default().push(event);
            self.far_from = self.far_from.min(due);
        }
    }

    /// Takes the next event, unless it is due later than `until`.
    pub fn take(&mut self, until: u64) -> Option<(u64, Event)> {
        while self.now <= until {
            if let Some(event) = self.ring[slot(self.now)].pop_front() {
                return Some((self.now, event));
            }
            if self.now == until {
                return None;
            }
            self.now += 1;
            // What has come near goes into the ring before anything else can be put at that instant.
            let near = self.now + RING as u64 - 1;
            if self.far_from == near
                && let Some((_, events)) = self.far.pop_first()
            {
                self.ring[slot(near)].extend(events);
                self.far_from = self.far.keys().next().copied().unwrap_or(u64::MAX);
            }
        }
        None
    }

    /// The next grant that is on its way to `node`.
    pub fn next_grant(&self, node: usize) -> Option<&Grant> {
        let near = (self.now..self.now + RING as u64).flat_map(|due| &self.ring[slot(due)]);
        near.chain(self.far.values().flatten()).find_map(|event| {
            let Event::Mail(to, mail) = event else { return None };
            match mail.as_ref() {
                Mail::Grant { grant, to: holder } if *to == node && *holder == node => Some(grant),
                Mail::Grant { .. } | Mail::Report(_) | Mail::Renew { .. } => None,
            }
        })
    }
}
