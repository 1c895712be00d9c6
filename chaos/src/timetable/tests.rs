//! Files, diaries and what follows from records, without a scheduler.

use super::*;
use crate::evidence::sample;

const WEEKLY: &str = r#"
[[drill]]
name = "switchover-and-back"
every = "7d"
window = "Tue-Thu 10:00-16:00"
zone = "UTC"
jitter = "30m"

[[drill]]
name = "rehearsal"
every = "1d"
window = "04:00-05:00"
cooldown = "10m"
"#;

fn parse(text: &str) -> Result<Timetable, TimetableError> {
    Timetable::parse(Path::new("drill-schedule.toml"), text)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn skipped(at: &str, why: &str) -> Note {
    let what = What::Skipped(Obstacle::NotReady { why: why.into() });
    Note { at: self::at(at), drill: "switchover-and-back".into(), what }
}

#[test]
fn a_file_says_what_runs_when() {
    let timetable = parse(WEEKLY).unwrap();
    let [weekly, daily] = &timetable.entries[..] else { panic!("{timetable:?}") };
    assert_eq!(weekly.drill, "switchover-and-back");
    assert_eq!(weekly.schedule.window.weekdays.len(), 3);
    assert_eq!((weekly.schedule.cooldown, daily.schedule.cooldown), (COOLDOWN, "10m".parse().unwrap()));
    assert_eq!(daily.schedule.window.weekdays.len(), 7);
}

#[test]
fn what_is_wrong_with_a_file_is_named_with_its_line() {
    let said = |text: &str| baton_node::chain::chain(&parse(text).unwrap_err());
    let unknown = said(&WEEKLY.replace("jitter", "jiter"));
    assert!(unknown.contains("line 7") && unknown.contains("jiter"), "{unknown}");
    let window = said(&WEEKLY.replace("04:00-05:00", "four to five"));
    assert!(window.contains("four to five"), "{window}");
    let zone = said(&WEEKLY.replace("\"UTC\"", "\"Atlantis\""));
    assert!(zone.contains("Atlantis"), "{zone}");
    let twice = said(&WEEKLY.replace("rehearsal", "switchover-and-back"));
    assert!(twice.contains("twice"), "{twice}");
}

#[test]
fn a_skip_is_noted_once_per_window_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let timetable = parse(WEEKLY).unwrap();
    let write = |note: &Note| super::note(dir.path(), &timetable.entries[0], note).unwrap();
    write(&skipped("2026-12-01T10:30:00Z", "not in sync"));
    write(&skipped("2026-12-01T10:35:00Z", "not in sync"));
    write(&skipped("2026-12-01T10:40:00Z", "paused"));
    write(&skipped("2026-12-02T10:30:00Z", "paused"));
    let hours: Vec<String> = diary(dir.path()).iter().map(|note| note.at.to_string()).collect();
    assert_eq!(hours, ["2026-12-01T10:30:00Z", "2026-12-01T10:40:00Z", "2026-12-02T10:30:00Z"]);
}

#[test]
fn half_a_line_spoils_neither_what_was_before_nor_what_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let timetable = parse(WEEKLY).unwrap();
    let write = |note: &Note| super::note(dir.path(), &timetable.entries[0], note).unwrap();
    write(&skipped("2026-12-01T10:30:00Z", "paused"));
    let path = dir.path().join(DIARY);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"at\":\"2026-\xff");
    fs::write(&path, bytes).unwrap();
    assert_eq!(diary(dir.path()).len(), 1);
    write(&skipped("2026-12-02T10:30:00Z", "paused"));
    assert_eq!(diary(dir.path()).len(), 2);
}

fn entry(id: &str) -> Entry {
    let mut entry = parse(WEEKLY).unwrap().entries.remove(0);
    (entry.drill, entry.id) = (id.to_owned(), id.to_owned());
    entry
}

#[test]
fn what_was_refused_was_not_run_and_what_failed_waits_for_a_pass() {
    let mut record = sample::passed();
    let entry = entry(&record.experiment.id);
    let facts = |records: &[Record]| super::facts(&entry, records, &[]);
    let passed = facts(&[record.clone()]);
    assert_eq!((passed.last_begun, passed.obstacles.len()), (Some(record.started), 0));
    assert_eq!(passed.last_disturbance, Some(record.ended));
    record.judgement.verdict = Verdict::Refused;
    assert_eq!(facts(&[record.clone()]), Facts::default());
    record.judgement.verdict = Verdict::Fail;
    let failed = record.clone();
    let waits = [Obstacle::LastFailed { record: record.number }];
    assert_eq!(facts(std::slice::from_ref(&failed)).obstacles, waits);
    // An aborted run shows nothing; one that passed does.
    record.judgement.verdict = Verdict::Aborted;
    assert_eq!(facts(&[failed.clone(), record.clone()]).obstacles, waits);
    record.judgement.verdict = Verdict::Degraded;
    assert_eq!(facts(&[failed.clone(), record]).obstacles, []);
    // Another drill's failure is a disturbance and nothing else.
    assert_eq!(super::facts(&self::entry("another"), &[failed], &[]).obstacles, []);
}

#[test]
fn a_drill_whose_runner_died_is_not_run_again_before_its_time() {
    let entry = entry("rehearsal");
    let begun = Note { at: at("2026-12-01T10:30:00Z"), drill: entry.drill.clone(), what: What::Begun };
    assert_eq!(facts(&entry, &[], std::slice::from_ref(&begun)).last_begun, Some(begun.at));
    // It was not begun after all.
    let skipped = Note { drill: entry.drill.clone(), ..skipped("2026-12-01T10:30:01Z", "in-sync: no") };
    assert_eq!(facts(&entry, &[], &[begun, skipped]).last_begun, None);
}

#[test]
fn the_table_says_when_and_why_not() {
    let timetable = parse(WEEKLY).unwrap();
    let diary = [skipped("2026-12-01T10:30:00Z", "the replica is not in sync")];
    let text = show(&timetable, &[], &diary, at("2026-12-04T12:00:00Z"));
    assert!(text.contains("switchover-and-back: due Tue 2026-12-08 10:"), "{text}");
    assert!(text.contains("never ran"), "{text}");
    assert!(text.contains("skipped Tue 2026-12-01 10:30 UTC: the replica is not in sync"), "{text}");
}
