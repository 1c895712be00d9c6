//! A Redis or Valkey server as the writer sees it.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError};

use super::visit::Visited;
use super::{Failure, Target};
use crate::history::Kind;

/// What the writer's keys begin with unless something else is asked for; the id follows. The value is how often the write was executed.
pub const KEY_PREFIX: &str = "write:";

/// Answers by which a server refuses a command before it executes it.
const REFUSALS: [&str; 6] = ["READONLY", "NOREPLICAS", "LOADING", "MASTERDOWN", "NOAUTH", "NOPERM"];

/// Where to write.
#[derive(Debug, Clone)]
pub struct RedisTarget {
    /// The virtual IP and port.
    pub address: SocketAddr,
    /// What the keys begin with; the id follows.
    pub prefix: String,
    /// Account and password; an empty account is the default one. `None`: no password is sent.
    pub login: Option<(String, String)>,
}

impl RedisTarget {
    /// The usual keys, no password.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, prefix: KEY_PREFIX.into(), login: None }
    }

    /// A connection to whoever answers at the address.
    ///
    /// # Errors
    /// The driver's words.
    pub async fn dial(&self) -> Result<MultiplexedConnection, RedisError> {
        let info = redis::IntoConnectionInfo::into_connection_info(format!("redis://{}/", self.address))?;
        let mut conn = Client::open(info)?.get_multiplexed_async_connection().await?;
        if let Some((user, password)) = &self.login {
            let mut auth = redis::cmd("AUTH");
            if !user.is_empty() {
                auth.arg(user);
            }
            auth.arg(password).query_async::<()>(&mut conn).await?;
        }
        Ok(conn)
    }
}

impl Target for RedisTarget {
    const KIND: Kind = Kind::Redis;
    type Conn = MultiplexedConnection;

    /// The server is named by its `replica-announce-ip`, which the configuration of each gives.
    async fn connect(&self) -> Result<(MultiplexedConnection, String), String> {
        let mut conn = self.dial().await.map_err(|error| error.to_string())?;
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("replica-announce-ip");
        let (_, server): (String, String) =
            command.query_async(&mut conn).await.map_err(|error| error.to_string())?;
        Ok((conn, server))
    }

    async fn write(&self, conn: &mut MultiplexedConnection, id: u64) -> Result<(), Failure> {
        let mut command = redis::cmd("INCR");
        command.arg(format!("{}{id}", self.prefix));
        command.query_async::<u64>(conn).await.map(drop).map_err(|error| classify(&error))
    }
}

impl Visited for RedisTarget {
    async fn open(&self) -> Result<MultiplexedConnection, String> {
        self.dial().await.map_err(|error| error.to_string())
    }

    /// A key that is not there: no answer is as short, and one that loads or may not be read refuses it all the same.
    async fn read(&self, conn: &mut MultiplexedConnection) -> Result<(), String> {
        let mut command = redis::cmd("GET");
        command.arg(format!("{}visit", self.prefix));
        command.query_async::<Option<String>>(conn).await.map(drop).map_err(|error| error.to_string())
    }

    async fn close(&self, conn: MultiplexedConnection) {
        drop(conn);
    }
}

fn classify(error: &RedisError) -> Failure {
    let refused = error.code().is_some_and(|code| REFUSALS.contains(&code));
    if refused { Failure::Refused(error.to_string()) } else { Failure::Unknown(error.to_string()) }
}
