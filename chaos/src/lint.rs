//! What is wrong with a drill that can be read: errors refuse it, warnings are shown before it runs.
//!
//! Pure. Every finding has a stable code, the line of the file, and what to do.

mod method;

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::experiment::{
    Budgets, Experiment, Fault, Figure, Level, Method, Mode, Probe, Role, SCHEMA, Source, Span,
};
use crate::history::Kind;

/// Service is back within this: the promise of the product. A drill that allows more proves less.
pub const PROMISED_OUTAGE: Span = Span::from_secs(30);

/// No fault stands longer than this.
pub const DURATION_MAX: Span = Span::from_secs(600);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The drill is refused.
    Error,
    /// It runs, and says this before.
    Warning,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the file.
    pub file: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// Whether the drill is refused for it.
    pub severity: Severity,
    /// Stable code.
    pub code: &'static str,
    /// What was found.
    pub says: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {severity}[{}]: {}\n  {}", self.code, self.says, self.hint)
    }
}

/// Whether the drill may not run.
#[must_use]
pub fn refuses(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// What is said before a drill runs that is not refused.
#[must_use]
pub fn warnings(source: &Source) -> Vec<Finding> {
    let mut found = lint(source);
    found.retain(|finding| finding.severity == Severity::Warning);
    found
}

/// Everything that is wrong with a drill, in the order of its lines.
#[must_use]
pub fn lint(source: &Source) -> Vec<Finding> {
    let mut notes = Notes { source, found: Vec::new() };
    let experiment = &source.experiment;
    head(experiment, &mut notes);
    slo(experiment, &mut notes);
    targets(experiment, &mut notes);
    steady_state(experiment, &mut notes);
    stop_when(experiment, &mut notes);
    method::methods(experiment, &mut notes);
    after(experiment, &mut notes);
    notes.found.sort_by_key(|finding| (finding.line, finding.severity));
    notes.found
}

/// What was found so far.
struct Notes<'a> {
    source: &'a Source,
    found: Vec<Finding>,
}

impl Notes<'_> {
    fn error(&mut self, code: &'static str, path: &str, says: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Error, code, path, says.into(), hint.into());
    }

    fn warn(&mut self, code: &'static str, path: &str, says: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, code, path, says.into(), hint.into());
    }

    fn push(&mut self, severity: Severity, code: &'static str, path: &str, says: String, hint: String) {
        let (file, line) = (self.source.file.clone(), self.source.line_of(path));
        self.found.push(Finding { file, line, severity, code, says, hint });
    }
}

fn head(experiment: &Experiment, notes: &mut Notes<'_>) {
    if experiment.schema != SCHEMA {
        let says = format!("schema is {:?}", experiment.schema);
        notes.error("schema", "schema", says, format!("write schema = {SCHEMA:?}"));
    }
    if !is_id(&experiment.id) {
        let says = format!("{:?} is no id", experiment.id);
        notes.error(
            "id",
            "id",
            says,
            "small letters, digits and hyphens, at most 64, the first one a letter; files and records are named by it",
        );
    }
    for (path, text) in [("title", &experiment.title), ("description", &experiment.description)] {
        if text.trim().is_empty() {
            notes.error("empty", path, format!("{path} is empty"), "the report begins with it");
        }
    }
    let names = experiment.steady_state.iter().map(|state| ("steady_state", &state.name));
    let targets = experiment.targets.keys().map(|name| ("targets", name));
    let texts = [("title", &experiment.title), ("description", &experiment.description)].into_iter();
    for (path, text) in texts.chain(names).chain(targets) {
        if text.chars().any(|c| c.is_control() && c != '\n') {
            let says = format!("{text:?} has control characters");
            notes.error("control-character", path, says, "a terminal or a report would do what they say");
        }
    }
    if experiment.title.lines().count() > 1 {
        notes.error(
            "title",
            "title",
            "title has several lines",
            "what needs more than one belongs into description",
        );
    }
    if experiment.level == Level::L0 {
        notes.error(
            "level",
            "level",
            "a drill of level L0 does nothing",
            "use L1 for what only asks, or `baton drill plan`",
        );
    }
    if experiment.report.formats.is_empty() {
        notes.warn("no-report", "report.formats", "no report is written", "the record is kept all the same");
    }
}

fn is_id(id: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(rest) && id.len() <= 64
}

fn slo(experiment: &Experiment, notes: &mut Notes<'_>) {
    let slo = &experiment.slo;
    let outages = [("slo.outage.mysql", Some(slo.outage.mysql)), ("slo.outage.redis", slo.outage.redis)];
    for (path, outage) in outages {
        let Some(outage) = outage else { continue };
        if outage == Span::ZERO {
            notes.error("outage", path, "an outage of 0s cannot be held", "name the longest that you accept");
        } else if outage > PROMISED_OUTAGE {
            let says = format!("an outage of {outage} is allowed, {PROMISED_OUTAGE} is promised");
            notes.warn(
                "outage-above-promise",
                path,
                says,
                "a pass of this drill does not show that the promise holds",
            );
        }
    }
    for (figure, kind) in Figure::ALL.into_iter().flat_map(|figure| Kind::ALL.map(|kind| (figure, kind))) {
        if slo.limit(figure, kind) == Some(Span::ZERO) {
            let path = format!("slo.{}.{kind}", figure.key());
            let says = format!("a {} of 0s cannot be held", figure.name());
            notes.error("limit", &path, says, "name the longest that you accept, or remove it");
        }
    }
    // A service that is unhealthy interrupts no database: until the baton moves, nothing is away that is promised.
    let is_served = |method: &Method| method.fault == Fault::ContainerUnhealthy;
    let interrupts = !experiment.method.iter().all(is_served);
    let budgets = if interrupts { slo.budgets } else { Budgets { detect: Span::ZERO, ..slo.budgets } };
    let total = budgets.total();
    if total > PROMISED_OUTAGE {
        let says = format!("the phases' budgets are {total} together, {PROMISED_OUTAGE} is promised");
        notes.warn(
            "budget-above-promise",
            "slo.budgets",
            says,
            "lower them; a phase over its budget degrades a pass",
        );
    }
    if slo.lost_acknowledged.mysql > 0 {
        let says = format!("{} lost acknowledged writes are allowed", slo.lost_acknowledged.mysql);
        notes.warn("loss-allowed", "slo.lost_acknowledged.mysql", says, "the product promises 0");
    }
}

