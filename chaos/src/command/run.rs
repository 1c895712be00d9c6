//! `baton drill run` and `baton drill plan`.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};

use baton_node::api::types::Status;
use baton_node::cli::Exit;

use super::{Failure, Global, Output, complain, json, say, source};
use crate::evidence::{Record, Store, Stored};
use crate::experiment::plan::{Roles, plan as plan_text};
use crate::experiment::{Experiment, Role, Source};
use crate::lint::{Severity, lint, warnings};
use crate::report;
use crate::runner::agents::{Agents, cast};
use crate::runner::{self, Keeper, Options, RunError};
use crate::trend::{Alarm, Past, regressions};

/// Arguments of `baton drill run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// A shipped drill, or the file of one
    #[arg(value_name = "NAME|FILE")]
    which: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show the plan and the gate, and stop
    #[arg(long)]
    dry_run: bool,
    /// Your name, for the record
    #[arg(long, default_value = "operator")]
    by: String,
    /// Who else agreed, for the record
    #[arg(long, value_name = "NAME")]
    approver: Option<String>,
    /// Why now, for the record
    #[arg(long, value_name = "WORDS")]
    reason: Option<String>,
}

/// The plan with the nodes that are meant now, and the gate; a failure: no agent can be asked.
pub(super) async fn plan_asking(global: &Global, source: &Source) -> Result<u8, Failure> {
    let agents = Agents { client: global.client()?, by: "operator".into() };
    let seen = runner::preflight(&agents, source).await?;
    if global.output == Output::Json {
        warn(source);
        say(&json(&seen.checks)?);
    } else {
        say(&plan_words(source, &seen.status));
        say("\nthe gate:");
        for check in &seen.checks {
            say(&runner::check_line(check));
        }
    }
    Ok(if seen.refusal().is_some() { Exit::Refused.code() } else { Exit::Done.code() })
}

pub(super) async fn run(global: &Global, args: &RunArgs) -> Result<u8, Failure> {
    let source = sound(global, &args.which)?;
    if args.dry_run {
        return plan_asking(global, &source).await;
    }
    warn(&source);
    let config = global.config()?;
    let agents = Agents { client: global.client()?, by: args.by.clone() };
    let store = Store::open(&config.drill.evidence).map_err(|error| Failure::usage(chain(&error)))?;
    // Held until the end: whoever begins a second drill here meanwhile must not take this one's draft for a dead runner's.
    let _alive = store.alive().map_err(|error| Failure {
        code: Exit::Refused.code(),
        message: format!("a drill is being run from this machine: {}", chain(&error)),
    })?;
    keep_left(&store)?;
    if !args.yes {
        let status = agents.status().await?;
        complain(&plan_text(&source.experiment, Some(&roles(&source.experiment, &status))));
        if !is_confirmed()? {
            return Err(Failure { code: Exit::Refused.code(), message: "nothing was done".into() });
        }
    }
    let (approver, reason) = (args.approver.clone(), args.reason.clone());
    let options = Options { source, config, agents, approver, reason };
    let done = runner::run(&options, &store).await.map_err(failure)?;
    for remark in &done.remarks {
        complain(remark);
    }
    let record = &done.record;
    match global.output {
        Output::Json => say(&json(record)?),
        Output::Human => say(&conclusion(record, &store)),
    }
    for alarm in slower(record, &store) {
        complain(&format!("ALARM {alarm}"));
    }
    Ok(record.judgement.verdict.exit_code())
}

fn failure(error: RunError) -> Failure {
    match error {
        RunError::Agent(error) => error.into(),
        error @ (RunError::Evidence { .. } | RunError::Signals(_)) => Failure::usage(chain(&error)),
    }
}

/// A drill without mistakes.
pub(super) fn sound(global: &Global, which: &str) -> Result<Source, Failure> {
    let source = source(global, which)?;
    let wrong: Vec<String> = lint(&source)
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    if wrong.is_empty() { Ok(source) } else { Err(Failure::usage(wrong.join("\n"))) }
}

/// The plan with the nodes that are meant now, and what the linter warns of.
fn plan_words(source: &Source, status: &Status) -> String {
    let mut text = plan_text(&source.experiment, Some(&roles(&source.experiment, status)));
    for finding in warnings(source) {
        text.push_str(&format!("\n{finding}"));
    }
    text
}

/// What the linter warns of, on standard error: standard output is for results.
fn warn(source: &Source) {
    for finding in warnings(source) {
        complain(&finding.to_string());
    }
}

fn roles(experiment: &Experiment, status: &Status) -> Roles {
    let wanted = experiment.targets.values().map(|target| target.role);
    let named = |role: Role| cast(status, role).iter().map(ToString::to_string).collect();
    wanted.map(|role| (role, named(role))).collect::<BTreeMap<_, _>>()
}

