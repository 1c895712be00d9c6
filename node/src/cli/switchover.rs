//! `baton switchover`: shows what was looked at and the plan, asks, starts the run, and follows it.
//!
//! An interrupt ends the command, not the run: the agents carry it out. `baton run abort N` takes it back, as long as the
//! point of no return is not behind it.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use baton_runbooks::decide::switchover::Check;
use baton_runbooks::model::NodeId;
use baton_runbooks::plan::{Kind, Plan};

use super::run::is_confirmed;
use super::status::wrap;
use super::{Exit, Failure, Global, Output, block_on, interrupted, screen};
use crate::api::client::{Client, ClientError};
use crate::api::types::{ErrorCode, RunRecord, RunResult, StepState, SwitchoverRequest};
use crate::config::Ms;

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `baton switchover`.
#[derive(Debug, clap::Args)]
pub(super) struct SwitchoverArgs {
    /// Who gets the baton [default: the other data node]
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Show what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long clients' transactions may go on before their sessions are ended
    #[arg(long, default_value = "5s", value_name = "SPAN")]
    drain_patience: Ms,
    /// How long to follow the run before leaving it to the agents
    #[arg(long, default_value = "2m", value_name = "SPAN")]
    timeout: Ms,
    /// Your name, for the history
    #[arg(long, default_value = "operator")]
    by: String,
}

pub(super) fn run(global: &Global, args: &SwitchoverArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let mut request = SwitchoverRequest {
        to: args.to.as_deref().map(NodeId::from),
        by: args.by.clone(),
        drain_patience_ms: args.drain_patience.as_ms(),
        plan: None,
        drill: None,
    };
    let seen = block_on(client.switchover(&request))??.preflight;
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
            "not passed; mend what is marked with NO above, then try again",
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
    let record = block_on(async {
        let mut interrupted = pin!(interrupted()?);
        passed(&client, &request, args.timeout.duration(), is_json, &mut interrupted).await
    })??;
    if is_json {
        screen::say(&screen::json(&record)?)?;
    }
    conclude(&record)
}

