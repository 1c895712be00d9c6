//! `baton resync NODE`: shows what was looked at and the plan, asks, has the node's agent carry it out, and follows it.
//!
//! An interrupt ends the command, not the resync: the agent carries it out.

use std::time::{Duration, Instant};

use baton_runbooks::decide::switchover::Check;
use baton_runbooks::model::NodeId;
use baton_runbooks::observe::{ResyncFacts, ResyncPhase};

use super::run::is_confirmed;
use super::status::wrap;
use super::{Exit, Failure, Global, Output, block_on, screen};
use crate::api::client::{Client, ClientError};
use crate::api::resync::{ResyncPlan, ResyncRequest};
use crate::config::Ms;

/// How often the status is looked at; the agents report about as often.
const LOOK: Duration = Duration::from_millis(200);
/// Between two lines about one phase.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Arguments of `baton resync`.
#[derive(Debug, clap::Args)]
pub(super) struct ResyncArgs {
    /// The data node whose database is replaced by a copy of the holder's
    #[arg(value_name = "NODE")]
    target: String,
    /// Show what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long to follow it before leaving it to the agents
    #[arg(long, default_value = "4h", value_name = "SPAN")]
    timeout: Ms,
    /// Your name, for the log
    #[arg(long, default_value = "operator")]
    by: String,
}

