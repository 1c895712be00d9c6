//! The two families of database that the lab can have, and everything in which they differ for it.
//!
//! MariaDB is the machine's own. MySQL is a tree that was unpacked beside it (`$BATON_MYSQL`, else
//! `/var/cache/baton-tests/mysql`; `make mysql` fills it), and runs with its own loader and libraries.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::database::{Columns, PASSWORD, PORT};
use super::shell;

/// The variable that says on which family the tests run.
pub const ENVIRONMENT: &str = "BATON_FLAVOUR";
const MYSQL_TREE: &str = "/var/cache/baton-tests/mysql";

/// A family of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Flavour {
    /// MariaDB, as installed on the machine.
    #[default]
    Mariadb,
    /// MySQL, from the unpacked tree.
    Mysql,
}

/// A program with the arguments that come before all others.
#[derive(Debug, Clone)]
pub struct Server {
    /// The program.
    pub program: String,
    /// Its first arguments.
    pub first: Vec<String>,
}

impl Flavour {
    /// Its name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mariadb => "mariadb",
            Self::Mysql => "mysql",
        }
    }

    /// The family that `BATON_FLAVOUR` names; MariaDB if it is not set.
    ///
    /// # Errors
    /// It names none.
    pub fn of_environment() -> Result<Self> {
        match std::env::var(ENVIRONMENT).as_deref() {
            Err(_) | Ok("" | "mariadb") => Ok(Self::Mariadb),
            Ok("mysql") => Ok(Self::Mysql),
            Ok(other) => bail!("{ENVIRONMENT}={other}: mariadb or mysql"),
        }
    }

    /// Whether its server can be started on this machine.
    #[must_use]
    pub fn is_there(self) -> bool {
        self.server().is_ok_and(|server| server.version().is_ok())
    }

    /// How its server is called.
    ///
    /// # Errors
    /// MySQL's tree is not there.
    pub fn server(self) -> Result<Server> {
        match self {
            Self::Mariadb => {
                // Must be the first.
                Ok(Server { program: "mariadbd".into(), first: vec!["--no-defaults".into()] })
            }
            Self::Mysql => mysqld(),
        }
    }

    /// Arguments with which a template is made and every server is started.
    pub(super) fn base_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Mariadb => &[
                "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=16M",
                "--aria-pagecache-buffer-size=8M",
                "--performance-schema=0",
            ],
            Self::Mysql => {
                &["--innodb-buffer-pool-size=64M", "--innodb-redo-log-capacity=16M", "--mysqlx=OFF"]
            }
        }
    }

    /// Arguments of a node's server: it boots closed, with replication stopped, and loses nothing in a crash.
    pub(super) fn node_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Mariadb => &[
                "--read-only=1",
                "--skip-slave-start",
                "--binlog-format=ROW",
                "--log-slave-updates",
                "--gtid-strict-mode=1",
                "--rpl-semi-sync-slave-enabled=1",
                "--rpl-semi-sync-slave-kill-conn-timeout=1",
                "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
                "--slave-net-timeout=5",
                "--slave-parallel-threads=4",
            ],
            Self::Mysql => &[
                "--super-read-only=1",
                "--skip-replica-start",
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--plugin-load-add=semisync_source.so",
                "--plugin-load-add=semisync_replica.so",
                "--plugin-load-add=mysql_clone.so",
                "--rpl-semi-sync-replica-enabled=1",
                "--replica-net-timeout=5",
            ],
        }
    }

    /// Arguments of a server that only fills a template: nothing that it does is a transaction.
    pub(super) fn fill_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Mariadb => &["--skip-networking"],
            Self::Mysql => &["--skip-networking", "--disable-log-bin"],
        }
    }

    /// Makes an empty data directory.
    pub(super) fn install(self, data_dir: &Path, tmp: &Path) -> Result<()> {
        let (data_dir, tmp) =
            (format!("--datadir={}", data_dir.display()), format!("--tmpdir={}", tmp.display()));
        match self {
            Self::Mariadb => shell::run(
                "mariadb-install-db",
                &[
                    "--no-defaults",
                    "--user=root",
                    &data_dir,
                    &tmp,
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    "--innodb-log-file-size=16M",
                ],
            ),
            Self::Mysql => {
                let Server { program, first } = self.server()?;
                let more = ["--initialize-insecure", "--user=root", "--disable-log-bin", &data_dir, &tmp];
                let all: Vec<&str> = first
                    .iter()
                    .map(String::as_str)
                    .chain(more)
                    .chain(self.base_arguments().iter().copied())
                    .collect();
                shell::run(&program, &all)
            }
        }
        .map(drop)
    }

    /// What an agent's `PATH` has to be for it to find the family's programs in `dir`; none: as it is.
    pub(super) fn tools(self, dir: &Path) -> Result<Option<String>> {
        match self {
            Self::Mariadb => Ok(None),
            Self::Mysql => {
                wrap_tools(dir)?;
                let path = std::env::var("PATH").unwrap_or_default();
                Ok(Some(format!("{}:{path}", dir.display())))
            }
        }
    }

    /// Takes out of a filled data directory what two nodes must not share.
    pub(super) fn depersonalise(self, data_dir: &Path) -> Result<()> {
        match self {
            Self::Mariadb => Ok(()),
            Self::Mysql => std::fs::remove_file(data_dir.join("auto.cnf")).context("the server's identity"),
        }
    }

    /// Privileges of the agent's account beyond its own schema, as the install guide grants them. On MariaDB SUPER besides,
    /// with which a switchover stops the event scheduler.
    pub(super) fn agent_grants(self) -> &'static [&'static str] {
        match self {
            Self::Mariadb => {
                &["SLAVE MONITOR, BINLOG MONITOR, REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, \
                 READ_ONLY ADMIN, CONNECTION ADMIN, PROCESS, RELOAD, BINLOG ADMIN, EVENT, SUPER ON *.*"]
            }
            Self::Mysql => &[
                "REPLICATION CLIENT, REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN, SYSTEM_USER, \
                 PROCESS, RELOAD, BACKUP_ADMIN ON *.*",
                "SELECT ON performance_schema.*",
            ],
        }
    }

    /// Privileges of the replicas' account.
    pub(super) fn replica_grant(self) -> &'static str {
        match self {
            Self::Mariadb => "REPLICATION SLAVE ON *.*",
            Self::Mysql => "REPLICATION SLAVE, BACKUP_ADMIN ON *.*",
        }
    }

    /// Megabytes of a file system that has room for a node's data, for a copy of them beside it, and for little more.
    pub(super) fn small_disk_mib(self) -> u32 {
        match self {
            Self::Mariadb => 640,
            Self::Mysql => 768,
        }
    }

    /// Points a stopped replica at its primary.
    pub(super) fn follow(self, primary: &str) -> String {
        match self {
            Self::Mariadb => format!(
                "CHANGE MASTER TO MASTER_HOST='{primary}', MASTER_PORT={PORT}, MASTER_USER='repl', \
                 MASTER_PASSWORD='{PASSWORD}', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, \
                 MASTER_HEARTBEAT_PERIOD=1"
            ),
            Self::Mysql => format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='{primary}', SOURCE_PORT={PORT}, SOURCE_USER='repl', \
                 SOURCE_PASSWORD='{PASSWORD}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, \
                 SOURCE_CONNECT_RETRY=1, SOURCE_HEARTBEAT_PERIOD=1"
            ),
        }
    }

    /// Starts both threads of a replica.
    pub(super) fn start_replica(self) -> &'static str {
        match self {
            Self::Mariadb => "START SLAVE",
            Self::Mysql => "START REPLICA",
        }
    }

    /// Asks how replication is.
    #[must_use]
    pub const fn replica_status(self) -> &'static str {
        match self {
            Self::Mariadb => "SHOW SLAVE STATUS",
            Self::Mysql => "SHOW REPLICA STATUS",
        }
    }

    /// Whether both threads run, by a row of [`Flavour::replica_status`].
    #[must_use]
    pub fn replicates(self, row: &Columns) -> bool {
        let threads = match self {
            Self::Mariadb => ["Slave_IO_Running", "Slave_SQL_Running"],
            Self::Mysql => ["Replica_IO_Running", "Replica_SQL_Running"],
        };
        threads.iter().all(|thread| row.get(*thread).is_some_and(|value| value == "Yes"))
    }

    /// Lets clients write.
    pub(super) fn open(self) -> &'static str {
        match self {
            Self::Mariadb => "SET GLOBAL read_only=0",
            Self::Mysql => "SET GLOBAL super_read_only=0; SET GLOBAL read_only=0",
        }
    }

    /// Commits wait for a replica's acknowledgement from now on, or do not.
    #[must_use]
    pub const fn semi_sync(self, on: bool) -> &'static str {
        match (self, on) {
            (Self::Mariadb, true) => "SET GLOBAL rpl_semi_sync_master_enabled=1",
            (Self::Mariadb, false) => "SET GLOBAL rpl_semi_sync_master_enabled=0",
            (Self::Mysql, true) => "SET GLOBAL rpl_semi_sync_source_enabled=1",
            (Self::Mysql, false) => "SET GLOBAL rpl_semi_sync_source_enabled=0",
        }
    }

    /// A statement of an administrator on a closed server. MariaDB lets root write there; MySQL has to be opened first, by
    /// half.
    #[must_use]
    pub fn past_read_only(self, statement: &str) -> String {
        match self {
            Self::Mariadb => statement.to_owned(),
            Self::Mysql => format!("SET GLOBAL super_read_only=0; {statement}; SET GLOBAL super_read_only=1"),
        }
    }
}

