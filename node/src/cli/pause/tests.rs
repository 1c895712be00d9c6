//! Unit tests of `baton pause` and `baton resume`: what they end with when somebody does not confirm.

use std::future::{pending, ready};

use baton_runbooks::decide::pause::PausePreflight;
use baton_runbooks::model::Epoch;

use super::*;
use crate::api::pause::PauseAnswer;
use crate::api::sample;
use crate::api::server::{CommandError, Operator};
use crate::api::types::Status;
use crate::api::view::timestamp;
use crate::cli::fake::FakeAgent;

const NUMBER: PauseId = PauseId(4);
/// How long a test waits for what it does not expect to wait for.
const PATIENCE: Duration = Duration::from_secs(60);

fn row(armed_ms: Option<u64>) -> PauseRow {
    PauseRow {
        number: NUMBER,
        by: "ada".to_owned(),
        reason: "new switch".to_owned(),
        at: timestamp(sample::START),
        until: timestamp(sample::START),
        alone: false,
        resumed_by: None,
        seen_by: Vec::new(),
        unseen_by: Vec::new(),
        armed_ms,
        over_in_ms: Some(42_000),
    }
}

fn paused(armed_ms: Option<u64>) -> Status {
    Status { paused: Some(row(armed_ms)), ..sample::healthy() }
}

fn request() -> PauseRequest {
    PauseRequest {
        for_ms: 60_000,
        alone: false,
        reason: "new switch".to_owned(),
        by: "ada".to_owned(),
        epoch: Some(Epoch(2)),
    }
}

/// The next order must be to end the pause, and this one.
async fn is_told_to_resume(agent: &mut FakeAgent, answer: Result<PauseId, CommandError>) {
    let Operator::Resume { pause, reply, .. } = agent.order().await else { panic!("another order") };
    assert_eq!(pause, Some(NUMBER));
    reply.send(answer).unwrap();
}

#[tokio::test]
async fn a_pause_that_the_holder_confirms_counts() {
    let mut agent = FakeAgent::start().await;
    agent.shows(paused(Some(60_000)));
    let (client, request, mut never) = (agent.client(), request(), pending());
    let takes_it = async {
        let Operator::Pause { epoch, reply, .. } = agent.order().await else { panic!("another order") };
        assert_eq!(epoch, Some(Epoch(2)));
        let preflight = PausePreflight { checks: Vec::new(), epoch, at_most_ms: 63_000 };
        reply.send(Ok(PauseAnswer { preflight, pause: Some(NUMBER) })).unwrap();
    };
    let (ended, ()) = tokio::join!(ordered(&client, &request, &mut never), takes_it);
    assert_eq!(ended.unwrap(), row(Some(60_000)));
}

#[tokio::test]
async fn a_pause_that_the_holder_does_not_confirm_is_taken_back() {
    let mut agent = FakeAgent::start().await;
    agent.shows(paused(None));
    let (client, mut never) = (agent.client(), pending());
    let (ended, ()) = tokio::join!(
        confirmed(&client, NUMBER, "ada", Duration::ZERO, &mut never),
        is_told_to_resume(&mut agent, Ok(NUMBER))
    );
    let ended = ended.unwrap_err();
    assert_eq!(ended.exit, Exit::RolledBack);
    assert!(ended.message.contains("has not confirmed"), "{}", ended.message);
    assert!(ended.message.contains("was taken back"), "{}", ended.message);
}

#[tokio::test]
async fn an_interrupt_takes_an_unconfirmed_pause_back() {
    let mut agent = FakeAgent::start().await;
    agent.shows(paused(None));
    let (client, mut at_once) = (agent.client(), ready(()));
    let (ended, ()) = tokio::join!(
        confirmed(&client, NUMBER, "ada", PATIENCE, &mut at_once),
        is_told_to_resume(&mut agent, Ok(NUMBER))
    );
    let ended = ended.unwrap_err();
    assert_eq!(ended.exit, Exit::RolledBack);
    assert!(ended.message.starts_with("interrupted"), "{}", ended.message);
    assert!(ended.message.contains("was taken back"), "{}", ended.message);
}

/// What was done stands then: the code must not say that it was taken back.
#[tokio::test]
async fn a_pause_that_cannot_be_taken_back_is_named_with_the_way_out() {
    let mut agent = FakeAgent::start().await;
    let (client, mut never) = (agent.client(), pending());
    let (ended, ()) = tokio::join!(
        confirmed(&client, NUMBER, "ada", Duration::ZERO, &mut never),
        is_told_to_resume(&mut agent, Err(CommandError::NoQuorum))
    );
    let ended = ended.unwrap_err();
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(ended.message.contains("pause 4 could not be taken back"), "{}", ended.message);
    assert!(ended.message.contains("baton resume"), "{}", ended.message);
}

#[tokio::test]
async fn an_interrupt_before_the_answer_says_what_may_stand() {
    let agent = FakeAgent::start().await;
    let ended = ordered(&agent.client(), &request(), &mut ready(())).await.unwrap_err();
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(ended.message.contains("a pause may stand"), "{}", ended.message);
    assert!(ended.message.contains("baton resume"), "{}", ended.message);
}

#[tokio::test]
async fn an_end_that_the_holder_does_not_confirm_has_its_code_and_its_time() {
    let agent = FakeAgent::start().await;
    agent.shows(paused(Some(60_000)));
    let ended = over(&agent.client(), NUMBER, Duration::ZERO).await.unwrap_err();
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(ended.message.contains("42.00 s at the longest"), "{}", ended.message);
    agent.shows(sample::healthy());
    over(&agent.client(), NUMBER, PATIENCE).await.unwrap();
}
