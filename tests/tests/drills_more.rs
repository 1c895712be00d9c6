//! Drills that need more than servers: certificates, a container engine, a hook that cuts the power, a dead agent, a schedule.
//!
//! They run one after the other, also with the other tests of the lab. They need root and the programs `baton` and
//! `baton-drill`, built before.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use baton_chaos::schedule::Obstacle;
use baton_chaos::timetable::{self, Note, What};
use baton_chaos::verdict::Verdict;
use baton_node::api::drill::{DrillOrder, FaultKind, FaultPhase};
use baton_tests::drill::{self, Outcome, SEAT, passed};
use baton_tests::lab::{Driver, Lab, Options, Port, agents, docker, turn, wait};
use jiff::{SignedDuration, Zoned};
use nix::sys::signal::Signal;

fn plain() -> Options {
    Options { resync_by_itself: true, ..Options::plain(Driver::Agents { profile: "standard".into() }) }
}

fn up(options: Options) -> Result<Lab> {
    let lab = Lab::up(options)?;
    drill::whole(&lab)?;
    Ok(lab)
}

/// The reasons of a drill that ended with this verdict.
fn reasons(outcome: &Outcome, verdict: Verdict) -> Result<String> {
    let judgement = &outcome.record.as_ref().with_context(|| outcome.said.clone())?.judgement;
    println!("{judgement:?}");
    ensure!(judgement.verdict == verdict, "{judgement:?}\n{}", outcome.said);
    ensure!(outcome.code == i32::from(verdict.exit_code()), "{}", outcome.code);
    Ok(judgement.reasons.join("; "))
}

#[test]
fn certificates_pass_until_one_ends_soon_or_a_node_cannot_be_asked() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = up(Options { drills: "L1", ..plain() })?;
    passed(&lab, &drill::run(&lab, SEAT, "certificates")?)?;

    agents::renew(&lab.dir, Port::Db2, 10)?;
    passed(&lab, &drill::run(&lab, SEAT, "certificates")?).context("the old one is still in use")?;
    let agent = lab.host(Port::Db2).process("agent")?;
    let starts = agent.starts();
    agent.signal(Signal::SIGKILL)?;
    wait::until_true("the agent of db2 to be started again", wait::EVERY * 600, || {
        Ok(agent.starts() > starts)
    })?;
    let config = lab.config.as_ref().context("a lab with agents has their configuration")?;
    wait::until_true("every node to tell whose certificate ends", wait::EVERY * 600, || {
        for asked in [Port::Db1, Port::Db2, Port::Mon] {
            let status = agents::ask(config, asked, &["status"])?;
            let told = agents::alarm(&status, "certificate-ends").is_some_and(|text| text.contains("db2"));
            if !told || status["sync"]["state"] != "in-sync" {
                bail!("{status}");
            }
        }
        Ok(true)
    })?;
    let short = drill::run(&lab, SEAT, "certificates")?;
    let why = reasons(&short, Verdict::Fail)?;
    ensure!(why.contains("no certificate ends soon (after): "), "{why}");

    lab.kill_driver(Port::Db1)?;
    let silent = drill::run(&lab, SEAT, "certificates")?;
    // Whether it counts as silent already is a matter of half a second.
    let record = silent.record.context(silent.said)?;
    println!("{:?}", record.judgement);
    let verdict = record.judgement.verdict;
    ensure!(matches!(verdict, Verdict::Fail | Verdict::Inconclusive), "{:?}", record.judgement);
    ensure!(record.faults[0].effect.contains("db1: does not answer"), "{:?}", record.faults);
    Ok(())
}

