//! What many rounds came to, for people and for programs. Pure, but for saving it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use baton_chaos::history::Kind;
use serde::Serialize;

use super::coverage::{Tally, ages, begun_codes, struck, tallies};
use super::draw::Round;
use super::growth::{Sample, Trend, trends};
use crate::run::Outcome;

/// What came of a round.
#[derive(Debug, Clone, Serialize)]
pub struct Played {
    /// What it was.
    #[serde(flatten)]
    pub round: Round,
    /// The lab in which it was played.
    pub lab: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not pass.
    pub reasons: Vec<String>,
    /// The fault was seen to bite.
    pub bit: bool,
    /// How often the holder changed.
    pub holder_changes: u64,
    /// Longest time without an acknowledgement, milliseconds.
    pub outage_ms: BTreeMap<Kind, u64>,
    /// Acknowledged writes that are missing, accepted losses left out.
    pub lost: BTreeMap<Kind, usize>,
    /// Milliseconds in which two machines answered for the virtual IP.
    pub two_holders_ms: u64,
    /// How old the lease was when the fault struck, milliseconds, as the holder said.
    pub lease_age_ms: Option<u64>,
    /// Exit code of the switchover that was under way, if one was.
    pub begun_code: Option<i32>,
    /// How long the round took, seconds.
    pub seconds: f64,
    /// Where everything is that is needed to look at it.
    pub kept: Option<PathBuf>,
}

/// A round in which something was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its number.
    pub round: u32,
    /// The seed.
    pub seed: u64,
    /// What it was.
    pub what: String,
    /// What was broken.
    pub reasons: Vec<String>,
    /// Where everything is that is needed to look at it.
    pub kept: Option<PathBuf>,
    /// The command that plays it again.
    pub again: String,
}

/// What a soak came to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Which databases.
    pub flavour: String,
    /// How many labs were raised.
    pub labs: u32,
    /// How long all rounds took, minutes.
    pub minutes: f64,
    /// Rounds that prove something: passed or failed.
    pub rounds: usize,
    /// Rounds whose harness cannot vouch for what it saw.
    pub inconclusive: usize,
    /// Rounds in which something was broken.
    pub violations: usize,
    /// With 95 % confidence a round is broken less often than in this part of all rounds.
    pub bound_95: f64,
    /// Acknowledged writes of MySQL that were lost, accepted losses left out.
    pub lost_acknowledged: usize,
    /// Acknowledged writes of Redis that were lost: counted, not promised.
    pub lost_acknowledged_redis: usize,
    /// Milliseconds in which two machines answered for the virtual IP, all rounds together.
    pub two_holders_ms: u64,
    /// Outages of MySQL, milliseconds, one per round that proves something, in their order.
    pub outage_ms: Vec<u64>,
    /// The same of Redis.
    pub outage_redis_ms: Vec<u64>,
    /// By what was done.
    pub faults: BTreeMap<String, Tally>,
    /// How often a fault struck at a step, by run, step and moment.
    pub steps: BTreeMap<String, usize>,
    /// Steps that were never struck.
    pub steps_never: Vec<String>,
    /// How many faults struck at which age of the lease, in classes of 50 ms, by the class's lower end.
    pub lease_age_ms: BTreeMap<u64, usize>,
    /// How the switchovers ended during which a fault struck, by exit code.
    pub begun_codes: BTreeMap<i32, usize>,
    /// What has grown, all agents together.
    pub growth: BTreeMap<&'static str, Trend>,
    /// What was broken.
    pub failures: Vec<Failure>,
}

