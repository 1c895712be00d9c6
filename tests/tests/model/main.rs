//! The lease and the in-sync rule as exhaustive models, and every weakening of them that is known to lose.
//!
//! A model is a small state machine of its own, written from the design and not from the code; the tables in [`lease`] and
//! [`insync`] say which function each action stands for. `stateright` visits every state that can be reached. A test of the
//! design demands that nothing is violated, that every state was visited, and that the interesting ones are among them; a
//! test of a weakened variant demands that the named guarantee *is* violated, so that a model that checks nothing fails.
//!
//! Why two models say as much as one:
//! 1. *G1 is about time.* The in-sync rule can only keep a takeover from being proposed. The lease model proposes one
//!    whenever the lease allows it, so whatever both rules together allow is among what it visits.
//! 2. *G2 is not about time.* The in-sync model has no lease: an old primary takes and acknowledges writes for ever. Whatever
//!    a lease lets it do is among that.
//! 3. They meet in the ledger only. Each model has of it what its own half reads, and applies commands one at a time.
//!
//! Two rules of the code come from these models: the cut stands until the node follows again, also when a takeover is
//! undone (`undo_lifts_the_cut`), and a canary counts only for the start of the replica that was seen when it was begun
//! (`canary_of_another_start_of_the_replica`).
//!
//! What neither has: the agents' code (its tests are the properties and the simulation), Raft itself, Redis,
//! an operator, more than one fault of the same kind at a time where a counter is bounded.

mod insync;
mod lease;

use std::hash::Hash;
use std::io::Write as _;
use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model};

const G1: &str = "G1 no two nodes serve";
const G2: &str = "G2 no acknowledged write is missing on the promoted node";

/// Enough to use both cores of a small machine while other tests run.
const THREADS: usize = 2;

/// Past the capture of the test harness: the figures belong to the log of every run.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "model: {line}");
}

/// Visits every state and finds nothing wrong; `states_min` guards against a model that stopped moving.
fn holds<M>(name: &str, model: M, states_min: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + std::fmt::Debug + PartialEq,
{
    let began = Instant::now();
    let checker = model.checker().threads(THREADS).spawn_bfs().join();
    let states = checker.unique_state_count();
    report(&format!(
        "{name}: {states} states, {} ms, depth {}",
        began.elapsed().as_millis(),
        checker.max_depth()
    ));
    assert!(checker.is_done(), "{name}: not every state was visited");
    checker.assert_properties();
    assert!(states >= states_min, "{name}: {states} states only, {states_min} at least are expected");
}

/// Finds that `guarantee` is violated.
fn violates<M>(name: &str, model: M, guarantee: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + std::fmt::Debug + PartialEq,
{
    let began = Instant::now();
    let checker =
        model.checker().threads(THREADS).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path = checker.discovery(guarantee);
    let path = path.unwrap_or_else(|| panic!("{name}: no counterexample to {guarantee}"));
    let steps = path.into_actions();
    report(&format!(
        "{name}: {guarantee}: violated in {} steps; {} states, {} ms: {steps:?}",
        steps.len(),
        checker.unique_state_count(),
        began.elapsed().as_millis()
    ));
}

#[test]
fn the_lease_holds() {
    holds("the lease", lease::Lease(lease::Variant::Design), 300_000);
}

#[test]
fn the_in_sync_rule_holds() {
    holds("the in-sync rule", insync::InSync(insync::Variant::Design), 1_000_000);
}

/// One test for each weakened variant.
macro_rules! violated {
    ($guarantee:ident, $model:path { $($test:ident: $variant:path,)* }) => {
        $(
            #[test]
            fn $test() {
                violates(stringify!($test), $model($variant), $guarantee);
            }
        )*
    };
}

violated!(
    G1,
    lease::Lease {
        lease_counted_from_receipt: lease::Variant::FromReceipt,
        lease_counted_from_the_question_alone: lease::Variant::WithoutAge,
        no_margin: lease::Variant::NoMargin,
        new_leader_does_not_wait: lease::Variant::NoNewLeaderWait,
        new_leader_waits_without_the_rates: lease::Variant::NewLeaderWaitWithoutRates,
        grant_after_the_end_was_proposed: lease::Variant::GrantWhileEnding,
        grant_before_an_own_entry_is_applied: lease::Variant::GrantBeforeOwnTerm,
        grant_without_a_quorum: lease::Variant::GrantWithoutQuorum,
        permit_without_ticket: lease::Variant::PermitWithoutTicket,
        late_grant_for_a_reused_slot: lease::Variant::LateGrantForReusedSlot,
        any_release_lets_the_takeover_start: lease::Variant::AnyRelease,
        release_before_the_gate_is_closed: lease::Variant::ReleaseBeforeClose,
        close_is_no_latch: lease::Variant::CloseIsNoLatch,
    }
);

violated!(
    G2,
    insync::InSync {
        semi_sync_off_before_out_is_applied: insync::Variant::OffBeforeOutIsApplied,
        semi_sync_off_while_an_in_is_open: insync::Variant::OffWhileInIsOpen,
        semi_sync_falls_back_by_time_out: insync::Variant::FallsBackByTimeOut,
        in_sync_without_a_canary: insync::Variant::InWithoutCanary,
        canary_of_another_start_of_the_replica: insync::Variant::CanaryOfAnotherStart,
        flag_set_without_generation: insync::Variant::NoGeneration,
        flag_survives_a_restart_of_the_replica: insync::Variant::FlagSurvivesRestart,
        promotion_ignores_the_flag: insync::Variant::PromotionIgnoresFlag,
        stream_not_cut_before_the_drain: insync::Variant::StreamNotCut,
        relay_log_not_drained: insync::Variant::NotDrained,
        flag_kept_on_epoch_change: insync::Variant::FlagKeptOnEpochChange,
        plan_without_generation: insync::Variant::PlanWithoutGeneration,
        undo_lifts_the_cut: insync::Variant::UndoLiftsTheCut,
    }
);
