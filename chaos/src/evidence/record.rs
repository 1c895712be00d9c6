//! The record of one drill: everything that its report says, and everything that its verdict follows from.
//!
//! A record is written once and never changed. Instants are milliseconds since the runner's own start, read from its
//! monotonic clock; the only wall-clock times are `started` and `ended`, which are there for people.
//!
//! No credentials, no row data, no command lines stand in a record.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::Reign;
use crate::experiment::{Fault, Format, Heal, Level, Mode, Phase, Probe, Role, Slo};
use crate::history::{Kind, Lateness};
use crate::verdict::Verdict;

/// Everything that is known of one drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Form of the record; 1.
    pub version: u32,
    /// Its place in the chain, from 1. Set when it is appended.
    pub number: u64,
    /// Hash of the record before it, 64 hexadecimal digits; zeros for the first. Set when it is appended.
    pub previous: String,
    /// What was to be done.
    pub experiment: ExperimentRef,
    /// Who did it.
    pub who: Who,
    /// When it was begun.
    pub started: Timestamp,
    /// When it was over, healing and waiting included.
    pub ended: Timestamp,
    /// The nodes as they were before.
    pub nodes: Vec<NodeRecord>,
    /// What was looked at before anything was done. One check that failed refuses the drill.
    pub gate: Vec<GateCheck>,
    /// How it came to its end.
    pub ending: Ending,
    /// Its number in the ledger; 0: it needed no place there, or got none. Where nobody knows whether it got its place, as when
    /// the runner died while it asked, the number that it asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drill: u64,
    /// What was done to whom, in the order of the methods.
    pub faults: Vec<FaultRecord>,
    /// The phases of every takeover and switchover of the drill, in their order.
    pub timeline: Vec<PhaseRecord>,
    /// What else happened, in its order.
    pub events: Vec<Event>,
    /// What the client saw, per database.
    pub clients: Vec<ClientRecord>,
    /// Milliseconds in which two machines answered for the virtual IP.
    pub two_holders_ms: u64,
    /// Who answered for the virtual IP, when.
    pub reigns: Vec<Reign>,
    /// Changes of holder according to the ledger.
    pub holder_changes: u32,
    /// The steady-state probes.
    pub probes: Vec<ProbeRecord>,
    /// What must hold whatever is done.
    pub invariants: Vec<InvariantRecord>,
    /// How well the runner itself ran.
    pub harness: Harness,
    /// From a heal until the backup was in sync and every agent was heard again: the longest, if it was waited for between
    /// methods too. Absent: it was once not within `after.wait_redundancy`, or the drill did not get so far.
    pub redundancy_ms: Option<u64>,
    /// What follows from all that; `verdict::judge` makes it, and `verify` makes it again.
    pub judgement: Judgement,
}

/// What was to be done, whole: who reads a record later needs no other file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentRef {
    /// `id` of the file.
    pub id: String,
    /// `title` of the file.
    pub title: String,
    /// `description` of the file: the objective.
    pub description: String,
    /// Its level.
    pub level: Level,
    /// SHA-256 of the file's bytes, hexadecimal.
    pub sha256: String,
    /// The file's text.
    pub text: String,
    /// What counted as passed.
    pub slo: Slo,
    /// How many methods it has. A drill that passes has as many healed faults.
    pub methods: u32,
    /// How long redundancy was waited for, milliseconds.
    pub wait_redundancy_ms: u64,
    /// Which reports it wants.
    pub formats: Vec<Format>,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// The operator's name.
    pub operator: String,
    /// Who else agreed, where two people are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<String>,
    /// The machine on which the runner ran.
    pub host: String,
    /// Why now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Version of the runner.
    pub version: String,
}

/// A node as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// Its name.
    pub name: String,
    /// Its role before: holder, backup or witness.
    pub role: Role,
    /// Versions of what runs there: `baton`, `kernel`, and `mysql` as the server calls itself, as far as they are known.
    pub versions: BTreeMap<String, String>,
    /// Whether its configuration has the values of that of the node which was asked: `same` or `another`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// One check before anything was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateCheck {
    /// Stable code.
    pub code: String,
    /// Whether it let the drill pass.
    pub passed: bool,
    /// What was seen.
    pub seen: String,
}

/// How a drill came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ending {
    /// Nobody ended it. A method that was left out, since what comes before it had no effect or redundancy was not back, is
    /// among the events.
    Completed {},
    /// The gate refused it; nothing was done.
    Refused {
        /// Which check, and what it saw.
        why: String,
    },
    /// A stop condition or a person ended it; everything was healed.
    Aborted {
        /// The condition's name, or the person's.
        by: String,
        /// What was seen.
        why: String,
    },
    /// Something real happened meanwhile, or the runner was ended from outside.
    Interrupted {
        /// What.
        why: String,
    },
}

