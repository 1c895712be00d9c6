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
use baton_node::chain::chain;
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
        Self { code: Exit::of(&error).code(), message: chain(&error) }
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
        Config::load(&self.config, &self.node()?).map_err(|error| Failure::usage(chain(&error)))
    }

    fn client(&self) -> Result<Client, Failure> {
        let socket = match &self.socket {
            Some(path) => path.clone(),
            None => config::socket_of(&self.config, &self.node()?).map_err(|error| {
                Failure::usage(format!("{}; or name the agent's socket with --socket", chain(&error)))
            })?,
        };
        Ok(Client::new(socket))
    }
}

/// Where files are; nothing is asked of agents. The directory of records is the default one.
fn desk(global: &Global) -> Desk {
    Desk {
        drills: PathBuf::from(DRILLS_DIR),
        records: PathBuf::from(RECORDS_DIR),
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

/// Whether a verb's answer depends on the records of this node.
const fn reads_records(paper: &Paper) -> bool {
    match paper {
        Paper::History { .. } | Paper::Report(_) | Paper::Verify { .. } => true,
        Paper::List
        | Paper::New(_)
        | Paper::Lint { .. }
        | Paper::Schema
        | Paper::Plan { .. }
        | Paper::Explain { .. } => false,
    }
}

/// Verbs on files, with what an agent knows if one can be asked.
async fn on_paper(global: &Global, paper: &Paper) -> Result<u8, Failure> {
    let mut desk = desk(global);
    if reads_records(paper) {
        // An answer from a directory that nobody meant would look like one without a drill.
        desk.records = global.config()?.drill.evidence;
        complain(&format!("records in {}", desk.records.display()));
    }
    match paper {
        Paper::Plan { drill } => match run::plan_asking(global, &run::sound(global, drill)?).await {
            Ok(code) => return Ok(code),
            Err(error) => {
                complain(&format!("without the gate, since no agent could be asked: {}", error.message))
            }
        },
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
    let answer = cli_paper::run(paper, &desk).map_err(|error| Failure::usage(chain(&error)))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A verb with the configuration file at `path`.
    async fn verb(path: &std::path::Path, words: &[&str]) -> Result<u8, Failure> {
        let path = path.display().to_string();
        let args =
            Args::try_parse_from(["baton-drill", "--node", "db1", "--config", &path].iter().chain(words))
                .unwrap();
        match args.verb {
            Verb::Paper(paper) => on_paper(&args.global, &paper).await,
            Verb::Run(verb) => run::run(&args.global, &verb).await,
            Verb::Schedule(_) | Verb::Status | Verb::Abort(_) | Verb::Heal(_) => panic!("not tried here"),
        }
    }

    #[tokio::test]
    async fn records_are_those_of_the_configuration_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("baton.toml");
        for words in [&["history"][..], &["verify"], &["verify", "--head", "0"], &["report"]] {
            let failure = verb(&file, words).await.unwrap_err();
            assert_eq!(failure.code, Exit::Usage.code());
            assert!(failure.message.contains("baton.toml"), "{}", failure.message);
            assert!(failure.message.contains("No such file"), "the system's words: {}", failure.message);
        }
        std::fs::write(&file, "cluster = 1").unwrap();
        let broken = verb(&file, &["history"]).await.unwrap_err();
        assert!(broken.message.contains("baton.toml"), "{}", broken.message);
        assert_eq!(verb(&file, &["list"]).await.unwrap(), 0, "needs no configuration");
    }

    #[tokio::test]
    async fn a_dry_run_without_an_agent_names_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("baton.sock");
        let words = ["--socket", &socket.display().to_string(), "run", "rehearsal", "--dry-run"];
        let failure = verb(&dir.path().join("baton.toml"), &words).await.unwrap_err();
        assert_eq!(failure.code, Exit::NoQuorum.code());
        assert!(failure.message.contains("baton.sock"), "{}", failure.message);
    }
}
