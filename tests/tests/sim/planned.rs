//! An operator's commands by hand: the baton passed, that taken back, a loss accepted; and what must come of each.

use baton_tests::sim::operator::OperatorAct;
use baton_tests::sim::swarm::START_MS;
use baton_tests::sim::{Fault, Options, Planted, World};

/// Longer than a switchover takes without trouble, in milliseconds.
const PASSED_MS: u64 = 3_000;

/// A world that is in sync, whose operator has ordered a switchover.
fn passing(seed: u64) -> World {
    let mut world = World::new(seed, Options { calm: true, trace: true, ..Options::default() });
    world.run_until(START_MS + seed * 7);
    world.operate(OperatorAct::Switchover);
    world
}

fn survives(world: &mut World) {
    if world.violation().is_none() {
        world.check_end();
    }
    assert_eq!(world.violation(), None, "seed {}\n{}", world.seed, world.story());
}

fn steps_done(world: &World, node: &str, step: &str) -> usize {
    let does = format!("{node} does {step} ");
    world.trace.iter().filter(|line| line.contains(&does)).count()
}

#[test]
fn a_switchover_passes_the_baton_once_and_soon_is_in_sync_again() {
    for seed in 1..40 {
        let mut world = passing(seed);
        let began = world.now;
        world.run_until(began + PASSED_MS);
        assert!(world.is_serving(1), "seed {seed}\n{}", world.story());
        assert_eq!(world.ledger().epoch.0, 2, "seed {seed}\n{}", world.story());
        for (node, step) in [
            ("db2", "prepare_target"),
            ("db1", "drain_holder"),
            ("db1", "close_holder"),
            ("db2", "catch_up"),
            ("db2", "open_ports"),
            ("db1", "attach_old"),
        ] {
            assert_eq!(steps_done(&world, node, step), 1, "seed {seed}: {step}\n{}", world.story());
        }
        let gap = world.longest_gap(START_MS);
        assert!(gap < 1_000, "seed {seed}: {gap} ms\n{}", world.story());
        world.run_until(began + 15_000);
        assert!(world.ledger().has_replica_in_sync(), "seed {seed}\n{}", world.story());
        assert_eq!(world.ledger().epoch.0, 2, "nothing follows\n{}", world.story());
        survives(&mut world);
    }
}

/// What stands in the history for an operator who asks on what evidence the baton moved.
#[test]
fn a_takeover_notes_what_each_voter_had_heard() {
    for seed in 1..20 {
        let mut world = World::new(seed, Options { calm: true, trace: true, ..Options::default() });
        world.run_until(START_MS + seed * 7);
        world.inject(Fault::HostCrash { node: 0, for_ms: 60_000 });
        world.run_until(world.now + 5_000);
        let ledger = world.ledger();
        let runs = ledger.history.iter().map(|ended| &*ended.run).chain(ledger.run.iter());
        let run = runs.last().unwrap_or_else(|| panic!("seed {seed}: no run\n{}", world.story()));
        let heard: Vec<_> = run.plan.holder_heard_ms.iter().map(|(node, ms)| (node.as_str(), *ms)).collect();
        let [("db2", Some(replica)), ("mon", Some(witness))] = heard[..] else {
            panic!("seed {seed}: {heard:?}\n{}", world.story())
        };
        // A report comes several times within a lease, and the lease was over.
        assert!(replica > 500 && witness > 500, "seed {seed}: {heard:?}\n{}", world.story());
    }
}

#[test]
fn an_abort_at_any_moment_leaves_one_of_both_serving() {
    let (mut passed, mut taken_back) = (0, 0);
    for after in (0..900).step_by(9) {
        let mut world = passing(5);
        let began = world.now;
        world.run_until(began + after);
        world.operate(OperatorAct::AbortRun);
        world.run_until(began + after + PASSED_MS);
        let epoch = world.ledger().epoch.0;
        let holder = usize::from(epoch == 2);
        assert!(world.is_serving(holder), "aborted after {after} ms\n{}", world.story());
        assert!(epoch <= 2, "aborted after {after} ms\n{}", world.story());
        (passed, taken_back) = (passed + (epoch - 1), taken_back + (2 - epoch));
        survives(&mut world);
    }
    assert!(passed > 5 && taken_back > 5, "{passed} passed, {taken_back} taken back");
}

#[test]
fn a_target_that_is_lost_leaves_the_old_holder_serving() {
    let mut kept = 0;
    for after in (0..400).step_by(8) {
        let mut world = passing(9);
        let began = world.now;
        world.run_until(began + after);
        world.inject(Fault::HostCrash { node: 1, for_ms: 60_000 });
        world.run_until(began + after + 20_000);
        // Past the pivot it may have answered clients: only its own return helps.
        if world.ledger().epoch.0 == 1 {
            kept += 1;
            assert!(world.is_serving(0), "lost after {after} ms\n{}", world.story());
            survives(&mut world);
        }
        assert_eq!(world.violation(), None, "lost after {after} ms\n{}", world.story());
    }
    assert!(kept > 20, "{kept}");
}

