//! The judgement on a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use baton_chaos::check::KindVerdict;
#[cfg(test)]
use baton_chaos::check::{Bounds, Verdict};
use baton_chaos::history::Kind;
#[cfg(test)]
use baton_chaos::history::Lateness;
use serde::Serialize;

#[cfg(test)]
use super::{Outlasted, Reign};
use super::{Plan, Seen};
use crate::fault::{Changes, Expectation, Fault};
use crate::lab::{Driver, Flavour, Port, target_dir};

/// Phases of a takeover in their order, and by when each must be over, milliseconds after the loss: 3 s for the
/// detection, 5 s more for the address, 20 s more for the databases and services, 2 s more for the validation.
const BUDGETS_MS: [(&str, u64); 10] = [
    ("detected", 3_000),
    ("decided", 3_000),
    ("fenced", 3_000),
    ("cut", 3_000),
    ("vip_held", 8_000),
    ("drained", 28_000),
    ("promoted", 28_000),
    ("open", 28_000),
    ("services_healthy", 28_000),
    ("validated", 30_000),
];

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// All that was expected was seen.
    Pass,
    /// Something that was promised was broken.
    Fail,
    /// The harness cannot vouch for what it saw.
    Inconclusive,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The fault's name.
    pub fault: String,
    /// On which database: `mariadb` or `mysql`.
    pub flavour: &'static str,
    /// Who decided.
    pub system: String,
    /// Longest time without an acknowledgement, milliseconds.
    pub outage_ms: BTreeMap<Kind, u64>,
    /// Acknowledged writes that are missing afterwards; a kind whose contents could not be read is not there.
    pub lost_acknowledged: BTreeMap<Kind, usize>,
    /// Milliseconds in which two machines answered for the virtual IP.
    pub two_holders_ms: u64,
    /// How often the holder changed.
    pub holder_changes: u64,
    /// Writes that two servers acknowledged in an order that only two primaries allow.
    pub interleaved: usize,
    /// Where in the takeover it struck, for faults that do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Milliseconds from the fault to the end of each phase, as far as the history has them.
    pub phases_ms: BTreeMap<String, u64>,
    /// How late the writer's own timers were at the 99th percentile, microseconds.
    pub timer_late_p99_us: u64,
    /// How it ended.
    #[serde(rename = "verdict")]
    pub result: Outcome,
    /// Why it did not pass.
    pub reasons: Vec<String>,
    /// Why the agents did nothing, where that is what they must do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<String>,
    /// The fault was seen to bite.
    #[serde(skip)]
    pub bit: bool,
    /// Whether the client was served again when it was to be.
    pub served: bool,
    /// Why the harness cannot vouch for what it saw; they are among the reasons too.
    #[serde(skip)]
    pub doubts: Vec<String>,
    #[serde(skip)]
    pub(crate) holder: String,
}

