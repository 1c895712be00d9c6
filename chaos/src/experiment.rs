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
mod source;
mod span;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fault::{Effect, Fault, Heal};
pub use source::{Form, ParseError, Source};
pub use span::{Span, SpanError};

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

    /// Its number, 0 to 5, as `--yes-level` takes it.
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
    /// Machines that answer ARP for the virtual IP, at most at any one time.
    VipOwners,
    /// Changes of holder since the drill began.
    HolderChanges,
    /// Agents that the leader hears.
    Agents,
    /// The backup has every acknowledged write, says the ledger: 1 or 0.
    InSync,
    /// A takeover would work now, says the leader: 1 or 0.
    Ready,
    /// Role-bound services on the holder that are not healthy.
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
    /// No write through the virtual IP was acknowledged; has a length.
    Outage,
    /// Two machines answer for the virtual IP.
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
    /// When it begins.
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
    /// When everything before it is healed, and its redundancy is back.
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
    /// How long it is waited until the backup is in sync again, and every agent is heard.
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
