//! MySQL through the VIP: a client's session that writes a row and reads it back.
//!
//! Never with the agent's own account, which writes on a closed server too: a row there would be a transaction that
//! the holder lacks.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Mark;
use crate::hands::mysql::flavour::identifier;

/// The server's code for a table that is not there.
const NO_SUCH_TABLE: u16 = 1146;

/// Account and schema of the visit.
pub(super) struct Visit {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) schema: String,
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) id: u32,
    pub(super) host: String,
    pub(super) version: String,
}

impl Visit {
    /// Writes the mark as the only row of its table and reads it back. The table is made where it is missing.
    pub(super) async fn write_and_read(&self, addr: SocketAddr, mark: Mark) -> anyhow::Result<Server> {
        let mut conn = self.dial(addr).await?;
        let server = ask(&mut conn).await?;
        let table = format!("{}.validation", identifier(&self.schema));
        let write = format!(
            "INSERT INTO {table} (id,epoch,nonce) VALUES (1,{0},{1}) \
             ON DUPLICATE KEY UPDATE epoch={0}, nonce={1}",
            mark.epoch, mark.nonce
        );
        match conn.query_drop(&write).await {
            Err(mysql_async::Error::Server(error)) if error.code == NO_SUCH_TABLE => {
                let make = format!(
                    "CREATE TABLE IF NOT EXISTS {table} (id TINYINT PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL, \
                     nonce BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB"
                );
                conn.query_drop(make).await.context("make the table of validations")?;
                conn.query_drop(&write).await.context("write a row")?;
            }
            written => written.context("write a row")?,
        }
        let read: Option<(u64, u64)> = conn
            .query_first(format!("SELECT epoch, nonce FROM {table} WHERE id=1"))
            .await
            .context("read the row back")?;
        ensure!(
            read == Some((mark.epoch, mark.nonce)),
            "the row reads {read:?}, written was {:?}",
            (mark.epoch, mark.nonce)
        );
        // Not waited for by anybody: the row was read.
        drop(conn);
        Ok(server)
    }

    /// The server at this address.
    pub(super) async fn who(&self, addr: SocketAddr) -> anyhow::Result<Server> {
        ask(&mut self.dial(addr).await?).await
    }

    async fn dial(&self, addr: SocketAddr) -> anyhow::Result<Conn> {
        let opts: Opts = OptsBuilder::default()
            .ip_or_hostname(addr.ip().to_string())
            .tcp_port(addr.port())
            .tcp_nodelay(true)
            // Otherwise the driver goes on over the Unix socket of this host that the server names.
            .prefer_socket(false)
            .user(Some(self.user.clone()))
            .pass(Some(self.password.clone()))
            .wait_timeout(Some(60))
            .max_allowed_packet(Some(1 << 20))
            .stmt_cache_size(0)
            .into();
        Conn::new(opts).await.with_context(|| format!("log in as {}", self.user))
    }
}

async fn ask(conn: &mut Conn) -> anyhow::Result<Server> {
    let row: Option<(u32, String, String)> =
        conn.query_first("SELECT @@server_id, @@hostname, @@version").await.context("ask who it is")?;
    let Some((id, host, version)) = row else { bail!("the server does not say who it is") };
    Ok(Server { id, host, version })
}

/// The server's version from its greeting: protocol version 10, then a text that ends in a zero byte.
pub(super) async fn greeting(addr: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let mut header = [0_u8; 5];
    stream.read_exact(&mut header).await?;
    ensure!(header[4] == 10, "the server refuses connections");
    let mut version = Vec::new();
    while version.len() < 64 {
        match stream.read_u8().await? {
            0 => break,
            byte => version.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&version).into_owned())
}
