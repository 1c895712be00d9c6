//! One run: a lab, a load, a fault at a random moment, a judgement.
//!
//! ```text
//!  lab up ─ healthy ─ load and watch ─ warm-up ─ FAULT ─ verified ─ served again? ─ heal ─ settled ─ load stops
//!  ─ contents of the holder's databases ─ check ─ verdict
//! ```
//!
//! Verdicts: `PASS`; `FAIL` with reasons; `INCONCLUSIVE` when the harness itself cannot vouch for what it saw (the
//! fault did not bite, the writer's own timers were late, a database could not be read).

mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use baton_chaos::arp::Watch;
use baton_chaos::check::{Bounds, Verdict, check};
use baton_chaos::history::{History, Kind, Mark, Origin};
use baton_chaos::load::Load;
use jiff::Timestamp;
use serde_json::Value;

use crate::fault::{Fault, Scene, Served, back};
use crate::lab::{Driver, Flavour, Lab, Options, Port, agents, wait};
pub use report::{Outcome, Report, system};

/// How long agents may take from their start to a healthy cluster.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);
/// How long the load may take to be acknowledged at the start.
const WARM_WITHIN: Duration = Duration::from_secs(30);
/// Acknowledgements of each kind before the fault.
const WARM_WRITES: u64 = 100;
/// The moment of the fault is random within this time, longer than any lease, so that a lease is of any age.
const JITTER_MS: u64 = 1_500;
/// How long the service may be away.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// How long the cluster may take to be whole again after a heal.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// How long the lab is watched after it serves again, and again after the heal.
const SETTLE: Duration = Duration::from_secs(2);
/// The same after a fault that has bitten when it is injected: nothing was waited for before, and agents come back late.
const SETTLE_AFTER_A_BITE: Duration = Duration::from_secs(5);
/// A writer whose timers were later than this has measured nothing.
const LATE_MAX_US: u64 = 200_000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who decides.
    pub driver: Driver,
    /// What goes wrong.
    pub fault: Fault,
    /// On which database.
    pub flavour: Flavour,
    /// Whether container engines take part.
    pub docker: bool,
    /// For faults that strike at a step of the takeover: `STEP:started` or `STEP:acted`.
    pub at: Option<String>,
    /// After the heal the cluster must be whole again: the node that was away follows, or is resynced by an operator.
    pub whole: bool,
    /// The logs stay whatever comes out.
    pub keep: bool,
}

impl Plan {
    /// The fault on MariaDB with all that belongs to a lab, struck where it usually is.
    #[must_use]
    pub fn usual(driver: Driver, fault: Fault) -> Self {
        Self { driver, fault, flavour: Flavour::Mariadb, docker: true, at: None, whole: false, keep: false }
    }
}

/// Does one run.
///
/// # Errors
/// The lab does not come up, or the harness fails on the way; what the product does wrong is in the report.
pub fn run(plan: &Plan) -> Result<Report> {
    let at = plan.at.clone().unwrap_or_else(|| plan.fault.usual_step().into());
    let options = Options {
        driver: plan.driver.clone(),
        flavour: plan.flavour,
        docker: plan.docker || plan.fault.needs_docker(),
        small_disk: plan.fault.needs_small_disk(),
        resync_by_itself: plan.fault == Fault::ResyncAutomatic,
        drills: "L2",
        failpoint: plan.fault.failpoint(at),
    };
    let lab = Lab::up(options)?;
    let done = observe(&lab, plan);
    // What keepalived breaks is expected, and its logs are of no use to anybody.
    let ours = matches!(plan.driver, Driver::Agents { .. });
    let passed = matches!(&done, Ok(report) if report.result == Outcome::Pass);
    if plan.keep || (ours && !passed) {
        lab.keep();
    }
    done
}

/// What the harness saw of one run, before it is judged.
struct Seen {
    history: History,
    bounds: Bounds,
    verdict: Verdict,
    before: Reign,
    after: Reign,
    doubts: Vec<String>,
    outlasted: Outlasted,
    phases_ms: BTreeMap<String, u64>,
}

/// What was seen while the fault lasted and after its heal.
struct Outlasted {
    /// The client was served again when it was to be.
    served: bool,
    /// Why the agents did nothing, as they said just before the heal.
    refusals: Vec<String>,
    /// Why the cluster is not whole again, if it was to be.
    not_whole: Option<String>,
}

/// Who holds, and since which epoch. keepalived has no epochs; its changes are counted by who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reign {
    holder: Option<Port>,
    epoch: u64,
}

