//! Something real happens while a drill goes on: it wins. What of the drill stands in the way of a takeover is healed first,
//! nothing is lost, and the drill says that it was no pass.
//!
//! They run one after the other, also with the other tests of the lab. They need root and the programs `baton` and
//! `baton-drill`, built before.

use std::process::Child;

use anyhow::{Context, Result, ensure};
use baton_chaos::evidence::Record;
use baton_chaos::history::Kind;
use baton_chaos::verdict::Verdict;
use baton_node::api::drill::{DrillOrder, FaultKind, FaultPhase};
use baton_tests::drill::{self, SEAT};
use baton_tests::lab::{DATA, Driver, Lab, Options, Port, turn, wait};

fn up(drills: &'static str) -> Result<Lab> {
    let driver = Driver::Agents { profile: "standard".into() };
    let lab = Lab::up(Options { drills, resync_by_itself: true, ..Options::plain(driver) })?;
    drill::whole(&lab)?;
    Ok(lab)
}

/// The data node that serves, and the other one.
fn holder_and_backup(lab: &Lab) -> Result<(Port, Port)> {
    let holder = lab.serving()?.context("somebody serves")?;
    let backup = DATA.into_iter().find(|port| *port != holder).context("there are two data nodes")?;
    Ok((holder, backup))
}

/// Waits until the runner has said these words.
fn wait_said(lab: &Lab, runner: &mut Child, words: &str) -> Result<()> {
    let said = || std::fs::read_to_string(lab.dir.join("drill.log"));
    let mut ended = None;
    wait::until_true(words, wait::EVERY * 3_000, || {
        ended = runner.try_wait()?;
        Ok(ended.is_some() || said()?.contains(words))
    })?;
    ensure!(ended.is_none(), "the drill has ended ({ended:?}): {}", said()?);
    Ok(())
}

/// The end of a drill with this verdict, after which no acknowledged write is missing and every fault was seen to be healed.
fn ended_as(lab: &Lab, mut runner: Child, verdict: Verdict) -> Result<Record> {
    let code = runner.wait()?.code();
    let record = drill::newest_record(lab, SEAT)?;
    println!("{:?}\n{:#?}", record.judgement, record.faults);
    ensure!(code == Some(i32::from(verdict.exit_code())), "{code:?}: {:?}", record.judgement);
    ensure!(record.judgement.verdict == verdict, "{:?}", record.judgement);
    for client in &record.clients {
        println!("{}: outage {} ms, {} lost", client.kind, client.outage_ms, client.lost);
    }
    let mysql =
        record.clients.iter().find(|client| client.kind == Kind::Mysql).context("MySQL was measured")?;
    ensure!(!mysql.unread && mysql.lost == 0, "{} lost, unread: {}", mysql.lost, mysql.unread);
    let unhealed = record.faults.iter().find(|fault| fault.heal_verified_ms.is_none());
    ensure!(unhealed.is_none(), "{unhealed:?}");
    Ok(record)
}

/// Between two planned moves the new holder loses its power: a run that no method explains.
#[test]
fn a_holder_that_really_dies_between_two_moves_interrupts_the_drill() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = up("L2")?;
    let (first, _) = holder_and_backup(&lab)?;
    let longer = [("delay = \"5s\"", "delay = \"60s\"")];
    let mut runner = drill::begin(&lab, SEAT, &drill::altered(&lab, "switchover-and-back", &longer)?)?;
    wait_said(&lab, &mut runner, "redundancy is back")?;
    let (holder, backup) = holder_and_backup(&lab)?;
    ensure!(backup == first, "the baton was not passed");
    lab.power_off(holder)?;
    ensure!(lab.wait_serving()? == backup, "{} does not serve", backup.name());
    let record = ended_as(&lab, runner, Verdict::Interrupted)?;
    let why = record.judgement.reasons.join("; ");
    let run = format!("takeover from {} to {}", holder.name(), backup.name());
    ensure!(why.contains(&run) && why.contains("none of the drill's"), "{why}");
    ensure!(record.faults.len() == 1, "the second move was begun");
    lab.power_on(holder)?;
    drill::whole(&lab).context("after the drill")
}

/// `data-nodes-cut`, between other nodes: the backup and the witness, without whom nobody can take over when the holder dies.
const OTHER_PAIR: [(&str, &str); 3] = [
    ("[targets.holder]\nrole = \"holder\"", "[targets.witness]\nrole = \"witness\""),
    ("target = \"holder\"\npeer = \"backup\"", "target = \"backup\"\npeer = \"witness\""),
    (
        "[slo.outage]\nmysql = \"10s\"\nredis = \"10s\"",
        // A takeover, and before it the heal: the backup is to see first that nobody serves.
        "[slo.outage]\nmysql = \"20s\"\nredis = \"20s\"",
    ),
];

/// The fault stands in the way of the takeover, and the node that bears it heals it before its time, told by nobody.
#[test]
fn a_backup_that_a_drill_has_cut_off_heals_itself_and_takes_over_when_the_holder_really_dies() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = up("L4")?;
    let (holder, backup) = holder_and_backup(&lab)?;
    let mut runner = drill::begin(&lab, SEAT, &drill::altered(&lab, "data-nodes-cut", &OTHER_PAIR)?)?;
    drill::wait_biting(&lab, &mut runner)?;
    // Until then the answer to its order is under way.
    wait_said(&lab, &mut runner, "partition-pair bites")?;
    ensure!(lab.serving()? == Some(holder), "the cut has moved the baton");
    lab.power_off(holder)?;
    ensure!(lab.wait_serving()? == backup, "{} does not serve", backup.name());
    let fault = drill::order(&lab, backup, DrillOrder::Look)?.fault.context("the backup bore a fault")?;
    println!("{}", fault.healed);
    ensure!(fault.spec.kind == FaultKind::Partition && fault.phase == FaultPhase::Healed, "{fault:?}");
    ensure!(fault.healed.contains("nobody was heard serving"), "{}", fault.healed);
    // The cut leaves the holder alone, so its loss, and the takeover, are nothing of the drill's.
    let record = ended_as(&lab, runner, Verdict::Interrupted)?;
    let why = record.judgement.reasons.join("; ");
    let run = format!("takeover from {} to {}", holder.name(), backup.name());
    ensure!(why.contains(&run) && why.contains("none of the drill's"), "{why}");
    lab.power_on(holder)?;
    drill::whole(&lab).context("after the drill")
}
