//! The detector: observations of local things become verdicts, with hysteresis.
//!
//! It judges what this node itself can see: its database servers, its disk, its link, itself. It never decides what
//! follows from a verdict. Time is a parameter of every method.
//!
//! Distinct verdicts, because they mean different things (`users.md`, pain 6 and 7 of failover managers): a process that has
//! ended is dead, *refused* twice is refusing, a deadline missed again and again is hung, "too many connections" and "wrong
//! credentials" are neither, and a server that answers reads while writes do not end is stalled.

mod bearer;
mod peers;
mod services;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use bearer::Bearer;
pub use peers::Sight;
pub use services::ServiceWatch;

use crate::model::Mono;
use crate::observe::{DiskFacts, MysqlFacts, Observation, ProbeFailure, RedisFacts};

/// How patient the detector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// Number of refused connections in a row that mean refusing.
    pub refused_count: u32,
    /// Milliseconds without any answer that mean hung.
    pub hung_ms: u64,
    /// Milliseconds for which writes must fail before the database counts as stalled.
    pub stalled_ms: u64,
    /// Free bytes below which the data disk is full.
    pub disk_free_min: u64,
    /// After an own gap, milliseconds of regular ticks before others are judged again.
    pub settle_ms: u64,
    /// Milliseconds for which a service must be gone before the holder is lost. Longer than one restart of it may take.
    /// Recordings of versions that gave up for no service do without it.
    #[serde(default = "never")]
    pub service_lost_ms: u64,
    /// Milliseconds for which the VIP's interface must have no carrier before the holder is cut off; what it was away for adds up
    /// until it stays for as long. Recordings of versions that gave up at once do without it.
    #[serde(default)]
    pub link_lost_ms: u64,
}

const fn never() -> u64 {
    u64::MAX
}

/// The verdict on a database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing has been seen yet.
    Unknown,
    /// It answers and, where writes are probed, writes.
    Healthy,
    /// A failure was seen, not often or long enough for a verdict.
    Suspect,
    /// Its process has ended.
    Dead,
    /// Nothing listens where it should, again and again. Whether its process runs is not known.
    Refusing,
    /// It takes connections and gives no answer.
    Hung,
    /// It answers reads, and writes do not end.
    WriteStalled,
    /// It has no connection left. Not dead.
    TooManyConnections,
    /// It refuses the agent's credentials. Not dead.
    WrongCredentials,
    /// It answers with an error.
    Failing,
}

impl Verdict {
    /// The code in reports and on screen.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Refusing => "refusing",
            Self::Hung => "hung",
            Self::WriteStalled => "write-stalled",
            Self::TooManyConnections => "too-many-connections",
            Self::WrongCredentials => "wrong-credentials",
            Self::Failing => "failing",
        }
    }

    /// The server surely cannot serve clients.
    #[must_use]
    pub const fn is_lost(self) -> bool {
        match self {
            Self::Dead | Self::Refusing | Self::Hung | Self::WriteStalled => true,
            Self::Unknown
            | Self::Healthy
            | Self::Suspect
            | Self::TooManyConnections
            | Self::WrongCredentials
            | Self::Failing => false,
        }
    }
}

/// The verdict on the data disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskVerdict {
    /// Nothing has been seen yet.
    Unknown,
    /// Writes end and there is room.
    Healthy,
    /// No room is left.
    Full,
    /// Mounted read-only.
    ReadOnly,
    /// A write does not end, or ends with an error that says neither full nor read-only.
    Stalled,
}

impl DiskVerdict {
    /// The code in reports and on screen.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Stalled => "stalled",
        }
    }
}

/// Hysteresis of one server.
#[derive(Debug, Clone, Default)]
struct Server {
    answered_at: Option<Mono>,
    failing_since: Option<Mono>,
    refused: u32,
    last_failure: Option<ProbeFailure>,
    exited: Option<String>,
    /// Since when, and when last, a write failed.
    write_failing: Option<(Mono, Mono)>,
}

/// A failed write, or a lost VIP, that was not seen again for this long says nothing any more, in milliseconds: its
/// probe has ended with the role. Longer than the longest deadline of a write probe.
const STALE_MS: u64 = 10_000;

impl Server {
    fn write_failed(&mut self, now: Mono) {
        let since = self
            .write_failing
            .filter(|(_, last)| now.since_ms(*last) < STALE_MS)
            .map_or(now, |(since, _)| since);
        self.write_failing = Some((since, now));
    }

