//! The database on a data node: boots read-only with replication stopped; who opens it is not decided here.
//!
//! Every lab starts from a copy of one data directory with the accounts and the table in it and an empty binary log,
//! so that both nodes are equal and a start costs a fraction of a second. The template is made once per version. In which the two families
//! differ is in [`super::flavour`].

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row, Value};

use super::flavour::{Flavour, Server};
use super::{process, wait};

/// Password of every account of the lab.
pub const PASSWORD: &str = "lab-password";
/// Schema of the writer.
pub const APP_SCHEMA: &str = "app";
/// Schema of the agent.
pub const AGENT_SCHEMA: &str = "baton";
/// Account with which the witness writes through the virtual IP.
pub const CHECK_USER: &str = "baton_check";
/// Account with which a drill writes through the virtual IP.
pub const DRILL_USER: &str = "baton_drill";
/// Port of the server.
pub const PORT: u16 = 3306;

const BOOT_LIMIT: Duration = Duration::from_secs(60);
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// One row, by column name; a NULL is the empty string.
pub type Columns = BTreeMap<String, String>;

/// What of a host's directory can be a file system of its own. The data lie below it: a mount point cannot be moved aside.
pub const DISK: &str = "mysql";

/// Where a host's server has its data.
#[must_use]
pub fn data_dir(host_dir: &Path) -> PathBuf {
    host_dir.join(DISK).join("data")
}

/// How a node's server is called, and its arguments.
///
/// # Errors
/// The server is not on this machine.
pub fn command(
    flavour: Flavour,
    host_dir: &Path,
    server_id: u8,
    address: &str,
) -> Result<(String, Vec<String>)> {
    let path = |name: &str| host_dir.join(name).display().to_string();
    let (program, mut arguments) = base(flavour, &data_dir(host_dir), &path("mysql.sock"))?;
    arguments.extend([
        format!("--server-id={server_id}"),
        format!("--port={PORT}"),
        "--bind-address=0.0.0.0".into(),
        format!("--report-host={address}"),
        format!("--report-port={PORT}"),
        format!("--pid-file={}", path("mysql.pid")),
        format!("--tmpdir={}", path("tmp")),
    ]);
    let fixed = [
        "--log-bin=bin",
        "--relay-log=relay",
        "--sync-binlog=1",
        "--innodb-flush-log-at-trx-commit=1",
        "--max-connections=300",
    ];
    arguments.extend(fixed.iter().chain(flavour.node_arguments()).map(|argument| (*argument).to_owned()));
    Ok((program, arguments))
}

/// Writes the scripts by which the agent stops and starts the server, as a service manager would for it: `mysql-stop`
/// returns when it has ended, `mysql-start` leaves it running. A supervisor is told, and does the starting.
///
/// # Errors
/// A file cannot be written, or the server is not on this machine.
pub fn write_scripts(flavour: Flavour, host_dir: &Path, server_id: u8, address: &str) -> Result<()> {
    let (program, arguments) = command(flavour, host_dir, server_id, address)?;
    let quoted: Vec<String> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
    let dir = host_dir.display();
    let (held, supervised) =
        (format!("{dir}/mysqld.{}", process::HELD), format!("{dir}/mysqld.{}", process::SUPERVISED));
    let start = format!("setsid {program} {} </dev/null >>{dir}/mysqld.log 2>&1 &\n", quoted.join(" "));
    std::fs::write(
        host_dir.join("mysql-start"),
        format!("rm -f {held}\n[ ! -e {supervised} ] || exit 0\n{start}"),
    )?;
    // One that has ended and was not reaped has ended.
    let ended = "grep -q '^State:.Z' /proc/$pid/status 2>/dev/null || [ ! -d /proc/$pid ]";
    std::fs::write(
        host_dir.join("mysql-stop"),
        format!(
            ": >{held}\npid=$(cat {dir}/mysql.pid) || exit 0\nkill $pid\nuntil {ended}; do sleep 0.05; done\n"
        ),
    )?;
    Ok(())
}

fn base(flavour: Flavour, data_dir: &Path, socket: &str) -> Result<(String, Vec<String>)> {
    let Server { program, first: mut arguments } = flavour.server()?;
    arguments.extend([
        "--user=root".into(),
        format!("--datadir={}", data_dir.display()),
        format!("--socket={socket}"),
        "--skip-name-resolve".into(),
    ]);
    arguments.extend(flavour.base_arguments().iter().map(|argument| (*argument).to_owned()));
    Ok((program, arguments))
}

/// The data directory to copy; made if this version has none yet.
///
/// # Errors
/// The server is not installed or does not start.
pub fn template(flavour: Flavour, cache: &Path) -> Result<PathBuf> {
    let version = flavour.server()?.version()?;
    // Other accounts, another template.
    let mut hasher = std::hash::DefaultHasher::new();
    accounts(flavour).hash(&mut hasher);
    let ready = cache.join(format!("template-{version}-{:08x}", hasher.finish() & 0xffff_ffff));
    if ready.exists() {
        return Ok(ready);
    }
    std::fs::create_dir_all(cache)?;
    let building = tempfile::Builder::new().prefix("template-").tempdir_in(cache)?;
    let data_dir = building.path().join("data");
    flavour.install(&data_dir, building.path())?;
    fill(flavour, &data_dir, building.path())?;
    flavour.depersonalise(&data_dir)?;
    // Another process may have been faster; its template is as good.
    if std::fs::rename(&data_dir, &ready).is_err() && !ready.exists() {
        anyhow::bail!("template {} cannot be put in place", ready.display());
    }
    Ok(ready)
}

