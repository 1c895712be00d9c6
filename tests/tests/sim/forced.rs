//! Two nodes are lost for long, and an operator lets the third go on alone; rightly, by mistake, and twice.

use baton_tests::sim::operator::OperatorAct;
use baton_tests::sim::swarm::START_MS;
use baton_tests::sim::{Fault, Options, World};

/// Longer than any fault here lasts, in milliseconds.
const FOR_GOOD_MS: u64 = 1_000_000;

/// Nothing is forced while the others were heard within this time, in milliseconds.
const SILENT_MS: u64 = 10_500;

/// A survivor leads and serves after this, in milliseconds: a start of its agent, a new leader's wait, a takeover.
const ALONE_MS: u64 = 6_000;

/// A node that is told of a higher generation is closed after this, its greeting included, in milliseconds.
const TOLD_MS: u64 = 500;

fn in_sync(seed: u64) -> World {
    let mut world = World::new(seed, Options { calm: true, trace: true, ..Options::default() });
    world.run_until(START_MS);
    assert!(world.ledger().has_replica_in_sync(), "{}", world.story());
    world
}

fn after(world: &mut World, ms: u64) {
    world.run_until(world.now + ms);
}

fn generation(world: &World) -> u64 {
    world.ledger().generation.0
}

fn cut(world: &mut World, one: usize, other: usize) {
    world.inject(Fault::Cut { from: one, to: other, for_ms: FOR_GOOD_MS });
    world.inject(Fault::Cut { from: other, to: one, for_ms: FOR_GOOD_MS });
}

fn crash(world: &mut World, nodes: [usize; 2]) {
    nodes.into_iter().for_each(|node| world.inject(Fault::HostCrash { node, for_ms: FOR_GOOD_MS }));
}

/// Everybody is there again, and those of the lower generation come back as new members.
fn all_rejoin(world: &mut World, others: [usize; 2]) {
    world.heal();
    after(world, 2_500);
    for node in others {
        assert!(!world.is_reached(node), "it is closed\n{}", world.story());
        assert!(!world.raft.leads(node), "and leads nothing\n{}", world.story());
        world.rejoin(node);
    }
    after(world, 20_000);
    let ledger = world.ledger();
    assert!(ledger.has_replica_in_sync(), "{}", world.story());
    assert!(world.raft.leads(2), "the witness is a voter again\n{}", world.story());
    if world.violation().is_none() {
        world.check_end();
    }
    assert_eq!(world.violation(), None, "seed {}\n{}", world.seed, world.story());
}

#[test]
fn a_survivor_goes_on_alone_and_the_others_come_back_as_new_members() {
    for seed in 1..20 {
        for survivor in [0, 1] {
            let mut world = in_sync(seed);
            crash(&mut world, [1 - survivor, 2]);
            after(&mut world, SILENT_MS);
            assert!(!world.is_serving(survivor), "nobody serves without a majority\n{}", world.story());
            world.force(survivor);
            after(&mut world, ALONE_MS);
            assert!(world.is_serving(survivor), "seed {seed}\n{}", world.story());
            let epoch = if survivor == 0 { 1 } else { 2 };
            assert_eq!((generation(&world), world.ledger().epoch.0), (1, epoch), "{}", world.story());
            assert!(!world.mistaken);
            all_rejoin(&mut world, [1 - survivor, 2]);
            assert!(world.is_serving(survivor), "{}", world.story());
            assert_eq!(world.ledger().epoch.0, epoch, "nothing follows\n{}", world.story());
        }
    }
}

#[test]
fn nothing_is_forced_while_somebody_was_heard() {
    let mut world = in_sync(3);
    world.force(1);
    world.inject(Fault::HostCrash { node: 0, for_ms: FOR_GOOD_MS });
    after(&mut world, SILENT_MS);
    world.force(1);
    world.inject(Fault::HostCrash { node: 2, for_ms: FOR_GOOD_MS });
    after(&mut world, SILENT_MS - 2_000);
    world.force(1);
    world.force(2);
    after(&mut world, 1_500);
    assert_eq!((world.raft.newest_log(), generation(&world)), (0, 0), "{}", world.story());
    assert!(world.able(1), "{}", world.story());
}

