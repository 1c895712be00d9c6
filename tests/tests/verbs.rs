//! The operator's verbs at the command line: how they end, and what an interrupt does.
//!
//! Needs root and the program `baton`, built before.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton_tests::drill;
use baton_tests::fault::USUAL_SWITCHOVER_STEP;
use baton_tests::lab::{DATA, Driver, Lab, Options, Port, agents, database, turn, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WITHIN: Duration = Duration::from_secs(60);

fn up() -> Result<Lab> {
    let driver = Driver::Agents { profile: "standard".into() };
    let lab = Lab::up(Options { failpoints: true, ..Options::plain(driver) })?;
    drill::whole(&lab)?;
    Ok(lab)
}

fn run_under_way(lab: &Lab) -> Result<Option<u64>> {
    let config = lab.config.as_ref().context("a lab with agents has their configuration")?;
    Ok(agents::ask(config, Port::Mon, &["status"])?["run"]["number"].as_u64())
}

#[test]
fn an_interrupted_command_leaves_its_run_to_the_agents() -> Result<()> {
    let _turn = turn::beside_another().expect("a place for a lab");
    let lab = up()?;
    let config = lab.config.as_ref().context("a lab with agents has their configuration")?;
    let before = lab.standing()?;
    lab.arm(Port::Db2, &format!("{USUAL_SWITCHOVER_STEP}:hold"))?;
    let mut command = agents::begin_switchover(config, Port::Mon)?;
    wait::until_true("the switchover to be held", WITHIN, || Ok(lab.has_struck()))?;
    let number = run_under_way(&lab)?.context("no run is under way")?;
    // What it has shown it has followed.
    let mut words = BufReader::new(command.stderr.take().context("it speaks")?);
    let mut said = String::new();
    while !said.contains("prepare_target     done") {
        ensure!(words.read_line(&mut said)? > 0, "no step is shown: {said}");
    }

    kill(Pid::from_raw(i32::try_from(command.id())?), Signal::SIGINT)?;
    words.read_to_string(&mut said)?;
    let code = command.wait()?.code();
    ensure!(code == Some(6), "{code:?}: {said}");
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in [format!("run {number} goes on"), format!("`baton run abort {number}`")] {
        ensure!(line.contains(&word), "it does not say {word}: {said}");
    }
    ensure!(run_under_way(&lab)? == Some(number), "the run does not go on");

    lab.disarm()?;
    wait::until_true("the run to end", WITHIN, || Ok(run_under_way(&lab)?.is_none()))?;
    let after = lab.standing()?;
    ensure!((after.holder, after.epoch) == (Some(Port::Db2), before.epoch + 1), "{}", after.text);
    Ok(())
}

/// The point of no return fails at every attempt. Nobody serves then, and no other order is obeyed, until somebody has looked.
#[test]
fn a_run_that_needs_an_operator_stays_closed_until_it_is_acknowledged() -> Result<()> {
    let _turn = turn::beside_another().expect("a place for a lab");
    let lab = up()?;
    let config = lab.config.as_ref().context("a lab with agents has their configuration")?;
    let before = lab.standing()?;
    lab.arm(Port::Db2, "open_ports:started:fail-always")?;
    let (code, said) = agents::order(config, Port::Mon, &["switchover", "--yes"])?;
    ensure!(code == 4, "the switchover ended with {code}: {said}");
    let number = run_under_way(&lab)?.context("the run is not kept for the operator")?.to_string();
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in [format!("run {number} stopped"), format!("`baton run ack {number}`")] {
        ensure!(line.contains(&word), "it does not say {word}: {said}");
    }

    wait::until_true("both databases to refuse writes", WITHIN, || {
        for port in DATA {
            if database::value(&lab.host(port).mysql(), "SELECT @@global.read_only")? != "1" {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    ensure!(lab.serving()?.is_none(), "somebody serves");
    let (code, said) = agents::order(config, Port::Mon, &["switchover", "--yes"])?;
    ensure!(code == 2 && said.contains("NO no-run"), "another switchover ended with {code}: {said}");

    lab.disarm()?;
    let (code, said) = agents::order(config, Port::Mon, &["run", "ack", &number, "--yes"])?;
    ensure!(code == 0, "baton run ack ended with {code}: {said}");
    wait::until_true("the new holder to serve", WITHIN, || Ok(lab.serving()? == Some(Port::Db2)))?;
    let after = lab.standing()?;
    ensure!((after.holder, after.epoch) == (Some(Port::Db2), before.epoch + 2), "{}", after.text);
    Ok(())
}

#[test]
fn exit_codes_are_those_that_are_published() -> Result<()> {
    let _turn = turn::beside_another().expect("a place for a lab");
    let lab = up()?;
    let config = lab.config.as_ref().context("a lab with agents has their configuration")?;
    let ends = |at: Port, verb: &[&str], wanted: i32| -> Result<String> {
        let (code, said) = agents::order(config, at, verb)?;
        ensure!(code == wanted, "{verb:?} at {} ended with {code}: {said}", at.name());
        Ok(said)
    };
    for node in agents::NODES {
        ends(node, &["status"], 0)?;
        ends(node, &["explain"], 0)?;
        let said = ends(node, &["switchover", "--dry-run"], 0)?;
        ensure!(said.contains("3 of 3 agents heard"), "it does not say who is heard: {said}");
    }
    ends(Port::Db1, &["switch-over"], 1)?;
    ends(Port::Db1, &["switchover", "--drain-patience", "soon"], 1)?;
    ends(Port::Db1, &["history", "4711"], 1)?;
    ends(Port::Mon, &["switchover", "--yes", "--to", "db1"], 2)?;
    ends(Port::Mon, &["switchover", "--yes", "--to", "mon"], 2)?;

    lab.arm(Port::Db2, &format!("{USUAL_SWITCHOVER_STEP}:hold"))?;
    ends(Port::Db1, &["switchover", "--yes", "--timeout", "1s"], 6)?;
    lab.disarm()?;
    wait::until_true("the run to end", WITHIN, || Ok(run_under_way(&lab)?.is_none()))?;

    // Two agents are gone: the third cannot agree with anybody, and at the others nobody is to be asked.
    for port in [Port::Db1, Port::Mon] {
        let agent = lab.host(port).process("agent")?;
        agent.hold()?;
        agent.signal(Signal::SIGKILL)?;
        wait::until_true("the agent to end", WITHIN, || Ok(agent.pid().is_none()))?;
    }
    let said = ends(Port::Mon, &["status"], 5)?;
    ensure!(said.contains("systemctl"), "no way out is named: {said}");
    ends(Port::Db2, &["pause", "--for", "1m", "--reason", "test", "--yes"], 5)?;
    Ok(())
}
