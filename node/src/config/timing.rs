//! Timings: the three profiles as data, and the inequalities that bind the values to each other.
//!
//! The inequalities are checked here and nowhere else, when the configuration is loaded. Each refusal names the keys,
//! their values and the way out. All spans are whole milliseconds, as the pure core counts them.
//!
//! Losing the Raft leader must not close a healthy holder. The longest time from the renewal that was granted last to
//! the next grant, at the holder:
//!
//! ```text
//!  last granted renewal ── renew ──▶ leader dies ── 2·election_max + 13/64·heartbeat ──▶ campaign
//!    a follower campaigns when it has heard nothing for election_max (the leader's lease) plus a draw between
//!    election_min and election_max, seen at a tick of 13/64 heartbeat
//!  campaign ── pre-vote rtt ── vote rtt + 2·fsync ── first entry rtt + fsync ──▶ the new leader may grant
//!  the next renewal starts at most `renew` later and takes one rtt
//! ```
//!
//! The kernel's timer is what counts: a ticket lives `lease − age_max` from just before its renewal was sent.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::Problem;

/// Assumed bound on the error of a clock's *rate*, in percent (ρ of the design). A constant, not a setting: kernels
/// and hypervisors keep far below it, and a smaller value would only shorten the margin.
pub const RHO_PERCENT: u64 = 5;

/// What a timer and the scheduler may add to the end of a lease, in milliseconds. Kernel timeouts were seen to end
/// within 8 ms; less would count on an idle machine.
pub const SCHEDULING_MS: u64 = 20;

/// A span in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ms(pub u64);

impl Ms {
    /// The number of milliseconds.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// As the standard library's duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Whole seconds, rounded up.
    #[must_use]
    pub const fn seconds_up(self) -> u32 {
        let seconds = self.0.div_ceil(1000);
        if seconds > u32::MAX as u64 { u32::MAX } else { seconds as u32 }
    }
}

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1000 && self.0.is_multiple_of(1000) {
            f.pad(&format!("{}s", self.0 / 1000))
        } else {
            f.pad(&format!("{}ms", self.0))
        }
    }
}

impl Serialize for Ms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Ms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "{text:?} is not a span; write numbers with ms, s, m, h or d, such as \"1200ms\", \"1.2s\" or \"1m 30s\""
            )
        };
        let (days, rest) = days(text);
        let rest: jiff::SignedDuration = match rest {
            "" if days > 0 => jiff::SignedDuration::ZERO,
            rest => rest.parse().map_err(|_| form())?,
        };
        let rest = Duration::try_from(rest).map_err(|_| "a span cannot be negative".to_owned())?;
        let span = rest.checked_add(Duration::from_secs(u64::from(days) * 86_400)).ok_or_else(form)?;
        if span.subsec_nanos() % 1_000_000 != 0 {
            return Err(format!("{text:?} is not a whole number of milliseconds"));
        }
        u64::try_from(span.as_millis()).map(Self).map_err(|_| format!("{text:?} is too long"))
    }
}

/// Whole days at the beginning of a span, and what follows them. To the parser of the rest a day is no fixed length.
fn days(text: &str) -> (u32, &str) {
    let days = text.trim().split_once('d').and_then(|(days, rest)| Some((days.parse().ok()?, rest.trim())));
    days.unwrap_or((0, text))
}

/// A set of timings that fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// For one quiet switch and local disks with quick fsync.
    Fast,
    /// For a LAN.
    Standard,
    /// For two sites or noisy virtual machines.
    Relaxed,
}

impl Profile {
    /// All profiles, fastest first.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Standard, Self::Relaxed];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Standard => "standard",
            Self::Relaxed => "relaxed",
        }
    }

    /// The profile's values.
    #[must_use]
    pub const fn timing(self) -> Timing {
        match self {
            Self::Fast => FAST,
            Self::Standard => STANDARD,
            Self::Relaxed => RELAXED,
        }
    }
}

