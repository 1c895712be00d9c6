//! `baton drill run` and `baton drill plan`.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};

use baton_node::api::types::Status;
use baton_node::cli::Exit;

use super::{Failure, Global, Output, complain, json, say, source};
use crate::evidence::{Record, Store};
use crate::experiment::plan::{Roles, plan as plan_text};
use crate::experiment::{Experiment, Role};
use crate::lint::{Severity, lint};
use crate::runner::agents::{Agents, cast};
use crate::runner::{self, Keeper, Options, RunError};

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

/// Arguments of `baton drill plan`.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// A shipped drill, or the file of one
    #[arg(value_name = "NAME|FILE")]
    which: String,
}

pub(super) async fn plan(global: &Global, args: &PlanArgs) -> Result<u8, Failure> {
    let source = sound(&args.which)?;
    let agents = Agents { client: global.client()?, by: "operator".into() };
    let seen = runner::preflight(&agents, &source).await?;
    if global.output == Output::Json {
        say(&json(&seen.checks)?);
    } else {
        say(&plan_text(&source.experiment, Some(&roles(&source.experiment, &seen.status))));
        for check in &seen.checks {
            say(&runner::check_line(check));
        }
    }
    Ok(if seen.refusal().is_some() { Exit::Refused.code() } else { Exit::Done.code() })
}

pub(super) async fn run(global: &Global, args: &RunArgs) -> Result<u8, Failure> {
    if args.dry_run {
        return plan(global, &PlanArgs { which: args.which.clone() }).await;
    }
    let source = sound(&args.which)?;
    let config = global.config()?;
    let agents = Agents { client: global.client()?, by: args.by.clone() };
    let store = Store::open(&config.drill.evidence).map_err(|error| Failure::usage(chain(&error)))?;
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
    Ok(record.judgement.verdict.exit_code())
}

fn failure(error: RunError) -> Failure {
    match error {
        RunError::Agent(error) => error.into(),
        error @ (RunError::Evidence { .. } | RunError::Signals(_)) => Failure::usage(chain(&error)),
    }
}

/// A drill without mistakes.
fn sound(which: &str) -> Result<crate::experiment::Source, Failure> {
    let source = source(which)?;
    let wrong: Vec<String> = lint(&source)
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    if wrong.is_empty() { Ok(source) } else { Err(Failure::usage(wrong.join("\n"))) }
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
    let mut text = format!("\n{}  {} (record {})\n", record.judgement.verdict, record.experiment.title, record.number);
    for reason in &record.judgement.reasons {
        text.push_str(&format!("  {reason}\n"));
    }
    for client in &record.clients {
        text.push_str(&format!(
            "  {}: outage {} ms, {} of {} writes acknowledged, {} lost\n",
            client.kind, client.outage_ms, client.acknowledged, client.attempted, client.lost
        ));
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

fn chain(error: &dyn std::error::Error) -> String {
    baton_node::chain::chain(error)
}

impl Keeper for Store {
    fn keep(&self, record: Record) -> Result<(Record, String), String> {
        let stored = self.append(record).map_err(|error| chain(&error))?;
        Ok((stored.record, stored.hash))
    }
}
