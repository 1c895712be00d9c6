//! Side by side: the product and keepalived, in the same lab, with the same client, alternating in one session.
//!
//! Alternating, because a machine is not the same in the morning and in the evening. Each run has a lab of its own, and
//! the fault comes at a random age of the lease or of the advert. What is counted stands beside what is timed: a fast
//! system that loses writes or has two holders is not fast.

mod cost;
pub mod rejoin;
pub mod switchover;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use baton_chaos::history::Kind;
use serde::Serialize;

use crate::fault::Fault;
use crate::lab::{Driver, target_dir, wait};
use crate::run::{self, Plan, Report, system};
pub use cost::{AgentCost, Cost, ThreadCost};

/// What every system is tried with besides the power loss, once each.
const SIDE: [Fault; 2] = [Fault::PartitionPair, Fault::AgentFreeze];

/// The measured outages and damages.
#[derive(Debug, Default, Serialize)]
pub struct Bench {
    unit: &'static str,
    /// Outages at power loss, by system and kind of data, milliseconds, in the order of the runs. Of the product only those of
    /// runs that passed; of the others also those of runs that broke something.
    pub series: BTreeMap<String, BTreeMap<Kind, Vec<u64>>>,
    /// Milliseconds with two holders, by system and fault; the worst run.
    pub two_holders_ms: BTreeMap<String, BTreeMap<String, u64>>,
    /// Acknowledged MySQL writes lost, by system, all runs together.
    pub lost_acknowledged: BTreeMap<String, usize>,
    /// Acknowledged Redis writes lost, by system, all runs together.
    pub lost_acknowledged_redis: BTreeMap<String, usize>,
    /// Acknowledged writes lost, by system, fault and kind of data, all runs together.
    pub lost_by_fault: BTreeMap<String, BTreeMap<String, BTreeMap<Kind, usize>>>,
    /// Runs that did not come about, since the system did not get ready, by system.
    pub not_run: BTreeMap<String, usize>,
    /// Runs whose verdict was not PASS, by system.
    pub not_passed: BTreeMap<String, usize>,
    /// What an idle agent costs; none if the product was not among the systems.
    pub agent: Option<Cost>,
}

/// Measures `runs` power losses and one of each other fault per system. `say` gets a line per run.
///
/// # Errors
/// The process is told to stop.
pub fn measure(systems: &[Driver], runs: u32, mut say: impl FnMut(&str)) -> Result<Bench> {
    let mut bench = Bench { unit: "ms", ..Bench::default() };
    let losses = (0..runs).map(|_| Fault::PowerLoss);
    for fault in losses.chain(SIDE) {
        for driver in systems {
            let report = match run::run(&Plan { docker: false, ..Plan::usual(driver.clone(), fault) }) {
                Ok(report) => report,
                Err(_) if wait::is_interrupted() => bail!("interrupted"),
                // A system that does not get ready is a result too, and no reason to lose the others.
                Err(error) => {
                    say(&format!("{} {}: no run: {error:#}", system(driver), fault.name()));
                    *bench.not_run.entry(system(driver)).or_default() += 1;
                    continue;
                }
            };
            say(&format!("{} {fault_name}: {}", report.system, report.text(), fault_name = fault.name()));
            bench.add(fault, &report);
        }
    }
    if let Some(standard) = systems.iter().find(|driver| system(driver) == "baton-standard") {
        bench.agent =
            cost::measure(standard.clone()).inspect_err(|error| say(&format!("no cost: {error:#}"))).ok();
    }
    Ok(bench)
}

/// Watches three idle agents for a minute.
///
/// # Errors
/// The lab does not come up, or an agent ends meanwhile.
pub fn cost(driver: Driver) -> Result<Cost> {
    cost::measure(driver)
}

impl Bench {
    fn add(&mut self, fault: Fault, report: &Report) {
        let name = report.system.clone();
        if fault == Fault::PowerLoss && is_a_measure(report) {
            for (kind, ms) in &report.outage_ms {
                self.series.entry(name.clone()).or_default().entry(*kind).or_default().push(*ms);
            }
        }
        let worst =
            self.two_holders_ms.entry(name.clone()).or_default().entry(fault.name().into()).or_default();
        *worst = report.two_holders_ms.max(*worst);
        let lost = |kind| report.lost_acknowledged.get(&kind).copied().unwrap_or(0);
        *self.lost_acknowledged.entry(name.clone()).or_default() += lost(Kind::Mysql);
        *self.lost_acknowledged_redis.entry(name.clone()).or_default() += lost(Kind::Redis);
        let by_fault = self.lost_by_fault.entry(name.clone()).or_default().entry(fault.name().into());
        let by_fault = by_fault.or_default();
        for kind in Kind::ALL {
            *by_fault.entry(kind).or_default() += lost(kind);
        }
        *self.not_passed.entry(name).or_default() += usize::from(report.result != run::Outcome::Pass);
    }