/// What was done to a node. An instant that is absent was not reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRecord {
    /// Which method of the file, from 0.
    pub method: u32,
    /// What.
    pub fault: Fault,
    /// To which node.
    pub node: String,
    /// The role that it had then.
    pub role: Role,
    /// Who was to end it if everybody else died.
    pub heal: Heal,
    /// How long it was to stand, milliseconds.
    pub duration_ms: u64,
    /// The node had said that the heal is ready: the watchdog, or the rules in which whatever is dropped gets a timeout.
    pub armed_ms: Option<u64>,
    /// The same instant: a node says so only after it has seen the heal ready, and is not asked again.
    pub armed_verified_ms: Option<u64>,
    /// It was injected.
    pub injected_ms: Option<u64>,
    /// Its effect was seen.
    pub verified_ms: Option<u64>,
    /// What was seen of the effect, or why it was not.
    pub effect: String,
    /// It was healed.
    pub healed_ms: Option<u64>,
    /// Nothing of it was left, seen afterwards.
    pub heal_verified_ms: Option<u64>,
    /// How long it stood by the node's own word, if it was to stand alone for its whole time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood_ms: Option<u64>,
}

// The form that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One phase of one takeover or switchover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseRecord {
    /// Number of the ledger's run, as `baton history` has it.
    pub run: u64,
    /// Which.
    pub phase: Phase,
    /// When it began.
    pub from_ms: u64,
    /// When it was over.
    pub to_ms: u64,
    /// How long it may take.
    pub budget_ms: u64,
    /// Where the instants come from: `ledger`, `client`, `arp`.
    pub source: String,
}

impl PhaseRecord {
    /// How long it took, milliseconds.
    #[must_use]
    pub const fn took_ms(&self) -> u64 {
        self.to_ms.saturating_sub(self.from_ms)
    }

    /// Whether that was too long.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.took_ms() > self.budget_ms
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub at_ms: u64,
    /// Who saw it: `runner`, `ledger`, `client`, `linter`, a node's name.
    pub source: String,
    /// What, for people.
    pub what: String,
}

/// What the client saw of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRecord {
    /// Which database.
    pub kind: Kind,
    /// Writes that it tried.
    pub attempted: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Its contents could not be read afterwards: nothing is known of losses.
    pub unread: bool,
    /// Acknowledged and missing.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Refused and there all the same.
    pub resurrected: u64,
    /// Acknowledged by one server while another served.
    pub interleaved: u64,
    /// The longest time without an acknowledged write, milliseconds, rounded up.
    pub outage_ms: u64,
    /// Writes were acknowledged again at the end.
    pub restored: bool,
    /// What a client saw meanwhile that keeps no connection; absent if there was none, as in older records. Judged where the
    /// drill's file names limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnecting: Option<Reconnecting>,
    /// From a fault until writes were acknowledged steadily again, the longest of several, milliseconds, rounded up. Absent:
    /// nothing was injected, it was not seen, or the record is older. Judged where the drill's file names a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained_ms: Option<u64>,
    /// Every time of at least ten periods without an acknowledged write, in its order.
    pub gaps: Vec<Gap>,
    /// How many writes ended how, per bucket of [`ClientRecord::BUCKET_MS`]: the plot of the report.
    pub buckets: Vec<Bucket>,
}

/// What a client saw that connects, reads and goes, over the same span as the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconnecting {
    /// How often it tried.
    pub attempted: u64,
    /// How often it was let in.
    pub connected: u64,
    /// How often it read.
    pub read: u64,
    /// The longest time without a new connection, milliseconds, rounded up.
    pub connect_gap_ms: u64,
    /// The longest time without a read, milliseconds, rounded up.
    pub read_gap_ms: u64,
}

/// A time without an acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The last acknowledgement before.
    pub from_ms: u64,
    /// The first acknowledgement after; the end of the load if none came.
    pub to_ms: u64,
}

/// A tenth of a second of writes, by their intended start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Writes that were acknowledged.
    pub acknowledged: u32,
    /// Writes that were refused, or whose fate is not known.
    pub failed: u32,
    /// The slowest acknowledged one, from its intended start, milliseconds.
    pub slowest_ms: u32,
}

/// A steady-state probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRecord {
    /// `name` of the file.
    pub name: String,
    /// What was measured.
    pub probe: Probe,
    /// When.
    pub mode: Mode,
    /// The worst value, in the probe's unit; absent if it could not be measured. Written as a text, since readers of JSON
    /// may round a number, and a record must have one form.
    #[serde(with = "exact")]
    pub value: Option<f64>,
    /// Which values were good, as words.
    pub tolerance: String,
    /// Whether it was good; absent if it could not be measured.
    pub held: Option<bool>,
}

/// What must hold whatever is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvariantRecord {
    /// Stable code, such as `one-holder`.
    pub code: String,
    /// What it says, for people.
    pub says: String,
    /// Whether it held; absent if it could not be checked.
    pub held: Option<bool>,
    /// The raw counts that it was judged by.
    pub seen: String,
}

/// How well the runner itself ran: a late runner measures nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Harness {
    /// How late its timers were.
    pub lateness: Lateness,
    /// Writes that it could not start because too many were under way.
    pub overflowed: u64,
}

/// What follows from a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// One word.
    pub verdict: Verdict,
    /// Why it is not a plain PASS, the weightiest first; empty for one.
    pub reasons: Vec<String>,
}

/// A number as the shortest text that is read back as the same number.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)]
    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|value| value.to_string()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}
