//! The simulator: three agents' cores, the real code behind its real driver's contract, in a world made of nothing but a seed.
//!
//! ```text
//!  swarm ─ what goes wrong ─▶ world ── events in order ──▶ driver ─▶ the core of each node ─▶ outputs
//!                               │                             ▲                                  │
//!                               │    leases, hands, executor, databases, consensus ◀─────────────┘
//!                               └── after every event ──▶ invariants
//! ```
//!
//! A virtual clock per node, with drift; a fake kernel with timers of its own; databases with transaction sets, relay logs and
//! semi-sync; Raft as a log that changes its leader, delays and refuses; an operator who passes the baton, takes that back,
//! accepts a loss, pauses and resumes, and lets a survivor go on alone. A schedule lasts up to 60 s: the first holder begins to serve, then come faults, then everything is
//! repaired and service is demanded. It ends early when the repaired world is at rest; every eighth seed runs on to the end
//! all the same.
//!
//! The same seed gives the same story, byte for byte. `planted` has the deviations from the design that must be caught.

pub mod consensus;
pub mod databases;
pub mod driver;
pub mod event;
pub mod executor;
pub mod fault;
pub mod forcing;
pub mod handover;
pub mod hands;
pub mod kernel;
pub mod leases;
pub mod mail;
pub mod mysql;
pub mod node;
pub mod operator;
pub mod pausing;
pub mod planted;
pub mod raft;
pub mod redis;
pub mod rng;
pub mod starts;
pub mod swarm;
pub mod sweep;
pub mod watch;
pub mod world;

pub use fault::Fault;
pub use planted::Planted;
pub use world::{Options, World};

use crate::invariants::Violation;

/// How a schedule ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What did not hold.
    pub violation: Option<Violation>,
    /// A run needs an operator in the end.
    pub needs_operator: bool,
    /// Number of changes of the holder after the first.
    pub changes: u64,
    /// Number of runs that were rolled back or abandoned.
    pub taken_back: u64,
    /// Number of switchovers that passed the baton.
    pub switched: u64,
    /// Number of switchovers that were taken back, with the old holder in office.
    pub switch_taken_back: u64,
    /// Number of takeovers that an operator's word on a loss carried.
    pub losses: u64,
    /// Number of long leases that a pause gave.
    pub long_leases: u64,
    /// Number of logs that were founded by force.
    pub forced: usize,
    /// The operator's word that the others were off was not true.
    pub mistaken: bool,
    /// Number of inputs that cores took.
    pub inputs: u64,
    /// Writes of clients that were acknowledged.
    pub acked: usize,
    /// Virtual milliseconds.
    pub lasted_ms: u64,
    /// The story, if it was kept.
    pub trace: Vec<String>,
}

/// How often a repaired world is looked at, in milliseconds.
const LOOK_MS: u64 = 500;

/// A repaired world that is found at rest this often in a row has nothing left to show.
const SETTLED_LOOKS: u32 = 6;

/// One schedule from its beginning to its end, or to the first violation.
pub fn schedule(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options);
    let mut settled = 0;
    while world.now < world.ends_at() && world.violation().is_none() && settled < SETTLED_LOOKS {
        world.run_until(world.now + LOOK_MS);
        settled = if world.is_settled() && !world.runs_on() { settled + 1 } else { 0 };
    }
    if world.violation().is_none() {
        world.check_end();
    }
    outcome(world)
}

fn outcome(world: World) -> Outcome {
    use baton_runbooks::plan::Runbook;
    use baton_runbooks::run::RunState;

    let ledger = world.ledger();
    let ended = |runbooks: &[Runbook], states: &[RunState]| {
        let runs = ledger.history.iter().filter(|ended| runbooks.contains(&ended.run.plan.runbook));
        runs.filter(|ended| states.contains(&ended.state)).count() as u64
    };
    let back = [RunState::RolledBack, RunState::Abandoned];
    let passed = [RunState::Completed, RunState::Degraded];
    let taken_back = ended(&[Runbook::Takeover, Runbook::Switchover], &back);
    let switched = ended(&[Runbook::Switchover], &passed);
    let switch_taken_back = ended(&[Runbook::Switchover], &back);
    Outcome {
        seed: world.seed,
        violation: world.violation().cloned(),
        needs_operator: world.needs_operator(),
        changes: ledger.epoch.0.saturating_sub(1),
        taken_back,
        switched,
        switch_taken_back,
        losses: world.invariants.carried(),
        long_leases: world.long_leases,
        forced: world.raft.newest_log(),
        mistaken: world.mistaken,
        inputs: world.inputs,
        acked: world.ack_times.len(),
        lasted_ms: world.now,
        trace: world.trace,
    }
}
