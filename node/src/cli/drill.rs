//! `baton drill …`: hands over to `baton-drill`, which stands beside this program or in the PATH; and, not for people,
//! the watchdog of a fault.
//!
//! Drills are a program of their own: they measure as a client, and share nothing with the agent but its API.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::{Exit, Failure, Global, Output, block_on};

/// Name of the program that drills.
const PROGRAM: &str = "baton-drill";

/// Arguments of `baton drill`.
#[derive(Debug, clap::Args)]
pub(super) struct DrillArgs {
    /// What `baton-drill` is given; `baton drill --help` shows it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    rest: Vec<String>,
}

/// Arguments of `baton drill-watchdog` and `baton drill-heal`.
#[derive(Debug, clap::Args)]
pub(super) struct WatchdogArgs {
    /// The note of the fault
    note: PathBuf,
}

/// Becomes `baton-drill`; returns only if that fails.
pub(super) fn run(global: &Global, args: &DrillArgs) -> Result<Exit, Failure> {
    let mut command = Command::new(program());
    command.arg("--config").arg(&global.config);
    command.args(global.node.iter().flat_map(|node| ["--node", node.as_str()]));
    if let Some(socket) = &global.socket {
        command.arg("--socket").arg(socket);
    }
    if global.output == Output::Json {
        command.args(["--output", "json"]);
    }
    let error = command.args(&args.rest).exec();
    Err(Failure::new(
        Exit::Usage,
        format!(
            "drills need the program {PROGRAM}, and it cannot be started: {error}; install it beside `baton` or in the PATH"
        ),
    ))
}

/// The one beside this program, else whichever the PATH has.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}

/// Heals what the note names; needs no agent and no configuration, so that a supervisor can run it.
pub(super) fn heal(args: &WatchdogArgs) -> Result<Exit, Failure> {
    let healed = block_on(crate::drill::heal_noted(&args.note))?;
    if let Some(seen) = healed.map_err(|left| Failure::new(Exit::Usage, left))? {
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), "{seen}");
    }
    Ok(Exit::Done)
}

pub(super) fn watch(args: &WatchdogArgs) -> Result<Exit, Failure> {
    block_on(crate::drill::watchdog::run(&args.note))?
        .map_err(|e| Failure::new(Exit::Usage, format!("the watchdog of {}: {e}", args.note.display())))?;
    Ok(Exit::Done)
}
