//! `baton drill status`, `abort` and `heal`: what stands is seen and ended, by whoever is at hand.

use baton_node::api::client::ClientError;
use baton_node::api::drill::{DrillOrder, DrillView, FaultPhase};
use baton_node::cli::Exit;
use baton_node::config::{Config, NodeId};
use baton_node::drill::note_path;

use super::{Failure, Global, Output, complain, json, say};
use crate::evidence::{NO_HASH, Witness};
use crate::runner::agents::Agents;

/// Arguments of `baton drill abort`.
#[derive(Debug, clap::Args)]
pub(super) struct AbortArgs {
    /// Your name, for the record
    #[arg(long, default_value = "operator")]
    by: String,
}

/// Arguments of `baton drill heal`.
#[derive(Debug, clap::Args)]
pub(super) struct HealArgs {
    /// The node; all of them if none is named
    #[arg(value_name = "NODE")]
    target: Option<String>,
    /// Your name, for the log
    #[arg(long, default_value = "operator")]
    by: String,
}

type Answers = Vec<(NodeId, Result<DrillView, ClientError>)>;

async fn ask_all(agents: &Agents, order: impl Fn() -> DrillOrder) -> Result<Answers, Failure> {
    let nodes: Vec<NodeId> = agents.status().await?.nodes.into_iter().map(|row| row.name).collect();
    let mut answers = Vec::new();
    for node in nodes {
        let answer = agents.order(Some(&node), order()).await;
        answers.push((node, answer));
    }
    Ok(answers)
}

pub(super) async fn status(global: &Global) -> Result<u8, Failure> {
    let agents = Agents { client: global.client()?, by: "operator".into() };
    let answers = ask_all(&agents, || DrillOrder::Look).await?;
    let views: Vec<&DrillView> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
    if global.output == Output::Json {
        say(&json(&views)?);
        return Ok(Exit::Done.code());
    }
    match views.iter().find_map(|view| view.drill.as_ref()) {
        Some(drill) => {
            say(&format!(
                "drill {} ({}) is under way, begun by {} at {}",
                drill.number, drill.name, drill.by, drill.at_node
            ));
            if let Some(reason) = &drill.aborted {
                say(&format!("  it is to end: {reason}"));
            }
        }
        None => say("no drill is under way"),
    }
    for (node, answer) in &answers {
        match answer {
            Ok(view) => say(&format!("  {node:<10} allows {}; {}", view.allow, bears(view))),
            Err(error) => say(&format!("  {node:<10} cannot be asked: {error}")),
        }
    }
    if let Some(last) = views.first().and_then(|view| view.ended.last()) {
        say(&format!("the last was drill {} ({}): {}", last.drill.number, last.drill.name, last.verdict));
    }
    Ok(Exit::Done.code())
}

fn bears(view: &DrillView) -> String {
    let mut words = match &view.fault {
        Some(fault) if fault.phase != FaultPhase::Healed => {
            format!("bears {} of drill {}: {}", fault.spec.kind, fault.drill, fault.heal)
        }
        Some(_) | None => "bears nothing".to_owned(),
    };
    if !view.leftovers.is_empty() {
        words.push_str(&format!("; LEFT: {}", view.leftovers.join("; ")));
    }
    words
}

pub(super) async fn abort(global: &Global, args: &AbortArgs) -> Result<u8, Failure> {
    let agents = Agents { client: global.client()?, by: args.by.clone() };
    let view = agents.order(None, DrillOrder::Look).await?;
    let Some(drill) = view.drill else {
        complain("no drill is under way; `baton drill heal` heals what may be left");
        return Ok(Exit::Refused.code());
    };
    let order = DrillOrder::Abort { number: drill.number, reason: "an operator's command".into() };
    agents.order(None, order).await?;
    say(&format!("drill {} is to end; every agent heals what it bears", drill.number));
    Ok(Exit::Done.code())
}

/// Every node is asked; what this machine bears is healed here if its agent does not answer.
pub(super) async fn heal(global: &Global, args: &HealArgs) -> Result<u8, Failure> {
    let agents = Agents { client: global.client()?, by: args.by.clone() };
    let order = || DrillOrder::Heal { reason: "an operator's command".into() };
    let target = args.target.as_deref().map(NodeId::new);
    let answers = match &target {
        Some(node) => {
            let answer = agents.order(Some(node), order()).await;
            vec![(node.clone(), answer)]
        }
        None => match ask_all(&agents, order).await {
            Ok(answers) => answers,
            Err(failure) => {
                complain(&format!("the agent of this machine: {}; healing here without it", failure.message));
                return heal_here(&global.config()?).await;
            }
        },
    };
    let mut code = Exit::Done.code();
    for (node, answer) in &answers {
        match answer {
            Ok(view) => say(&format!("  {node:<10} {}", bears(view))),
            Err(error) => {
                complain(&format!(
                    "  {node:<10} cannot be asked: {error}; what it bears ends by itself, or run this there"
                ));
                code = Exit::of(error).code();
            }
        }
    }
    Ok(code)
}

/// The agent is frozen, dead or absent: the note says what is to be healed.
async fn heal_here(config: &Config) -> Result<u8, Failure> {
    let healed = baton_node::drill::heal_here(&note_path(&config.state_dir)).await.map_err(Failure::usage)?;
    say(&healed.unwrap_or_else(|| "nothing of a drill was noted on this machine; nothing is severed".into()));
    Ok(Exit::Done.code())
}

/// What the ledger knows of the drills of this node: the hash of the last record, and all drills that it remembers. `None`:
/// nobody can be asked.
pub(super) async fn witnesses(global: &Global) -> Option<(Option<String>, Vec<Witness>)> {
    let agents = Agents { client: global.client().ok()?, by: "operator".into() };
    let view = agents.order(None, DrillOrder::Look).await.ok()?;
    let all_are_known = u64::try_from(view.ended.len()).is_ok_and(|known| known >= view.drills.0);
    let ended = view.ended.into_iter().filter(|ended| ended.drill.at_node == view.node);
    let witnesses: Vec<Witness> = ended
        .map(|ended| Witness {
            drill: ended.drill.number.0,
            verdict: ended.verdict,
            evidence: ended.evidence,
        })
        .collect();
    let last = witnesses.iter().rev().find(|witness| !witness.evidence.is_empty());
    // Where it has seen no record of this node, and remembers every drill, it holds the hash before the first one.
    let head = last.map(|last| last.evidence.clone()).or_else(|| all_are_known.then(|| NO_HASH.to_owned()));
    Some((head, witnesses))
}
