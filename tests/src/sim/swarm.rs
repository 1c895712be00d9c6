//! Swarm: each seed draws which kinds of faults are on and how often they happen, so that seeds differ in kind.
//!
//! A fifth of the seeds has exactly one fault, and nothing else that goes wrong: there the guarantee *one fault, one change*
//! is checked. A tenth has an operator who passes the baton, steps that fail, and no fault at all: there a switchover that
//! is taken back must leave the old holder serving. About a third of the faults of all others waits for an entry in a run's
//! journal instead of an instant, so that it falls between two steps.

use super::fault::{Fault, Kind};
use super::forcing::Forcing;
use super::operator::OperatorAct;
use super::rng::Rng;

/// Faults begin after the first holder serves in sync.
pub const START_MS: u64 = 6_500;

/// The last fault begins before.
pub const TROUBLE_MS: u64 = 26_000;

/// Everything is repaired this long after the last fault that has an instant; the longest fault is over by then.
pub const REPAIR_MS: u64 = 7_500;

/// Everything is repaired then at the latest.
pub const HEAL_MS: u64 = 31_000;

/// So long a seed without any fault goes on before it is repaired, in milliseconds.
pub const QUIET_MS: u64 = 9_000;

/// The end of a schedule.
pub const END_MS: u64 = 60_000;

/// Longest delay of acknowledgements in a network as the timing assumes it, in milliseconds.
pub const QUICK_ACK_MS: u64 = 8;

/// A fault that waits for entries in the journal of runs.
#[derive(Debug, Clone, Copy)]
pub struct Armed {
    /// Number of entries still to come.
    pub entries: u64,
    /// Milliseconds after that entry.
    pub delay_ms: u64,
}

/// What a seed draws.
#[derive(Debug, Clone, Default)]
pub struct Swarm {
    /// Kinds of faults that are on.
    pub kinds: Vec<Kind>,
    /// Exactly one fault.
    pub single: bool,
    /// No fault: only an operator who passes the baton, and steps that fail.
    pub planned: bool,
    /// Instants of faults.
    pub timed: Vec<u64>,
    /// Faults that wait for journal entries, in order.
    pub armed: Vec<Armed>,
    /// Percent of proposals that are lost.
    pub lost: u64,
    /// Percent of proposals whose fate the proposer does not learn.
    pub unknown: u64,
    /// Percent of steps that fail.
    pub step_fails: u64,
    /// Percent of undos that fail.
    pub undo_fails: u64,
    /// Percent of steps that are slow.
    pub step_slow: u64,
    /// Longest time that a proposal takes to the leader.
    pub propose_ms: u64,
    /// Longest time until a follower applies.
    pub apply_ms: u64,
    /// Longest time that a message takes.
    pub mail_ms: u64,
    /// Longest time that a quorum's acknowledgement takes.
    pub ack_ms: u64,
    /// Longest time that the replica takes to apply.
    pub lag_ms: u64,
    /// Age of the lease thread's view when the core reads it, at most.
    pub view_ms: u64,
    /// Redis is there too.
    pub redis: bool,
    /// What an operator does again and again.
    pub verbs: Vec<OperatorAct>,
    /// Percent of switchovers that an operator aborts soon after their start.
    pub aborts: u64,
    /// Rates of the clocks, in local milliseconds per second.
    pub rates: [u64; 3],
    /// Two nodes are lost for long, and an operator lets the third go on alone. Drawn apart from everything else.
    pub forcing: Option<Forcing>,
}

impl Swarm {
    /// Nothing goes wrong by itself.
    pub fn calm(rng: &mut Rng) -> Self {
        Self {
            propose_ms: 12,
            apply_ms: 30,
            mail_ms: 15,
            ack_ms: QUICK_ACK_MS,
            lag_ms: 20,
            rates: [0; 3].map(|_| rng.range(976, 1_024)),
            ..Self::default()
        }
    }

    /// What `seed` draws.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut swarm = Self::calm(rng);
        swarm.single = rng.chance(20);
        swarm.planned = !swarm.single && rng.chance(12);
        swarm.redis = rng.chance(30);
        swarm.kinds = Kind::ALL.into_iter().filter(|_| rng.chance(45)).collect();
        swarm.kinds.retain(|kind| swarm.redis || !kind.is_of_redis());
        if swarm.kinds.is_empty() {
            swarm.kinds.push(Kind::ALL[rng.index(Kind::ALL.len() - 2)]);
        }
        if rng.chance(40) {
            swarm.rates = [0; 3].map(|_| if rng.chance(50) { 976 } else { 1_024 });
        }
        let mut some = |percent: u64, low: u64, high: u64, usual: u64| {
            if rng.chance(percent) { rng.range(low, high) } else { usual }
        };
        if swarm.planned {
            swarm.lag_ms = some(40, 100, 1_500, swarm.lag_ms);
            swarm.step_fails = some(60, 2, 40, 0);
            swarm.step_slow = some(40, 5, 50, 10);
            swarm.aborts = some(60, 20, 100, 0);
            swarm.verbs.push(OperatorAct::Switchover);
            return swarm;
        }
        if !swarm.single {
            swarm.mail_ms = some(30, 20, 250, swarm.mail_ms);
            swarm.ack_ms = some(30, 10, 250, swarm.ack_ms);
            swarm.apply_ms = some(30, 40, 400, swarm.apply_ms);
            swarm.lag_ms = some(40, 100, 2_500, swarm.lag_ms);
            swarm.propose_ms = some(30, 20, 400, swarm.propose_ms);
            swarm.lost = some(40, 2, 12, 0);
            swarm.unknown = some(40, 2, 15, 0);
            swarm.step_fails = some(35, 2, 25, 0);
            swarm.undo_fails = some(15, 5, 40, 0);
            swarm.step_slow = some(40, 5, 50, 10);
            swarm.view_ms = some(25, 20, 400, 0);
            swarm.aborts = some(50, 10, 60, 0);
            if rng.chance(70) {
                swarm.verbs = OperatorAct::ALL.into_iter().filter(|act| rng.chance(act.percent())).collect();
            }
        }
        swarm.place(rng);
        swarm
    }

    fn place(&mut self, rng: &mut Rng) {
        let count = if self.single { 1 } else { rng.range(2, 9) };
        let mut at = START_MS;
        let mut entries = 0;
        for index in 0..count {
            if index > 0 && rng.chance(40) {
                entries += rng.range(1, 9);
                let delay_ms = match rng.range(0, 2) {
                    0 => 0,
                    1 => rng.range(0, 8),
                    _ => rng.range(0, 120),
                };
                self.armed.push(Armed { entries, delay_ms });
                continue;
            }
            at += match rng.range(0, 2) {
                0 => rng.range(0, 300),
                1 => rng.range(1_000, 3_500),
                _ => rng.range(3_000, 9_000),
            };
            self.timed.push(at.min(TROUBLE_MS));
        }
    }

    /// A fault of one of the kinds that are on.
    pub fn fault(&self, rng: &mut Rng, roles: super::fault::Roles) -> Vec<Fault> {
        let kind = self.kinds[rng.index(self.kinds.len())];
        kind.draw(rng, roles)
    }
}
