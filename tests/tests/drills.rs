//! Drills on real servers: what passes, what is refused, and that nothing is left when the one who drills dies.
//!
//! They run one after the other, also with the other tests of the lab. They need root and the programs `baton` and
//! `baton-drill`, built before. `BATON_DRILL_KILLS` says how often the runner is killed (4), `BATON_FLAVOUR`
//! on which database (`mariadb`, or `mysql`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton_chaos::experiment::shipped;
use baton_chaos::verdict::Verdict;
use baton_node::api::drill::{DrillId, DrillOrder, FaultKind, FaultSpec};
use baton_node::config::DrillLevel;
use baton_tests::drill::kill::{self, Moment, Stage};
use baton_tests::drill::{self, Restarter, SEAT, passed};
use baton_tests::lab::wire::{INTERFACE, VIP};
use baton_tests::lab::{DATA, Driver, Flavour, Lab, Options, Port, agents, database, shell, turn, wait};

fn lab(allow: &'static str) -> Result<Lab> {
    let driver = Driver::Agents { profile: "standard".into() };
    let flavour = Flavour::of_environment()?;
    let lab = Lab::up(Options { flavour, drills: allow, resync_by_itself: true, ..Options::plain(driver) })?;
    drill::whole(&lab)?;
    Ok(lab)
}

#[test]
fn a_rehearsal_passes_and_changes_nothing() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = lab("L1")?;
    let before = lab.standing()?;
    let outcome = drill::run(&lab, SEAT, "rehearsal")?;
    passed(&lab, &outcome)?;
    ensure!(lab.standing()?.epoch == before.epoch, "the holder changed");
    let events = outcome.record.context("checked before")?.events;
    let steps: Vec<&str> = events
        .iter()
        .map(|event| event.what.as_str())
        .filter(|what| what.starts_with("takeover step "))
        .collect();
    println!("{}", steps.join("\n"));
    ensure!(steps.len() == 9, "{steps:?}");
    // What an agent has to look at is clear only if it has looked.
    for name in ["drain_relay_log", "promote_mysql", "open_ports"] {
        let clear = format!("takeover step {name}: nothing in its way");
        ensure!(steps.iter().any(|step| step.starts_with(&clear)), "{name}: {steps:?}");
    }
    ensure!(
        !steps.iter().any(|step| step.contains("IN ITS WAY") || step.contains("does not say")),
        "{steps:?}"
    );
    let view = drill::order(&lab, SEAT, DrillOrder::Look)?;
    ensure!(view.drills == DrillId(0), "the ledger has a drill");
    Ok(())
}

#[test]
fn a_switchover_drill_passes_and_the_ledger_has_its_head() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
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
    let _turn = turn::alone().expect("a place for a lab");
    let lab = lab("L3")?;
    let restarter = Restarter::of_mysql(&lab, Port::Db1)?;
    let outcome = drill::run(&lab, SEAT, "mysqld-killed")?;
    restarter.done()?;
    passed(&lab, &outcome)
}

#[test]
fn a_frozen_agent_passes() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = lab("L3")?;
    let outcome = drill::run(&lab, SEAT, "agent-frozen")?;
    passed(&lab, &outcome)
}

#[test]
fn an_isolated_holder_passes() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = lab("L4")?;
    let outcome = drill::run(&lab, SEAT, "holder-isolated")?;
    passed(&lab, &outcome)
}

#[test]
fn a_node_refuses_what_is_above_its_level_whoever_asks() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
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

/// A switchover has no hurry: its steps wait for clients and for the other node.
const PASSED_WITHIN: Duration = Duration::from_secs(30);

/// Each agent holds to its own word for a move, too. What a drill may not, an operator may, while it is under way as well.
#[test]
fn a_node_lets_no_drill_pass_the_baton_above_its_level_whoever_asks() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = lab("L1")?;
    let (before, newest) = (lab.standing()?, drill::newest_run(&lab, SEAT)?);
    let number = DrillId(1);
    let begin = DrillOrder::Begin {
        number,
        name: "by-hand".into(),
        experiment: String::new(),
        level: DrillLevel::L1,
        lease_ms: 10_000,
    };
    drill::order(&lab, SEAT, begin)?;
    for port in agents::NODES {
        let refusal = drill::order(&lab, port, DrillOrder::MayPass { number }).err();
        let refusal = refusal.map(|error| error.to_string()).unwrap_or_default();
        ensure!(refusal.contains(&format!("{} allows drills up to L1, not L2", port.name())), "{refusal}");
    }
    let refusal = drill::pass_baton(&lab, SEAT, Some(number)).err();
    let refusal = refusal.map(|error| error.to_string()).unwrap_or_default();
    ensure!(refusal.contains("allows drills up to L1, not L2"), "{refusal}");
    let run = drill::newest_run(&lab, SEAT)?;
    ensure!(run == newest, "run {} was begun", run.0);
    let run = drill::pass_baton(&lab, SEAT, None).context("an operator")?;
    // Runs are numbered as the ledger begins them: whatever the drill had begun would have this number.
    ensure!(run.0 == newest.0 + 1, "run {} is not the first one after run {}", run.0, newest.0);
    // A switchover's epoch begins with its point of no return, some time after the run.
    wait::until_true("the baton to be passed", PASSED_WITHIN, || {
        Ok(lab.standing()?.epoch == before.epoch + 1)
    })?;
    // Nobody renews the drill: the agents end it.
    drill::whole(&lab)
}

