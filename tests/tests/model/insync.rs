//! The in-sync rule without any clock: two databases, semi-sync between them, the ledger's flag, and takeovers.
//!
//! | action | code |
//! |---|---|
//! | `Write`, `Receive`, `Answer`, `Apply` | the databases: commit, relay log, acknowledgement under AFTER_SYNC |
//! | `Restart` | MariaDB: what was received and not applied is thrown away |
//! | `ProposeOut`, `SourceOff`, `SourceOn`, `Canary`, `ProposeIn` | `runbooks::sync::Keeper::keep`, `node::agent::keeper` |
//! | `ApplyOut`, `ApplyIn` | `runbooks::ledger::apply`: `sync_out`, `sync_in` |
//! | `Plan`, `StartRun` | `runbooks::decide::candidate::not_complete`, `Ledger::start_run`, `pass_baton` |
//! | `Cut`, `Capture`, `Promote`, `Undo` | `node::agent::executor::act`, `node::hands::mysql::promote`; `Ledger::journal`, `vacate` |
//! | `Demote`, `Attach` | `node::agent::reconcile::mysql`, `node::hands::mysql::replica::attach` |
//!
//! What is abstracted:
//! - *No lease.* An old primary goes on taking and acknowledging writes for as long as it likes. That is more than any
//!   lease allows, so what holds here holds also for a machine whose clocks have stopped.
//! - *Freeze, cut, partition.* No action is ever forced: a stream that delivers nothing is one that is cut, a proposal that
//!   is never applied was lost, a keeper that does nothing is frozen. A crash of a primary is its silence; its log stays.
//! - *Transactions* are bits; a replica receives and applies them in order.
//! - *Proposals*: the newest of each kind is under way, the ledger's generation and epoch are bounded.
//!
//! Left out: observing that semi-sync's counters moved, since in the model only the keeper moves them; Redis.

mod step;

use stateright::{Model, Property};

const WRITES: u8 = 3;
const GENERATIONS: u8 = 7;
const EPOCHS: u8 = 2;
const STARTS: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Design,
    /// Semi-sync goes off when *out of sync* is proposed.
    OffBeforeOutIsApplied,
    /// Semi-sync goes off although an *in sync* of this keeper may still be applied.
    OffWhileInIsOpen,
    /// Semi-sync falls back by its own time-out.
    FallsBackByTimeOut,
    /// *In sync* is proposed as soon as semi-sync is on.
    InWithoutCanary,
    /// The replica that received the canary and the one that the flag vouches for are different starts.
    CanaryOfAnotherStart,
    /// Flag commands are applied whatever the generation.
    NoGeneration,
    /// The flag vouches for the node, not for its running instance.
    FlagSurvivesRestart,
    /// Anybody is promoted.
    PromotionIgnoresFlag,
    /// What was received is captured while the stream goes on.
    StreamNotCut,
    /// Promoted with received transactions that are not applied.
    NotDrained,
    /// The pivot leaves the set as it was.
    FlagKeptOnEpochChange,
    /// A takeover is applied although the flag has changed since its plan.
    PlanWithoutGeneration,
    /// A takeover that is undone lets the target receive from the old primary again, and calls it complete.
    UndoLiftsTheCut,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Database {
    /// Committed here or received.
    log: u8,
    applied: u8,
    /// Acknowledged by the other one, to this one as primary.
    confirmed: u8,
    start: u8,
    writable: bool,
    /// Semi-sync's source side.
    semi: bool,
    /// Follows the other one.
    attached: bool,
    cut: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Keeper {
    /// No *in sync* can be under way.
    settled: bool,
    canary: u8,
    /// The replica's start when the canary was begun.
    start: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Complete {
    No,
    Holder,
    Replica(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proposal {
    epoch: u8,
    generation: u8,
    /// `ProposeIn`: the replica's start. `Plan`: the target's.
    start: u8,
    node: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    Started { vouched: Option<u8> },
    Captured { log: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    database: [Database; 2],
    keeper: [Keeper; 2],
    written: u8,
    acknowledged: u8,
    epoch: u8,
    generation: u8,
    holder: Option<u8>,
    complete: [Complete; 2],
    run: Option<Run>,
    out: Option<Proposal>,
    enter: Option<Proposal>,
    plan: Option<Proposal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Write(u8),
    Receive(u8),
    Answer(u8),
    Apply(u8),
    Restart(u8),
    Attach(u8),
    Demote(u8),
    AgentRestarts(u8),
    FallBack(u8),
    ProposeOut(u8),
    ApplyOut { heard: bool },
    SourceOff(u8),
    SourceOn(u8),
    Canary(u8),
    ProposeIn(u8),
    ApplyIn,
    Plan(u8),
    StartRun,
    Cut,
    Capture,
    Promote,
    Undo,
}

fn at(node: u8) -> usize {
    usize::from(node)
}

/// The model.
pub struct InSync(pub Variant);

impl Model for InSync {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let primary = Database { writable: true, semi: true, ..Database::default() };
        let replica = Database { attached: true, ..Database::default() };
        vec![State {
            database: [primary, replica],
            keeper: [Keeper::default(); 2],
            written: 0,
            acknowledged: 0,
            epoch: 0,
            generation: 0,
            holder: Some(0),
            complete: [Complete::No, Complete::Replica(0)],
            run: None,
            out: None,
            enter: None,
            plan: None,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        for n in [0, 1] {
            actions.extend([Action::Write(n), Action::Receive(n), Action::Answer(n), Action::Apply(n)]);
            actions.extend([
                Action::Restart(n),
                Action::Attach(n),
                Action::Demote(n),
                Action::AgentRestarts(n),
            ]);
            actions.extend([
                Action::FallBack(n),
                Action::ProposeOut(n),
                Action::SourceOff(n),
                Action::SourceOn(n),
            ]);
            actions.extend([Action::Canary(n), Action::ProposeIn(n), Action::Plan(n)]);
        }
        actions.extend([
            Action::ApplyOut { heard: true },
            Action::ApplyOut { heard: false },
            Action::ApplyIn,
        ]);
        actions.extend([Action::StartRun, Action::Cut, Action::Capture, Action::Promote, Action::Undo]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        type Part = fn(&InSync, &mut State, Action) -> Option<()>;
        let parts: [Part; 4] = [Self::databases, Self::keeper, Self::ledger, Self::takeover];
        let next = parts.iter().find_map(|part| {
            let mut next = last.clone();
            part(self, &mut next, action).map(|()| next)
        })?;
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "G2 no acknowledged write is missing on the promoted node",
                |_: &Self, s: &State| {
                    s.run.is_some()
                        || s.holder.is_none_or(|h| s.acknowledged & !s.database[at(h)].applied == 0)
                },
            ),
            Property::sometimes("the baton is passed with a write", |_: &Self, s: &State| {
                s.epoch == 1 && s.run.is_none() && s.holder == Some(1) && s.acknowledged != 0
            }),
            Property::sometimes("the baton returns with a write", |_: &Self, s: &State| {
                s.epoch == 2 && s.run.is_none() && s.holder == Some(0) && s.acknowledged == 7
            }),
        ]
    }
}
