//! Planted bugs: each deviation from the design is caught within a bounded number of seeds, by the invariant that is there for
//! it. The design itself is clean over the same seeds (`no_seed_breaks_safety_or_stays_down` runs more than any test here)
//! and over the same scenarios.

use baton_tests::sim::event::Event;
use baton_tests::sim::operator::OperatorAct;
use baton_tests::sim::swarm::START_MS;
use baton_tests::sim::sweep::Sweep;
use baton_tests::sim::{Fault, Options, Planted, World};

/// No planted bug needs more seeds than this.
const SEEDS_MAX: u64 = 6_000;

fn options(planted: Planted) -> Options {
    Options { planted: Some(planted), ..Options::default() }
}

/// The swarm finds it.
fn is_caught(planted: Planted, by: &[&str]) {
    let sweep =
        Sweep { first: 1, seeds: SEEDS_MAX, threads: 1, violations_max: 1, options: options(planted) };
    let tally = sweep.run();
    let found = tally.violations.first().and_then(|outcome| outcome.violation.clone());
    let found = found.unwrap_or_else(|| panic!("{planted:?} is not caught in {SEEDS_MAX} seeds"));
    assert!(by.contains(&found.invariant), "{planted:?} is caught by {found:?}, which is an accident");
}

/// A scenario finds it, and finds nothing without it.
fn is_caught_in(planted: Planted, by: &[&str], scenario: impl Fn(&mut World, u64)) {
    let mut caught = 0;
    for seed in 1..=60 {
        for options in
            [Options { calm: true, ..Options::default() }, Options { calm: true, ..options(planted) }]
        {
            let mut world = World::new(seed, options);
            world.run_until(START_MS + seed);
            scenario(&mut world, seed);
            world.run_until(START_MS + 15_000);
            let found = world.violation().cloned();
            if options.planted.is_none() {
                assert_eq!(found, None, "seed {seed}: the scenario is clean without {planted:?}");
            } else if let Some(found) = found {
                assert!(by.contains(&found.invariant), "{planted:?} is caught by {found:?}");
                caught += 1;
            }
        }
    }
    assert!(caught > 0, "the simulation is too tame for {planted:?}");
}

const OVERLAP: [&str; 3] = ["one_holder", "stale_actor", "lease_never_overlaps"];
const FORCED: [&str; 3] = ["outranked", "one_holder", "lease_never_overlaps"];
const LOST: [&str; 2] = ["no_lost_write", "acked_at_replica"];
const UNJOURNALLED: [&str; 1] = ["no_effect_without_journal"];

/// Grants are slow on their way to a holder of which nobody hears any more, and which stands still when the last one is there.
#[test]
fn planted_lease_counted_from_receipt_is_caught() {
    is_caught_in(Planted::LeaseCountedFromReceipt, &OVERLAP, |world, seed| {
        let by_ms = 600 + seed * 5;
        for peer in [1, 2] {
            world.inject(Fault::SlowLink { from: peer, to: 0, for_ms: 5_000, by_ms });
            world.plan(START_MS + 1_500, Fault::Cut { from: 0, to: peer, for_ms: 5_000 });
        }
        world.plan(START_MS + 1_480 + by_ms, Fault::AgentFreeze { node: 0, for_ms: 5_000 });
    });
}

#[test]
fn planted_no_margin_is_caught() {
    is_caught(Planted::NoMargin, &OVERLAP);
}

#[test]
fn planted_vip_removed_by_agent_only_is_caught() {
    is_caught(Planted::VipRemovedByAgentOnly, &OVERLAP);
}

#[test]
fn planted_permit_without_ticket_is_caught() {
    is_caught(Planted::PermitWithoutTicket, &OVERLAP);
}

/// The holder leads, and nobody reaches it.
#[test]
fn planted_grant_without_quorum_is_caught() {
    is_caught_in(Planted::GrantWithoutQuorum, &OVERLAP, |world, _| {
        world.inject(Fault::LeaderMoves { to: 0 });
        let at = world.now;
        for peer in [1, 2] {
            world.plan(at + 300, Fault::Cut { from: 0, to: peer, for_ms: 8_000 });
            world.plan(at + 300, Fault::Cut { from: peer, to: 0, for_ms: 8_000 });
        }
    });
}

#[test]
fn planted_grant_after_end_proposed_is_caught() {
    is_caught(Planted::GrantAfterEndProposed, &OVERLAP);
}