fn observe(lab: &Lab, plan: &Plan) -> Result<Report> {
    let before = healthy(lab, &plan.driver)?;
    let primary = before.holder.context("a healthy cluster has a holder")?;
    let scene = Scene::new(lab, primary);
    let origin = Origin::new();
    let watch = Watch::start(lab.watch(origin))?;
    let load = Load::start(lab.load(origin))?;
    wait::until_true("the load to be acknowledged", WARM_WITHIN, || {
        Ok(Kind::ALL.into_iter().all(|kind| load.acknowledged(kind) >= WARM_WRITES))
    })?;
    wait::pass(Duration::from_millis(rand::random::<u64>() % JITTER_MS))?;

    let fault_us = origin.now_us();
    let fault_at = Timestamp::now();
    plan.fault.inject(scene)?;
    let mut doubts = Vec::new();
    doubts.extend(plan.fault.verify(scene).err().map(|error| format!("{error:#}")));
    let mut marks = vec![Mark { at_us: fault_us, what: plan.fault.name().into() }];
    let outlasted = outlast(plan, scene, &load, origin, &mut marks)?;

    let end_us = origin.now_us();
    let mut history = load.stop()?;
    history.absorb(watch.stop()?);
    history.marks = marks;
    let after = reign(lab, &plan.driver, before);
    let changes = after.map_or(0, |after| changes(&plan.driver, before, after));
    doubts.extend(after.is_none().then(|| "nobody says who holds the baton".to_owned()));
    let after = after.unwrap_or(before);
    let finals = after.holder.map(|holder| lab.contents(holder)).unwrap_or_default();
    let bounds = Bounds { fault_us, end_us, holder_changes: u32::try_from(changes).unwrap_or(u32::MAX) };
    let verdict = check(&history, &finals, bounds);
    if history.lateness.p99_us > LATE_MAX_US {
        doubts.push(format!("the writer's timers were {} ms late", history.lateness.p99_us / 1000));
    }
    let phases_ms = phases(lab, after.epoch, fault_at);
    doubts.extend(blind(&history, bounds));
    let path = history_path(plan)?;
    history.save(&path).with_context(|| format!("save {}", path.display()))?;
    Ok(report::judge(plan, Seen { history, bounds, verdict, before, after, doubts, outlasted, phases_ms }))
}

/// Waits until the client is served again and the fault is healed.
fn outlast(
    plan: &Plan,
    scene: Scene<'_>,
    load: &Load,
    origin: Origin,
    marks: &mut Vec<Mark>,
) -> Result<Outlasted> {
    let fault = plan.fault;
    let expected = fault.expectation();
    let injected = std::time::Instant::now();
    let early = match expected.served {
        Served::DuringFault if fault.bites_at_once() => served(load, None)?,
        Served::DuringFault => served(load, expected.outage_max_ms)?,
        Served::AfterHeal => true,
    };
    let Some(lasts) = expected.heal_after else {
        wait::pass(if fault.bites_at_once() { SETTLE_AFTER_A_BITE } else { SETTLE })?;
        return Ok(Outlasted { served: early, refusals: Vec::new(), not_whole: None });
    };
    wait::pass(lasts.saturating_sub(injected.elapsed()))?;
    let refusals = expected.refusal.map_or(Vec::new(), |_| refusals(scene.lab));
    marks.push(Mark { at_us: origin.now_us(), what: format!("{} healed", fault.name()) });
    fault.heal(scene)?;
    let late = served(load, None)?;
    let not_whole = if plan.whole { whole(scene.lab) } else { None };
    wait::pass(SETTLE)?;
    Ok(Outlasted { served: early && late, refusals, not_whole })
}

/// Why the cluster is not whole again; says how it came to be if it is.
fn whole(lab: &Lab) -> Option<String> {
    let began = std::time::Instant::now();
    match back::whole(lab, WHOLE_WITHIN) {
        Ok(back) => println!("whole again after {:.1} s: {back:?}", began.elapsed().as_secs_f64()),
        Err(error) => return Some(format!("not whole again: {error:#}")),
    }
    None
}

/// Why each agent that answers does nothing.
fn refusals(lab: &Lab) -> Vec<String> {
    let Some(config) = &lab.config else { return Vec::new() };
    let powered = agents::NODES.into_iter().filter(|port| lab.host(*port).has_power());
    powered.filter_map(|port| agents::reasons(config, port).ok()).collect()
}

