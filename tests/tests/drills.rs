//! Drills on real servers: what passes, what is refused, and that nothing is left when the one who drills dies.
//!
//! They run one after the other, also with the other tests of the lab. They need root and the programs `baton` and
//! `baton-drill`, built before. `BATON_DRILL_KILLS` says how often the runner is killed (4), `BATON_FLAVOUR`
//! on which database (`mariadb`, or `mysql`).

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton_chaos::verdict::Verdict;
use baton_node::api::drill::{DrillId, DrillOrder, FaultKind, FaultSpec};
use baton_node::config::DrillLevel;
use baton_tests::drill::{self, Outcome, Restarter, SEAT};
use baton_tests::lab::{Driver, Flavour, Lab, Options, Port, wait};

/// Held for the length of a test; other test programs that measure hold the same file.
fn alone() -> File {
    assert!(nix::unistd::geteuid().is_root(), "the lab needs root");
    let file = File::create("/tmp/baton-lab.lock").expect("the lock file can be made");
    file.lock().expect("the lock can be had");
    file
}

fn lab(allow: &'static str) -> Result<Lab> {
    let driver = Driver::Agents { profile: "standard".into() };
    let flavour = Flavour::of_environment()?;
    let lab = Lab::up(Options { flavour, drills: allow, resync_by_itself: true, ..Options::plain(driver) })?;
    drill::whole(&lab)?;
    Ok(lab)
}

/// The drill passed, its evidence verifies against the head that the ledger holds, and nothing is left.
fn passed(lab: &Lab, outcome: &Outcome) -> Result<()> {
    let record = outcome.record.as_ref().with_context(|| format!("no record: {}", outcome.said))?;
    let text = format!("{}\n{:#?}\n{:#?}", outcome.said, record.judgement, record.faults);
    println!("{text}");
    ensure!(record.judgement.verdict.is_pass() && outcome.code == 0, "{text}");
    drill::whole(lab).context("after the drill")?;
    let (code, said) = drill::verb(lab, SEAT, &["verify"])?;
    ensure!(code == 0, "the evidence does not verify: {said}");
    Ok(())
}

#[test]
fn a_rehearsal_passes_and_changes_nothing() -> Result<()> {
    let _alone = alone();
    let lab = lab("L1")?;
    let before = lab.standing()?;
    let outcome = drill::run(&lab, SEAT, "rehearsal")?;
    passed(&lab, &outcome)?;
    ensure!(lab.standing()?.epoch == before.epoch, "the holder changed");
    let view = drill::order(&lab, SEAT, DrillOrder::Look)?;
    ensure!(view.drills == DrillId(0), "the ledger has a drill");
    Ok(())
}

#[test]
fn a_switchover_drill_passes_and_the_ledger_has_its_head() -> Result<()> {
    let _alone = alone();
    let lab = lab("L2")?;
    let outcome = drill::run(&lab, SEAT, "switchover-and-back")?;
    passed(&lab, &outcome)?;
    let record = outcome.record.context("checked before")?;
    ensure!(record.holder_changes == 2, "{} changes", record.holder_changes);
    let view = drill::order(&lab, SEAT, DrillOrder::Look)?;
    let ended = view.ended.last().context("the ledger has no drill")?;
    ensure!(ended.evidence.len() == 64 && ended.verdict == record.judgement.verdict.name(), "{ended:?}");
    Ok(())
}

#[test]
fn a_killed_database_passes() -> Result<()> {
    let _alone = alone();
    let lab = lab("L3")?;
    let restarter = Restarter::of_mysql(&lab, Port::Db1)?;
    let outcome = drill::run(&lab, SEAT, "mysqld-killed")?;
    restarter.done()?;
    passed(&lab, &outcome)
}

#[test]
fn a_frozen_agent_passes() -> Result<()> {
    let _alone = alone();
    let lab = lab("L3")?;
    let outcome = drill::run(&lab, SEAT, "agent-frozen")?;
    passed(&lab, &outcome)
}

#[test]
fn an_isolated_holder_passes() -> Result<()> {
    let _alone = alone();
    let lab = lab("L4")?;
    let outcome = drill::run(&lab, SEAT, "holder-isolated")?;
    passed(&lab, &outcome)
}

#[test]
fn a_node_refuses_what_is_above_its_level_whoever_asks() -> Result<()> {
    let _alone = alone();
    let lab = lab("L2")?;
    let outcome = drill::run(&lab, SEAT, "mysqld-killed")?;
    ensure!(outcome.code == 2, "{}: {}", outcome.code, outcome.said);
    let verdict = outcome.record.as_ref().map(|record| record.judgement.verdict);
    ensure!(verdict == Some(Verdict::Refused), "{verdict:?}: {}", outcome.said);
    // One who does not look at the gate is refused by the agents themselves.
    let begin = |level| DrillOrder::Begin {
        number: DrillId(1),
        name: "by-hand".into(),
        experiment: String::new(),
        level,
        lease_ms: 10_000,
    };
    ensure!(drill::order(&lab, SEAT, begin(DrillLevel::L3)).is_err(), "a deeper drill was begun");
    drill::order(&lab, SEAT, begin(DrillLevel::L2))?;
    let fault = FaultSpec {
        kind: FaultKind::MysqldKill,
        duration_ms: 1_000,
        peers: Vec::new(),
        service: None,
        leave_mib: None,
        kib_per_second: None,
    };
    let number = DrillId(1);
    let armed = drill::order(&lab, Port::Db1, DrillOrder::Arm { number, fault });
    let refusal = armed.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refusal.contains("db1 allows drills up to L2"), "{refusal}");
    ensure!(drill::order(&lab, Port::Db1, DrillOrder::Inject { number }).is_err(), "it was injected");
    // Nobody renews it: the agents end it.
    drill::whole(&lab).context("the drill that nobody runs")?;
    ensure!(lab.host(Port::Db1).process("mysqld")?.pid().is_some(), "the server is gone");
    Ok(())
}

/// The runner is killed at instants spread over all of a drill; each time the agents heal what it left.
#[test]
fn a_killed_runner_leaves_nothing() -> Result<()> {
    let _alone = alone();
    let kills: u64 = std::env::var("BATON_DRILL_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let lab = lab("L4")?;
    let drills = ["holder-isolated", "agent-frozen", "mysqld-frozen"];
    for round in 0..kills {
        let name = drills[usize::try_from(round)? % drills.len()];
        let mut runner = drill::begin(&lab, SEAT, name)?;
        // From before the gate until the fault has stood for a while.
        let after = Duration::from_millis(rand::random::<u64>() % 12_000);
        wait::pass(after)?;
        runner.kill()?;
        runner.wait()?;
        let seen = drill::left(&lab).map_or_else(|error| error.to_string(), |left| left.join("; "));
        println!("{name} killed after {} ms: {seen}", after.as_millis());
        drill::whole(&lab).with_context(|| format!("{name}, killed after {} ms", after.as_millis()))?;
    }
    Ok(())
}