impl Summary {
    /// Sums up.
    #[must_use]
    pub fn of(seed: u64, flavour: &str, labs: u32, played: &[Played], samples: &[Sample]) -> Self {
        let proven: Vec<&Played> = played.iter().filter(|one| one.outcome != Outcome::Inconclusive).collect();
        let failures: Vec<Failure> = proven
            .iter()
            .filter(|one| one.outcome == Outcome::Fail)
            .map(|one| failure(one, flavour))
            .collect();
        let lost = |kind| played.iter().filter_map(|one| one.lost.get(&kind)).sum();
        let outages = |kind| proven.iter().filter_map(|one| one.outage_ms.get(&kind).copied()).collect();
        let steps = struck(played);
        Self {
            seed,
            flavour: flavour.into(),
            labs,
            minutes: played.iter().map(|one| one.seconds).sum::<f64>() / 60.0,
            rounds: proven.len(),
            inconclusive: played.len() - proven.len(),
            violations: failures.len(),
            bound_95: bound_95(failures.len(), proven.len()),
            lost_acknowledged: lost(Kind::Mysql),
            lost_acknowledged_redis: lost(Kind::Redis),
            two_holders_ms: played.iter().map(|one| one.two_holders_ms).sum(),
            outage_ms: outages(Kind::Mysql),
            outage_redis_ms: outages(Kind::Redis),
            faults: tallies(played),
            steps_never: steps.iter().filter(|(_, hits)| **hits == 0).map(|(step, _)| step.clone()).collect(),
            steps: steps.into_iter().filter(|(_, hits)| *hits > 0).collect(),
            lease_age_ms: ages(played),
            begun_codes: begun_codes(played),
            growth: trends(samples),
            failures,
        }
    }

    /// The table for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:<44} rounds   bit  holder     cut  outage ms, mysql  violations\n{:<44}              changed          median      max\n",
            "what was done", ""
        );
        for (name, tally) in &self.faults {
            let Tally { rounds, bit, holder_changed, cut, violations, .. } = tally;
            let (median, max) = (middle(&tally.outage_ms), tally.outage_ms.iter().max().copied());
            let shown = |ms: Option<u64>| ms.map_or("-".into(), |ms| ms.to_string());
            let _ = writeln!(
                text,
                "{name:<44} {rounds:>6} {bit:>5} {holder_changed:>7} {cut:>7} {:>9} {:>8} {violations:>11}",
                shown(median),
                shown(max)
            );
        }
        let steps: Vec<String> = self.steps.iter().map(|(step, hits)| format!("{step} {hits}")).collect();
        let _ = writeln!(text, "steps struck: {}", steps.join(", "));
        let _ = writeln!(text, "steps not struck: {}", self.steps_never.join(", "));
        let ages: Vec<String> =
            self.lease_age_ms.iter().map(|(ms, hits)| format!("from {ms} ms {hits}")).collect();
        let _ = writeln!(text, "age of the lease at the fault: {}", ages.join(", "));
        let codes: Vec<String> =
            self.begun_codes.iter().map(|(code, times)| format!("{code} {times} times")).collect();
        let _ = writeln!(text, "exit codes of switchovers during which a fault struck: {}", codes.join(", "));
        for (name, Trend { first, last, max, per_round, samples }) in &self.growth {
            let _ = writeln!(
                text,
                "{name:<22} first {first:>8.1}  last {last:>8.1}  max {max:>8.1}  per round {per_round:>+8.2}  (of {samples} samples)"
            );
        }
        for failure in &self.failures {
            let _ = writeln!(
                text,
                "VIOLATION in round {}, {}: {}",
                failure.round,
                failure.what,
                failure.reasons.join("; ")
            );
            let kept = failure.kept.as_ref().map_or("nowhere".into(), |path| path.display().to_string());
            let _ = writeln!(text, "  kept in {kept}; again: {}", failure.again);
        }
        let _ = write!(
            text,
            "{} violations in {} rounds ({} more inconclusive), 95 % bound {:.1} %{} · seed {} · {} · {} labs · {:.0} min · lost \
             acknowledged mysql {} redis {} · two holders {} ms",
            self.violations,
            self.rounds,
            self.inconclusive,
            self.bound_95 * 100.0,
            if self.violations == 0 { " (3/n)" } else { "" },
            self.seed,
            self.flavour,
            self.labs,
            self.minutes,
            self.lost_acknowledged,
            self.lost_acknowledged_redis,
            self.two_holders_ms
        );
        text
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join("summary.json");
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(path)
    }
}

fn failure(one: &Played, flavour: &str) -> Failure {
    Failure {
        round: one.round.number,
        seed: one.round.seed,
        what: one.round.name(),
        reasons: one.reasons.clone(),
        kept: one.kept.clone(),
        again: one.round.again(flavour),
    }
}

