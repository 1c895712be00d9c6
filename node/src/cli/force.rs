//! `baton force`: the majority is lost for good, and this node goes on alone.

use std::time::{Duration, Instant};

use baton_runbooks::decide::force::ForcePreflight;
use baton_runbooks::model::NodeId;

use super::run::is_confirmed_by;
use super::status::wrap;
use super::switchover::checks;
use super::{Exit, Failure, Global, Output, block_on, screen};
use crate::api::client::{Client, ClientError};
use crate::api::force::ForceRequest;
use crate::api::types::Status;
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
         `baton rejoin NODE` for each; what their databases have extra is saved first.",
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