pub(super) fn checks(checks: &[Check]) -> String {
    let line = |check: &Check| {
        format!("  {} {:<16} {}", if check.ok { "ok" } else { "NO" }, check.code, check.evidence)
    };
    checks.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn steps(plan: &Plan) -> String {
    let from = plan.from.as_ref().map_or("nobody", NodeId::as_str);
    let mut text = format!("switchover from {from} to {}, epoch {}:", plan.to, plan.epoch);
    for planned in &plan.steps {
        let mark = match planned.kind {
            Kind::Undoable => "",
            Kind::Pivot => "  (point of no return)",
            Kind::Forward => "  (failure undoes nothing)",
        };
        let limit = screen::span(planned.limit_ms);
        text.push_str(&format!(
            "\n  {:<18} at {:<8} within {limit}{mark}",
            planned.step.as_str(),
            planned.actor
        ));
    }
    text
}

/// Gives the order and follows its run. An interrupt ends only this, and the words say what goes on without it.
async fn passed(
    client: &Client,
    request: &SwitchoverRequest,
    patience: Duration,
    quiet: bool,
    interrupted: &mut (impl Future<Output = ()> + Unpin),
) -> Result<RunRecord, Failure> {
    let started = tokio::select! {
        answer = client.switchover(request) => answer?.run,
        () = &mut *interrupted => return Err(Failure::new(
            Exit::TimedOut,
            "interrupted before the agent answered: the run may have been started, and goes on without this command then; \
             `baton history` shows it, and `baton run abort N` takes it back as long as it can be",
        )),
    };
    let number = started
        .ok_or_else(|| Failure::new(Exit::TimedOut, "the run was not started; look at `baton history`"))?;
    let way_back = format!("; `baton run abort {number}` takes it back as long as it can be");
    follow(client, number.0, patience, quiet, &way_back, interrupted).await
}

/// Shows each step as it ends, beside its limit, until the run has ended, the patience is over, or somebody interrupts.
/// `way_back`: how the run could still be taken back, for who interrupts.
pub(super) async fn follow(
    client: &Client,
    number: u64,
    patience: Duration,
    quiet: bool,
    way_back: &str,
    interrupted: &mut (impl Future<Output = ()> + Unpin),
) -> Result<RunRecord, Failure> {
    let goes_on = |after: &str| {
        Failure::new(
            Exit::TimedOut,
            format!("run {number} goes on without this command{after}; `baton history {number}` shows it"),
        )
    };
    let unseen = Cell::new(None);
    tokio::select! {
        watched = tokio::time::timeout(patience, watch(client, number, quiet, &unseen)) => {
            watched.unwrap_or_else(|_| Err(unseen.take().map_or_else(|| goes_on(""), Failure::from)))
        }
        () = interrupted => Err(goes_on(way_back)),
    }
}

/// `unseen`: why the newest look did not show the run.
async fn watch(
    client: &Client,
    number: u64,
    quiet: bool,
    unseen: &Cell<Option<ClientError>>,
) -> Result<RunRecord, Failure> {
    let mut shown: Vec<String> = Vec::new();
    loop {
        let record = match client.run(number).await {
            Ok(record) => record,
            Err(error) if is_passing(&error, shown.is_empty()) => {
                unseen.set(Some(error));
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        unseen.set(None);
        for step in record.steps.iter().filter(|step| !quiet && is_over(step.state)) {
            let word = format!("{:?}", step.state).to_lowercase();
            let key = format!("{} {word}", step.step);
            if !shown.contains(&key) {
                let took = step.took_ms.map_or_else(|| "-".to_owned(), screen::span);
                let note = step.note.as_deref().map(|note| format!("  {note}")).unwrap_or_default();
                screen::complain(&format!(
                    "  {:<18} {word:<8} {took:>9} of {}{note}",
                    step.step,
                    screen::span(step.limit_ms)
                ));
                shown.push(key);
            }
        }
        if !matches!(record.result, RunResult::Running | RunResult::Undoing) {
            return Ok(record);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The agent shows a run a moment after the ledger has it; and a run goes on without this agent, which may be back in a moment.
fn is_passing(error: &ClientError, is_first: bool) -> bool {
    match error {
        ClientError::Answered { body, .. } => body.code == ErrorCode::NotFound && is_first,
        ClientError::NoAgent { .. } | ClientError::Broken { .. } | ClientError::TimedOut { .. } => true,
        ClientError::Denied { .. } | ClientError::Decode { .. } => false,
    }
}

const fn is_over(state: StepState) -> bool {
    match state {
        StepState::Done | StepState::Failed | StepState::Skipped | StepState::Undone | StepState::Stuck => {
            true
        }
        StepState::Pending | StepState::Acting | StepState::Undoing => false,
    }
}

pub(super) fn conclude(record: &RunRecord) -> Result<Exit, Failure> {
    let (number, to) = (record.number, &record.to);
    let why = record.failure.as_deref().unwrap_or("no reason was noted");
    match record.result {
        RunResult::Completed => {
            screen::complain(&format!("{to} holds the baton, epoch {}; run {number}", record.epoch));
            Ok(Exit::Done)
        }
        RunResult::Degraded => {
            screen::complain(&wrap(&format!(
                "{to} holds the baton, but not all is well: {why}. Look at `baton status`."
            )));
            Ok(Exit::Done)
        }
        RunResult::RolledBack => Err(Failure::new(
            Exit::RolledBack,
            format!("run {number} was taken back: {why}; `baton status` says who serves"),
        )),
        RunResult::Abandoned => Err(Failure::new(
            Exit::RolledBack,
            format!("run {number} was given up: {why}; `baton status` says who serves"),
        )),
        RunResult::NeedsOperator => Err(Failure::new(
            Exit::NeedsOperator,
            format!("run {number} stopped: {why}; mend it, then `baton run ack {number}`"),
        )),
        RunResult::Running | RunResult::Undoing => Err(Failure::new(
            Exit::TimedOut,
            format!("run {number} goes on; `baton history {number}` shows it"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use baton_runbooks::decide::switchover::Preflight;
    use baton_runbooks::model::RunId;

    use super::*;
    use crate::api::sample;
    use crate::api::server::Operator;
    use crate::api::types::SwitchoverAnswer;
    use crate::cli::fake::FakeAgent;

    /// How long a test waits for what it does not expect to wait for.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn request() -> SwitchoverRequest {
        SwitchoverRequest {
            to: Some("db2".into()),
            by: "ada".to_owned(),
            drain_patience_ms: 0,
            plan: Some(Box::new((*sample::takeover().plan).clone())),
            drill: None,
        }
    }

    #[tokio::test]
    async fn the_run_that_was_ordered_is_followed_to_its_end() {
        let mut agent = FakeAgent::start().await;
        let client = agent.client();
        let takes_it = async {
            let Operator::Switchover { reply, .. } = agent.order().await else { panic!("another order") };
            let preflight = Preflight { checks: Vec::new(), plan: None };
            reply.send(Ok(SwitchoverAnswer { preflight, run: Some(RunId(7)) })).unwrap();
        };
        let (request, mut never) = (request(), pending());
        let (record, ()) = tokio::join!(passed(&client, &request, PATIENCE, true, &mut never), takes_it);
        assert_eq!(record.unwrap(), sample::ended_run());
    }

    /// Whoever interrupts reads that something may go on, and how to find it: the agent may have taken the order.
    #[tokio::test]
    async fn an_interrupt_right_after_the_order_has_its_code_too() {
        let agent = FakeAgent::start().await;
        let ended = passed(&agent.client(), &request(), PATIENCE, true, &mut ready(())).await.unwrap_err();
        assert_eq!(ended.exit, Exit::TimedOut);
        assert!(ended.message.contains("may have been started"), "{}", ended.message);
        assert!(ended.message.contains("baton history"), "{}", ended.message);
    }

    #[tokio::test]
    async fn an_interrupt_while_following_says_how_to_take_the_run_back() {
        let agent = FakeAgent::start().await;
        let way_back = "; `baton run abort 8` takes it back";
        let ended = follow(&agent.client(), 8, PATIENCE, true, way_back, &mut ready(())).await.unwrap_err();
        assert_eq!(ended.exit, Exit::TimedOut);
        assert!(ended.message.contains("run 8 goes on"), "{}", ended.message);
        assert!(ended.message.contains("baton run abort 8"), "{}", ended.message);
    }

    #[test]
    fn each_end_has_its_exit_code() {
        let ended = |result| {
            let failure = Some("no lease was granted".to_owned());
            conclude(&RunRecord { result, failure, ..sample::ended_run() }).map_err(|failure| {
                assert!(failure.message.contains("run 7"), "{}", failure.message);
                failure.exit
            })
        };
        assert_eq!(ended(RunResult::Completed), Ok(Exit::Done));
        assert_eq!(ended(RunResult::Degraded), Ok(Exit::Done));
        assert_eq!(ended(RunResult::RolledBack), Err(Exit::RolledBack));
        assert_eq!(ended(RunResult::Abandoned), Err(Exit::RolledBack));
        assert_eq!(ended(RunResult::NeedsOperator), Err(Exit::NeedsOperator));
        assert_eq!(ended(RunResult::Running), Err(Exit::TimedOut));
        assert_eq!(ended(RunResult::Undoing), Err(Exit::TimedOut));
    }
}