/// The takeover is committed, another leader has it in its log and has not applied it, and the old holder is restarted.
#[test]
fn planted_grant_before_own_term_is_caught() {
    is_caught_in(Planted::GrantBeforeOwnTerm, &OVERLAP, |world, _| {
        world.swarm.apply_ms = 600;
        let at = world.now;
        world.inject(Fault::AgentFreeze { node: 0, for_ms: 5_000 });
        while world.ledger().epoch.0 == 1 && world.now < at + 4_000 {
            world.run_until(world.now + 1);
        }
        world.inject(Fault::LeaderMoves { to: 1 });
        world.inject(Fault::AgentKill { node: 0, for_ms: 1 });
    });
}

#[test]
fn planted_new_leader_does_not_wait_is_caught() {
    is_caught(Planted::NewLeaderDoesNotWait, &OVERLAP);
}

#[test]
fn planted_end_without_another_look_is_caught() {
    is_caught(Planted::EndWithoutAnotherLook, &OVERLAP);
}

/// The takeover is on its way when its leader is deposed, and the holder comes back under the next one.
#[test]
fn planted_takeover_is_forwarded_is_caught() {
    is_caught_in(Planted::TakeoverIsForwarded, &OVERLAP, |world, seed| {
        world.swarm.propose_ms = 900;
        let at = world.now;
        world.inject(Fault::AgentFreeze { node: 0, for_ms: 1_400 + seed * 4 });
        world.plan(at + 1_390 + seed * 4, Fault::LeaderMoves { to: 1 });
    });
}

#[test]
fn planted_release_before_closing_is_caught() {
    is_caught(Planted::ReleaseBeforeClosing, &OVERLAP);
}

#[test]
fn planted_semi_sync_falls_back_is_caught() {
    is_caught(Planted::SemiSyncFallsBack, &LOST);
}

#[test]
fn planted_source_off_before_applied_is_caught() {
    is_caught(Planted::SourceOffBeforeApplied, &LOST);
}

#[test]
fn planted_opened_before_semi_sync_is_caught() {
    is_caught(Planted::OpenedBeforeSemiSync, &LOST);
}

#[test]
fn planted_in_sync_ignored_is_caught() {
    is_caught(Planted::InSyncIgnored, &LOST);
}

/// The replica is restarted with a full relay log, and then the holder is lost.
#[test]
fn planted_flag_survives_restart_is_caught() {
    is_caught_in(Planted::FlagSurvivesRestart, &LOST, |world, seed| {
        let at = world.now;
        world.inject(Fault::ApplierStops { node: 1, for_ms: 1_000 });
        world.plan(at + 600, Fault::MysqlKill { node: 1, for_ms: 100 });
        world.plan(at + 610 + seed, Fault::HostCrash { node: 0, for_ms: 12_000 });
    });
}

#[test]
fn planted_flag_without_generation_is_caught() {
    is_caught(Planted::FlagWithoutGeneration, &LOST);
}

#[test]
fn planted_stream_not_cut_is_caught() {
    is_caught(Planted::StreamNotCut, &LOST);
}

#[test]
fn planted_relay_log_not_drained_is_caught() {
    is_caught(Planted::RelayLogNotDrained, &LOST);
}

#[test]
fn planted_undo_in_forward_order_is_caught() {
    is_caught(Planted::UndoInForwardOrder, &["undo_before_pivot", "no_effect_without_journal"]);
}

#[test]
fn planted_undo_forgets_database_is_caught() {
    is_caught(Planted::UndoForgetsDatabase, &["undo_before_pivot"]);
}

#[test]
fn planted_catch_up_not_awaited_is_caught() {
    is_caught(Planted::CatchUpNotAwaited, &LOST);
}

#[test]
fn planted_surrender_before_closing_is_caught() {
    is_caught(Planted::SurrenderBeforeClosing, &OVERLAP);
}

#[test]
fn planted_grant_before_surrender_is_caught() {
    is_caught(Planted::GrantBeforeSurrender, &OVERLAP);
}

#[test]
fn planted_empty_redis_promoted_is_caught() {
    is_caught(Planted::EmptyRedisPromoted, &["redis"]);
}

#[test]
fn planted_undone_after_pivot_is_caught() {
    is_caught(Planted::UndoneAfterPivot, &["no_undo_after_pivot"]);
}

#[test]
fn planted_fails_back_is_caught() {
    is_caught(Planted::FailsBack, &["one_change"]);
}

#[test]
fn planted_offset_not_awaited_is_caught() {
    is_caught(Planted::OffsetNotAwaited, &["redis"]);
}

