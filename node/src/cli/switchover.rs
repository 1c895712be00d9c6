//! `baton switchover`: shows what was looked at and the plan, asks, starts the run, and follows it.
//!
//! An interrupt ends the command, not the run: the agents carry it out. `baton run abort N` takes it back, as long as the
//! point of no return is not behind it.

use std::cell::Cell;
use std::pin::pin;
use std::time::{Duration, Instant};

use baton_runbooks::decide::switchover::Check;
use baton_runbooks::model::NodeId;
use baton_runbooks::plan::{Kind, Plan};

use super::run::is_confirmed;
use super::status::wrap;
use super::{Exit, Failure, Global, Output, block_on, interrupted, screen};
use crate::api::client::{Client, ClientError};
use crate::api::types::{ErrorCode, RunRecord, RunResult, Status, StepState, SwitchoverRequest};
use crate::config::Ms;

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// After a run that was taken back the holder's word is waited for: a report is under way for some 0.5 s.
const SERVES_WITHIN: Duration = Duration::from_secs(3);
/// Where the answer is.
pub(super) const ASK_STATUS: &str = "`baton status` says who serves";

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
    match record.result {
        RunResult::RolledBack | RunResult::Abandoned => {
            conclude(&record, &block_on(who_serves(&client, SERVES_WITHIN))?)
        }
        RunResult::Running
        | RunResult::Undoing
        | RunResult::Completed
        | RunResult::Degraded
        | RunResult::NeedsOperator => conclude(&record, ASK_STATUS),
    }
}

/// Waits until the holder says that it serves again after a run that was taken back, or until `patience` is over.
async fn who_serves(client: &Client, patience: Duration) -> String {
    let since = Instant::now();
    let mut said = ASK_STATUS.to_owned();
    loop {
        if let Ok(status) = client.status().await {
            let passed_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            match serves_again(&status, passed_ms) {
                Ok(words) => return words,
                Err(words) => said = words,
            }
        }
        if since.elapsed() >= patience {
            return said;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the holder says of itself after a run has ended, `passed_ms` ago. `Err`: it does not serve yet, or has not spoken since.
fn serves_again(status: &Status, passed_ms: u64) -> Result<String, String> {
    let Some(row) = status.nodes.iter().find(|row| status.holder.as_ref() == Some(&row.name)) else {
        return Err(format!("nobody holds the baton; {ASK_STATUS}"));
    };
    let name = &row.name;
    // A report from before the end says nothing of now.
    if row.heard_ms_ago.is_none_or(|ms| ms > passed_ms) {
        return Err(format!(
            "{name} has the baton still and has not said yet whether it serves; {ASK_STATUS}"
        ));
    }
    if row.serving && row.open != Some(false) {
        return Ok(format!("{name} serves again"));
    }
    Err(format!(
        "{name} has the baton still and DOES NOT SERVE YET: clients are turned away. Its agent goes on opening it; `baton status` \
         says when it does, and its log what stands in the way"
    ))
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

/// `serves`: who serves after a run that was taken back, in words.
pub(super) fn conclude(record: &RunRecord, serves: &str) -> Result<Exit, Failure> {
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
        RunResult::RolledBack => {
            Err(Failure::new(Exit::RolledBack, format!("run {number} was taken back: {why}; {serves}")))
        }
        RunResult::Abandoned => {
            Err(Failure::new(Exit::RolledBack, format!("run {number} was given up: {why}; {serves}")))
        }
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
            let record = RunRecord { result, failure, ..sample::ended_run() };
            conclude(&record, "db1 serves again").map_err(|failure| {
                assert!(failure.message.contains("run 7"), "{}", failure.message);
                let is_back = matches!(failure.exit, Exit::RolledBack);
                assert_eq!(failure.message.contains("db1 serves again"), is_back, "{}", failure.message);
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

    #[test]
    fn a_holder_serves_again_when_it_has_said_so_since_the_run_ended() {
        let row = |change: &dyn Fn(&mut crate::api::types::NodeRow)| {
            let mut status = sample::facts();
            status.nodes[0].heard_ms_ago = Some(200);
            change(&mut status.nodes[0]);
            status
        };
        let open = row(&|row| row.open = Some(true));
        assert_eq!(serves_again(&open, 300), Ok("db1 serves again".to_owned()));
        assert_eq!(serves_again(&row(&|_| {}), 300), Ok("db1 serves again".to_owned()), "an older agent");
        let early = serves_again(&open, 199).unwrap_err();
        assert!(early.contains("has not said yet"), "{early}");
        let (no_ports, no_lease) = (row(&|row| row.open = Some(false)), row(&|row| row.serving = false));
        for closed in [no_ports, no_lease] {
            let words = serves_again(&closed, 300).unwrap_err();
            assert!(words.starts_with("db1 has the baton still and DOES NOT SERVE YET"), "{words}");
        }
        let mut vacant = open;
        vacant.holder = None;
        assert!(serves_again(&vacant, 300).unwrap_err().starts_with("nobody holds the baton"));
    }
}
