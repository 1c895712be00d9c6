//! A MariaDB or MySQL server with the options that Baton asks for, and the agent's account with exactly the
//! privileges that `docs/operating/install.md` grants.
//!
//! MariaDB is the machine's own. MySQL is an unpacked tree (`$BATON_MYSQL`, else `/var/cache/baton-tests/mysql`, which
//! `node/tests/support/fetch-mysql.sh` fills); it runs with its own loader and libraries, outside any chroot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use baton_node::hands::mysql::{Mysql, MysqlAccess};
use baton_runbooks::observe::Flavour;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

use super::{Process, eventually, free_port, skip};

pub const D: Duration = Duration::from_secs(10);
const REPLICATION_PASSWORD: &str = "repl'pass\\word";
const INSTALL: &str = include_str!("../../../docs/operating/install.md");
const MYSQL_TREE: &str = "/var/cache/baton-tests/mysql";

/// Runs each named test against both families, as `mariadb::NAME` and `mysql::NAME`.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod mariadb {
            $(#[tokio::test] async fn $name() { super::run(super::Flavour::Mariadb, super::$name).await })*
        }
        mod mysql {
            $(#[tokio::test] async fn $name() { super::run(super::Flavour::Mysql, super::$name).await })*
        }
        async fn run<F: Future<Output = ()>>(flavour: Flavour, test: impl FnOnce(Flavour) -> F) {
            if $crate::support::database::is_there(flavour) {
                test(flavour).await;
            }
        }
    };
}
pub(crate) use on_both;

/// The statements of the install guide that give `baton@localhost` its privileges on a server of `flavour`.
pub fn documented_grants(flavour: Flavour) -> Vec<String> {
    let (mariadb, mysql) = INSTALL.split_once("### MySQL instead of MariaDB").unwrap();
    let text = match flavour {
        Flavour::Mariadb => mariadb,
        Flavour::Mysql => mysql,
    };
    let sql = text.split("```sql").skip(1).filter_map(|block| block.split_once("```")).map(|(sql, _)| sql);
    let lines = sql.flat_map(str::lines).map(|line| line.split("--").next().unwrap_or_default());
    let all: String = lines.flat_map(|line| [line, "\n"]).collect();
    let grants = all
        .split(';')
        .map(str::trim)
        .filter(|sql| sql.starts_with("GRANT") && sql.ends_with("baton@localhost"));
    let grants: Vec<String> = grants.map(str::to_owned).collect();
    assert!(grants.len() >= 2, "the install guide grants too little: {grants:?}");
    grants
}

fn accounts(flavour: Flavour) -> String {
    let (open, close) = match flavour {
        Flavour::Mariadb => ("", ""),
        Flavour::Mysql => ("SET GLOBAL super_read_only=OFF; ", "; SET GLOBAL super_read_only=ON"),
    };
    format!(
        "SET sql_log_bin=0; {open}CREATE USER baton@localhost IDENTIFIED BY 'se''cret'; {}; \
         CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl''pass\\\\word'; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'; \
         CREATE USER app@localhost; GRANT ALL ON app.* TO app@localhost; \
         CREATE USER root2@localhost; GRANT ALL ON *.* TO root2@localhost{close}",
        documented_grants(flavour).join("; ")
    )
}

fn have(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn mysql_tree() -> PathBuf {
    std::env::var_os("BATON_MYSQL").map_or_else(|| MYSQL_TREE.into(), PathBuf::from)
}

/// True if a server of `flavour` can be started; says so loudly if not. MySQL comes from no package, and is not everywhere.
pub fn is_there(flavour: Flavour) -> bool {
    let there = match flavour {
        Flavour::Mariadb => have("mariadbd") && have("mariadb-install-db"),
        Flavour::Mysql => mysql_tree().join("usr/sbin/mysqld").exists(),
    };
    match flavour {
        Flavour::Mariadb if !there => skip("MariaDB", "mariadb-server and mariadb-backup"),
        Flavour::Mysql if !there => eprintln!("skipped: no MySQL; `make mysql` fetches it"),
        Flavour::Mariadb | Flavour::Mysql => {}
    }
    there
}

/// `mysqld` of the unpacked tree, by the tree's own loader.
fn mysqld() -> Command {
    let usr = mysql_tree().join("usr");
    let libraries: Vec<String> = std::fs::read_dir(usr.join("lib"))
        .unwrap()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .map(|path| path.display().to_string())
        .collect();
    let loader = ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"].map(|path| usr.join(path));
    let mut command = Command::new(loader.iter().find(|path| path.exists()).expect("a loader in the tree"));
    command.args(["--library-path", &libraries.join(":")]).arg(usr.join("sbin/mysqld"));
    let share = usr.join("share/mysql");
    command.args(["--no-defaults", "--user=root", "--secure-file-priv=NULL", "--mysqlx=OFF"]);
    command.arg(format!("--basedir={}", usr.display()));
    command.arg(format!("--plugin-dir={}", usr.join("lib/mysql/plugin").display()));
    command.arg(format!("--lc-messages-dir={}", share.display()));
    command.arg(format!("--character-sets-dir={}", share.join("charsets").display()));
    command
}

/// A program that prints a binary log of `flavour`: the installed one, or the tree's behind a script in `dir`.
pub fn binlog_reader(flavour: Flavour, dir: &Path) -> PathBuf {
    if flavour == Flavour::Mariadb {
        return "mariadb-binlog".into();
    }
    let server = format!("{:?}", mysqld());
    let loader = server.split_once("sbin/mysqld\"").unwrap().0;
    let script = dir.join("mysqlbinlog");
    std::fs::write(&script, format!("#!/bin/sh\nexec {loader}bin/mysqlbinlog\" \"$@\"\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    script
}

/// A data directory as installed, made once for each test program and family.
fn template(flavour: Flavour) -> &'static Path {
    static TEMPLATES: [OnceLock<TempDir>; 2] = [OnceLock::new(), OnceLock::new()];
    let dir = TEMPLATES[flavour as usize].get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let mut install = match flavour {
            Flavour::Mariadb => {
                let mut install = Command::new("mariadb-install-db");
                install.args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal"]);
                install.arg("--skip-test-db");
                install
            }
            Flavour::Mysql => {
                let mut install = mysqld();
                install.arg("--initialize-insecure");
                install
            }
        };
        // A starting MariaDB deletes what looks like its own in a tmpdir, also what belongs to another server.
        let tmpdir = dir.path().join("tmp");
        std::fs::create_dir(&tmpdir).unwrap();
        install.arg(format!("--datadir={}", dir.path().join("data").display()));
        install.arg(format!("--tmpdir={}", tmpdir.display()));
        let done = install.output().unwrap();
        assert!(done.status.success(), "{:?} {}", done.status, String::from_utf8_lossy(&done.stderr));
        // Two servers with one identity would not replicate.
        let _ = std::fs::remove_file(dir.path().join("data/auto.cnf"));
        dir
    });
    dir.path()
}

