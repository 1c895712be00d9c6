//! `baton drill schedule`: which drills run by themselves, and, with `--run`, the one who runs them.
//!
//! One process for the whole group, on the node that fewest drills hit: the witness. It decides by the records and by the
//! gate, one drill at a time, and writes down what it skips. It keeps nothing in memory that a restart could lose.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use baton_node::config::Config;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Global, Output, complain, json, run, say};
use crate::evidence::{Record, Store};
use crate::experiment::Source;
use crate::runner::agents::Agents;
use crate::runner::{self, Options};
use crate::schedule::{Decision, Facts, Obstacle, decide};
use crate::timetable::{self, Entry, Note, TIMETABLE, Timetable, What};
use crate::verdict::Verdict;

/// The clock of the wall may be set: nobody sleeps longer than this without looking at it.
const LOOK: Duration = Duration::from_secs(60);

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
    let mut timetable =
        Timetable::read(&args.timetable).map_err(|error| Failure::usage(baton_node::chain::chain(&error)))?;
    // A drill with mistakes is found now, not in the night in which it is due.
    let sources = timetable.entries.iter().map(|entry| run::sound(global, &entry.drill));
    let sources = sources.collect::<Result<Vec<Source>, Failure>>()?;
    for (entry, source) in timetable.entries.iter_mut().zip(&sources) {
        entry.id.clone_from(&source.experiment.id);
    }
    let config = global.config()?;
    let store = Store::at(&config.drill.evidence);
    if !args.run {
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
    let mut stops = Stops::listen()?;
    Scheduler { global, config, agents, store, entries, rests: BTreeMap::new() }.keep(&mut stops).await
}

fn records(store: &Store) -> Result<Vec<Record>, Failure> {
    let records = store.records().map_err(|error| Failure::usage(baton_node::chain::chain(&error)))?;
    Ok(records.into_iter().map(|stored| stored.record).collect())
}

/// The signals that end the scheduler; a drill under way hears them as well, and is aborted.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn listen() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::usage(format!("no signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

struct Scheduler<'a> {
    global: &'a Global,
    config: Config,
    agents: Agents,
    store: Store,
    entries: Vec<(Entry, Source)>,
    /// A drill that was skipped is not looked at again before this.
    rests: BTreeMap<String, Timestamp>,
}

impl Scheduler<'_> {
    async fn keep(mut self, stops: &mut Stops) -> Result<u8, Failure> {
        loop {
            let mut next = Timestamp::MAX;
            for at in 0..self.entries.len() {
                let (entry, source) = &self.entries[at];
                let (entry, source) = (entry.clone(), source.clone());
                next = next.min(self.look(&entry, source).await?);
            }
            let left = next.duration_since(Timestamp::now());
            let left = Duration::try_from(left).unwrap_or_default().clamp(Duration::from_secs(1), LOOK);
            tokio::select! {
                // First: a signal that ended a drill ends the scheduler, too.
                biased;
                () = stops.wait() => return Ok(0),
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// Runs a drill if it is due and nothing is in its way. Returns when it is to be looked at again.
    async fn look(&mut self, entry: &Entry, source: Source) -> Result<Timestamp, Failure> {
        let now = Timestamp::now();
        if let Some(until) = self.rests.get(&entry.drill).filter(|until| **until > now) {
            return Ok(*until);
        }
        let facts = timetable::facts(&entry.id, &records(&self.store)?);
        match decide(&entry.schedule, &entry.drill, &facts, now) {
            Decision::Never => Ok(Timestamp::MAX),
            Decision::Wait { until } => Ok(until),
            Decision::Skip { why, until } => Ok(self.skip(entry, why, until)),
            Decision::Run => {
                let facts = self.ask(facts, &source).await;
                match decide(&entry.schedule, &entry.drill, &facts, now) {
                    Decision::Never => Ok(Timestamp::MAX),
                    Decision::Wait { until } => Ok(until),
                    Decision::Skip { why, until } => Ok(self.skip(entry, why, until)),
                    Decision::Run => self.run(entry, source, &facts).await,
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
    async fn run(&mut self, entry: &Entry, source: Source, facts: &Facts) -> Result<Timestamp, Failure> {
        let options = Options {
            source,
            config: self.config.clone(),
            agents: self.agents.clone(),
            approver: None,
            reason: Some("it was due".into()),
        };
        let why = match run::execute(self.global, options, false).await {
            Ok(Record { number, judgement, .. }) if judgement.verdict != Verdict::Refused => {
                self.note(entry, What::Ran { record: number, verdict: judgement.verdict });
                return Ok(Timestamp::now());
            }
            Ok(record) => record.judgement.reasons.join("; "),
            Err(failure) => failure.message,
        };
        let why = Obstacle::NotReady { why };
        let facts = Facts { obstacles: vec![why.clone()], ..facts.clone() };
        match decide(&entry.schedule, &entry.drill, &facts, Timestamp::now()) {
            Decision::Skip { until, .. } | Decision::Wait { until } => Ok(self.skip(entry, why, until)),
            Decision::Run | Decision::Never => Ok(Timestamp::MAX),
        }
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
