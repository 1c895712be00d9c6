//! Hands on the local Redis or Valkey: probe, promotion, closing, following.
//!
//! | a node that | role | `min-replicas-to-write` |
//! |---|---|---|
//! | holds the baton | primary | 0 |
//! | does not | replica | 99: should it become a primary by itself, it refuses writes |
//!
//! The configuration file is never rewritten: it says `replicaof`, so that the server always boots as a replica
//! and only the agent opens it. A server that boots as a primary, empty, would wipe its replica in a second.
//! `FAILOVER` is not used: it takes half a second where a pause and two commands take four milliseconds.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_runbooks::observe::{ProbeFailure, RedisFacts};
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, IntoConnectionInfo};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::hands::server::{self, ServerId};

mod error;
mod info;
mod remote;
pub mod visit;

pub use error::RedisError;
pub use remote::{Remote, Stream};

/// How to reach the local server.
#[derive(Clone)]
pub struct RedisAccess {
    /// The server's Unix socket.
    pub socket: PathBuf,
    /// Account of the agent; `None`: the default account.
    pub user: Option<String>,
    /// Its password; empty: none is sent.
    pub password: String,
}

impl fmt::Debug for RedisAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords must not get into logs.
        f.debug_struct("RedisAccess")
            .field("socket", &self.socket)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Whether a replica may follow a primary that has no keys while it has some itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptySource {
    /// Refuse: a primary that restarted empty would wipe the last copy.
    Refuse,
    /// Accept: somebody has said that the data may go.
    Accept,
}

/// What becomes of client connections at closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// They stay and are refused each write.
    Keep,
    /// They are ended.
    Kill,
}

/// Hands on the local server. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    access: RedisAccess,
    line: Mutex<Option<Line>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("access", &self.access).finish_non_exhaustive()
    }
}

/// An open connection and the process at its other end.
#[derive(Clone)]
struct Line {
    conn: MultiplexedConnection,
    server: ServerId,
}

/// `min-replicas-to-write` of a closed server: more replicas than there will ever be.
const CLOSED: u64 = 99;
/// A server that has no place left says so within a millisecond of the connection.
const GREETING: Duration = Duration::from_millis(100);

impl Redis {
    /// Hands on the server that `access` describes. Nothing is dialled yet.
    #[must_use]
    pub fn new(access: RedisAccess) -> Self {
        Self { shared: Arc::new(Shared { access, line: Mutex::new(None) }) }
    }

    /// The process that serves the socket, without the server's help.
    ///
    /// # Errors
    /// [`RedisError::Connect`].
    pub async fn server_identity(&self) -> Result<ServerId, RedisError> {
        let socket = &self.shared.access.socket;
        server::listener(socket)
            .await
            .map_err(|source| RedisError::Connect { socket: socket.display().to_string(), source })
    }

    /// Looks at the server, in one round trip.
    ///
    /// # Errors
    /// The [`ProbeFailure`] that the detector tells verdicts by. A server that is loading its data set answers and
    /// is alive; one that runs a long script answers BUSY, which is an error and not a time-out.
    pub async fn probe(&self, deadline: Duration) -> Result<RedisFacts, ProbeFailure> {
        let end = Instant::now() + deadline;
        match self.facts(deadline).await {
            Ok(facts) => Ok(facts),
            // A server without a place left says so and hangs up; the driver, which speaks first, may only see that.
            Err(error) if error.is_final() && self.is_full(end).await => {
                Err(ProbeFailure::TooManyConnections)
            }
            Err(error) => Err(error.as_probe_failure()),
        }
    }

    /// The server greets a new connection with the refusal that it has no place left. One with a place says nothing.
    async fn is_full(&self, end: Instant) -> bool {
        let greeting = async {
            let mut stream = UnixStream::connect(&self.shared.access.socket).await.ok()?;
            let mut words = [0; 64];
            let length = stream.read(&mut words).await.ok()?;
            Some(String::from_utf8_lossy(&words[..length]).contains("max number of clients"))
        };
        let patience = GREETING.min(end.saturating_duration_since(Instant::now()));
        tokio::time::timeout(patience, greeting).await.ok().flatten().unwrap_or(false)
    }

