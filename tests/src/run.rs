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
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use baton_chaos::arp::Watch;
use baton_chaos::check::{Bounds, Finals, Verdict, check};
use baton_chaos::history::{History, Lateness, Mark, Origin};
use baton_chaos::load::{Load, LoadOptions};
use jiff::Timestamp;
use serde_json::Value;

use crate::fault::{Expectation, Fault, Scene, Served, back};
use crate::lab::{Driver, Flavour, Lab, Options, Port, agents, wait};
#[cfg(test)]
pub(crate) use report::judge_of;
pub use report::{Outcome, Report, forget, system};

/// How long agents may take from their start to a healthy cluster.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);
/// How long the load may take to be acknowledged at the start.
const WARM_WITHIN: Duration = Duration::from_secs(30);
/// Acknowledgements of each kind before the fault.
const WARM_WRITES: u64 = 100;
/// The moment of the fault is random within this time, longer than any lease, so that a lease is of any age.
pub(crate) const JITTER_MS: u64 = 1_500;
/// A moment within a switchover or a pause is random within this time.
pub(crate) const SPREAD_MS: u64 = 400;
/// How long the service may be away.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// How long two that think they serve may take to agree, once the load has stopped.
const SERVES_WITHIN: Duration = Duration::from_secs(5);
/// How long an agent may take to have the record of the run that began the present epoch.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);
/// After this nobody is open who cannot renew: a lease of the longest profile, its margin, and what the machine needs.
const CLOSED_AFTER: Duration = Duration::from_secs(4);
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

    /// What must come of it. Only agents tell who lost whom, and every system is tried with that fault. Only their leases bound
    /// what Redis loses, and the bounds are not those of the longest lease.
    fn expectation(&self) -> Expectation {
        let usual = self.fault.expectation();
        match &self.driver {
            Driver::Agents { profile } if profile == "relaxed" => {
                let redis_lost_max = usual.redis_lost_max.filter(|max| *max == 0);
                Expectation { redis_lost_max, ..usual }
            }
            Driver::Agents { .. } => usual,
            Driver::Keepalived { .. } | Driver::Sentinel | Driver::Pacemaker | Driver::Nobody => {
                let refusal = usual.refusal.filter(|_| self.fault != Fault::PartitionPair);
                Expectation { refusal, redis_lost_max: None, ..usual }
            }
        }
    }

    /// Where in a run it strikes, for faults that do.
    fn point(&self) -> &str {
        self.at.as_deref().unwrap_or_else(|| self.fault.usual_step())
    }
}

/// Does one run.
///
/// # Errors
/// The lab does not come up, or the harness fails on the way; what the product does wrong is in the report.
pub fn run(plan: &Plan) -> Result<Report> {
    let options = Options {
        driver: plan.driver.clone(),
        flavour: plan.flavour,
        docker: plan.docker || plan.fault.needs_docker(),
        small_disk: plan.fault.needs_small_disk(),
        resync_by_itself: plan.fault == Fault::ResyncAutomatic,
        drills: "L2",
        drill_keys: String::new(),
        failpoints: plan.fault.needs_failpoints(),
        quiet: false,
    };
    let lab = Lab::up(options)?;
    let terms = Terms::of(plan)?;
    let done = observe(&lab, plan, &terms).map(|(report, _)| report);
    // What another system breaks is expected, and its logs are of no use to anybody.
    let ours = matches!(plan.driver, Driver::Agents { .. });
    let passed = matches!(&done, Ok(report) if report.result == Outcome::Pass);
    if plan.keep || (ours && !passed) {
        lab.keep();
    }
    done
}

/// How a run is done.
pub struct Terms<'a> {
    /// What must come of the fault.
    pub expected: Expectation,
    /// How long the load has run before the fault, beyond its warm-up: so that a lease is of any age.
    pub delay: Duration,
    /// How late within something that lasts a fault strikes, where it needs that.
    pub spread: Duration,
    /// How long the lab is watched after it serves again, and again after the heal; none: as usual for the fault.
    pub settle: Option<Duration>,
    /// Id of the first write.
    pub first_id: u64,
    /// Where the history is saved.
    pub history: PathBuf,
    /// Done right before the fault.
    pub before: &'a dyn Fn(Scene<'_>) -> Result<()>,
    /// Done after fault and heal, while the load goes on. That it cannot be done is a reason to fail, not an error.
    pub afterwards: &'a dyn Fn(Scene<'_>) -> Result<()>,
    /// What the databases of a node hold of this run's writes; the ids of the first and of one beyond the last are given.
    pub contents: &'a dyn Fn(&Lab, Port, Range<u64>) -> Finals,
}

