//! `baton replay FILE`: runs the decision code over a flight recording and prints what it decided, and why.
//!
//! The same code as in the agent, with the recorded instants; nothing is carried out. A file begins with what its
//! core was made from, so one file of the ring can be replayed by itself; what lies before it is unknown to the core,
//! which therefore needs a few inputs until it agrees with the recorded agent.

use std::path::PathBuf;

use baton_runbooks::agent::{Agent, Output as CoreOutput, Setup, Stamped};
use baton_runbooks::model::WallMs;
use baton_runbooks::why::Why;
use serde::Serialize;

use super::{Exit, Failure, Global, Output, chain, screen};
use crate::api::view::timestamp;
use crate::recorder::{self, Line};

/// Arguments of `baton replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// File of a flight recorder, or its directory
    file: PathBuf,
    /// Print every output of the core, not only decisions
    #[arg(long)]
    all: bool,
}

/// Something that the core put out.
#[derive(Debug, Serialize)]
struct Row {
    /// Wall clock of the input, for people.
    at: jiff::Timestamp,
    /// Monotonic instant of the input, in milliseconds.
    mono_ms: u64,
    /// What it is.
    what: &'static str,
    /// In words.
    text: String,
    /// Reasons, with evidence.
    why: Vec<Why>,
    /// The output itself.
    output: CoreOutput,
}

pub(super) fn run(global: &Global, args: &ReplayArgs) -> Result<Exit, Failure> {
    replay(global, args, &mut screen::say)
}

/// What is printed goes to `say`.
fn replay(
    global: &Global,
    args: &ReplayArgs,
    say: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let lines = recorder::read::<Stamped>(&args.file).map_err(|e| Failure::new(Exit::Usage, chain(&e)))?;
    let mut core: Option<Agent> = None;
    let (mut inputs, mut dropped, mut unreadable) = (0u64, 0u64, 0u64);
    for line in lines {
        match line {
            Ok(Line::Start { resumed, header }) => {
                if core.is_none() || !resumed {
                    core = Some(Agent::new(setup(header)?));
                }
            }
            Ok(Line::Input(stamped)) => {
                inputs += 1;
                let Some(core) = &mut core else {
                    return Err(Failure::new(Exit::Usage, "the recording does not begin with a header"));
                };
                let (wall, mono_ms) = (stamped.wall, stamped.now.0);
                for output in core.handle(stamped) {
                    if let Some(text) = shown(global, args, &row(wall, mono_ms, output))? {
                        say(&text)?;
                    }
                }
            }
            Ok(Line::Dropped(count)) => dropped += count,
            Err(error) if core.is_none() => return Err(Failure::new(Exit::Usage, chain(&error))),
            Err(error) => {
                unreadable += 1;
                screen::complain(&format!("baton: {}", chain(&error)));
            }
        }
    }
    if inputs == 0 {
        let file = args.file.display();
        return Err(Failure::new(Exit::Usage, format!("{file} has no recording that can be read")));
    }
    screen::complain(&format!(
        "{inputs} inputs replayed, {dropped} were not recorded, {unreadable} lines unreadable"
    ));
    Ok(Exit::Done)
}

fn setup(header: serde_json::Value) -> Result<Setup, Failure> {
    serde_json::from_value(header).map_err(|e| {
        Failure::new(
            Exit::Usage,
            format!("the recording's header cannot be read: {e}; it may be of another version"),
        )
    })
}

/// The row as it is printed; `None`: it is not asked for.
fn shown(global: &Global, args: &ReplayArgs, row: &Row) -> Result<Option<String>, Failure> {
    let is_decision = matches!(row.output, CoreOutput::Decided { .. } | CoreOutput::Wish { .. });
    if !args.all && !is_decision {
        return Ok(None);
    }
    let text = match global.output {
        Output::Json => serde_json::to_string(row)
            .map_err(|e| Failure::new(Exit::Usage, format!("cannot write the answer as JSON: {e}")))?,
        Output::Table => {
            let mut text = format!("{:.3}  {:>10} ms  {} {}", row.at, row.mono_ms, row.what, row.text);
            text.extend(row.why.iter().map(|why| format!("\n    {why}")));
            text
        }
    };
    Ok(Some(text))
}

