//! What an operator orders while nothing is broken, or hardly anything.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Fault, Scene, paused};
use crate::lab::{Port, Traffic, agents, database, wait};

/// How long a run may take to be seen after it was ordered.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
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
pub(super) fn pass_baton(fault: Fault, scene: Scene<'_>) -> Result<()> {
    let codes: &[i32] = match fault {
        Fault::SwitchoverFails => &[3],
        // A crash may be early enough for the agent to be back in time, or too late for undoing.
        Fault::SwitchoverCrash => &[0, 3],
        _ => &[0],
    };
    pass(scene, scene.backup, codes).map(drop)
}

fn pass(scene: Scene<'_>, at: Port, codes: &[i32]) -> Result<i32> {
    let (code, said) = agents::switchover(config(scene)?, at)?;
    ensure!(codes.contains(&code), "baton switchover ended with {code}: {said}");
    Ok(code)
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

/// The abort comes `spread` after the run was seen. Whether it is in time or not, both commands say the same.
pub(super) fn pass_and_abort(scene: Scene<'_>) -> Result<()> {
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
