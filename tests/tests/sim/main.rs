//! The simulator on trial, and the design on trial in the simulator.
//!
//! - this file: many seeds, none of which may violate anything; the same seed gives the same story;
//! - `scenarios`: faults by hand, with what must come of them;
//! - `planned`: an operator's commands by hand, likewise;
//! - `forced`: survivors that go on alone, likewise;
//! - `planted`: deviations from the design, each of which must be caught.
//!
//! `SEEDS=n FIRST=m` runs other seeds; the program `simulate` runs as many as one likes, faster.
#![allow(clippy::unwrap_used)]

mod forced;
mod planned;
mod planted;
mod scenarios;

use baton_tests::sim::sweep::{Sweep, reproduce};
use baton_tests::sim::{Options, Planted, schedule};

/// Seeds of the sweep: some minutes on a small machine.
const SEEDS: u64 = 20_000;

/// Both cores of a small machine.
const THREADS: usize = 2;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn no_seed_breaks_safety_or_stays_down() {
    let options = Options::default();
    let (first, seeds) = (number("FIRST", 1), number("SEEDS", SEEDS));
    let tally = Sweep { first, seeds, threads: THREADS, violations_max: 3, options }.run();
    let stories: Vec<String> = tally.violations.iter().map(|failed| reproduce(failed, options)).collect();
    assert!(stories.is_empty(), "{}", stories.join("\n\n"));
    // Neither an excuse for everything, nor faults that do nothing.
    println!("{tally}");
    assert!(tally.needs_operator * 20 <= seeds, "{tally}");
    assert!(tally.changed * 4 >= seeds, "{tally}");
    assert!(tally.taken_back * 50 >= seeds, "{tally}");
    assert!(tally.switched * 6 >= seeds, "{tally}");
    assert!(tally.switch_taken_back * 25 >= seeds, "{tally}");
    assert!(tally.losses * 400 >= seeds, "{tally}");
    assert!(tally.paused * 40 >= seeds, "{tally}");
    assert!(tally.forced * 50 >= seeds && tally.mistaken * 200 >= seeds, "{tally}");
}

#[test]
fn the_same_seed_gives_the_same_story() {
    for seed in [3, 17, 1_234] {
        let options = Options { trace: true, ..Options::default() };
        let (one, two) = (schedule(seed, options), schedule(seed, options));
        assert!(one.trace.len() > 100, "seed {seed} has a story");
        assert_eq!(one.trace.join("\n"), two.trace.join("\n"), "seed {seed}");
        // Keeping the story changes nothing that happens.
        let untold = schedule(seed, Options::default());
        assert_eq!((one.acked, one.inputs), (untold.acked, untold.inputs), "seed {seed}");
    }
}

#[test]
fn a_violation_names_seed_invariant_and_the_command_that_shows_it_again() {
    let options = Options { planted: Some(Planted::ActsBeforeJournal), ..Options::default() };
    let failed = schedule(1, options);
    let text = reproduce(&failed, options);
    assert!(text.contains("seed 1,"), "{text}");
    assert!(text.contains("no_effect_without_journal is violated"), "{text}");
    let command =
        "cargo run --release -p baton-tests --bin simulate -- --seed 1 --trace --planted acts-before-journal";
    assert!(text.ends_with(command), "{text}");
    assert!(text.lines().count() > 20, "what happened last is shown\n{text}");
}
