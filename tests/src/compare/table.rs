//! The tables of the comparison, and their places in the documents. Pure, but for [`write_documents`].

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use baton_chaos::history::Kind;

use super::{Cell, Comparison, FAULTS, SYSTEMS};
use crate::fault::Fault;

const BEGIN: &str = "<!-- compare:begin -->\n";
const END: &str = "<!-- compare:end -->";
/// A fault that cannot happen to a system, or data that it does not look after.
const NOT_APPLICABLE: &str = "n/a";

/// Writes the tables between the marks of README.md and docs/comparison.md.
///
/// # Errors
/// A document is not there or has no marks.
pub fn write_documents(comparison: &Comparison, root: &Path) -> Result<()> {
    for (name, table) in [("README.md", short(comparison)), ("docs/comparison.md", full(comparison))] {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {name}"))?;
        let text = replaced(&text, &table).with_context(|| format!("{name} has no place for a table"))?;
        std::fs::write(&path, text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

/// The text with other contents between the marks; none if a mark is missing.
fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// One line per fault and system. A fault that no system was tried with has none.
#[must_use]
pub fn full(comparison: &Comparison) -> String {
    let mut text = String::from(
        "| fault | system | outage MySQL | outage Redis | lost MySQL | lost Redis | two holders |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for fault in tried(comparison) {
        for system in SYSTEMS.into_iter().filter(|system| comparison.systems.contains_key(*system)) {
            let [mysql, redis, lost_mysql, lost_redis, two] = match look(comparison, system, fault) {
                Look::NotApplicable => [NOT_APPLICABLE; 5].map(String::from),
                Look::NotMeasured => ["not measured"; 5].map(String::from),
                Look::Measured(cell) => [
                    outage(cell, Kind::Mysql),
                    outage(cell, Kind::Redis),
                    lost(cell, Kind::Mysql),
                    lost(cell, Kind::Redis),
                    two_holders(cell),
                ],
            };
            let _ = writeln!(
                text,
                "| `{fault}` | {system} | {mysql} | {redis} | {lost_mysql} | {lost_redis} | {two} |"
            );
        }
    }
    text + &notes(comparison)
}

/// One line per fault, one column per system: outage, lost writes, two holders; of MySQL, or of what the system looks after.
#[must_use]
pub fn short(comparison: &Comparison) -> String {
    let systems: Vec<&str> =
        SYSTEMS.into_iter().filter(|system| comparison.systems.contains_key(*system)).collect();
    let mut text = format!("| fault | {} |\n|---{}|\n", systems.join(" | "), "|---".repeat(systems.len()));
    for fault in tried(comparison) {
        let cells = systems.iter().map(|system| match look(comparison, system, fault) {
            Look::NotApplicable => NOT_APPLICABLE.to_owned(),
            Look::NotMeasured => "not measured".to_owned(),
            Look::Measured(cell) => {
                let kind = if cell.outage_ms.contains_key(&Kind::Mysql) { Kind::Mysql } else { Kind::Redis };
                format!("{} · {} · {}", outage(cell, kind), lost(cell, kind), two_holders(cell))
            }
        });
        let _ = writeln!(text, "| `{fault}` | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text + &notes(comparison)
}

/// The faults that any system was tried with.
fn tried(comparison: &Comparison) -> impl Iterator<Item = &'static str> {
    let is_tried = move |fault: &&str| comparison.systems.values().any(|faults| faults.contains_key(*fault));
    FAULTS.into_iter().map(Fault::name).filter(is_tried)
}

enum Look<'a> {
    Measured(&'a Cell),
    NotMeasured,
    NotApplicable,
}

fn look<'a>(comparison: &'a Comparison, system: &str, fault: &str) -> Look<'a> {
    let left_out = comparison.not_applicable.get(system);
    if left_out.is_some_and(|faults| faults.iter().any(|name| name == fault)) {
        return Look::NotApplicable;
    }
    let cell = comparison.systems.get(system).and_then(|faults| faults.get(fault));
    cell.filter(|cell| !cell.two_holders_ms.is_empty()).map_or(Look::NotMeasured, Look::Measured)
}

/// `1.42 s`, with the worst in brackets if there is more than one run.
fn outage(cell: &Cell, kind: Kind) -> String {
    let Some(each) = cell.outage_ms.get(&kind) else { return NOT_APPLICABLE.into() };
    let (Some(median), Some(worst)) = (median(each), each.iter().max()) else {
        return "not measured".into();
    };
    let at_least = if cell.not_served_again > 0 { "≥ " } else { "" };
    if each.len() == 1 {
        format!("{at_least}{}", seconds(median))
    } else {
        format!("{at_least}{} ({})", seconds(median), seconds(*worst))
    }
}

fn lost(cell: &Cell, kind: Kind) -> String {
    let unread = cell.unread.contains_key(&kind);
    match cell.lost_acknowledged.get(&kind) {
        Some(lost) if unread => format!("{lost} + ?"),
        Some(lost) => lost.to_string(),
        None if unread => "?".into(),
        None => NOT_APPLICABLE.into(),
    }
}

/// The worst run.
fn two_holders(cell: &Cell) -> String {
    match cell.two_holders_ms.iter().max() {
        Some(0) => "0".into(),
        Some(ms) => format!("{ms} ms"),
        None => "not measured".into(),
    }
}

/// What a reader of the figures must know of runs that are not like the others.
fn notes(comparison: &Comparison) -> String {
    let mut text = String::new();
    for (system, fault, cell) in cells(comparison) {
        let runs = cell.two_holders_ms.len();
        if cell.not_served_again > 0 {
            let _ = writeln!(
                text,
                "- {system}, `{fault}`: not served again while watched in {} of {runs}.",
                cell.not_served_again
            );
        }
        if cell.not_measured > 0 {
            let _ = writeln!(
                text,
                "- {system}, `{fault}`: {} more did not come about, or nobody can vouch for.",
                cell.not_measured
            );
        }
    }
    let head = match comparison.runs {
        1 => "One run each.".to_owned(),
        runs => format!("{runs} runs each at most: the median, the worst in brackets."),
    };
    let gap = if text.is_empty() { "" } else { "\n" };
    format!("\n{head}\n{gap}{text}")
}

/// Every pair that was tried, in the order of the tables.
fn cells(comparison: &Comparison) -> impl Iterator<Item = (&'static str, &'static str, &Cell)> {
    FAULTS.into_iter().flat_map(move |fault| {
        SYSTEMS.into_iter().filter_map(move |system| {
            Some((system, fault.name(), comparison.systems.get(system)?.get(fault.name())?))
        })
    })
}

/// The middle one; of two middle ones the greater.
fn median(each: &[u64]) -> Option<u64> {
    let mut sorted = each.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn seconds(ms: u64) -> String {
    format!("{:.2} s", std::time::Duration::from_millis(ms).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(mysql: &[u64], redis: &[u64], two: &[u64]) -> Cell {
        let outage = [(Kind::Mysql, mysql.to_vec()), (Kind::Redis, redis.to_vec())];
        let looked_after = outage.into_iter().filter(|(_, each)| !each.is_empty());
        let outage_ms: std::collections::BTreeMap<_, _> = looked_after.collect();
        Cell {
            lost_acknowledged: outage_ms.keys().map(|kind| (*kind, 0)).collect(),
            outage_ms,
            two_holders_ms: two.to_vec(),
            ..Cell::default()
        }
    }

    fn comparison() -> Comparison {
        let mut all = Comparison { runs: 3, ..Comparison::default() };
        *all.cell("baton-standard", "mysqld-kill") = cell(&[1500, 1300, 1400], &[90, 70, 80], &[0, 0, 0]);
        *all.cell("keepalived-1s", "mysqld-kill") = cell(&[3000, 2000, 2500], &[1, 1, 1], &[0, 5400, 10]);
        *all.cell("redis-sentinel", "power-loss") = cell(&[], &[2000], &[0]);
        all.leave_out("redis-sentinel", "mysqld-kill");
        all
    }

    #[test]
    fn the_full_table_has_a_line_for_every_pair() {
        let text = full(&comparison());
        assert!(
            text.contains(
                "| `mysqld-kill` | baton-standard | 1.40 s (1.50 s) | 0.08 s (0.09 s) | 0 | 0 | 0 |\n"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "| `mysqld-kill` | keepalived-1s | 2.50 s (3.00 s) | 0.00 s (0.00 s) | 0 | 0 | 5400 ms |\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("| `mysqld-kill` | redis-sentinel | n/a | n/a | n/a | n/a | n/a |\n"),
            "{text}"
        );
        assert!(text.contains("| `power-loss` | redis-sentinel | n/a | 2.00 s | n/a | 0 | 0 |\n"), "{text}");
        assert!(text.contains("| `power-loss` | baton-standard | not measured |"), "{text}");
        let lines = text.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(lines, 2 * 3, "two faults were tried, and three systems: {text}");
        assert!(!text.contains("pacemaker"), "a system that was not tried has no line: {text}");
    }

    #[test]
    fn the_short_table_has_a_column_for_every_system() {
        let text = short(&comparison());
        assert!(
            text.starts_with(
                "| fault | baton-standard | keepalived-1s | redis-sentinel |\n|---|---|---|---|\n"
            )
        );
        let line = "| `mysqld-kill` | 1.40 s (1.50 s) · 0 · 0 | 2.50 s (3.00 s) · 0 · 5400 ms | n/a |\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| `power-loss` | not measured | not measured | 2.00 s · 0 · 0 |\n"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_shown_as_nothing() {
        let mut odd = cell(&[100, 200], &[100, 200], &[0, 0]);
        odd.unread.insert(Kind::Mysql, 1);
        odd.lost_acknowledged.remove(&Kind::Redis);
        odd.unread.insert(Kind::Redis, 2);
        odd.not_served_again = 1;
        odd.not_measured = 1;
        assert_eq!(lost(&odd, Kind::Mysql), "0 + ?");
        assert_eq!(lost(&odd, Kind::Redis), "?");
        assert_eq!(outage(&odd, Kind::Mysql), "≥ 0.20 s (0.20 s)");
        let mut all = Comparison { runs: 2, ..Comparison::default() };
        *all.cell("pacemaker", "link-down") = odd;
        all.cell("pacemaker", "redis-kill").not_measured = 2;
        let text = full(&all);
        assert!(text.contains("pacemaker, `link-down`: not served again while watched in 1 of 2."), "{text}");
        assert!(text.contains("pacemaker, `redis-kill`: 2 more did not come about"), "{text}");
        assert!(text.contains("| `redis-kill` | pacemaker | not measured |"), "{text}");
    }

    #[test]
    fn the_median_is_the_middle_one_in_whatever_order_they_come() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7]), Some(7));
        assert_eq!(median(&[9, 1, 5]), Some(5));
        assert_eq!(median(&[1, 9]), Some(9));
    }

    #[test]
    fn a_table_replaces_the_one_before_and_nothing_else() {
        let text = format!("before\n\n{BEGIN}old\n{END}\n\nafter\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("before\n\n{BEGIN}new\n{END}\n\nafter\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert_eq!(replaced("no marks", "new\n"), None);
    }
}
