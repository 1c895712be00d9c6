//! A fence hook: it runs on the new holder before anything else is done, and what it says is kept. While it fails nobody takes
//! over.
//!
//! Needs root and the program `baton`, built before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton_tests::drill;
use baton_tests::lab::wire::VIP;
use baton_tests::lab::{Driver, Lab, Options, Port, agents, database, redis, turn, wait};
use serde_json::Value;

/// How long a takeover may take to begin and to end.
const WITHIN: Duration = Duration::from_secs(60);
/// The same after failed ones: the leader may wait for a minute.
const AFTER_FAILURES_WITHIN: Duration = Duration::from_secs(150);
/// A power switch that does not answer while a file is there. It is slow then, so that the leader does not give up before
/// somebody has looked.
const HOOK: &str = "[hooks]\nfence = ['/bin/sh', '-c', '\
     echo fence $BATON_FROM for $BATON_TO, epoch $BATON_EPOCH, run $BATON_RUN; \
     if test -e {lab}/unplugged; then sleep 1; echo no answer from the switch; exit 7; fi']";

/// The first takeover since this epoch that has ended so, as the agent at a node tells it.
fn ended(lab: &Lab, at: Port, since: u64, result: &str, within: Duration) -> Result<Value> {
    wait::until(&format!("a takeover that is {result}"), within, || {
        let history = agents::ask(lab.config.as_ref().context("agents")?, at, &["history"])?;
        let runs = history["runs"].as_array().with_context(|| format!("no runs in {history}"))?;
        let found = runs.iter().find(|run| run["epoch"].as_u64() > Some(since) && run["result"] == result);
        found.cloned().with_context(|| history.to_string()).map(Some)
    })
}

/// What the hook says in this run.
fn words(run: &Value, from: Port, to: Port) -> String {
    let (epoch, number) = (&run["epoch"], &run["number"]);
    format!("fence {} for {}, epoch {epoch}, run {number}", from.name(), to.name())
}

fn step<'a>(run: &'a Value, name: &str) -> Result<&'a Value> {
    let steps = run["steps"].as_array().context("a run has steps")?;
    steps.iter().find(|step| step["step"] == name).with_context(|| format!("no {name} in {run}"))
}

/// Neither the address nor a database that takes writes.
fn is_closed(lab: &Lab, port: Port) -> Result<()> {
    let host = lab.host(port);
    ensure!(!lab.wire.has_address(port, VIP)?, "{} has the virtual address", port.name());
    let read_only = database::value(&host.mysql(), "SELECT @@global.read_only")?;
    ensure!(read_only == "1", "MySQL on {} takes writes", port.name());
    let role = redis::replication(&host.redis(), "role")?;
    ensure!(role == "slave", "Redis on {} is a {role}", port.name());
    Ok(())
}

#[test]
fn nobody_takes_over_before_the_fence_hook_has_succeeded_and_its_words_are_kept() -> Result<()> {
    let _turn = turn::beside_another().expect("a place for a lab");
    let driver = Driver::Agents { profile: "standard".into() };
    let lab = Lab::up(Options { drill_keys: HOOK.into(), ..Options::plain(driver) })?;
    drill::whole(&lab)?;
    let before = lab.standing()?;
    let old = before.holder.context("nobody holds the baton")?;
    let new = if old == Port::Db1 { Port::Db2 } else { Port::Db1 };

    let unplugged = lab.dir.join("unplugged");
    std::fs::write(&unplugged, [])?;
    lab.power_off(old)?;
    let failed = ended(&lab, new, before.epoch, "rolled-back", WITHIN).inspect_err(|_| lab.keep())?;
    is_closed(&lab, new)?;
    let why = failed["failure"].as_str().context("no reason")?;
    let says = |part: &str| why.contains(part);
    ensure!(why.starts_with("fence_old: the fence hook failed") && says("code: 7"), "{why}");
    ensure!(says(&words(&failed, old, new)) && says("no answer from the switch"), "{why}");
    ensure!(step(&failed, "fence_old")?["attempts"] == 2, "{failed}");
    let steps = failed["steps"].as_array().context("a run has steps")?;
    let begun = steps.iter().filter(|step| step["state"] != "pending").count();
    ensure!(begun == 1, "nothing but the hook was begun: {failed}");

    std::fs::remove_file(&unplugged)?;
    let done = ended(&lab, new, before.epoch, "completed", AFTER_FAILURES_WITHIN);
    let done = done.inspect_err(|_| lab.keep())?;
    wait::until_true("the new holder to serve", WITHIN, || Ok(lab.serving()? == Some(new)))?;
    let number = done["number"].to_string();
    let config = lab.config.as_ref().context("agents")?;
    let shown = agents::ask(config, new, &["history", &number])?;
    let facts = &step(&shown, "fence_old")?["facts"];
    ensure!(facts["fence"] == "hook done", "{facts}");
    let kept = facts["hook_output"].as_str().context("no words of the hook")?;
    // The node to be fenced is the same one, however often it was tried before.
    ensure!(kept.trim() == words(&done, old, new), "{kept}");
    Ok(())
}
