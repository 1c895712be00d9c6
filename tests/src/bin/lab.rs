//! `lab`: the lab from the command line.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use baton_tests::bench;
use baton_tests::compare::{self, Comparison};
use baton_tests::drill;
use baton_tests::fault::Fault;
use baton_tests::lab::{self, Driver, Flavour, Lab, Options, wait};
use baton_tests::run::{self, Outcome, Plan};
use baton_tests::soak;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "lab",
    about = "Real servers in network namespaces, faults, and a client that keeps count. Needs root."
)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// One lab, one fault, one verdict
    Run {
        /// Name of the fault; `target/debug/lab list` shows them
        #[arg(default_value = "power-loss")]
        fault: String,
        /// Who decides: baton-standard, baton-fast, baton-relaxed, keepalived-1s, keepalived-100ms, redis-sentinel, pacemaker
        #[arg(long, default_value = "baton-standard")]
        system: String,
        /// For faults of a takeover: the step, and `started` or `acted`; for instance promote_mysql:acted
        #[arg(long)]
        at: Option<String>,
        /// On which database
        #[arg(long, value_enum, default_value_t)]
        flavour: Flavour,
        /// Without container engines: some seconds faster
        #[arg(long)]
        no_docker: bool,
        /// After the heal, wait until the node that was away follows, or resync it
        #[arg(long)]
        whole: bool,
        /// Leave the logs even when it passes
        #[arg(long)]
        keep: bool,
    },
    /// A drill in a lab of its own, from the client's seat; exits as `baton drill run` does
    Drill {
        /// A shipped drill, or the file of one
        #[arg(default_value = "mysqld-killed")]
        which: String,
        /// On which database
        #[arg(long, value_enum, default_value_t)]
        flavour: Flavour,
        /// With container engines: some seconds slower
        #[arg(long)]
        docker: bool,
        /// Leave the logs and the evidence
        #[arg(long)]
        keep: bool,
    },
    /// A lab that stands until it is interrupted
    Up {
        /// As for `run`
        #[arg(long, default_value = "baton-standard")]
        system: String,
        /// On which database
        #[arg(long, value_enum, default_value_t)]
        flavour: Flavour,
    },
    /// Takes every standing lab down
    Down,
    /// Planned moves under ten clients, ours and the usual script's; writes target/bench/switchover.json
    BenchSwitchover {
        /// Moves per system
        #[arg(long, default_value_t = 20)]
        runs: u32,
    },
    /// Random faults and orders in one lab, round after round; writes target/soak/summary.json
    Soak {
        /// No round begins after so many minutes
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// From which everything is drawn; drawn itself if it is not given
        #[arg(long)]
        seed: Option<u64>,
        /// Number of the first round; with --rounds 1 to play one again
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        first: u32,
        /// At most so many rounds
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: Option<u32>,
        /// With container engines: some seconds slower per lab
        #[arg(long)]
        docker: bool,
        /// Which databases
        #[arg(long, value_enum, default_value_t)]
        flavour: Flavour,
    },
    /// A node that was away for a minute, under the same load, on both families; writes target/bench/rejoin.json
    BenchRejoin {
        /// Returns per family
        #[arg(long, default_value_t = 5)]
        runs: u32,
    },
    /// The faults
    List,
    /// The product and keepalived side by side; fails if a run of the product does; writes target/bench/outage.json
    Bench {
        /// Power losses per system
        #[arg(long, default_value_t = 20)]
        runs: u32,
        /// Only these systems
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "baton-standard,baton-fast,keepalived-1s,keepalived-100ms"
        )]
        systems: Vec<String>,
    },
    /// Every system under the same faults; writes target/bench/compare.json
    Compare {
        /// Runs of each fault with each system
        #[arg(long, default_value_t = 3)]
        runs: u32,
        /// Only these systems
        #[arg(long, value_delimiter = ',', default_values_t = compare::SYSTEMS.map(String::from))]
        systems: Vec<String>,
        /// Only these faults
        #[arg(long, value_delimiter = ',', default_values_t = compare::FAULTS.map(|fault| fault.name().to_owned()))]
        faults: Vec<String>,
        /// In addition to the runs in the file
        #[arg(long)]
        add: bool,
    },
    /// Writes the tables of target/bench/compare.json into README.md and docs/comparison.md of the present directory
    CompareDocs,
    /// What an idle agent costs, by thread
    Cost {
        /// baton-standard, baton-fast, baton-relaxed
        #[arg(long, default_value = "baton-standard")]
        system: String,
    },
}

fn driver(system: &str) -> Result<Driver> {
    Ok(match system {
        "keepalived-1s" => Driver::Keepalived { advert_ms: 1000 },
        "keepalived-100ms" => Driver::Keepalived { advert_ms: 100 },
        "redis-sentinel" => Driver::Sentinel,
        "pacemaker" => Driver::Pacemaker,
        "nobody" => Driver::Nobody,
        _ => match system.strip_prefix("baton-") {
            Some(profile) => Driver::Agents { profile: profile.into() },
            None => bail!("no system is called {system}"),
        },
    })
}