    fn is_stalled(&self, now: Mono, patience: &Patience) -> bool {
        self.write_failing.is_some_and(|(since, last)| {
            now.since_ms(last) < STALE_MS && now.since_ms(since) >= patience.stalled_ms
        })
    }

    fn answered(&mut self, now: Mono) {
        self.answered_at = Some(now);
        self.failing_since = None;
        self.refused = 0;
        self.last_failure = None;
    }

    fn failed(&mut self, failure: ProbeFailure, now: Mono) {
        self.failing_since.get_or_insert(now);
        self.refused = match failure {
            ProbeFailure::Refused => self.refused + 1,
            ProbeFailure::Timeout { .. }
            | ProbeFailure::TooManyConnections
            | ProbeFailure::WrongCredentials { .. }
            | ProbeFailure::Error { .. } => 0,
        };
        self.last_failure = Some(failure);
    }

    fn verdict(&self, now: Mono, patience: &Patience) -> Verdict {
        if self.exited.is_some() {
            return Verdict::Dead;
        }
        let Some(failure) = &self.last_failure else {
            return match (self.answered_at, self.is_stalled(now, patience)) {
                (None, _) => Verdict::Unknown,
                (Some(_), true) => Verdict::WriteStalled,
                (Some(_), false) => Verdict::Healthy,
            };
        };
        match failure {
            ProbeFailure::Refused if self.refused >= patience.refused_count => Verdict::Refusing,
            // A probe that missed its deadline began that much earlier.
            ProbeFailure::Timeout { after_ms } => {
                let silent = self.failing_since.map_or(0, |t| now.since_ms(t)) + after_ms;
                if silent >= patience.hung_ms { Verdict::Hung } else { Verdict::Suspect }
            }
            ProbeFailure::Refused => Verdict::Suspect,
            ProbeFailure::TooManyConnections => Verdict::TooManyConnections,
            ProbeFailure::WrongCredentials { .. } => Verdict::WrongCredentials,
            ProbeFailure::Error { .. } => Verdict::Failing,
        }
    }
}

