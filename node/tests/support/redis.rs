//! A Redis server that boots as a replica of nobody that exists, as Baton asks for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use baton_node::hands::redis::{Redis, RedisAccess};
use tempfile::TempDir;

use super::{Process, eventually, free_port, skip};

const PASSWORD: &str = "pass word";
const D: Duration = Duration::from_secs(10);

/// True if Redis is installed; says so loudly if not.
pub fn is_installed() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        skip("Redis", "redis-server");
    }
    found
}

pub struct RedisServer {
    dir: TempDir,
    pub port: u16,
    process: Process,
}

impl RedisServer {
    pub async fn start() -> Self {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let process = spawn(dir.path(), port);
        let server = Self { dir, port, process };
        server.wait_until_up().await;
        server
    }

    async fn wait_until_up(&self) {
        let hands = self.hands();
        eventually("redis answers", || async { hands.facts(D).await.ok() }).await;
    }

    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.dir.path(), self.port);
        self.wait_until_up().await;
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn access(&self) -> RedisAccess {
        RedisAccess { socket: self.socket(), user: None, password: PASSWORD.into() }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub fn hands(&self) -> Redis {
        Redis::new(self.access())
    }

    /// One command of a client, over TCP.
    pub async fn client(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://:pass%20word@127.0.0.1:{}/", self.port)).unwrap();
        let mut conn = client.get_multiplexed_async_connection().await?;
        let mut cmd = redis::cmd(words[0]);
        for word in &words[1..] {
            cmd.arg(*word);
        }
        cmd.query_async(&mut conn).await
    }
}

fn spawn(dir: &Path, port: u16) -> Process {
    Process::spawn(
        Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--unixsocket", &dir.join("sock").display().to_string()])
            .args(["--dir", &dir.display().to_string(), "--save", "", "--appendonly", "no"])
            .args(["--requirepass", PASSWORD, "--masterauth", PASSWORD])
            .args(["--replicaof", "127.0.0.1", "1", "--min-replicas-to-write", "99"])
            .args(["--repl-diskless-sync-delay", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
}