/// The survivor was cut off while the two others passed the baton on; then they were lost. What was acknowledged without it is
/// lost, as its operator has said, and the epoch that it begins has been used before.
#[test]
fn a_survivor_that_missed_a_takeover_goes_on_with_what_it_has() {
    for seed in 1..20 {
        let mut world = in_sync(seed);
        cut(&mut world, 0, 1);
        cut(&mut world, 0, 2);
        after(&mut world, 6_000);
        assert!(world.is_serving(1) && world.ledger().epoch.0 == 2, "{}", world.story());
        crash(&mut world, [1, 2]);
        after(&mut world, SILENT_MS);
        world.force(0);
        after(&mut world, ALONE_MS);
        assert!(world.is_serving(0), "{}", world.story());
        assert_eq!((generation(&world), world.ledger().epoch.0), (1, 1), "{}", world.story());
        all_rejoin(&mut world, [1, 2]);
        assert!(world.is_serving(0), "{}", world.story());
    }
}

/// Its word was wrong: two serve, until they hear of each other and no longer.
#[test]
fn who_is_forced_by_mistake_closes_the_others_on_contact() {
    for seed in 1..20 {
        let mut world = in_sync(seed);
        cut(&mut world, 1, 0);
        cut(&mut world, 1, 2);
        after(&mut world, SILENT_MS);
        world.force(1);
        assert!(world.mistaken);
        after(&mut world, ALONE_MS);
        assert!(world.is_serving(0) && world.is_serving(1), "both take writes\n{}", world.story());
        world.heal();
        after(&mut world, TOLD_MS);
        assert!(!world.is_reached(0) && world.is_serving(1), "{}", world.story());
        after(&mut world, 8_000);
        assert!(!world.is_reached(0), "the old ones are a majority, and do nothing\n{}", world.story());
        all_rejoin(&mut world, [0, 2]);
        assert!(world.is_serving(1), "{}", world.story());
    }
}

/// Two were forced, each without the other: none counts more, until one of them is forced again.
#[test]
fn two_that_were_forced_both_close_and_one_is_forced_again() {
    for seed in 1..10 {
        let mut world = in_sync(seed);
        for (one, other) in [(0, 1), (1, 2), (2, 0)] {
            cut(&mut world, one, other);
        }
        after(&mut world, SILENT_MS);
        world.force(0);
        world.force(1);
        after(&mut world, ALONE_MS);
        assert!(world.is_serving(0) && world.is_serving(1), "both take writes\n{}", world.story());
        world.heal();
        after(&mut world, TOLD_MS);
        assert!(!world.is_reached(0) && !world.is_reached(1), "{}", world.story());
        for node in 0..3 {
            world.inject(Fault::AgentKill { node, for_ms: 500 });
        }
        after(&mut world, 8_000);
        assert!(!world.is_reached(0) && !world.is_reached(1), "also after a restart\n{}", world.story());
        crash(&mut world, [0, 2]);
        after(&mut world, SILENT_MS);
        world.force(1);
        after(&mut world, ALONE_MS);
        assert!(world.is_serving(1) && generation(&world) == 2, "{}", world.story());
        all_rejoin(&mut world, [0, 2]);
        assert!(world.is_serving(1), "{}", world.story());
    }
}

/// A paused holder serves without its agent and without a majority, also where an operator says that it is off.
#[test]
fn a_pause_is_waited_out_also_by_who_is_forced_by_mistake() {
    for seed in 1..6 {
        let mut world = in_sync(seed);
        while world.ledger().pause.is_none() {
            world.operate(OperatorAct::Pause);
            after(&mut world, 100);
        }
        after(&mut world, 3_000);
        assert!(world.long_leases > 0, "{}", world.story());
        world.inject(Fault::AgentFreeze { node: 0, for_ms: FOR_GOOD_MS });
        world.inject(Fault::HostCrash { node: 2, for_ms: FOR_GOOD_MS });
        after(&mut world, SILENT_MS);
        world.force(1);
        after(&mut world, ALONE_MS);
        assert!(world.raft.leads(1) && world.is_reached(0), "it still serves\n{}", world.story());
        for _ in 0..800 {
            after(&mut world, 100);
            assert!(!world.is_reached(0) || !world.is_reached(1), "two holders\n{}", world.story());
        }
        assert!(!world.is_reached(0) && world.is_serving(1), "{}", world.story());
        assert_eq!(world.violation(), None, "seed {seed}\n{}", world.story());
    }
}