/// The detector of one node.
#[derive(Debug)]
pub struct Detector {
    patience: Patience,
    mysql: Server,
    mysql_facts: Option<(Mono, Arc<MysqlFacts>)>,
    redis: Server,
    redis_facts: Option<(Mono, RedisFacts)>,
    disk: Option<DiskFacts>,
    bearer: Bearer,
    /// Gateways that do not answer: since when, and when last asked.
    gateways: std::collections::BTreeMap<String, (Mono, Mono)>,
    gap: Option<(Mono, u64)>,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            mysql: Server::default(),
            mysql_facts: None,
            redis: Server::default(),
            redis_facts: None,
            disk: None,
            bearer: Bearer::default(),
            gateways: std::collections::BTreeMap::new(),
            gap: None,
        }
    }

    /// Takes one observation.
    pub fn observe(&mut self, observation: &Observation, now: Mono) {
        match observation {
            Observation::Mysql { facts } => {
                if self.mysql.exited.as_ref() != Some(&facts.instance.server) {
                    self.mysql.exited = None;
                    self.mysql.answered(now);
                    self.mysql_facts = Some((now, facts.clone()));
                }
            }
            Observation::MysqlFailed { failure } => self.mysql.failed(failure.clone(), now),
            Observation::MysqlWrote { .. } => self.mysql.write_failing = None,
            Observation::MysqlWriteFailed { .. } => self.mysql.write_failed(now),
            Observation::MysqlExited { server } => {
                // A notice that comes late, when another server answers already, says nothing about that one.
                let known = self.mysql_facts.as_ref().map(|(_, facts)| &facts.instance.server);
                if known.is_none_or(|known| known == server) {
                    self.mysql.exited = Some(server.clone());
                    self.mysql.write_failing = None;
                }
            }
            Observation::Redis { facts } => {
                self.redis.answered(now);
                self.redis_facts = Some((now, facts.clone()));
            }
            Observation::RedisFailed { failure } => self.redis.failed(failure.clone(), now),
            Observation::Disk { facts } => self.disk = Some(*facts),
            Observation::Link { interface, up } => {
                self.bearer.link(interface, *up, now, self.patience.link_lost_ms);
            }
            Observation::Gateway { address, reachable: true } => {
                self.gateways.remove(address);
            }
            Observation::Gateway { address, reachable: false } => {
                self.gateways.entry(address.clone()).or_insert((now, now)).1 = now;
            }
            Observation::VipUnheld { detail, left_ms } => self.bearer.unheld(detail, *left_ms, now),
            Observation::VipHeld => self.bearer.held(),
            Observation::VipUnrestorable { detail } => self.bearer.refused(detail, now),
            Observation::OwnGap { gap_ms } => self.gap = Some((now, *gap_ms)),
            Observation::Service { .. } => {}
        }
    }

    /// The verdict on the local MySQL.
    #[must_use]
    pub fn mysql(&self, now: Mono) -> Verdict {
        self.mysql.verdict(now, &self.patience)
    }

    /// The verdict on the local Redis.
    #[must_use]
    pub fn redis(&self, now: Mono) -> Verdict {
        self.redis.verdict(now, &self.patience)
    }

    /// The newest facts of the local MySQL, with the instant at which they were seen.
    #[must_use]
    pub fn mysql_facts(&self) -> Option<(Mono, &MysqlFacts)> {
        self.mysql_facts.as_ref().map(|(at, facts)| (*at, facts.as_ref()))
    }

    /// The same facts, for a report.
    #[must_use]
    pub fn mysql_shared(&self) -> Option<Arc<MysqlFacts>> {
        self.mysql_facts.as_ref().map(|(_, facts)| Arc::clone(facts))
    }

    /// The newest facts of the local Redis, with the instant at which they were seen.
    #[must_use]
    pub fn redis_facts(&self) -> Option<(Mono, &RedisFacts)> {
        self.redis_facts.as_ref().map(|(at, facts)| (*at, facts))
    }

    /// How the newest probe of the local Redis failed.
    #[must_use]
    pub const fn redis_failure(&self) -> Option<&ProbeFailure> {
        self.redis.last_failure.as_ref()
    }

    /// The verdict on the data disk.
    #[must_use]
    pub fn disk(&self) -> DiskVerdict {
        match self.disk {
            None => DiskVerdict::Unknown,
            Some(facts) if facts.read_only => DiskVerdict::ReadOnly,
            // Full is only what was seen to be full: a look that has not ended says nothing about room.
            Some(facts) if facts.free_bytes.is_some_and(|free| free < self.patience.disk_free_min) => {
                DiskVerdict::Full
            }
            Some(facts) if facts.sync_ms.is_none() => DiskVerdict::Stalled,
            Some(_) => DiskVerdict::Healthy,
        }
    }

    /// Free bytes on the data disk, when it was last looked at; 0 while nobody knows, and then the disk is not called full.
    #[must_use]
    pub fn disk_free(&self) -> u64 {
        self.disk.and_then(|facts| facts.free_bytes).unwrap_or(0)
    }

    /// Interfaces that bear a VIP and have no carrier now, for however short a time: nobody gives the baton to such a node.
    pub fn links_down(&self) -> impl Iterator<Item = &str> {
        self.bearer.links_down()
    }

    /// An interface that bears a VIP and has had no carrier for so long, at once or by blinking, that this is no blip.
    #[must_use]
    pub fn link_lost(&self, now: Mono) -> Option<&str> {
        self.bearer.link_lost(now, self.patience.link_lost_ms)
    }

    /// A gateway that has not answered for `at_least_ms`.
    #[must_use]
    pub fn gateway_lost(&self, now: Mono, at_least_ms: u64) -> Option<&str> {
        let lost =
            |since: Mono, asked: Mono| now.since_ms(asked) < STALE_MS && now.since_ms(since) >= at_least_ms;
        self.gateways
            .iter()
            .find(|(_, (since, asked))| lost(*since, *asked))
            .map(|(address, _)| address.as_str())
    }

    /// Why the VIP cannot be restored, if so: the kernel refused its address, or no refresh went well until its end.
    #[must_use]
    pub fn vip_lost(&self, now: Mono) -> Option<&str> {
        self.bearer.vip_lost(now)
    }

    /// This agent was stopped a moment ago and judges nobody yet: length of the gap and milliseconds left.
    #[must_use]
    pub fn settling(&self, now: Mono) -> Option<(u64, u64)> {
        let (at, gap_ms) = self.gap?;
        let left_ms = at.plus_ms(self.patience.settle_ms).since_ms(now);
        (left_ms > 0).then_some((gap_ms, left_ms))
    }
}