/// The directory of reports; made if it is not there.
///
/// # Errors
/// It cannot be made.
pub fn dir() -> Result<PathBuf> {
    let dir = target_dir().join("lab");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// How the files of a fault's run begin: MariaDB is not named.
pub(super) fn file_stem(fault: &str, flavour: &str) -> String {
    if flavour == Flavour::Mariadb.name() { fault.to_owned() } else { format!("{fault}-{flavour}") }
}

/// A short name of who decides.
#[must_use]
pub fn system(driver: &Driver) -> String {
    match driver {
        Driver::Agents { profile } => format!("baton-{profile}"),
        Driver::Keepalived { advert_ms: 1000 } => "keepalived-1s".into(),
        Driver::Keepalived { advert_ms } => format!("keepalived-{advert_ms}ms"),
        Driver::Sentinel => "redis-sentinel".into(),
        Driver::Pacemaker => "pacemaker".into(),
        Driver::Nobody => "nobody".into(),
    }
}

pub(super) fn judge(plan: &Plan, expected: &Expectation, seen: Seen) -> Report {
    let of = |kind: Kind| seen.verdict.kinds.get(&kind);
    let outage_ms =
        Kind::ALL.into_iter().filter_map(|kind| Some((kind, of(kind)?.outage_us.div_ceil(1000)))).collect();
    // What was not read afterwards is not known to be lost, nor to be there.
    let read = |kind: Kind| of(kind).filter(|judged| !judged.unread);
    let lost = Kind::ALL.into_iter().filter_map(|kind| Some((kind, read(kind)?.lost.len()))).collect();
    let changes = u64::from(seen.bounds.holder_changes);
    let mut reasons = failures(plan, expected, &seen);
    reasons.extend(unsaid(plan.fault, expected, &seen.outlasted.refusals));
    let result = match (reasons.is_empty(), seen.doubts.is_empty()) {
        (false, _) => Outcome::Fail,
        (true, false) => Outcome::Inconclusive,
        (true, true) => Outcome::Pass,
    };
    Report {
        fault: plan.fault.name().into(),
        flavour: plan.flavour.name(),
        system: system(&plan.driver),
        at: plan.at.clone(),
        outage_ms,
        lost_acknowledged: lost,
        two_holders_ms: seen.verdict.two_holders_ms,
        holder_changes: changes,
        interleaved: seen.verdict.kinds.values().map(|kind| kind.interleaved.len()).sum(),
        timer_late_p99_us: seen.lateness.p99_us,
        result,
        bit: seen.bit,
        holder: holder(&seen),
        phases_ms: seen.phases_ms,
        served: seen.outlasted.served,
        refusals: seen.outlasted.refusals,
        reasons: reasons.into_iter().chain(seen.doubts.iter().cloned()).collect(),
        doubts: seen.doubts,
    }
}

/// The report on a run of which only this was seen.
#[cfg(test)]
pub(crate) fn judge_of(expected: &Expectation, fault: Fault, verdict: Verdict, bounds: Bounds) -> Report {
    let reign = Reign { holder: Some(Port::Db1), epoch: 1 };
    let after = Reign { holder: Some(Port::Db2), epoch: 1 + u64::from(bounds.holder_changes) };
    let outlasted =
        Outlasted { served: true, served_on: 0, not_restored: None, refusals: Vec::new(), not_whole: None };
    let plan = Plan::usual(Driver::Agents { profile: "standard".into() }, fault);
    let seen = Seen {
        lateness: Lateness::default(),
        bounds,
        verdict,
        before: reign,
        after,
        bit: true,
        doubts: Vec::new(),
        outlasted,
        phases_ms: BTreeMap::from([("decided".to_owned(), 1_340)]),
    };
    judge(&plan, expected, seen)
}

fn holder(seen: &Seen) -> String {
    let name = |holder: Option<Port>| holder.map_or("nobody", Port::name);
    if seen.before == seen.after {
        format!("{} epoch {}", name(seen.after.holder), seen.after.epoch)
    } else {
        format!("{} -> {} epoch {}", name(seen.before.holder), name(seen.after.holder), seen.after.epoch)
    }
}

/// What agents that did nothing had to say, and did not.
fn unsaid(fault: Fault, expected: &Expectation, refusals: &[String]) -> Option<String> {
    let code = expected.refusal?;
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    if !refusals.iter().any(|refusal| plain(refusal).contains(&plain(code))) {
        return Some(format!("no agent said {code}, but {refusals:?}"));
    }
    fault.told(refusals).err().map(|error| format!("{error:#}"))
}

/// What was promised and broken.
fn failures(plan: &Plan, expected: &Expectation, seen: &Seen) -> Vec<String> {
    let mut reasons = Vec::new();
    let changes = u64::from(seen.bounds.holder_changes);
    if !expected.changes.admits(changes) {
        reasons.push(format!("the holder changed {changes} times, expected {:?}", expected.changes));
    }
    if !seen.outlasted.served {
        reasons.push("the client was not served again in time".into());
    }
    if seen.outlasted.served_on > 0 {
        let writes = seen.outlasted.served_on;
        reasons.push(format!("{writes} writes were acknowledged while nobody was to serve"));
    }
    reasons.extend(seen.outlasted.not_restored.clone());
    reasons.extend(seen.outlasted.not_whole.clone());
    if seen.verdict.two_holders_ms > 0 {
        reasons
            .push(format!("two machines answered for the virtual IP for {} ms", seen.verdict.two_holders_ms));
    }
    for kind in plan.driver.kinds().iter().copied() {
        match seen.verdict.kinds.get(&kind) {
            Some(judged) => {
                let lost_max = lost_max(kind, plan.fault, expected, changes);
                reasons.extend(broken(kind, judged, lost_max, expected.loses));
                reasons.extend(too_long(kind, judged, expected));
            }
            None => reasons.push(format!("{kind} was never written to")),
        }
    }
    reasons.extend(unrecorded(plan, expected, seen));
    reasons.extend(opened_too_early(plan.fault, seen));
    reasons
}

/// How many acknowledged writes may be lost; none: as many as there are.
fn lost_max(kind: Kind, fault: Fault, expected: &Expectation, changes: u64) -> Option<usize> {
    match kind {
        Kind::Mysql => (!expected.loses).then_some(0),
        Kind::Redis => {
            // With an order under way the holder may change once more than by the fault, and lose what it loses by that.
            let alone = expected.changes == fault.expectation().changes;
            let max = expected.redis_lost_max.filter(|_| alone)?;
            // Whoever holds the baton all the time has what it acknowledged.
            let stayed = expected.changes == Changes::AtMostOne && changes == 0;
            Some(if stayed { 0 } else { max })
        }
    }
}

fn too_long(kind: Kind, judged: &KindVerdict, expected: &Expectation) -> Option<String> {
    let later_ms = match kind {
        Kind::Mysql => 0,
        Kind::Redis => expected.redis_later_ms,
    };
    let (outage_ms, max_ms) = (judged.outage_us / 1000, expected.outage_max_ms? + later_ms);
    (outage_ms > max_ms).then(|| format!("{kind} was away for {outage_ms} ms, at most {max_ms} ms expected"))
}

/// Agents have a record of every takeover, from which its phases come. Other systems have none.
fn unrecorded(plan: &Plan, expected: &Expectation, seen: &Seen) -> Option<String> {
    let agents = matches!(plan.driver, Driver::Agents { .. });
    let once = expected.changes == Changes::One && seen.bounds.holder_changes == 1;
    let taken_over = agents && once && plan.fault != Fault::Switchover;
    (taken_over && seen.phases_ms.is_empty()).then(|| "no agent has a record of the takeover".into())
}

/// A target that was lost before the point of no return, so that the last holder got the baton anew, has acknowledged nothing.
fn opened_too_early(fault: Fault, seen: &Seen) -> Option<String> {
    let given_up = fault == Fault::TargetLossDuringTakeover && seen.before.holder == seen.after.holder;
    let handovers = seen.verdict.kinds.values().map(|judged| judged.handovers).max().unwrap_or(0);
    (given_up && handovers > 0)
        .then(|| "the target acknowledged writes, and the last holder serves again".into())
}

fn broken(kind: Kind, judged: &KindVerdict, lost_max: Option<usize>, loses: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut say = |ids: &[u64], what: &str| {
        if let Some(first) = ids.first() {
            reasons.push(format!("{kind}: {} writes {what}, the first is {first}", ids.len()));
        }
    };
    if let Some(max) = lost_max.filter(|max| judged.lost.len() > *max) {
        let beyond = if max == 0 { String::new() } else { format!(", at most {max} expected") };
        say(&judged.lost, &format!("acknowledged and lost{beyond}"));
    }
    say(&judged.duplicated, "done twice");
    say(&judged.resurrected, "refused and there all the same");
    say(&judged.interleaved, "acknowledged by one server while another served");
    if kind == Kind::Mysql && loses && judged.lost.is_empty() {
        reasons.push("mysql: nothing was lost, so nothing had to be accepted".into());
    }
    if judged.unread {
        reasons.push(format!("{kind}: the holder's contents could not be read"));
    }
    reasons
}

/// Removes the report of an earlier run: one that comes to no end must not leave its verdict behind.
///
/// # Errors
/// It is there and cannot be removed.
pub fn forget(fault: Fault, flavour: Flavour) -> Result<()> {
    match std::fs::remove_file(dir()?.join(format!("{}.json", file_stem(fault.name(), flavour.name())))) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Report {
    /// A report of nothing, for tests that fill in what they are about.
    #[cfg(test)]
    pub(crate) fn blank(result: Outcome) -> Self {
        Self {
            fault: String::new(),
            flavour: Flavour::Mariadb.name(),
            system: String::new(),
            outage_ms: BTreeMap::new(),
            lost_acknowledged: BTreeMap::new(),
            two_holders_ms: 0,
            holder_changes: 0,
            interleaved: 0,
            at: None,
            phases_ms: BTreeMap::new(),
            timer_late_p99_us: 0,
            result,
            reasons: Vec::new(),
            refusals: Vec::new(),
            bit: true,
            served: true,
            doubts: Vec::new(),
            holder: String::new(),
        }
    }

    /// The timeline beside the budgets, and the closing line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (phase, budget_ms) in BUDGETS_MS {
            if let Some(ms) = self.phases_ms.get(phase) {
                let over = if *ms > budget_ms { "  OVER" } else { "" };
                let _ = writeln!(
                    text,
                    "  {phase:<17}{:>8.3} s   budget {:>2} s{over}",
                    seconds(*ms),
                    budget_ms / 1000
                );
            }
        }
        for refusal in &self.refusals {
            let _ = writeln!(text, "  held back: {refusal}");
        }
        for reason in &self.reasons {
            let _ = writeln!(text, "  {reason}");
        }
        let outage =
            |kind| self.outage_ms.get(&kind).map_or("-".into(), |ms| format!("{:.2} s", seconds(*ms)));
        let lost = |kind| self.lost_acknowledged.get(&kind).map_or("-".into(), ToString::to_string);
        let _ = write!(
            text,
            "outage mysql {} redis {} · lost acknowledged mysql {} redis {} · two holders {} ms · holder {} · {}",
            outage(Kind::Mysql),
            outage(Kind::Redis),
            lost(Kind::Mysql),
            lost(Kind::Redis),
            self.two_holders_ms,
            self.holder,
            self.result.name()
        );
        text
    }

    /// Writes it as JSON where the latest report of this fault is looked for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<PathBuf> {
        let path = dir()?.join(format!("{}.json", file_stem(&self.fault, self.flavour)));
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests;
