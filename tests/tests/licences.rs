//! `deny.toml`, held against what is linked in, also where `cargo deny` is not installed: licences, banned crates, sources.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, Package};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rules() -> toml::Table {
    fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

/// Everything that a build for the machines of `deny.toml` takes, tests and all features included.
fn graph() -> Metadata {
    let rules = rules();
    let targets = rules["graph"]["targets"].as_array().unwrap();
    let platforms = targets.iter().flat_map(|target| ["--filter-platform", target.as_str().unwrap()]);
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked"].into_iter().chain(platforms).map(String::from).collect::<Vec<_>>())
        .exec()
        .unwrap()
}

fn taken(metadata: &Metadata) -> Vec<&Package> {
    let nodes = &metadata.resolve.as_ref().unwrap().nodes;
    nodes.iter().map(|node| &metadata[&node.id]).collect()
}

/// Whether the licence's expression can be kept with these licences only.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // Some write `MIT/Apache-2.0`, as was usual once.
    let parsed = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX).unwrap();
    parsed.evaluate(|wanted| allowed.contains(wanted.to_string().as_str()))
}

#[test]
fn licences_are_those_that_are_allowed() {
    let rules = rules();
    let allowed: BTreeSet<&str> =
        rules["licenses"]["allow"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let metadata = graph();
    let taken = taken(&metadata);
    assert!(taken.len() > 200, "the graph is not whole: {}", taken.len());
    let mut refused = Vec::new();
    for package in taken {
        match &package.license {
            Some(licence) if is_allowed(licence, &allowed) => {}
            licence => refused.push(format!("{} {}: {licence:?}", package.name, package.version)),
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn an_expression_is_kept_only_by_what_it_names() {
    let allowed = BTreeSet::from(["MIT", "Unicode-3.0"]);
    for (expression, kept) in [
        ("MIT OR GPL-3.0-only", true),
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", false),
        ("Apache-2.0 WITH LLVM-exception", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), kept, "{expression}");
    }
}

#[test]
fn nothing_banned_is_linked_in() {
    let rules = rules();
    let banned: BTreeSet<&str> =
        rules["bans"]["deny"].as_array().unwrap().iter().map(|ban| ban["crate"].as_str().unwrap()).collect();
    assert!(banned.len() > 3, "{banned:?}");
    let metadata = graph();
    let found: Vec<_> =
        taken(&metadata).into_iter().filter(|package| banned.contains(package.name.as_str())).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// A crate comes from the public registry, or is ours.
#[test]
fn no_crate_comes_from_anywhere_else() {
    let metadata = graph();
    let root = root();
    for package in taken(&metadata) {
        match &package.source {
            None => assert!(package.manifest_path.starts_with(&root), "{}", package.manifest_path),
            Some(source) => assert!(source.is_crates_io(), "{}: {source}", package.name),
        }
    }
}
