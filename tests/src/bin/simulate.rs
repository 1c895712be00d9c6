//! `simulate`: schedules from seeds, with every invariant looked at after every event.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use baton_tests::sim::sweep::{Sweep, Tally, reproduce};
use baton_tests::sim::{Options, Planted, schedule};
use clap::Parser;
use mimalloc::MiMalloc;

/// A schedule is some thousand inputs, each with a few small allocations that do not last.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What is for many seeds. `--trace` refuses it by itself too: a conflict of `--seed` would excuse that it is missing.
const SWEEP: [&str; 5] = ["seeds", "first", "threads", "json", "violations_max"];

#[derive(Debug, Parser)]
#[command(
    name = "simulate",
    about = "Schedules of three agents' real cores in a virtual world. The same seed gives the same story."
)]
struct Args {
    /// Number of seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this one
    #[arg(long, conflicts_with_all = SWEEP)]
    seed: Option<u64>,
    /// Prints the story of `--seed`
    #[arg(long, requires = "seed", conflicts_with_all = SWEEP)]
    trace: bool,
    /// Number of threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Writes the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Plants a bug, to see that it is caught
    #[arg(long, value_enum)]
    planted: Option<Planted>,
    /// Stops after this many violations
    #[arg(long, default_value_t = 10)]
    violations_max: usize,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("simulate: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let options = Options { planted: args.planted, ..Options::default() };
    if let Some(seed) = args.seed {
        return Ok(one(seed, options, args.trace));
    }
    let sweep = Sweep {
        first: args.first,
        seeds: args.seeds,
        threads: args.threads.max(1),
        violations_max: args.violations_max,
        options,
    };
    let tally = sweep.run();
    for failed in &tally.violations {
        println!("{}", reproduce(failed, options));
    }
    println!("{tally}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&tally.figures()).context("write figures as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(verdict(&tally))
}

fn verdict(tally: &Tally) -> ExitCode {
    if tally.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

fn one(seed: u64, options: Options, trace: bool) -> ExitCode {
    let outcome = schedule(seed, Options { trace, ..options });
    for line in &outcome.trace {
        println!("{line}");
    }
    match &outcome.violation {
        None => {
            println!("seed {seed}: nothing was violated; {} writes acknowledged", outcome.acked);
            ExitCode::SUCCESS
        }
        Some(_) => {
            println!("{}", reproduce(&outcome, options));
            ExitCode::from(3)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn refused(flags: &[&str]) -> (ErrorKind, String) {
        let error = Args::try_parse_from(["simulate"].iter().chain(flags)).expect_err("it is refused");
        (error.kind(), error.to_string())
    }

    #[test]
    fn one_seed_and_many_are_not_asked_for_at_once() {
        Args::command().debug_assert();
        let sweep: [&[&str]; 5] = [
            &["--seeds", "5"],
            &["--first", "7"],
            &["--threads", "2"],
            &["--json", "figures.json"],
            &["--violations-max", "1"],
        ];
        assert_eq!(sweep.len(), SWEEP.len());
        let alone: [&[&str]; 3] = [&["--seed", "3"], &["--seed", "3", "--trace"], &["--trace"]];
        for many in sweep {
            for one in alone {
                let flags = [one, many].concat();
                let (kind, text) = refused(&flags);
                assert_eq!(kind, ErrorKind::ArgumentConflict, "{flags:?}: {text}");
                for word in ["cannot be used with", one[0], many[0]] {
                    assert!(text.contains(word), "{flags:?}: {text}");
                }
            }
        }
    }

    #[test]
    fn a_story_is_of_one_seed() {
        assert_eq!(refused(&["--trace"]).0, ErrorKind::MissingRequiredArgument);
        let one = ["simulate", "--seed", "3", "--trace", "--planted", "acts-before-journal"];
        assert_eq!(Args::try_parse_from(one).unwrap().seed, Some(3));
        let many = ["simulate", "--first", "7", "--seeds", "5", "--threads", "2", "--json", "figures.json"];
        let many = Args::try_parse_from(many).unwrap();
        assert_eq!((many.first, many.seeds, many.threads), (7, 5, 2));
    }
}
