//! What must hold before, while and after something is broken, and what ends a drill early.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SteadyState {
    /// What an operator would call it.
    pub name: String,
    /// What is measured.
    pub probe: Probe,
    /// When it must hold.
    pub mode: Vec<Mode>,
    /// Which values are good.
    pub tolerance: Tolerance,
}

/// What is measured. The unit of its value stands beside each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// Writes to MySQL through the virtual IP that were acknowledged, percent.
    MysqlWrites,
    /// Writes to Redis through the virtual IP that were acknowledged, percent.
    RedisWrites,
    /// Machines that hold the virtual IP, at most at any one time: by the nodes' own word, and by who answered ARP all the time,
    /// which is judged at the end.
    VipOwners,
    /// Changes of holder since the drill began.
    HolderChanges,
    /// Agents that the leader hears.
    Agents,
    /// The backup has every acknowledged write, says the ledger: 1 or 0.
    InSync,
    /// A takeover would work now, says the leader: 1 or 0.
    Ready,
    /// Role-bound services of the holder that are known not to be healthy: stopped, still starting, unhealthy or missing. Where
    /// none is, and one could not be seen, that is not known.
    UnhealthyServices,
    /// Age of what the replica has not applied, milliseconds.
    ReplicationLag,
    /// Days until the first certificate of the group ends.
    CertificateDays,
}

impl Probe {
    /// Unit of its value, for reports.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::MysqlWrites | Self::RedisWrites => "%",
            Self::VipOwners => "machines",
            Self::HolderChanges => "changes",
            Self::Agents => "agents",
            Self::InSync | Self::Ready => "1 = yes",
            Self::UnhealthyServices => "services",
            Self::ReplicationLag => "ms",
            Self::CertificateDays => "days",
        }
    }
}

/// When a probe is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Before anything is done: if it does not hold, the drill is refused.
    Before,
    /// All the time.
    Continuous,
    /// When all faults are healed and redundancy is back.
    After,
}

impl Mode {
    /// As files and reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Continuous => "continuous",
            Self::After => "after",
        }
    }
}

/// Which values of a probe are good, in the probe's unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// No less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// No more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}

impl Tolerance {
    /// Whether `value` is good. A value that is no number is not.
    #[must_use]
    pub fn admits(&self, value: f64) -> bool {
        self.at_least.is_none_or(|bound| value >= bound) && self.at_most.is_none_or(|bound| value <= bound)
    }

    /// The least value that is good, from the words in which a record keeps a tolerance; `None`: however little is good.
    #[must_use]
    pub fn least(words: &str) -> Option<f64> {
        let low = words.strip_prefix(">= ").or_else(|| words.split_once(" to ").map(|(low, _)| low))?;
        low.parse().ok()
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at_least, self.at_most) {
            (Some(low), Some(high)) => write!(f, "{low} to {high}"),
            (Some(low), None) => write!(f, ">= {low}"),
            (None, Some(high)) => write!(f, "<= {high}"),
            (None, None) => f.write_str("anything"),
        }
    }
}

/// What ends a drill at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopWhen {
    /// What is looked for.
    pub condition: Stop,
    /// For conditions with a length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longer_than: Option<Span>,
}

/// What is looked for all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// No write to one of the databases was acknowledged through the virtual IP, whatever the other did; has a length.
    Outage,
    /// Two machines answer ARP requests for the virtual IP, where they are asked, or two nodes say for longer than a second
    /// that they serve.
    TwoHolders,
    /// An agent that no method touches is not heard; has a length.
    AgentSilent,
    /// A run of the ledger needs an operator.
    NeedsOperator,
    /// A run of the ledger that no method explains.
    UnplannedRun,
}

impl Stop {
    /// Whether it has a length.
    #[must_use]
    pub const fn has_length(self) -> bool {
        match self {
            Self::Outage | Self::AgentSilent => true,
            Self::TwoHolders | Self::NeedsOperator | Self::UnplannedRun => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_good_value_is_read_back_from_words() {
        for at_least in [None, Some(0.0), Some(99.0), Some(-0.5)] {
            for at_most in [None, Some(1.0), Some(99.9)] {
                let words = Tolerance { at_least, at_most }.to_string();
                assert_eq!(Tolerance::least(&words), at_least, "{words}");
            }
        }
    }
}