    /// Why the figures are no good ones: a run of the product that did not come about or did not pass, or a lost write.
    #[must_use]
    pub fn flaws(&self) -> Vec<String> {
        let counts = [
            (&self.not_run, "runs did not come about"),
            (&self.not_passed, "runs did not pass"),
            (&self.lost_acknowledged, "acknowledged MySQL writes were lost"),
        ];
        let each = counts.into_iter().flat_map(|(counted, what)| {
            let broken = counted.iter().filter(|(system, count)| is_ours(system) && **count > 0);
            broken.map(move |(system, count)| format!("{system}: {count} {what}"))
        });
        each.collect()
    }

    /// The table for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from("outage at power loss        median    min    max  ms\n");
        for (system, kinds) in &self.series {
            for (kind, each) in kinds {
                let (min, max) = (each.iter().min(), each.iter().max());
                let (Some(min), Some(max), Some(median)) = (min, max, median(each)) else { continue };
                let ratios = if *kind == Kind::Mysql { self.ratios(system, median) } else { String::new() };
                let _ = writeln!(text, "{system:<18} {kind:<6} {median:>8} {min:>6} {max:>6}{ratios}");
            }
        }
        for (system, faults) in &self.two_holders_ms {
            let each = faults.iter().map(|(fault, ms)| {
                let lost = |kind| self.lost_by_fault.get(system)?.get(fault)?.get(&kind).copied();
                let (mysql, redis) = (lost(Kind::Mysql).unwrap_or(0), lost(Kind::Redis).unwrap_or(0));
                format!("{fault}: two holders {ms} ms, lost mysql {mysql} redis {redis}")
            });
            let _ = writeln!(text, "{system:<18} {}", each.collect::<Vec<_>>().join("; "));
        }
        for (system, runs) in self.not_run.iter().chain(&self.not_passed).filter(|(_, runs)| **runs > 0) {
            let _ = writeln!(text, "{system:<18} {runs} runs did not pass or did not come about");
        }
        if let Some(cost) = &self.agent {
            let _ = writeln!(text, "{cost}");
        }
        text
    }

    /// How long the outage is beside that of each keepalived, where both were measured.
    fn ratios(&self, system: &str, median_ms: u64) -> String {
        let others = ["keepalived-1s", "keepalived-100ms"].into_iter().filter(|other| *other != system);
        let each = others.filter_map(|other| {
            let theirs = self.median(other, Kind::Mysql)?;
            Some(format!("   {other} takes {:.2} times as long", ratio(theirs, median_ms)))
        });
        each.collect()
    }

    fn median(&self, system: &str, kind: Kind) -> Option<u64> {
        median(self.series.get(system)?.get(&kind)?)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<PathBuf> {
        let dir = target_dir().join("bench");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join("outage.json");
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

/// Whether the outage of a run is one to count. What another system breaks is expected, and no reason to leave it out.
fn is_a_measure(report: &Report) -> bool {
    match report.result {
        run::Outcome::Pass => true,
        run::Outcome::Fail => !is_ours(&report.system),
        run::Outcome::Inconclusive => false,
    }
}

/// Whether it is the product, in whatever profile.
fn is_ours(system: &str) -> bool {
    system.starts_with("baton-")
}

fn median(each: &[u64]) -> Option<u64> {
    let mut sorted = each.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn ratio(of: u64, to: u64) -> f64 {
    std::time::Duration::from_millis(of).as_secs_f64()
        / std::time::Duration::from_millis(to.max(1)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Outcome;

    fn report(system: &str, result: Outcome, ms: u64) -> Report {
        Report {
            system: system.into(),
            outage_ms: Kind::ALL.into_iter().map(|kind| (kind, ms)).collect(),
            ..Report::blank(result)
        }
    }

    #[test]
    fn a_run_that_broke_something_is_no_outage_of_ours() {
        let mut bench = Bench::default();
        for (result, ms) in [(Outcome::Pass, 1), (Outcome::Fail, 2), (Outcome::Inconclusive, 3)] {
            for system in ["baton-fast", "keepalived-1s"] {
                bench.add(Fault::PowerLoss, &report(system, result, ms));
                bench.add(Fault::AgentFreeze, &report(system, result, ms + 10));
            }
        }
        for kind in Kind::ALL {
            assert_eq!(bench.series["baton-fast"][&kind], [1]);
            assert_eq!(bench.series["keepalived-1s"][&kind], [1, 2]);
        }
        assert_eq!((bench.not_passed["baton-fast"], bench.not_passed["keepalived-1s"]), (4, 4));
        assert_eq!(bench.flaws(), ["baton-fast: 4 runs did not pass"]);
    }

    #[test]
    fn a_lost_write_and_a_missing_run_of_ours_are_flaws() {
        let mut bench = Bench::default();
        for system in ["baton-standard", "keepalived-1s"] {
            let lost = [(Kind::Mysql, 2), (Kind::Redis, 5)].into();
            bench.add(
                Fault::PowerLoss,
                &Report { lost_acknowledged: lost, ..report(system, Outcome::Pass, 1) },
            );
        }
        assert_eq!(bench.flaws(), ["baton-standard: 2 acknowledged MySQL writes were lost"]);
        bench.lost_acknowledged.clear();
        assert_eq!(bench.flaws(), [""; 0]);
        for system in ["baton-standard", "keepalived-1s"] {
            bench.not_run.insert(system.into(), 1);
        }
        assert_eq!(bench.flaws(), ["baton-standard: 1 runs did not come about"]);
    }
}
