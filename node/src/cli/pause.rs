//! `baton pause`: for a while nothing changes by itself, and the holder serves on without a majority or an agent. `baton
//! resume`: back to normal.
//!
//! A pause counts only when the holder has said that its lifetimes in the kernel last; without that word it is taken back, also
//! when the command is interrupted. The end counts when the holder has said that they are short again, or when the leader has
//! waited for the longest of them.

use std::pin::pin;
use std::time::{Duration, Instant};

use baton_runbooks::model::PauseId;

use super::run::is_confirmed;
use super::status::wrap;
use super::switchover::checks;
use super::{Exit, Failure, Global, Output, block_on, interrupted, screen};
use crate::api::client::{Client, ClientError};
use crate::api::pause::{PauseRequest, PauseRow, ResumeRequest};
use crate::config::Ms;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// How long the holder may take to confirm a pause: a handful of commits and renewals.
const ARMED_WITHIN: Duration = Duration::from_secs(15);
/// How long the other nodes are waited for after that. They confirm within two reports if they are there.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Arguments of `baton pause`.
#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// How long: 1m at least, 24h at most. It always ends by itself
    #[arg(long = "for", value_name = "SPAN")]
    lasts: Ms,
    /// Why, for everybody who looks meanwhile, and for the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The holder does not wait for its replica meanwhile: for work that takes replica and majority away at once
    #[arg(long)]
    alone: bool,
    /// Show what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Your name, for the history
    #[arg(long, default_value = "operator")]
    by: String,
}

/// Arguments of `baton resume`.
#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// Show what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long to wait until it is over; it ends without this command, too
    #[arg(long, default_value = "1m", value_name = "SPAN")]
    timeout: Ms,
    /// Your name, for the history
    #[arg(long, default_value = "operator")]
    by: String,
}

