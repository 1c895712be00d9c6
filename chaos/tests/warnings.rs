//! The program `baton-drill` says what the linter warns of before it does anything.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// What it says on standard error without an agent and without a configuration. Nothing can be done.
fn said(words: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("baton.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton-drill"));
    command.args(["--node", "db1", "--config"]).arg(config).args(words);
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_drill_that_the_linter_warns_of_says_so_before_it_runs() {
    let said_of = said(&["run", "power-cut", "--yes"]);
    assert!(said_of.contains("warning[lab-only]: power-off is for a lab"), "{said_of}");
    assert!(said_of.contains("warning[no-heal]: nothing heals power-off by itself"), "{said_of}");
    let (warned, ended) = (said_of.find("warning[").unwrap(), said_of.find("baton drill:").unwrap());
    assert!(warned < ended, "before anything else: {said_of}");
    let quiet = said(&["run", "mysqld-killed", "--yes"]);
    assert!(!quiet.contains("warning["), "{quiet}");
}
