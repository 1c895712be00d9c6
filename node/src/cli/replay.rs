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
                    show(global, args, row(wall, mono_ms, output))?;
                }
            }
            Ok(Line::Dropped(count)) => dropped += count,
            Err(error) => {
                unreadable += 1;
                screen::complain(&format!("baton: {}", chain(&error)));
            }
        }
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

fn show(global: &Global, args: &ReplayArgs, row: Row) -> Result<(), Failure> {
    let is_decision = matches!(row.output, CoreOutput::Decided { .. } | CoreOutput::Wish { .. });
    if !args.all && !is_decision {
        return Ok(());
    }
    match global.output {
        Output::Json => {
            let text = serde_json::to_string(&row)
                .map_err(|e| Failure::new(Exit::Usage, format!("cannot write the answer as JSON: {e}")))?;
            screen::say(&text)
        }
        Output::Table => {
            let mut text = format!("{:.3}  {:>10} ms  {} {}", row.at, row.mono_ms, row.what, row.text);
            text.extend(row.why.iter().map(|why| format!("\n    {why}")));
            screen::say(&text)
        }
    }
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
