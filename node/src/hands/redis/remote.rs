//! The other node's Redis, looked at over the network: how much it has of which stream.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo};

use super::{RedisError, info};

const WHAT: &str = "look at the other node's Redis";

/// Where a server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// It is a primary, and writes the stream; else it follows one.
    pub is_primary: bool,
    /// The stream's id (`master_replid`). Offsets of different histories say nothing of each other.
    pub history: String,
    /// Bytes written by a primary, processed by a replica.
    pub offset: u64,
}

/// A server of another host; the connection is kept.
pub struct Remote {
    addr: SocketAddr,
    user: Option<String>,
    password: String,
    conn: Option<MultiplexedConnection>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords must not get into logs.
        f.debug_struct("Remote").field("addr", &self.addr).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Remote {
    /// The server at `addr`. Nothing is dialled yet. An empty password: none is sent.
    #[must_use]
    pub const fn new(addr: SocketAddr, user: Option<String>, password: String) -> Self {
        Self { addr, user, password, conn: None }
    }

    /// Where it stands; `None` if it does not say. After an error the next call dials anew.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn stream(&mut self, deadline: Duration) -> Result<Option<Stream>, RedisError> {
        let after_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        // Taken out: one whose answer was not waited for is dropped.
        let kept = self.conn.take();
        let work = async {
            let mut conn = match kept {
                Some(conn) => conn,
                None => dial(self.addr, (self.user.as_deref(), &self.password), WHAT).await?,
            };
            let asked = redis::cmd("INFO").arg("replication").query_async::<String>(&mut conn).await;
            let text = asked.map_err(|source| RedisError::Command { what: WHAT, source })?;
            Ok((conn, info::stream(&text)))
        };
        let (conn, stream) = tokio::time::timeout(deadline, work)
            .await
            .map_err(|_| RedisError::Timeout { what: WHAT, after_ms })??;
        self.conn = Some(conn);
        Ok(stream)
    }
}

/// A connection over TCP, logged in. The caller's deadline holds.
pub(super) async fn dial(
    addr: SocketAddr,
    (user, password): (Option<&str>, &str),
    what: &'static str,
) -> Result<MultiplexedConnection, RedisError> {
    let driver = |source| RedisError::Command { what, source };
    let place = ConnectionAddr::Tcp(addr.ip().to_string(), addr.port());
    let info = place.into_connection_info().map_err(driver)?;
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let client = redis::Client::open(info.set_redis_settings(settings)).map_err(driver)?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut conn = client.get_multiplexed_async_connection_with_config(&config).await.map_err(driver)?;
    if !password.is_empty() {
        redis::cmd("AUTH").arg(user).arg(password).query_async::<()>(&mut conn).await.map_err(driver)?;
    }
    Ok(conn)
}
