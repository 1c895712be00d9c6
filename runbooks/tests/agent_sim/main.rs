//! Three agents' cores under faults from a seed: a fake log, fake databases, a fake kernel, a virtual clock per node.
//!
//! Safety is checked after every step (see `check`), liveness at the end, when everything is healed. A failure prints the
//! seed; `SEED=n cargo test -p baton-runbooks --test agent_sim one_seed -- --nocapture` replays it with its trace.
#![allow(clippy::unwrap_used)]
// The seeds to run come from the environment; the crate under test reads none of it.
#![allow(clippy::disallowed_methods)]

mod check;
mod cluster;
mod faults;
mod fleet;
mod hands;
mod node;
mod raft;
mod rng;
mod world;

use faults::Fault;
use world::{Options, START_MS, World};

fn run(seed: u64, options: Options) -> World {
    let mut world = World::new(seed, options);
    world.run_until(START_MS);
    assert!(world.is_serving(0), "the first holder serves\n{}", world.story());
    world.faults_from_seed();
    let quiet = world.heal_at();
    world.run_until(quiet);
    world.heal();
    world.run_until(quiet + 45_000);
    world
}

fn survives(world: &World) {
    assert!(world.violations.is_empty(), "seed {}: {:?}\n{}", world.seed, world.violations, world.story());
    assert!(
        world.needs_operator() || world.acked_lately(2_000),
        "seed {}: nobody serves in the end: {:?}\n{}",
        world.seed,
        world.decisions(),
        world.story()
    );
}

#[test]
fn no_seed_breaks_safety_or_stays_down() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let first = std::env::var("FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (mut stopped, mut changed) = (0, 0);
    for seed in first..first + seeds {
        let world = run(seed, Options::default());
        survives(&world);
        stopped += u64::from(world.needs_operator());
        changed += u64::from(world.ledger().epoch.0 > 1);
    }
    // Neither an excuse for everything, nor faults that do nothing.
    println!("{stopped} need an operator, {changed} changed the holder, of {seeds}");
    assert!(stopped * 20 <= seeds, "{stopped} of {seeds} seeds need an operator");
    assert!(changed * 4 >= seeds, "only {changed} of {seeds} seeds changed the holder");
}

#[test]
fn one_seed() {
    let Some(seed) = std::env::var("SEED").ok().and_then(|n| n.parse().ok()) else { return };
    let world = run(seed, Options::default());
    println!("{}", world.story());
    survives(&world);
}

#[test]
fn the_same_seed_gives_the_same_story() {
    for seed in [3, 17] {
        let (one, two) = (run(seed, Options::default()), run(seed, Options::default()));
        assert_eq!(one.story(), two.story());
    }
}

/// A world that is in sync, with no other faults.
fn in_sync() -> World {
    let mut world = World::new(7, Options { calm: true, ..Options::default() });
    world.run_until(START_MS);
    assert!(world.ledger().has_replica_in_sync(), "in sync after the start\n{}", world.story());
    world
}

#[test]
fn a_lost_holder_is_replaced_and_returns_closed() {
    let mut world = in_sync();
    world.inject(Fault::HostCrash { node: 0, for_ms: 20_000 });
    world.run_until(12_000);
    assert!(world.is_serving(1), "{}", world.story());
    assert_eq!(world.ledger().epoch.0, 2, "one fault, one change\n{}", world.story());
    world.run_until(40_000);
    assert!(world.is_serving(1) && !world.is_serving(0), "no failback\n{}", world.story());
    assert_eq!(world.ledger().epoch.0, 2, "{}", world.story());
    survives(&world);
}

#[test]
fn an_agent_that_is_restarted_costs_nothing() {
    let mut world = in_sync();
    world.inject(Fault::AgentKill { node: 0, for_ms: 300 });
    world.run_until(30_000);
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    assert!(world.longest_gap(8_000) < 600, "{}\n{}", world.longest_gap(8_000), world.story());
    survives(&world);
}

#[test]
fn a_lost_witness_changes_no_holder() {
    let mut world = in_sync();
    world.inject(Fault::HostCrash { node: 2, for_ms: 15_000 });
    world.run_until(40_000);
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    assert!(world.longest_gap(8_000) < 1_500, "{}\n{}", world.longest_gap(8_000), world.story());
    survives(&world);
}

#[test]
fn a_lost_replica_releases_the_waiting_commits_once() {
    let mut world = in_sync();
    world.inject(Fault::HostCrash { node: 1, for_ms: 15_000 });
    world.run_until(12_000);
    assert!(!world.ledger().has_replica_in_sync(), "{}", world.story());
    assert!(world.longest_gap(8_000) < 2_000, "{}\n{}", world.longest_gap(8_000), world.story());
    world.run_until(60_000);
    assert!(world.ledger().has_replica_in_sync(), "in sync again\n{}", world.story());
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    survives(&world);
}

#[test]
fn a_frozen_database_is_given_up_although_commits_waited() {
    for seed in 1..20 {
        let mut world = World::new(seed, Options { calm: true, ..Options::default() });
        world.run_until(8_000 + seed * 7);
        world.inject(Fault::MysqlFreeze { node: 0, for_ms: 30_000 });
        world.run_until(15_000);
        assert!(world.is_serving(1), "seed {seed}\n{}", world.story());
        survives(&world);
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
    let stalled = world.gaps(8_000).into_iter().filter(|gap| *gap > 1_000).count();
    assert!(stalled <= 7, "{stalled} stalls of 20 freezes\n{}", world.story());
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    survives(&world);
}

#[test]
fn a_holder_that_gave_up_serves_again_when_nobody_else_can() {
    let mut world = in_sync();
    world.inject(Fault::MysqlKill { node: 0, for_ms: 4_000 });
    // The replica dies while the takeover is on its way.
    world.inject(Fault::HostCrash { node: 1, for_ms: 60_000 });
    world.run_until(40_000);
    assert!(world.is_serving(0), "{:?}\n{}", world.decisions(), world.story());
    survives(&world);
}

/// A restarted holder that hears of the log only late asks again at the very moment at which the leader has just seen its
/// lease end.
fn restarts_at_the_end_of_the_lease(blind_end: bool) -> bool {
    (1_000..1_800).step_by(5).any(|for_ms| {
        let mut world = World::new(for_ms, Options { calm: true, blind_end, view_lag_ms: 300 });
        world.run_until(START_MS);
        // Grants reach it through the other data node.
        world.inject(Fault::Cut { from: 2, to: 0, for_ms: 6_000 });
        world.inject(Fault::AgentKill { node: 0, for_ms });
        world.run_until(START_MS + 4_000);
        !world.violations.is_empty()
    })
}

#[test]
fn an_end_is_proposed_only_after_another_look() {
    assert!(!restarts_at_the_end_of_the_lease(false));
}

#[test]
fn planted_an_end_without_another_look_is_caught() {
    assert!(restarts_at_the_end_of_the_lease(true), "the simulation is too tame");
}

#[test]
fn every_step_is_carried_out_once_when_nothing_goes_wrong() {
    let mut world = in_sync();
    world.inject(Fault::HostCrash { node: 0, for_ms: 60_000 });
    world.run_until(16_000);
    assert!(world.is_serving(1), "{}", world.story());
    for step in ["fence_old", "cut_stream", "hold_vip", "drain_relay_log", "promote_mysql", "open_ports"] {
        let done = world.trace.iter().filter(|line| line.contains(&format!("db2 does {step} "))).count();
        assert_eq!(done, 1, "{step}\n{}", world.story());
    }
}
