//! Hands on the local MySQL or MariaDB: probe, write probe, canary, promotion, closing, attaching.
//!
//! All calls go over the Unix socket, where the agent's own gate on the port does not apply. A call takes an idle
//! session of its purpose or dials a new one; a session whose call was given up is never used again.
//!
//! | purpose | sessions | binary log |
//! |---|---|---|
//! | probe | one kept open, so that a server that is out of connections cannot lock the agent out | off |
//! | write probe | one kept open | off: must not wait for a semi-sync acknowledgement, must not be an errant transaction |
//! | control | one kept open | off: what is done to a node must not travel to the other |
//! | replicated | one kept open; may wait for an acknowledgement for as long as semi-sync does | on |
//!
//! Statements of the two families stand side by side in [`flavour`]; transaction sets are compared in [`gtid`].
//! Nothing here decides whether it is allowed to promote: callers hold the ledger's word for it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use baton_runbooks::observe::{Flavour, ProbeFailure};

use crate::hands::deadline::Elapsed;
use crate::hands::server::{self, ServerId};

pub mod canary;
pub mod clone;
pub mod close;
pub mod datadir;
pub mod export;
pub mod facts;
pub mod flavour;
pub mod gtid;
pub mod promote;
pub mod quiet;
pub mod replica;
pub mod rescue;
pub mod schema;
pub mod seed;
pub mod semisync;
mod session;
pub mod standing;

use session::{Lot, Session};

/// How to reach and use the local server.
#[derive(Clone)]
pub struct MysqlAccess {
    /// The server's Unix socket.
    pub socket: PathBuf,
    /// Account of the agent.
    pub user: String,
    /// Its password; may be empty.
    pub password: String,
    /// Account that replicas connect with; the same on both nodes.
    pub replication_user: String,
    /// Its password.
    pub replication_password: String,
    /// Schema of the agent's own tables.
    pub schema: String,
    /// Port on which clients and the peer reach the server.
    pub port: u16,
}

impl fmt::Debug for MysqlAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords must not get into logs.
        f.debug_struct("MysqlAccess")
            .field("socket", &self.socket)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Why a call on the server failed.
