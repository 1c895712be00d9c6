//! The takeover's step table, version 1 (design, section 7).

use super::table::{self, Actor, Cast, Scope, StepDef};
use crate::model::NodeId;
use crate::plan::{Kind, PlannedStep, Step};

/// Version of [`TABLE`]. Raised when a step changes its meaning; older versions stay readable.
pub const VERSION: u16 = 1;

/// Longest time that the drain may take as a whole, in milliseconds. The drain really ends on an applier error or
/// on 3 s without progress; this bound only keeps a lying server from holding the run for ever.
const DRAIN_LIMIT_MS: u64 = 600_000;

/// The takeover, in the order of the design's table. A step starts as soon as those it waits for have succeeded.
pub const TABLE: &[StepDef] = &[
    StepDef {
        step: Step::FenceOld,
        actor: Actor::Target,
        after: &[],
        kind: Kind::Undoable,
        limit_ms: 3_000,
        attempts: 2,
        effect: "the old lease has ended (evidence in the plan); runs the power-fence hook if there is one",
        undo: "nothing to undo",
    },
    StepDef {
        step: Step::CutStream,
        actor: Actor::Target,
        after: &[Step::FenceOld],
        kind: Kind::Undoable,
        limit_ms: 500,
        attempts: 2,
        effect: "drops the target's own connection to the old primary in nftables, reads the rule back, captures what was received",
        undo: "the rule stays until the node follows an open holder: what the old primary commits meanwhile must not be acknowledged",
    },
    StepDef {
        step: Step::HoldVip,
        actor: Actor::Target,
        after: &[Step::FenceOld],
        kind: Kind::Undoable,
        limit_ms: 5_000,
        attempts: 2,
        effect: "probes the VIP by ARP, takes it under the new lease, announces it; database ports answer with a reset",
        undo: "removes the VIP",
    },
    StepDef {
        step: Step::DrainRelayLog,
        actor: Actor::Target,
        after: &[Step::CutStream],
        kind: Kind::Undoable,
        limit_ms: DRAIN_LIMIT_MS,
        attempts: 1,
        effect: "applies everything that was received; ends on an applier error or 3 s without progress",
        undo: "nothing to undo",
    },
    StepDef {
        step: Step::PromoteMysql,
        actor: Actor::Target,
        after: &[Step::DrainRelayLog],
        kind: Kind::Undoable,
        limit_ms: 5_000,
        attempts: 2,
        effect: "stops the applier, switches semi-sync's source side off, makes MySQL writable behind closed ports",
        undo: "makes MySQL read-only",
    },
    StepDef {
        step: Step::OpenPorts,
        actor: Actor::Target,
        after: &[Step::PromoteMysql, Step::HoldVip],
        kind: Kind::Pivot,
        limit_ms: 1_000,
        attempts: 3,
        effect: "promotes Redis, opens the database ports under the lease, announces the VIP again",
        undo: "never: clients have been answered",
    },
    StepDef {
        step: Step::StartIndependent,
        actor: Actor::Target,
        after: &[Step::FenceOld],
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

/// The steps of a takeover to `target`, seen by `witness`, cut down to what the configuration has.
#[must_use]
pub fn steps(target: &NodeId, witness: Option<&NodeId>, scope: Scope) -> Vec<PlannedStep> {
    table::steps(TABLE, Cast { target, source: None, witness }, scope)
}
