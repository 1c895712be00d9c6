//! A record as JUnit XML: one test case for each thing that was judged.

use std::fmt::Write as _;

use super::escape;
use crate::evidence::Record;
use crate::history::Kind;
use crate::verdict::{Verdict, limited};

/// How a case ended.
enum Outcome {
    Good,
    /// A promise was broken.
    Failed(String),
    /// It cannot be said.
    Skipped(String),
    /// The drill itself did not come to its end.
    Errored(String),
}

struct Case {
    class: &'static str,
    name: String,
    took_ms: u64,
    outcome: Outcome,
}

pub(super) fn suite(record: &Record) -> String {
    let cases = cases(record);
    let count = |is: fn(&Outcome) -> bool| cases.iter().filter(|case| is(&case.outcome)).count();
    let time = decimal(u64::try_from(record.ended.duration_since(record.started).as_millis()).unwrap_or(0));
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{time}\" timestamp=\"{}\">\n",
        escape(&record.experiment.id),
        cases.len(),
        count(|outcome| matches!(outcome, Outcome::Failed(_))),
        count(|outcome| matches!(outcome, Outcome::Errored(_))),
        count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        record.started
    );
    for case in &cases {
        let _ = write!(
            xml,
            "  <testcase classname=\"{}.{}\" name=\"{}\" time=\"{}\"",
            escape(&record.experiment.id),
            case.class,
            escape(&case.name),
            decimal(case.took_ms)
        );
        let _ = match &case.outcome {
            Outcome::Good => writeln!(xml, "/>"),
            Outcome::Failed(why) => writeln!(xml, "><failure message=\"{}\"/></testcase>", escape(why)),
            Outcome::Skipped(why) => writeln!(xml, "><skipped message=\"{}\"/></testcase>", escape(why)),
            Outcome::Errored(why) => writeln!(xml, "><error message=\"{}\"/></testcase>", escape(why)),
        };
    }
    xml.push_str("</testsuite>\n");
    xml
}

fn decimal(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn held(held: Option<bool>, seen: &str) -> Outcome {
    match held {
        Some(true) => Outcome::Good,
        Some(false) => Outcome::Failed(seen.to_owned()),
        None => Outcome::Skipped(seen.to_owned()),
    }
}

fn cases(record: &Record) -> Vec<Case> {
    let reasons = record.judgement.reasons.join("; ");
    let outcome = match record.judgement.verdict {
        Verdict::Pass | Verdict::Degraded => Outcome::Good,
        Verdict::Fail => Outcome::Failed(reasons),
        Verdict::Inconclusive | Verdict::Refused => Outcome::Skipped(reasons),
        Verdict::Aborted | Verdict::Interrupted => Outcome::Errored(reasons),
    };
    let name = format!("verdict is {}", record.judgement.verdict);
    let mut cases = vec![Case { class: "verdict", name, took_ms: 0, outcome }];
    let mut add = |class, name: String, took_ms, outcome| cases.push(Case { class, name, took_ms, outcome });
    for check in &record.gate {
        // A gate that refuses is no failure of what is tested: the drill was not run.
        let outcome = if check.passed { Outcome::Good } else { Outcome::Skipped(check.seen.clone()) };
        add("gate", check.code.clone(), 0, outcome);
    }
    let allowed = &record.experiment.slo;
    for client in &record.clients {
        let (outage, lost) = match client.kind {
            Kind::Mysql => (Some(allowed.outage.mysql), Some(allowed.lost_acknowledged.mysql)),
            Kind::Redis => (allowed.outage.redis, allowed.lost_acknowledged.redis),
        };
        if let Some(outage) = outage {
            let is_held = client.restored && client.outage_ms <= outage.ms();
            let seen = format!("{} ms, at most {outage}", client.outage_ms);
            add("outage", client.kind.to_string(), client.outage_ms, held(Some(is_held), &seen));
        }
        if let Some(lost) = lost {
            let is_held = (!client.unread).then_some(client.lost <= lost);
            let seen = if client.unread { "not read".into() } else { format!("{} lost", client.lost) };
            add("lost-acknowledged", client.kind.to_string(), 0, held(is_held, &seen));
        }
    }
    for limited in limited(record) {
        let (figure, took_ms) = (limited.figure.code(), limited.seen_ms.unwrap_or(0));
        add(figure, limited.kind.to_string(), took_ms, held(limited.held(), &limited.to_string()));
    }
    for fault in &record.faults {
        let is_seen = fault.verified_ms.is_some().then_some(true);
        add("fault", format!("{} on {}", fault.fault, fault.node), 0, held(is_seen, &fault.effect));
    }
    for phase in &record.timeline {
        // Over budget degrades a pass and fails nothing; it is said in the name.
        let over = if phase.is_over() { " (over budget)" } else { "" };
        add(
            "phase",
            format!("run {} {}{over}", phase.run, phase.phase.name()),
            phase.took_ms(),
            Outcome::Good,
        );
    }
    for probe in &record.probes {
        let value = probe.value.map_or("not measured".into(), |value| value.to_string());
        let seen = format!("{value}, wanted {}", probe.tolerance);
        add("steady-state", format!("{} ({})", probe.name, probe.mode.name()), 0, held(probe.held, &seen));
    }
    for it in &record.invariants {
        add("invariant", it.code.clone(), 0, held(it.held, &it.seen));
    }
    cases
}
