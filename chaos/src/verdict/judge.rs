//! From the facts of a record to its verdict. Pure, and the only place where that is decided. Whether a figure was within the
//! limit that a drill's file names for it, `limits` says.
//!
//! The order is the argument:
//!
//! 1. a broken promise of safety is FAIL, whatever else happened: it needs no clock and no complete run;
//! 2. a drill that was not begun, interrupted or aborted is that;
//! 3. a broken promise of time, or of a share of writes, is FAIL if it is broken also without what the runner's own lateness
//!    could have made of it, as `late` says;
//! 4. whatever that lateness may explain, could not be measured or did not take effect makes it INCONCLUSIVE;
//! 5. a phase over its budget degrades a pass.

use super::late::Allowance;
use super::{Verdict, limited};
use crate::evidence::{Ending, FaultRecord, Harness, Judgement, ProbeRecord, Record};
use crate::experiment::{Figure, Heal, Level, Mode, Probe};
use crate::history::Kind;
use crate::runner::gate::may_cost_the_baton;

/// A runner whose timers were later than this at the 99th percentile has measured no times, microseconds. One that was never
/// later was on time: its figures count as they are.
pub const LATE_MAX_US: u64 = 200_000;

/// One timer that was later than this may have hidden what lasted as long: two machines that answered for the virtual IP,
/// microseconds.
pub const LATE_ONCE_MAX_US: u64 = 1_000_000;

/// What the packets of a cut need to be seen to be dropped, milliseconds: not counted as missing from a fault's time.
const SEEN_WITHIN_MS: u64 = 1_000;

/// What follows from a record. What stands in its `judgement` is not looked at.
#[must_use]
pub fn judge(record: &Record) -> Judgement {
    let unsafe_ = broken_safety(record);
    if !unsafe_.is_empty() {
        return with(Verdict::Fail, unsafe_);
    }
    match &record.ending {
        Ending::Refused { why } => return with(Verdict::Refused, vec![why.clone()]),
        Ending::Interrupted { why } => {
            // The baton must not have moved oftener than the drill allows, whoever took the interruption for something real.
            let moved = record.probes.iter().filter(|probe| {
                probe.probe == Probe::HolderChanges && probe.mode != Mode::Before && probe.held == Some(false)
            });
            let mut reasons: Vec<String> = moved.map(said).collect();
            let verdict = if reasons.is_empty() { Verdict::Interrupted } else { Verdict::Fail };
            reasons.push(why.clone());
            return with(verdict, reasons);
        }
        Ending::Aborted { by, why } => {
            // A stop condition that ended a drill because it was already lost does not hide that it was.
            let late = sure(&broken_times(record));
            let (verdict, first) = if late.is_empty() {
                (Verdict::Aborted, format!("ended by {by}: {why}"))
            } else {
                (Verdict::Fail, format!("and ended early by {by}: {why}"))
            };
            return with(verdict, late.into_iter().chain([first]).collect());
        }
        Ending::Completed {} => {}
    }
    let mut broken = broken_hypothesis(record);
    broken.extend(broken_times(record));
    broken.extend(redundancy(record));
    let failed = sure(&broken);
    if !failed.is_empty() {
        return with(Verdict::Fail, failed);
    }
    let doubts = doubts(record, broken);
    if !doubts.is_empty() {
        return with(Verdict::Inconclusive, doubts);
    }
    let slow = over_budget(record);
    if slow.is_empty() { with(Verdict::Pass, slow) } else { with(Verdict::Degraded, slow) }
}

fn with(verdict: Verdict, reasons: Vec<String>) -> Judgement {
    Judgement { verdict, reasons }
}

/// A promise that was broken as the runner saw it.
struct Broken {
    says: String,
    /// The runner's own lateness does not explain it.
    is_sure: bool,
}

fn sure(broken: &[Broken]) -> Vec<String> {
    broken.iter().filter(|broken| broken.is_sure).map(|broken| broken.says.clone()).collect()
}

/// Promises that hold at every instant, with raw counts.
fn broken_safety(record: &Record) -> Vec<String> {
    let mut broken = Vec::new();
    if record.two_holders_ms > 0 {
        broken.push(format!("two machines answered for the virtual IP for {} ms", record.two_holders_ms));
    }
    let allowed = record.experiment.slo.lost_acknowledged;
    for client in &record.clients {
        let (kind, may_lose) = match client.kind {
            Kind::Mysql => (client.kind, Some(allowed.mysql)),
            Kind::Redis => (client.kind, allowed.redis),
        };
        let counts = [
            (client.interleaved, Some(0), "acknowledged by one server while another served"),
            (client.lost, may_lose, "acknowledged and lost"),
            (client.duplicated, Some(0), "done twice"),
            (client.resurrected, Some(0), "refused and there all the same"),
        ];
        for (count, may_be, what) in counts {
            // Nothing can be said of what is missing from contents that could not be read.
            let is_known = !client.unread || what.starts_with("acknowledged by");
            if is_known && may_be.is_some_and(|may_be| count > may_be) {
                broken.push(format!("{kind}: {count} writes {what}"));
            }
        }
    }
    let invariants = record.invariants.iter().filter(|invariant| invariant.held == Some(false));
    broken.extend(invariants.map(|it| format!("{}: {} ({})", it.code, it.says, it.seen)));
    broken.extend(record.faults.iter().filter_map(left_behind));
    broken
}

