//! What is concluded from a record: one word, one exit code, and the reasons.

mod judge;
mod late;
mod limits;
#[cfg(test)]
mod tests;

use std::fmt;

pub use judge::{LATE_MAX_US, LATE_ONCE_MAX_US, judge};
pub use limits::{Limited, limited};
use serde::{Deserialize, Serialize};

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Everything that was promised was seen.
    #[serde(rename = "PASS")]
    Pass,
    /// Nothing that was promised was broken, but a phase took longer than its budget, or something was not as it should
    /// be.
    #[serde(rename = "PASS (degraded)")]
    Degraded,
    /// A promise was broken.
    #[serde(rename = "FAIL")]
    Fail,
    /// It cannot be said: a fault did not take effect, or the runner itself was late.
    #[serde(rename = "INCONCLUSIVE")]
    Inconclusive,
    /// Somebody, or a stop condition, ended it early.
    #[serde(rename = "ABORTED")]
    Aborted,
    /// It was not begun: a check of the gate failed.
    #[serde(rename = "REFUSED")]
    Refused,
    /// Something real happened meanwhile, or the runner died.
    #[serde(rename = "INTERRUPTED")]
    Interrupted,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 7] = [
        Self::Pass,
        Self::Degraded,
        Self::Fail,
        Self::Inconclusive,
        Self::Aborted,
        Self::Refused,
        Self::Interrupted,
    ];

    /// As screens and reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Degraded => "PASS (degraded)",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Aborted => "ABORTED",
            Self::Refused => "REFUSED",
            Self::Interrupted => "INTERRUPTED",
        }
    }

    /// What `baton drill run` exits with.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass | Self::Degraded => 0,
            Self::Fail => 10,
            Self::Inconclusive => 11,
            Self::Aborted => 12,
            Self::Refused => 2,
            Self::Interrupted => 13,
        }
    }

    /// When it is reached, for the operator's page.
    #[must_use]
    pub const fn when(self) -> &'static str {
        match self {
            Self::Pass => "everything that was promised was seen",
            Self::Degraded => "nothing was broken, but a phase took longer than its budget, or is not known",
            Self::Fail => {
                "an acknowledged write was lost, two machines had the virtual IP, an outage or another figure that has a limit \
                 was too long, the hypothesis did not hold, redundancy did not come back before the next fault (which is left out \
                 then) or at the end, or a fault was not seen healed"
            }
            Self::Inconclusive => {
                "a fault was not seen to take effect, something could not be measured, or the runner itself was late"
            }
            Self::Aborted => "a stop condition or a person ended it; everything was healed",
            Self::Refused => "a check before it failed; nothing was done",
            Self::Interrupted => {
                "something real happened meanwhile, or the runner died; everything was healed"
            }
        }
    }

    /// Whether it counts as a drill that was passed.
    #[must_use]
    pub const fn is_pass(self) -> bool {
        match self {
            Self::Pass | Self::Degraded => true,
            Self::Fail | Self::Inconclusive | Self::Aborted | Self::Refused | Self::Interrupted => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
