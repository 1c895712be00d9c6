//! What the product must survive, one test per fault: real agents, real servers, a client that keeps count.
//!
//! They run one after the other, also with the tests of the lab: two labs on one machine disturb each other's timing.
//! They need root and the program `baton`, built before.
//!
//! All run on MariaDB, or on MySQL with `BATON_FLAVOUR=mysql` (`make test-mysql`), and then the node that was away must also be
//! back in the end: it follows, or is resynced. One runs on MySQL whatever the variable says.

use baton_tests::fault::{Fault, SWITCHOVER_STEPS, TARGET_STEPS};
use baton_tests::lab::{Driver, Flavour, turn};
use baton_tests::run::{self, Outcome, Plan};

fn standard() -> Driver {
    Driver::Agents { profile: "standard".into() }
}

/// The outcome of one run, with what was seen; a harness that cannot run is a failure too.
fn passes(plan: &Plan) -> Result<(), String> {
    let report = run::run(plan).map_err(|error| format!("{error:#}"))?;
    println!("{} {}\n{}", report.fault, plan.at.as_deref().unwrap_or(""), report.text());
    if report.result == Outcome::Pass { Ok(()) } else { Err(report.text()) }
}

/// The family on which all run; none, loudly, if its server is not on this machine.
fn flavour() -> Option<Flavour> {
    there(Flavour::of_environment().expect("BATON_FLAVOUR"))
}

fn there(flavour: Flavour) -> Option<Flavour> {
    if flavour.is_there() {
        return Some(flavour);
    }
    eprintln!("skipped: no {}", if flavour == Flavour::Mysql { "MySQL" } else { "MariaDB" });
    None
}

fn survives(fault: Fault) {
    let Some(flavour) = flavour() else { return };
    let _turn = turn::beside_another().expect("a place for a lab");
    // The container engines take part where they are what is tested: in the usual loss of power.
    let docker = fault == Fault::PowerLoss;
    // A MySQL that cannot write its log ends itself, and no service manager starts it again here.
    let whole = flavour == Flavour::Mysql && fault != Fault::DiskFull;
    let done = passes(&Plan { flavour, docker, whole, ..Plan::usual(standard(), fault) });
    assert_eq!(done, Ok(()), "{}", fault.name());
}

/// At each step before the point of no return. A leader or a target that is lost strikes before and after each step acts; the
/// others at one of the two in turn, for the sake of time. `BATON_EVERY_POINT=1` strikes at both everywhere, and a soak at any.
fn survives_at_every_step(fault: Fault) {
    let Some(flavour) = flavour() else { return };
    let _turn = turn::beside_another().expect("a place for a lab");
    let of_a_takeover = [Fault::LeaderLossDuringTakeover, Fault::TargetLossDuringTakeover].contains(&fault);
    // Without container engines the plan has no steps for services, and the lab's service needs no writable database.
    let services = |step: &str| step == "start_independent" && of_a_takeover;
    let steps: Vec<&str> = if fault.is_of_a_switchover() {
        SWITCHOVER_STEPS.into()
    } else {
        TARGET_STEPS.into_iter().filter(|step| !step.starts_with("start_") || services(step)).collect()
    };
    let mut failed = Vec::new();
    let both = of_a_takeover || std::env::var_os("BATON_EVERY_POINT").is_some();
    for (index, step) in steps.into_iter().enumerate() {
        for (_, point) in
            ["started", "acted"].into_iter().enumerate().filter(|(turn, _)| both || turn % 2 == index % 2)
        {
            let at = format!("{step}:{point}");
            let docker = services(step);
            let plan = Plan { flavour, docker, at: Some(at.clone()), ..Plan::usual(standard(), fault) };
            failed.extend(passes(&plan).err().map(|why| format!("{at}: {why}")));
        }
    }
    assert!(failed.is_empty(), "{}:\n{}", fault.name(), failed.join("\n"));
}

/// In every suite: a takeover with three agents on real MySQL, what its recovery makes of commits that nobody was told of, and a
/// resync by its clone plugin.
#[test]
fn power_return_on_mysql() {
    let Some(flavour) = there(Flavour::Mysql) else { return };
    let _turn = turn::beside_another().expect("a place for a lab");
    let plan = Plan { flavour, docker: false, ..Plan::usual(standard(), Fault::PowerReturn) };
    assert_eq!(passes(&plan), Ok(()));
}

macro_rules! survives {
    ($($test:ident $fault:ident;)*) => {
        $(#[test] fn $test() { survives(Fault::$fault); })*

        #[test]
        fn every_fault_has_a_test() {
            let tested = [$(Fault::$fault,)*];
            let untested = Fault::ALL.iter().filter(|fault| !fault.strikes_at_a_step() && !tested.contains(fault));
            assert_eq!(untested.count(), 0);
        }
    };
}

survives! {
    resync Resync;
    resync_interrupted ResyncInterrupted;
    resync_automatic ResyncAutomatic;
    power_loss PowerLoss;
    power_return PowerReturn;
    agent_kill AgentKill;
    agent_freeze AgentFreeze;
    driver_hang DriverHang;
    host_freeze HostFreeze;
    mysqld_kill MysqldKill;
    mysqld_freeze MysqldFreeze;
    redis_kill RedisKill;
    redis_loading RedisLoading;
    service_gone ServiceGone;
    disk_full DiskFull;
    gateway_cut GatewayCut;
    link_down LinkDown;
    partition_primary PartitionPrimary;
    partition_pair PartitionPair;
    one_way_in OneWayIn;
    one_way_out OneWayOut;
    primary_witness_cut PrimaryWitnessCut;
    witness_loss WitnessLoss;
    backup_loss BackupLoss;
    replica_behind ReplicaBehind;
    vip_removed VipRemoved;
    rules_flushed RulesFlushed;
    loss_accepted LossAccepted;
    cluster_restart ClusterRestart;
    agents_restart AgentsRestart;
    quorum_loss QuorumLoss;
    forced Forced;
    paused_quorum_loss PausedQuorumLoss;
    paused_agent_restart PausedAgentRestart;
    paused_primary_loss PausedPrimaryLoss;
    switchover Switchover;
    switchover_back SwitchoverBack;
    switchover_aborted SwitchoverAborted;
    pause_resume PauseResume;
    commands_refused CommandsRefused;
    resync_ordered ResyncOrdered;
}

#[test]
fn leader_loss_at_every_step() {
    survives_at_every_step(Fault::LeaderLossDuringTakeover);
}

#[test]
fn target_crash_at_every_step() {
    survives_at_every_step(Fault::TargetCrashDuringTakeover);
}

#[test]
fn target_loss_at_every_step() {
    survives_at_every_step(Fault::TargetLossDuringTakeover);
}

#[test]
fn switchover_fails_at_every_step() {
    survives_at_every_step(Fault::SwitchoverFails);
}

#[test]
fn switchover_crash_at_every_step() {
    survives_at_every_step(Fault::SwitchoverCrash);
}