impl Terms<'_> {
    /// The usual ones, for a lab of its own.
    ///
    /// # Errors
    /// The directory of histories cannot be made.
    pub fn of(plan: &Plan) -> Result<Self> {
        Ok(Self {
            expected: plan.expectation(),
            delay: Duration::from_millis(rand::random::<u64>() % JITTER_MS),
            spread: Duration::from_millis(rand::random::<u64>() % SPREAD_MS),
            settle: None,
            first_id: 0,
            history: history_path(plan)?,
            before: &|_| Ok(()),
            afterwards: &|_| Ok(()),
            contents: &|lab, holder, _| lab.contents(holder),
        })
    }
}

/// What the harness saw of one run, before it is judged.
struct Seen {
    lateness: Lateness,
    bounds: Bounds,
    verdict: Verdict,
    before: Reign,
    after: Reign,
    bit: bool,
    doubts: Vec<String>,
    outlasted: Outlasted,
    phases_ms: BTreeMap<String, u64>,
}

/// What was seen while the fault lasted and after its heal.
struct Outlasted {
    /// The client was served again when it was to be.
    served: bool,
    /// Writes that were acknowledged while nobody was to serve.
    served_on: u64,
    /// Why the lab did not come back to what it was.
    not_restored: Option<String>,
    /// Why the agents did nothing, as they said just before the heal.
    refusals: Vec<String>,
    /// Why the cluster is not whole again, if it was to be.
    not_whole: Option<String>,
}

/// Who holds, and since which epoch. Other systems have no epochs; their changes are counted by who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reign {
    holder: Option<Port>,
    epoch: u64,
}

/// One run in a standing lab, whose cluster is healthy or about to be.
///
/// # Errors
/// The harness fails on the way; what the product does wrong is in the report.
pub fn observe(lab: &Lab, plan: &Plan, terms: &Terms<'_>) -> Result<(Report, History)> {
    let before = healthy(lab, &plan.driver)?;
    let primary = before.holder.context("a healthy cluster has a holder")?;
    let mut scene = Scene::new(lab, primary);
    scene.spread = terms.spread;
    let origin = Origin::new();
    let watch = Watch::start(lab.watch(origin))?;
    let load = Load::start(LoadOptions { first_id: terms.first_id, ..lab.load(origin) })?;
    wait::until_true("the load to be acknowledged", WARM_WITHIN, || {
        Ok(lab.kinds().iter().all(|kind| load.acknowledged(*kind) >= WARM_WRITES))
    })?;
    wait::pass(terms.delay)?;
    if let Some((port, order)) = plan.fault.failpoint(scene, plan.point()) {
        lab.arm(port, &order)?;
    }
    (terms.before)(scene)?;

    let fault_us = origin.now_us();
    let fault_at = Timestamp::now();
    plan.fault.inject(scene)?;
    let mut doubts = Vec::new();
    let not_bitten = plan.fault.verify(scene).err();
    let bit = not_bitten.is_none();
    doubts.extend(not_bitten.map(|error| format!("{error:#}")));
    let mut marks = vec![Mark { at_us: fault_us, what: plan.fault.name().into() }];
    let outlasted = outlast(plan, terms, scene, &load, origin, &mut marks).map_err(|error| {
        let unseen = doubts.first().map(|why| format!("the fault did not bite ({why})"));
        match unseen {
            Some(unseen) => error.context(unseen),
            None => error,
        }
    })?;

    let end_us = origin.now_us();
    let mut history = load.stop()?;
    history.absorb(watch.stop()?);
    history.marks = marks;
    let after = reign(lab, &plan.driver, before);
    let changes = after.map_or(0, |after| changes(&plan.driver, before, after));
    // Agents always say. Of another system that nobody serves is a result, and no contents are the right ones then.
    let ours = matches!(plan.driver, Driver::Agents { .. });
    doubts.extend((ours && after.is_none()).then(|| "nobody says who holds the baton".to_owned()));
    let last = after.or(ours.then_some(before)).and_then(|reign| reign.holder);
    let after = after.unwrap_or(before);
    let ids = terms.first_id..history.writes.iter().map(|write| write.id + 1).max().unwrap_or(terms.first_id);
    let finals = last.map(|holder| (terms.contents)(lab, holder, ids)).unwrap_or_default();
    let bounds = Bounds { fault_us, end_us, holder_changes: u32::try_from(changes).unwrap_or(u32::MAX) };
    let verdict = check(&history, &finals, bounds);
    if history.lateness.p99_us > LATE_MAX_US {
        doubts.push(format!("the writer's timers were {} ms late", history.lateness.p99_us / 1000));
    }
    let phases_ms = if changes > 0 { phases(lab, after.epoch, fault_at) } else { BTreeMap::new() };
    doubts.extend(blind(&history, bounds));
    history.save(&terms.history).with_context(|| format!("save {}", terms.history.display()))?;
    let lateness = history.lateness;
    let seen = Seen { lateness, bounds, verdict, before, after, bit, doubts, outlasted, phases_ms };
    Ok((report::judge(plan, &terms.expected.at(plan.fault, plan.point()), seen), history))
}

