//! The file that a drill is written in: what is broken on purpose, what must hold meanwhile, and what ends it.
//!
//! ```text
//! text ── parse ─► Experiment ── lint ─► findings
//!                      │
//!                      ├── plan ─► what would be done, as text
//!                      └── the runner ─► evidence::Record ── verdict ─► report
//! ```
//!
//! TOML is the form that the shipped drills use; YAML and JSON of the same shape are read as well. A key that is not
//! known is an error: a misspelt limit would be no limit. Words that mean the same as in Chaos Toolkit or AWS FIS have
//! the same names (`title`, `description`, `method`, `steady_state`, `targets`).
//!
//! All instants and spans are whole milliseconds, as everywhere.

pub mod catalogue;
mod fault;
pub mod plan;
pub mod shipped;
mod slo;
mod source;
mod span;
mod steady;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fault::{Effect, Fault, Heal};
pub use slo::{Budgets, Figure, Limits, Lost, Outage, Phase, Slo};
pub use source::{Form, ParseError, Source};
pub use span::{Span, SpanError};
pub use steady::{Mode, Probe, SteadyState, Stop, StopWhen, Tolerance};

/// The only value of `schema` so far.
pub const SCHEMA: &str = "drill/v1";

/// A drill as it stands in its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Form of the file: `drill/v1`.
    pub schema: String,
    /// Short name, unique among the drills of an installation: small letters, digits, hyphens.
    pub id: String,
    /// One line: what is broken and what must come of it.
    pub title: String,
    /// Why this drill, what it shows, what an operator should look at. Stands in the report.
    pub description: String,
    /// How deep it reaches. No method may reach deeper.
    pub level: Level,
    /// Free words to choose drills by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What counts as passed.
    pub slo: Slo,
    /// What may be hit, by the name that methods use.
    pub targets: BTreeMap<String, Target>,
    /// What must hold before, while and after.
    #[serde(default)]
    pub steady_state: Vec<SteadyState>,
    /// What ends the drill at once; every fault is healed then.
    #[serde(default)]
    pub stop_when: Vec<StopWhen>,
    /// What is done, in this order.
    pub method: Vec<Method>,
    /// What is waited for when the last fault is healed.
    #[serde(default)]
    pub after: After,
    /// What is written afterwards.
    #[serde(default)]
    pub report: ReportWish,
}

/// How deep a drill reaches. Each node's own configuration has a ceiling that no drill may exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// Plan: reads files only.
    L0,
    /// Rehearse: asks the agents, changes nothing.
    L1,
    /// Switchover: the baton is passed, nothing is broken.
    L2,
    /// Process: one process is killed or stopped.
    L3,
    /// Network: packets are dropped; the kernel heals it.
    L4,
    /// Host: disk or power.
    L5,
}

impl Experiment {
    /// What it wants of a probe when all is over; empty: nothing.
    #[must_use]
    pub fn wanted_after(&self, probe: Probe) -> Vec<Tolerance> {
        let states = self.steady_state.iter();
        let states = states.filter(|state| state.probe == probe && state.mode.contains(&Mode::After));
        states.map(|state| state.tolerance).collect()
    }
}

impl Level {
    /// Every level, from the shallowest.
    pub const ALL: [Self; 6] = [Self::L0, Self::L1, Self::L2, Self::L3, Self::L4, Self::L5];

    /// One word for what it does.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::L0 => "plan",
            Self::L1 => "rehearse",
            Self::L2 => "switchover",
            Self::L3 => "process",
            Self::L4 => "network",
            Self::L5 => "host",
        }
    }

    /// Its number, 0 to 5.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::L0 => 0,
            Self::L1 => 1,
            Self::L2 => 2,
            Self::L3 => 3,
            Self::L4 => 4,
            Self::L5 => 5,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.number())
    }
}

/// What may be hit: nodes by their role, never by name. Roles are resolved for the plan and anew before each method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The role that a node must have.
    pub role: Role,
    /// How many nodes are hit: the blast radius. One, in a group of three.
    pub count: u32,
}

/// What a node is at the moment in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The data node that holds the baton.
    Holder,
    /// The other data node, with the replicas.
    Backup,
    /// The node without data.
    Witness,
    /// The Raft leader, whichever node that is.
    Leader,
    /// All three, for what is only read.
    Everyone,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Holder, Self::Backup, Self::Witness, Self::Leader, Self::Everyone];

    /// As files write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Backup => "backup",
            Self::Witness => "witness",
            Self::Leader => "leader",
            Self::Everyone => "everyone",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// What.
    pub fault: Fault,
    /// To whom: a name of `targets`.
    pub target: String,
    /// How long it stands; it is healed then, whoever is alive. For what does not stand (a killed process, a switchover):
    /// how long its outcome is waited for.
    pub duration: Span,
    /// That it took effect.
    pub verify: VerifyEffect,
    /// When it begins: `healed`, which it is if nothing stands here, or `standing`, while what is before it stands. `healed` is
    /// when everything before it is healed and redundancy is back; where that takes longer than `after.wait_redundancy`, this
    /// method and all after it are left out, and the drill fails.
    #[serde(default)]
    pub start: Start,
    /// Pause before it begins, after what `start` names.
    #[serde(default)]
    pub delay: Span,
    /// The other side, for `partition-pair` and `one-way`: a name of `targets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Which service, for container faults: its name in the node's configuration. Without it the runner takes the first
    /// role-bound one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What is left free, for `replica-disk-full`, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_mib: Option<u64>,
    /// What still passes, for `replication-lag`, KiB per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kib_per_second: Option<u64>,
    /// A certificate that ends within so many days fails `certificate-expiring`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

/// How and by when a fault is seen to have taken effect. One that was not seen is no evidence of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyEffect {
    /// By when.
    pub within: Span,
    /// What must be seen; each fault has its own.
    pub expect: Effect,
}

/// When a method begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// When everything before it is healed, and its redundancy is back. If it is not back in time, it does not begin.
    #[default]
    Healed,
    /// While what is before it stands: a double fault.
    Standing,
}

/// What comes after the last method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct After {
    /// Faults are always healed. The only value; it stands in files so that nobody wonders.
    pub heal: HealWhen,
    /// How long it is waited until the backup is in sync again, and every agent is heard; at the end also until the services of
    /// the holder are as `steady_state` wants them `after`.
    pub wait_redundancy: Span,
}

impl Default for After {
    fn default() -> Self {
        Self { heal: HealWhen::Always, wait_redundancy: Span::from_secs(300) }
    }
}

/// When faults are healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealWhen {
    /// However the drill ends.
    Always,
}

/// What is written afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReportWish {
    /// In which forms.
    pub formats: Vec<Format>,
}

impl Default for ReportWish {
    fn default() -> Self {
        Self { formats: vec![Format::Md, Format::Html] }
    }
}

/// Form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[derive(clap::ValueEnum)]
pub enum Format {
    /// Markdown.
    Md,
    /// One HTML file that needs nothing else.
    Html,
    /// The record itself.
    Json,
    /// JUnit XML, for build servers.
    Junit,
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::Md, Self::Html, Self::Json, Self::Junit];

    /// How its files end.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Md => "md",
            Self::Html => "html",
            Self::Json => "json",
            Self::Junit => "junit.xml",
        }
    }
}
