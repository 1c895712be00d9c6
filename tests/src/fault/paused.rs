//! Pauses: what an operator orders, and that nothing moves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::Scene;
use crate::lab::{Port, agents, wait};

/// How long nobody may take over in a pause of a minute, counted from a moment after it was ordered. The leader counts from
/// when it saw it, so this is well inside.
const NOTHING_FOR: Duration = Duration::from_secs(50);
/// In every profile.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(2);
/// How long the cluster may take to be as before a pause.
const NORMAL_WITHIN: Duration = Duration::from_secs(60);

/// Nobody is left but the primary.
pub(super) fn lose_quorum(scene: Scene<'_>) -> Result<()> {
    begin(scene, &["--for", "10m", "--alone"])?;
    scene.lab.power_off(scene.backup)?;
    scene.lab.power_off(Port::Mon)
}

/// The primary is cut off in a pause, and has only that left; its agent is killed.
pub(super) fn restart_cut_off(scene: Scene<'_>) -> Result<()> {
    begin(scene, &["--for", "10m", "--alone"])?;
    super::act::isolate(scene)?;
    wait::pass(LONGER_THAN_A_LEASE)?;
    scene.lab.host(scene.primary).process("agent")?.signal(Signal::SIGKILL)
}

/// The primary is lost in a short pause.
pub(super) fn lose_primary(scene: Scene<'_>) -> Result<()> {
    begin(scene, &["--for", "1m"])?;
    scene.lab.power_off(scene.primary)
}

/// As an operator would, at the backup. Ends when the holder has confirmed.
pub(super) fn begin(scene: Scene<'_>, how: &[&str]) -> Result<()> {
    let config = scene.lab.config.as_ref().context("only agents can be paused")?;
    let verb = [&["pause", "--yes", "--reason", "new disks"], how].concat();
    let (code, said) = agents::order(config, scene.backup, &verb)?;
    scene.lab.tell(&said);
    ensure!(code == 0, "baton pause ended with {code}: {said}");
    let (code, said) = agents::order(config, scene.primary, &["switchover", "--yes"])?;
    ensure!(code == 2 && said.contains("not-paused"), "a switchover while paused ended with {code}: {said}");
    let sentence = agents::ask(config, Port::Mon, &["status"])?["sentence"].to_string();
    scene.lab.tell(&sentence);
    ensure!(sentence.contains("PAUSED") && sentence.contains("new disks"), "the witness says: {sentence}");
    Ok(())
}

/// The holder is lost, and nothing moves.
pub(super) fn nobody_takes_over(scene: Scene<'_>) -> Result<()> {
    let until = std::time::Instant::now() + NOTHING_FOR;
    let before = scene.lab.standing()?;
    while std::time::Instant::now() < until {
        let now = scene.lab.standing()?;
        ensure!(now.epoch == before.epoch, "somebody took over while paused: {}", now.text);
        ensure!(scene.lab.serving()?.is_none(), "somebody serves while paused: {}", now.text);
        wait::pass(Duration::from_millis(500))?;
    }
    let config = scene.lab.config.as_ref().context("agents")?;
    let why = agents::reasons(config, scene.lab.standing()?.leader.context("no leader")?)?;
    ensure!(why.contains("paused"), "the leader does not say why nothing is done: {why}");
    Ok(())
}

/// As an operator would, and everything is as before.
pub(super) fn end(scene: Scene<'_>) -> Result<()> {
    let config = scene.lab.config.as_ref().context("only agents can be paused")?;
    wait::until_true("a leader to be there again", NORMAL_WITHIN, || {
        Ok(scene.lab.standing()?.leader.is_some())
    })?;
    let (code, said) = agents::order(config, scene.primary, &["resume", "--yes"])?;
    scene.lab.tell(&said);
    ensure!(code == 0, "baton resume ended with {code}: {said}");
    wait::until_true("a takeover to be possible again", NORMAL_WITHIN, || {
        let standing = scene.lab.standing()?;
        ensure!(
            standing.ok && standing.in_sync && standing.holder == Some(scene.primary),
            "{}",
            standing.text
        );
        Ok(true)
    })?;
    let history = agents::ask(config, scene.primary, &["history"])?;
    let pause = history["pauses"].as_array().and_then(|pauses| pauses.last()).cloned().unwrap_or_default();
    ensure!(pause["reason"] == "new disks" && pause["ended_at"].is_string(), "the history has {pause}");
    Ok(())
}
