//! Properties of each pure machine. `PROPTEST_CASES=100000 cargo test -p baton-runbooks --test props` for a long run.
#![allow(clippy::unwrap_used)]

#[path = "props/lease.rs"]
mod lease;
#[path = "props/ledger.rs"]
mod ledger;
#[path = "props/pause.rs"]
mod pause;
#[path = "props/run.rs"]
mod run;

/// `cases`, or more if `PROPTEST_CASES` says so.
fn at_least(cases: u32) -> proptest::test_runner::Config {
    let default = proptest::test_runner::Config::default();
    proptest::test_runner::Config { cases: default.cases.max(cases), failure_persistence: None, ..default }
}
