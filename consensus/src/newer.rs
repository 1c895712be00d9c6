//! What a newer version wrote: it is whole, and this version does not know it.
//!
//! `Ledger::apply` does the same on every node, so nothing of an entry or of a snapshot may be skipped. An agent that does
//! not know a name in one leaves its log as it is, says so, and waits to be upgraded:
//!
//! ```text
//! an append, a snapshot ── refused, nothing is written; the leader sends it again ── upgraded ──> taken
//! the log on disk       ── the agent does not start, the file stays                ── upgraded ──> read
//! ```
//!
//! Meanwhile it votes and acknowledges heartbeats, which promise nothing beyond what its log has: a holder keeps its lease
//! while agents are upgraded one after another, and nobody leads without an entry that was committed.
//!
//! *Newer* is text that is JSON to its end, in which one of our enums has a name that it does not have here. Everything else
//! that cannot be read is damage. A letter that changed on the disk is not taken for a name: the pages that a log is read
//! from have checksums (see `crate::store`).

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_runbooks::model::NodeId;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::node::Node;

/// How serde says so; it has no other mark. The tests below hold it to these words.
const UNKNOWN: &str = "unknown variant `";
/// Names are for people; a longer one is cut.
const NAME_CHARS_MAX: usize = 64;
/// The leader sends what was refused again several times per second. The agent's log has it once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Something that a newer version wrote and this one does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("this agent (version {version}) does not know `{name}`: upgrade it")]
pub struct Newer {
    /// Its name.
    pub name: String,
    /// The version that does not know it.
    pub version: String,
}