pub(super) fn pause(global: &Global, args: &PauseArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let mut request = PauseRequest {
        for_ms: args.lasts.as_ms(),
        alone: args.alone,
        reason: args.reason.clone(),
        by: args.by.clone(),
        epoch: None,
    };
    let seen = block_on(client.pause(&request))??.preflight;
    let is_json = global.output == Output::Json;
    if is_json && (args.dry_run || seen.epoch.is_none()) {
        screen::say(&screen::json(&seen)?)?;
    }
    if !is_json {
        screen::complain(&checks(&seen.checks));
    }
    if seen.epoch.is_none() {
        return Err(Failure::new(
            Exit::Refused,
            "not paused; mend what is marked with NO above, then try again",
        ));
    }
    if !is_json {
        screen::complain(&wrap(&consequences(args, seen.at_most_ms)));
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.yes && !is_confirmed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    request.epoch = seen.epoch;
    let row = block_on(async {
        let mut interrupted = pin!(interrupted()?);
        ordered(&client, &request, &mut interrupted).await
    })??;
    if is_json {
        screen::say(&screen::json(&row)?)?;
    } else {
        let unseen: Vec<&str> = row.unseen_by.iter().map(|node| node.as_str()).collect();
        if !unseen.is_empty() {
            let (names, s) = (unseen.join(" and "), if unseen.len() == 1 { "has" } else { "have" });
            screen::complain(&format!("{names} {s} not confirmed; the holder has, which is what counts"));
        }
        screen::complain(&format!(
            "paused until about {} (pause {}); `baton resume` ends it",
            row.until.strftime("%Y-%m-%d %H:%M:%SZ"),
            row.number
        ));
    }
    Ok(Exit::Done)
}

fn consequences(args: &PauseArgs, at_most_ms: u64) -> String {
    let replica = if args.alone {
        "The holder does not wait for its replica: a takeover after the pause is possible only once the replica is in sync \
         again."
    } else {
        "Commits still wait for a replica that is in sync: take the replica away only while a majority is there to note it, \
         or use --alone."
    };
    format!(
        "For {} nobody takes over, whatever happens to the holder or its databases; no switchover, resync or drill starts. \
         The holder serves on without a majority, and without its agent.\n{replica}\nIf the holder is lost meanwhile, \
         nobody can serve before the pause is over for sure: {} after it began at the longest.",
        screen::span(args.lasts.as_ms()),
        screen::span(at_most_ms)
    )
}

/// Gives the order and waits until it counts.
async fn ordered(
    client: &Client,
    request: &PauseRequest,
    interrupted: &mut (impl Future<Output = ()> + Unpin),
) -> Result<PauseRow, Failure> {
    let number = tokio::select! {
        answer = client.pause(request) => answer?.pause,
        () = &mut *interrupted => return Err(Failure::new(
            Exit::TimedOut,
            "interrupted before the agent answered: a pause may stand that the holder has not confirmed; `baton status` says \
             so, and `baton resume` takes it back",
        )),
    };
    let number = number.ok_or_else(|| Failure::new(Exit::TimedOut, "no outcome; look at `baton status`"))?;
    confirmed(client, number, &request.by, ARMED_WITHIN, interrupted).await
}

/// Waits for the holder's word, `patience` at most. Without it, whatever is the reason, the pause is taken back.
async fn confirmed(
    client: &Client,
    number: PauseId,
    by: &str,
    patience: Duration,
    interrupted: &mut (impl Future<Output = ()> + Unpin),
) -> Result<PauseRow, Failure> {
    let cause = tokio::select! {
        row = armed(client, number, patience) => match row {
            Ok(Some(row)) => return Ok(row),
            Ok(None) => "the holder has not confirmed that it serves on by itself".to_owned(),
            Err(failure) => failure.message,
        },
        () = interrupted => "interrupted before everybody had confirmed".to_owned(),
    };
    Err(match client.resume(&ResumeRequest { pause: Some(number), by: by.to_owned() }).await {
        Ok(_) => Failure::new(Exit::RolledBack, format!("{cause}; the pause was taken back")),
        Err(error) => Failure::new(
            Exit::TimedOut,
            format!(
                "{cause}; pause {number} could not be taken back ({error}). `baton status` says whether it stands, `baton \
                 resume`, on any node, ends it"
            ),
        ),
    })
}

/// The pause, when the holder has confirmed it; then everybody else is waited for, for a moment. `None`: it has not in time.
async fn armed(client: &Client, number: PauseId, patience: Duration) -> Result<Option<PauseRow>, Failure> {
    let mut until = Instant::now() + patience;
    let mut has_confirmed = false;
    let mut newest = None;
    loop {
        if let Some(row) = current(client, number).await? {
            let is_armed = row.armed_ms.is_some();
            if is_armed && row.unseen_by.is_empty() {
                return Ok(Some(row));
            }
            if is_armed && !has_confirmed {
                has_confirmed = true;
                until = Instant::now() + SEEN_WITHIN;
            }
            newest = is_armed.then_some(row);
        }
        if Instant::now() >= until {
            return Ok(newest);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The pause of this number, if it is not over.
async fn current(client: &Client, number: PauseId) -> Result<Option<PauseRow>, Failure> {
    match client.status().await {
        Ok(status) => Ok(status.paused.filter(|row| row.number == number)),
        // The agent may be back in a moment.
        Err(ClientError::NoAgent { .. } | ClientError::Broken { .. } | ClientError::TimedOut { .. }) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn resume(global: &Global, args: &ResumeArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let status = block_on(client.status())??;
    let Some(row) = status.paused else {
        return Err(Failure::new(Exit::Refused, "no pause stands; nothing was changed"));
    };
    let is_json = global.output == Output::Json;
    if !is_json {
        screen::complain(&wrap(&format!(
            "pause {} by {}: {}, until about {}.\nIts end waits for the holder's word that its lifetimes are short again.",
            row.number,
            row.by,
            row.reason,
            row.until.strftime("%Y-%m-%d %H:%M:%SZ")
        )));
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.yes && !is_confirmed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    let number = row.number;
    block_on(client.resume(&ResumeRequest { pause: Some(number), by: args.by.clone() }))??;
    block_on(over(&client, number, args.timeout.duration()))??;
    if is_json {
        screen::say(&screen::json(&block_on(client.status())??)?)?;
    } else {
        screen::complain(&format!("pause {number} is over; everything is decided as ever"));
    }
    Ok(Exit::Done)
}

/// Waits until the ledger has no such pause any more.
async fn over(client: &Client, number: PauseId, patience: Duration) -> Result<(), Failure> {
    let until = Instant::now() + patience;
    let mut last: Option<PauseRow> = None;
    loop {
        match client.status().await {
            Ok(status) => match status.paused.filter(|row| row.number == number) {
                None => return Ok(()),
                Some(row) => last = Some(row),
            },
            Err(ClientError::NoAgent { .. } | ClientError::Broken { .. } | ClientError::TimedOut { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= until {
            let left = last.and_then(|row| row.over_in_ms).map_or_else(
                || "`baton status` says how long".to_owned(),
                |ms| format!("in {} at the longest", screen::span(ms)),
            );
            return Err(Failure::new(
                Exit::TimedOut,
                format!(
                    "the pause ends without this command: the holder has not said that its lifetimes are short again, so \
                     nobody may take over before they have ended by themselves, {left}"
                ),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests;
