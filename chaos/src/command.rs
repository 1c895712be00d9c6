//! The command line of `baton-drill`, reached as `baton drill`.
//!
//! | verb | asks agents | what for |
//! |---|---|---|
//! | `run`, `plan` | yes | a drill, or what it would do now and whether it may |
//! | `schedule` | with `--run` | which drills are due, and the one who runs them |
//! | `status`, `abort`, `heal` | yes | the drill under way |
//! | those of [`Paper`] | if there are any | files only: drills, records, reports |
//!
//! Exit codes are those of `baton`, and those of the verdicts above them: see [`crate::verdict::Verdict::exit_code`].

mod ask;
mod run;
mod schedule;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use baton_node::api::client::{Client, ClientError};
use baton_node::cli::Exit;
use baton_node::config::{self, Config, NodeId};
use clap::{Parser, Subcommand, ValueEnum};

use crate::cli_paper::{self, DRILLS_DIR, Desk, Paper, RECORDS_DIR};
use crate::experiment::Source;

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "baton-drill",
    bin_name = "baton drill",
    version,
    about = "Breaks something on purpose, safely, and keeps the evidence."
)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes; the same as of `baton`.
#[derive(Debug, Clone, clap::Args)]
struct Global {
    /// Configuration file
    #[arg(
        long,
        global = true,
        env = "BATON_CONFIG",
        default_value = "/etc/baton/baton.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Which node of the file this is [default: the host's name]
    #[arg(long, global = true, value_name = "NAME")]
    node: Option<String>,
    /// The agent's socket [default: from the configuration file]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Form of the answer on standard output
    #[arg(long, global = true, value_enum, default_value_t = Output::Human, value_name = "FORM")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Human,
    /// One JSON value.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a drill: gate, question, faults, measurement, evidence, verdict
    Run(run::RunArgs),
    /// Which drills run by themselves, when, and why they did not
    Schedule(schedule::ScheduleArgs),
    /// The drill under way, and what each node bears of it
    Status,
    /// End the drill under way; everything is healed
    Abort(ask::AbortArgs),
    /// Heal what nodes bear of drills, whether one is under way or not
    Heal(ask::HealArgs),
    #[command(flatten)]
    Paper(Paper),
}

/// Why a verb ended without a verdict.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self { code: Exit::Usage.code(), message: message.into() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self { code: Exit::of(&error).code(), message: error.to_string() }
    }
}

/// Parses the command line, does what it says, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers, not failures.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("baton drill: cannot start the runtime: {error}"));
            return Exit::Usage.into();
        }
    };
    let global = args.global;
    let done = runtime.block_on(async {
        match args.verb {
            Verb::Run(verb) => run::run(&global, &verb).await,
            Verb::Schedule(verb) => schedule::schedule(&global, &verb).await,
            Verb::Paper(paper) => on_paper(&global, &paper).await,
            Verb::Status => ask::status(&global).await,
            Verb::Abort(verb) => ask::abort(&global, &verb).await,
            Verb::Heal(verb) => ask::heal(&global, &verb).await,
        }
    });
    match done {
        Ok(code) => code.into(),
        Err(failure) => {
            complain(&format!("baton drill: {}", failure.message));
            failure.code.into()
        }
    }
}

impl Global {
    fn node(&self) -> Result<NodeId, Failure> {
        if let Some(name) = &self.node {
            return Ok(NodeId::new(name.as_str()));
        }
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match name.trim() {
            "" => Err(Failure::usage("this host has no name; say which node this is with --node")),
            name => Ok(NodeId::new(name)),
        }
    }

    fn config(&self) -> Result<Config, Failure> {
        Config::load(&self.config, &self.node()?).map_err(|error| Failure::usage(error.to_string()))
    }

    fn client(&self) -> Result<Client, Failure> {
        let socket = match &self.socket {
            Some(path) => path.clone(),
            None => config::socket_of(&self.config, &self.node()?).map_err(|error| {
                Failure::usage(format!("{error}; or name the agent's socket with --socket"))
            })?,
        };
        Ok(Client::new(socket))
    }
}

/// Where files are; nothing is asked of agents.
fn desk(global: &Global) -> Desk {
    let records = global.config().map(|config| config.drill.evidence);
    Desk {
        drills: PathBuf::from(DRILLS_DIR),
        records: records.unwrap_or_else(|_| PathBuf::from(RECORDS_DIR)),
        now: jiff::Timestamp::now(),
        json: global.output == Output::Json,
        roles: None,
        ledger_head: None,
        witnesses: Vec::new(),
    }
}

/// A drill: a file, one of this installation, or a shipped one.
fn source(global: &Global, which: &str) -> Result<Source, Failure> {
    cli_paper::find(which, &desk(global)).map_err(|error| Failure::usage(error.to_string()))
}

/// Verbs on files, with what an agent knows if one can be asked.
async fn on_paper(global: &Global, paper: &Paper) -> Result<u8, Failure> {
    let mut desk = desk(global);
    match paper {
        Paper::Plan { drill } => {
            if let Some(code) = run::plan_asking(global, drill).await? {
                return Ok(code);
            }
        }
        Paper::Verify { head: None } => {
            if let Some((head, witnesses)) = ask::witnesses(global).await {
                desk.ledger_head = head;
                desk.witnesses = witnesses;
            }
        }
        Paper::List
        | Paper::New(_)
        | Paper::Lint { .. }
        | Paper::Schema
        | Paper::Explain { .. }
        | Paper::History { .. }
        | Paper::Report(_)
        | Paper::Verify { head: Some(_) } => {}
    }
    let answer =
        cli_paper::run(paper, &desk).map_err(|error| Failure::usage(baton_node::chain::chain(&error)))?;
    say(&answer.text);
    Ok(answer.exit)
}

/// Writes to standard output; a closed pipe is nobody's failure.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// Writes to standard error; there is nowhere left to complain to if that fails.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::usage(error.to_string()))
}
