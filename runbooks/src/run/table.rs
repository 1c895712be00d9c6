//! Step tables: a runbook as data, and how a plan's steps are made from it.

use serde::{Deserialize, Serialize};

use crate::model::NodeId;
use crate::plan::{Kind, PlannedStep, Step};

/// Who carries out a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The node that gets the baton.
    Target,
    /// The node that passes it.
    Source,
    /// The witness; without one, the target looks from its own seat.
    Witness,
}

/// One line of a step table.
#[derive(Debug, Clone, Copy)]
pub struct StepDef {
    /// Which step.
    pub step: Step,
    /// Who carries it out.
    pub actor: Actor,
    /// Steps that it waits for.
    pub after: &'static [Step],
    /// What may happen after it was started.
    pub kind: Kind,
    /// Time limit of one attempt, in milliseconds.
    pub limit_ms: u64,
    /// Number of attempts.
    pub attempts: u32,
    /// What it does, for the operator's page.
    pub effect: &'static str,
    /// How it is undone, for the operator's page.
    pub undo: &'static str,
}

/// What the configuration has, so that a plan names no step without an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// There is a MySQL or MariaDB.
    pub mysql: bool,
    /// There are role-bound services that need no writable database.
    pub independent_services: bool,
    /// There are role-bound services that need the database.
    pub services: bool,
}

impl Scope {
    const fn wants(self, step: Step) -> bool {
        match step {
            Step::CutStream | Step::DrainRelayLog | Step::PromoteMysql => self.mysql,
            Step::StartIndependent => self.independent_services,
            Step::StartServices => self.services,
            Step::PrepareTarget
            | Step::DrainHolder
            | Step::CloseHolder
            | Step::CatchUp
            | Step::FenceOld
            | Step::HoldVip
            | Step::OpenPorts
            | Step::AttachOld
            | Step::Validate => true,
        }
    }
}

/// The nodes that a plan names.
#[derive(Debug, Clone, Copy)]
pub struct Cast<'a> {
    /// Gets the baton.
    pub target: &'a NodeId,
    /// Passes it, if somebody does.
    pub source: Option<&'a NodeId>,
    /// Looks on.
    pub witness: Option<&'a NodeId>,
}

/// The steps of `table` for `cast`, cut down to what the configuration has.
#[must_use]
pub fn steps(table: &[StepDef], cast: Cast<'_>, scope: Scope) -> Vec<PlannedStep> {
    let planned = |def: &StepDef| PlannedStep {
        step: def.step,
        actor: match def.actor {
            Actor::Target => cast.target,
            Actor::Source => cast.source.unwrap_or(cast.target),
            Actor::Witness => cast.witness.unwrap_or(cast.target),
        }
        .clone(),
        kind: def.kind,
        after: def.after.iter().copied().filter(|step| scope.wants(*step)).collect(),
        limit_ms: def.limit_ms,
        attempts: def.attempts,
    };
    table.iter().filter(|def| scope.wants(def.step)).map(planned).collect()
}
