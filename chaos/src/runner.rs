//! The runner of a drill: breaks what the file says, safely, measures as a client, and keeps the evidence.
//!
//! ```text
//! gate ─▶ place in the ledger ─▶ load ─▶ for each method: resolve · arm · inject · see · stand · heal · see ─▶ redundancy
//!   │          │  pulse: a sign of life each second      │  eye: status, runs, stop conditions
//!   │          └── lost: the agents heal by themselves   └── tells: the drill ends, everything is healed
//!   └─ refused: nothing was done                                                            ─▶ contents ─▶ record ─▶ verdict
//! ```
//!
//! Nothing here heals anything: the nodes do, on order, when their time is over, or when this process is gone. A takeover
//! that a drill causes is never taken back.

pub mod agents;
mod between;
pub mod cast;
pub mod certificates;
mod comeback;
mod drawing;
mod effects;
pub mod gate;
pub mod meter;
mod place;
pub mod pulse;
mod record;
mod rehearsal;
#[cfg(test)]
pub(crate) mod sample;
pub mod screen;
pub mod steps;
pub mod stop;
pub mod timeline;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_node::api::client::ClientError;
use baton_node::api::drill::{DrillId, DrillOrder};
use baton_node::config::Config;
use jiff::Timestamp;

use crate::evidence::{Ending, GateCheck, Record};
use crate::experiment::{Level, Source};
use crate::history::Origin;
use agents::Agents;
use gate::Seen;
use meter::{Meter, Seat};
use place::Unplaced;
pub use place::left;
use pulse::{Bearing, Pulse};
use screen::Screen;
use steps::Stage;
use stop::Stops;
use watch::{Eye, Shared};

/// Writes of each database that are acknowledged before anything is broken.
const WARM_WRITES: u64 = 200;
/// How long that may take.
const WARM_WITHIN: Duration = Duration::from_secs(20);
/// How long the client goes on when all is over: whether it is served at the end must be seen.
const AFTERGLOW: Duration = Duration::from_secs(3);
/// How long the end of a drill may take to get into the ledger.
const END_WITHIN: Duration = Duration::from_secs(15);

/// What to run, and for whom.
#[derive(Debug)]
pub struct Options {
    /// The drill.
    pub source: Source,
    /// The configuration of the node at which the runner stands.
    pub config: Config,
    /// The way to the agents.
    pub agents: Agents,
    /// Who else agreed.
    pub approver: Option<String>,
    /// Why now.
    pub reason: Option<String>,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The agent at this machine does not answer.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// The evidence cannot be kept.
    #[error("the evidence cannot be kept in {}: {why}", dir.display())]
    Evidence {
        /// Its directory.
        dir: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The system has no signals for us.
    #[error("no signals")]
    Signals(#[from] std::io::Error),
}

/// A drill that was run, or refused.
#[derive(Debug)]
pub struct Done {
    /// Its record, as it stands in the chain.
    pub record: Record,
    /// What could not be done at the end, for people: the ledger was not told, reports were not written.
    pub remarks: Vec<String>,
}

/// Keeps records; what the runner needs of the evidence's keeper.
pub trait Keeper {
    /// Appends a record to the chain and writes its reports. Returns the record as it stands there, and the hash of the
    /// chain's head.
    ///
    /// # Errors
    /// What the system said.
    fn keep(&self, record: Record) -> Result<(Record, String), String>;

    /// Keeps what is known of a drill that is about to begin or to break something, so that its record is not lost with the
    /// runner. Replaces the draft before.
    ///
    /// # Errors
    /// What the system said.
    fn draft(&self, record: &Record) -> Result<(), String>;
}

/// What has been seen so far, from which a record is made however the drill ends.
struct Drill<'a> {
    options: &'a Options,
    screen: Screen,
    origin: Origin,
    started: Timestamp,
    seen: Seen,
    number: Option<DrillId>,
}

/// The gate, for a look before the operator is asked.
///
/// # Errors
/// The agent at this machine does not answer.
pub async fn preflight(agents: &Agents, source: &Source) -> Result<Seen, ClientError> {
    gate::look(agents, &source.experiment).await
}

/// Runs a drill, keeps its evidence, and commits its head to the ledger.
///
/// # Errors
/// See [`RunError`]. Whatever a drill does wrong is in its record.
pub async fn run(options: &Options, keeper: &impl Keeper) -> Result<Done, RunError> {
    let origin = Origin::new();
    let started = Timestamp::now();
    let screen = Screen::new(origin);
    let stops = Stops::default();
    stops.listen(&options.agents.by)?;
    let seen = preflight(&options.agents, &options.source).await?;
    for check in &seen.checks {
        screen.show(&check_line(check));
    }
    let mut drill = Drill { options, screen, origin, started, seen, number: None };
    let record = match drill.seen.refusal() {
        Some(check) => {
            let why = format!("{}: {}", check.code, check.seen);
            drill.record(Ending::Refused { why }, Acted::default()).await
        }
        None => drill.go(&stops, keeper).await,
    };
    drill.conclude(record, keeper).await
}

/// `  ok quorum         3 of 3 agents are heard`
#[must_use]
pub fn check_line(check: &GateCheck) -> String {
    format!("  {} {:<20} {}", if check.passed { "ok" } else { "NO" }, check.code, check.seen)
}

/// What came of the acts.
#[derive(Debug, Default)]
struct Acted {
    stage: Option<Stage>,
    client: record::Client,
    arp: Option<String>,
    asked_arp: bool,
    left: Vec<String>,
}

impl Drill<'_> {
    fn experiment(&self) -> &crate::experiment::Experiment {
        &self.options.source.experiment
    }

