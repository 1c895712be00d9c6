//! Golden scenarios: one situation per file, prose first, then a script; decisions and reasons are printed, not logs.
//!
//! `REWRITE=1 cargo test -p baton-runbooks --test golden` writes what comes out into the files. Commit a rewrite only when
//! you understand what changed it, and say so in the commit message.
#![allow(clippy::unwrap_used)]
// The scenarios are files; the crate under test reads none.
#![allow(clippy::disallowed_methods)]

#[path = "golden/lease_words.rs"]
mod lease_words;
#[path = "golden/ledger_words.rs"]
mod ledger_words;
#[path = "golden/preflight_words.rs"]
mod preflight_words;
#[path = "golden/scene.rs"]
mod scene;
#[path = "golden/sight_words.rs"]
mod sight_words;

use std::path::{Path, PathBuf};

use scene::Scene;

const TESTDATA: &str = "tests/testdata";

#[test]
fn scenarios() {
    datadriven::walk(TESTDATA, |file| {
        let mut scene = Scene::default();
        file.run(|case| -> Result<String, String> {
            let directive = case.directive.clone();
            let printed = scene.obey(&directive, case)?;
            case.expect_empty().map_err(|error| format!("{directive}: {error}"))?;
            Ok(printed)
        });
    });
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The codes as `Why::code` names them.
fn codes() -> Vec<&'static str> {
    let source = include_str!("../src/why.rs");
    let body = source.split("pub const fn code").nth(1).unwrap().split("fn ago").next().unwrap();
    body.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn every_why_is_in_a_scenario() {
    let texts: Vec<String> =
        files(Path::new(TESTDATA)).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    // Printed, not only mentioned in the prose.
    let printed =
        |code: &str| {
            texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#')).any(|line| {
                line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == code)
            })
        };
    assert!(codes().len() > 30, "the list of codes was not found");
    let missing: Vec<_> = codes().into_iter().filter(|code| !printed(code)).collect();
    assert!(missing.is_empty(), "no scenario prints {missing:?}");
}

#[test]
fn every_scenario_is_short_and_begins_with_prose() {
    for path in files(Path::new(TESTDATA)) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} has no prose", path.display());
        assert!(text.lines().count() < 120, "{} is too long", path.display());
    }
}
