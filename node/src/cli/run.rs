//! `baton run ack N`: an operator has read why a run needs one, and lets the cluster decide again. `baton run abort N`: a
//! switchover is taken back, as long as its point of no return is not behind it.

use std::io::{self, BufRead, IsTerminal};

use clap::Subcommand;

use super::status::wrap;
use super::{Exit, Failure, Global, Output, block_on, screen};
use crate::api::types::{AbortRequest, AckRequest, RunRecord, RunResult};

/// Arguments of `baton run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Take a switchover back; refused when its point of no return is behind it
    Abort {
        /// Number of the run
        number: u64,
        /// Your name, for the history
        #[arg(long, default_value = "operator")]
        by: String,
    },
    /// Acknowledge a run that needs an operator; it goes to the history and nobody holds the baton
    Ack {
        /// Number of the run
        number: u64,
        /// Show what would be done, and stop
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Your name, for the history
        #[arg(long, default_value = "operator")]
        by: String,
    },
}

pub(super) fn run(global: &Global, args: &RunArgs) -> Result<Exit, Failure> {
    let (number, dry_run, yes, by) = match &args.what {
        What::Ack { number, dry_run, yes, by } => (number, dry_run, yes, by),
        What::Abort { number, by } => return abort(global, *number, by),
    };
    let client = global.client()?;
    let record = block_on(client.run(*number))??;
    if record.result != RunResult::NeedsOperator {
        return Err(Failure::new(
            Exit::Refused,
            format!("run {number} does not need an operator; `baton history {number}` shows where it stands"),
        ));
    }
    screen::complain(&wrap(&plan(&record)));
    if *dry_run {
        return Ok(Exit::Done);
    }
    if !*yes && !is_confirmed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    let request = AckRequest { by: by.clone(), expected_epoch: record.epoch };
    let done = block_on(client.acknowledge(*number, &request))??;
    let text = match global.output {
        Output::Json => screen::json(&done)?,
        Output::Table => done.done,
    };
    screen::say(&text)?;
    Ok(Exit::Done)
}

fn abort(global: &Global, number: u64, by: &str) -> Result<Exit, Failure> {
    let client = global.client()?;
    let done = block_on(client.abort(number, &AbortRequest { by: by.to_owned() }))??;
    let text = match global.output {
        Output::Json => screen::json(&done)?,
        Output::Table => done.done,
    };
    screen::say(&text)?;
    Ok(Exit::Done)
}

fn plan(record: &RunRecord) -> String {
    format!(
        "run {} ({} to {}, epoch {}) stopped: {}.\nAcknowledging it moves it to the history. Nobody holds the baton \
         then, and the leader decides anew, with {} as one of the candidates.",
        record.number,
        record.runbook,
        record.to,
        record.epoch,
        record.failure.as_deref().unwrap_or("no reason was noted"),
        record.to
    )
}

pub(super) fn is_confirmed() -> Result<bool, Failure> {
    Ok(matches!(answer("Go on? [y/N]")?.as_str(), "y" | "Y" | "yes"))
}

/// For what cannot be undone: the operator types `word`.
pub(super) fn is_confirmed_by(word: &str) -> Result<bool, Failure> {
    Ok(answer(&format!("Type {word} to go on:"))? == word)
}

fn answer(question: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Refused, "nobody to ask; repeat it with --yes if you mean it"));
    }
    screen::complain(question);
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot read the answer: {e}")))?;
    Ok(line.trim().to_owned())
}
