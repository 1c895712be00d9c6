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
fn half_a_line_spoils_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let timetable = parse(WEEKLY).unwrap();
    super::note(dir.path(), &timetable.entries[0], &skipped("2026-12-01T10:30:00Z", "paused")).unwrap();
    let path = dir.path().join(DIARY);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{{\"at\":\"2026-")).unwrap();
    assert_eq!(diary(dir.path()).len(), 1);
}

#[test]
fn what_was_refused_was_not_run_and_what_failed_waits_for_an_operator() {
    let mut record = sample::passed();
    let drill = record.experiment.id.clone();
    let passed = facts(&drill, &[record.clone()]);
    assert_eq!((passed.last_begun, passed.obstacles.len()), (Some(record.started), 0));
    assert_eq!(passed.last_disturbance, Some(record.ended));
    record.judgement.verdict = Verdict::Refused;
    assert_eq!(facts(&drill, &[record.clone()]), Facts::default());
    record.judgement.verdict = Verdict::Fail;
    let failed = facts(&drill, &[record.clone()]);
    assert_eq!(failed.obstacles, [Obstacle::LastFailed { record: record.number }]);
    // Another drill's failure is a disturbance and nothing else.
    assert_eq!(facts("another", &[record]).obstacles, []);
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
