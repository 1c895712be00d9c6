//! Reports against their golden files.

use std::path::Path;

use super::*;
use crate::evidence::sample::passed;
use crate::verdict::judge;

fn stored(record: Record) -> Stored {
    let hash = crate::evidence::hash(canonical(&record).unwrap().as_bytes());
    Stored { path: "000001-mysqld-killed.json".into(), hash, record }
}

/// A drill that failed, with text that would be markup.
fn failed() -> Record {
    let mut record = passed();
    record.clients[0].lost = 2;
    record.two_holders_ms = 30;
    record.timeline[1].to_ms += 7_000;
    record.who.operator = "<b>|`ANNA`** & 'co'".into();
    record.events[0].what = "a\nline | <script>alert(1)</script>\u{1}".into();
    record.judgement = judge(&record);
    record
}

/// The text is what the file says, or is written so under `REWRITE=1`.
fn keep(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/testdata").join(name);
    if std::env::var_os("REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        found == wanted,
        "{name} differs (line {:?}); REWRITE=1 writes it anew",
        differs.map(|line| line + 1)
    );
}

#[test]
fn reports_are_what_they_were() {
    let passed = stored(passed());
    keep("passed.md", &render(&passed, &[], Format::Md).unwrap());
    keep("passed.junit.xml", &render(&passed, &[], Format::Junit).unwrap());
    let failed = stored(failed());
    keep("failed.junit.xml", &render(&failed, &[], Format::Junit).unwrap());
}

#[test]
fn the_json_report_is_the_record() {
    let stored = stored(passed());
    let text = render(&stored, &[], Format::Json).unwrap();
    assert_eq!(crate::evidence::hash(text.as_bytes()), stored.hash);
}

/// Tags that are open at the end, and those that were closed and not open.
fn unbalanced(markup: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut wrong = Vec::new();
    for tag in markup.split('<').skip(1) {
        let (inside, _) = tag.split_once('>').unwrap_or_else(|| panic!("a tag without an end: {tag:.60}"));
        let name = |text: &str| text.split([' ', '/', '\n']).next().unwrap().to_owned();
        if let Some(closed) = inside.strip_prefix('/') {
            if open.pop().as_deref() != Some(closed) {
                wrong.push(closed.to_owned());
            }
        } else if !inside.ends_with('/') && !inside.starts_with(['!', '?']) && name(inside) != "meta" {
            open.push(name(inside));
        }
    }
    wrong.extend(open);
    wrong
}

#[test]
fn html_is_whole_and_needs_nothing_from_elsewhere() {
    for record in [passed(), failed()] {
        let html = render(&stored(record), &[], Format::Html).unwrap();
        assert_eq!(unbalanced(&html), Vec::<String>::new());
        for foreign in ["http:", "https:", "src=", "href=", "url(", "<script", "@import", "<link", "onload"] {
            assert!(!html.contains(foreign), "{foreign} is in it");
        }
        // Phases, and for each database the whole and its gap.
        assert_eq!(html.matches("<svg ").count(), 5);
    }
}

#[test]
fn text_is_never_markup() {
    let failed = stored(failed());
    let html = render(&failed, &[], Format::Html).unwrap();
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}"));
    assert!(html.contains("&lt;b&gt;|"), "the operator's name");
    let xml = render(&failed, &[], Format::Junit).unwrap();
    assert_eq!(unbalanced(&xml), Vec::<String>::new());
    assert!(xml.contains("failures=\"2\""), "the verdict and the lost writes: {xml}");
    let markdown = render(&failed, &[], Format::Md).unwrap();
    let row = markdown.lines().find(|line| line.contains("&lt;script>")).unwrap();
    assert_eq!(row.replace("\\|", "").matches('|').count(), 4, "three cells: {row}");
}

#[test]
fn every_reason_and_every_fault_stands_in_the_report() {
    let failed = stored(failed());
    let markdown = render(&failed, &[], Format::Md).unwrap();
    assert!(failed.record.judgement.reasons.len() >= 2);
    for reason in &failed.record.judgement.reasons {
        // Once with the verdict, once among the deviations.
        assert_eq!(markdown.matches(reason.as_str()).count(), 2, "{reason}");
    }
    assert!(markdown.contains("mysqld-kill on db1 (holder)"));
    assert!(markdown.contains("OVER"), "the phase over its budget");
}

#[test]
fn earlier_runs_of_the_same_drill_stand_beside_it() {
    let earlier = |number: u64, drill: &str| {
        let mut record = passed();
        record.number = number;
        record.experiment.id = drill.into();
        Past::from(&record)
    };
    let mut record = passed();
    record.number = 40;
    let past: Vec<Past> =
        (1..40).map(|number| earlier(number, "mysqld-killed")).chain([earlier(39, "other")]).collect();
    let markdown = render(&stored(record), &past, Format::Md).unwrap();
    let section = markdown.split("## Beside earlier runs").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> =
        section.lines().filter(|line| line.contains(" UTC") || line.contains("2026-")).collect();
    assert_eq!(rows.len(), 11, "ten before it and this one: {section}");
    assert!(rows[0].starts_with("| 30 |") && rows[10].starts_with("| 40 |"), "{section}");
}

#[test]
fn a_run_that_was_much_slower_than_those_before_says_so() {
    let numbered = |number: u64, outage_ms: u64| {
        let mut record = passed();
        record.number = number;
        record.clients[0].outage_ms = outage_ms;
        record
    };
    let past: Vec<Past> = (1..4).map(|number| Past::from(&numbered(number, 400))).collect();
    let page = |outage_ms| render(&stored(numbered(4, outage_ms)), &past, Format::Md).unwrap();
    let slower = "mysql was away for 900 ms (record 4), the median of the 3 passes before is 400 ms";
    assert!(page(900).contains(slower) && !page(450).contains("was away for"));
}

#[test]
fn a_long_drill_is_drawn_small_and_its_gap_large() {
    use crate::evidence::{Bucket, Gap};
    let mut record = passed();
    let client = &mut record.clients[0];
    client.buckets = vec![Bucket { acknowledged: 10, failed: 0, slowest_ms: 4 }; 6_000];
    client.gaps = vec![Gap { from_ms: 1_000, to_ms: 1_400 }];
    record.clients.truncate(1);
    let html = render(&stored(record), &[], Format::Html).unwrap();
    assert_eq!(html.matches("<svg ").count(), 3, "phases, the whole, the gap");
    assert!(html.matches("class=\"ok\"").count() < 450, "buckets are put together");
}

#[test]
fn a_record_of_nothing_is_reported_too() {
    let mut record = passed();
    record.ending = crate::evidence::Ending::Refused { why: "quorum: 2 of 3".into() };
    record.faults.clear();
    record.timeline.clear();
    record.events.clear();
    record.clients.clear();
    record.probes.clear();
    record.invariants.clear();
    record.redundancy_ms = None;
    record.judgement = judge(&record);
    let stored = stored(record);
    for format in Format::ALL {
        let text = render(&stored, &[], format).unwrap();
        assert!(text.contains("REFUSED"), "{format:?}");
    }
}