/// The service is held down for a minute: the engine notices, the holder waits, the baton moves, and stays.
#[test]
fn a_service_that_never_gets_healthy_moves_the_baton_once() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = up(Options { drills: "L3", docker: true, ..plain() })?;
    let healthy = || docker::health(&lab.host(Port::Db1).dir);
    wait::until_true("the service to be healthy", wait::EVERY * 3_000, || Ok(healthy()? == "healthy"))?;
    // The engine says it first; the gate of the drill asks the agents.
    let config = lab.config.as_ref().context("a lab with agents has their configuration")?;
    wait::until_true("the agents to have seen that", wait::EVERY * 600, || {
        let status = agents::ask(config, SEAT, &["status"])?;
        let rows = status["nodes"].as_array().context("no nodes")?.iter();
        let services: Vec<_> = rows.filter_map(|row| row["services"].as_array()).flatten().collect();
        Ok(!services.is_empty() && services.iter().all(|service| service["state"] == "healthy"))
    })?;
    let shorter = [("\"2m\"", "\"75s\""), ("\"60s\"", "\"30s\"")];
    let drill = drill::altered(&lab, "container-never-healthy", &shorter)?;
    let outcome = std::thread::scope(|scope| -> Result<Outcome> {
        let running = scope.spawn(|| drill::run(&lab, SEAT, &drill));
        // Somebody restarts it: that must not mend it.
        let unhealthy = || Ok(running.is_finished() || healthy()? == "unhealthy");
        wait::until_true("the service to be unhealthy", wait::EVERY * 3_000, unhealthy)?;
        docker::ask(&lab.host(Port::Db1).dir, &["restart", "-t", "1", docker::CONTAINER])?;
        wait::until_true("the service to be unhealthy again", wait::EVERY * 3_000, unhealthy)?;
        running.join().map_err(|_| anyhow::anyhow!("the drill's thread died"))?
    })?;
    passed(&lab, &outcome)?;
    let record = outcome.record.context("checked before")?;
    ensure!(record.holder_changes == 1, "{} changes of holder", record.holder_changes);
    let effect = &record.faults[0].effect;
    ensure!(effect.contains("the engine says that web is unhealthy"), "{effect}");
    ensure!(lab.serving()? == Some(Port::Db2), "the baton is not on db2");
    Ok(())
}

/// The hook only asks for it: who cuts the power is the lab, as a switch on the network would.
const ASK: &str = r#"power_off = ["/bin/sh", "-c", "echo asked >{lab}/{node}/power-off && exec sleep 60"]"#;

#[test]
fn a_holder_whose_power_is_cut_is_replaced_and_comes_back() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = up(Options { drills: "L5", drill_keys: ASK.into(), ..plain() })?;
    let shorter = [("\"2m\"", "\"20s\""), ("\"1h\"", "\"3m\"")];
    let drill = drill::altered(&lab, "power-cut", &shorter)?;
    let outcome = std::thread::scope(|scope| -> Result<Outcome> {
        let running = scope.spawn(|| drill::run(&lab, SEAT, &drill));
        let asked = lab.host(Port::Db1).dir.join("power-off");
        wait::until_true("the hook to ask", wait::EVERY * 3_000, || {
            Ok(running.is_finished() || asked.exists())
        })?;
        if asked.exists() {
            lab.power_off(Port::Db1)?;
            wait::pass(Duration::from_secs(15))?;
            lab.power_on(Port::Db1)?;
        }
        running.join().map_err(|_| anyhow::anyhow!("the drill's thread died"))?
    })?;
    passed(&lab, &outcome)?;
    let record = outcome.record.context("checked before")?;
    ensure!(record.holder_changes == 1, "{} changes of holder", record.holder_changes);
    let effect = &record.faults[0].effect;
    ensure!(effect.contains("neither of 2 other agents hears db1"), "{effect}");
    Ok(())
}

