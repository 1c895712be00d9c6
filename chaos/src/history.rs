//! What the client did and heard, in one place and on one clock.
//!
//! A history holds every attempted write, every visit of a client that keeps no connection, every answer to "who has the
//! virtual IP?", and marks (fault injected, fault healed). All times are microseconds since one [`Origin`], read from the monotonic clock of the one machine on which
//! the client runs; they are never compared with another machine's clock.
//!
//! The file form is one JSON object per line, so that a history of a crashed run is readable up to the crash.

use std::fmt;
use std::io::{BufRead, Write as _};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The instant from which a history counts its microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Origin(Instant);

impl Origin {
    /// Starts to count at this instant.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since the origin.
    #[must_use]
    pub fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).expect("584,000 years have not passed")
    }

    /// The instant that lies `us` microseconds after the origin.
    #[must_use]
    pub fn at(self, us: u64) -> Instant {
        self.0 + std::time::Duration::from_micros(us)
    }
}

/// Which kind of data a write went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// MySQL or MariaDB.
    Mysql,
    /// Redis or Valkey.
    Redis,
}

impl Kind {
    /// Every kind, in the order in which reports show them.
    pub const ALL: [Self; 2] = [Self::Mysql, Self::Redis];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mysql => "mysql",
            Self::Redis => "redis",
        })
    }
}

/// How an attempted write ended, as far as the client can know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The server said that it is done: from here on it must never be lost.
    Acknowledged,
    /// Never sent, or refused before it was executed: it must never appear.
    Refused {
        /// What the client was told.
        error: String,
    },
    /// Sent and not answered, or cut off while it was executed: it may be there or not.
    Unknown {
        /// What the client was told.
        error: String,
    },
}

/// One attempted write with an id that no other write of its kind has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Which kind of data.
    pub kind: Kind,
    /// Unique within the kind.
    pub id: u64,
    /// When the open loop wanted it to start.
    pub intended_us: u64,
    /// When it did start.
    pub started_us: u64,
    /// When the client learned its outcome.
    pub ended_us: u64,
    /// What the client learned.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Which server it was connected to, if it was.
    pub server: Option<String>,
}

/// One visit of a client that keeps no connection: it connects, reads, and goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// Which kind of data.
    pub kind: Kind,
    /// When the open loop wanted it to start.
    pub intended_us: u64,
    /// When it was logged in, if it came so far.
    pub connected_us: Option<u64>,
    /// When its read was answered, if it came so far.
    pub read_us: Option<u64>,
    /// What the client was told where it failed.
    pub error: Option<String>,
}

/// One answer to an ARP request for the virtual IP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The number of the request that is answered; they are sent at a fixed period.
    pub probe: u64,
    /// When the answer was read.
    pub at_us: u64,
    /// Who says that the address is his.
    pub mac: String,
}

/// Something that happened in the course of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at_us: u64,
    /// What.
    pub what: String,
}

/// How late the client's own timers were: a late client measures nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// The 99th percentile, microseconds.
    pub p99_us: u64,
    /// The largest, microseconds.
    pub max_us: u64,
}

impl Lateness {
    /// Sums up single latenesses, in microseconds.
    #[must_use]
    pub fn of(mut each_us: Vec<u64>) -> Self {
        each_us.sort_unstable();
        let last = each_us.len().saturating_sub(1);
        let at = |index: usize| each_us.get(index).copied().unwrap_or(0);
        Self { p99_us: at(last * 99 / 100), max_us: at(last) }
    }
}

/// Everything that the client side knows of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Attempted writes, in no order.
    pub writes: Vec<Write>,
    /// Visits of the clients that keep no connection, in no order; none if nobody visited.
    pub visits: Vec<Visit>,
    /// Answers to the ARP requests, in no order.
    pub answers: Vec<Answer>,
    /// Microseconds between two ARP requests; zero if none were sent.
    pub probe_period_us: u64,
    /// What happened meanwhile.
    pub marks: Vec<Mark>,
    /// How late the client was.
    pub lateness: Lateness,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line {
    Write(Write),
    Visit(Visit),
    Answer(Answer),
    Mark(Mark),
    Client { probe_period_us: u64, lateness: Lateness },
}

/// Why a history could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be opened, read or written.
    #[error("history file")]
    File(#[from] std::io::Error),
    /// A line is not a record.
    #[error("history file, line {line}")]
    Record {
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl History {
    /// Adds what another observer of the same run saw.
    pub fn absorb(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.visits.extend(other.visits);
        self.answers.extend(other.answers);
        self.marks.extend(other.marks);
        self.probe_period_us = self.probe_period_us.max(other.probe_period_us);
        self.lateness.p99_us = self.lateness.p99_us.max(other.lateness.p99_us);
        self.lateness.max_us = self.lateness.max_us.max(other.lateness.max_us);
    }

    /// Writes it as JSON lines.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), HistoryError> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        let client = Line::Client { probe_period_us: self.probe_period_us, lateness: self.lateness };
        let lines = std::iter::once(client)
            .chain(self.marks.iter().cloned().map(Line::Mark))
            .chain(self.writes.iter().cloned().map(Line::Write))
            .chain(self.visits.iter().cloned().map(Line::Visit))
            .chain(self.answers.iter().cloned().map(Line::Answer));
        for line in lines {
            serde_json::to_writer(&mut file, &line).map_err(std::io::Error::from)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }

    /// Reads what [`History::save`] wrote.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is not a record.
    pub fn load(path: &Path) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        for (index, text) in std::io::BufReader::new(std::fs::File::open(path)?).lines().enumerate() {
            let parsed = serde_json::from_str(&text?);
            match parsed.map_err(|source| HistoryError::Record { line: index + 1, source })? {
                Line::Write(write) => history.writes.push(write),
                Line::Visit(visit) => history.visits.push(visit),
                Line::Answer(answer) => history.answers.push(answer),
                Line::Mark(mark) => history.marks.push(mark),
                Line::Client { probe_period_us, lateness } => {
                    history.probe_period_us = probe_period_us;
                    history.lateness = lateness;
                }
            }
        }
        Ok(history)
    }
}
