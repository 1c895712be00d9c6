//! Why a call on a Redis failed, and what a probe makes of it.

use std::io;

use baton_runbooks::observe::ProbeFailure;
use redis::RedisError as DriverError;

/// Why a call on the server failed.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// Nobody listens on the socket, or it does not let us connect.
    #[error("cannot connect to {socket}")]
    Connect {
        /// The Unix socket.
        socket: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// No answer within the deadline.
    #[error("{what}: no answer within {after_ms} ms")]
    Timeout {
        /// The operation.
        what: &'static str,
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// The server refused, or the connection broke.
    #[error("{what}")]
    Command {
        /// The operation.
        what: &'static str,
        /// The driver's error, with the server's words.
        #[source]
        source: DriverError,
    },
    /// The server's answer is not what the operation must end with.
    #[error("{what}: {detail}")]
    Answer {
        /// The operation.
        what: &'static str,
        /// What was found.
        detail: String,
    },
}

impl RedisError {
    /// This error as the result of a probe.
    #[must_use]
    pub fn as_probe_failure(&self) -> ProbeFailure {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ProbeFailure::Refused,
                io::ErrorKind::WouldBlock => ProbeFailure::Timeout { after_ms: 0 },
                _ => ProbeFailure::Error { message: format!("{self}: {source}") },
            },
            Self::Timeout { after_ms, .. } => ProbeFailure::Timeout { after_ms: *after_ms },
            Self::Command { source, .. } => {
                // Of a pipeline each command has its own error; they are the same for what matters here.
                let first =
                    source.clone().into_server_errors().and_then(|errors| Some(errors.first()?.1.clone()));
                let message = first.as_ref().map_or_else(|| source.to_string(), ToString::to_string);
                let code = first.as_ref().map(|error| error.code());
                let is_auth = source.kind() == redis::ErrorKind::AuthenticationFailed
                    || matches!(code, Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
                if is_auth {
                    ProbeFailure::WrongCredentials { message }
                } else if message.contains("max number of clients") {
                    ProbeFailure::TooManyConnections
                } else {
                    ProbeFailure::Error { message }
                }
            }
            Self::Answer { .. } => ProbeFailure::Error { message: self.to_string() },
        }
    }

    /// True if the connection is of no use any more.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Command { source, .. } => source.is_unrecoverable_error() || source.is_io_error(),
            Self::Connect { .. } | Self::Timeout { .. } => true,
            Self::Answer { .. } => false,
        }
    }
}
