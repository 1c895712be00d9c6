//! The comparison: every system under every fault that means something to it, in the same lab, with the same client.
//!
//! The systems alternate within a round, and the rounds follow each other, since a machine is not the same in the morning and in
//! the evening. A fault that cannot happen to a system is not applicable, which is not the same as without damage; a run that
//! the harness cannot vouch for is left out of the figures, and counted.

pub mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use baton_chaos::history::Kind;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::lab::{Driver, target_dir, wait};
use crate::run::{self, Plan, Report, system};

/// The faults, in the order of the tables.
pub const FAULTS: [Fault; 8] = [
    Fault::PowerLoss,
    Fault::LinkDown,
    Fault::PartitionPrimary,
    Fault::PartitionPair,
    Fault::AgentFreeze,
    Fault::MysqldKill,
    Fault::MysqldFreeze,
    Fault::RedisKill,
];

/// The systems, in the order of the tables.
pub const SYSTEMS: [&str; 6] =
    ["baton-standard", "baton-fast", "keepalived-1s", "keepalived-100ms", "pacemaker", "redis-sentinel"];

/// What was measured, as it is written to `target/bench/compare.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    unit: String,
    /// The most runs that any pair of system and fault has had.
    pub runs: u32,
    /// By system and fault. A pair that is not there was not measured, or is not applicable.
    pub systems: BTreeMap<String, BTreeMap<String, Cell>>,
    /// The faults that cannot happen to a system, by system.
    pub not_applicable: BTreeMap<String, Vec<String>>,
}

impl Default for Comparison {
    fn default() -> Self {
        Self { unit: "ms".into(), runs: 0, systems: BTreeMap::new(), not_applicable: BTreeMap::new() }
    }
}

/// What one fault did to one system, all runs together. A kind of data that the system does not look after is in no map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Longest time without an acknowledgement, of each run.
    pub outage_ms: BTreeMap<Kind, Vec<u64>>,
    /// Acknowledged writes that the last holder did not have, of all runs whose contents could be read.
    pub lost_acknowledged: BTreeMap<Kind, usize>,
    /// Milliseconds in which two machines answered for the virtual IP, of each run.
    pub two_holders_ms: Vec<u64>,
    /// Runs in which the client was not served again while it was watched: that outage is at least as long as it says.
    pub not_served_again: u32,
    /// Runs after which nobody served, or its contents could not be read: what was lost is not known.
    pub unread: BTreeMap<Kind, u32>,
    /// Runs that did not come about, or that the harness cannot vouch for. Nothing of them is in the figures.
    pub not_measured: u32,
}

/// Whether a fault can happen to a system at all.
#[must_use]
pub fn applies(driver: &Driver, fault: Fault) -> bool {
    let of_mysql = matches!(fault, Fault::MysqldKill | Fault::MysqldFreeze);
    !of_mysql || driver.kinds().contains(&Kind::Mysql)
}

/// Does `runs` rounds of every fault with every system, and saves after each run. `say` gets a line per run.
///
/// # Errors
/// The process is told to stop, or the file cannot be written.
pub fn measure(
    comparison: &mut Comparison,
    systems: &[Driver],
    faults: &[Fault],
    runs: u32,
    mut say: impl FnMut(&str),
) -> Result<()> {
    for fault in (0..runs).flat_map(|_| faults.iter().copied()) {
        for driver in systems {
            let (name, fault_name) = (system(driver), fault.name());
            if !applies(driver, fault) {
                comparison.leave_out(&name, fault_name);
                continue;
            }
            match run::run(&Plan { docker: false, ..Plan::usual(driver.clone(), fault) }) {
                Ok(report) => {
                    say(&format!("{name} {fault_name}:\n{}", report.text()));
                    comparison.add(&report, driver.kinds());
                }
                Err(_) if wait::is_interrupted() => bail!("interrupted"),
                // A system that does not get ready is a result too, and no reason to lose the others.
                Err(error) => {
                    say(&format!("{name} {fault_name}: no run: {error:#}"));
                    comparison.cell(&name, fault_name).not_measured += 1;
                }
            }
            comparison.save()?;
        }
    }
    Ok(())
}

impl Comparison {
    fn cell(&mut self, system: &str, fault: &str) -> &mut Cell {
        self.systems.entry(system.into()).or_default().entry(fault.into()).or_default()
    }

    fn leave_out(&mut self, system: &str, fault: &str) {
        let left_out = self.not_applicable.entry(system.into()).or_default();
        if !left_out.iter().any(|there| there == fault) {
            left_out.push(fault.into());
        }
    }

    /// Counts a run in.
    fn add(&mut self, report: &Report, kinds: &[Kind]) {
        let cell = self.cell(&report.system, &report.fault);
        let measured =
            report.doubts.is_empty() && kinds.iter().all(|kind| report.outage_ms.contains_key(kind));
        if measured {
            cell.add(report, kinds);
        } else {
            cell.not_measured += 1;
        }
        let runs = u32::try_from(cell.two_holders_ms.len()).unwrap_or(u32::MAX);
        self.runs = self.runs.max(runs);
    }

    /// Where it is kept.
    #[must_use]
    pub fn path() -> PathBuf {
        target_dir().join("bench/compare.json")
    }

    /// What was saved last.
    ///
    /// # Errors
    /// There is none, or it is not readable.
    pub fn saved() -> Result<Self> {
        let path = Self::path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<PathBuf> {
        let path = Self::path();
        std::fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

impl Cell {
    fn add(&mut self, report: &Report, kinds: &[Kind]) {
        for kind in kinds.iter().copied() {
            self.outage_ms.entry(kind).or_default().extend(report.outage_ms.get(&kind));
            match report.lost_acknowledged.get(&kind) {
                Some(lost) => *self.lost_acknowledged.entry(kind).or_default() += lost,
                None => *self.unread.entry(kind).or_default() += 1,
            }
        }
        self.two_holders_ms.push(report.two_holders_ms);
        self.not_served_again += u32::from(!report.served);
    }
}

#[cfg(test)]
mod tests;
