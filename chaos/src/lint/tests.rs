//! The linter on trial: each mistake is found, where it stands.

use super::*;
use crate::experiment::{Form, shipped};

/// The shipped drill with one text replaced by another.
fn changed(id: &str, from: &str, to: &str) -> Source {
    let text = shipped::text(id).unwrap();
    assert!(text.contains(from), "{id} does not say {from:?}");
    Source::parse("drill.toml", Form::Toml, &text.replacen(from, to, 1)).unwrap()
}

fn line_with(source: &Source, text: &str) -> usize {
    source.text.lines().position(|line| line.contains(text)).unwrap() + 1
}

#[test]
fn shipped_drills_have_no_errors_and_only_warnings_that_are_meant() {
    let meant = |id: &str, code: &str| match code {
        "lab-only" => ["replica-disk-full", "power-cut"].contains(&id),
        "no-heal" => id == "power-cut",
        "both-data-nodes" => id == "lag-then-database",
        _ => false,
    };
    for id in shipped::ids() {
        let source = shipped::named(id).unwrap();
        assert_eq!(source.experiment.id, id, "the file's name is the drill's id");
        for finding in lint(&source) {
            assert!(finding.severity == Severity::Warning && meant(id, finding.code), "{finding}");
        }
    }
}

#[test]
fn every_fault_has_a_shipped_drill() {
    use crate::experiment::Fault;
    let used: BTreeSet<Fault> = shipped::ids()
        .flat_map(|id| shipped::named(id).unwrap().experiment.method)
        .map(|method| method.fault)
        .collect();
    assert_eq!(used, Fault::ALL.into_iter().collect());
}

