//! What all records say together: is recovery getting slower, which drill was not passed lately, what was never tried.
//!
//! Pure. The rule of an alarm is robust: one slow pass among fast ones does not move a median, and a fifth of a second
//! is not called a regression however fast the others were.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use crate::evidence::Record;
use crate::experiment::{Fault, Phase};
use crate::history::Kind;
use crate::verdict::Verdict;

/// Passes before the latest one that it is compared with, at most.
const COMPARED_MAX: usize = 10;
/// Passes that it takes to compare at all.
const COMPARED_MIN: usize = 3;
/// Slower than the median by half is a regression ...
const FACTOR_PERCENT: u64 = 150;
/// ... if it is slower by more than this too, milliseconds.
const SLOWER_MIN_MS: u64 = 200;

/// What is kept in mind of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Past {
    /// Its number.
    pub number: u64,
    /// Which drill.
    pub drill: String,
    /// When it was begun.
    pub started: Timestamp,
    /// How it ended.
    pub verdict: Verdict,
    /// Outage of MySQL, milliseconds; absent if it was not measured.
    pub mysql_ms: Option<u64>,
    /// Outage of Redis, milliseconds.
    pub redis_ms: Option<u64>,
    /// The longest that each phase took, milliseconds, with its budget.
    pub phases_ms: BTreeMap<Phase, (u64, u64)>,
    /// Faults that were seen to take effect.
    pub faults: Vec<Fault>,
}

impl From<&Record> for Past {
    fn from(record: &Record) -> Self {
        let outage = |kind: Kind| {
            let client = record.clients.iter().find(|client| client.kind == kind && client.acknowledged > 0);
            client.map(|client| client.outage_ms)
        };
        let mut phases_ms: BTreeMap<Phase, (u64, u64)> = BTreeMap::new();
        for phase in &record.timeline {
            let longest = phases_ms.entry(phase.phase).or_insert((0, phase.budget_ms));
            *longest = (*longest).max((phase.took_ms(), phase.budget_ms));
        }
        let effective = record.faults.iter().filter(|fault| fault.verified_ms.is_some());
        let mut faults: Vec<Fault> = effective.map(|fault| fault.fault).collect();
        faults.sort_unstable();
        faults.dedup();
        Self {
            number: record.number,
            drill: record.experiment.id.clone(),
            started: record.started,
            verdict: record.judgement.verdict,
            mysql_ms: outage(Kind::Mysql),
            redis_ms: outage(Kind::Redis),
            phases_ms,
            faults,
        }
    }
}

/// Something that somebody must look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "alarm", rename_all = "kebab-case")]
pub enum Alarm {
    /// The latest run of a drill was no pass.
    NotPassed {
        /// Which drill.
        drill: String,
        /// Number of its record.
        number: u64,
        /// How it ended.
        verdict: Verdict,
    },
    /// The latest pass was slower than those before it.
    Slower {
        /// Which drill.
        drill: String,
        /// Number of its record.
        number: u64,
        /// Of what.
        kind: Kind,
        /// Its outage, milliseconds.
        outage_ms: u64,
        /// The median of the passes before, milliseconds.
        median_ms: u64,
        /// Of how many.
        of: usize,
    },
    /// A phase of the latest run was over its budget.
    OverBudget {
        /// Which drill.
        drill: String,
        /// Number of its record.
        number: u64,
        /// Which phase.
        phase: Phase,
        /// How long it took, milliseconds.
        took_ms: u64,
        /// How long it may take, milliseconds.
        budget_ms: u64,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPassed { drill, number, verdict } => {
                write!(f, "{drill}: the latest run (record {number}) ended in {verdict}")
            }
            Self::Slower { drill, number, kind, outage_ms, median_ms, of } => write!(
                f,
                "{drill}: {kind} was away for {outage_ms} ms (record {number}), the median of the {of} passes before \
                 is {median_ms} ms"
            ),
            Self::OverBudget { drill, number, phase, took_ms, budget_ms } => write!(
                f,
                "{drill}: phase {} took {took_ms} ms (record {number}), its budget is {budget_ms} ms",
                phase.name()
            ),
        }
    }
}

/// When a kind of fault was last passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Which.
    pub fault: Fault,
    /// Runs in which it took effect.
    pub runs: usize,
    /// Those of them that passed.
    pub passes: usize,
    /// The last that passed: its number and when it was begun.
    pub last_pass: Option<(u64, Timestamp)>,
    /// Whole days since then.
    pub days: Option<i64>,
}

/// What all records say together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trend {
    /// Every run, in its order.
    pub runs: Vec<Past>,
    /// What somebody must look at.
    pub alarms: Vec<Alarm>,
    /// Every kind of fault, tried or not.
    pub coverage: Vec<Coverage>,
}

/// What the records say together at this moment. `past` is in the order of the numbers.
#[must_use]
pub fn trend(past: Vec<Past>, now: Timestamp) -> Trend {
    let mut drills: BTreeMap<&str, Vec<&Past>> = BTreeMap::new();
    for run in &past {
        drills.entry(&run.drill).or_default().push(run);
    }
    let alarms = drills.values().flat_map(|runs| alarms(runs)).collect();
    let coverage = Fault::ALL.into_iter().map(|fault| coverage(fault, &past, now)).collect();
    Trend { alarms, coverage, runs: past }
}