    /// Takes the place in the ledger and drills.
    async fn go(&mut self, stops: &Stops, keeper: &impl Keeper) -> Record {
        if self.experiment().level <= Level::L1 {
            // Nothing is broken and nothing measured: it needs no place in the ledger, and can be done every minute.
            return self.act(stops, DrillId(0), None).await;
        }
        let next = self.seen.views.iter().map(|view| view.drills.0).max().unwrap_or(0) + 1;
        let number = DrillId(next);
        if let Err(Unplaced { why, drill }) = self.take_place(number, keeper).await {
            let refused = self.record(Ending::Refused { why }, Acted::default()).await;
            return Record { drill, ..refused };
        }
        match self.seat(number).await {
            Ok(seat) => self.act(stops, number, Some(seat)).await,
            Err(why) => {
                let why = format!("the client cannot write through the virtual IP: {why}");
                self.record(Ending::Refused { why }, Acted::default()).await
            }
        }
    }

    async fn seat(&self, number: DrillId) -> Result<Seat, String> {
        let seat = Seat::new(&self.options.config, number)?;
        seat.prepare().await?;
        Ok(seat)
    }

    async fn act(&mut self, stops: &Stops, number: DrillId, seat: Option<Seat>) -> Record {
        let meter = match seat.as_ref().map(|seat| seat.start(self.origin)).transpose() {
            Ok(meter) => meter.map(Arc::new),
            Err(why) => return self.record(Ending::Refused { why }, Acted::default()).await,
        };
        let agents = self.options.agents.clone();
        let experiment = self.experiment().clone();
        let shared = Shared::default();
        let newest = agents.client.history().await.ok();
        let newest = newest.and_then(|history| history.runs.last().map(|run| run.number.0)).unwrap_or(0);
        shared.lock().begin(self.seen.status.clone(), newest);
        shared.lock().certificates.before = certificates::least(&self.seen.status, &self.seen.views);
        let bearing = Bearing::default();
        let pulse =
            self.number.map(|number| Pulse::start(agents.clone(), number, bearing.clone(), stops.clone()));
        let title = format!("drill {number} {}", experiment.id);
        let eye = Eye::open(
            agents.clone(),
            experiment.clone(),
            shared.clone(),
            meter.clone(),
            stops.clone(),
            self.screen.clone(),
            title,
        );
        let mut stage = Stage {
            agents: agents.clone(),
            experiment,
            number,
            origin: self.origin,
            screen: self.screen.clone(),
            shared: shared.clone(),
            bearing,
            faults: Vec::new(),
            events: drawing::warned(&self.options.source, self.origin),
            waits: Vec::new(),
            fence_hook: self.options.config.fence_hook.as_ref().map(|hook| hook.program.clone()),
            whole_ms: 0,
        };
        let ending = self.perform(stops, &mut stage, meter.as_deref()).await;
        if let (Some(number), true) = (self.number, !matches!(ending, Ending::Completed {})) {
            stage.note("runner", format!("the drill ends early: {}", words(&ending)));
            stop::abort(&agents, number, &words(&ending)).await;
        }
        let left = stage.heal_all().await;
        if meter.is_some() {
            stage.shared.doing("writing on for a moment, and reading what is there");
            tokio::time::sleep(AFTERGLOW).await;
        }
        eye.close().await;
        let acted = self.gather(stage, meter, seat, left).await;
        let record = self.record(ending, acted).await;
        // Until here the place in the ledger is held.
        drop(pulse);
        record
    }