fn middle(each: &[u64]) -> Option<u64> {
    let mut sorted = each.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// The rate that would show so few violations in `rounds` in one case of twenty: 3/n for none.
#[must_use]
pub fn bound_95(violations: usize, rounds: usize) -> f64 {
    let chance_of_so_few = |mean: f64| {
        let mut term = (-mean).exp();
        let mut sum = term;
        for count in 1..=violations {
            term *= mean / count as f64;
            sum += term;
        }
        sum
    };
    let (mut low, mut high) = (0.0, 10.0 + 3.0 * violations as f64);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if chance_of_so_few(middle) > 0.05 { low = middle } else { high = middle }
    }
    if rounds == 0 { 1.0 } else { (low / rounds as f64).min(1.0) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fault::Fault;

    /// A round of this seed that passed.
    pub(in crate::soak) fn passed(number: u32) -> Played {
        Played {
            round: Round { fault: Fault::PowerLoss, at: None, begun: None, ..Round::draw(9, number, false) },
            lab: "a".into(),
            outcome: Outcome::Pass,
            reasons: Vec::new(),
            bit: true,
            holder_changes: 1,
            outage_ms: BTreeMap::from([(Kind::Mysql, 1_300), (Kind::Redis, 1_200)]),
            lost: BTreeMap::new(),
            two_holders_ms: 0,
            lease_age_ms: Some(130),
            begun_code: None,
            seconds: 30.0,
            kept: None,
        }
    }

    #[test]
    fn none_in_n_is_bounded_by_three_in_n() {
        assert!((bound_95(0, 300) * 300.0 - 2.996).abs() < 0.01);
        assert!((bound_95(1, 300) * 300.0 - 4.744).abs() < 0.01, "{}", bound_95(1, 300) * 300.0);
        assert!((bound_95(5, 300) * 300.0 - 10.513).abs() < 0.01);
        assert!((bound_95(0, 0) - 1.0).abs() < f64::EPSILON && (bound_95(0, 1) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_proves_nothing_is_counted_apart() {
        let doubtful = Played { outcome: Outcome::Inconclusive, bit: false, ..passed(2) };
        let summary = Summary::of(9, "mariadb", 1, &[passed(1), doubtful, passed(3)], &[]);
        assert_eq!((summary.rounds, summary.inconclusive, summary.violations), (2, 1, 0));
        assert_eq!(summary.outage_ms, [1_300, 1_300]);
        let tally = &summary.faults["power-loss"];
        assert_eq!(
            (tally.rounds, tally.bit, tally.holder_changed, tally.cut, tally.inconclusive),
            (3, 2, 3, 3, 1)
        );
        assert_eq!(summary.lease_age_ms, BTreeMap::from([(100, 3)]));
        assert!(
            summary
                .text()
                .contains("0 violations in 2 rounds (1 more inconclusive), 95 % bound 100.0 % (3/n)")
        );
    }

    #[test]
    fn a_violation_is_named_with_the_way_back_to_it() {
        let kept = Some(PathBuf::from("failed/9-2"));
        let broken = Played {
            outcome: Outcome::Fail,
            reasons: vec!["mysql: 3 writes acknowledged and lost, the first is 7".into()],
            lost: BTreeMap::from([(Kind::Mysql, 3)]),
            two_holders_ms: 40,
            kept,
            ..passed(2)
        };
        let summary = Summary::of(9, "mysql", 2, &[passed(1), broken], &[]);
        assert_eq!((summary.rounds, summary.violations), (2, 1));
        assert_eq!((summary.lost_acknowledged, summary.two_holders_ms), (3, 40));
        let text = summary.text();
        assert!(
            text.contains("VIOLATION in round 2, power-loss: mysql: 3 writes acknowledged and lost"),
            "{text}"
        );
        let again = "lab soak --seed 9 --first 2 --rounds 1 --flavour mysql";
        assert!(text.contains(&format!("kept in failed/9-2; again: {again}\n")), "{text}");
        assert!(!text.contains("3/n"), "{text}");
    }
}
