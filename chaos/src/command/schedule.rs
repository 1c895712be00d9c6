//! `baton drill schedule`: which drills run by themselves, and, with `--run`, the one who runs them.
//!
//! One process for the whole group, on the node that fewest drills hit: the witness. It decides by the records, the diary and
//! the gate, one drill at a time, and writes down what it does and what it skips. It keeps nothing in memory that a restart
//! could lose. Each drill is a process of its own, `baton drill run`, with its own signals: whoever stops the scheduler
//! aborts the drill under way, and none begins after that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use baton_node::cli::Exit;
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Failure, Global, Output, complain, json, run, say};
use crate::evidence::{Record, Store};
use crate::experiment::Source;
use crate::runner;
use crate::runner::agents::Agents;
use crate::schedule::{Decision, Facts, Obstacle, decide};
use crate::timetable::{self, Entry, Note, TIMETABLE, Timetable, What};
use crate::verdict::Verdict;

/// The clock of the wall may be set: nobody sleeps longer than this without looking at it.
const LOOK: Duration = Duration::from_secs(60);

/// A drill that the gate refused at the last moment rests for so long.
const REST: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// Who drills, in the records.
const BY: &str = "schedule";

/// Arguments of `baton drill schedule`.
#[derive(Debug, clap::Args)]
pub(super) struct ScheduleArgs {
    /// Which drills run when
    #[arg(long, default_value = TIMETABLE, value_name = "FILE")]
    timetable: PathBuf,
    /// Stay, and run each drill when it is due
    #[arg(long)]
    run: bool,
}

pub(super) async fn schedule(global: &Global, args: &ScheduleArgs) -> Result<u8, Failure> {
    let read = Timetable::read(&args.timetable);
    let mut timetable = read.map_err(|error| Failure::usage(baton_node::chain::chain(&error)))?;
    // A drill with mistakes is found now, not in the night in which it is due.
    let sources = timetable.entries.iter().map(|entry| run::sound(global, &entry.drill));
    let sources = sources.collect::<Result<Vec<Source>, Failure>>()?;
    for (entry, source) in timetable.entries.iter_mut().zip(&sources) {
        entry.id.clone_from(&source.experiment.id);
    }
    let config = global.config()?;
    if !args.run {
        let store = Store::at(&config.drill.evidence);
        let diary = timetable::diary(store.dir());
        match global.output {
            Output::Human => {
                say(&timetable::show(&timetable, &records(&store)?, &diary, Timestamp::now()));
            }
            Output::Json => say(&json(&diary)?),
        }
        return Ok(0);
    }
    let agents = Agents { client: global.client()?, by: BY.into() };
    let store = Store::open(&config.drill.evidence).map_err(|error| Failure::usage(error.to_string()))?;
    let entries = timetable.entries.into_iter().zip(sources).collect();
    Scheduler { global, agents, store, entries, rests: BTreeMap::new(), stopped: stopped()? }.keep().await
}

fn records(store: &Store) -> Result<Vec<Record>, Failure> {
    let records = store.records().map_err(|error| Failure::usage(baton_node::chain::chain(&error)))?;
    Ok(records.into_iter().map(|stored| stored.record).collect())
}

/// True from the first signal that ends the scheduler.
fn stopped() -> Result<watch::Receiver<bool>, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("no signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (tell, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = tell.send(true);
        // Kept until the end: without a sender nobody would wait any more.
        tell.closed().await;
    });
    Ok(stopped)
}

struct Scheduler<'a> {
    global: &'a Global,
    agents: Agents,
    store: Store,
    entries: Vec<(Entry, Source)>,
    /// A drill that was skipped is not looked at again before this.
    rests: BTreeMap<String, Timestamp>,
    stopped: watch::Receiver<bool>,
}

