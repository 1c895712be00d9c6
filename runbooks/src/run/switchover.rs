//! The switchover's step table, version 1 (design, section 7).
//!
//! ```text
//!  holder  ── drain_holder ── close_holder ┐ (its VIP still answers, with resets)      attach_old
//!                                          ▼                                          ▲
//!  target  ── prepare_target ── catch_up: equal twice, cut, writable ── open_ports ───┘── services
//!                                                                       ▲ pivot: the ledger's holder changes
//! ```
//!
//! The ledger's holder stays the old one until the pivot's `Started` is applied. Until then its lease goes on, and every
//! failure ends with the old holder open again. `catch_up` starts early and waits for what `close_holder` notes, so that
//! between closing and opening the ledger commits twice and not four times.

use super::table::{self, Actor, Cast, Scope, StepDef};
use crate::model::NodeId;
use crate::plan::{Kind, PlannedStep, Step};

/// Version of [`TABLE`]. Raised when a step changes its meaning; older versions stay readable.
pub const VERSION: u16 = 1;

/// Time that the target may take for what the holder had when it closed, in milliseconds: from the closing on, kept by the step
/// itself, since its limit counts from its start. The target was seen to be near right before, so what takes longer is a statement
/// that ran for long on the holder and was committed in the last moment, a lag that has grown, or a server that hangs.
pub const CATCH_UP_MS: u64 = 3_000;

/// Limit of closing, in milliseconds: longer than the holder waits for `read_only`, shorter than an operator's patience
/// with a database that accepts no writes.
const CLOSE_MS: u64 = 3_000;

/// What stopping services may take, in milliseconds.
const STOP_MS: u64 = 10_000;

/// What the target may take, in milliseconds, to tell the holder that it has applied what was there when its clients had ended:
/// beside all that stopping services and the clients' patience took.
pub const TARGET_MS: u64 = 5_000;

/// What draining may take beside the clients' patience, in milliseconds.
const DRAIN_MS: u64 = STOP_MS + TARGET_MS;

/// The longest time that clients' transactions can be given, in milliseconds.
pub const PATIENCE_MAX_MS: u64 = 600_000;

/// The switchover, in the order in which it is undone backwards.
pub const TABLE: &[StepDef] = &[
    StepDef {
        step: Step::PrepareTarget,
        actor: Actor::Target,
        after: &[],
        kind: Kind::Undoable,
        limit_ms: 5_000,
        attempts: 1,
        effect: "sees that what is received is applied within 2.5 s, and that replication of MySQL and Redis runs; opens connections",
        undo: "nothing to undo",
    },
    StepDef {
        step: Step::DrainHolder,
        actor: Actor::Source,
        after: &[Step::PrepareTarget],
        kind: Kind::Undoable,
        limit_ms: DRAIN_MS,
        attempts: 1,
        effect: "stops the role-bound services and the event scheduler, waits for transactions under way as long as their patience lasts, and until the new holder has applied what was written until then",
        undo: "the event scheduler is on again; services start again",
    },
    StepDef {
        step: Step::CloseHolder,
        actor: Actor::Source,
        after: &[Step::DrainHolder],
        kind: Kind::Undoable,
        limit_ms: CLOSE_MS,
        attempts: 1,
        effect: "closes the database ports by reset, makes MySQL read-only, lets Redis refuse writes, ends what is left, notes the positions; the VIP still answers",
        undo: "opens MySQL, Redis and the ports again, with 'replica out of sync' in the ledger",
    },
    StepDef {
        step: Step::CatchUp,
        actor: Actor::Target,
        after: &[Step::PrepareTarget],
        kind: Kind::Undoable,
        limit_ms: DRAIN_MS + CLOSE_MS + CATCH_UP_MS,
        attempts: 1,
        effect: "waits until it has what the closed holder noted, for 3 s at most, looks twice, cuts the stream, makes MySQL writable behind closed ports",
        undo: "makes MySQL read-only; it follows again",
    },
    StepDef {
        step: Step::OpenPorts,
        actor: Actor::Target,
        after: &[Step::CloseHolder, Step::CatchUp],
        kind: Kind::Pivot,
        limit_ms: 4_000,
        attempts: 3,
        effect: "the ledger's holder changes with its start: the old one drops the VIP and gives up its lease; the new one promotes Redis, takes the VIP, opens the ports, announces",
        undo: "never: clients have been answered",
    },
    StepDef {
        step: Step::StartIndependent,
        actor: Actor::Target,
        after: &[Step::OpenPorts],
        kind: Kind::Forward,
        limit_ms: 20_000,
        attempts: 1,
        effect: "starts the role-bound services that need no writable database",
        undo: "stopped when the node loses the role",
    },
    StepDef {
        step: Step::StartServices,
        actor: Actor::Target,
        after: &[Step::OpenPorts],
        kind: Kind::Forward,
        limit_ms: 20_000,
        attempts: 1,
        effect: "starts the other role-bound services in dependency order and waits until they are healthy",
        undo: "stopped when the node loses the role",
    },
    StepDef {
        step: Step::AttachOld,
        actor: Actor::Source,
        after: &[Step::OpenPorts],
        kind: Kind::Forward,
        limit_ms: 20_000,
        attempts: 1,
        effect: "the old holder follows the new one with MySQL and Redis; semi-sync's source side is off there",
        undo: "never",
    },
    StepDef {
        step: Step::Validate,
        actor: Actor::Witness,
        after: &[Step::OpenPorts, Step::StartIndependent, Step::StartServices],
        kind: Kind::Forward,
        limit_ms: 2_000,
        attempts: 3,
        effect: "through the VIP: which machine answers, do MySQL (without `check_user` its greeting only) and Redis take a write and give it back, services' own checks",
        undo: "never",
    },
];

/// What the limits of a switchover's steps are made from besides [`TABLE`], in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waits {
    /// What clients' transactions get; added to the limits of the steps that wait for them.
    pub patience_ms: u64,
    /// What a new leader waits before it grants anything: the opening must outlast a leader that is lost at the pivot.
    pub new_leader_ms: u64,
}

/// The steps of a switchover from `source` to `target`, cut down to what the configuration has.
#[must_use]
pub fn steps(
    source: &NodeId,
    target: &NodeId,
    witness: Option<&NodeId>,
    scope: Scope,
    waits: Waits,
) -> Vec<PlannedStep> {
    let mut steps = table::steps(TABLE, Cast { target, source: Some(source), witness }, scope);
    for planned in &mut steps {
        if planned.step == Step::DrainHolder || planned.step == Step::CatchUp {
            planned.limit_ms += waits.patience_ms.min(PATIENCE_MAX_MS);
        } else if planned.step == Step::OpenPorts {
            // An attempt waits for a lease for a little less than half of its limit.
            planned.limit_ms = planned.limit_ms.max(waits.new_leader_ms.saturating_mul(3));
        }
    }
    steps
}
