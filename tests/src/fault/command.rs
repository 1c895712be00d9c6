//! What an operator orders while nothing is broken, or hardly anything.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Scene, USUAL_SWITCHOVER_STEP, paused};
use crate::lab::{Port, Traffic, agents, database, wait};

/// How long a run may take to be seen after it was ordered.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// How long a switchover may take to reach the step at which it is held.
const HELD_WITHIN: Duration = Duration::from_secs(20);
/// How long a cluster may take to be ready for the next order.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long an agent may take to find the replica out of sync.
const BEHIND_WITHIN: Duration = Duration::from_secs(20);
/// How long a pause is left alone.
const PAUSED_FOR: Duration = Duration::from_secs(3);

fn config<'a>(scene: Scene<'a>) -> Result<&'a Path> {
    scene.lab.config.as_deref().context("only agents take orders")
}

/// As an operator would, at the backup. Any node takes the command.
pub(super) fn pass_baton(scene: Scene<'_>) -> Result<()> {
    pass(scene, scene.backup, &[0]).map(drop)
}

/// A crash of a step's actor may be early enough for the agent to be back in time, or too late for undoing.
pub(super) fn pass_through_a_crash(scene: Scene<'_>) -> Result<()> {
    pass(scene, scene.backup, &[0, 3]).map(drop)
}

/// A step fails before the point of no return.
pub(super) fn pass_in_vain(scene: Scene<'_>) -> Result<()> {
    let said = pass(scene, scene.backup, &[3])?;
    // The plan, which it shows as well, has every step: what counts is the reason at the end.
    let step = scene.lab.armed_step().context("no step was made to fail")?;
    let names_it = in_one_line(&said).contains(&format!("was taken back: {step}: "));
    ensure!(names_it, "baton switchover does not say that {step} failed: {said}");
    Ok(())
}

fn pass(scene: Scene<'_>, at: Port, codes: &[i32]) -> Result<String> {
    let (code, said) = agents::switchover(config(scene)?, at)?;
    ensure!(codes.contains(&code), "baton switchover ended with {code}: {said}");
    if codes == [0] {
        was_completed(scene, at)?;
    }
    Ok(said)
}

/// The newest switchover left nothing out: one that is degraded ends with 0 as well.
fn was_completed(scene: Scene<'_>, at: Port) -> Result<()> {
    let history = agents::ask(config(scene)?, at, &["history"])?;
    let runs = history["runs"].as_array().context("no runs in the history")?;
    let run = runs.iter().rev().find(|run| run["runbook"] == "switchover");
    let run = run.context("no switchover in the history")?;
    let is_whole = ["attached", "validated"].iter().all(|phase| run["phases_ms"][*phase].is_u64());
    ensure!(run["result"] == "completed" && is_whole, "the switchover is not complete: {run}");
    Ok(())
}