/// How much slower a run was than the passes before it. `earlier`: of the same drill, in the order of their numbers.
#[must_use]
pub fn regressions(earlier: &[&Past], this: &Past) -> Vec<Alarm> {
    let runs: Vec<&Past> = earlier.iter().copied().chain([this]).collect();
    let is_slower = |alarm: &Alarm| match alarm {
        Alarm::Slower { number, .. } => *number == this.number,
        Alarm::NotPassed { .. } | Alarm::OverBudget { .. } => false,
    };
    alarms(&runs).into_iter().filter(is_slower).collect()
}

fn alarms(runs: &[&Past]) -> Vec<Alarm> {
    // A drill that was refused has shown nothing, and its gate has said why.
    let Some(latest) = runs.iter().rev().find(|run| run.verdict != Verdict::Refused) else {
        return Vec::new();
    };
    let (drill, number) = (latest.drill.clone(), latest.number);
    if !latest.verdict.is_pass() {
        return vec![Alarm::NotPassed { drill, number, verdict: latest.verdict }];
    }
    let mut alarms = Vec::new();
    for (phase, (took_ms, budget_ms)) in &latest.phases_ms {
        if took_ms > budget_ms {
            let (took_ms, budget_ms) = (*took_ms, *budget_ms);
            alarms.push(Alarm::OverBudget {
                drill: drill.clone(),
                number,
                phase: *phase,
                took_ms,
                budget_ms,
            });
        }
    }
    for kind in Kind::ALL {
        let of = |run: &Past| match kind {
            Kind::Mysql => run.mysql_ms,
            Kind::Redis => run.redis_ms,
        };
        let before = runs.iter().rev().filter(|run| run.number < number && run.verdict.is_pass());
        let before: Vec<u64> = before.filter_map(|run| of(run)).take(COMPARED_MAX).collect();
        let Some(outage_ms) = of(latest).filter(|_| before.len() >= COMPARED_MIN) else { continue };
        let (of, median_ms) = (before.len(), median(before));
        let is_slower = outage_ms * 100 > median_ms * FACTOR_PERCENT && outage_ms > median_ms + SLOWER_MIN_MS;
        if is_slower {
            alarms.push(Alarm::Slower { drill: drill.clone(), number, kind, outage_ms, median_ms, of });
        }
    }
    alarms
}

/// The middle one; of an even number of values the smaller of the two, which is the stricter.
fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

fn coverage(fault: Fault, past: &[Past], now: Timestamp) -> Coverage {
    let runs: Vec<&Past> = past.iter().filter(|run| run.faults.contains(&fault)).collect();
    let passes: Vec<&&Past> = runs.iter().filter(|run| run.verdict.is_pass()).collect();
    let last_pass = passes.last().map(|run| (run.number, run.started));
    let days = last_pass.map(|(_, started)| now.duration_since(started).as_hours().max(0) / 24);
    Coverage { fault, runs: runs.len(), passes: passes.len(), last_pass, days }
}

impl Trend {
    /// As Markdown, which reads well on a screen too.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Drills so far\n\n## Alarms\n\n");
        if self.alarms.is_empty() {
            text.push_str("None.\n");
        }
        for alarm in &self.alarms {
            let _ = writeln!(text, "- {alarm}");
        }
        let mut drills: BTreeMap<&str, Vec<&Past>> = BTreeMap::new();
        for run in &self.runs {
            drills.entry(&run.drill).or_default().push(run);
        }
        for (drill, runs) in drills {
            let _ = writeln!(text, "\n## {drill}\n\n{HEAD}");
            for run in runs {
                text.push_str(&row(run));
            }
        }
        text.push_str(
            "\n## Coverage\n\n| fault | runs | passed | last pass | days ago |\n|---|---|---|---|---|\n",
        );
        for it in &self.coverage {
            let last = it.last_pass.map_or("never".into(), |(number, started)| {
                format!("{} (record {number})", started.strftime("%Y-%m-%d"))
            });
            let days = it.days.map_or("–".into(), |days| days.to_string());
            let _ = writeln!(text, "| {} | {} | {} | {last} | {days} |", it.fault, it.runs, it.passes);
        }
        text
    }
}

const HEAD: &str = "| record | begun | verdict | outage mysql | outage redis | detect | vip | activate | validate |\n\
                    |---|---|---|---|---|---|---|---|---|";

