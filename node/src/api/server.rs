//! The server's side: binding the socket, and one handler per path (parse, one call, map the error).
//!
//! The socket is for the machine's administrators: mode 0660, owner and group of the agent. Who sent a command is
//! taken from the kernel, not from the request.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path as PathParam, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use baton_runbooks::decide::force::ForceWanted;
use baton_runbooks::decide::loss::{Accept, Acceptance};
use baton_runbooks::decide::pause::PauseWanted;
use baton_runbooks::decide::switchover::Wanted;
use baton_runbooks::ledger::DrillId;
use baton_runbooks::model::{Epoch, Generation, NodeId, PauseId, RunId, SyncGeneration};
use baton_runbooks::plan::Plan;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::drill::{DrillRequest, DrillView};
use super::force::{ForceAnswer, RejoinAnswer, RejoinRequest};
use super::pause::PauseAnswer;
use super::resync::{ResyncAnswer, ResyncRequest};
use super::types::{
    AckRequest, Done, ErrorBody, ErrorCode, Explain, History, RunRecord, Status, SwitchoverAnswer,
    TakeoverAnswer, View,
};

/// Operator commands that may wait for the driver. A handful of people type them; more is a runaway script.
pub const COMMANDS_MAX: usize = 8;

/// For how long a command waits for the driver. Longer than an election in every profile, shorter than the patience of
/// the command line.
const COMMAND_PATIENCE: Duration = Duration::from_secs(8);

/// The same for an order that other nodes are asked about: each of two links may take seconds.
const FAR_PATIENCE: Duration = Duration::from_secs(25);

/// For how long somebody at an existing socket may take to accept before the socket counts as stale.
const KNOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The group may ask, others may not.
const MODE: u32 = 0o660;

