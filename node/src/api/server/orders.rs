//! Handlers of orders that change something: each reads its body, asks the driver, maps the answer.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, State};
use baton_runbooks::decide::force::ForceWanted;
use baton_runbooks::decide::loss::Accept;
use baton_runbooks::decide::pause::PauseWanted;
use baton_runbooks::decide::switchover::Wanted;
use baton_runbooks::ledger::{LossAccepted, PauseOrder};
use baton_runbooks::model::RunId;
use tokio::sync::oneshot;

use super::{Caller, FAR_PATIENCE, Operator, Refusal, Shared, ask, ask_for};
use crate::api::drill::{DrillRequest, DrillView};
use crate::api::force::{ForceAnswer, ForceRequest, RejoinAnswer, RejoinRequest};
use crate::api::pause::{PauseAnswer, PauseRequest, ResumeAnswer, ResumeRequest};
use crate::api::resync::{ResyncAnswer, ResyncRequest};
use crate::api::types::{
    AbortRequest, Done, ErrorCode, SwitchoverAnswer, SwitchoverRequest, TakeoverAnswer, TakeoverRequest,
    WithdrawRequest,
};

fn unreadable(rejection: &JsonRejection, wanted: &str) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, rejection.body_text(), format!("send {wanted}"))
}

pub(super) async fn abort(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(number): Path<u64>,
    body: Result<Json<AbortRequest>, JsonRejection>,
) -> Result<Json<Done>, Refusal> {
    let Json(request) = body.map_err(|e| unreadable(&e, "{\"by\": NAME}"))?;
    let (reply, outcome) = oneshot::channel();
    let command = Operator::AbortRun { run: RunId(number), by: caller.sign(&request.by), reply };
    ask(&shared.operator, command, outcome).await?;
    Ok(Json(Done {
        done: format!("run {number} takes back what it did; `baton history {number}` shows how far it is"),
    }))
}

pub(super) async fn switchover(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<SwitchoverRequest>, JsonRejection>,
) -> Result<Json<SwitchoverAnswer>, Refusal> {
    let wanted = "{\"to\": NODE or null, \"by\": NAME, \"drain_patience_ms\": NUMBER, \"plan\": null or a plan, \"drill\": null or NUMBER}";
    let Json(request) = body.map_err(|e| unreadable(&e, wanted))?;
    let SwitchoverRequest { to, by, drain_patience_ms, plan, drill } = request;
    let wanted = Wanted { to, by: caller.sign(&by), drain_patience_ms };
    let (reply, outcome) = oneshot::channel();
    ask(&shared.operator, Operator::Switchover { wanted, plan, drill, reply }, outcome).await.map(Json)
}

pub(super) async fn takeover(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<TakeoverRequest>, JsonRejection>,
) -> Result<Json<TakeoverAnswer>, Refusal> {
    let wanted =
        "{\"to\": NODE or null, \"by\": NAME, \"at_most_ms\": NUMBER or null, \"acceptance\": null or one}";
    let Json(request) = body.map_err(|e| unreadable(&e, wanted))?;
    let TakeoverRequest { to, by, at_most_ms, acceptance } = request;
    let wanted = Accept { to, loss: LossAccepted { by: caller.sign(&by), at_most_ms } };
    let (reply, outcome) = oneshot::channel();
    ask(&shared.operator, Operator::AcceptLoss { wanted, acceptance, reply }, outcome).await.map(Json)
}

pub(super) async fn withdraw(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<WithdrawRequest>, JsonRejection>,
) -> Result<Json<Done>, Refusal> {
    let Json(request) =
        body.map_err(|e| unreadable(&e, "{\"generation\": NUMBER, \"node\": NODE, \"by\": NAME}"))?;
    let (reply, outcome) = oneshot::channel();
    let WithdrawRequest { generation, node, by } = request;
    let named = node.clone();
    let command = Operator::WithdrawLoss { generation, node: named, by: caller.sign(&by), reply };
    ask(&shared.operator, command, outcome).await?;
    Ok(Json(Done { done: format!("no loss is accepted for {node} any more") }))
}

