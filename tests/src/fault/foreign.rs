//! A machine that is no node of Baton's takes the virtual IP.
//!
//! It is the observer's host. The ARP watch that stands there does not hear its own host, so what it hears is still the nodes' alone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Scene, back};
use crate::lab::wire::VIP;
use crate::lab::{Lab, Port, agents, wait};

/// Where the address is taken.
const STRANGER: Port = Port::Observer;
/// How long every agent may take to tell: two looks, 5 s apart, and a busy machine.
const HEARD_WITHIN: Duration = Duration::from_secs(30);
/// How long a client that has forgotten the primary may take to ask anew.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// So many takeovers to one node come to nothing within a minute; the next one waits.
const REFUSED: usize = 3;
/// What is left of that minute once the address is free, and a takeover.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(90);
/// How long the agents may take to say that all is well with the address.
const QUIET_WITHIN: Duration = Duration::from_secs(30);
/// How long the cluster may take to be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);

/// The address is taken while the primary serves, which it goes on doing. Once every agent tells of it the primary loses power, and
/// clients do not find it any more.
pub(super) fn take_vip(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, .. } = scene;
    let before = lab.standing()?;
    lab.wire.add_address(STRANGER, VIP)?;
    agents::NODES.into_iter().try_for_each(|port| is_heard(lab, port))?;
    let now = lab.standing()?;
    let is_as_before = (now.holder, now.epoch) == (before.holder, before.epoch);
    ensure!(is_as_before && lab.serving()? == Some(primary), "before: {}\nnow: {}", before.text, now.text);
    lab.power_off(primary)?;
    lab.wire.forget_neighbour(Port::Client, VIP)
}

/// A takeover would stop, and that is said before there is one.
fn is_heard(lab: &Lab, port: Port) -> Result<()> {
    let status = wait::until("an agent to tell of the stranger", HEARD_WITHIN, || {
        let status = status(lab, port)?;
        Ok(agents::alarm(&status, "vip-contested").is_some().then_some(status))
    })?;
    names_it(lab, &status, "vip-contested")?;
    let sentence = status["sentence"].to_string();
    ensure!(sentence.contains("would stop before the virtual IP"), "{} says {sentence}", port.name());
    Ok(())
}

fn status(lab: &Lab, port: Port) -> Result<Value> {
    agents::ask(lab.config.as_ref().context("only agents tell of a stranger")?, port, &["status"])
}

/// The alarm is there, with the stranger's hardware address.
fn names_it(lab: &Lab, status: &Value, code: &str) -> Result<()> {
    let mac = lab.wire.hardware_address(STRANGER)?;
    let told = agents::alarm(status, code).with_context(|| format!("no {code} in {status}"))?;
    ensure!(told.contains(&mac), "{code} does not name {mac}: {told}");
    Ok(())
}

/// Whoever asks for the address is sent to the stranger.
pub(super) fn is_reached(scene: Scene<'_>) -> Result<()> {
    let wire = &scene.lab.wire;
    let mac = wire.hardware_address(STRANGER)?;
    wait::until_true("clients to be sent to the stranger", ASKED_WITHIN, || {
        Ok(wire.neighbour(Port::Client, VIP)?.as_deref() == Some(&*mac))
    })
}

/// The stranger gives the address back: until then no node has had it, and then the backup takes over without an operator. The
/// primary is back as well, and all is as before.
pub(super) fn give_back_vip(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    is_refused(scene)?;
    lab.wire.remove_address(STRANGER, VIP)?;
    wait::until_true("the backup to serve", TAKEN_OVER_WITHIN, || Ok(lab.serving()? == Some(backup)))?;
    wait::until_true("the takeover to be complete", QUIET_WITHIN, || {
        let newest = runs(lab)?.pop().context("no runs in the history")?;
        ensure!(newest["result"] == "completed", "{newest}");
        Ok(true)
    })?;
    for port in [backup, Port::Mon] {
        wait::until_true("the alarms to end", QUIET_WITHIN, || {
            let status = status(lab, port)?;
            let told =
                ["vip-taken", "vip-contested"].into_iter().find_map(|code| agents::alarm(&status, code));
            ensure!(told.is_none(), "{} says {told:?}", port.name());
            Ok(true)
        })?;
    }
    lab.power_on(primary)?;
    back::whole(lab, WHOLE_WITHIN).map(drop)
}

/// Nobody took the address beside the stranger: each takeover was taken back, and says who was there.
fn is_refused(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    for port in [primary, backup] {
        ensure!(!lab.wire.has_address(port, VIP)?, "{} has the address beside the stranger", port.name());
    }
    for port in [backup, Port::Mon] {
        names_it(lab, &status(lab, port)?, "vip-taken")?;
    }
    let mac = lab.wire.hardware_address(STRANGER)?;
    let runs = runs(lab)?;
    let is_taken_back = |run: &&Value| run["runbook"] == "takeover" && run["result"] == "rolled-back";
    let refused: Vec<&Value> = runs.iter().rev().take_while(is_taken_back).collect();
    ensure!(refused.len() == REFUSED, "{} takeovers were taken back: {runs:?}", refused.len());
    for run in refused {
        let failure = run["failure"].to_string();
        ensure!(
            failure.contains("hold_vip") && failure.contains(&mac),
            "it does not say who was there: {run}"
        );
    }
    Ok(())
}

fn runs(lab: &Lab) -> Result<Vec<Value>> {
    let config = lab.config.as_ref().context("only agents have a history")?;
    let history = agents::ask(config, Port::Mon, &["history"])?;
    history["runs"].as_array().cloned().context("no runs in the history")
}