/// `replication-lags`, in a quarter of the time.
const SHORT: [(&str, &str); 2] = [("60s", "15s"), ("within = \"30s\"", "within = \"10s\"")];

/// By the command on another node, by Ctrl-C, and node by node without ending the drill.
#[test]
fn an_operator_ends_a_drill_and_everything_is_healed() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = lab("L4")?;
    let aborted = Verdict::Aborted.exit_code();
    let mut runner = drill::begin(&lab, SEAT, "replication-lags")?;
    drill::wait_biting(&lab, &mut runner)?;
    let (code, said) = drill::verb(&lab, Port::Db2, &["abort", "--by", "the night shift"])?;
    ensure!(code == 0, "{said}");
    ensure!(runner.wait()?.code() == Some(i32::from(aborted)));
    let record = drill::newest_record(&lab, SEAT)?;
    ensure!(
        record.judgement.reasons.iter().any(|why| why.contains("the night shift")),
        "{:?}",
        record.judgement
    );
    drill::whole(&lab).context("after abort")?;

    let mut runner = drill::begin(&lab, SEAT, "replication-lags")?;
    drill::wait_biting(&lab, &mut runner)?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(runner.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    ensure!(runner.wait()?.code() == Some(i32::from(aborted)));
    drill::whole(&lab).context("after Ctrl-C")?;

    let short = drill::altered(&lab, "replication-lags", &SHORT)?;
    let mut runner = drill::begin(&lab, SEAT, &short)?;
    drill::wait_biting(&lab, &mut runner)?;
    let (code, said) = drill::verb(&lab, Port::Db1, &["heal"])?;
    ensure!(code == 0 && said.contains("db2"), "{said}");
    let standing = drill::left(&lab)?.into_iter().find(|what| what.contains("Biting"));
    ensure!(standing.is_none(), "{standing:?} after heal");
    ensure!(
        runner.wait()?.code() == Some(i32::from(Verdict::Inconclusive.exit_code())),
        "it cannot have passed"
    );
    drill::whole(&lab).context("after heal")
}

/// A drill that could not fail would prove nothing.
#[test]
fn a_second_machine_with_the_address_and_a_lost_write_each_fail_a_drill() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = lab("L4")?;
    let short = drill::altered(&lab, "replication-lags", &SHORT)?;
    let failed = |mut runner: std::process::Child, because: &str| -> Result<()> {
        let code = runner.wait()?.code();
        let judgement = drill::newest_record(&lab, SEAT)?.judgement;
        println!("{judgement:?}");
        ensure!(code == Some(i32::from(Verdict::Fail.exit_code())), "{code:?}: {judgement:?}");
        ensure!(judgement.reasons.iter().any(|why| why.contains(because)), "{judgement:?}");
        drill::whole(&lab)
    };

    let mut runner = drill::begin(&lab, SEAT, &short)?;
    drill::wait_biting(&lab, &mut runner)?;
    let holder = lab.serving()?.context("somebody serves")?;
    let lost = "DELETE FROM baton.drill_writes ORDER BY seen LIMIT 3";
    database::query(&lab.host(holder).mysql(), lost)?;
    failed(runner, "3 writes acknowledged and lost")?;

    let mut runner = drill::begin(&lab, SEAT, &short)?;
    drill::wait_biting(&lab, &mut runner)?;
    let (impostor, vip) = (lab.wire.netns(Port::Observer), format!("{VIP}/32"));
    let address = |verb: &str| shell::run("ip", &["-n", &impostor, "addr", verb, &vip, "dev", INTERFACE]);
    address("add")?;
    wait::pass(Duration::from_secs(1))?;
    address("del")?;
    failed(runner, "two machines answered for the virtual IP")
}

fn backup(lab: &Lab) -> Result<Port> {
    let holder = lab.serving()?;
    DATA.into_iter().find(|port| Some(*port) != holder).context("there are two data nodes")
}

/// What a shipped drill came to.
struct Row {
    id: &'static str,
    verdict: String,
    seconds: f64,
}