/// What a command said, however it broke the lines.
fn in_one_line(said: &str) -> String {
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The second order is given at the witness, as soon as it can be obeyed.
pub(super) fn pass_there_and_back(scene: Scene<'_>) -> Result<()> {
    pass(scene, scene.backup, &[0])?;
    ready(scene, scene.backup)?;
    wait::pass(scene.spread)?;
    pass(scene, Port::Mon, &[0])?;
    ready(scene, scene.primary)
}

fn ready(scene: Scene<'_>, holder: Port) -> Result<()> {
    wait::until_true("the cluster to be ready for the next order", READY_WITHIN, || {
        let standing = scene.lab.standing()?;
        ensure!(standing.ok && standing.in_sync && standing.holder == Some(holder), "{}", standing.text);
        Ok(true)
    })
}

/// First in time for certain. Then the abort comes `spread` after the run was seen: whether it is in time or not, both
/// commands say the same.
pub(super) fn pass_and_abort(scene: Scene<'_>) -> Result<()> {
    pass_and_abort_in_time(scene)?;
    let config = config(scene)?;
    std::thread::scope(|scope| {
        let passing = scope.spawn(|| agents::switchover(config, scene.backup));
        let number = wait::until("the run to be seen", SEEN_WITHIN, || {
            let status = agents::ask(config, scene.primary, &["status"])?;
            let number = status["run"]["number"].as_u64();
            Ok(number.map(Some).or_else(|| passing.is_finished().then_some(None)))
        })?;
        wait::pass(scene.spread)?;
        let aborted =
            number.map(|number| agents::order(config, scene.primary, &["run", "abort", &number.to_string()]));
        let (passed, said) =
            passing.join().map_err(|_| anyhow::anyhow!("the switchover's thread died"))??;
        let (abort, answered) = aborted.transpose()?.unwrap_or((2, "the run was over at once".into()));
        // Not found: the run has ended meanwhile and is no run under way any more.
        let agree = matches!((passed, abort), (0, 1 | 2) | (3, 0));
        ensure!(agree, "switchover {passed}: {said}\nabort {abort}: {answered}");
        let holder = if passed == 0 { scene.backup } else { scene.primary };
        ready(scene, holder)
    })
}

/// The abort comes while the last step before the point of no return is held: the old holder is closed by then, and the new one
/// could be opened. Everything is taken back.
fn pass_and_abort_in_time(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    let config = config(scene)?;
    let before = lab.standing()?;
    lab.arm(backup, &format!("{USUAL_SWITCHOVER_STEP}:hold"))?;
    std::thread::scope(|scope| -> Result<()> {
        let passing = scope.spawn(|| agents::switchover(config, backup));
        let aborted = abort_what_is_held(scene);
        // Whatever came of it, nothing is held from here on.
        lab.disarm()?;
        let (passed, said) =
            passing.join().map_err(|_| anyhow::anyhow!("the switchover's thread died"))??;
        let (abort, answered) = aborted.with_context(|| format!("switchover {passed}: {said}"))?;
        let both = format!("switchover {passed}: {said}\nabort {abort}: {answered}");
        ensure!((passed, abort) == (3, 0), "an abort in time is obeyed: {both}");
        ensure!(in_one_line(&said).contains("was taken back: aborted by"), "it does not say why: {both}");
        Ok(())
    })?;
    ready(scene, primary)?;
    let after = lab.standing()?;
    let is_as_before = (after.holder, after.epoch) == (before.holder, before.epoch);
    ensure!(is_as_before, "before: {}\nafter: {}", before.text, after.text);
    Ok(())
}

/// The exit code of `baton run abort` at the holder, and what it said.
fn abort_what_is_held(scene: Scene<'_>) -> Result<(i32, String)> {
    let config = config(scene)?;
    wait::until_true("the switchover to be held", HELD_WITHIN, || Ok(scene.lab.has_struck()))?;
    let status = agents::ask(config, scene.primary, &["status"])?;
    let number = status["run"]["number"].as_u64().context("no run in the status")?;
    agents::order(config, scene.primary, &["run", "abort", &number.to_string()])
}

pub(super) fn pause_and_resume(scene: Scene<'_>) -> Result<()> {
    paused::begin(scene, &["--for", "10m"])?;
    wait::pass(PAUSED_FOR + scene.spread)?;
    paused::end(scene)
}

/// What loses data is refused where nothing is lost, each with the code for it, and changes nothing.
pub(super) fn are_refused(scene: Scene<'_>) -> Result<()> {
    let config = config(scene)?;
    let (code, said) = agents::takeover(config, scene.backup, "any", &["--yes", "--timeout", "4s"])?;
    ensure!(code == 2, "a takeover from a healthy holder ended with {code}: {said}");
    let (code, said) = agents::resync(config, Port::Mon, scene.backup)?;
    ensure!(code == 2, "a resync of a replica in sync ended with {code}: {said}");
    let (code, said) = agents::resync(config, Port::Mon, scene.primary)?;
    ensure!(code == 2, "a resync of the holder ended with {code}: {said}");
    let others = format!("{},{}", scene.primary.name(), Port::Mon.name());
    let force = ["force", "--yes", "--reason", "none", "--others-are-off", &others, "--accept-data-loss"];
    let (code, said) = agents::order(config, scene.backup, &force)?;
    ensure!(code == 2, "a force in a healthy cluster ended with {code}: {said}");
    Ok(())
}

/// The order is given as soon as replication could go on by itself: whoever is first, the replica is in sync afterwards.
pub(super) fn resync(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    lab.wire.cut_both(primary, backup, Traffic::Tcp(database::PORT))?;
    wait::until_true("the replica to be out of sync", BEHIND_WITHIN, || Ok(!lab.standing()?.in_sync))?;
    wait::pass(scene.spread)?;
    lab.wire.mend()?;
    let (code, said) = agents::resync(config(scene)?, Port::Mon, backup)?;
    ensure!([0, 2].contains(&code), "baton resync ended with {code}: {said}");
    ready(scene, primary)
}
