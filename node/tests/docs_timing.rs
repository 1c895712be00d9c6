//! `docs/timing.md` says what the code does: every key with its value in each profile, every inequality, and the spans
//! that follow from them. The page has prose around the tables, so it is checked and not written.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use baton_node::config::{Profile, RULES, Timing};

/// A figure that follows from the timing.
type Derived = fn(&Timing) -> u64;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/timing.md");
    std::fs::read_to_string(path).unwrap()
}

/// The cells of the rows of all tables.
fn rows(page: &str) -> Vec<Vec<&str>> {
    page.lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect()
}

/// The row whose first cell is `head`.
fn row<'a>(rows: &'a [Vec<&'a str>], head: &str) -> &'a [&'a str] {
    let found: Vec<_> = rows.iter().filter(|cells| cells[0] == head).collect();
    assert_eq!(found.len(), 1, "docs/timing.md has {} rows for {head}", found.len());
    found[0]
}

#[test]
fn every_value_of_every_profile_stands_in_the_page() {
    let page = page();
    let rows = rows(&page);
    let profiles = Profile::ALL.map(|profile| profile.timing().values());
    for (index, (key, _)) in profiles[0].iter().enumerate() {
        let wanted = profiles.each_ref().map(|values| values[index].1.to_string());
        let cells = row(&rows, &format!("`{key}`"));
        assert_eq!(cells[2..5], wanted, "docs/timing.md, row {key}: fast, standard, relaxed");
    }
}

#[test]
fn derived_spans_are_the_codes() {
    let page = page();
    let rows = rows(&page);
    let derived: [(&str, Derived); 3] = [
        ("life of a kernel ticket", |timing| timing.kernel_lease_ms()),
        ("longest time without a grant when the leader is lost", |timing| timing.regrant_ms()),
        ("wait of a new leader", |timing| timing.new_leader_wait_ms()),
    ];
    for (head, of) in derived {
        let [fast, standard, relaxed] = Profile::ALL.map(|profile| of(&profile.timing()));
        let wanted = [fast.to_string(), standard.to_string(), format!("{relaxed} ms")];
        let found: Vec<_> = rows.iter().filter(|cells| cells[0] == head && cells.len() == 5).collect();
        assert_eq!(found.len(), 1, "docs/timing.md has {} rows for {head}", found.len());
        assert_eq!(found[0][2..5], wanted, "docs/timing.md, row {head}");
    }
}

#[test]
fn every_inequality_stands_in_the_page() {
    let page = page();
    let missing: Vec<_> =
        RULES.iter().map(|rule| rule.text).filter(|text| !page.contains(&format!("| `{text}` |"))).collect();
    assert!(missing.is_empty(), "docs/timing.md lacks {missing:?}");
    let rows = rows(&page).into_iter().filter(|cells| cells.len() == 2 && cells[0].starts_with('`')).count();
    assert_eq!(rows, RULES.len(), "docs/timing.md has inequalities that the code does not check");
}