/// A fault that was injected and of which it is not known that nothing is left.
fn left_behind(fault: &FaultRecord) -> Option<String> {
    let was_injected = fault.injected_ms.is_some();
    let is_gone = fault.heal_verified_ms.is_some();
    let needs_heal = match fault.heal {
        Heal::Nothing => false,
        Heal::Kernel | Heal::Watchdog | Heal::Supervisor | Heal::Site => true,
    };
    (was_injected && needs_heal && !is_gone)
        .then(|| format!("{} on {} was injected and was not seen healed", fault.fault, fault.node))
}

/// Whatever took longer than the drill's file lets it, as the client saw it.
fn broken_times(record: &Record) -> Vec<Broken> {
    let mut broken = broken_outage(record);
    let allowance = Allowance::of(record);
    let over = limited(record).into_iter().filter(|limited| limited.held() == Some(false));
    broken.extend(over.map(|limited| Broken {
        says: limited.to_string(),
        is_sure: allowance.is_figure_over(record, &limited),
    }));
    broken
}

fn broken_outage(record: &Record) -> Vec<Broken> {
    let mut broken = Vec::new();
    let allowance = Allowance::of(record);
    let outage = record.experiment.slo.outage;
    for client in &record.clients {
        let allowed = match client.kind {
            Kind::Mysql => Some(outage.mysql),
            Kind::Redis => outage.redis,
        };
        let Some(allowed) = allowed else { continue };
        if client.attempted > 0 && !client.restored {
            broken.push(Broken {
                says: format!("{}: writes were not acknowledged again", client.kind),
                is_sure: allowance.is_away(client),
            });
        }
        if client.outage_ms > allowed.ms() {
            broken.push(Broken {
                says: format!("{}: an outage of {} ms, at most {allowed}", client.kind, client.outage_ms),
                is_sure: allowance.is_over(client.outage_ms, allowed.ms()),
            });
        }
    }
    broken
}

fn broken_hypothesis(record: &Record) -> Vec<Broken> {
    let allowance = Allowance::of(record);
    let broken = record.probes.iter().filter(|probe| match probe.mode {
        // One that did not hold before should have refused the drill: a doubt, not a failure of the product.
        Mode::Before => false,
        Mode::Continuous | Mode::After => probe.held == Some(false) && !is_uncaused(record, probe),
    });
    broken.map(|probe| Broken { says: said(probe), is_sure: allowance.is_broken(record, probe) }).collect()
}

/// A holder that did not change says nothing if whatever was to change it was left out.
fn is_uncaused(record: &Record, probe: &ProbeRecord) -> bool {
    let is_left_out = record.faults.iter().any(|fault| fault.injected_ms.is_none());
    let was_cause = |fault: &FaultRecord| fault.injected_ms.is_some() && may_cost_the_baton(fault.fault);
    let is_caused = record.faults.iter().any(was_cause);
    is_left_out && !is_caused && probe.probe == Probe::HolderChanges && probe.value == Some(0.0)
}

fn said(probe: &ProbeRecord) -> String {
    let value = probe.value.map_or("nothing".to_owned(), |value| value.to_string());
    let (unit, mode) = (probe.probe.unit(), probe.mode.name());
    format!("{} ({mode}): {value}, wanted {} [{unit}]", probe.name, probe.tolerance)
}

fn redundancy(record: &Record) -> Option<Broken> {
    let wait_ms = record.experiment.wait_redundancy_ms;
    let is_missing = record.experiment.level >= Level::L2
        && record.redundancy_ms.is_none_or(|redundancy_ms| redundancy_ms > wait_ms);
    is_missing.then(|| Broken {
        says: format!("redundancy was not back within {} s", wait_ms / 1000),
        is_sure: !Allowance::of(record).is_all(),
    })
}