fn targets(experiment: &Experiment, notes: &mut Notes<'_>) {
    let used: BTreeSet<&str> = experiment
        .method
        .iter()
        .flat_map(|method| [Some(method.target.as_str()), method.peer.as_deref()])
        .flatten()
        .collect();
    for (name, target) in &experiment.targets {
        let path = format!("targets.{name}.count");
        let may_be = if target.role == Role::Everyone { 3 } else { 1 };
        if target.count != may_be {
            let says = format!("{name}: {} of role {} are to be hit", target.count, target.role);
            let hint = match target.role {
                Role::Everyone => "everyone is three nodes, and is only asked: write count = 3".to_owned(),
                Role::Holder | Role::Backup | Role::Witness | Role::Leader => {
                    format!("a group of three has one {}: write count = 1", target.role)
                }
            };
            notes.error("blast-radius", &path, says, hint);
        }
        if !used.contains(name.as_str()) {
            let path = format!("targets.{name}");
            notes.warn("unused-target", &path, format!("no method names the target {name}"), "remove it");
        }
    }
}

fn steady_state(experiment: &Experiment, notes: &mut Notes<'_>) {
    let mut names = BTreeSet::new();
    for (index, state) in experiment.steady_state.iter().enumerate() {
        let path = |key: &str| format!("steady_state[{index}].{key}");
        if !names.insert(&state.name) {
            let says = format!("{:?} is there twice", state.name);
            notes.error("name", &path("name"), says, "the report tells them apart by their names");
        }
        if state.mode.is_empty() {
            let says = format!("{:?} is never looked at", state.name);
            notes.error("mode", &path("mode"), says, "name at least one of before, continuous, after");
        }
        let (low, high) = (state.tolerance.at_least, state.tolerance.at_most);
        let bounds = [low, high];
        let bounds = bounds.iter().flatten();
        let is_empty = matches!((low, high), (Some(low), Some(high)) if low > high);
        if bounds.clone().count() == 0 || is_empty || bounds.clone().any(|bound| !bound.is_finite()) {
            let says = format!("{:?} admits {}", state.name, if is_empty { "nothing" } else { "anything" });
            notes.error("tolerance", &path("tolerance"), says, "name at_least, at_most, or both");
        }
        let is_percent = matches!(state.probe, Probe::MysqlWrites | Probe::RedisWrites);
        if is_percent && bounds.clone().any(|bound| !(0.0..=100.0).contains(bound)) {
            notes.error("tolerance", &path("tolerance"), "percent are 0 to 100", "mend the bound");
        }
    }
    let has_before = experiment.steady_state.iter().any(|state| state.mode.contains(&Mode::Before));
    if experiment.level >= Level::L2 && !has_before {
        let says = "nothing is looked at before";
        notes.warn(
            "no-before",
            "steady_state",
            says,
            "what was broken before is not told apart from what the drill broke",
        );
    }
}

fn stop_when(experiment: &Experiment, notes: &mut Notes<'_>) {
    use crate::experiment::Stop;
    // The condition counts each database by itself.
    let outage = experiment.slo.outage.redis.unwrap_or_default().max(experiment.slo.outage.mysql);
    for (index, stop) in experiment.stop_when.iter().enumerate() {
        let path = format!("stop_when[{index}].longer_than");
        match (stop.condition.has_length(), stop.longer_than) {
            (true, None | Some(Span::ZERO)) => {
                notes.error("stop", &path, "the condition has no length", "write longer_than = \"45s\"");
            }
            (false, Some(_)) => {
                notes.error(
                    "stop",
                    &path,
                    "the condition has no length that could be exceeded",
                    "remove longer_than",
                );
            }
            (true, Some(length)) if stop.condition == Stop::Outage && length <= outage => {
                let says = format!("it stops after {length}, the outage may be {outage}");
                notes.warn("stop-before-slo", &path, says, "it would be aborted while it can still pass");
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    for (stop, name) in [(Stop::Outage, "outage"), (Stop::TwoHolders, "two-holders")] {
        if experiment.level >= Level::L2 && !experiment.stop_when.iter().any(|has| has.condition == stop) {
            let says = format!("nothing stops it on {name}");
            notes.warn("no-stop", "stop_when", says, format!("add [[stop_when]] with condition = {name:?}"));
        }
    }
}

fn after(experiment: &Experiment, notes: &mut Notes<'_>) {
    if experiment.level < Level::L2 {
        return;
    }
    if !notes.source.says("after.heal") {
        let says = "the file does not say that faults are healed";
        notes.warn(
            "heal-unsaid",
            "after",
            says,
            "they always are; write [after] with heal = \"always\" so that nobody wonders",
        );
    }
    if experiment.after.wait_redundancy == Span::ZERO {
        let says = "redundancy is not waited for";
        notes.error(
            "no-redundancy",
            "after.wait_redundancy",
            says,
            "a drill is over when the group tolerates a failure again",
        );
    }
}

#[cfg(test)]
mod tests;
