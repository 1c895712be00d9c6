//! `baton force`: the majority is lost for good, and this node goes on alone. `baton rejoin`: what a node needs to come back.

use std::time::{Duration, Instant};

use baton_runbooks::decide::force::ForcePreflight;
use baton_runbooks::model::{Generation, NodeId};

use super::run::{is_confirmed, is_confirmed_by};
use super::status::wrap;
use super::switchover::checks;
use super::{Exit, Failure, Global, Output, block_on, screen};
use crate::api::alarm::AlarmCode;
use crate::api::client::{Client, ClientError};
use crate::api::force::ForceRequest;
use crate::api::types::{NodeRow, Role, Status};
use crate::api::view::away;
use crate::config::Ms;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `baton force`.
#[derive(Debug, clap::Args)]
pub(super) struct ForceArgs {
    /// All other nodes, by name: you state that each is powered off or wiped, and stays so until it may rejoin
    #[arg(long, value_name = "NODE,NODE", value_delimiter = ',', required = true)]
    others_are_off: Vec<String>,
    /// Acknowledged writes that this node lacks may be lost; needed whenever MySQL is configured
    #[arg(long)]
    accept_data_loss: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Show what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long to wait until this node leads alone
    #[arg(long, default_value = "1m", value_name = "SPAN")]
    timeout: Ms,
    /// Your name, for the history
    #[arg(long, default_value = "operator")]
    by: String,
}

/// Arguments of `baton rejoin`.
#[derive(Debug, clap::Args)]
pub(super) struct RejoinArgs {
    /// The node [default: the one that is asked]
    #[arg(value_name = "NODE")]
    which: Option<String>,
    /// Show what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long to wait until it is a member again
    #[arg(long, default_value = "1m", value_name = "SPAN")]
    timeout: Ms,
}