impl Newer {
    /// This version does not know `name`.
    pub(crate) fn named(name: &str) -> Self {
        let name = name.chars().filter(|letter| !letter.is_control()).take(NAME_CHARS_MAX).collect();
        Self { name, version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// What `error` found in `text`, if it is that.
    pub(crate) fn found(text: &[u8], error: &serde_json::Error) -> Option<Self> {
        let said = error.to_string();
        let (name, _) = said.strip_prefix(UNKNOWN)?.split_once('`')?;
        // The parser stopped at the name; what comes after it may be cut off or garbled.
        serde_json::from_slice::<IgnoredAny>(text).ok()?;
        Some(Self::named(name))
    }

    /// The same of an error of [`decode`].
    pub(crate) fn in_error(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    fn own_problem(&self) -> String {
        let Self { name, version } = self;
        format!(
            "the cluster's log has `{name}`, which this agent (version {version}) does not know: upgrade it. Until then this \
             node takes nothing new into its log and does not see what is decided; it goes on by itself afterwards. Its \
             Raft log is whole: do not remove it"
        )
    }
}

/// Reads what [`serde_json`] wrote.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`], with a [`Newer`] inside if it is that.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> io::Result<T> {
    serde_json::from_slice(text).map_err(|error| match Newer::found(text, &error) {
        Some(newer) => io::Error::new(io::ErrorKind::InvalidData, newer),
        None => io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

/// What this node has refused of its leader's log and not taken since.
#[derive(Debug)]
pub struct Refusals {
    last: watch::Sender<Option<Newer>>,
    told_at: Mutex<Option<Instant>>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { last: watch::Sender::new(None), told_at: Mutex::default() }
    }
}

impl Refusals {
    /// The leader sent something newer, and it was refused.
    pub fn note(&self, newer: &Newer) {
        self.last.send_if_modified(|last| {
            let is_other = last.as_ref() != Some(newer);
            if is_other {
                *last = Some(newer.clone());
            }
            is_other
        });
        if self.is_due(Instant::now()) {
            tracing::error!(problem = newer.own_problem(), "this node takes nothing new into its log");
        }
    }

    /// The leader sent something, and it was taken; or there is no other leader than this node.
    pub fn clear(&self) {
        if self.last.send_if_modified(|last| last.take().is_some()) {
            tracing::info!("this node does not refuse its leader's log any more");
        }
    }

    /// What was refused last.
    pub fn last(&self) -> Option<Newer> {
        self.last.borrow().clone()
    }

    /// To be told when that is another one.
    pub fn subscribe(&self) -> watch::Receiver<Option<Newer>> {
        self.last.subscribe()
    }

    /// It is time to write it down, which counts as done.
    fn is_due(&self, now: Instant) -> bool {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told_at.is_none_or(|at| now.saturating_duration_since(at) >= TOLD_EVERY);
        if is_due {
            *told_at = Some(now);
        }
        is_due
    }
}

/// What an operator must be told of it on this node: what it refuses itself; while it leads, what its peers refuse.
pub fn problem(node: &Node, leads: bool) -> Option<String> {
    if leads {
        // The log that counts is its own, and it has read all of it.
        node.refusals.clear();
        return problem_of(&node.newer_of_peers());
    }
    node.refusals.last().as_ref().map(Newer::own_problem)
}

fn problem_of(peers: &[(NodeId, Newer)]) -> Option<String> {
    if peers.is_empty() {
        return None;
    }
    let each = |(peer, newer): &(NodeId, Newer)| {
        let Newer { name, version } = newer;
        format!("{peer} (version {version}) does not know `{name}`")
    };
    let each: Vec<String> = peers.iter().map(each).collect();
    Some(format!(
        "{}, which the log has: upgrade the agent there. Until then that node takes nothing new into its log, counts for no \
         decision and cannot take over",
        each.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use baton_runbooks::ledger::Command;
    use baton_runbooks::plan::{PlannedStep, Runbook};
    use baton_runbooks::run::Entry;

    use super::*;

    /// What reading `text` as a `T` says is newer.
    fn newer<T: DeserializeOwned + Debug>(text: &str) -> Option<String> {
        let error = decode::<T>(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        Newer::in_error(&error).map(|newer| newer.name.clone())
    }

    #[test]
    fn a_name_that_is_not_known_is_newer_wherever_it_stands() {
        let name = Some("frobnicate".to_owned());
        assert_eq!(newer::<Command>(r#"{"command":"frobnicate","volts":190}"#), name);
        assert_eq!(newer::<Command>(r#"{"volts":190,"command":"frobnicate"}"#), name);
        assert_eq!(newer::<Runbook>(r#""frobnicate""#), name);
        assert_eq!(newer::<PlannedStep>(r#"{"step":"frobnicate","actor":"db1"}"#), name);
        let plan = r#"{"command":"start-run","plan":{"runbook":"frobnicate","version":1},"at":0}"#;
        assert_eq!(newer::<Command>(plan), name, "inside a command");
        let entry = r#"{"step":"validate","attempt":1,"event":"frobnicate","by":"db1","at":0}"#;
        assert_eq!(newer::<Entry>(entry), name, "in the journal");
    }

    #[test]
    fn everything_else_that_cannot_be_read_is_damage() {
        for text in [
            "",
            r#"{"command":"frobnicate""#,
            r#"{"command":"frobnicate"} and more"#,
            r#"{"command":"frobnicate","volts":}"#,
            r#"{"command":"acknowledge-run"}"#,
            r#"{"command":"acknowledge-run","run":"one","by":"me","at":0}"#,
            r#"{"command":7}"#,
            "{}",
            "\u{0}\u{0}\u{0}",
        ] {
            assert_eq!(newer::<Command>(text), None, "{text}");
        }
    }

    #[test]
    fn the_name_is_fit_for_a_line_of_text() {
        let long = format!(r#"{{"command":"a\n{}"}}"#, "b".repeat(1000));
        let name = newer::<Command>(&long).unwrap();
        assert_eq!(name, format!("a{}", "b".repeat(NAME_CHARS_MAX - 1)));
        let words = Newer::named("frobnicate").to_string();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(words, format!("this agent (version {version}) does not know `frobnicate`: upgrade it"));
    }

    #[test]
    fn a_refusal_stands_until_something_is_taken() {
        let refusals = Refusals::default();
        let mut seen = refusals.subscribe();
        assert_eq!(refusals.last(), None);
        refusals.note(&Newer::named("frobnicate"));
        assert!(seen.has_changed().unwrap());
        seen.mark_unchanged();
        refusals.note(&Newer::named("frobnicate"));
        assert!(!seen.has_changed().unwrap(), "the same again is no news");
        assert_eq!(refusals.last(), Some(Newer::named("frobnicate")));
        refusals.clear();
        assert!(seen.has_changed().unwrap());
        assert_eq!(refusals.last(), None);
    }

    #[test]
    fn it_is_written_down_once_in_a_while() {
        let refusals = Refusals::default();
        let first = Instant::now();
        assert!(refusals.is_due(first));
        assert!(!refusals.is_due(first + TOLD_EVERY / 2));
        assert!(refusals.is_due(first + TOLD_EVERY));
        assert!(!refusals.is_due(first + TOLD_EVERY));
    }

    #[test]
    fn the_leader_names_each_peer_with_what_it_does_not_know() {
        assert_eq!(problem_of(&[]), None);
        let peers = ["db2", "mon"].map(|peer| (NodeId::from(peer), Newer::named("frobnicate")));
        let problem = problem_of(&peers).unwrap();
        for part in ["db2 (version", " and mon (version", "`frobnicate`", "upgrade the agent"] {
            assert!(problem.contains(part), "{part}: {problem}");
        }
    }
}
