//! A backup whose Redis loads its data set when it is needed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::Scene;
use crate::lab::{redis, wait};

/// How long it waits at each key while it loads, in microseconds; the kernel's timers add about as much.
const PER_KEY_US: u64 = 50;
/// Bytes after which it answers while it loads; of its own accord it would after two millions, which is most of the file.
const ANSWERS_EVERY_BYTES: u64 = 65_536;
/// Keys that it has to load, besides the writer's: seconds of loading.
const KEYS: u64 = 60_000;
const KEYS_AT_ONCE: u64 = 1_000;
const WITHIN: Duration = Duration::from_secs(10);

/// The backup's Redis starts anew with a delay per key; while it loads, the primary loses power.
pub(super) fn lose_the_primary(scene: Scene<'_>) -> Result<()> {
    let host = scene.lab.host(scene.backup);
    fill(scene)?;
    let file = host.dir.join("redis.conf");
    let usual = std::fs::read_to_string(&file).context("read its configuration")?;
    let slow =
        format!("key-load-delay {PER_KEY_US}\nloading-process-events-interval-bytes {ANSWERS_EVERY_BYTES}\n");
    std::fs::write(&file, format!("{usual}{slow}"))?;
    let server = host.process("redis")?;
    server.signal(Signal::SIGKILL)?;
    wait::until_true("Redis to end", WITHIN, || Ok(server.pid().is_none()))?;
    scene.lab.start_server(scene.backup, "redis")?;
    let loads = wait::until_true("Redis to load", WITHIN, || Ok(loading(scene).is_ok_and(|loads| loads)));
    // It has read the file; the next start is as usual.
    std::fs::write(&file, usual)?;
    loads?;
    scene.lab.power_off(scene.primary)
}

/// Gives both of them something to load.
fn fill(scene: Scene<'_>) -> Result<()> {
    let [primary, backup] = [scene.primary, scene.backup].map(|port| scene.lab.host(port).redis());
    for first in (0..KEYS).step_by(usize::try_from(KEYS_AT_ONCE)?) {
        let set = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'filler:' .. i, i) end";
        let (first, last) = (first.to_string(), (first + KEYS_AT_ONCE - 1).to_string());
        redis::ask::<()>(&primary, &["EVAL", set, "0", &first, &last])?;
    }
    wait::until_true("the backup's Redis to have it all", WITHIN, || {
        Ok(redis::ask::<u64>(&backup, &["DBSIZE"])? >= KEYS)
    })
}

/// It still loads while the primary is gone.
pub(super) fn is_loading(scene: Scene<'_>) -> Result<()> {
    ensure!(loading(scene)?, "Redis has loaded already");
    Ok(())
}

fn loading(scene: Scene<'_>) -> Result<bool> {
    let info: String = redis::ask(&scene.lab.host(scene.backup).redis(), &["INFO", "persistence"])?;
    Ok(info.lines().any(|line| line == "loading:1"))
}