    /// [`Redis::probe`] with the hands' own error.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn facts(&self, deadline: Duration) -> Result<RedisFacts, RedisError> {
        let what = "probe";
        let mut pipe = redis::pipe();
        for section in ["replication", "persistence", "keyspace"] {
            pipe.cmd("INFO").arg(section);
        }
        pipe.cmd("CONFIG").arg("GET").arg("min-replicas-to-write");
        type Answers = (String, String, String, HashMap<String, String>);
        let ((replication, persistence, keyspace, config), server): (Answers, _) =
            self.run(what, pipe, deadline).await?;
        let text = [replication, persistence, keyspace].join("\n");
        let min_replicas = config.get("min-replicas-to-write").and_then(|value| value.parse().ok());
        info::facts(&text, server, min_replicas.unwrap_or(0))
            .ok_or_else(|| RedisError::Answer { what, detail: "INFO names no role".into() })
    }

    /// Where the server stands in which stream; `None` if it does not say.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn stream(&self, deadline: Duration) -> Result<Option<Stream>, RedisError> {
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("replication");
        let ((text,), _): ((String,), _) = self.run("offset", pipe, deadline).await?;
        Ok(info::stream(&text))
    }

    /// Makes the server a primary that accepts writes, and reads back. With `only`, no other process than that one.
    ///
    /// # Errors
    /// [`RedisError`]; [`RedisError::Answer`] when another process answers, when it says something else afterwards, or is
    /// still loading.
    pub async fn promote(
        &self,
        only: Option<ServerId>,
        deadline: Duration,
    ) -> Result<RedisFacts, RedisError> {
        let what = "promote";
        let end = Instant::now() + deadline;
        let mut pipe = redis::pipe();
        pipe.cmd("REPLICAOF").arg("NO").arg("ONE").ignore();
        pipe.cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(0).ignore();
        pipe.cmd("CLIENT").arg("UNPAUSE").ignore();
        let ((), _) = self.run_on_process(only, what, pipe, deadline).await?;
        let facts = self.facts(end.saturating_duration_since(Instant::now())).await?;
        if facts.primary && facts.min_replicas_to_write == 0 && !facts.loading {
            Ok(facts)
        } else {
            Err(RedisError::Answer { what, detail: format!("reads {facts:?}") })
        }
    }

    /// Refuses writes from now on, and reads back. Works on a primary and, for later, on a replica.
    ///
    /// # Errors
    /// [`RedisError`]: the server must then be taken for open.
    pub async fn close(&self, clients: Clients, deadline: Duration) -> Result<(), RedisError> {
        let what = "close";
        let mut pipe = redis::pipe();
        pipe.cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(CLOSED).ignore();
        if clients == Clients::Kill {
            pipe.cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").ignore();
        }
        pipe.cmd("CONFIG").arg("GET").arg("min-replicas-to-write");
        let ((config,), _): ((HashMap<String, String>,), _) = self.run(what, pipe, deadline).await?;
        if config.get("min-replicas-to-write").is_some_and(|value| *value == CLOSED.to_string()) {
            Ok(())
        } else {
            Err(RedisError::Answer { what, detail: format!("reads {config:?}") })
        }
    }

    /// Accepts writes again, on a primary whose switchover is undone.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn reopen(&self, deadline: Duration) -> Result<(), RedisError> {
        let mut pipe = redis::pipe();
        pipe.cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(0).ignore();
        pipe.cmd("CLIENT").arg("UNPAUSE").ignore();
        let ((), _) = self.run("reopen", pipe, deadline).await?;
        Ok(())
    }

    /// Makes the server a closed replica of `host:port`. `source` are that server's facts as its own agent saw them.
    ///
    /// # Errors
    /// [`RedisError`]; [`RedisError::Answer`] when refused: the source is no primary, is loading, or is empty
    /// while this server is not.
    pub async fn follow(
        &self,
        host: &str,
        port: u16,
        source: &RedisFacts,
        empty: EmptySource,
        deadline: Duration,
    ) -> Result<RedisFacts, RedisError> {
        let what = "follow";
        let end = Instant::now() + deadline;
        let left = || end.saturating_duration_since(Instant::now());
        let refused = |detail: &str| RedisError::Answer { what, detail: format!("refused: {detail}") };
        if !source.primary || source.loading {
            return Err(refused("the source is not a primary with its data loaded"));
        }
        let mine = self.facts(deadline).await?;
        if source.keys == 0 && mine.keys > 0 && empty == EmptySource::Refuse {
            return Err(refused(&format!("the source is empty, and {} keys here would be wiped", mine.keys)));
        }
        let mut pipe = redis::pipe();
        pipe.cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(CLOSED).ignore();
        // With the agent's own account: the server's file may name another one, or none.
        let access = &self.shared.access;
        if !access.password.is_empty() {
            let user = access.user.as_deref().unwrap_or("");
            pipe.cmd("CONFIG").arg("SET").arg("masteruser").arg(user).ignore();
            pipe.cmd("CONFIG").arg("SET").arg("masterauth").arg(&access.password).ignore();
        }
        pipe.cmd("REPLICAOF").arg(host).arg(port).ignore();
        pipe.cmd("CLIENT").arg("UNPAUSE").ignore();
        let ((), _) = self.run(what, pipe, left()).await?;
        let facts = self.facts(left()).await?;
        if facts.follows.as_deref() == Some(&format!("{host}:{port}")) {
            Ok(facts)
        } else {
            Err(RedisError::Answer { what, detail: format!("reads {facts:?}") })
        }
    }

    /// Holds writes of clients for at most `pause`; the server lets them go by itself then. Longer than the caller's
    /// own deadline, or two servers accept writes when the caller dies in between.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn pause_writes(&self, pause: Duration, deadline: Duration) -> Result<(), RedisError> {
        let mut pipe = redis::pipe();
        let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        pipe.cmd("CLIENT").arg("PAUSE").arg(ms).arg("WRITE").ignore();
        let ((), _) = self.run("pause writes", pipe, deadline).await?;
        Ok(())
    }

    async fn run<T: redis::FromRedisValue + Send>(
        &self,
        what: &'static str,
        pipe: redis::Pipeline,
        deadline: Duration,
    ) -> Result<(T, ServerId), RedisError> {
        self.run_on_process(None, what, pipe, deadline).await
    }

    /// With `only`, nothing is sent to any other process.
    async fn run_on_process<T: redis::FromRedisValue + Send>(
        &self,
        only: Option<ServerId>,
        what: &'static str,
        pipe: redis::Pipeline,
        deadline: Duration,
    ) -> Result<(T, ServerId), RedisError> {
        let checked = |line: Line| match only {
            Some(only) if only != line.server => {
                Err(RedisError::Answer { what, detail: format!("{} answers, not {only}", line.server) })
            }
            Some(_) | None => Ok(line),
        };
        let after_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let work = async {
            let idle = self.line().take();
            let is_fresh = idle.is_none();
            let line = match idle {
                Some(line) => line,
                None => self.dial().await?,
            };
            match self.run_on(checked(line)?, what, &pipe).await {
                // A connection that had been closed meanwhile says nothing about the server.
                Err(error) if error.is_final() && !is_fresh => {
                    self.run_on(checked(self.dial().await?)?, what, &pipe).await
                }
                out => out,
            }
        };
        // A connection whose answer was not waited for is dropped with the work: it was taken out before.
        tokio::time::timeout(deadline, work).await.map_err(|_| RedisError::Timeout { what, after_ms })?
    }

    async fn run_on<T: redis::FromRedisValue + Send>(
        &self,
        mut line: Line,
        what: &'static str,
        pipe: &redis::Pipeline,
    ) -> Result<(T, ServerId), RedisError> {
        let out = pipe.query_async(&mut line.conn).await;
        let server = line.server;
        let out = out.map(|out| (out, server)).map_err(|source| RedisError::Command { what, source });
        if !out.as_ref().is_err_and(RedisError::is_final) {
            *self.line() = Some(line);
        }
        out
    }

    async fn dial(&self) -> Result<Line, RedisError> {
        let what = "connect";
        let server = self.server_identity().await?;
        let access = &self.shared.access;
        let driver = |source| RedisError::Command { what, source };
        let info = ConnectionAddr::Unix(access.socket.clone()).into_connection_info().map_err(driver)?;
        // The library's name is two more commands at each connection that nobody reads.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let client = redis::Client::open(info.set_redis_settings(settings)).map_err(driver)?;
        // The caller's deadline holds; the library's own would cut it short.
        let config =
            redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut conn = client.get_multiplexed_async_connection_with_config(&config).await.map_err(driver)?;
        // Not left to the library: it takes every refusal here for a wrong password, also that no client is left.
        if !access.password.is_empty() {
            let mut auth = redis::cmd("AUTH");
            auth.arg(access.user.as_deref()).arg(&access.password);
            auth.query_async::<()>(&mut conn).await.map_err(driver)?;
        }
        if !server::is_alive(server) {
            return Err(RedisError::Answer { what, detail: "the server process changed meanwhile".into() });
        }
        Ok(Line { conn, server })
    }

    fn line(&self) -> std::sync::MutexGuard<'_, Option<Line>> {
        self.shared.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