fn is_confirmed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to be asked; add --yes if this is meant"));
    }
    let _ = write!(std::io::stderr(), "Do it? Type yes: ");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::usage(format!("cannot read the answer: {error}")))?;
    Ok(line.trim() == "yes")
}

fn conclusion(record: &Record, store: &Store) -> String {
    let mut text =
        format!("\n{}  {} (record {})\n", record.judgement.verdict, record.experiment.title, record.number);
    for reason in &record.judgement.reasons {
        text.push_str(&format!("  {reason}\n"));
    }
    for client in &record.clients {
        text.push_str(&format!(
            "  {}: outage {} ms, {} of {} writes acknowledged, {} lost\n",
            client.kind, client.outage_ms, client.acknowledged, client.attempted, client.lost
        ));
        if let Some(seen) = client.reconnecting {
            text.push_str(&format!(
                "  {}: connect gap {} ms, read gap {} ms, by a client that keeps no connection\n",
                client.kind, seen.connect_gap_ms, seen.read_gap_ms
            ));
        }
        if let Some(ms) = client.sustained_ms {
            text.push_str(&format!(
                "  {}: acknowledged steadily from {ms} ms after the fault on\n",
                client.kind
            ));
        }
    }
    for phase in &record.timeline {
        let over = if phase.is_over() { "  OVER" } else { "" };
        text.push_str(&format!(
            "  run {} {:<9} {} ms of {} ms{over}\n",
            phase.run,
            phase.phase.name(),
            phase.took_ms(),
            phase.budget_ms
        ));
    }
    if let Some(ms) = record.redundancy_ms {
        text.push_str(&format!("  redundancy back after {ms} ms\n"));
    }
    text.push_str(&format!("  evidence in {}\n", store.dir().display()));
    text
}

/// The run against the passes of its drill before it. Records that cannot be read are for `baton drill verify` to name.
fn slower(record: &Record, store: &Store) -> Vec<Alarm> {
    let stored = store.records().unwrap_or_default();
    let past: Vec<Past> = stored.iter().map(|stored| Past::from(&stored.record)).collect();
    let earlier =
        past.iter().filter(|past| past.number < record.number && past.drill == record.experiment.id);
    regressions(&earlier.collect::<Vec<&Past>>(), &Past::from(record))
}

fn chain(error: &dyn std::error::Error) -> String {
    baton_node::chain::chain(error)
}

/// The store, with its reports beside the records.
impl Keeper for Store {
    fn keep(&self, record: Record) -> Result<(Record, String), String> {
        let stored = self.append(record.clone()).map_err(|error| {
            // Whole, so that the next drill can still put it into the chain.
            let draft = self.keep_draft(&record);
            let kept = draft.map_or_else(|error| chain(&error), |()| "it is kept as a draft".to_owned());
            format!("{}; {kept}", chain(&error))
        })?;
        // The record stands; a report can be made from it at any time.
        if let Err(error) = write_reports(self, &stored) {
            complain(&format!("no report was written: {error}"));
        }
        Ok((stored.record, stored.hash))
    }

    fn draft(&self, record: &Record) -> Result<(), String> {
        self.keep_draft(record).map_err(|error| chain(&error))
    }
}

/// The reports that the drill wants, in `reports/` below the records.
fn write_reports(store: &Store, stored: &Stored) -> Result<(), Box<dyn std::error::Error>> {
    let dir = store.dir().join("reports");
    std::fs::create_dir_all(&dir)?;
    let past: Vec<Past> = store.records()?.iter().map(|stored| Past::from(&stored.record)).collect();
    for format in &stored.record.experiment.formats {
        let rendered = report::render(stored, &past, *format)?;
        std::fs::write(dir.join(report::file_name(&stored.record, *format)), rendered)?;
    }
    Ok(())
}

/// A runner that died has left a draft: it becomes the record of an interrupted drill.
pub(super) fn keep_left(store: &Store) -> Result<(), Failure> {
    let draft = store.draft().map_err(|error| Failure::usage(chain(&error)))?;
    let Some(record) = draft.map(runner::left) else { return Ok(()) };
    complain(&format!(
        "a drill of {} was left by its runner; it is recorded as {}",
        record.started, record.judgement.verdict
    ));
    store.append(record).map(drop).map_err(|error| Failure::usage(chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::shipped;
    use crate::runner::sample::status;

    #[test]
    fn a_plan_of_a_drill_that_the_linter_warns_of_says_so() {
        let plan = |id: &str| plan_words(&shipped::named(id).unwrap(), &status());
        let text = plan("power-cut");
        assert!(text.contains("db1"), "the node that is meant: {text}");
        assert!(text.contains("warning[lab-only]: power-off is for a lab"), "{text}");
        assert!(text.contains("warning[no-heal]: nothing heals power-off by itself"), "{text}");
        assert!(!plan("mysqld-killed").contains("warning["));
    }
}