/// The watchdog lives, the agent that would tell it does not: the next agent reads the note and heals at once.
#[test]
fn an_agent_that_is_killed_while_its_database_is_frozen_is_followed_by_one_that_thaws_it() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = up(Options { drills: "L3", ..plain() })?;
    let holder = lab.serving()?.context("somebody serves")?;
    let agent = lab.host(holder).process("agent")?;
    // Long enough that its time is not over when the next agent is there.
    let longer = [("duration = \"20s\"", "duration = \"60s\"")];
    let mut runner = drill::begin(&lab, SEAT, &drill::altered(&lab, "mysqld-frozen", &longer)?)?;
    drill::wait_biting(&lab, &mut runner)?;
    ensure!(!drill::stopped(&lab, holder).is_empty(), "nothing is stopped on {}", holder.name());
    // Until then the answer to its order is under way.
    wait::until_true("the runner to have seen it", wait::EVERY * 600, || {
        Ok(std::fs::read_to_string(lab.dir.join("drill.log"))?.contains("mysqld-freeze bites"))
    })?;
    let starts = agent.starts();
    agent.signal(Signal::SIGKILL)?;
    let fault = wait::until("the next agent to have healed what it found", wait::EVERY * 1_500, || {
        let fault = drill::order(&lab, holder, DrillOrder::Look)?.fault;
        Ok(fault.filter(|fault| agent.starts() > starts && fault.phase == FaultPhase::Healed))
    })?;
    println!("{}", fault.healed);
    ensure!(fault.spec.kind == FaultKind::MysqldFreeze, "{fault:?}");
    ensure!(fault.healed.contains("the agent was started again"), "{}", fault.healed);
    let stopped = drill::stopped(&lab, holder);
    ensure!(stopped.is_empty(), "{stopped:?} are stopped on {}", holder.name());
    // The drill would go on for a minute, and nothing stands any more.
    let (code, said) = drill::verb(&lab, SEAT, &["abort"])?;
    ensure!(code == 0, "{said}");
    ensure!(runner.wait()?.code() == Some(i32::from(Verdict::Aborted.exit_code())));
    drill::whole(&lab).context("after the drill")
}

/// Hours from now, as a timetable writes them.
fn hours(from: i64, to: i64) -> String {
    let at = |hours: i64| (Zoned::now() + SignedDuration::from_hours(hours)).strftime("%H:%M").to_string();
    format!("{}-{}", at(from), at(to))
}

#[test]
fn what_is_due_runs_by_itself_and_what_a_node_does_not_allow_now_is_skipped_with_its_reason() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let (open, closed) = (hours(-1, 2), hours(6, 7));
    let lab = up(Options { drills: "L2", drill_keys: format!("window = \"{closed}\""), ..plain() })?;
    let line = |name: &str, window: &str| {
        format!("[[drill]]\nname = \"{name}\"\nevery = \"1d\"\nwindow = \"{window}\"\ncooldown = \"0s\"\n")
    };
    let timetable = lab.dir.join("schedule.toml");
    let lines = [line("rehearsal", &open), line("switchover-and-back", &open), line("certificates", &closed)];
    std::fs::write(&timetable, lines.concat())?;
    let before = lab.standing()?;

    let mut scheduler = drill::keep_schedule(&lab, SEAT, &timetable)?;
    let diary = || timetable::diary(&lab.host(SEAT).dir.join("drills"));
    let skipped = |note: &Note| matches!(note.what, What::Skipped(_));
    let came = wait::until_true("the schedule to be worked through", wait::EVERY * 3_000, || {
        Ok(diary().iter().any(skipped) || scheduler.try_wait()?.is_some())
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(scheduler.id())?), Signal::SIGTERM)?;
    ensure!(
        scheduler.wait()?.code() == Some(0),
        "{}",
        std::fs::read_to_string(lab.dir.join("schedule.log"))?
    );
    came?;

    let notes = diary();
    println!("{notes:#?}");
    let of = |name: &str| {
        notes.iter().filter(|note| note.drill == name).map(|note| &note.what).collect::<Vec<_>>()
    };
    let record = drill::newest_record(&lab, SEAT)?;
    ensure!(record.experiment.id == "rehearsal" && record.who.operator == "schedule", "{record:?}");
    let verdict = record.judgement.verdict;
    ensure!(verdict.is_pass(), "{:?}", record.judgement);
    ensure!(of("rehearsal") == [&What::Begun, &What::Ran { record: record.number, verdict }], "{notes:?}");
    let [What::Skipped(Obstacle::NotReady { why })] = of("switchover-and-back")[..] else {
        anyhow::bail!("not skipped once: {notes:?}");
    };
    ensure!(why.contains("window") && why.contains("drills are for"), "{why}");
    ensure!(of("certificates").is_empty(), "its own window is closed: it is not due");
    let (code, said) =
        drill::verb(&lab, SEAT, &["schedule", "--timetable", &timetable.display().to_string()])?;
    ensure!(code == 0 && said.contains("skipped") && said.contains(why), "{said}");
    ensure!(lab.standing()?.epoch == before.epoch, "the holder changed");
    Ok(())
}
