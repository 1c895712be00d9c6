//! How long a node that was away takes to be in sync again, under the load of the planned moves.
//!
//! One lab per family, one load over all of its runs. The backup loses power and stays away for a minute; the time runs from
//! the moment at which its power is back, so that the boot of its servers and of its agent is in it, until the agents say
//! that a takeover is possible and the ledger that every acknowledged write is there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use baton_chaos::check::{Bounds, check};
use baton_chaos::history::{Kind, Origin};
use baton_chaos::load::{Load, LoadOptions};
use serde::Serialize;

use super::median;
use super::switchover::{CLIENTS, PERIOD, READY_WITHIN, ready};
use crate::lab::{DATA, Driver, Flavour, Lab, Options, Port, target_dir, wait};

/// How long the node is away.
const AWAY: Duration = Duration::from_secs(60);
/// How long the load goes on between two runs.
const BETWEEN: Duration = Duration::from_secs(3);

/// The measured times.
#[derive(Debug, Default, Serialize)]
pub struct Rejoins {
    unit: &'static str,
    /// From the node's return until it is in sync, by family, milliseconds, in the order of the runs.
    pub series: BTreeMap<String, Vec<u64>>,
    /// The part of it in which its servers booted.
    pub booted: BTreeMap<String, Vec<u64>>,
    /// Writes of MySQL that were acknowledged while it was away, by family.
    pub missed_writes: BTreeMap<String, Vec<u64>>,
    /// Acknowledged writes of MySQL that were lost, by family.
    pub lost_acknowledged: BTreeMap<String, usize>,
}

/// Measures `runs` returns per family. `say` gets a line per run.
///
/// # Errors
/// A lab does not come up, or a node does not come back.
pub fn measure(runs: u32, mut say: impl FnMut(&str)) -> Result<Rejoins> {
    let mut all = Rejoins { unit: "ms", ..Rejoins::default() };
    for flavour in [Flavour::Mariadb, Flavour::Mysql] {
        if flavour.is_there() {
            all.series_of(flavour, runs, &mut say)?;
        } else {
            say(&format!("skipped: no {}; `make mysql` fetches MySQL", flavour.name()));
        }
    }
    Ok(all)
}

impl Rejoins {
    fn series_of(&mut self, flavour: Flavour, runs: u32, say: &mut impl FnMut(&str)) -> Result<()> {
        let name = flavour.name();
        let driver = Driver::Agents { profile: "standard".into() };
        let lab = Lab::up(Options { flavour, ..Options::plain(driver) })?;
        let holder = ready(&lab)?;
        let origin = Origin::new();
        let load = Load::start(LoadOptions { clients: CLIENTS, period: PERIOD, ..lab.load(origin) })?;
        for run in 1..=runs {
            wait::pass(BETWEEN)?;
            ensure!(ready(&lab)? == holder, "the holder changed by itself");
            let missed = load.acknowledged(Kind::Mysql);
            let (came_us, booted_us) = away_and_back(&lab, holder, origin)?;
            let took_ms = (origin.now_us() - came_us) / 1000;
            let booted_ms = (booted_us - came_us) / 1000;
            let missed = load.acknowledged(Kind::Mysql) - missed;
            self.series.entry(name.into()).or_default().push(took_ms);
            self.booted.entry(name.into()).or_default().push(booted_ms);
            self.missed_writes.entry(name.into()).or_default().push(missed);
            say(&format!(
                "{name} run {run}: in sync after {took_ms} ms, {booted_ms} ms of it its servers' boot; {missed} writes"
            ));
        }
        let end_us = origin.now_us();
        let history = load.stop()?;
        let bounds = Bounds { fault_us: 0, end_us, holder_changes: 0 };
        let verdict = check(&history, &lab.contents(holder), bounds);
        let judged = verdict.kinds.get(&Kind::Mysql);
        ensure!(judged.is_some_and(|judged| !judged.unread), "the contents could not be read");
        self.lost_acknowledged.insert(name.into(), judged.map_or(0, |judged| judged.lost.len()));
        Ok(())
    }

    /// The table for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from("in sync after a minute away   median    min    max  ms   lost\n");
        for (family, each) in &self.series {
            let (Some(min), Some(max), Some(median)) = (each.iter().min(), each.iter().max(), median(each))
            else {
                continue;
            };
            let lost = self.lost_acknowledged.get(family).copied().unwrap_or(0);
            let _ = writeln!(text, "{family:<29} {median:>8} {min:>6} {max:>6}      {lost:>5}");
        }
        text
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<PathBuf> {
        let dir = target_dir().join("bench");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join("rejoin.json");
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

/// Returns when the node is in sync again, with the instants at which its power was back and its servers answered.
fn away_and_back(lab: &Lab, holder: Port, origin: Origin) -> Result<(u64, u64)> {
    let [a, b] = DATA;
    let node = if holder == a { b } else { a };
    lab.power_off(node)?;
    wait::pass(AWAY)?;
    let standing = lab.standing()?;
    ensure!(!standing.in_sync && !standing.ok, "nobody missed it: {}", standing.text);
    let came_us = origin.now_us();
    lab.power_on(node)?;
    let booted_us = origin.now_us();
    wait::until_true("the node to be in sync again", READY_WITHIN, || {
        let standing = lab.standing()?;
        ensure!(standing.ok && standing.in_sync, "{}", standing.text);
        Ok(true)
    })?;
    Ok((came_us, booted_us))
}