/// Why what was seen proves nothing. `unsure`: what was broken, and the runner may have made itself.
fn doubts(record: &Record, unsure: Vec<Broken>) -> Vec<String> {
    let mut doubts = Vec::new();
    let gate = record.gate.iter().filter(|check| !check.passed);
    doubts
        .extend(gate.map(|check| format!("it went on although {} did not pass: {}", check.code, check.seen)));
    doubts.extend(weakness(record));
    let unsure = unsure.into_iter();
    doubts.extend(unsure.map(|Broken { says, .. }| format!("{says}; that may be the runner's own doing")));
    let done = record.faults.iter().map(|fault| fault.method).collect::<std::collections::BTreeSet<_>>();
    let methods = record.experiment.methods;
    if done.len() != usize::try_from(methods).unwrap_or(usize::MAX) {
        doubts.push(format!("{} of {methods} methods were carried out", done.len()));
    }
    for fault in &record.faults {
        doubts.extend(unproven(fault));
    }
    if record.experiment.level >= Level::L2 {
        doubts.extend(unmeasured_clients(record));
    }
    let unknown = limited(record).into_iter().filter(|limited| limited.held().is_none());
    doubts.extend(unknown.map(|limited| limited.to_string()));
    let probes = record.probes.iter().filter(|probe| probe.held.is_none());
    doubts
        .extend(probes.map(|probe| format!("{} ({}) could not be measured", probe.name, probe.mode.name())));
    let before = record.probes.iter().filter(|probe| probe.mode == Mode::Before && probe.held == Some(false));
    doubts.extend(before.map(said));
    let invariants = record.invariants.iter().filter(|invariant| invariant.held.is_none());
    doubts.extend(invariants.map(|it| format!("{} could not be checked: {}", it.code, it.seen)));
    doubts
}

/// How the runner itself ran ill.
fn weakness(record: &Record) -> Vec<String> {
    let Harness { lateness, overflowed } = record.harness;
    let mut weak = Vec::new();
    let late_ms = lateness.p99_us / 1000;
    if Allowance::of(record).is_all() {
        weak.push(format!("the runner's timers were {late_ms} ms late: its times are worth nothing"));
    }
    let once_ms = lateness.max_us / 1000;
    if lateness.max_us > LATE_ONCE_MAX_US {
        weak.push(format!(
            "a timer of the runner was {once_ms} ms late once: what was meanwhile was not seen"
        ));
    }
    if overflowed > 0 {
        weak.push(format!("{overflowed} writes could not be started in time"));
    }
    weak
}

/// Why a fault counts for nothing.
fn unproven(fault: &FaultRecord) -> Option<String> {
    let name = format!("{} on {}", fault.fault, fault.node);
    if fault.injected_ms.is_none() {
        return Some(format!("{name} was not injected: {}", fault.effect));
    }
    if fault.verified_ms.is_none() {
        return Some(format!("{name} was not seen to take effect: {}", fault.effect));
    }
    // Who switches a host on again chooses the time.
    let is_timed = fault.fault.stands() && fault.heal != Heal::Site;
    if let Some(stood_ms) = fault.stood_ms.filter(|_| is_timed)
        && stood_ms + SEEN_WITHIN_MS < fault.duration_ms / 10 * 9
    {
        return Some(format!("{name} stood for {stood_ms} ms instead of {} ms", fault.duration_ms));
    }
    None
}

fn unmeasured_clients(record: &Record) -> Vec<String> {
    let slo = &record.experiment.slo;
    let has_limit = Figure::ALL.into_iter().any(|figure| slo.limit(figure, Kind::Redis).is_some());
    let redis = slo.outage.redis.is_some() || slo.lost_acknowledged.redis.is_some() || has_limit;
    let wanted = [(Kind::Mysql, true), (Kind::Redis, redis)];
    let wanted = wanted.into_iter().filter(|(_, is_wanted)| *is_wanted);
    wanted
        .filter_map(|(kind, _)| {
            let client = record.clients.iter().find(|client| client.kind == kind);
            match client {
                None => Some(format!("{kind} was not measured")),
                Some(client) if client.acknowledged == 0 => {
                    Some(format!("{kind}: no write was ever acknowledged"))
                }
                Some(client) if client.unread => {
                    Some(format!("{kind}: its contents could not be read afterwards"))
                }
                Some(_) => None,
            }
        })
        .collect()
}

fn over_budget(record: &Record) -> Vec<String> {
    let over = record.timeline.iter().filter(|phase| phase.is_over());
    let mut slow: Vec<String> = over
        .map(|phase| {
            let (name, took) = (phase.phase.name(), phase.took_ms());
            format!("phase {name} of run {} took {took} ms, its budget is {} ms", phase.run, phase.budget_ms)
        })
        .collect();
    if record.holder_changes > 0 && record.timeline.is_empty() {
        slow.push("the holder changed, and no phase of it is known".to_owned());
    }
    slow
}