fn main() -> ExitCode {
    if let Err(error) = interrupts() {
        eprintln!("signals: {error:#}");
        return ExitCode::FAILURE;
    }
    match go(Args::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn go(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Run { fault, system, at, flavour, no_docker, whole, keep } => {
            let fault = Fault::named(&fault)?;
            let plan = Plan { driver: driver(&system)?, fault, flavour, docker: !no_docker, at, whole, keep };
            run::forget(fault, flavour)?;
            let report = run::run(&plan)?;
            report.save()?;
            println!("{}", report.text());
            Ok(if report.result == Outcome::Pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Verb::Drill { which, flavour, docker, keep } => one_drill(&which, flavour, docker, keep),
        Verb::Up { system, flavour } => {
            let lab = Lab::up(Options { docker: true, flavour, ..Options::plain(driver(&system)?) })?;
            println!("lab {} stands, files in {}; interrupt ends it", lab.id, lab.dir.display());
            while wait::pass(Duration::from_secs(3600)).is_ok() {}
            Ok(ExitCode::SUCCESS)
        }
        Verb::Down => {
            lab::end_all()?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Bench { runs, systems } => {
            let systems = systems.iter().map(|name| driver(name)).collect::<Result<Vec<_>>>()?;
            one_bench(&systems, runs)
        }
        Verb::BenchSwitchover { runs } => {
            let bench = bench::switchover::measure(runs, |line| println!("{line}"))?;
            println!("{}", bench.text());
            println!("{}", bench.save()?.display());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Compare { runs, systems, faults, add } => {
            let systems = systems.iter().map(|name| driver(name)).collect::<Result<Vec<_>>>()?;
            let faults = faults.iter().map(|name| Fault::named(name)).collect::<Result<Vec<_>>>()?;
            let mut comparison = if add { Comparison::saved()? } else { Comparison::default() };
            compare::measure(&mut comparison, &systems, &faults, runs, |line| println!("{line}"))?;
            println!("{}", compare::table::full(&comparison));
            println!("{}", comparison.save()?.display());
            Ok(ExitCode::SUCCESS)
        }
        Verb::BenchRejoin { runs } => {
            let bench = bench::rejoin::measure(runs, |line| println!("{line}"))?;
            println!("{}", bench.text());
            println!("{}", bench.save()?.display());
            Ok(ExitCode::SUCCESS)
        }
        Verb::CompareDocs => {
            compare::table::write_documents(&Comparison::saved()?, Path::new("."))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Cost { system } => {
            println!("{}", bench::cost(driver(&system)?)?);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Soak { minutes, seed, first, rounds, docker, flavour } => {
            let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
            let time = Duration::from_secs(minutes * 60);
            one_soak(&soak::Order { time, seed, first, rounds, docker, flavour })
        }
        Verb::List => {
            for fault in Fault::ALL {
                // Whoever reads it may have seen enough.
                if writeln!(std::io::stdout(), "{:<28} {}", fault.name(), fault.what()).is_err() {
                    break;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn one_bench(systems: &[Driver], runs: u32) -> Result<ExitCode> {
    let bench = bench::measure(systems, runs, |line| println!("{line}"))?;
    println!("{}", bench.text());
    println!("{}", bench.save()?.display());
    let flaws = bench.flaws();
    flaws.iter().for_each(|flaw| eprintln!("{flaw}"));
    Ok(if flaws.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one_soak(order: &soak::Order) -> Result<ExitCode> {
    println!("seed {}", order.seed);
    let summary = soak::soak(order, |line| println!("{line}"))?;
    println!("{}", summary.text());
    Ok(if summary.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An interrupt ends every wait, so that the lab is taken down on the way out.
fn interrupts() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        Ok::<_, std::io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    })?;
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        let (mut interrupt, mut terminate) = signals;
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        wait::interrupt();
    })?;
    Ok(())
}

/// Every level is allowed, and a killed database is started again as its service manager would.
fn one_drill(which: &str, flavour: Flavour, docker: bool, keep: bool) -> Result<ExitCode> {
    let small_disk = which.contains("disk");
    let options = Options {
        flavour,
        docker,
        small_disk,
        drills: "L5",
        resync_by_itself: true,
        ..Options::plain(driver("baton-standard")?)
    };
    let lab = Lab::up(options)?;
    drill::whole(&lab)?;
    drill::supervise_databases(&lab)?;
    let outcome = drill::run(&lab, drill::SEAT, which)?;
    println!("{}", outcome.said);
    if let Some(record) = &outcome.record {
        println!("{} {:?}", record.judgement.verdict, record.judgement.reasons);
    }
    drill::whole(&lab)?;
    if keep {
        lab.keep();
    }
    Ok(ExitCode::from(u8::try_from(outcome.code).unwrap_or(u8::MAX)))
}
