//! What counts as passed: budgets of the phases, the longest outage, the writes that may be lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// Service level objective: what counts as passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Budget of each phase. A phase over its budget makes a pass *degraded*.
    #[serde(default)]
    pub budgets: Budgets,
    /// Longest time without an acknowledged write, per database, as the client sees it.
    pub outage: Outage,
    /// Acknowledged writes that may be lost, per database.
    #[serde(default)]
    pub lost_acknowledged: Lost,
}

/// Budget per phase; together they may not exceed the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// From the fault's effect to the decision that the holder is lost.
    pub detect: Span,
    /// From there until the virtual IP is held by the new holder.
    pub vip: Span,
    /// From the decision until databases and services run on the new holder.
    pub activate: Span,
    /// From there until a write through the virtual IP was given back.
    pub validate: Span,
}

impl Default for Budgets {
    /// The budgets of the product: 3 s, 5 s, 20 s, 2 s.
    fn default() -> Self {
        Self {
            detect: Span::from_secs(3),
            vip: Span::from_secs(5),
            activate: Span::from_secs(20),
            validate: Span::from_secs(2),
        }
    }
}

impl Budgets {
    /// The budget of one phase.
    #[must_use]
    pub const fn of(&self, phase: Phase) -> Span {
        match phase {
            Phase::Detect => self.detect,
            Phase::Vip => self.vip,
            Phase::Activate => self.activate,
            Phase::Validate => self.validate,
        }
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> Span {
        Phase::ALL.into_iter().fold(Span::ZERO, |sum, phase| sum.plus(self.of(phase)))
    }
}

/// A part of a takeover or switchover that has a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Until the loss is decided upon.
    Detect,
    /// Until the new holder has the virtual IP.
    Vip,
    /// Until databases and services run there.
    Activate,
    /// Until it was seen from outside.
    Validate,
}

impl Phase {
    /// Every phase, in its order.
    pub const ALL: [Self; 4] = [Self::Detect, Self::Vip, Self::Activate, Self::Validate];

    /// As files and reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Vip => "vip",
            Self::Activate => "activate",
            Self::Validate => "validate",
        }
    }
}

/// Longest time without an acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// MySQL or MariaDB.
    pub mysql: Span,
    /// Redis or Valkey; not judged if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Span>,
}

/// Acknowledged writes that may be lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lost {
    /// MySQL or MariaDB: nothing else than 0 is what the product promises.
    pub mysql: u64,
    /// Redis or Valkey, whose replication is asynchronous: counted and shown, and judged only if a number stands here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<u64>,
}