pub struct Database {
    pub flavour: Flavour,
    pub dir: TempDir,
    pub port: u16,
    server_id: u32,
    process: Process,
    options: Vec<String>,
}

impl Database {
    /// A fresh server with the accounts, read-only.
    pub async fn start(flavour: Flavour, server_id: u32, options: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(template(flavour).join("data"))
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(copied.success());
        let port = free_port();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let process = spawn(flavour, dir.path(), port, server_id, &options);
        let server = Self { flavour, dir, port, server_id, process, options };
        server.wait_until_up().await;
        server.root().await.query_drop(accounts(flavour)).await.unwrap();
        server
    }

    async fn wait_until_up(&self) {
        eventually("the server answers", || async { self.dial("root", None).await.ok() }).await;
    }

    /// Starts the server again on its data.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.flavour, self.dir.path(), self.port, self.server_id, &self.options);
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

/// Lines of a server's log that a failed test shows.
const LOG_LINES: usize = 40;

impl Drop for Database {
    /// A test that fails says what became of its servers: one that crashed looks like one that was never there.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let end = self.process.end().map_or_else(|| "runs".to_owned(), |end| format!("ended, {end}"));
        let log = std::fs::read_to_string(self.dir.path().join("err.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        eprintln!("server {} of {:?} {end}; its log:\n{}", self.server_id, self.flavour, tail.join("\n"));
    }
}

fn spawn(flavour: Flavour, dir: &Path, port: u16, server_id: u32, options: &[String]) -> Process {
    let log = std::fs::File::create(dir.join("err.log")).unwrap();
    // Of its own: a server that starts removes what others have left in its tmpdir, and those of other tests are not gone.
    let tmp = dir.join("tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    let mut command = match flavour {
        Flavour::Mariadb => {
            let mut command = Command::new("mariadbd");
            command
                .args([
                    "--no-defaults",
                    "--user=root",
                    "--read-only=1",
                    "--skip-slave-start",
                    "--log-slave-updates",
                ])
                .args(["--gtid-strict-mode=1", "--rpl-semi-sync-slave-enabled=1", "--slave-net-timeout=5"]);
            command
        }
        Flavour::Mysql => {
            let mut command = mysqld();
            command
                .args([
                    "--super-read-only=1",
                    "--skip-replica-start",
                    "--gtid-mode=ON",
                    "--enforce-gtid-consistency=ON",
                ])
                .args(["--plugin-load-add=semisync_source.so", "--plugin-load-add=semisync_replica.so"])
                .args(["--rpl-semi-sync-replica-enabled=1", "--replica-net-timeout=5"]);
            command
        }
    };
    Process::spawn(
        command
            .args([
                "--log-bin=bin",
                "--relay-log=relay",
                "--sync-binlog=1",
                "--innodb-flush-log-at-trx-commit=1",
            ])
            .args(["--skip-name-resolve", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=16M"])
            .arg(format!("--datadir={}", dir.join("data").display()))
            .arg(format!("--tmpdir={}", tmp.display()))
            .arg(format!("--socket={}", dir.join("sock").display()))
            .arg(format!("--pid-file={}", dir.join("pid").display()))
            .args([format!("--port={port}"), format!("--server-id={server_id}")])
            .args(options)
            .stdout(Stdio::null())
            .stderr(log),
    )
}