#[test]
fn a_holder_that_is_lost_while_it_passes_the_baton_loses_nothing() {
    for after in (0..400).step_by(8) {
        let mut world = passing(11);
        let began = world.now;
        world.run_until(began + after);
        world.inject(Fault::HostCrash { node: 0, for_ms: 60_000 });
        world.run_until(began + after + 12_000);
        assert!(world.is_serving(1), "lost after {after} ms\n{}", world.story());
        survives(&mut world);
    }
}

#[test]
fn a_leader_that_is_lost_while_the_baton_is_passed_costs_time_only() {
    for after in (0..400).step_by(8) {
        let mut world = passing(13);
        let began = world.now;
        world.run_until(began + after);
        world.inject(Fault::HostCrash { node: 2, for_ms: 30_000 });
        world.run_until(began + after + 15_000);
        let holder = usize::from(world.ledger().epoch.0 > 1);
        assert!(world.is_serving(holder), "lost after {after} ms\n{}", world.story());
        survives(&mut world);
    }
}

/// The replica was away and is out of sync; then the holder is lost for good.
fn incomplete() -> World {
    let mut world = World::new(3, Options { calm: true, trace: true, ..Options::default() });
    world.run_until(START_MS);
    world.inject(Fault::HostCrash { node: 1, for_ms: 4_000 });
    world.run_until(START_MS + 3_500);
    assert!(!world.ledger().has_replica_in_sync(), "{}", world.story());
    world.inject(Fault::HostCrash { node: 0, for_ms: 30_000 });
    world.run_until(world.now + 8_000);
    world
}

#[test]
fn without_a_word_nobody_takes_over_from_a_holder_that_alone_has_everything() {
    let mut world = incomplete();
    world.run_until(world.now + 5_000);
    assert!(!world.is_serving(1), "{}", world.story());
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    // It comes back, and has everything.
    world.run_until(60_000);
    assert!(world.is_serving(0), "{}", world.story());
    survives(&mut world);
}

#[test]
fn with_a_word_the_incomplete_node_takes_over_once_and_the_old_holder_stays_out() {
    let mut world = incomplete();
    let mut tries = 0;
    while !world.is_serving(1) && tries < 200 {
        world.operate(OperatorAct::AcceptLoss);
        world.run_until(world.now + 100);
        tries += 1;
    }
    assert!(world.is_serving(1), "{}", world.story());
    assert_eq!(world.ledger().epoch.0, 2, "{}", world.story());
    assert!(!world.ledger().has_accepted_loss(), "the word is spent\n{}", world.story());
    world.run_until(world.now + 40_000);
    assert!(world.is_serving(1) && !world.is_serving(0), "{}", world.story());
    assert!(
        !world.ledger().has_replica_in_sync(),
        "its extra writes keep the old holder out\n{}",
        world.story()
    );
    survives(&mut world);
}

#[test]
fn a_redis_that_comes_back_empty_moves_the_baton_and_keeps_what_the_other_has() {
    let options = Options { calm: true, trace: true, redis: true, ..Options::default() };
    let mut world = World::new(4, options);
    world.run_until(START_MS);
    world.inject(Fault::RedisKill { node: 0, for_ms: 300, forgets: true });
    world.run_until(START_MS + 8_000);
    assert!(world.is_serving(1), "{}", world.story());
    let kept = |node: usize| world.nodes[node].redis.as_ref().map(|redis| redis.data.len());
    assert!(kept(1) > Some(100), "{:?}\n{}", kept(1), world.story());
    world.run_until(START_MS + 20_000);
    let kept = |node: usize| world.nodes[node].redis.as_ref().map(|redis| redis.data.len());
    assert!(kept(0) > Some(100), "it follows again\n{}", world.story());
    assert_eq!(world.ledger().epoch.0, 2, "{}", world.story());
    survives(&mut world);
}

/// Its service manager starts it anew before two probes in a row can miss it.
#[test]
fn a_redis_that_is_started_anew_at_once_moves_the_baton() {
    for seed in 1..20 {
        let options = Options { calm: true, trace: true, redis: true, ..Options::default() };
        let mut world = World::new(seed, options);
        world.run_until(START_MS);
        world.inject(Fault::RedisKill { node: 0, for_ms: 3, forgets: false });
        world.run_until(START_MS + 20_000);
        assert!(world.is_serving(1), "seed {seed}\n{}", world.story());
        assert_eq!(world.ledger().epoch.0, 2, "seed {seed}\n{}", world.story());
        let follows = |node: usize| world.nodes[node].redis.as_ref().and_then(|redis| redis.follows);
        assert_eq!(follows(0), Some(1), "seed {seed}\n{}", world.story());
        survives(&mut world);
    }
}

