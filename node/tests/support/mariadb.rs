//! A MariaDB server with the options that Baton asks for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use baton_node::hands::mysql::{Mysql, MysqlAccess};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

use super::{Process, eventually, free_port};

pub const D: Duration = Duration::from_secs(10);
const REPLICATION_PASSWORD: &str = "repl'pass\\word";

/// Grants that the agent's account needs, and nothing more.
const ACCOUNTS: &str = "SET sql_log_bin=0; \
    CREATE USER baton@localhost IDENTIFIED BY 'se''cret'; \
    GRANT SLAVE MONITOR, BINLOG MONITOR, REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, READ_ONLY ADMIN, \
      CONNECTION ADMIN, PROCESS, RELOAD, BINLOG ADMIN, BINLOG REPLAY, EVENT, SUPER ON *.* TO baton@localhost; \
    GRANT ALL ON baton.* TO baton@localhost; \
    CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl''pass\\\\word'; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'; \
    CREATE USER app@localhost; GRANT ALL ON app.* TO app@localhost; \
    CREATE USER root2@localhost; GRANT ALL ON *.* TO root2@localhost";

fn have(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// True if MariaDB is installed; says so loudly if not.
pub fn is_installed() -> bool {
    let installed = have("mariadbd") && have("mariadb-install-db");
    if !installed {
        eprintln!("skipped: no MariaDB");
    }
    installed
}

/// A data directory as installed, made once for each test program.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let dir = TEMPLATE.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let done = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--user=root",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(format!("--datadir={}", dir.path().join("data").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success());
        dir
    });
    dir.path()
}

pub struct MariaDb {
    pub dir: TempDir,
    pub port: u16,
    server_id: u32,
    process: Process,
    options: Vec<String>,
}

impl MariaDb {
    /// A fresh server with the accounts, read-only.
    pub async fn start(server_id: u32, options: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let copied =
            Command::new("cp").arg("-a").arg(template().join("data")).arg(dir.path()).status().unwrap();
        assert!(copied.success());
        let port = free_port();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let process = spawn(dir.path(), port, server_id, &options);
        let server = Self { dir, port, server_id, process, options };
        server.wait_until_up().await;
        server.root().await.query_drop(ACCOUNTS).await.unwrap();
        server
    }

    async fn wait_until_up(&self) {
        eventually("the server answers", || async { self.dial("root", None).await.ok() }).await;
    }

    /// Starts the server again on its data.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.dir.path(), self.port, self.server_id, &self.options);
        self.wait_until_up().await;
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn access(&self) -> MysqlAccess {
        MysqlAccess {
            socket: self.socket(),
            user: "baton".into(),
            password: "se'cret".into(),
            replication_user: "repl".into(),
            replication_password: REPLICATION_PASSWORD.into(),
            schema: "baton".into(),
            port: self.port,
        }
    }

    pub fn hands(&self) -> Mysql {
        Mysql::new(self.access()).unwrap()
    }

    async fn dial(&self, user: &str, schema: Option<&str>) -> mysql_async::Result<Conn> {
        let opts = OptsBuilder::default().socket(Some(self.socket().display().to_string())).user(Some(user));
        Conn::new(opts.db_name(schema).wait_timeout(Some(600)).max_allowed_packet(Some(1 << 24))).await
    }

    pub async fn root(&self) -> Conn {
        self.dial("root", None).await.unwrap()
    }

    /// A client with no privileges beyond its schema.
    pub async fn app(&self) -> Conn {
        self.dial("app", Some("app")).await.unwrap()
    }

    pub async fn try_app(&self) -> mysql_async::Result<Conn> {
        self.dial("app", Some("app")).await
    }

    pub async fn try_root2(&self) -> mysql_async::Result<Conn> {
        self.dial("root2", None).await
    }

    pub async fn value(&self, sql: &str) -> String {
        self.root().await.query_first::<String, _>(sql).await.unwrap().unwrap_or_default()
    }

    /// Opens the server, makes the client's schema and the agent's.
    pub async fn as_primary(&self) -> Mysql {
        let hands = self.hands();
        hands.promote("", D).await.unwrap();
        hands.ensure_schema(D).await.unwrap();
        self.root()
            .await
            .query_drop("CREATE DATABASE app; CREATE TABLE app.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)")
            .await
            .unwrap();
        hands
    }
}

fn spawn(dir: &Path, port: u16, server_id: u32, options: &[String]) -> Process {
    let log = std::fs::File::create(dir.join("err.log")).unwrap();
    Process::spawn(
        Command::new("mariadbd")
            .args(["--no-defaults", "--user=root", "--read-only=1", "--skip-slave-start", "--log-bin=bin"])
            .args(["--relay-log=relay", "--log-slave-updates", "--gtid-strict-mode=1", "--sync-binlog=1"])
            .args(["--innodb-flush-log-at-trx-commit=1", "--skip-name-resolve", "--bind-address=127.0.0.1"])
            .args([
                "--rpl-semi-sync-slave-enabled=1",
                "--slave-net-timeout=5",
                "--innodb-buffer-pool-size=16M",
            ])
            .arg(format!("--datadir={}", dir.join("data").display()))
            .arg(format!("--socket={}", dir.join("sock").display()))
            .arg(format!("--pid-file={}", dir.join("pid").display()))
            .args([format!("--port={port}"), format!("--server-id={server_id}")])
            .args(options)
            .stdout(Stdio::null())
            .stderr(log),
    )
}