pub(super) async fn pause(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<PauseRequest>, JsonRejection>,
) -> Result<Json<PauseAnswer>, Refusal> {
    let wanted =
        "{\"for_ms\": NUMBER, \"alone\": BOOL, \"reason\": TEXT, \"by\": NAME, \"epoch\": null or NUMBER}";
    let Json(request) = body.map_err(|e| unreadable(&e, wanted))?;
    let PauseRequest { for_ms, alone, reason, by, epoch } = request;
    let wanted = PauseWanted { order: PauseOrder { for_ms, alone, reason, by: caller.sign(&by) } };
    let (reply, outcome) = oneshot::channel();
    ask(&shared.operator, Operator::Pause { wanted, epoch, reply }, outcome).await.map(Json)
}

pub(super) async fn resume(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<ResumeRequest>, JsonRejection>,
) -> Result<Json<ResumeAnswer>, Refusal> {
    let Json(request) = body.map_err(|e| unreadable(&e, "{\"by\": NAME, \"pause\": null or NUMBER}"))?;
    let (reply, outcome) = oneshot::channel();
    let command = Operator::Resume { pause: request.pause, by: caller.sign(&request.by), reply };
    let pause = ask(&shared.operator, command, outcome).await?;
    Ok(Json(ResumeAnswer { pause }))
}

pub(super) async fn force(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<ForceRequest>, JsonRejection>,
) -> Result<Json<ForceAnswer>, Refusal> {
    let wanted = "{\"others_are_off\": [NODE], \"accept_loss\": BOOL, \"reason\": TEXT, \"by\": NAME, \"generation\": null or NUMBER}";
    let Json(request) = body.map_err(|e| unreadable(&e, wanted))?;
    let ForceRequest { others_are_off, accept_loss, reason, by, generation } = request;
    let wanted = ForceWanted { others_are_off, accept_loss, reason, by: caller.sign(&by) };
    let (reply, outcome) = oneshot::channel();
    ask(&shared.operator, Operator::Force { wanted, generation, reply }, outcome).await.map(Json)
}

pub(super) async fn rejoin(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<RejoinRequest>, JsonRejection>,
) -> Result<Json<RejoinAnswer>, Refusal> {
    let wanted = "{\"node\": NODE, \"by\": NAME, \"generation\": null or NUMBER}";
    let Json(request) = body.map_err(|e| unreadable(&e, wanted))?;
    let request = RejoinRequest { by: caller.sign(&request.by), ..request };
    let (reply, outcome) = oneshot::channel();
    let command = Operator::Rejoin { request, reply };
    ask_for(FAR_PATIENCE, &shared.operator, command, outcome).await.map(Json)
}

pub(super) async fn resync(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<ResyncRequest>, JsonRejection>,
) -> Result<Json<ResyncAnswer>, Refusal> {
    let wanted = "{\"node\": NODE, \"by\": NAME, \"plan\": null or a plan}";
    let Json(request) = body.map_err(|e| unreadable(&e, wanted))?;
    let request = ResyncRequest { by: caller.sign(&request.by), ..request };
    let (reply, outcome) = oneshot::channel();
    let command = Operator::Resync { request, reply };
    ask_for(FAR_PATIENCE, &shared.operator, command, outcome).await.map(Json)
}

pub(super) async fn drill(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<DrillRequest>, JsonRejection>,
) -> Result<Json<DrillView>, Refusal> {
    let wanted = "{\"node\": NODE or null, \"by\": NAME, \"order\": \"look\"}";
    let Json(request) = body.map_err(|e| unreadable(&e, wanted))?;
    let request = DrillRequest { by: caller.sign(&request.by), ..request };
    let (reply, outcome) = oneshot::channel();
    let command = Operator::Drill { request, reply };
    ask_for(FAR_PATIENCE, &shared.operator, command, outcome).await.map(Json)
}