/// Nobody else would be better: it serves with what it has.
#[test]
fn a_redis_that_is_started_anew_serves_where_nobody_can_take_over() {
    let options = Options { calm: true, trace: true, redis: true, ..Options::default() };
    let mut world = World::new(7, options);
    world.run_until(START_MS);
    world.inject(Fault::AgentFreeze { node: 1, for_ms: 30_000 });
    world.run_until(START_MS + 5_000);
    world.inject(Fault::RedisKill { node: 0, for_ms: 3, forgets: false });
    world.run_until(START_MS + 10_000);
    assert!(world.is_serving(0), "{}", world.story());
    assert_eq!(world.ledger().epoch.0, 1, "{}", world.story());
    let serves = world.nodes[0].redis.as_ref().is_some_and(|redis| redis.primary && redis.open);
    assert!(serves, "{}", world.story());
    survives(&mut world);
}

#[test]
fn a_switchover_takes_redis_along() {
    for seed in 1..20 {
        let options = Options { calm: true, trace: true, redis: true, ..Options::default() };
        let mut world = World::new(seed, options);
        world.run_until(START_MS);
        world.operate(OperatorAct::Switchover);
        world.run_until(START_MS + PASSED_MS);
        assert!(world.is_serving(1), "seed {seed}\n{}", world.story());
        let primary = |node: usize| world.nodes[node].redis.as_ref().is_some_and(|redis| redis.primary);
        assert!(primary(1) && !primary(0), "seed {seed}\n{}", world.story());
        survives(&mut world);
    }
}

/// The replica's agent stands still, its Redis follows on. The holder's databases die, it gets the baton again since nobody
/// else can have it, and its Redis has nothing.
#[test]
fn a_takeover_makes_no_empty_redis_the_primary_of_one_with_data() {
    let gets_it_again = |planted: Option<Planted>| {
        let options = Options { calm: true, trace: true, redis: true, planted, ..Options::default() };
        let mut world = World::new(6, options);
        world.run_until(START_MS);
        world.inject(Fault::AgentFreeze { node: 1, for_ms: 12_000 });
        world.inject(Fault::MysqlKill { node: 0, for_ms: 1_500 });
        world.inject(Fault::RedisKill { node: 0, for_ms: 700, forgets: true });
        world.run_until(START_MS + 10_000);
        world
    };
    let mut world = gets_it_again(None);
    assert!(world.ledger().epoch.0 > 1 && world.is_serving(0), "{}", world.story());
    let kept = world.nodes[1].redis.as_ref().map(|redis| redis.data.len());
    assert!(kept > Some(100), "{kept:?}\n{}", world.story());
    survives(&mut world);
    let wiped = gets_it_again(Some(Planted::EmptyRedisPromoted));
    assert_eq!(wiped.violation().map(|found| found.invariant), Some("redis"), "{}", wiped.story());
}

/// Its agent stands still, and so would everybody's service.
#[test]
fn in_a_pause_the_holder_serves_on_whoever_is_lost() {
    for seed in 1..20 {
        let mut world = World::new(seed, Options { calm: true, trace: true, ..Options::default() });
        world.run_until(START_MS);
        world.operate(OperatorAct::Pause);
        world.run_until(START_MS + 3_000);
        assert!(world.long_leases > 0 && world.ledger().pause.is_some(), "{}", world.story());
        world.inject(Fault::AgentFreeze { node: 0, for_ms: 6_000 });
        world.run_until(START_MS + 8_500);
        let is_open = world.is_serving(0);
        assert!(is_open && world.ledger().epoch.0 == 1, "{}", world.story());
        world.run_until(START_MS + 10_000);
        world.operate(OperatorAct::Resume);
        world.run_until(START_MS + 14_000);
        assert!(world.ledger().pause.is_none() && world.is_serving(0), "{}", world.story());
        survives(&mut world);
    }
}

/// Nobody confirms the end of a pause whose holder is gone: it is waited for, and then the other takes over.
#[test]
fn a_pause_whose_holder_is_gone_is_waited_out() {
    // One that does not go on alone: its replica has everything.
    let paused = |seed| {
        let mut world = World::new(seed, Options { calm: true, trace: true, ..Options::default() });
        world.run_until(START_MS);
        world.operate(OperatorAct::Pause);
        world.run_until(START_MS + 3_000);
        Some(world).filter(|world| world.ledger().pause.as_ref().is_some_and(|pause| !pause.order.alone))
    };
    let mut world = (1..40).find_map(paused).expect("an operator pauses without going on alone");
    world.inject(Fault::HostCrash { node: 0, for_ms: 200_000 });
    world.run_until(START_MS + 55_000);
    assert_eq!(world.ledger().epoch.0, 1, "not before its time\n{}", world.story());
    world.run_until(START_MS + 80_000);
    assert!(world.ledger().pause.is_none() && world.is_serving(1), "{}", world.story());
    survives(&mut world);
}
