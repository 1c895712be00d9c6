//! The command line: `baton agent` is the daemon, every other verb is a client of its local API or works on files.
//!
//! One file per verb. `Args` is what was typed; each verb resolves what it needs (the file, the node, the socket)
//! itself, so that `baton status` works although the configuration was spoilt after the agent had read it.
//! A closed pipe on standard output ends a verb quietly.

mod agent;
mod doctor;
mod drill;
mod exit;
mod explain;
#[cfg(test)]
mod fake;
mod force;
mod history;
mod pause;
mod pki;
mod rejoin;
mod replay;
mod resync;
mod run;
mod screen;
mod settings;
mod status;
mod switchover;
mod takeover;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::client::{Client, ClientError};
use crate::chain::chain;
use crate::config::{self, ConfigError, NodeId};
pub use exit::Exit;

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    about = "Keeps a service of one primary and one backup available: one holder, one lease, nothing acknowledged lost."
)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
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
    /// Which node of the file this is [default: the host's name]; with `pki issue`, whose certificate is made
    #[arg(long, global = true, value_name = "NAME")]
    node: Option<String>,
    /// Socket of the agent to ask [default: baton.sock in paths.run]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Form of the answer
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people, at 80 columns.
    Table,
    /// For programs; stable.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run this node's agent (what the service unit starts)
    Agent(agent::AgentArgs),
    /// Who holds the baton, what every node is doing, and whether a takeover would work now
    Status,
    /// What this agent decided lately, and why, also why it held still
    Explain,
    /// Runs so far; with a number, the phases and steps of one
    History(history::HistoryArgs),
    /// Pass the baton to the other data node, with nothing lost
    Switchover(switchover::SwitchoverArgs),
    /// Let a node take over that may lack acknowledged writes, when the holder is lost for good
    Takeover(takeover::TakeoverArgs),
    /// For a while nobody takes over and the holder serves on, so that agents, witness and network can be worked on
    Pause(pause::PauseArgs),
    /// End a pause before its time is up
    Resume(pause::ResumeArgs),
    /// The majority is lost for good: this node goes on alone, in a higher generation
    Force(force::ForceArgs),
    /// Say what keeps a node from being attached; one that was given up by a force comes back as a new member
    Rejoin(rejoin::RejoinArgs),
    /// Replace a node's database by a copy of the holder's; what the node has extra is saved before
    Resync(resync::ResyncArgs),
    /// Abort a switchover, or acknowledge a run that needs an operator
    Run(run::RunArgs),
    /// Break something on purpose, safely, and keep the evidence
    #[command(disable_help_flag = true)]
    Drill(drill::DrillArgs),
    /// What heals the fault of a drill when nobody else does; the agent starts it
    #[command(hide = true)]
    DrillWatchdog(drill::WatchdogArgs),
    /// Heals what the note of a drill's fault names; the unit runs it after the agent has stopped
    #[command(hide = true)]
    DrillHeal(drill::WatchdogArgs),
    /// Check, print or explain the configuration
    Config(settings::ConfigArgs),
    /// Make the cluster's certificate authority and the nodes' certificates
    Pki(pki::PkiArgs),
    /// Feed a flight recording to the decision code and print each decision
    Replay(replay::ReplayArgs),
    /// Check this machine: configuration, files, sockets, kernel
    Doctor(doctor::DoctorArgs),
}

/// Why a verb ended without doing what was asked.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Usage, chain(&error))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(Exit::of(&error), chain(&error))
    }
}

/// Parses the command line, does what it says, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers, not failures. A closed pipe is nobody's failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let global = args.global;
    let outcome = match args.verb {
        Verb::Agent(verb) => return agent::run(&global, &verb),
        Verb::Status => status::run(&global),
        Verb::Explain => explain::run(&global),
        Verb::History(verb) => history::run(&global, &verb),
        Verb::Switchover(verb) => switchover::run(&global, &verb),
        Verb::Takeover(verb) => takeover::run(&global, &verb),
        Verb::Pause(verb) => pause::pause(&global, &verb),
        Verb::Resume(verb) => pause::resume(&global, &verb),
        Verb::Force(verb) => force::force(&global, &verb),
        Verb::Rejoin(verb) => rejoin::run(&global, &verb),
        Verb::Resync(verb) => resync::run(&global, &verb),
        Verb::Run(verb) => run::run(&global, &verb),
        Verb::Drill(verb) => drill::run(&global, &verb),
        Verb::DrillWatchdog(verb) => drill::watch(&verb),
        Verb::DrillHeal(verb) => drill::heal(&verb),
        Verb::Config(verb) => settings::run(&global, &verb),
        Verb::Pki(verb) => pki::run(&global, &verb),
        Verb::Replay(verb) => replay::run(&global, &verb),
        Verb::Doctor(verb) => doctor::run(&global, &verb),
    };
    finish(outcome)
}

fn finish(outcome: Result<Exit, Failure>) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            screen::complain(&format!("baton: {}", failure.message));
            failure.exit.into()
        }
    }
}

impl Global {
    /// The node that was named, or the host's name.
    fn node(&self) -> Result<NodeId, Failure> {
        match &self.node {
            Some(name) => Ok(NodeId::new(name.as_str())),
            None => host_name(),
        }
    }

    /// A client of the agent's local API.
    fn client(&self) -> Result<Client, Failure> {
        let socket = match &self.socket {
            Some(path) => path.clone(),
            None => config::socket_of(&self.config, &self.node()?).map_err(|e| {
                Failure::new(Exit::Usage, format!("{}; or name the agent's socket with --socket", chain(&e)))
            })?,
        };
        Ok(Client::new(socket))
    }
}

fn host_name() -> Result<NodeId, Failure> {
    let path = "/proc/sys/kernel/hostname";
    match std::fs::read_to_string(path) {
        Ok(name) if !name.trim().is_empty() => Ok(NodeId::new(name.trim())),
        Ok(_) => Err(Failure::new(Exit::Usage, "this host has no name; say which node this is with --node")),
        Err(e) => Err(Failure::new(
            Exit::Usage,
            format!("cannot read the host's name from {path}: {e}; say which node this is with --node"),
        )),
    }
}

/// Runs one asynchronous request of a verb.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot start the runtime: {e}")))?;
    Ok(runtime.block_on(work))
}

/// The operator's next interrupt. From this call on it does not end the program by itself: whoever gives an order that goes on
/// without the command calls this before, so that the command says so and ends with its code. To be called in [`block_on`].
fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot take interrupts: {e}")))?;
    Ok(async move {
        interrupts.recv().await;
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_arguments_stand_anywhere() {
        let args = Args::try_parse_from(["baton", "status", "--node", "db2", "--output", "json"]).unwrap();
        assert_eq!(args.global.node.as_deref(), Some("db2"));
        assert_eq!(args.global.output, Output::Json);
        let args = Args::try_parse_from(["baton", "--socket", "/x/baton.sock", "history", "3"]).unwrap();
        assert_eq!(args.global.socket.as_deref(), Some(std::path::Path::new("/x/baton.sock")));
    }
}