/// Shipped drill, text, its replacement, code, severity, text on the line that is named.
type Case = (&'static str, &'static str, &'static str, &'static str, Severity, &'static str);

const CASES: &[Case] = {
    use Severity::{Error, Warning};
    &[
        ("mysqld-killed", "drill/v1", "drill/v2", "schema", Error, "drill/v2"),
        ("mysqld-killed", "id = \"mysqld-killed\"", "id = \"../etc\"", "id", Error, "../etc"),
        ("mysqld-killed", "The holder's database server dies", " ", "empty", Error, "title"),
        ("mysqld-killed", "level = \"L3\"", "level = \"L2\"", "level", Error, "fault ="),
        ("rehearsal", "level = \"L1\"", "level = \"L0\"", "level", Error, "level"),
        ("mysqld-killed", "mysql = \"10s\"", "mysql = \"31s\"", "outage-above-promise", Warning, "31s"),
        ("mysqld-killed", "mysql = \"10s\"", "mysql = \"0s\"", "outage", Error, "0s"),
        (
            "mysqld-killed",
            "[slo.connect_gap]\nmysql = \"20s\"",
            "[slo.connect_gap]\nmysql = \"0s\"",
            "limit",
            Error,
            "mysql = \"0s\"",
        ),
        (
            "switchover-and-back",
            "[slo.lost_acknowledged]",
            "[slo.sustained_recovery]\nmysql = \"6s\"\nredis = \"0ms\"\n\n[slo.lost_acknowledged]",
            "limit",
            Error,
            "redis = \"0ms\"",
        ),
        (
            "mysqld-killed",
            "activate = \"20s\"",
            "activate = \"21s\"",
            "budget-above-promise",
            Warning,
            "slo.budgets",
        ),
        (
            "container-never-healthy",
            "activate = \"20s\"",
            "activate = \"24s\"",
            "budget-above-promise",
            Warning,
            "slo.budgets",
        ),
        ("mysqld-killed", "mysql = 0", "mysql = 3", "loss-allowed", Warning, "mysql = 3"),
        ("mysqld-killed", "count = 1", "count = 2", "blast-radius", Error, "count"),
        ("rehearsal", "count = 3", "count = 1", "blast-radius", Error, "count"),
        ("mysqld-killed", "target = \"holder\"", "target = \"primary\"", "target", Error, "target ="),
        ("mysqld-killed", "role = \"holder\"", "role = \"witness\"", "role", Error, "target ="),
        (
            "mysqld-killed",
            "a takeover would work",
            "a takeover\\u001b[2J",
            "control-character",
            Error,
            "steady_state",
        ),
        ("mysqld-killed", "duration = \"30s\"", "duration = \"0s\"", "duration", Error, "duration"),
        ("mysqld-killed", "duration = \"30s\"", "duration = \"11m\"", "duration", Error, "duration"),
        ("mysqld-killed", "within = \"1s\"", "within = \"31s\"", "verify", Error, "verify ="),
        ("mysqld-killed", "process-gone", "disk-full", "verify", Error, "verify ="),
        ("data-nodes-cut", "peer = \"backup\"\n", "", "peer", Error, "fault ="),
        ("data-nodes-cut", "peer = \"backup\"", "peer = \"holder\"", "peer", Error, "peer"),
        ("data-nodes-cut", "peer = \"backup\"", "peer = \"nobody\"", "target", Error, "peer"),
        ("replication-lags", "kib_per_second = 8\n", "", "parameter", Error, "fault ="),
        ("replication-lags", "kib_per_second = 8", "kib_per_second = 0", "parameter", Error, "kib"),
        (
            "replication-lags",
            "kib_per_second = 8",
            "kib_per_second = 8\ndays = 3",
            "parameter",
            Error,
            "days",
        ),
        ("replica-disk-full", "leave_mib = 64", "leave_mib = 8", "parameter", Error, "leave_mib"),
        (
            "mysqld-killed",
            "at_least = 1, at_most = 1 }",
            "at_least = 1, at_most = 0 }",
            "tolerance",
            Error,
            "at_least = 1, at_most = 0",
        ),
        ("mysqld-killed", "{ at_least = 3 }", "{}", "tolerance", Error, "{}"),
        ("witness-lost", "{ at_least = 99 }", "{ at_least = 101 }", "tolerance", Error, "101"),
        ("mysqld-killed", "mode = [\"continuous\"]", "mode = []", "mode", Error, "mode = []"),
        ("mysqld-killed", "a takeover would work", "every agent is heard", "name", Error, "every agent"),
        ("mysqld-killed", "longer_than = \"45s\"", "", "stop", Error, "[[stop_when]]"),
        ("mysqld-killed", "longer_than = \"45s\"", "longer_than = \"9s\"", "stop-before-slo", Warning, "9s"),
        ("mysqld-killed", "redis = \"10s\"", "redis = \"50s\"", "stop-before-slo", Warning, "45s"),
        (
            "mysqld-killed",
            "condition = \"two-holders\"",
            "condition = \"unplanned-run\"",
            "no-stop",
            Warning,
            "[[stop_when]]",
        ),
        ("mysqld-killed", "heal = \"always\"\n", "", "heal-unsaid", Warning, "[after]"),
        (
            "mysqld-killed",
            "wait_redundancy = \"5m\"",
            "wait_redundancy = \"0s\"",
            "no-redundancy",
            Error,
            "wait_red",
        ),
        (
            "witness-lost-then-database",
            "fault = \"mysqld-kill\"",
            "fault = \"agent-kill\"",
            "no-majority",
            Error,
            "agent-kill",
        ),
        ("mysqld-killed", "[\"md\", \"html\", \"json\", \"junit\"]", "[]", "no-report", Warning, "formats"),
        ("switchover-and-back", "[[method]]", "[[method]]\nstart = \"standing\"", "start", Error, "standing"),
    ]
};

#[test]
fn every_mistake_is_found_on_its_line() {
    for (id, from, to, code, severity, place) in CASES {
        let source = changed(id, from, to);
        let findings = lint(&source);
        let found = findings.iter().find(|finding| finding.code == *code && finding.severity == *severity);
        let found = found.unwrap_or_else(|| panic!("{id}, {to:?}: no {code} in {findings:?}"));
        // The place that the words name is not always the first with them: one of the lines that have them will do.
        let line = found.line.unwrap_or_else(|| panic!("{found} has no line"));
        let text = source.text.lines().nth(line - 1).unwrap();
        assert!(text.contains(place), "{found}: line {line} is {text:?}, not one with {place:?}");
    }
}

#[test]
fn a_finding_shows_file_line_code_and_a_way_out() {
    let source = changed("mysqld-killed", "count = 1", "count = 2");
    let line = line_with(&source, "count = 2");
    let shown = lint(&source).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(
        shown,
        format!(
            "drill.toml:{line}: error[blast-radius]: holder: 2 of role holder are to be hit\n  \
             a group of three has one holder: write count = 1"
        )
    );
    assert!(refuses(&lint(&source)));
}