pub(super) fn run(global: &Global, args: &ResyncArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let node = NodeId::from(args.target.as_str());
    let mut request = ResyncRequest { node: node.clone(), by: args.by.clone(), plan: None };
    let seen = block_on(client.resync(&request))??.preflight;
    let is_json = global.output == Output::Json;
    if is_json && (args.dry_run || seen.plan.is_none()) {
        screen::say(&screen::json(&seen)?)?;
    }
    if !is_json {
        screen::complain(&checks(&seen.checks));
    }
    let Some(plan) = seen.plan else {
        return Err(Failure::new(
            Exit::Refused,
            "nothing was changed; mend what is marked with NO above, then try again",
        ));
    };
    if !is_json {
        screen::complain(&steps(&plan));
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.yes && !is_confirmed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    request.plan = Some(plan);
    let begun = block_on(client.resync(&request))??.number;
    let number = begun
        .ok_or_else(|| Failure::new(Exit::TimedOut, "the resync was not begun; look at `baton status`"))?;
    let facts = block_on(follow(&client, &node, number, args.timeout.duration(), is_json))??;
    if is_json {
        screen::say(&screen::json(&facts)?)?;
    }
    conclude(&node, &facts)
}

fn checks(checks: &[Check]) -> String {
    let line = |check: &Check| {
        format!("  {} {:<14} {}", if check.ok { "ok" } else { "NO" }, check.code, check.evidence)
    };
    checks.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn steps(plan: &ResyncPlan) -> String {
    let mut text = format!("resync of {} from {}, about {}:", plan.node, plan.from, size(plan.bytes));
    for (place, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("\n  {}. {step}", place + 1));
    }
    if let Some(extra) = &plan.extra {
        text.push_str(&format!(
            "\n  {} loses the transactions {extra}; they are saved, see above",
            plan.node
        ));
    }
    text
}

fn size(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Shows each phase as it is entered, and bytes while they come, until it has ended or the patience is over.
async fn follow(
    client: &Client,
    node: &NodeId,
    number: u64,
    patience: Duration,
    quiet: bool,
) -> Result<ResyncFacts, Failure> {
    let until = Instant::now() + patience;
    let mut said: Option<(ResyncPhase, Instant)> = None;
    loop {
        let found = match client.status().await {
            Ok(status) => status.nodes.into_iter().find(|row| row.name == *node).and_then(|row| row.resync),
            // It goes on without this agent, which may be back in a moment.
            Err(ClientError::NoAgent { .. } | ClientError::Broken { .. } | ClientError::TimedOut { .. }) => {
                None
            }
            Err(error) => return Err(error.into()),
        };
        // Reports take a moment to get here: an older resync is not this one.
        if let Some(facts) = found.filter(|facts| facts.number == number) {
            let is_new = said.is_none_or(|(phase, at)| phase != facts.phase || at.elapsed() >= SAY_EVERY);
            if is_new && !quiet {
                screen::complain(&line(&facts));
                said = Some((facts.phase, Instant::now()));
            }
            if facts.phase >= ResyncPhase::Done {
                return Ok(facts);
            }
        }
        if Instant::now() >= until {
            return Err(Failure::new(
                Exit::TimedOut,
                "the resync goes on without this command; `baton status` shows it",
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn line(facts: &ResyncFacts) -> String {
    let copied = format!("{} of about {}", size(facts.bytes), size(facts.bytes_expected.max(facts.bytes)));
    let what = match facts.phase {
        ResyncPhase::Copying => format!("copying        {copied}"),
        ResyncPhase::Preparing => format!("preparing      {}", size(facts.bytes)),
        ResyncPhase::Stopping => "stopping       the old database".to_owned(),
        ResyncPhase::Swapping => "swapping       the directories".to_owned(),
        ResyncPhase::Starting => "starting       the database".to_owned(),
        ResyncPhase::Seeding => "seeding        its place in the holder's history".to_owned(),
        ResyncPhase::CatchingUp => format!("catching up    with {}", facts.from),
        ResyncPhase::Done => "done".to_owned(),
        ResyncPhase::Failed => "failed".to_owned(),
        ResyncPhase::Stuck => "stopped".to_owned(),
    };
    format!("  {:>9}  {what}", screen::span(facts.took_ms))
}

/// The exit code that belongs to the end.
fn conclude(node: &NodeId, facts: &ResyncFacts) -> Result<Exit, Failure> {
    let note = facts.note.as_deref();
    let why = note.unwrap_or("no reason was noted");
    match facts.phase {
        ResyncPhase::Done => {
            let note = note.map(|note| format!("; {note}")).unwrap_or_default();
            screen::complain(&wrap(&format!("{node} is in sync with {}{note}", facts.from)));
            Ok(Exit::Done)
        }
        ResyncPhase::Failed => Err(Failure::new(
            Exit::RolledBack,
            format!(
                "the resync failed and {node} is as it was: {why}; mend it and repeat `baton resync {node}`"
            ),
        )),
        ResyncPhase::Stuck => Err(Failure::new(
            Exit::NeedsOperator,
            format!(
                "the resync stopped and {node} stays closed: {why}; mend it and repeat `baton resync {node}`"
            ),
        )),
        ResyncPhase::Copying
        | ResyncPhase::Preparing
        | ResyncPhase::Stopping
        | ResyncPhase::Swapping
        | ResyncPhase::Starting
        | ResyncPhase::Seeding
        | ResyncPhase::CatchingUp => {
            Err(Failure::new(Exit::TimedOut, "the resync goes on; `baton status` shows it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(phase: ResyncPhase) -> Result<Exit, Exit> {
        let facts = ResyncFacts {
            number: 1,
            from: "db2".into(),
            phase,
            bytes: 3 << 20,
            bytes_expected: 2 << 20,
            took_ms: 4_230,
            note: Some("why".to_owned()),
        };
        assert!(!line(&facts).is_empty());
        conclude(&"db1".into(), &facts).map_err(|failure| {
            assert!(failure.message.contains("why") || phase < ResyncPhase::Done, "{}", failure.message);
            failure.exit
        })
    }

    #[test]
    fn each_end_has_its_exit_code() {
        assert_eq!(ended(ResyncPhase::Done), Ok(Exit::Done));
        assert_eq!(ended(ResyncPhase::Failed), Err(Exit::RolledBack));
        assert_eq!(ended(ResyncPhase::Stuck), Err(Exit::NeedsOperator));
        assert_eq!(ended(ResyncPhase::Copying), Err(Exit::TimedOut));
    }
}
