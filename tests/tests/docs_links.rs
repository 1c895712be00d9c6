//! The documents point at things that exist: relative links with their headings, and files, functions and tests that
//! are named in backticks.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};

use baton_tests::fault::Fault;

/// A word in backticks that begins with one of these is taken for a path.
const PLACES: [&str; 8] =
    ["runbooks/", "consensus/", "netops/", "node/", "chaos/", "tests/", "docs/", "deploy/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All documents of the product, with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join("docs")];
    let top = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    found.extend(top);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    assert!(found.len() >= 10, "the documents were not found: {found:?}");
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The text without fenced blocks: what stands there is typed, not pointed at.
fn prose(text: &str) -> String {
    let blocks = text.split("```").enumerate();
    blocks.filter(|(number, _)| number % 2 == 0).map(|(_, block)| block).collect()
}

/// The targets of `[words](target)`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let rest = prose.split("](").skip(1);
    rest.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The name by which a heading can be linked to.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).any(|found| found == wanted)
}

#[test]
fn relative_links_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let there = target.exists()
                && (heading.is_empty() || has_heading(&fs::read_to_string(&target).unwrap(), heading));
            if !there {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// The words in backticks that look like a path, `file::name` included. `src/…` belongs to the crate of the heading.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut krate = String::new();
    for line in prose(text).lines() {
        let words = line.split('`').skip(1).step_by(2);
        if line.starts_with('#') {
            krate = words.clone().next().unwrap_or_default().to_owned();
        }
        for word in words {
            let is_path = PLACES.iter().any(|place| word.starts_with(place));
            if word.contains(['*', ' ', '…']) {
                continue;
            } else if word.starts_with("src/") && krate.ends_with('/') {
                found.push(format!("{krate}{word}"));
            } else if is_path {
                found.push(word.to_owned());
            }
        }
    }
    found
}

/// `name` stands in `text` as a whole word.
fn names(text: &str, name: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word == name)
}

#[test]
fn files_functions_and_tests_that_are_named_exist() {
    let mut missing = Vec::new();
    let mut checked = 0;
    for (document, text) in documents() {
        for named in paths(&text) {
            checked += 1;
            let (file, name) = named.split_once("::").unwrap_or((&named, ""));
            let path = root().join(file);
            let there = path.exists()
                && (name.is_empty() || fs::read_to_string(&path).is_ok_and(|text| names(&text, name)));
            if !there {
                missing.push(format!("{}: {named}", document.display()));
            }
        }
    }
    assert!(checked > 100, "only {checked} paths were found in the documents");
    assert!(missing.is_empty(), "named, and not there:\n{}", missing.join("\n"));
}

/// README's table of faults, whose last column is the outage above which the lab fails the run: one for all faults of a row, or
/// one for each.
#[test]
fn limits_in_the_readme_are_those_of_the_lab() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let table = text.split("| fault (name in the lab) |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut named = 0;
    // Behind the rest of the headings and the line below them.
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [first, .., last] = cells[..] else { panic!("{row}") };
        let words = first.split('`').skip(1).step_by(2);
        let faults: Vec<Fault> = words.filter_map(|word| Fault::named(word).ok()).collect();
        assert!(!faults.is_empty(), "no fault is named: {row}");
        named += faults.len();
        let limit = |fault: &Fault| match fault.expectation().outage_max_ms {
            Some(ms) => format!("{} s", ms as f64 / 1000.0),
            None => "–".to_owned(),
        };
        let mut limits: Vec<String> = faults.iter().map(limit).collect();
        if limits.iter().all(|limit| *limit == limits[0]) {
            limits.truncate(1);
        }
        assert_eq!(last, limits.join(", "), "{first}");
    }
    assert!(named >= 35, "only {named} faults were found in the table");
}