/// A command of an operator, for the driver.
#[derive(Debug)]
pub enum Operator {
    /// Propose `AcknowledgeRun`.
    AcknowledgeRun {
        /// Which run.
        run: RunId,
        /// Who, with the user id that the kernel reports.
        by: String,
        /// The epoch that the operator saw.
        expected_epoch: Epoch,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// Propose `AbortRun`.
    AbortRun {
        /// Which run.
        run: RunId,
        /// Who, with the user id that the kernel reports.
        by: String,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// Look whether a node's database can be replaced by a copy of the holder's; with a plan, replace it.
    Resync {
        /// What is wanted, signed.
        request: ResyncRequest,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<ResyncAnswer, CommandError>>,
    },
    /// An order of somebody who drills.
    Drill {
        /// What is wanted, signed.
        request: DrillRequest,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<DrillView, CommandError>>,
    },
    /// Look whether the baton can be passed; with a plan, pass it.
    Switchover {
        /// What is wanted.
        wanted: Wanted,
        /// The plan that the operator saw.
        plan: Option<Box<Plan>>,
        /// The drill that wants it; `None`: an operator does.
        drill: Option<DrillId>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<SwitchoverAnswer, CommandError>>,
    },
    /// Look what a takeover would lose; with an acceptance, let it be lost.
    AcceptLoss {
        /// What is wanted.
        wanted: Accept,
        /// What the operator saw.
        acceptance: Option<Acceptance>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<TakeoverAnswer, CommandError>>,
    },
    /// Look whether the cluster can be paused; with an epoch, pause it.
    Pause {
        /// What is wanted.
        wanted: PauseWanted,
        /// The epoch that the operator saw.
        epoch: Option<Epoch>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<PauseAnswer, CommandError>>,
    },
    /// End the pause that stands.
    Resume {
        /// Only this one; `None`: whichever stands.
        pause: Option<PauseId>,
        /// Who, with the user id that the kernel reports.
        by: String,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<PauseId, CommandError>>,
    },
    /// Look whether this node can go on alone; with a generation, go on alone in it.
    Force {
        /// What is wanted.
        wanted: ForceWanted,
        /// The generation that the operator saw.
        generation: Option<Generation>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<ForceAnswer, CommandError>>,
    },
    /// Look where a node stands; with a generation, put its log of that generation aside, and come back as a new member.
    Rejoin {
        /// What is wanted, signed.
        request: RejoinRequest,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<RejoinAnswer, CommandError>>,
    },
    /// Propose `WithdrawLoss`.
    WithdrawLoss {
        /// The generation that the acceptance began.
        generation: SyncGeneration,
        /// For which node a loss was accepted.
        node: NodeId,
        /// Who, with the user id that the kernel reports.
        by: String,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The ledger or a safety gate refused; nothing was changed.
    #[error("refused: {reason}")]
    Refused {
        /// Why, in words.
        reason: String,
    },
    /// There is no leader or no majority.
    #[error("there is no leader with a majority, so nothing can be decided")]
    NoQuorum,
    /// The node that has to carry it out cannot be asked.
    #[error("{node} cannot be asked: {reason}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// The time was up; the command may still take effect.
    #[error("no outcome in time; the command may still take effect")]
    TimedOut,
}

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent answers there.
    #[error("another agent answers at {}; stop it, or give this one another paths.run", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The path is something else than a socket.
    #[error("{} exists and is not a socket; move it away", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The directory or the socket cannot be made.
    #[error("cannot make the socket {}", path.display())]
    Make {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Binds the socket at `path`. A socket that a dead agent left is replaced; one that answers is not.
///
/// # Errors
/// See [`BindError`].
pub async fn bind(path: &Path) -> Result<UnixListener, BindError> {
    use std::os::unix::fs::FileTypeExt;
    let make = |source| BindError::Make { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(make)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {
            if is_answered(path).await {
                return Err(BindError::Taken { path: path.to_owned() });
            }
            std::fs::remove_file(path).map_err(make)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(make(e)),
    }
    let listener = UnixListener::bind(path).map_err(make)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE)).map_err(make)?;
    Ok(listener)
}

/// Somebody accepts connections there, or is at least too busy to refuse them.
async fn is_answered(path: &Path) -> bool {
    match tokio::time::timeout(KNOCK_PATIENCE, UnixStream::connect(path)).await {
        Ok(Ok(_)) | Err(_) => true,
        Ok(Err(e)) => e.kind() != io::ErrorKind::ConnectionRefused,
    }
}

/// Answers requests until `stop` is done; requests under way are finished.
///
/// # Errors
/// The listener broke.
pub async fn serve(
    listener: UnixListener,
    view: watch::Receiver<Arc<View>>,
    operator: mpsc::Sender<Operator>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let app = router(Shared { view, operator }).into_make_service_with_connect_info::<Caller>();
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

#[derive(Clone)]
struct Shared {
    view: watch::Receiver<Arc<View>>,
    operator: mpsc::Sender<Operator>,
}

impl Shared {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }
}

/// The user at the other end, from the kernel.
#[derive(Debug, Clone, Copy)]
struct Caller {
    uid: Option<u32>,
}

impl Caller {
    /// The name that somebody gives, with what the kernel knows of him.
    fn sign(self, by: &str) -> String {
        let uid = self.uid.map_or_else(|| "unknown user".to_owned(), |uid| format!("uid {uid}"));
        format!("{by} ({uid})")
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|cred| cred.uid()) }
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/explain", get(explain))
        .route("/v1/history", get(history))
        .route("/v1/history/{number}", get(one_run))
        .route("/v1/run/{number}/ack", post(acknowledge))
        .route("/v1/run/{number}/abort", post(orders::abort))
        .route("/v1/switchover", post(orders::switchover))
        .route("/v1/takeover", post(orders::takeover))
        .route("/v1/takeover/withdraw", post(orders::withdraw))
        .route("/v1/resync", post(orders::resync))
        .route("/v1/drill", post(orders::drill))
        .route("/v1/pause", post(orders::pause))
        .route("/v1/resume", post(orders::resume))
        .route("/v1/force", post(orders::force))
        .route("/v1/rejoin", post(orders::rejoin))
        .fallback(no_such_page)
        .with_state(shared)
}

async fn status(State(shared): State<Shared>) -> Json<Status> {
    Json(shared.view().status.clone())
}

async fn explain(State(shared): State<Shared>) -> Json<Explain> {
    let view = shared.view();
    Json(Explain {
        node: view.status.node.clone(),
        leader: view.status.leader.clone(),
        holder: view.status.holder.clone(),
        epoch: view.status.epoch,
        sentence: view.status.sentence.clone(),
        decisions: view.decisions.clone(),
        suspicions: view.suspicions.clone(),
    })
}

async fn history(State(shared): State<Shared>) -> Json<History> {
    let view = shared.view();
    Json(History { runs: view.history.to_vec(), pauses: view.pauses.to_vec(), forced: view.forced.to_vec() })
}

async fn one_run(
    State(shared): State<Shared>,
    PathParam(number): PathParam<u64>,
) -> Result<Json<RunRecord>, Refusal> {
    let view = shared.view();
    let found = view.history.iter().find(|run| run.number == RunId(number));
    found.cloned().map(Json).ok_or_else(|| {
        Refusal::new(
            ErrorCode::NotFound,
            format!("there is no run {number} in the history"),
            "`baton history` lists the runs that are kept",
        )
    })
}

async fn acknowledge(
    State(shared): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParam(number): PathParam<u64>,
    body: Result<Json<AckRequest>, JsonRejection>,
) -> Result<Json<Done>, Refusal> {
    let Json(request) = body.map_err(|e| {
        Refusal::new(ErrorCode::BadRequest, e.body_text(), "send {\"by\": NAME, \"expected_epoch\": NUMBER}")
    })?;
    let (reply, outcome) = oneshot::channel();
    let command = Operator::AcknowledgeRun {
        run: RunId(number),
        by: caller.sign(&request.by),
        expected_epoch: request.expected_epoch,
        reply,
    };
    ask(&shared.operator, command, outcome).await?;
    Ok(Json(Done {
        done: format!("run {number} is acknowledged; nobody holds the baton until the next decision"),
    }))
}

/// Gives a command to the driver and waits, for a bounded time, for its outcome.
async fn ask<T>(
    operator: &mpsc::Sender<Operator>,
    command: Operator,
    outcome: oneshot::Receiver<Result<T, CommandError>>,
) -> Result<T, Refusal> {
    ask_for(COMMAND_PATIENCE, operator, command, outcome).await
}

async fn ask_for<T>(
    patience: Duration,
    operator: &mpsc::Sender<Operator>,
    command: Operator,
    outcome: oneshot::Receiver<Result<T, CommandError>>,
) -> Result<T, Refusal> {
    operator.try_send(command).map_err(|e| match e {
        mpsc::error::TrySendError::Full(_) => Refusal::new(
            ErrorCode::Busy,
            "too many commands wait for the agent",
            "try again in a few seconds",
        ),
        mpsc::error::TrySendError::Closed(_) => stopping(),
    })?;
    match tokio::time::timeout(patience, outcome).await {
        Ok(Ok(outcome)) => outcome.map_err(Refusal::from),
        Ok(Err(_)) => Err(stopping()),
        Err(_) => Err(CommandError::TimedOut.into()),
    }
}

fn stopping() -> Refusal {
    Refusal::new(ErrorCode::Stopping, "the agent is stopping", "ask an agent on another node")
}

async fn no_such_page() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such page", "agent and command line may differ in version")
}

/// An answer that is an error.
struct Refusal(ErrorBody);

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self(ErrorBody { code, message: message.into(), way_out: way_out.into() })
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let (code, way_out) = match &error {
            CommandError::Refused { .. } => {
                (ErrorCode::Refused, "look at `baton status` and `baton explain`")
            }
            CommandError::NoQuorum => (ErrorCode::NoQuorum, "bring a second node back, then try again"),
            CommandError::Unreachable { .. } => (
                ErrorCode::NoQuorum,
                "is its agent up, and the port transport.copy_port open between the nodes?",
            ),
            CommandError::TimedOut => (ErrorCode::TimedOut, "look at `baton status` before trying again"),
        };
        Self::new(code, error.to_string(), way_out)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ErrorCode::Refused => StatusCode::CONFLICT,
            ErrorCode::NoQuorum | ErrorCode::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::Busy => StatusCode::TOO_MANY_REQUESTS,
        };
        (status, Json(self.0)).into_response()
    }
}

mod orders;
#[cfg(test)]
mod tests;