impl Scheduler<'_> {
    async fn keep(mut self) -> Result<u8, Failure> {
        let mut stopped = self.stopped.clone();
        loop {
            let mut next = Timestamp::MAX;
            for (entry, source) in self.entries.clone() {
                if *stopped.borrow() {
                    return Ok(0);
                }
                next = next.min(self.look(&entry, &source).await?);
            }
            let left = next.duration_since(Timestamp::now());
            let left = Duration::try_from(left).unwrap_or_default().clamp(Duration::from_secs(1), LOOK);
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(0),
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// Runs a drill if it is due and nothing is in its way. Returns when it is to be looked at again.
    async fn look(&mut self, entry: &Entry, source: &Source) -> Result<Timestamp, Failure> {
        let now = Timestamp::now();
        if let Some(until) = self.rests.get(&entry.drill).filter(|until| **until > now) {
            return Ok(*until);
        }
        // The record of a drill whose runner has died counts as well.
        if let Ok(_alive) = self.store.alive() {
            run::keep_left(&self.store)?;
        }
        let facts = timetable::facts(entry, &records(&self.store)?, &timetable::diary(self.store.dir()));
        match decide(&entry.schedule, &entry.drill, &facts, now) {
            Decision::Never => Ok(Timestamp::MAX),
            Decision::Wait { until } => Ok(until),
            Decision::Skip { why, until } => Ok(self.skip(entry, why, until)),
            Decision::Run => {
                let facts = self.ask(facts, source).await;
                // Anew: agents may be slow to answer, and this process may have stood still.
                match decide(&entry.schedule, &entry.drill, &facts, Timestamp::now()) {
                    Decision::Never => Ok(Timestamp::MAX),
                    Decision::Wait { until } => Ok(until),
                    Decision::Skip { why, until } => Ok(self.skip(entry, why, until)),
                    Decision::Run if *self.stopped.borrow() => Ok(Timestamp::MAX),
                    Decision::Run => self.run(entry).await,
                }
            }
        }
    }

    /// What the agents know: the gate, and when the baton was last passed.
    async fn ask(&self, mut facts: Facts, source: &Source) -> Facts {
        let unreachable = |why: String| Obstacle::NotReady { why };
        match runner::preflight(&self.agents, source).await {
            Ok(seen) => facts.obstacles.extend(seen.refusal().map(|check| match check.code.as_str() {
                "no-drill" => Obstacle::OtherDrill,
                "no-pause" => Obstacle::Paused,
                "no-run" => Obstacle::RunUnderWay,
                code => Obstacle::NotReady { why: format!("{code}: {}", check.seen) },
            })),
            Err(error) => facts.obstacles.push(unreachable(error.to_string())),
        }
        match self.agents.client.history().await {
            Ok(history) => {
                let ends = history.runs.iter().filter_map(|run| {
                    let length = i64::try_from(run.elapsed_ms).ok()?;
                    run.at.checked_add(jiff::SignedDuration::from_millis(length)).ok()
                });
                facts.last_disturbance = ends.chain(facts.last_disturbance).max();
            }
            Err(error) => facts.obstacles.push(unreachable(error.to_string())),
        }
        facts
    }

    /// Runs a drill that is due. One that the gate refuses after all counts as skipped.
    async fn run(&mut self, entry: &Entry) -> Result<Timestamp, Failure> {
        let begun = Timestamp::now();
        self.note(entry, What::Begun);
        let ended = self.child(entry).await;
        let its = |record: &Record| record.experiment.id == entry.id && record.started >= begun;
        let why = match records(&self.store)?.into_iter().rfind(its) {
            Some(Record { number, judgement, .. }) if judgement.verdict != Verdict::Refused => {
                self.note(entry, What::Ran { record: number, verdict: judgement.verdict });
                return Ok(Timestamp::now());
            }
            Some(record) => record.judgement.reasons.join("; "),
            None => match ended {
                Err(error) => format!("it could not be started: {error}"),
                Ok(status) if status.code() == Some(i32::from(Exit::Refused.code())) => {
                    "it was refused before its gate: a drill is being run from this machine".to_owned()
                }
                // Nobody knows what it did: it stays begun, and rests until it is due again.
                Ok(status) => {
                    complain(&format!("{} has left no record ({status})", entry.drill));
                    return Ok(Timestamp::now());
                }
            },
        };
        let until = Timestamp::now().checked_add(REST).unwrap_or(Timestamp::MAX);
        Ok(self.skip(entry, Obstacle::NotReady { why }, until))
    }

    /// `baton drill run`; told to end when the scheduler is.
    async fn child(&mut self, entry: &Entry) -> std::io::Result<ExitStatus> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--config").arg(&self.global.config);
        if let Some(node) = &self.global.node {
            command.args(["--node", node]);
        }
        if let Some(socket) = &self.global.socket {
            command.arg("--socket").arg(socket);
        }
        command.args(["run", &entry.drill, "--yes", "--by", BY, "--reason", "it was due"]);
        // In a group of its own: a terminal's interrupt is for the scheduler, which tells it once; a second one would end it
        // at once, with its fault still there.
        let mut child = command.stdin(std::process::Stdio::null()).process_group(0).spawn()?;
        tokio::select! {
            ended = child.wait() => return ended,
            _ = self.stopped.wait_for(|stopped| *stopped) => {}
        }
        // It heals, and writes its record.
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        child.wait().await
    }

    fn skip(&mut self, entry: &Entry, why: Obstacle, until: Timestamp) -> Timestamp {
        complain(&format!("{} is due and not run: {why}", entry.drill));
        self.note(entry, What::Skipped(why));
        self.rests.insert(entry.drill.clone(), until);
        until
    }

    fn note(&self, entry: &Entry, what: What) {
        let note = Note { at: Timestamp::now(), drill: entry.drill.clone(), what };
        if let Err(error) = timetable::note(self.store.dir(), entry, &note) {
            complain(&format!("not noted in {}: {error}", self.store.dir().display()));
        }
    }
}