    /// The acts themselves, unless somebody tells to stop.
    async fn perform(&self, stops: &Stops, stage: &mut Stage, meter: Option<&Meter>) -> Ending {
        let acts = async {
            if let Some(meter) = meter {
                warm(meter).await?;
            }
            stage.act().await
        };
        let ending = tokio::select! {
            biased;
            ending = stops.told() => return ending,
            done = acts => done.err().unwrap_or(Ending::Completed {}),
        };
        // What an abort from elsewhere has healed looks like a fault that ended by itself, if it is seen first.
        let Some(number) = self.number else { return ending };
        let view = self.options.agents.order(None, DrillOrder::Look).await.ok();
        view.and_then(|view| pulse::aborted(&view, number)).unwrap_or(ending)
    }

    async fn gather(
        &self,
        mut stage: Stage,
        meter: Option<Arc<Meter>>,
        seat: Option<Seat>,
        left: Vec<String>,
    ) -> Acted {
        let mut acted = Acted { left, ..Acted::default() };
        let end_us = self.origin.now_us();
        if let Some(meter) = meter.and_then(Arc::into_inner) {
            acted.asked_arp = meter.asks_arp();
            let stopped = tokio::task::spawn_blocking(move || meter.stop()).await;
            match stopped.unwrap_or_else(|error| Err(error.to_string())) {
                Ok((history, arp)) => {
                    acted.client.history = history;
                    acted.arp = arp;
                }
                Err(why) => stage.note("client", why),
            }
        }
        acted.client.end_us = end_us;
        if certificates::are_wanted(self.experiment())
            && let Ok(status) = stage.agents.status().await
        {
            let views = certificates::ask(&stage.agents, &status).await;
            stage.shared.lock().certificates.after = certificates::least(&status, &views);
        }
        if let Some(seat) = seat {
            acted.client.finals = seat.contents().await;
            if let Err(why) = seat.clean().await {
                stage.note("client", format!("what it wrote is left in the databases: {why}"));
            }
        }
        acted.stage = Some(stage);
        acted
    }

    /// Keeps the record, tells the ledger, shows the verdict.
    async fn conclude(&self, record: Record, keeper: &impl Keeper) -> Result<Done, RunError> {
        let verdict = record.judgement.verdict;
        let kept = keeper.keep(record);
        let head = kept.as_ref().map_or_else(|_| String::new(), |(_, head)| head.clone());
        let mut remarks = Vec::new();
        if let Some(number) = self.number
            && let Err(why) = self.end(number, verdict.name(), &head).await
        {
            remarks.push(format!("the ledger was not told how the drill ended: {why}"));
        }
        let dir = self.options.config.drill.evidence.clone();
        let (record, _) = kept.map_err(|why| RunError::Evidence { dir, why })?;
        Ok(Done { record, remarks })
    }

    async fn end(&self, number: DrillId, verdict: &str, head: &str) -> Result<(), String> {
        let until = Instant::now() + END_WITHIN;
        loop {
            let (verdict, evidence) = (verdict.to_owned(), head.to_owned());
            let order = DrillOrder::End { number, verdict, evidence };
            let error = match self.options.agents.order(None, order).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let gone = self.options.agents.order(None, DrillOrder::Look).await;
            if let Ok(view) = gone
                && view.drill.is_none_or(|drill| drill.number != number)
            {
                let ended = view.ended.iter().find(|ended| ended.drill.number == number);
                return match ended {
                    Some(ended) if ended.evidence == head => Ok(()),
                    Some(ended) => Err(format!("it has {} already", ended.verdict)),
                    None => Err(error.to_string()),
                };
            }
            if Instant::now() >= until {
                return Err(error.to_string());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Waits until the client is served.
async fn warm(meter: &Meter) -> Result<(), Ending> {
    let until = Instant::now() + WARM_WITHIN;
    while meter.acknowledged() < WARM_WRITES {
        if Instant::now() >= until {
            let why =
                format!("only {} writes were acknowledged before anything was broken", meter.acknowledged());
            return Err(Ending::Refused { why });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// An ending for people.
fn words(ending: &Ending) -> String {
    match ending {
        Ending::Completed {} => "completed".to_owned(),
        Ending::Refused { why } => format!("refused: {why}"),
        Ending::Aborted { by, why } => format!("aborted by {by}: {why}"),
        Ending::Interrupted { why } => format!("interrupted: {why}"),
    }
}
