//! Which drills run by themselves, and what became of it.
//!
//! The file of an installation says which drill runs how often and when; the diary beside the records says what the
//! scheduler did about it: ran it, or skipped it and why. A drill that has not run for months is found there, not guessed
//! from the absence of records.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use baton_node::config::Window as Hours;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize};

use crate::evidence::Record;
use crate::experiment::Span;
use crate::schedule::{Decision, Facts, Obstacle, Schedule, Window, decide};
use crate::verdict::Verdict;

/// The file of an installation.
pub const TIMETABLE: &str = "/etc/baton/drill-schedule.toml";

/// Name of the diary, in the directory of records.
const DIARY: &str = "schedule.jsonl";

/// When nothing is said of it.
const COOLDOWN: Span = Span::from_secs(3600);

/// The drills that run by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    /// Each drill once, in the order of the file.
    pub entries: Vec<Entry>,
}

/// One drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A file, one of this installation, or a shipped one.
    pub drill: String,
    /// Its name in the records; the same, unless it is a file.
    pub id: String,
    /// When.
    pub schedule: Schedule,
}

/// Why there is no timetable.
#[derive(Debug, thiserror::Error)]
pub enum TimetableError {
    /// It cannot be read.
    #[error("{0}: no schedule can be read there; docs/operating/drills.md shows one")]
    Read(PathBuf, #[source] io::Error),
    /// It is none. The source names the line.
    #[error("{0} is no schedule")]
    Form(PathBuf, #[source] Box<toml::de::Error>),
    /// A drill stands there twice.
    #[error("{0}: {1} stands there twice")]
    Twice(PathBuf, String),
    /// A drill would never run.
    #[error("{0}: {1} would never run; look at its window")]
    Never(PathBuf, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    drill: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    every: Span,
    #[serde(deserialize_with = "hours")]
    window: Hours,
    #[serde(default, deserialize_with = "zone")]
    zone: Option<TimeZone>,
    #[serde(default)]
    jitter: Span,
    cooldown: Option<Span>,
}

fn hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hours, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TimeZone>, D::Error> {
    let name = String::deserialize(deserializer)?;
    TimeZone::get(&name).map(Some).map_err(serde::de::Error::custom)
}

impl Timetable {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, has an unknown key or lacks one, or names a drill twice or one that could never run.
    pub fn read(path: &Path) -> Result<Self, TimetableError> {
        let text = fs::read_to_string(path).map_err(|error| TimetableError::Read(path.to_owned(), error))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, TimetableError> {
        let form: Form =
            toml::from_str(text).map_err(|error| TimetableError::Form(path.to_owned(), Box::new(error)))?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = form.drill.iter().find(|line| !seen.insert(line.name.clone())) {
            return Err(TimetableError::Twice(path.to_owned(), twice.name.clone()));
        }
        let entries: Vec<Entry> = form.drill.into_iter().map(Line::entry).collect();
        let is_dead = |entry: &&Entry| entry.schedule.window.next(Timestamp::now()).is_none();
        match entries.iter().find(is_dead) {
            Some(dead) => Err(TimetableError::Never(path.to_owned(), dead.drill.clone())),
            None => Ok(Self { entries }),
        }
    }
}

impl Line {
    fn entry(self) -> Entry {
        let (from, to) = self.window.times();
        let zone = self.zone.unwrap_or_else(TimeZone::system);
        let schedule = Schedule {
            every: self.every,
            window: Window { weekdays: self.window.days(), from, to, zone },
            jitter: self.jitter,
            cooldown: self.cooldown.unwrap_or(COOLDOWN),
        };
        Entry { id: self.name.clone(), drill: self.name, schedule }
    }
}

/// What the scheduler did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// With which drill.
    pub drill: String,
    /// What.
    pub what: What,
}

/// See [`Note`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It was run.
    Ran {
        /// Its record.
        record: u64,
        /// What came of it.
        verdict: Verdict,
    },
    /// It was due and not run.
    Skipped(Obstacle),
}

/// What the scheduler did so far, oldest first. What cannot be read is left out: a line may be half written.
#[must_use]
pub fn diary(records: &Path) -> Vec<Note> {
    let text = fs::read_to_string(records.join(DIARY)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Adds to the diary. A skip for the same reason as the last one is not written again while the window is the same.
///
/// # Errors
/// What the system said.
pub fn note(records: &Path, entry: &Entry, note: &Note) -> io::Result<()> {
    let last = diary(records).into_iter().rev().find(|last| last.drill == note.drill);
    if last.is_some_and(|last| is_same(&entry.schedule.window, &last, note)) {
        return Ok(());
    }
    let mut file = OpenOptions::new().create(true).append(true).open(records.join(DIARY))?;
    let mut line = serde_json::to_string(note)?;
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn is_same(window: &Window, last: &Note, now: &Note) -> bool {
    let opened = window.next(now.at).map(|(opens, _)| opens);
    let is_skip = |what: &What| matches!(what, What::Skipped(_));
    is_skip(&now.what) && last.what == now.what && opened.is_some_and(|opened| last.at >= opened)
}

/// What is known of a drill from the records, without asking anybody.
#[must_use]
pub fn facts(drill: &str, records: &[Record]) -> Facts {
    let was_run = |record: &&Record| record.judgement.verdict != Verdict::Refused;
    let its: Vec<&Record> =
        records.iter().filter(was_run).filter(|record| record.experiment.id == drill).collect();
    let failed = its.last().filter(|record| record.judgement.verdict == Verdict::Fail);
    Facts {
        last_begun: its.last().map(|record| record.started),
        last_disturbance: records.iter().filter(was_run).map(|record| record.ended).max(),
        obstacles: failed.map(|record| Obstacle::LastFailed { record: record.number }).into_iter().collect(),
    }
}

/// A line per drill: when it is due, when it ran last, why it was skipped last.
#[must_use]
pub fn show(timetable: &Timetable, records: &[Record], diary: &[Note], now: Timestamp) -> String {
    let mut text = String::new();
    for Entry { drill, id, schedule } in &timetable.entries {
        let facts = facts(id, records);
        let when = match decide(schedule, drill, &facts, now) {
            Decision::Wait { until } => format!("due {}", local(until, &schedule.window.zone)),
            Decision::Run => "due now".to_owned(),
            Decision::Skip { why, .. } => format!("due now, and skipped: {why}"),
            Decision::Never => "never due".to_owned(),
        };
        let ran = facts.last_begun.map_or_else(
            || "never ran".to_owned(),
            |begun| format!("last run {}", local(begun, &schedule.window.zone)),
        );
        let _ = writeln!(text, "{drill}: {when}; {ran}");
        let last = diary.iter().rev().find(|note| note.drill == *drill);
        if let Some(Note { at, what: What::Skipped(why), .. }) = last {
            let _ = writeln!(text, "  skipped {}: {why}", local(*at, &schedule.window.zone));
        }
    }
    text
}

fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string()
}

#[cfg(test)]
mod tests;
