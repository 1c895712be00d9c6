//! `baton takeover --accept-data-loss`: lets a data node take over that may lack acknowledged writes, once.
//!
//! The operator's word starts nothing by itself: the leader decides as ever, when the lost holder's lease has ended, and only
//! if what may be lost is within what was accepted. Without a takeover within the time-out the word is taken back.

use std::pin::pin;
use std::time::{Duration, Instant};

use baton_runbooks::agent::WORD_MAX_MS;
use baton_runbooks::decide::loss::LossPreflight;
use baton_runbooks::model::NodeId;

use super::run::is_confirmed;
use super::switchover::{ASK_STATUS, checks, conclude, follow};
use super::{Exit, Failure, Global, Output, block_on, interrupted, screen};
use crate::api::client::{Client, ClientError};
use crate::api::types::{ErrorCode, RunRecord, RunResult, TakeoverRequest, WithdrawRequest};
use crate::config::Ms;

/// How often it is looked whether the takeover has begun.
const LOOK: Duration = Duration::from_millis(100);

/// What may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtMost {
    Any,
    Span(Ms),
}

impl std::str::FromStr for AtMost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" { Ok(Self::Any) } else { text.parse().map(Self::Span) }
    }
}

/// Arguments of `baton takeover`.
#[derive(Debug, clap::Args)]
pub(super) struct TakeoverArgs {
    /// Writes of the last so much time may be lost: a span such as 3s, or any
    #[arg(long, value_name = "SPAN")]
    accept_data_loss: AtMost,
    /// Who takes over [default: the data node that does not hold the baton]
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Show what may be lost, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long to wait for the takeover before the word is taken back
    #[arg(long, default_value = "1m", value_name = "SPAN")]
    timeout: Ms,
    /// Your name, for the history
    #[arg(long, default_value = "operator")]
    by: String,
}

pub(super) fn run(global: &Global, args: &TakeoverArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let mut request = TakeoverRequest {
        to: args.to.as_deref().map(NodeId::from),
        by: args.by.clone(),
        at_most_ms: match args.accept_data_loss {
            AtMost::Any => None,
            AtMost::Span(span) => Some(span.as_ms()),
        },
        acceptance: None,
    };
    let seen = block_on(client.takeover(&request))??.preflight;
    let is_json = global.output == Output::Json;
    if is_json && (args.dry_run || seen.acceptance.is_none()) {
        screen::say(&screen::json(&seen)?)?;
    }
    if !is_json {
        screen::complain(&checks(&seen.checks));
    }
    let Some(acceptance) = seen.acceptance.clone() else {
        return Err(Failure::new(Exit::Refused, "nothing was changed; see what is marked with NO above"));
    };
    let node = acceptance.node.clone();
    if !is_json {
        screen::complain(&warning(&seen, &node));
    }
    if args.timeout.as_ms() > WORD_MAX_MS {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "--timeout {} is too long: a word stands for {} s at most",
                args.timeout,
                WORD_MAX_MS / 1000
            ),
        ));
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.yes && !is_confirmed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    let word = WithdrawRequest {
        // Its own entry raises the generation by one.
        generation: acceptance.generation.next(),
        node: node.clone(),
        by: args.by.clone(),
    };
    request.acceptance = Some(acceptance);
    let patience = args.timeout.duration();
    let record = block_on(async {
        let mut interrupted = pin!(interrupted()?);
        let number = given(&client, &request, &word, patience, &mut interrupted).await?;
        follow(&client, number, patience, is_json, "", &mut interrupted).await
    })??;
    if is_json {
        screen::say(&screen::json(&record)?)?;
    }
    if let Some(why) = record.why.iter().find(|why| why.code() == "loss-accepted") {
        screen::complain(&why.to_string());
    }
    match record.result {
        RunResult::RolledBack | RunResult::Abandoned => Err(taken_back(&record)),
        RunResult::Running
        | RunResult::Undoing
        | RunResult::Completed
        | RunResult::Degraded
        | RunResult::NeedsOperator => conclude(&record, ASK_STATUS),
    }
}

fn taken_back(record: &RunRecord) -> Failure {
    let why = record.failure.as_deref().unwrap_or("no reason was noted");
    Failure::new(
        Exit::RolledBack,
        format!(
            "run {} was taken back, and nobody holds the baton: {why}. Your word is used up; mend it, then try again",
            record.number
        ),
    )
}

/// Gives the word and waits for the takeover that uses it; its number. Whatever else happens, an interrupt too, the word is
/// taken back.
async fn given(
    client: &Client,
    request: &TakeoverRequest,
    word: &WithdrawRequest,
    patience: Duration,
    interrupted: &mut (impl Future<Output = ()> + Unpin),
) -> Result<u64, Failure> {
    let until = Instant::now() + patience;
    let waited = async {
        let number = client.takeover(request).await?.run;
        let number =
            number.ok_or_else(|| Failure::new(Exit::TimedOut, "no outcome; look at `baton history`"))?;
        Ok::<_, Failure>(begins(client, number.0, until).await?.then_some(number.0).ok_or(number.0))
    };
    let ended = tokio::select! {
        ended = waited => ended,
        () = interrupted => Err(Failure::new(Exit::Refused, "interrupted")),
    };
    let (number, cause) = match ended {
        Ok(Ok(number)) => return Ok(number),
        Ok(Err(number)) => {
            let why = "`baton explain` on the leader says what stood in the way";
            (Some(number), Failure::new(Exit::Refused, format!("{} did not take over; {why}", word.node)))
        }
        Err(failure) => (None, failure),
    };
    match client.withdraw(word).await {
        Ok(_) => Err(Failure::new(
            cause.exit,
            format!("{}. The word is taken back: nothing was changed", cause.message),
        )),
        // Used, or ended by the holder, or never given.
        Err(ClientError::Answered { body, .. }) if body.code == ErrorCode::Refused => match number {
            Some(number) if client.run(number).await.is_ok() => Ok(number),
            Some(_) => Err(Failure::new(
                Exit::Refused,
                "the word does not stand any more: the old holder serves again, or somebody else gave another",
            )),
            None => Err(Failure::new(
                cause.exit,
                format!("{}; `baton history` says whether a takeover used the word", cause.message),
            )),
        },
        Err(error) => Err(Failure::new(
            Exit::TimedOut,
            format!(
                "{}. The word could not be taken back ({error}); it ends {} s after a leader is there, or when the old holder serves",
                cause.message,
                WORD_MAX_MS / 1000
            ),
        )),
    }
}

fn warning(seen: &LossPreflight, node: &NodeId) -> String {
    let loss = seen.checks.iter().find(|check| check.code == "loss");
    let loss = loss.map_or("not known", |check| check.evidence.as_str());
    format!(
        "{node} takes over as soon as the leader knows that the old holder is closed.\n\
         Lost, as far as it is seen from here: {loss}.\n\
         The old holder keeps what is lost; when it comes back it is not let in by itself."
    )
}

/// True when the run is there before `until`.
async fn begins(client: &Client, number: u64, until: Instant) -> Result<bool, Failure> {
    loop {
        match client.run(number).await {
            Ok(_) => return Ok(true),
            Err(ClientError::Answered { body, .. }) if body.code == ErrorCode::NotFound => {}
            Err(ClientError::NoAgent { .. } | ClientError::Broken { .. } | ClientError::TimedOut { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}