#[test]
fn planted_word_used_twice_is_caught() {
    is_caught(Planted::WordUsedTwice, &["accepted_loss"]);
}

#[test]
fn planted_word_without_bound_is_caught() {
    is_caught(Planted::WordWithoutBound, &["accepted_loss"]);
}

#[test]
fn planted_acts_before_journal_is_caught() {
    is_caught(Planted::ActsBeforeJournal, &UNJOURNALLED);
}

#[test]
fn planted_step_executed_twice_is_caught() {
    is_caught(Planted::StepExecutedTwice, &UNJOURNALLED);
}

#[test]
fn planted_old_actor_not_checked_is_caught() {
    is_caught(Planted::OldActorNotChecked, &UNJOURNALLED);
}

#[test]
fn planted_stale_epoch_accepted_is_caught() {
    is_caught(Planted::StaleEpochAccepted, &["stale_actor"]);
}

#[test]
fn planted_run_forgotten_is_caught() {
    is_caught(Planted::RunForgotten, &["run_settles"]);
}

/// The holder has a long lease, and nobody hears of it any more.
#[test]
fn planted_pause_not_waited_out_is_caught() {
    is_caught_in(Planted::PauseNotWaitedOut, &OVERLAP, |world, _| {
        world.operate(OperatorAct::Pause);
        for peer in [1, 2] {
            world.plan(START_MS + 3_000, Fault::Cut { from: 0, to: peer, for_ms: 9_000 });
            world.plan(START_MS + 3_000, Fault::Cut { from: peer, to: 0, for_ms: 9_000 });
        }
    });
}

/// The pause is over, and then the holder's agent stands still.
#[test]
fn planted_pause_ended_but_not_void_is_caught() {
    is_caught_in(Planted::PauseEndedButNotVoid, &OVERLAP, |world, _| {
        world.operate(OperatorAct::Pause);
        world.queue.put(START_MS + 3_000, Event::Order(OperatorAct::Resume));
        world.plan(START_MS + 5_000, Fault::AgentFreeze { node: 0, for_ms: 9_000 });
    });
}

/// A restarted holder that hears of the log only late asks again at the very moment at which the leader has just seen its
/// lease end.
#[test]
fn an_end_is_proposed_only_after_another_look() {
    let restarts = |planted: Option<Planted>| {
        (1_050..1_350).any(|for_ms| {
            let options = Options { calm: true, planted, view_lag_ms: 300, ..Options::default() };
            let mut world = World::new(for_ms, options);
            world.run_until(START_MS);
            // Grants reach it through the other data node.
            world.inject(Fault::Cut { from: 2, to: 0, for_ms: 6_000 });
            world.inject(Fault::AgentKill { node: 0, for_ms });
            world.run_until(START_MS + 4_000);
            world.violation().is_some()
        })
    };
    assert!(!restarts(None));
    assert!(restarts(Some(Planted::EndWithoutAnotherLook)), "the simulation is too tame");
}

/// The two that come back go on with their log, as if nothing had happened.
#[test]
fn planted_lower_generation_goes_on_is_caught() {
    is_caught(Planted::LowerGenerationGoesOn, &FORCED);
}

#[test]
fn planted_force_keeps_generation_is_caught() {
    is_caught(Planted::ForceKeepsGeneration, &FORCED);
}

/// It votes no more, and leaves its doors to their leases.
#[test]
fn planted_outranked_keeps_its_doors_is_caught() {
    is_caught(Planted::OutrankedKeepsItsDoors, &["outranked"]);
}

/// On paper only: the ticket in its kernel ends in time.
#[test]
fn planted_believes_its_lease_too_long_is_caught() {
    is_caught(Planted::BelievesItsLeaseTooLong, &["lease_never_overlaps"]);
}

#[test]
fn planted_acknowledged_when_sent_is_caught() {
    is_caught(Planted::AcknowledgedWhenSent, &["acked_at_replica"]);
}

#[test]
fn planted_epoch_skipped_is_caught() {
    is_caught(Planted::EpochSkipped, &["epoch_monotonic"]);
}

#[test]
fn planted_proposed_without_end_is_caught() {
    is_caught(Planted::ProposedWithoutEnd, &["no_storm"]);
}

#[test]
fn planted_ports_stay_closed_is_caught() {
    is_caught(Planted::PortsStayClosed, &["served_again"]);
}

/// Service is there, and nothing is lost.
#[test]
fn planted_replica_stays_away_is_caught() {
    is_caught(Planted::ReplicaStaysAway, &["redundancy_returns"]);
}