pub(super) fn force(global: &Global, args: &ForceArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let mut request = ForceRequest {
        others_are_off: args.others_are_off.iter().map(|name| NodeId::from(name.trim())).collect(),
        accept_loss: args.accept_data_loss,
        reason: args.reason.clone(),
        by: args.by.clone(),
        generation: None,
    };
    let seen = block_on(client.force(&request))??.preflight;
    let is_json = global.output == Output::Json;
    if is_json && (args.dry_run || seen.forced.is_none()) {
        screen::say(&screen::json(&seen)?)?;
    }
    if !is_json {
        screen::complain(&checks(&seen.checks));
    }
    let Some(generation) = seen.generation() else {
        return Err(Failure::new(Exit::Refused, "nothing was changed; see what is marked with NO above"));
    };
    if !is_json {
        screen::complain(&wrap(&warning(&seen)));
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    let survivor = seen.forced.as_ref().map_or("", |forced| forced.survivor.as_str());
    if !args.yes && !is_confirmed_by(survivor)? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    request.generation = Some(generation);
    block_on(client.force(&request))??;
    let status = block_on(wait(&client, args.timeout.duration(), |status| {
        status.generation >= generation && status.leader.as_ref() == Some(&status.node)
    }))??;
    let Some(status) = status else {
        return Err(Failure::new(
            Exit::TimedOut,
            "it is ordered, and carried out when the agent starts; if it does not lead soon, its log says why",
        ));
    };
    if is_json {
        screen::say(&screen::json(&status)?)?;
    } else {
        screen::complain(&wrap(&format!(
            "{} goes on alone in generation {generation}. {}",
            status.node, status.sentence
        )));
    }
    Ok(Exit::Done)
}

fn warning(seen: &ForcePreflight) -> String {
    let Some(forced) = &seen.forced else { return String::new() };
    let others: Vec<&str> = forced.gave_up.iter().map(NodeId::as_str).collect();
    let others = others.join(" and ");
    let loss = match &forced.loss {
        Some(_) => "Acknowledged writes that it lacks are lost. ",
        None => "",
    };
    format!(
        "{} goes on alone, in generation {}. Given up for ever: everything that {others} decided after entry {} of the log, and \
         what was written by that. {loss}If one of them still runs, two nodes may serve. They come back as new members, with \
         `baton rejoin` on each; what their databases have extra is saved first.",
        forced.survivor, forced.generation, forced.last_index
    )
}

/// Looks until `is_so`, while the agent may be away; `None`: it did not come to be so.
async fn wait(
    client: &Client,
    patience: Duration,
    is_so: impl Fn(&Status) -> bool,
) -> Result<Option<Status>, Failure> {
    let until = Instant::now() + patience;
    loop {
        match client.status().await {
            Ok(status) if is_so(&status) => return Ok(Some(status)),
            Ok(_)
            | Err(ClientError::NoAgent { .. } | ClientError::Broken { .. } | ClientError::TimedOut { .. }) => {
            }
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) fn rejoin(global: &Global, args: &RejoinArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let status = block_on(client.status())??;
    let node = args.which.as_deref().map_or_else(|| status.node.clone(), NodeId::from);
    let outranked = status.alarms.iter().find(|alarm| alarm.code == AlarmCode::Outranked.as_str());
    match outranked {
        Some(alarm) if node == status.node => {
            screen::complain(&wrap(&alarm.text));
            put_aside(&client, args, &status)
        }
        Some(_) | None => {
            let (exit, text) = standing(&status, &node);
            if exit == Exit::Done {
                screen::complain(&wrap(&text));
                return Ok(exit);
            }
            Err(Failure::new(exit, wrap(&text)))
        }
    }
}

fn put_aside(client: &Client, args: &RejoinArgs, status: &Status) -> Result<Exit, Failure> {
    screen::complain(&wrap(&format!(
        "{}'s Raft log is put aside, beside the new one; nothing in it counts any more. Its database is not touched: what it has \
         extra is saved before anything is done with it.",
        status.node
    )));
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.yes && !is_confirmed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    block_on(client.rejoin())??;
    let before: Generation = status.generation;
    let back = block_on(wait(client, args.timeout.duration(), |now| {
        now.generation > before
            && now.leader.is_some()
            && now.alarms.iter().all(|alarm| alarm.code != AlarmCode::NotVoting.as_str())
    }))??;
    match back {
        Some(now) => {
            screen::complain(&wrap(&format!("{} is a member again. {}", now.node, now.sentence)));
            Ok(Exit::Done)
        }
        None => {
            Err(Failure::new(Exit::TimedOut, "it is not a member yet; `baton status` says what is awaited"))
        }
    }
}

/// Why a node is not attached, and what to do; it attaches by itself if nothing stands in its way.
fn standing(status: &Status, node: &NodeId) -> (Exit, String) {
    let Some(row) = status.nodes.iter().find(|row| row.name == *node) else {
        return (Exit::Usage, format!("there is no node {node}"));
    };
    let holder = status.holder.as_ref().map_or("the holder", NodeId::as_str);
    if row.silent {
        return (
            Exit::Refused,
            format!("{node} is not heard: start its agent, or mend its network; it rejoins by itself"),
        );
    }
    match row.role {
        Role::Holder => (Exit::Done, format!("{node} holds the baton; there is nothing to rejoin")),
        Role::Witness if row.obstacles.is_empty() => {
            (Exit::Done, format!("{node} is there; it has no data to attach"))
        }
        Role::Replica if row.obstacles.is_empty() => {
            (Exit::Done, format!("{node} is attached: it follows {holder}"))
        }
        Role::Closed if row.obstacles.is_empty() => (Exit::Refused, away::closed(row, holder)),
        Role::Witness | Role::Replica | Role::Closed | Role::Unknown => (Exit::Refused, stands(row)),
    }
}

fn stands(row: &NodeRow) -> String {
    format!("{} cannot be attached: {}", row.name, row.obstacles.join(", "))
}
