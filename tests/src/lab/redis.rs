//! Redis on a data node: boots as a replica that takes no writes; who opens it is not decided here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use baton_chaos::load::KEY_PREFIX;
use redis::{Client, FromRedisValue};

use super::wait;

/// Port of the server.
pub const PORT: u16 = 6379;

const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const BOOT_LIMIT: Duration = Duration::from_secs(20);

/// The configuration file of a node's server. `primary` is none for the first holder, which follows nobody who could
/// be there: without an agent it stays a replica that refuses writes.
#[must_use]
pub fn configuration(host_dir: &Path, address: &str, primary: Option<&str>) -> String {
    let dir = host_dir.display();
    let follows = primary.map_or_else(|| "127.0.0.1 1".to_owned(), |primary| format!("{primary} {PORT}"));
    format!(
        "port {PORT}\nbind 0.0.0.0\nprotected-mode no\ndaemonize no\n\
         unixsocket {dir}/redis.sock\nunixsocketperm 700\ndir {dir}/redis\nlogfile {dir}/redis.log\n\
         appendonly yes\nappendfsync everysec\nsave \"\"\n\
         replica-announce-ip {address}\nreplicaof {follows}\nreplica-read-only yes\nmin-replicas-to-write 99\n\
         repl-ping-replica-period 1\nrepl-timeout 8\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n\
         repl-backlog-size 16mb\n"
    )
}

/// Asks a server over its socket.
///
/// # Errors
/// No answer within 2 s, or an error as the answer.
pub fn ask<T: FromRedisValue>(socket: &Path, words: &[&str]) -> Result<T> {
    let client = Client::open(format!("redis+unix://{}", socket.display()))?;
    let mut conn = client.get_connection_with_timeout(ANSWER_LIMIT)?;
    conn.set_read_timeout(Some(ANSWER_LIMIT))?;
    let (name, arguments) = words.split_first().context("no command")?;
    let mut command = redis::cmd(name);
    command.arg(arguments);
    Ok(command.query(&mut conn)?)
}

/// A field of `INFO replication`.
///
/// # Errors
/// No answer, or no such field.
pub fn replication(socket: &Path, field: &str) -> Result<String> {
    let info: String = ask(socket, &["INFO", "replication"])?;
    let found = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.map(str::to_owned).with_context(|| format!("no field {field}"))
}

/// Waits until the server answers.
///
/// # Errors
/// It does not within 20 s.
pub fn wait_ready(socket: &Path) -> Result<()> {
    wait::until("Redis to answer", BOOT_LIMIT, || ask::<String>(socket, &["PING"]).map(Some)).map(drop)
}

/// How often each write of the writer was executed.
///
/// # Errors
/// The server does not answer.
pub fn contents(socket: &Path) -> Result<BTreeMap<u64, u32>> {
    let keys: Vec<String> = ask(socket, &["KEYS", &format!("{KEY_PREFIX}*")])?;
    let mut there = BTreeMap::new();
    for some in keys.chunks(1000) {
        let mut words = vec!["MGET"];
        words.extend(some.iter().map(String::as_str));
        let times: Vec<u32> = ask(socket, &words)?;
        for (key, times) in some.iter().zip(times) {
            let id = key.strip_prefix(KEY_PREFIX).context("another key")?.parse()?;
            there.insert(id, times);
        }
    }
    Ok(there)
}

/// How often each of these writes was executed. Nothing else of the server is looked at: looking for keys would stop it.
///
/// # Errors
/// The server does not answer.
pub fn contents_of(socket: &Path, ids: Range<u64>) -> Result<BTreeMap<u64, u32>> {
    let mut there = BTreeMap::new();
    let all: Vec<u64> = ids.collect();
    for some in all.chunks(1000) {
        let words: Vec<String> = std::iter::once("MGET".to_owned())
            .chain(some.iter().map(|id| format!("{KEY_PREFIX}{id}")))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let times: Vec<Option<u32>> = ask(socket, &words)?;
        there.extend(some.iter().copied().zip(times).filter_map(|(id, times)| Some((id, times?))));
    }
    Ok(there)
}