/// Puts the programs of MySQL's tree that an agent runs into a directory of their own, for its `PATH`.
fn wrap_tools(dir: &Path) -> Result<()> {
    let Server { program, first } = mysqld()?;
    let (options, server) = first.split_at(2);
    let bin = Path::new(&server[0]).with_file_name("../bin/mysqlbinlog");
    std::fs::create_dir_all(dir)?;
    let script = dir.join("mysqlbinlog");
    std::fs::write(
        &script,
        format!("#!/bin/sh\nexec {program} {} {} \"$@\"\n", options.join(" "), bin.display()),
    )?;
    Ok(std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?)
}

impl Server {
    /// What it calls itself, such as `10.11.6-MariaDB` or `9.7.0`.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn version(&self) -> Result<String> {
        let asked: Vec<&str> = self.first.iter().map(String::as_str).chain(["--version"]).collect();
        let said = shell::run(&self.program, &asked)?;
        let version = said.split_whitespace().skip_while(|word| *word != "Ver").nth(1);
        Ok(version.with_context(|| format!("no version: {said}"))?.to_owned())
    }
}

/// `mysqld` of the unpacked tree, by the tree's own loader.
fn mysqld() -> Result<Server> {
    let tree = std::env::var_os("BATON_MYSQL").map_or_else(|| MYSQL_TREE.into(), PathBuf::from);
    let usr = tree.join("usr");
    let libraries = std::fs::read_dir(usr.join("lib")).context("no MySQL: `make mysql` fetches it")?;
    let libraries: Vec<String> = libraries
        .filter_map(|entry| entry.ok().map(|entry| entry.path().display().to_string()))
        .filter(|path| path.ends_with("-linux-gnu"))
        .collect();
    let loaders = ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"].map(|path| usr.join(path));
    let loader = loaders.iter().find(|path| path.exists()).context("no loader in MySQL's tree")?;
    let share = usr.join("share/mysql");
    let first = vec![
        "--library-path".into(),
        libraries.join(":"),
        usr.join("sbin/mysqld").display().to_string(),
        "--no-defaults".into(),
        format!("--basedir={}", usr.display()),
        format!("--plugin-dir={}", usr.join("lib/mysql/plugin").display()),
        format!("--lc-messages-dir={}", share.display()),
        format!("--character-sets-dir={}", share.join("charsets").display()),
        "--secure-file-priv=NULL".into(),
    ];
    Ok(Server { program: loader.display().to_string(), first })
}