/// Waits until each kind is acknowledged steadily: half a second's worth of writes in half a second or so. Some faults
/// bite only when a lease ends: there the wait begins after the longest outage that is expected.
fn served(load: &Load, outage_max_ms: Option<u64>) -> Result<bool> {
    wait::pass(Duration::from_millis(outage_max_ms.unwrap_or(0)))?;
    let steady = || -> Result<bool> {
        let before = Kind::ALL.map(|kind| load.acknowledged(kind));
        wait::pass(Duration::from_millis(500))?;
        Ok(Kind::ALL.into_iter().zip(before).all(|(kind, before)| load.acknowledged(kind) >= before + 25))
    };
    Ok(wait::until_true("the client to be served", SERVED_WITHIN, steady).is_ok())
}

fn healthy(lab: &Lab, driver: &Driver) -> Result<Reign> {
    match driver {
        Driver::Agents { .. } => {
            let standing = wait::until("a healthy cluster", HEALTHY_WITHIN, || {
                let standing = lab.standing()?;
                let healthy = standing.ok && standing.holder.is_some() && lab.serving()? == standing.holder;
                if healthy { Ok(Some(standing)) } else { anyhow::bail!("{}", standing.text) }
            })?;
            Ok(Reign { holder: standing.holder, epoch: standing.epoch })
        }
        Driver::Keepalived { .. } | Driver::Nobody => {
            Ok(Reign { holder: Some(lab.wait_serving()?), epoch: 1 })
        }
    }
}

fn reign(lab: &Lab, driver: &Driver, before: Reign) -> Option<Reign> {
    match driver {
        Driver::Agents { .. } => {
            wait::until("an agent to answer", HEALTHY_WITHIN, || lab.standing().map(Some))
                .ok()
                .map(|standing| Reign { holder: standing.holder, epoch: standing.epoch })
        }
        Driver::Keepalived { .. } | Driver::Nobody => {
            let holder = lab.serving().ok().flatten()?;
            Some(Reign {
                holder: Some(holder),
                epoch: before.epoch + u64::from(Some(holder) != before.holder),
            })
        }
    }
}

fn changes(driver: &Driver, before: Reign, after: Reign) -> u64 {
    match driver {
        Driver::Agents { .. } => after.epoch.saturating_sub(before.epoch),
        Driver::Keepalived { .. } | Driver::Nobody => u64::from(before.holder != after.holder),
    }
}

/// A watch that heard nothing while all was well would hear nothing of two holders either.
fn blind(history: &History, bounds: Bounds) -> Option<String> {
    let answered = history.answers.iter().filter(|answer| answer.at_us < bounds.fault_us).count();
    let first_us = history.writes.iter().map(|write| write.started_us).min().unwrap_or(bounds.fault_us);
    let asked = (bounds.fault_us - first_us) / history.probe_period_us.max(1);
    let enough = u64::try_from(answered).is_ok_and(|answered| answered * 10 >= asked * 9);
    (!enough).then(|| format!("only {answered} of about {asked} ARP requests were answered before the fault"))
}

/// Milliseconds from the fault to each phase of the run that began the present epoch, as an agent's history has them.
/// The hosts of the lab are one machine, so their wall clocks are one.
fn phases(lab: &Lab, epoch: u64, fault_at: Timestamp) -> BTreeMap<String, u64> {
    let entry = || -> Option<Value> {
        let config = lab.config.as_ref()?;
        let powered = agents::NODES.into_iter().filter(|port| lab.host(*port).has_power());
        let history = powered.rev().find_map(|port| agents::ask(config, port, &["history"]).ok())?;
        history["runs"].as_array()?.iter().rev().find(|run| run["epoch"].as_u64() == Some(epoch)).cloned()
    };
    let Some(entry) = entry() else { return BTreeMap::new() };
    let started: Option<Timestamp> = entry["at"].as_str().and_then(|at| at.parse().ok());
    // A run from before the fault is not what came of it.
    let Some(started) = started.filter(|started| *started >= fault_at) else { return BTreeMap::new() };
    let offset_ms = started.as_millisecond() - fault_at.as_millisecond();
    let Some(phases) = entry["phases_ms"].as_object() else { return BTreeMap::new() };
    let since_fault = |ms: i64| u64::try_from(ms + offset_ms).unwrap_or(0);
    let mut phases: BTreeMap<String, u64> =
        phases.iter().filter_map(|(name, ms)| Some((name.clone(), since_fault(ms.as_i64()?)))).collect();
    let detected_ms = entry["detected_ms_before"].as_i64().map(|ms| since_fault(-ms));
    phases.extend(detected_ms.map(|ms| ("detected".to_owned(), ms)));
    phases
}

fn history_path(plan: &Plan) -> Result<PathBuf> {
    let dir = report::dir()?;
    let name = report::file_stem(plan.fault.name(), plan.flavour.name());
    Ok(dir.join(format!("{name}-{}.history.jsonl", report::system(&plan.driver))))
}