#[derive(Debug, thiserror::Error)]
pub enum MysqlError {
    /// Nobody listens on the socket, or it does not let us connect.
    #[error("cannot connect to {socket}")]
    Connect {
        /// The Unix socket.
        socket: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// No answer within the deadline. Whether the server has done, or will still do, what was asked is not known.
    #[error("{what}: no answer within {after_ms} ms")]
    Timeout {
        /// The operation.
        what: &'static str,
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// The server answered with an error.
    #[error("{what}: server error {code}: {message}")]
    Server {
        /// The operation.
        what: &'static str,
        /// The server's error number.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The connection broke.
    #[error("{what}: the connection broke")]
    Broken {
        /// The operation.
        what: &'static str,
        /// The driver's error.
        #[source]
        source: mysql_async::Error,
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

impl MysqlError {
    /// This error as the result of a probe.
    #[must_use]
    pub fn as_probe_failure(&self) -> ProbeFailure {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ProbeFailure::Refused,
                // The listen queue is full: the kernel takes nothing more for a server that accepts nothing.
                io::ErrorKind::WouldBlock => ProbeFailure::Timeout { after_ms: 0 },
                _ => ProbeFailure::Error { message: format!("{self}: {source}") },
            },
            Self::Timeout { after_ms, .. } => ProbeFailure::Timeout { after_ms: *after_ms },
            Self::Server { code, message, .. } => match code {
                // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED
                1040 | 1203 | 1226 => ProbeFailure::TooManyConnections,
                // ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR, ER_ACCOUNT_HAS_BEEN_LOCKED (both families)
                1045 | 1698 | 3118 | 4151 => ProbeFailure::WrongCredentials { message: message.clone() },
                _ => ProbeFailure::Error { message: format!("{code}: {message}") },
            },
            Self::Broken { source, .. } => ProbeFailure::Error { message: format!("{self}: {source}") },
            Self::Answer { .. } => ProbeFailure::Error { message: self.to_string() },
        }
    }

    /// True if the server itself refused with this error number.
    #[must_use]
    pub fn is_code(&self, wanted: u16) -> bool {
        matches!(self, Self::Server { code, .. } if *code == wanted)
    }

    fn of(what: &'static str, source: mysql_async::Error) -> Self {
        match source {
            mysql_async::Error::Server(error) => {
                Self::Server { what, code: error.code, message: error.message }
            }
            source => Self::Broken { what, source },
        }
    }

    fn elapsed(what: &'static str, elapsed: Elapsed) -> Self {
        Self::Timeout { what, after_ms: elapsed.after_ms }
    }

    fn answer(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Answer { what, detail: detail.into() }
    }
}

/// What a session is for. See the table of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Probe,
    WriteProbe,
    Control,
    Replicated,
}

/// Hands on the local server. Cheap to clone; clones share the idle sessions.
#[derive(Debug, Clone)]
pub struct Mysql {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    access: MysqlAccess,
    boot: String,
    lot: Lot,
    /// Probes left before the canary's table is looked for again; 0: it is looked for each time.
    probes_without_canary: AtomicU32,
    /// Who wrote to the agent's tables found one missing, or its row.
    lacks_tables: AtomicBool,
}

impl Mysql {
    /// Hands on the server that `access` describes. Nothing is dialled yet.
    ///
    /// # Errors
    /// The system's error if the host's boot id cannot be read.
    pub fn new(access: MysqlAccess) -> io::Result<Self> {
        let boot = server::boot_id()?;
        let (lot, probes_without_canary) = (Lot::default(), AtomicU32::new(0));
        let lacks_tables = AtomicBool::new(false);
        Ok(Self { shared: Arc::new(Shared { access, boot, lot, probes_without_canary, lacks_tables }) })
    }

    /// The process that serves the socket, without the server's help.
    ///
    /// # Errors
    /// [`MysqlError::Connect`].
    pub async fn server_identity(&self) -> Result<ServerId, MysqlError> {
        server::listener(&self.access().socket).await.map_err(|source| self.cannot_connect(source))
    }

    /// Family of the server.
    ///
    /// # Errors
    /// [`MysqlError`] if it cannot be asked within `deadline`.
    pub async fn flavour(&self, deadline: Duration) -> Result<Flavour, MysqlError> {
        let session = self.session(Purpose::Control, deadline).await?;
        let flavour = session.flavour;
        self.park(Purpose::Control, session);
        Ok(flavour)
    }

    fn access(&self) -> &MysqlAccess {
        &self.shared.access
    }

    fn cannot_connect(&self, source: io::Error) -> MysqlError {
        MysqlError::Connect { socket: self.access().socket.display().to_string(), source }
    }

    /// An idle session that still answers, or a new one.
    async fn session(&self, purpose: Purpose, deadline: Duration) -> Result<Session, MysqlError> {
        let started = tokio::time::Instant::now();
        if let Some((mut idle, warm)) = self.shared.lot.take(purpose)
            && (warm && server::is_alive(idle.server) || idle.ping(deadline.min(PING_MAX)).await.is_ok())
        {
            return Ok(idle);
        }
        Session::dial(self.access(), purpose, deadline.saturating_sub(started.elapsed())).await
    }

    /// Gives a session back, unless its last call left it unusable.
    fn park(&self, purpose: Purpose, session: Session) {
        if session.is_usable() {
            self.shared.lot.put(purpose, session);
        }
    }

    /// One text of statements on the control session: what most operations are.
    async fn control(
        &self,
        what: &'static str,
        sql: impl FnOnce(Flavour) -> String,
        deadline: Duration,
    ) -> Result<Vec<session::Answer>, MysqlError> {
        let started = tokio::time::Instant::now();
        let mut session = self.session(Purpose::Control, deadline).await?;
        let sql = sql(session.flavour);
        let answers = session.query(what, sql, deadline.saturating_sub(started.elapsed())).await;
        self.park(Purpose::Control, session);
        answers
    }
}

/// An idle session that needs longer than this for a ping is replaced. A ping of a live server takes 0.1 ms.
const PING_MAX: Duration = Duration::from_millis(250);
