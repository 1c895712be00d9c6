//! What the product must survive, one test per fault: real agents, real servers, a client that keeps count.
//!
//! They run one after the other, also with the tests of the lab: two labs on one machine disturb each other's timing.
//! They need root and the program `baton`, built before.
//!
//! All run on MariaDB, or on MySQL with `BATON_FLAVOUR=mysql` (`make test-mysql`). The node that was away must also be back in
//! the end: it follows, or is resynced; on MariaDB where it has been the holder and lived on. One runs on MySQL whatever the
//! variable says, and one in the profile `fast`.

use baton_tests::fault::{Fault, SWITCHOVER_STEPS, TARGET_STEPS};
use baton_tests::lab::{Driver, Flavour, turn};
use baton_tests::run::{self, Outcome, Plan};

fn standard() -> Driver {
    Driver::Agents { profile: "standard".into() }
}

/// Holders that come back on their own with their databases as they were.
const THAT_RETURN: [Fault; 7] = [
    Fault::AgentFreeze,
    Fault::HostFreeze,
    Fault::LinkDown,
    Fault::PartitionPrimary,
    Fault::MysqldFreeze,
    Fault::OneWayIn,
    Fault::OneWayOut,
];

/// The outcome of one run, with what was seen; a harness that cannot run is a failure too. The report is saved as by `lab run`.
fn passes(plan: &Plan) -> Result<(), String> {
    run::forget(plan.fault, plan.flavour).map_err(|error| format!("{error:#}"))?;
    let report = run::run(plan).map_err(|error| format!("{error:#}"))?;
    println!("{} {}\n{}", report.fault, plan.at.as_deref().unwrap_or(""), report.text());
    report.save().map_err(|error| format!("{error:#}"))?;
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
    let may_skip = flavour == Flavour::Mysql || std::env::var_os("BATON_TEST_NO_SKIP").is_none();
    assert!(may_skip, "no MariaDB on this machine: `make packages` installs it");
    eprintln!("skipped: no {}", if flavour == Flavour::Mysql { "MySQL" } else { "MariaDB" });
    None
}

fn survives(fault: Fault) {
    let Some(flavour) = flavour() else { return };
    let _turn = turn::beside_another().expect("a place for a lab");
    // The container engines take part where they are what is tested: in the usual loss of power.
    let docker = fault == Fault::PowerLoss;
    let whole = match flavour {
        // A MySQL that cannot write its log ends itself, and no service manager starts it again here.
        Flavour::Mysql => fault != Fault::DiskFull,
        Flavour::Mariadb => THAT_RETURN.contains(&fault),
    };
    let done = passes(&Plan { flavour, docker, whole, ..Plan::usual(standard(), fault) });
    assert_eq!(done, Ok(()), "{}", fault.name());
}

/// At each step before the point of no return. A leader or a target that is lost strikes before and after each step acts; the
/// others at one of the two in turn, for the sake of time. `BATON_EVERY_POINT=1` strikes at both everywhere, and a soak at any.
fn survives_at_every_step(fault: Fault) {
    let Some(flavour) = flavour() else { return };
    let _turn = turn::beside_another().expect("a place for a lab");
    let of_a_takeover = [Fault::LeaderLossDuringTakeover, Fault::TargetLossDuringTakeover].contains(&fault);
    // Without container engines the plan has no steps for services.
    let services = |step: &str| step.starts_with("start_") && of_a_takeover;
    let steps: Vec<&str> = if fault.is_of_a_switchover() {
        SWITCHOVER_STEPS.into()
    } else {
        // The witness validates, and mostly leads: what it is lost in is its own step.
        let validated = (fault == Fault::LeaderLossDuringTakeover).then_some("validate");
        let of_target = TARGET_STEPS.into_iter().filter(|step| !step.starts_with("start_") || services(step));
        of_target.chain(validated).collect()
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

/// With the shortest lease, which another lab on the same machine could let run out: so this one is alone.
#[test]
fn witness_loss_with_the_shortest_lease() {
    let Some(flavour) = flavour() else { return };
    let _turn = turn::alone().expect("a place for a lab");
    let fast = Driver::Agents { profile: "fast".into() };
    let plan = Plan { flavour, docker: false, ..Plan::usual(fast, Fault::WitnessLoss) };
    assert_eq!(passes(&plan), Ok(()));
}

macro_rules! survives {
    (once { $($test:ident $fault:ident;)* } at_every_step { $($looped:ident $of_a_step:ident;)* }) => {
        $(#[test] fn $test() { survives(Fault::$fault); })*
        $(#[test] fn $looped() { survives_at_every_step(Fault::$of_a_step); })*

        #[test]
        fn every_fault_has_a_test() {
            let (once, at_every_step) = ([$(Fault::$fault,)*], [$(Fault::$of_a_step,)*]);
            for fault in Fault::ALL {
                let tests: &[Fault] = if fault.strikes_at_a_step() { &at_every_step } else { &once };
                assert!(tests.contains(fault), "{}", fault.name());
            }
        }
    };
}

survives! {
    once {
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
        vip_foreign_owner VipForeignOwner;
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
    at_every_step {
        leader_loss_at_every_step LeaderLossDuringTakeover;
        target_crash_at_every_step TargetCrashDuringTakeover;
        target_loss_at_every_step TargetLossDuringTakeover;
        switchover_fails_at_every_step SwitchoverFails;
        switchover_crash_at_every_step SwitchoverCrash;
    }
}
