//! The verbs on paper: what they print, and what they exit with.

use clap::{FromArgMatches as _, Subcommand as _};

use super::*;
use crate::evidence::sample::passed;

fn desk(dir: &Path) -> Desk {
    Desk {
        drills: dir.join("drills"),
        records: dir.join("records"),
        now: "2026-12-07T19:00:00Z".parse().unwrap(),
        json: false,
        roles: None,
        ledger_head: None,
        witnesses: Vec::new(),
    }
}

/// Does what is typed.
fn typed(words: &str, desk: &Desk) -> Result<Answer, PaperError> {
    let command = Paper::augment_subcommands(clap::Command::new("drill")).no_binary_name(true);
    let matches = command.try_get_matches_from(words.split(' ')).unwrap();
    run(&Paper::from_arg_matches(&matches).unwrap(), desk)
}

#[test]
fn the_verbs_fit_together() {
    Paper::augment_subcommands(clap::Command::new("drill")).debug_assert();
}

#[test]
fn an_own_drill_goes_before_a_shipped_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(dir.path());
    assert_eq!(find("mysqld-killed", &desk).unwrap().file, "mysqld-killed.toml");
    let text = typed("new mysqld-killed --from mysqld-frozen", &desk).unwrap().text;
    std::fs::create_dir(&desk.drills).unwrap();
    std::fs::write(desk.drills.join("mysqld-killed.toml"), text).unwrap();
    std::fs::write(desk.drills.join("broken.yaml"), "schema: [").unwrap();
    let own = find("mysqld-killed", &desk).unwrap();
    assert_eq!(own.experiment.method[0].fault, Fault::MysqldFreeze);
    let list = typed("list", &desk).unwrap().text;
    assert_eq!(list.lines().filter(|line| line.contains(" mysqld-killed ")).count(), 1, "{list}");
    assert!(list.contains("broken.yaml:"), "{list}");
    assert!(list.lines().next().unwrap().starts_with("L1"), "{list}");
    assert!(find("nothing", &desk).unwrap_err().message.contains("drill list"));
}

#[test]
fn new_lint_and_mend() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(dir.path());
    let path = dir.path().join("mine.toml");
    let text = typed("new mine", &desk).unwrap().text;
    std::fs::write(&path, &text).unwrap();
    let lint = format!("lint {}", path.display());
    assert_eq!(typed(&lint, &desk).unwrap(), Answer { text: "OK".into(), exit: 0 });
    std::fs::write(&path, text.replacen("count = 1", "count = 3", 1)).unwrap();
    let answer = typed(&lint, &desk).unwrap();
    assert_eq!(answer.exit, 1);
    assert!(answer.text.contains("error[blast-radius]"), "{}", answer.text);
    std::fs::write(&path, "schema = 3").unwrap();
    let json = Desk { json: true, ..desk.clone() };
    let answer = typed(&lint, &json).unwrap();
    let value: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    assert!(value["unreadable"][0].as_str().unwrap().contains("mine.toml:1:"), "{value}");
    assert_eq!(answer.exit, 1);
    assert!(typed("new ../mine", &desk).is_err(), "an id that would be another file's path");
}

#[test]
fn records_are_reported_listed_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path());
    assert!(matches!(typed("report", &desk), Err(PaperError::Store(StoreError::Unknown(_)))));
    assert!(typed("history", &desk).unwrap().text.contains("| mysqld-kill | 0 | 0 | never |"));
    let store = Store::open(&desk.records).unwrap();
    store.append(passed()).unwrap();
    let second = store.append(passed()).unwrap();
    assert!(typed("report", &desk).unwrap().text.starts_with("# Drill 2:"));
    assert!(typed("report 1 --format junit", &desk).unwrap().text.starts_with("<?xml"));
    let out = dir.path().join("out");
    let written = typed(&format!("report mysqld-killed --out {}", out.display()), &desk).unwrap().text;
    assert_eq!(written.lines().count(), 4, "all that the drill wants: {written}");
    assert!(written.lines().all(|path| Path::new(path).is_file()), "{written}");
    assert!(typed("history mysqld-killed", &desk).unwrap().text.contains("| mysqld-kill | 2 | 2 |"));
    desk.ledger_head = Some(second.hash.clone());
    let seen = typed("verify", &desk).unwrap();
    assert_eq!(seen.exit, 0, "{}", seen.text);
    assert!(seen.text.starts_with("OK: 2 records, the ledger holds the last one"), "{}", seen.text);
    std::fs::remove_file(&second.path).unwrap();
    let seen = typed("verify", &desk).unwrap();
    assert_eq!(seen.exit, 10);
    assert!(seen.text.contains("the end was cut off"), "{}", seen.text);
}

#[test]
fn a_plan_names_the_nodes_that_have_the_roles_now() {
    use crate::experiment::Role;
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path());
    let text = typed("plan lag-then-database", &desk).unwrap();
    assert_eq!(text.exit, 0);
    for step in
        ["1. replication-lag on backup", "arm", "inject", "effect", "heal", "2. mysqld-kill on holder"]
    {
        assert!(text.text.contains(step), "no {step} in {}", text.text);
    }
    assert!(text.text.contains("warning[both-data-nodes]"), "{}", text.text);
    desk.roles = Some(BTreeMap::from([(Role::Holder, vec!["db1".to_owned()])]));
    let text = typed("plan lag-then-database", &desk).unwrap().text;
    assert!(text.contains("holder = 1 x holder, now db1"), "{text}");
    assert!(text.contains("backup = 1 x backup, now nobody"), "{text}");
    // 90 s, a pause of 5 s, 45 s, and five minutes for redundancy.
    assert!(text.contains("440s altogether"), "{text}");
}

#[test]
fn faults_and_schema_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path());
    assert!(typed("explain partition", &desk).unwrap().text.contains("ended by    kernel"));
    assert!(matches!(typed("explain nothing", &desk), Err(PaperError::Fault(_))));
    desk.json = true;
    let all: serde_json::Value = serde_json::from_str(&typed("explain", &desk).unwrap().text).unwrap();
    assert_eq!(all.as_array().unwrap().len(), Fault::ALL.len());
    let schema: serde_json::Value = serde_json::from_str(&typed("schema", &desk).unwrap().text).unwrap();
    assert_eq!(schema["additionalProperties"], false);
}