/// Waits until the client is served again and the fault is healed.
fn outlast(
    plan: &Plan,
    terms: &Terms<'_>,
    scene: Scene<'_>,
    load: &Load,
    origin: Origin,
    marks: &mut Vec<Mark>,
) -> Result<Outlasted> {
    let fault = plan.fault;
    let expected = terms.expected.at(fault, plan.point());
    let injected = std::time::Instant::now();
    let early = match expected.served {
        Served::DuringFault if fault.bites_at_once() => served(scene.lab, load, None)?,
        Served::DuringFault => served(scene.lab, load, expected.outage_max_ms)?,
        Served::AfterHeal | Served::NotBeforeHeal => true,
    };
    let Some(lasts) = expected.heal_after else {
        let usual = if fault.bites_at_once() { SETTLE_AFTER_A_BITE } else { SETTLE };
        wait::pass(terms.settle.unwrap_or(usual))?;
        let not_restored = restored(fault, terms, scene)?;
        let served = early && served(scene.lab, load, None)?;
        return Ok(Outlasted { served, served_on: 0, not_restored, refusals: Vec::new(), not_whole: None });
    };
    let closed = (expected.served == Served::NotBeforeHeal).then_some(CLOSED_AFTER.min(lasts));
    wait::pass(closed.unwrap_or_default().saturating_sub(injected.elapsed()))?;
    let acknowledged = || scene.lab.kinds().iter().map(|kind| load.acknowledged(*kind)).sum::<u64>();
    let before = acknowledged();
    wait::pass(lasts.saturating_sub(injected.elapsed()))?;
    let served_on = closed.map_or(0, |_| acknowledged() - before);
    let refusals = expected.refusal.map_or(Vec::new(), |_| refusals(scene.lab));
    marks.push(Mark { at_us: origin.now_us(), what: format!("{} healed", fault.name()) });
    fault.heal(scene)?;
    let late = served(scene.lab, load, None)?;
    wait::pass(terms.settle.unwrap_or(SETTLE))?;
    let not_restored = restored(fault, terms, scene)?;
    let not_whole = if plan.whole { whole(scene.lab) } else { None };
    let served = early && late && served(scene.lab, load, None)?;
    Ok(Outlasted { served, served_on, not_restored, refusals, not_whole })
}

/// Why what is to be done afterwards was not done, if it was not.
fn restored(fault: Fault, terms: &Terms<'_>, scene: Scene<'_>) -> Result<Option<String>> {
    let refused = fault.repaired(scene).and_then(|()| (terms.afterwards)(scene)).err();
    if refused.is_some() && wait::is_interrupted() {
        bail!("interrupted");
    }
    Ok(refused.map(|error| format!("{error:#}")))
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
fn served(lab: &Lab, load: &Load, outage_max_ms: Option<u64>) -> Result<bool> {
    wait::pass(Duration::from_millis(outage_max_ms.unwrap_or(0)))?;
    let steady = || -> Result<bool> {
        let before: Vec<u64> = lab.kinds().iter().map(|kind| load.acknowledged(*kind)).collect();
        wait::pass(Duration::from_millis(500))?;
        Ok(lab.kinds().iter().zip(before).all(|(kind, before)| load.acknowledged(*kind) >= before + 25))
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
        Driver::Keepalived { .. } | Driver::Sentinel | Driver::Pacemaker | Driver::Nobody => {
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
        Driver::Keepalived { .. } | Driver::Sentinel | Driver::Pacemaker | Driver::Nobody => {
            let holder = wait::until("a node to serve", SERVES_WITHIN, || lab.serving()).ok()?;
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
        Driver::Keepalived { .. } | Driver::Sentinel | Driver::Pacemaker | Driver::Nobody => {
            u64::from(before.holder != after.holder)
        }
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
    let Some(config) = lab.config.as_ref() else { return BTreeMap::new() };
    let entry = || -> Option<Value> {
        let powered = agents::NODES.into_iter().filter(|port| lab.host(*port).has_power());
        let history = powered.rev().find_map(|port| agents::ask(config, port, &["history"]).ok())?;
        history["runs"].as_array()?.iter().rev().find(|run| run["epoch"].as_u64() == Some(epoch)).cloned()
    };
    let found = wait::until("the record of the run", RECORDED_WITHIN, || Ok(entry()));
    let Ok(entry) = found else { return BTreeMap::new() };
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
