//! The rules of the house that a machine can check: who may depend on whom, and what must not be left in the code.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::DependencyKind;

/// Design, section 3: what each crate may use of ours.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("baton-runbooks", &[]),
    ("baton-netops", &[]),
    ("baton-consensus", &["baton-runbooks"]),
    ("baton-node", &["baton-consensus", "baton-netops", "baton-runbooks"]),
    ("baton-chaos", &["baton-node", "baton-netops"]),
    ("baton-tests", &["baton-runbooks", "baton-netops", "baton-consensus", "baton-node", "baton-chaos"]),
];

/// Crates that would make the pure crate impure.
const IMPURE: [&str; 6] = ["tokio", "openraft", "rtnetlink", "mysql_async", "redis", "rand"];

/// Lines of a file at which it is no longer accepted; the aim is 400.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What each crate depends on, as far as it is of a kind that `counts`.
fn dependencies(counts: fn(DependencyKind) -> bool) -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let found = |package: &cargo_metadata::Package| {
        package
            .dependencies
            .iter()
            .filter(|dependency| counts(dependency.kind))
            .map(|dependency| dependency.name.clone())
            .collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), found(package))).collect()
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = ["runbooks", "netops", "consensus", "node", "chaos", "tests"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn crates_use_only_what_they_may() {
    // Also for its tests and its build: a test that reaches into a crate above ties the two together as well.
    let found = dependencies(|_| true);
    assert_eq!(
        found.len(),
        MAY_USE.len(),
        "the workspace has other crates than the design: {:?}",
        found.keys()
    );
    for (name, allowed) in MAY_USE {
        let ours: BTreeSet<&str> = found[name]
            .iter()
            .map(String::as_str)
            .filter(|dependency| dependency.starts_with("baton-"))
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert!(ours.is_subset(&allowed), "{name} uses {:?}", ours.difference(&allowed));
    }
}

#[test]
fn the_pure_crate_is_pure() {
    let found = dependencies(|kind| kind == DependencyKind::Normal);
    let impure: Vec<_> = IMPURE.iter().filter(|name| found["baton-runbooks"].contains(**name)).collect();
    assert!(impure.is_empty(), "runbooks depends on {impure:?}");
}

#[test]
fn nothing_unfinished_is_left() {
    // Put together from halves, so that this file does not find itself.
    let words =
        [["FIX", "ME"], ["XX", "X"], ["TO", "DO"], ["dbg", "!("], ["todo", "!("], ["unimplemented", "!("]];
    let words: Vec<String> = words.iter().map(|halves| halves.concat()).collect();
    let mut found = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut found = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        if text.lines().count() > LINES_MAX {
            found.push(format!("{} has {} lines", path.display(), text.lines().count()));
        }
        if !text.starts_with("//!") {
            found.push(format!("{} does not begin with what it is for", path.display()));
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["utils", "util", "helpers", "helper", "common", "manager", "misc"].contains(&name) {
            found.push(format!("{}: the name says nothing", path.display()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn texts_speak_of_the_product_only() {
    // A machine's own paths have no place in code or documents.
    let words: Vec<String> =
        [["/wo", "rk/"], ["/ro", "ot/"], ["/fa", "rm/"]].iter().map(|w| w.concat()).collect();
    let mut files = sources();
    for dir in [
        root(),
        root().join("docs"),
        root().join("docs/runbooks"),
        root().join("docs/operating"),
        root().join("deploy"),
    ] {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        files.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    let mut found = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_none_or(|extension| extension != "lock")) {
        let Ok(text) = fs::read_to_string(path) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