macro_rules! timings {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Every timing of one node. Equal on all nodes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Timing {
            $($(#[$doc])* pub $name: Ms,)*
        }

        /// The section `[timing]` as written: what is absent comes from the profile.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct RawTiming {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<Ms>,)*
        }

        impl Timing {
            /// The profile's values with what `raw` overrides.
            #[must_use]
            pub fn of(profile: Profile, raw: &RawTiming) -> Self {
                let base = profile.timing();
                Self { $($name: raw.$name.unwrap_or(base.$name),)* }
            }

            /// Every value with its key, in the order of the reference.
            #[must_use]
            pub fn values(&self) -> Vec<(&'static str, Ms)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

timings! {
    /// Length of the holder's lease (`L`).
    lease,
    /// Time between two renewals (`r`).
    renew,
    /// Largest age of the leader's quorum acknowledgement with which it still grants (`a_max`).
    age_max,
    /// Added to the end of a lease before anybody else may take over (`m`).
    margin,
    /// Time between two Raft heartbeats.
    heartbeat,
    /// Shortest draw of the election timeout.
    election_min,
    /// Longest draw of the election timeout; also the time for which a follower protects its leader.
    election_max,
    /// For how long the replica may owe acknowledgements before the holder proposes 'out of sync'.
    sync_patience,
    /// Time between two probes of the local databases, and the deadline of one.
    probe,
    /// Time between two reports to the other nodes.
    report,
    /// Lifetime of the VIP's address in the kernel, whole seconds.
    address_lifetime,
    /// After repeated failed takeovers to one node the next automatic attempt waits this long.
    anti_flap,
    /// After a restart of all nodes the old holder keeps the baton if it is back within this time.
    cold_start_patience,
    /// Assumed longest network round trip between two agents.
    rtt,
    /// Assumed longest synced write of the Raft log.
    fsync,
}

const STANDARD: Timing = Timing {
    lease: Ms(1200),
    renew: Ms(200),
    age_max: Ms(200),
    margin: Ms(150),
    heartbeat: Ms(80),
    election_min: Ms(240),
    election_max: Ms(260),
    sync_patience: Ms(1400),
    probe: Ms(250),
    report: Ms(250),
    address_lifetime: Ms(2000),
    anti_flap: Ms(60_000),
    cold_start_patience: Ms(30_000),
    rtt: Ms(5),
    fsync: Ms(10),
};

const FAST: Timing = Timing {
    lease: Ms(450),
    renew: Ms(50),
    age_max: Ms(120),
    margin: Ms(80),
    heartbeat: Ms(20),
    election_min: Ms(60),
    election_max: Ms(80),
    sync_patience: Ms(600),
    probe: Ms(50),
    report: Ms(50),
    address_lifetime: Ms(1000),
    anti_flap: Ms(60_000),
    cold_start_patience: Ms(30_000),
    rtt: Ms(1),
    fsync: Ms(5),
};

const RELAXED: Timing = Timing {
    lease: Ms(3000),
    renew: Ms(500),
    age_max: Ms(1000),
    margin: Ms(500),
    heartbeat: Ms(100),
    election_min: Ms(300),
    election_max: Ms(400),
    sync_patience: Ms(3500),
    probe: Ms(500),
    report: Ms(500),
    address_lifetime: Ms(4000),
    anti_flap: Ms(60_000),
    cold_start_patience: Ms(60_000),
    rtt: Ms(15),
    fsync: Ms(20),
};

/// An inequality between timings, in words for the reference.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The inequality, in keys.
    pub text: &'static str,
    /// What breaks if it does not hold.
    pub because: &'static str,
    /// What to change.
    pub way_out: &'static str,
    /// The key that a refusal stands under.
    key: &'static str,
    /// Both sides in milliseconds, and whether they may be equal.
    sides: fn(&Timing) -> (u64, Cmp, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cmp {
    Less,
    AtMost,
}

/// All inequalities. The comparison is always small side, large side.
pub const RULES: &[Rule] = &[
    Rule {
        text: "2·election_max + 13/64·heartbeat + 4·rtt + 3·fsync + 2·renew < lease − age_max",
        because: "losing the Raft leader would close a healthy holder: the kernel's lease (lease − age_max) would end before a new leader can grant",
        way_out: "shorten timing.election_max or timing.renew, or lengthen timing.lease",
        key: "election_max",
        sides: |t| (t.regrant_ms(), Cmp::Less, t.kernel_lease_ms()),
    },
    Rule {
        text: "3·renew ≤ lease − age_max",
        because: "two lost renewals in a row would close a healthy holder",
        way_out: "shorten timing.renew or lengthen timing.lease",
        key: "renew",
        sides: |t| (3 * t.renew.0, Cmp::AtMost, t.kernel_lease_ms()),
    },
    Rule {
        text: "age_max < lease / 2",
        because: "the kernel's lease would be shorter than half of the lease that others wait for",
        way_out: "shorten timing.age_max or lengthen timing.lease",
        key: "age_max",
        sides: |t| (2 * t.age_max.0, Cmp::Less, t.lease.0),
    },
    Rule {
        text: "2·heartbeat + rtt + fsync ≤ age_max",
        because: "one late heartbeat would stop the leader from granting",
        way_out: "lengthen timing.age_max or shorten timing.heartbeat",
        key: "age_max",
        sides: |t| (2 * t.heartbeat.0 + t.rtt.0 + t.fsync.0, Cmp::AtMost, t.age_max.0),
    },
    Rule {
        text: "2·5 %·lease + 20 ms ≤ margin",
        because: "two clocks whose rates differ by the assumed 5 % each could show two holders",
        way_out: "lengthen timing.margin or shorten timing.lease",
        key: "margin",
        sides: |t| ((2 * RHO_PERCENT * t.lease.0).div_ceil(100) + SCHEDULING_MS, Cmp::AtMost, t.margin.0),
    },
    Rule {
        text: "lease + renew ≤ sync_patience",
        because: "a replica could be declared out of sync by a holder that has lost its lease without knowing",
        way_out: "lengthen timing.sync_patience",
        key: "sync_patience",
        sides: |t| (t.lease.0 + t.renew.0, Cmp::AtMost, t.sync_patience.0),
    },
    Rule {
        text: "lease ≤ address_lifetime",
        because: "the kernel would take the VIP from a holder whose lease is valid",
        way_out: "lengthen timing.address_lifetime (whole seconds)",
        key: "address_lifetime",
        sides: |t| (t.lease.0, Cmp::AtMost, t.address_lifetime.0),
    },
    Rule {
        text: "3·heartbeat ≤ election_min",
        because: "two late heartbeats would start an election",
        way_out: "lengthen timing.election_min or shorten timing.heartbeat",
        key: "election_min",
        sides: |t| (3 * t.heartbeat.0, Cmp::AtMost, t.election_min.0),
    },
    Rule {
        text: "election_min ≤ election_max",
        because: "the election timeout is drawn between the two",
        way_out: "lengthen timing.election_max",
        key: "election_max",
        sides: |t| (t.election_min.0, Cmp::AtMost, t.election_max.0),
    },
    Rule {
        text: "2·(rtt + fsync) < 3/4·heartbeat",
        because: "a heartbeat's deadline is the heartbeat itself: the leader would never see a quorum",
        way_out: "lengthen timing.heartbeat, or take a slower profile",
        key: "heartbeat",
        sides: |t| (8 * (t.rtt.0 + t.fsync.0), Cmp::Less, 3 * t.heartbeat.0),
    },
];

/// Longest value that a timing may have: one day. Longer is a slip of the pen, and sums stay far from overflow.
const LONGEST_MS: u64 = 86_400_000;

impl Timing {
    /// Longest time from the renewal that was granted last to the next grant when the Raft leader is lost, in
    /// milliseconds. See the module's page for the parts.
    #[must_use]
    pub const fn regrant_ms(&self) -> u64 {
        let election = 2 * self.election_max.0 + (13 * self.heartbeat.0).div_ceil(64);
        election + 4 * self.rtt.0 + 3 * self.fsync.0 + 2 * self.renew.0
    }

    /// For how long one kernel ticket lives, in milliseconds: the lease less the largest age of its base.
    #[must_use]
    pub const fn kernel_lease_ms(&self) -> u64 {
        self.lease.0.saturating_sub(self.age_max.0)
    }

    /// What a new leader waits before it may decide a takeover, in milliseconds: `L(1+2ρ) + m`, rounded up.
    #[must_use]
    pub const fn new_leader_wait_ms(&self) -> u64 {
        self.lease.0 + (2 * RHO_PERCENT * self.lease.0).div_ceil(100) + self.margin.0
    }

    /// Everything that is wrong with these values.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let values = self.values();
        let out_of_range: Vec<Problem> = values
            .iter()
            .filter(|(_, value)| value.0 == 0 || value.0 > LONGEST_MS)
            .map(|(key, value)| {
                Problem::new(
                    format!("timing.{key}"),
                    value,
                    "is out of range",
                    "write a span between 1ms and 24h",
                )
            })
            .collect();
        if !out_of_range.is_empty() {
            return out_of_range;
        }
        let mut problems: Vec<Problem> = RULES.iter().filter_map(|rule| self.violates(rule)).collect();
        if !self.address_lifetime.0.is_multiple_of(1000) {
            problems.push(Problem::new(
                "timing.address_lifetime",
                self.address_lifetime,
                "is not a whole number of seconds; the kernel counts address lifetimes in seconds",
                "round it up",
            ));
        }
        problems
    }

    fn violates(&self, rule: &Rule) -> Option<Problem> {
        let (small, cmp, large) = (rule.sides)(self);
        let holds = match cmp {
            Cmp::Less => small < large,
            Cmp::AtMost => small <= large,
        };
        if holds {
            return None;
        }
        let value =
            self.values().into_iter().find(|(key, _)| *key == rule.key).map_or(Ms(0), |(_, value)| value);
        let with: Vec<String> = self
            .values()
            .into_iter()
            .filter(|(key, _)| *key != rule.key && names_key(rule.text, key))
            .map(|(key, value)| format!("timing.{key} = {value}"))
            .collect();
        let with = if with.is_empty() { String::new() } else { format!(" with {}", with.join(", ")) };
        Some(Problem::new(
            format!("timing.{}", rule.key),
            value,
            format!("breaks {} (here {small} and {large}){with}: {}", rule.text, rule.because),
            rule.way_out,
        ))
    }
}

/// `text` has `key` as a whole word.
fn names_key(text: &str, key: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word == key)
}
