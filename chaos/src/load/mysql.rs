//! A MySQL or MariaDB server as the writer sees it.

use std::net::SocketAddr;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, OptsBuilder};

use super::visit::Visited;
use super::{Failure, Target};
use crate::history::Kind;

/// The table that is written to. The client's id has no unique key, so that a write which is applied twice is seen.
pub const SCHEMA_SQL: &str = "CREATE TABLE IF NOT EXISTS writes \
     (seen BIGINT AUTO_INCREMENT PRIMARY KEY, id BIGINT NOT NULL, server BIGINT NOT NULL)";

/// [`SCHEMA_SQL`] for another name of the table.
#[must_use]
pub fn schema_sql(table: &str) -> String {
    SCHEMA_SQL.replacen("EXISTS writes", &format!("EXISTS {table}"), 1)
}

/// Answers by which a server refuses a statement before it executes it: too many connections, no access, read-only,
/// shutting down, privilege missing. Every other error may come after the commit has begun.
const REFUSALS: [u16; 9] = [1040, 1044, 1045, 1142, 1203, 1226, 1227, 1290, 1836];

/// Where to write, and as whom.
#[derive(Debug, Clone)]
pub struct MysqlTarget {
    /// The virtual IP and port.
    pub address: SocketAddr,
    /// The account; it needs INSERT on the table.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The schema that has the table.
    pub schema: String,
    /// The table of [`SCHEMA_SQL`], by this name.
    pub table: String,
}

impl MysqlTarget {
    /// A connection to whoever answers at the address, logged in. No question is asked beyond that.
    async fn dial(&self) -> Result<Conn, String> {
        let options: Opts = OptsBuilder::default()
            .ip_or_hostname(self.address.ip().to_string())
            .tcp_port(self.address.port())
            .user(Some(&self.user))
            .pass(Some(&self.password))
            .db_name(Some(&self.schema))
            .prefer_socket(false)
            .tcp_nodelay(true)
            // Both given: no question to the server for them at connect.
            .wait_timeout(Some(600))
            .max_allowed_packet(Some(16 << 20))
            .stmt_cache_size(0)
            .into();
        Conn::new(options).await.map_err(|error| error.to_string())
    }
}

impl Target for MysqlTarget {
    const KIND: Kind = Kind::Mysql;
    type Conn = Conn;

    async fn connect(&self) -> Result<(Conn, String), String> {
        let mut conn = self.dial().await?;
        let server: Option<u64> =
            conn.query_first("SELECT @@server_id").await.map_err(|error| error.to_string())?;
        let server = server.ok_or("no server id")?;
        Ok((conn, server.to_string()))
    }

    async fn write(&self, conn: &mut Conn, id: u64) -> Result<(), Failure> {
        let insert = format!("INSERT INTO {} (id, server) VALUES ({id}, @@server_id)", self.table);
        conn.query_drop(insert).await.map_err(|error| match &error {
            Error::Server(refusal) if REFUSALS.contains(&refusal.code) => Failure::Refused(error.to_string()),
            Error::Server(_) | Error::Driver(_) | Error::Io(_) | Error::Other(_) | Error::Url(_) => {
                Failure::Unknown(error.to_string())
            }
        })
    }
}

impl Visited for MysqlTarget {
    async fn open(&self) -> Result<Conn, String> {
        self.dial().await
    }

    /// The newest row: found by the primary key, however many rows were deleted before it.
    async fn read(&self, conn: &mut Conn) -> Result<(), String> {
        let select = format!("SELECT id FROM {} ORDER BY seen DESC LIMIT 1", self.table);
        conn.query_drop(select).await.map_err(|error| error.to_string())
    }

    async fn close(&self, conn: Conn) {
        // One that is broken is closed already.
        let _ = conn.disconnect().await;
    }
}
