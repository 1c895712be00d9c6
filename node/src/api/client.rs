//! The command line's side: one request per connection, with a deadline over all of it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::drill::{DrillRequest, DrillView};
use super::force::{ForceAnswer, ForceRequest, RejoinAnswer, RejoinRequest};
use super::pause::{PauseAnswer, PauseRequest, ResumeAnswer, ResumeRequest};
use super::resync::{ResyncAnswer, ResyncRequest};
use super::types::{
    AbortRequest, AckRequest, Done, ErrorBody, Explain, History, RunRecord, Status, SwitchoverAnswer,
    SwitchoverRequest, TakeoverAnswer, TakeoverRequest, WithdrawRequest,
};

/// For how long reading may take. The agent answers from memory; longer means that it is stopped or starved.
const READ_DEADLINE: Duration = Duration::from_secs(3);

/// For how long a command may take: the agent's own patience and a little.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// The same for a command that other nodes are asked about.
const FAR_DEADLINE: Duration = Duration::from_secs(30);

/// Largest answer that is taken. A full history with journals stays far below.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no agent answers at {}: {reason}; start it with `systemctl start baton`, or name another socket with --socket", socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// How that was seen.
        reason: &'static str,
    },
    /// The socket may not be opened.
    #[error("no permission for {}; run this as root or as a member of the socket's group", socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The agent took the connection and did not answer.
    #[error("the agent at {} gave no answer within {} s; it may be stopped or starved: look at `systemctl status baton`", socket.display(), after.as_secs())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// The deadline.
        after: Duration,
    },
    /// The connection broke.
    #[error("the connection to the agent at {} broke: {detail}; it may have been restarted, try again", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What the library or the system said.
        detail: String,
    },
    /// The answer has another form.
    #[error("the agent's answer cannot be read: {detail}; agent and command line may differ in version")]
    Decode {
        /// What does not fit.
        detail: String,
    },
    /// The agent answered with an error.
    #[error("{}; {}", body.message, body.way_out)]
    Answered {
        /// HTTP status.
        status: u16,
        /// The agent's words.
        body: ErrorBody,
    },
}

/// A client of one agent's local API.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the agent that listens at `socket`. Nothing is opened yet.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// `GET /v1/explain`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn explain(&self) -> Result<Explain, ClientError> {
        self.get("/v1/explain").await
    }

    /// `GET /v1/history`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn history(&self) -> Result<History, ClientError> {
        self.get("/v1/history").await
    }

    /// `GET /v1/history/{number}`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn run(&self, number: u64) -> Result<RunRecord, ClientError> {
        self.get(&format!("/v1/history/{number}")).await
    }

    /// `POST /v1/run/{number}/ack`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn acknowledge(&self, number: u64, request: &AckRequest) -> Result<Done, ClientError> {
        self.post(&format!("/v1/run/{number}/ack"), request).await
    }

    /// `POST /v1/run/{number}/abort`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn abort(&self, number: u64, request: &AbortRequest) -> Result<Done, ClientError> {
        self.post(&format!("/v1/run/{number}/abort"), request).await
    }

    /// `POST /v1/switchover`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn switchover(&self, request: &SwitchoverRequest) -> Result<SwitchoverAnswer, ClientError> {
        self.post("/v1/switchover", request).await
    }

    /// `POST /v1/takeover`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn takeover(&self, request: &TakeoverRequest) -> Result<TakeoverAnswer, ClientError> {
        self.post("/v1/takeover", request).await
    }

    /// `POST /v1/takeover/withdraw`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn withdraw(&self, request: &WithdrawRequest) -> Result<Done, ClientError> {
        self.post("/v1/takeover/withdraw", request).await
    }

    /// `POST /v1/resync`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resync(&self, request: &ResyncRequest) -> Result<ResyncAnswer, ClientError> {
        self.post_for(FAR_DEADLINE, "/v1/resync", request).await
    }

    /// `POST /v1/drill`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn drill(&self, request: &DrillRequest) -> Result<DrillView, ClientError> {
        self.post_for(FAR_DEADLINE, "/v1/drill", request).await
    }

    /// `POST /v1/pause`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pause(&self, request: &PauseRequest) -> Result<PauseAnswer, ClientError> {
        self.post("/v1/pause", request).await
    }

    /// `POST /v1/resume`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume(&self, request: &ResumeRequest) -> Result<ResumeAnswer, ClientError> {
        self.post("/v1/resume", request).await
    }

    /// `POST /v1/force`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn force(&self, request: &ForceRequest) -> Result<ForceAnswer, ClientError> {
        self.post("/v1/force", request).await
    }

    /// `POST /v1/rejoin`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rejoin(&self, request: &RejoinRequest) -> Result<RejoinAnswer, ClientError> {
        self.post_for(FAR_DEADLINE, "/v1/rejoin", request).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, Bytes::new(), READ_DEADLINE).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.post_for(COMMAND_DEADLINE, path, body).await
    }

    async fn post_for<T: DeserializeOwned>(
        &self,
        deadline: Duration,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Decode { detail: e.to_string() })?;
        self.request(Method::POST, path, body.into(), deadline).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        let (status, answer) = tokio::time::timeout(deadline, self.exchange(method, path, body))
            .await
            .map_err(|_| ClientError::TimedOut { socket: self.socket.clone(), after: deadline })??;
        let decode = |e: serde_json::Error| ClientError::Decode { detail: e.to_string() };
        if status.is_success() {
            serde_json::from_slice(&answer).map_err(decode)
        } else {
            let body = serde_json::from_slice(&answer).map_err(decode)?;
            Err(ClientError::Answered { status: status.as_u16(), body })
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |detail: String| ClientError::Broken { socket: self.socket.clone(), detail };
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(e.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "baton")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| broken(e.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|e| broken(e.to_string()))?.to_bytes()))
        };
        // The connection is driven beside the request and dropped with it: there is one request per connection.
        tokio::pin!(connection, exchange);
        let mut open = true;
        loop {
            tokio::select! {
                // A complete answer counts, whatever becomes of the connection.
                biased;
                answer = &mut exchange => return answer,
                ended = &mut connection, if open => match ended {
                    Ok(()) => open = false,
                    Err(e) => return Err(broken(e.to_string())),
                },
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound => ClientError::NoAgent { socket, reason: "there is no such socket" },
            io::ErrorKind::ConnectionRefused => {
                ClientError::NoAgent { socket, reason: "nobody listens there" }
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied { socket },
            _ => ClientError::Broken { socket, detail: error.to_string() },
        }
    }
}
