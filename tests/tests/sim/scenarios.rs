//! Faults by hand: one situation each, and what must come of it.

use baton_tests::sim::swarm::START_MS;
use baton_tests::sim::{Fault, Options, World};

fn calm(seed: u64) -> World {
    World::new(seed, Options { calm: true, trace: true, ..Options::default() })
}

/// A world that is in sync, with no other faults.
fn in_sync() -> World {
    let mut world = calm(7);
    world.run_until(START_MS);
    assert!(world.ledger().has_replica_in_sync(), "in sync after the start\n{}", world.story());
    world
}

fn survives(world: &mut World) {
    if world.violation().is_none() {
        world.check_end();
    }
    let violation = world.violation().cloned();
    assert!(
        violation.is_none(),
        "seed {}: {violation:?}\n{:?}\n{}",
        world.seed,
        world.decisions(),
        world.story()
    );
}

#[test]
fn a_lost_holder_is_replaced_and_returns_closed() {
    let mut world = in_sync();
    world.inject(Fault::HostCrash { node: 0, for_ms: 20_000 });
    world.run_until(START_MS + 4_000);
    assert!(world.is_serving(1), "{}", world.story());
    assert_eq!(world.ledger().epoch.0, 2, "one fault, one change\n{}", world.story());
    world.run_until(40_000);
    assert!(world.is_serving(1) && !world.is_serving(0), "no failback\n{}", world.story());
    assert_eq!(world.ledger().epoch.0, 2, "{}", world.story());
    survives(&mut world);
}

#[test]
fn an_agent_that_is_restarted_costs_nothing() {
    let mut world = in_sync();
    world.inject(Fault::AgentKill { node: 0, for_ms: 300 });
    world.run_until(30_000);
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    assert!(world.longest_gap(START_MS) < 600, "{}\n{}", world.longest_gap(START_MS), world.story());
    survives(&mut world);
}

/// The holder's last entry is *in sync*, and its next start does not know that it was committed.
#[test]
fn an_agent_that_knows_less_after_a_restart_changes_nothing() {
    let mut knew_less = 0;
    for seed in 1..30 {
        let mut world = calm(seed);
        world.run_until(START_MS);
        assert!(world.ledger().has_replica_in_sync(), "seed {seed}\n{}", world.story());
        world.inject(Fault::AgentKill { node: 0, for_ms: 20 * seed });
        world.run_until(30_000);
        knew_less += u32::from(world.story().contains("and knew of"));
        assert_eq!(world.ledger().epoch.0, 1, "seed {seed}\n{}", world.story());
        let gap = world.longest_gap(START_MS);
        assert!(gap < 1_500, "seed {seed}: {gap} ms\n{}", world.story());
        world.heal();
        world.run_until(33_000);
        survives(&mut world);
    }
    assert!(knew_less > 10, "{knew_less} of 29 starts knew less");
}

#[test]
fn a_lost_witness_changes_no_holder() {
    let mut world = in_sync();
    world.inject(Fault::HostCrash { node: 2, for_ms: 15_000 });
    world.run_until(40_000);
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    assert!(world.longest_gap(START_MS) < 1_500, "{}\n{}", world.longest_gap(START_MS), world.story());
    survives(&mut world);
}

#[test]
fn a_lost_replica_releases_the_waiting_commits_once() {
    let mut world = in_sync();
    world.inject(Fault::HostCrash { node: 1, for_ms: 15_000 });
    world.run_until(START_MS + 4_000);
    assert!(!world.ledger().has_replica_in_sync(), "{}", world.story());
    assert!(world.longest_gap(START_MS) < 2_000, "{}\n{}", world.longest_gap(START_MS), world.story());
    world.run_until(60_000);
    assert!(world.ledger().has_replica_in_sync(), "in sync again\n{}", world.story());
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    survives(&mut world);
}

#[test]
fn a_frozen_database_is_given_up_although_commits_waited() {
    for seed in 1..20 {
        let mut world = calm(seed);
        world.run_until(START_MS + seed * 7);
        world.inject(Fault::MysqlFreeze { node: 0, for_ms: 30_000 });
        world.run_until(START_MS + 7_000);
        assert!(world.is_serving(1), "seed {seed}\n{}", world.story());
        survives(&mut world);
    }
}

#[test]
fn a_replica_that_freezes_again_and_again_costs_ever_less() {
    let mut world = in_sync();
    for at in (8_000..128_000).step_by(6_000) {
        world.run_until(at);
        world.inject(Fault::MysqlFreeze { node: 1, for_ms: 2_500 });
    }
    world.run_until(130_000);
    let stalled = world.gaps(START_MS).into_iter().filter(|gap| *gap > 1_000).count();
    assert!(stalled <= 7, "{stalled} stalls of 20 freezes\n{}", world.story());
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    survives(&mut world);
}

#[test]
fn a_holder_that_gave_up_serves_again_when_nobody_else_can() {
    let mut world = in_sync();
    world.inject(Fault::MysqlKill { node: 0, for_ms: 4_000 });
    // The replica dies while the takeover is on its way.
    world.inject(Fault::HostCrash { node: 1, for_ms: 60_000 });
    world.run_until(40_000);
    assert!(world.is_serving(0), "{:?}\n{}", world.decisions(), world.story());
    survives(&mut world);
}

#[test]
fn every_step_is_carried_out_once_when_nothing_goes_wrong() {
    for seed in 1..30 {
        let mut world = calm(seed);
        world.run_until(START_MS);
        world.inject(Fault::HostCrash { node: 0, for_ms: 60_000 });
        world.run_until(START_MS + 8_000);
        assert!(world.is_serving(1), "{}", world.story());
        for step in ["fence_old", "cut_stream", "hold_vip", "drain_relay_log", "promote_mysql", "open_ports"]
        {
            let does = format!("db2 does {step} ");
            let done = world.trace.iter().filter(|line| line.contains(&does)).count();
            assert_eq!(done, 1, "seed {seed}: {step}\n{}", world.story());
        }
    }
}
