//! A majority is lost for good, and an operator forces the survivor to go on alone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Scene;
use super::back;
use crate::lab::{Port, agents, wait};

/// How long the others have to be silent before the survivor believes that they are off, and a little.
const SILENT_WITHIN: Duration = Duration::from_secs(30);
/// How long the survivor may take to serve, after the order.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// How long a node that is back may take to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
/// How long the cluster may take to be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);

fn others(scene: Scene<'_>) -> String {
    format!("{},{}", scene.primary.name(), Port::Mon.name())
}

/// Two hosts lose power for good, and an operator lets the third go on.
pub(super) fn lose_two(scene: Scene<'_>) -> Result<()> {
    scene.lab.power_off(scene.primary)?;
    scene.lab.power_off(Port::Mon)?;
    go_on_alone(scene)
}

/// As an operator would, at the backup. What is not said is not assumed: each refusal changes nothing.
fn go_on_alone(scene: Scene<'_>) -> Result<()> {
    let config = scene.lab.config.as_ref().context("only agents can be forced")?;
    let force = |more: &[&str]| {
        let verb = [&["force", "--yes", "--reason", "fire in rack 1"], more].concat();
        agents::order(config, scene.backup, &verb)
    };
    let others = others(scene);
    let all = ["--others-are-off", &others, "--accept-data-loss"];
    wait::until_true("the others to be silent for long enough", SILENT_WITHIN, || {
        Ok(force(&[&all[..], &["--dry-run"]].concat())?.0 == 0)
    })?;
    let (code, said) = force(&["--others-are-off", scene.primary.name(), "--accept-data-loss"])?;
    ensure!(
        code == 2 && said.contains("others-named"),
        "a force that names one of two ended with {code}: {said}"
    );
    let (code, said) = force(&all[..2])?;
    ensure!(
        code == 2 && said.contains("--accept-data-loss"),
        "a force without a word on data ended with {code}: {said}"
    );
    let (code, said) = force(&all)?;
    scene.lab.tell(&said);
    ensure!(code == 0, "baton force ended with {code}: {said}");
    wait::until_true("the survivor to serve", SERVES_WITHIN, || {
        Ok(scene.lab.serving()? == Some(scene.backup))
    })?;
    let status = agents::ask(config, scene.backup, &["status"])?;
    ensure!(
        status["generation"] == 1 && agents::alarm(&status, "forced").is_some(),
        "it is not loud: {status}"
    );
    Ok(())
}

/// Both others are back, with logs that do not count any more: they are told, stay closed, and rejoin when they are asked to.
pub(super) fn come_back(scene: Scene<'_>) -> Result<()> {
    let config = scene.lab.config.as_ref().context("only agents can be forced")?;
    let back = [scene.primary, Port::Mon];
    back.into_iter().try_for_each(|port| scene.lab.power_on(port))?;
    for port in back {
        let told = wait::until("the node that is back to be told", TOLD_WITHIN, || {
            Ok(agents::alarm(&agents::ask(config, port, &["status"])?, "outranked"))
        })?;
        ensure!(told.contains("baton rejoin"), "{} says {told}", port.name());
    }
    ensure!(scene.lab.serving()? == Some(scene.backup), "somebody else serves");
    // Any node takes the command: one where it is, the other at the survivor.
    let orders: [(Port, &[&str]); 2] =
        [(scene.primary, &["rejoin", "--yes"]), (scene.backup, &["rejoin", Port::Mon.name(), "--yes"])];
    for (at, order) in orders {
        let (code, said) = agents::order(config, at, order)?;
        scene.lab.tell(&said);
        ensure!(code == 0, "{order:?} at {} ended with {code}: {said}", at.name());
    }
    attached(scene, config)?;
    let history = agents::ask(config, Port::Mon, &["history"])?;
    let forced = history["forced"].as_array().and_then(|forced| forced.last()).cloned().unwrap_or_default();
    ensure!(
        forced["reason"] == "fire in rack 1" && forced["loss_accepted"] == true,
        "the history has {forced}"
    );
    Ok(())
}

/// The old holder follows, or is resynced; then nothing is loud any more.
fn attached(scene: Scene<'_>, config: &std::path::Path) -> Result<()> {
    back::whole(scene.lab, WHOLE_WITHIN)?;
    wait::until_true("nothing to be loud any more", WHOLE_WITHIN, || {
        let status = agents::ask(config, scene.backup, &["status"])?;
        ensure!(status["ok"] == true && agents::alarm(&status, "forced").is_none(), "{}", status["sentence"]);
        Ok(true)
    })
}