fn row(wall: WallMs, mono_ms: u64, output: CoreOutput) -> Row {
    let (what, text, why) = match &output {
        CoreOutput::Decided { decision } => {
            ("decided", decision.action.as_str().to_owned(), decision.why.clone())
        }
        CoreOutput::Wish { wish } => ("wishes", format!("{:?}", wish.role), wish.why.clone()),
        CoreOutput::Propose { ticket, command, .. } => {
            ("proposes", format!("{command} (ticket {ticket})"), Vec::new())
        }
        CoreOutput::RunStep { run, attempt, planned, .. } => {
            ("runs", format!("{} of run {run}, attempt {attempt}", planned.step), Vec::new())
        }
        CoreOutput::UndoStep { run, planned, .. } => {
            ("undoes", format!("{} of run {run}", planned.step), Vec::new())
        }
        CoreOutput::Keep { keep } => ("keeps", format!("{keep:?}"), Vec::new()),
    };
    Row { at: timestamp(wall), mono_ms, what, text, why, output }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use baton_runbooks::agent::{Input, LeaseFacts};
    use baton_runbooks::lease::granter::Office;
    use baton_runbooks::model::{Epoch, Mono, NodeKind};
    use baton_runbooks::observe::Observation;

    use super::*;
    use crate::api::sample;
    use crate::recorder::Recorder;

    fn header() -> serde_json::Value {
        serde_json::json!({
            "me": "db2", "own_address": "10.77.0.12",
            "policy": {
                "scope": {"mysql": true, "independent_services": false, "services": true},
                "report_max_ms": 600, "quorum_max_ms": 300, "anti_flap_ms": 60_000, "anti_flap_max": 3,
            },
            "patience": {
                "refused_count": 2, "hung_ms": 1_000, "stalled_ms": 1_600, "disk_free_min": 0, "settle_ms": 1_200,
            },
            "sync_patience_ms": 1_400, "redis": true, "version": "0.1.0", "config_hash": "0", "opened": null,
            "boot": 1,
        })
    }

    fn inputs() -> Vec<Stamped> {
        let mut ledger = sample::ledger();
        ledger.run = Some(sample::takeover());
        ledger.holder = Some("db2".into());
        ledger.epoch = Epoch(3);
        ledger.members.insert("db1".into(), NodeKind::Data);
        ledger.members.insert("db2".into(), NodeKind::Data);
        let lease = LeaseFacts { held: Some((Epoch(3), Mono(9_000))), ..LeaseFacts::default() };
        let link = Observation::Link { interface: "eth0".to_owned(), up: true };
        [
            Input::Tick,
            Input::Committed { index: 12, ledger: ledger.into() },
            Input::Lease { lease: lease.into() },
            Input::Observed { observation: link },
            // It leads from here on, and no quorum has acknowledged anything yet.
            Input::Office { office: Office { is_leader: true, ..Office::default() } },
            Input::Proposed { ticket: 1, accepted: None },
        ]
        .into_iter()
        .zip(0..)
        .map(|(input, number)| Stamped {
            now: Mono(1_000 + number),
            wall: WallMs(sample::START.0 + number),
            input,
        })
        .collect()
    }

    /// What the driver records can be read back as it was, and the core takes it.
    #[test]
    fn recorded_inputs_are_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(dir.path(), &header()).unwrap();
        for input in inputs() {
            recorder.record(&input);
        }
        assert!(recorder.flush(Duration::from_secs(30)));
        let read: Vec<Stamped> = recorder::read::<Stamped>(dir.path())
            .unwrap()
            .filter_map(|line| match line.unwrap() {
                Line::Input(stamped) => Some(stamped),
                Line::Start { .. } | Line::Dropped(_) => None,
            })
            .collect();
        assert_eq!(read, inputs());
        let lines = printed(dir.path(), Output::Json, false);
        let rows = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let decisions: Vec<_> = rows.filter(|row| row["what"] == "decided").collect();
        let words = |row: &serde_json::Value| format!("{} {}", row["text"], row["why"][0]["why"]);
        let words: Vec<String> = decisions.iter().map(words).collect();
        assert_eq!(words, [r#""hold" "not-leader""#, r#""hold" "no-quorum""#]);
        // With the instants of the inputs that they follow from.
        let instants: Vec<Option<u64>> = decisions.iter().map(|row| row["mono_ms"].as_u64()).collect();
        assert_eq!(instants, [Some(1_000), Some(1_004)]);
        assert_eq!(decisions[0]["at"], "2026-11-22T21:40:00Z");
    }

    fn printed(dir: &Path, output: Output, all: bool) -> Vec<String> {
        let global = Global { config: PathBuf::new(), node: None, socket: None, output };
        let args = ReplayArgs { file: dir.to_owned(), all };
        let mut lines = Vec::new();
        let ended = replay(&global, &args, &mut |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        });
        assert_eq!(ended.unwrap(), Exit::Done);
        lines
    }

    /// For people: the decision in a line, each reason in one of its own; with `--all` also what is no decision.
    #[test]
    fn what_is_printed_has_decisions_with_their_reasons() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(dir.path(), &header()).unwrap();
        for input in inputs() {
            recorder.record(&input);
        }
        assert!(recorder.flush(Duration::from_secs(30)));
        let decisions = printed(dir.path(), Output::Table, false);
        let heads: Vec<&str> = decisions.iter().filter_map(|text| text.lines().next()).collect();
        assert!(heads.iter().all(|head| head.contains(" ms  decided ") || head.contains(" ms  wishes ")));
        let quorum = decisions.iter().find(|text| text.contains("\n    no-quorum")).unwrap();
        assert!(quorum.contains("1004 ms  decided hold\n"), "{quorum}");
        let all = printed(dir.path(), Output::Table, true);
        assert!(decisions.iter().all(|text| all.contains(text)));
        assert!(all.len() > decisions.len(), "nothing but decisions: {all:#?}");
    }

    #[test]
    fn what_is_no_recording_is_a_failure_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global { config: PathBuf::new(), node: None, socket: None, output: Output::Json };
        let failure = |name: &str| {
            let file = dir.path().join(name);
            let failure = run(&global, &ReplayArgs { file, all: true }).unwrap_err();
            assert_eq!(
                (failure.exit, failure.message.lines().count()),
                (Exit::Usage, 1),
                "{}",
                failure.message
            );
            failure.message
        };
        assert!(failure("none").contains("cannot read"));
        std::fs::write(dir.path().join("text"), "hello\nworld\n").unwrap();
        assert!(failure("text").contains("this is not a line of a recording"));
        std::fs::write(dir.path().join("empty"), "").unwrap();
        assert!(failure("empty").contains("has no recording that can be read"));
    }
}
