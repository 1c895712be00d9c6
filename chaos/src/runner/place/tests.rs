//! The place in the ledger, with an agent that answers as it is told: what is kept when.

use std::path::Path;
use std::sync::{Arc, Mutex};

use baton_node::api::client::Client;
use baton_node::config::{Config, example};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use super::*;
use crate::evidence::Store;
use crate::evidence::sample::passed;
use crate::experiment::shipped;
use crate::history::Origin;
use crate::runner::agents::Agents;
use crate::runner::gate::Seen;
use crate::runner::screen::Screen;
use crate::runner::stop::Stops;
use crate::runner::{Options, sample};
use crate::verdict::Verdict;

/// The next drill of [`sample::view`].
const NUMBER: DrillId = DrillId(1);

/// What was kept and asked for, in its order.
type Log = Arc<Mutex<Vec<String>>>;

/// What the agent does with the order to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Carries it out.
    Begun,
    /// Carries it out, and the answer is lost.
    BegunUnheard,
    /// Breaks the connection before anything is done.
    Lost,
    /// Refuses.
    Refused,
}

/// A keeper of drafts that fails at the draft that is named by its place, counted from 1; 0: at none.
struct Kept {
    log: Log,
    fails_at: usize,
}

impl Keeper for Kept {
    fn keep(&self, record: Record) -> Result<(Record, String), String> {
        Ok((record, String::new()))
    }

    fn draft(&self, record: &Record) -> Result<(), String> {
        let mut log = self.log.lock().unwrap();
        let Ending::Interrupted { why } = &record.ending else { panic!("{:?}", record.ending) };
        assert_eq!(record.judgement.verdict, Verdict::Interrupted);
        let place = 1 + log.iter().filter(|entry| entry.starts_with("draft")).count();
        if place == self.fails_at {
            return Err("the disk is full".into());
        }
        log.push(format!("draft of drill {}: {why}", record.drill));
        Ok(())
    }
}

async fn agent(listener: UnixListener, answer: Answer, experiment: String, log: Log) {
    let mut view = serde_json::to_value(sample::view("mon")).unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = sample::request(&mut stream).await;
        let is_begin = asked.contains("\"order\":\"begin\"");
        if is_begin {
            log.lock().unwrap().push("order to begin".into());
            if matches!(answer, Answer::Begun | Answer::BegunUnheard) {
                view["drill"] = json!({
                    "number": NUMBER.0, "name": "mysqld-killed", "experiment": experiment, "by": "ann", "at_node": "mon",
                    "lease_ms": 10_000, "beat": 0, "aborted": Value::Null, "at": 0,
                });
            }
            if matches!(answer, Answer::BegunUnheard | Answer::Lost) {
                continue;
            }
        }
        let refusal = json!({ "code": "refused", "message": "another drill", "way_out": "wait" });
        let (status, body) = if is_begin && answer == Answer::Refused {
            ("409 Conflict", refusal)
        } else if asked.starts_with("get /v1/status ") {
            ("200 OK", serde_json::to_value(sample::status()).unwrap())
        } else {
            ("200 OK", view.clone())
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }
}

fn options(socket: &Path) -> Options {
    let mut config = Config::parse(&example(), "test", &"db1".into()).unwrap();
    // Then there is nothing to write to, and the drill ends when it has its place.
    config.vips.clear();
    Options {
        source: shipped::named("mysqld-killed").unwrap(),
        config,
        agents: Agents { client: Client::new(socket.to_owned()), by: "ann".into() },
        approver: None,
        reason: None,
    }
}

/// What a drill that is to begin keeps and asks for; its record; and whether it knows of a place in the ledger.
async fn go(answer: Answer, fails_at: usize) -> (Vec<String>, Record, bool) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("baton.sock");
    let options = options(&socket);
    let log = Log::default();
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = tokio::spawn(agent(listener, answer, options.source.sha256(), Arc::clone(&log)));
    let origin = Origin::new();
    let seen = Seen { status: sample::status(), views: vec![sample::view("mon")], checks: Vec::new() };
    let (screen, started) = (Screen::new(origin), Timestamp::now());
    let mut drill = Drill { options: &options, screen, origin, started, seen, number: None };
    let record = drill.go(&Stops::default(), &Kept { log: Arc::clone(&log), fails_at }).await;
    assert!(matches!(record.ending, Ending::Refused { .. }), "{:?}", record.ending);
    let is_placed = drill.number.is_some();
    agent.abort();
    let log = log.lock().unwrap().clone();
    (log, record, is_placed)
}

#[tokio::test]
async fn a_draft_is_kept_before_the_ledger_is_asked_and_again_before_anything_is_broken() {
    let asked = format!("draft of drill 1: {ASKED}");
    let wanted = [asked, "order to begin".to_owned(), format!("draft of drill 1: {RUNNER_DIED}")];
    let (log, record, is_placed) = go(Answer::Begun, 0).await;
    assert_eq!(log, wanted);
    assert_eq!((record.drill, is_placed), (1, true));
    let (log, record, is_placed) = go(Answer::BegunUnheard, 0).await;
    assert_eq!(log, wanted, "the ledger says that the place is ours");
    assert_eq!((record.drill, is_placed), (1, true));
}

#[tokio::test]
async fn a_drill_without_a_place_says_so_unless_nobody_knows() {
    let (log, record, is_placed) = go(Answer::Refused, 0).await;
    assert_eq!((log.len(), record.drill, is_placed), (2, 0, false), "{log:?}");
    let (log, record, is_placed) = go(Answer::Lost, 0).await;
    assert_eq!((log.len(), record.drill, is_placed), (2, 1, false), "it may still be carried out: {log:?}");
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_begun() {
    let (log, record, is_placed) = go(Answer::Begun, 1).await;
    assert_eq!((log, record.drill, is_placed), (Vec::new(), 0, false), "nothing was asked for");
    let (log, record, is_placed) = go(Answer::Begun, 2).await;
    assert_eq!(
        (log.len(), record.drill, is_placed),
        (2, 1, true),
        "the ledger is to be told its end: {log:?}"
    );
}

#[test]
fn whatever_a_runner_leaves_becomes_a_record_that_history_shows_as_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (drill, why, wanted) in [(1, ASKED, ASKED), (2, RUNNER_DIED, HEALED)] {
        let draft = interrupted(Record { drill, ..passed() }, why);
        store.keep_draft(&draft).unwrap();
        let stored = store.append(left(store.draft().unwrap().unwrap())).unwrap();
        assert_eq!(stored.record.ending, Ending::Interrupted { why: wanted.into() });
        assert_eq!((stored.record.drill, stored.record.judgement.verdict), (drill, Verdict::Interrupted));
    }
    assert!(crate::evidence::verify(dir.path(), None).unwrap().is_sound());
    assert_eq!(left(passed()), passed(), "a whole record stays what it is");
}
