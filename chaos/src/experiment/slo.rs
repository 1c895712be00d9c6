//! What counts as passed: budgets of the phases, the longest outage, limits of the other figures, the writes that may be lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;
use crate::history::Kind;

/// Service level objective: what counts as passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Budget of each phase. A phase over its budget makes a pass *degraded*.
    #[serde(default)]
    pub budgets: Budgets,
    /// Longest time without an acknowledged write, per database, as the client sees it.
    pub outage: Outage,
    /// Longest time without a new connection, per database, as a client sees it that keeps none.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub connect_gap: Limits,
    /// Longest time without a read, per database, as the same client sees it.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub read_gap: Limits,
    /// Longest time from a fault until writes are acknowledged steadily again, per database. Whatever comes before the next
    /// fault or the end counts, the return of redundancy too.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub sustained_recovery: Limits,
    /// Acknowledged writes that may be lost, per database.
    #[serde(default)]
    pub lost_acknowledged: Lost,
}

impl Slo {
    /// The limit of a figure for one database; `None`: it is reported, and not judged.
    #[must_use]
    pub const fn limit(&self, figure: Figure, kind: Kind) -> Option<Span> {
        let limits = match figure {
            Figure::ConnectGap => self.connect_gap,
            Figure::ReadGap => self.read_gap,
            Figure::SustainedRecovery => self.sustained_recovery,
        };
        match kind {
            Kind::Mysql => limits.mysql,
            Kind::Redis => limits.redis,
        }
    }
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

/// Longest time of a figure; where none is named, it is reported and not judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// MySQL or MariaDB; not judged if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<Span>,
    /// Redis or Valkey; not judged if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Span>,
}

impl Limits {
    /// Whether nothing is limited. Such limits are not written: the records of drills without them stay what they were.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.mysql.is_none() && self.redis.is_none()
    }
}

/// What is measured beside the outage, and judged only where the drill's file names a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// The longest time without a new connection.
    ConnectGap,
    /// The longest time without a read.
    ReadGap,
    /// From a fault until writes are acknowledged steadily again.
    SustainedRecovery,
}

impl Figure {
    /// Every figure, in the order in which reports show them.
    pub const ALL: [Self; 3] = [Self::ConnectGap, Self::ReadGap, Self::SustainedRecovery];

    /// As reports call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectGap => "connect gap",
            Self::ReadGap => "read gap",
            Self::SustainedRecovery => "sustained recovery",
        }
    }

    /// As other programs call it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ConnectGap => "connect-gap",
            Self::ReadGap => "read-gap",
            Self::SustainedRecovery => "sustained-recovery",
        }
    }

    /// The table of `slo` in a drill's file that limits it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::ConnectGap => "connect_gap",
            Self::ReadGap => "read_gap",
            Self::SustainedRecovery => "sustained_recovery",
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Level, shipped};

    const PLAIN: &str = r#"{"outage":{"mysql":"10s"}}"#;

    #[test]
    fn shipped_drills_limit_both_gaps_to_twice_the_outage() {
        for id in shipped::ids() {
            let experiment = shipped::named(id).unwrap().experiment;
            if experiment.level < Level::L2 {
                continue;
            }
            let Outage { mysql, redis } = experiment.slo.outage;
            for (kind, outage) in Kind::ALL.into_iter().zip([Some(mysql), redis]) {
                let twice = outage.map(|outage| outage.plus(outage));
                for figure in [Figure::ConnectGap, Figure::ReadGap] {
                    assert_eq!(experiment.slo.limit(figure, kind), twice, "{id}: {}", figure.name());
                }
            }
        }
    }

    #[test]
    fn an_objective_without_limits_is_written_as_before_there_were_any() {
        let slo: Slo = serde_json::from_str(PLAIN).unwrap();
        let text = serde_json::to_string(&slo).unwrap();
        for figure in Figure::ALL {
            assert!(!text.contains(figure.key()), "{text}");
            for kind in Kind::ALL {
                assert_eq!(slo.limit(figure, kind), None);
            }
        }
    }

    #[test]
    fn each_figure_has_its_own_limit_for_each_database() {
        for (figure, seconds) in Figure::ALL.into_iter().zip(1_u32..) {
            let limits = format!(r#","{}":{{"redis":"{seconds}s"}}}}"#, figure.key());
            let text = format!("{}{limits}", PLAIN.strip_suffix('}').unwrap());
            let slo: Slo = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::from_str::<Slo>(&serde_json::to_string(&slo).unwrap()).unwrap(), slo);
            for other in Figure::ALL {
                let limit = (other == figure).then(|| Span::from_secs(seconds));
                assert_eq!(slo.limit(other, Kind::Redis), limit, "{text}");
                assert_eq!(slo.limit(other, Kind::Mysql), None, "{text}");
            }
        }
    }
}