fn row(run: &Past) -> String {
    let ms = |ms: Option<u64>| ms.map_or("–".into(), |ms| format!("{ms} ms"));
    let mut cells = vec![
        run.number.to_string(),
        run.started.strftime("%Y-%m-%d %H:%M").to_string(),
        run.verdict.to_string(),
        ms(run.mysql_ms),
        ms(run.redis_ms),
    ];
    cells.extend(Phase::ALL.into_iter().map(|phase| ms(run.phases_ms.get(&phase).map(|(took, _)| *took))));
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::sample::passed;

    fn run(number: u64, mysql_ms: u64, verdict: Verdict) -> Past {
        Past { number, mysql_ms: Some(mysql_ms), verdict, ..Past::from(&passed()) }
    }

    fn now() -> Timestamp {
        "2026-12-07T19:00:00Z".parse().unwrap()
    }

    /// Outages of passes before, that of the latest, whether that is an alarm.
    const CASES: &[(&[u64], u64, bool)] = &[
        (&[400, 410, 390], 620, true),
        (&[400, 410, 390], 600, false),
        (&[100, 100, 100], 299, false),
        (&[100, 100, 100], 301, true),
        (&[5_000, 5_000, 5_000], 7_400, false),
        (&[5_000, 5_000, 5_000], 7_501, true),
        // One slow pass among fast ones does not excuse the next.
        (&[400, 9_000, 400, 400], 900, true),
        // Two are not enough to compare with.
        (&[400, 400], 9_000, false),
        // Only the last ten count: it became slower long ago, and was accepted.
        (&[100, 100, 100, 100, 800, 800, 800, 800, 800, 800, 800, 800, 800, 800], 850, false),
    ];

    #[test]
    fn a_slower_pass_is_an_alarm_if_it_is_much_slower() {
        for (before, latest, alarms) in CASES {
            let outages = before.iter().chain([latest]);
            let past: Vec<Past> =
                (1..).zip(outages).map(|(number, ms)| run(number, *ms, Verdict::Pass)).collect();
            let trend = trend(past, now());
            let found =
                trend.alarms.iter().any(|alarm| matches!(alarm, Alarm::Slower { kind: Kind::Mysql, .. }));
            assert_eq!(found, *alarms, "{before:?} then {latest}: {:?}", trend.alarms);
        }
    }

    #[test]
    fn a_regression_is_that_of_the_run_itself() {
        let past: Vec<Past> = (1..=3).map(|number| run(number, 400, Verdict::Pass)).collect();
        let earlier: Vec<&Past> = past.iter().collect();
        let slower = |this: &Past| regressions(&earlier, this);
        let found = slower(&run(4, 900, Verdict::Pass));
        assert!(matches!(found[..], [Alarm::Slower { number: 4, outage_ms: 900, .. }]), "{found:?}");
        assert_eq!(slower(&run(4, 420, Verdict::Pass)), []);
        assert_eq!(slower(&run(4, 900, Verdict::Fail)), [], "its verdict says so");
        let slow = run(4, 900, Verdict::Pass);
        let earlier: Vec<&Past> = past.iter().chain([&slow]).collect();
        assert_eq!(regressions(&earlier, &run(5, 0, Verdict::Refused)), [], "that is the run's before it");
    }

    #[test]
    fn failures_are_not_what_a_pass_is_compared_with() {
        let mut past: Vec<Past> = (1..=3).map(|number| run(number, 400, Verdict::Pass)).collect();
        past.extend((4..=9).map(|number| run(number, 20_000, Verdict::Fail)));
        past.push(run(10, 900, Verdict::Degraded));
        let alarms = trend(past, now()).alarms;
        assert!(matches!(alarms[..], [Alarm::Slower { median_ms: 400, of: 3, .. }]), "{alarms:?}");
    }

    #[test]
    fn the_latest_run_that_was_no_pass_is_an_alarm_unless_it_was_only_refused() {
        let past = vec![run(1, 400, Verdict::Fail), run(2, 400, Verdict::Refused)];
        let alarms = trend(past, now()).alarms;
        assert!(matches!(alarms[..], [Alarm::NotPassed { number: 1, .. }]), "{alarms:?}");
        let past = vec![run(1, 400, Verdict::Fail), run(2, 400, Verdict::Pass)];
        assert_eq!(trend(past, now()).alarms, []);
    }

    #[test]
    fn a_phase_over_its_budget_is_an_alarm() {
        let mut record = passed();
        record.timeline[1].to_ms += 5_000;
        let alarms = trend(vec![Past::from(&record)], now()).alarms;
        assert!(
            matches!(alarms[..], [Alarm::OverBudget { phase: Phase::Vip, took_ms: 5_130, .. }]),
            "{alarms:?}"
        );
    }

    #[test]
    fn every_fault_is_covered_or_said_to_be_not() {
        let trend = trend(vec![run(1, 400, Verdict::Pass), run(2, 400, Verdict::Fail)], now());
        assert_eq!(trend.coverage.len(), Fault::ALL.len());
        let killed = trend.coverage.iter().find(|it| it.fault == Fault::MysqldKill).unwrap();
        assert_eq!((killed.runs, killed.passes, killed.days), (2, 1, Some(9)));
        let text = trend.markdown();
        assert!(text.contains("| mysqld-kill | 2 | 1 | 2026-11-27 (record 1) | 9 |"), "{text}");
        assert!(text.contains("| power-off | 0 | 0 | never | – |"), "{text}");
    }
}
