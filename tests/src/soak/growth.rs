//! Whether what should not grow grows: an agent's memory and open files, its log of Raft, its flight recorder, its text log.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::{Lab, Port, agents, process};

/// What an agent had at the end of a round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The round.
    pub round: u32,
    /// The lab.
    pub lab: String,
    /// The node.
    pub node: &'static str,
    /// The process: memory and files of two processes are not compared.
    pub pid: i32,
    /// The figures, by name.
    pub figures: BTreeMap<&'static str, f64>,
}

/// Figures that belong to a process; the others belong to a node.
const OF_A_PROCESS: [&str; 2] = ["memory MiB", "open files"];

/// How a figure has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Trend {
    /// In the first sample.
    pub first: f64,
    /// In the last.
    pub last: f64,
    /// The largest.
    pub max: f64,
    /// Per round, fitted over the samples of one process or one lab at a time.
    pub per_round: f64,
    /// How many samples stand behind the slope: those of a process that was seen at least twice.
    pub samples: usize,
}

/// Looks at the three agents.
///
/// # Errors
/// One does not run.
pub fn sample(lab: &Lab, round: u32) -> Result<Vec<Sample>> {
    agents::NODES.into_iter().map(|port| one(lab, round, port)).collect()
}

fn one(lab: &Lab, round: u32, port: Port) -> Result<Sample> {
    let host = lab.host(port);
    let pid = host.process("agent")?.pid().with_context(|| format!("no agent on {}", port.name()))?;
    let state = host.dir.join("state");
    let figures = BTreeMap::from([
        (OF_A_PROCESS[0], process::resident_kib(pid)? / 1024.0),
        (OF_A_PROCESS[1], std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64),
        ("Raft log KiB", kib(&state, &|path| path.extension().is_some_and(|end| end == "redb"))),
        ("flight recorder KiB", kib(&state, &|path| path.extension().is_some_and(|end| end == "jsonl"))),
        ("text log KiB", kib(&host.dir, &|path| path.ends_with("agent.log"))),
    ]);
    Ok(Sample { round, lab: lab.id.clone(), node: port.name(), pid: pid.as_raw(), figures })
}

/// All files below a directory together that are of the kind. What vanishes meanwhile is not counted.
fn kib(dir: &Path, is_of_the_kind: &dyn Fn(&Path) -> bool) -> f64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0.0 };
    let of = |path: &Path| match path.is_dir() {
        true => kib(path, is_of_the_kind),
        false if is_of_the_kind(path) => path.metadata().map_or(0.0, |about| about.len() as f64 / 1024.0),
        false => 0.0,
    };
    entries.flatten().map(|entry| of(&entry.path())).sum()
}

/// The trend of each figure, all agents together.
#[must_use]
pub fn trends(samples: &[Sample]) -> BTreeMap<&'static str, Trend> {
    let names: Vec<&'static str> =
        samples.first().map(|sample| sample.figures.keys().copied().collect()).unwrap_or_default();
    names.into_iter().map(|name| (name, trend(samples, name))).collect()
}

/// Rounds with what was seen in them.
type Points = Vec<(f64, f64)>;

fn trend(samples: &[Sample], name: &str) -> Trend {
    // By lab, node and process.
    let mut groups: BTreeMap<(&str, &str, i32), Points> = BTreeMap::new();
    let mut each = Vec::new();
    for sample in samples {
        let Some(figure) = sample.figures.get(name).copied() else { continue };
        let pid = if OF_A_PROCESS.contains(&name) { sample.pid } else { 0 };
        groups.entry((&sample.lab, sample.node, pid)).or_default().push((f64::from(sample.round), figure));
        each.push(figure);
    }
    groups.retain(|_, points| points.len() > 1);
    Trend {
        first: each.first().copied().unwrap_or(0.0),
        last: each.last().copied().unwrap_or(0.0),
        max: each.iter().copied().fold(0.0, f64::max),
        per_round: slope(groups.values()),
        samples: groups.values().map(Vec::len).sum(),
    }
}

/// Least squares with one slope for all groups and a level for each.
fn slope<'a>(groups: impl Iterator<Item = &'a Points>) -> f64 {
    let (mut both, mut own) = (0.0, 0.0);
    for points in groups {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        both += points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>();
        own += points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    }
    if own > 0.0 { both / own } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u32, pid: i32, memory: f64, log: f64) -> Sample {
        let figures = BTreeMap::from([(OF_A_PROCESS[0], memory), ("Raft log KiB", log)]);
        Sample { round, lab: "a".into(), node: "db1", pid, figures }
    }

    #[test]
    fn memory_is_followed_within_a_process_and_a_log_over_all_of_them() {
        // Two processes that do not grow, the second of which is smaller; and a log that grows by 4 a round throughout.
        let samples = [
            sample(1, 10, 30.0, 4.0),
            sample(2, 10, 30.0, 8.0),
            sample(3, 11, 20.0, 12.0),
            sample(4, 11, 20.0, 16.0),
        ];
        let trends = trends(&samples);
        let memory = trends[OF_A_PROCESS[0]];
        assert!(memory.per_round.abs() < 1e-9, "{memory:?}");
        assert_eq!((memory.first, memory.last, memory.max, memory.samples), (30.0, 20.0, 30.0, 4));
        let log = trends["Raft log KiB"];
        assert!((log.per_round - 4.0).abs() < 1e-9, "{log:?}");
    }

    #[test]
    fn a_process_that_grows_is_seen() {
        let samples: Vec<Sample> =
            (0..10).map(|round| sample(round, 10, 30.0 + f64::from(round) / 2.0, 0.0)).collect();
        assert!((trends(&samples)[OF_A_PROCESS[0]].per_round - 0.5).abs() < 1e-9);
        // One look at each process says nothing.
        let restarted: Vec<Sample> =
            (0..10).map(|round| sample(round, round.try_into().unwrap(), f64::from(round), 0.0)).collect();
        assert_eq!(trends(&restarted)[OF_A_PROCESS[0]].samples, 0);
    }
}