fn table(rows: &[Row]) -> String {
    let lines =
        rows.iter().map(|Row { id, verdict, seconds }| format!("{id:<28} {verdict:<16} {seconds:>7.0}"));
    let head = format!("{:<28} {:<16} {:>7}", "drill", "verdict", "seconds");
    [head].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

/// Runs a shipped drill. What is not right of it is added to `wrong`.
fn shipped_one(lab: &Lab, id: &'static str, wrong: &mut Vec<String>) -> Result<Row> {
    // Who takes the witness or the leader away asks another.
    let leads = id.starts_with("leader") && lab.standing()?.leader == Some(SEAT);
    let seat = if leads || id.starts_with("witness") { backup(lab)? } else { SEAT };
    let began = Instant::now();
    let outcome = drill::run(lab, seat, id)?;
    let seconds = began.elapsed().as_secs_f64();
    let judgement = outcome.record.as_ref().map(|record| &record.judgement);
    println!("{id}: {judgement:?}");
    let verdict = judgement.map(|judgement| judgement.verdict);
    // This lab has no command that cuts the power: the node that lacks it is named.
    let is_right = match id {
        "power-cut" => {
            let reasons = judgement.map(|judgement| judgement.reasons.join("; ")).unwrap_or_default();
            verdict == Some(Verdict::Refused) && reasons.contains("drill.power_off")
        }
        _ => verdict.is_some_and(Verdict::is_pass),
    };
    if !is_right {
        wrong.push(format!("{id}: {judgement:?}\n{}", outcome.said));
    }
    let verdict = verdict.map_or("no record", Verdict::name).to_owned();
    Ok(Row { id, verdict, seconds })
}

/// Every shipped drill that the lab can bear, one after the other.
#[test]
#[ignore = "some twenty minutes: cargo test --workspace --test drills -- --ignored"]
fn every_shipped_drill_passes() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let driver = Driver::Agents { profile: "standard".into() };
    let flavour = Flavour::of_environment()?;
    // The nodes share no disk: one that is filled is the replica's own.
    let lab = Lab::up(Options {
        flavour,
        drills: "L5",
        resync_by_itself: true,
        docker: true,
        small_disk: true,
        ..Options::plain(driver)
    })?;
    drill::whole(&lab)?;
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    drill::supervise_databases(&lab)?;
    let done = shipped::ids().try_for_each(|id| {
        rows.push(shipped_one(&lab, id, &mut wrong)?);
        drill::whole(&lab).with_context(|| format!("after {id}"))
    });
    println!("on {}\n{}", flavour.name(), table(&rows));
    done?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The drills whose runner is killed, with the words of their files that are shortened.
const KILLED: [(&str, &str); 3] = [
    ("holder-isolated", "duration = \"40s\""),
    ("agent-frozen", "duration = \"20s\""),
    ("mysqld-frozen", "duration = \"20s\""),
];
/// In their place: so that all of a drill is over soon, and a takeover fits in yet.
const SHORTENED: &str = "duration = \"6s\"";
/// The drill whose fault keeps its shipped time, which is four times as long as a runner may be silent: only its loss ends it
/// sooner. Its node neither hears of anything else meanwhile, nor is it one that has to take over.
const OUTLIVES: &str = "holder-isolated";
/// From so many kills on each stage from the fault on must have been among them.
const KILLS_OF_EACH: usize = 40;

/// The runner is killed at moments spread over all of a drill; each time the agents heal what it left, and end its drill. Some
/// of its faults would end by themselves before it is missed; of one that would not it is seen that its loss has ended it. What
/// it kept of a fault is in the chain, which verifies.
#[test]
fn a_killed_runner_leaves_nothing() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let kills: usize = std::env::var("BATON_DRILL_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let lab = lab("L4")?;
    let (mut stages, mut recorded) = (Vec::new(), BTreeSet::new());
    let (mut drawn, mut length_ms) = (0, 0);
    while stages.len() < kills {
        drawn += 1;
        ensure!(drawn <= 2 * kills + 8, "only {} of {drawn} runners could be killed", stages.len());
        let moment = Moment::draw(stages.len(), length_ms);
        let is_long = matches!(moment, Moment::Biting(_));
        let (name, long) = KILLED[stages.len() % KILLED.len()];
        let (name, file) = if is_long {
            (OUTLIVES, OUTLIVES.to_owned())
        } else {
            (name, drill::altered(&lab, name, &[(long, SHORTENED)])?)
        };
        let before = kill::newest(&lab)?;
        let killed = kill::kill(&lab, &file, before, moment)?;
        println!("{name}, {moment:?}: {killed:?}");
        drill::whole(&lab).with_context(|| format!("{name}, {moment:?}: {killed:?}"))?;
        let begun = kill::ended_after(&lab, before)?;
        let Some(killed) = killed else { continue };
        if is_long {
            kill::healed_by_loss(&lab, begun.context("a fault bit, and no drill was begun")?)?;
        }
        if matches!(moment, Moment::Keeping(_)) {
            length_ms = u64::try_from(killed.lived.as_millis())?;
        }
        // Nothing is begun before there is a draft.
        recorded.extend(begun);
        stages.push(killed.stage);
    }
    let killed = |stage: Stage| stages.iter().filter(|seen| **seen == stage).count();
    println!("killed, of {drawn} drills: {:?}", Stage::ALL.map(|stage| (stage, killed(stage))));
    let never: Vec<Stage> =
        Stage::ALL.into_iter().filter(|stage| *stage >= Stage::Armed && killed(*stage) == 0).collect();
    ensure!(kills < KILLS_OF_EACH || never.is_empty(), "nobody was killed in {never:?}");

    // One that comes to its end puts the last draft into the chain, and its head into the ledger.
    passed(&lab, &drill::run(&lab, SEAT, "switchover-and-back")?)?;
    let without = kill::without_record(&lab, &recorded)?;
    ensure!(without.is_empty(), "no record of the drills {without:?}");
    Ok(())
}