fn fill(flavour: Flavour, data_dir: &Path, dir: &Path) -> Result<()> {
    // A socket's path may have 107 bytes at most, and the cache can lie deep.
    let short = tempfile::Builder::new().prefix("bl").tempdir()?;
    let socket = short.path().join("s");
    let (program, mut arguments) = base(flavour, data_dir, &socket.display().to_string())?;
    arguments.push(format!("--pid-file={}", dir.join("pid").display()));
    arguments.extend(flavour.fill_arguments().iter().map(|argument| (*argument).to_owned()));
    let log = std::fs::File::create(dir.join("log"))?;
    let mut server =
        std::process::Command::new(program).args(&arguments).stdout(log.try_clone()?).stderr(log).spawn()?;
    let filled = wait_ready(&socket).and_then(|()| {
        accounts(flavour)
            .iter()
            .try_for_each(|statement| query(&socket, statement).map(drop).context(statement.clone()))
    });
    if filled.is_ok() {
        query(&socket, "SHUTDOWN")?;
    } else {
        server.kill()?;
    }
    server.wait()?;
    filled
}

fn accounts(flavour: Flavour) -> Vec<String> {
    let mut statements = vec![
        format!("CREATE DATABASE {APP_SCHEMA}"),
        baton_chaos::load::SCHEMA_SQL.replace("EXISTS writes", &format!("EXISTS {APP_SCHEMA}.writes")),
        format!("CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'"),
        format!("GRANT SELECT, INSERT ON {APP_SCHEMA}.* TO app@'%'"),
        format!("CREATE USER repl@'%' IDENTIFIED BY '{PASSWORD}'"),
        format!("GRANT {} TO repl@'%'", flavour.replica_grant()),
    ];
    // The witness's account: it must not write on a closed server.
    statements.extend([
        format!("CREATE USER {CHECK_USER}@'%' IDENTIFIED BY '{PASSWORD}'"),
        format!("GRANT SELECT, INSERT, UPDATE, CREATE ON {AGENT_SCHEMA}.* TO {CHECK_USER}@'%'"),
    ]);
    statements.extend([
        format!("CREATE USER {DRILL_USER}@'%' IDENTIFIED BY '{PASSWORD}'"),
        format!("GRANT SELECT, INSERT, DELETE, CREATE ON {AGENT_SCHEMA}.* TO {DRILL_USER}@'%'"),
    ]);
    for host in ["localhost", "%"] {
        statements.push(format!("CREATE USER baton@'{host}' IDENTIFIED BY '{PASSWORD}'"));
        let grants = flavour.agent_grants().iter().map(|grant| format!("GRANT {grant} TO baton@'{host}'"));
        statements.extend(grants);
        statements.push(format!("GRANT ALL ON {AGENT_SCHEMA}.* TO baton@'{host}'"));
    }
    statements
}

/// Waits until the server answers a query.
///
/// # Errors
/// It does not within a minute.
pub fn wait_ready(socket: &Path) -> Result<()> {
    wait::until("the database to answer", BOOT_LIMIT, || query(socket, "SELECT 1").map(Some)).map(drop)
}

/// Asks a server over its socket, as root.
///
/// # Errors
/// No answer within 5 s, or an error as the answer.
pub fn query(socket: &Path, sql: &str) -> Result<Vec<Columns>> {
    let options: Opts = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("root"))
        .wait_timeout(Some(600))
        .max_allowed_packet(Some(16 << 20))
        .stmt_cache_size(0)
        .into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows: Vec<Row> = runtime.block_on(async {
        tokio::time::timeout(QUERY_LIMIT, async {
            let mut conn = Conn::new(options).await?;
            conn.query(sql).await
        })
        .await
        .context("no answer in time")?
        .context("the database")
    })?;
    Ok(rows.into_iter().map(columns).collect())
}

/// The first column of the first row.
///
/// # Errors
/// No answer within 5 s, an error as the answer, or no row.
pub fn value(socket: &Path, sql: &str) -> Result<String> {
    let rows = query(socket, sql)?;
    rows.into_iter().next().and_then(|row| row.into_values().next()).with_context(|| format!("no row: {sql}"))
}

fn columns(row: Row) -> Columns {
    let names: Vec<String> = row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
    names.into_iter().zip(row.unwrap().into_iter().map(text)).collect()
}

fn text(value: Value) -> String {
    match value {
        Value::NULL => String::new(),
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Double(_)
        | Value::Date(..)
        | Value::Time(..) => value.as_sql(true).trim_matches('\'').to_owned(),
    }
}

/// Points a replica at its primary; replication is not started.
///
/// # Errors
/// The server refuses.
pub fn follow(flavour: Flavour, socket: &Path, primary: &str) -> Result<()> {
    query(socket, &flavour.follow(primary)).map(drop)
}

/// How often each id of the writer is there.
///
/// # Errors
/// The server does not answer.
pub fn contents(socket: &Path) -> Result<BTreeMap<u64, u32>> {
    contents_of(socket, 0..u64::MAX)
}

/// The same, of these ids.
///
/// # Errors
/// The server does not answer.
pub fn contents_of(socket: &Path, ids: Range<u64>) -> Result<BTreeMap<u64, u32>> {
    let (first, end) = (ids.start, ids.end);
    let rows = query(
        socket,
        &format!(
            "SELECT id, COUNT(*) AS times FROM {APP_SCHEMA}.writes WHERE id >= {first} AND id < {end} GROUP BY id"
        ),
    )?;
    rows.iter().map(|row| Ok((row["id"].parse()?, row["times"].parse()?))).collect()
}
