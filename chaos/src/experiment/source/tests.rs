//! Files of drills: three forms, one meaning; every mistake names its line.

use proptest::prelude::*;

use super::*;
use crate::experiment::{Span, shipped};

const YAML: &str = r#"# A drill in YAML.
schema: drill/v1
id: yaml-drill
title: The database server dies
description: The same in YAML.
level: L3
slo:
  outage:
    mysql: 10s
targets:
  holder: { role: holder, count: 1 }
steady_state:
  - name: writes go on
    probe: mysql-writes
    mode: [continuous]
    tolerance: { at_least: 90 }
method:
  - fault: mysqld-kill
    target: holder
    duration: 30s
    verify: { within: 1s, expect: process-gone }
"#;

const TOML: &str = r#"# A drill in TOML.
schema = "drill/v1"
id = "yaml-drill"
title = "The database server dies"
description = "The same in YAML."
level = "L3"
slo.outage.mysql = "10s"
targets.holder = { role = "holder", count = 1 }

[[steady_state]]
name = "writes go on"
probe = "mysql-writes"
mode = ["continuous"]
tolerance = { at_least = 90 }

[[method]]
fault = "mysqld-kill"
target = "holder"
duration = "30s"
verify = { within = "1s", expect = "process-gone" }
"#;

fn json() -> String {
    let source = Source::parse("drill.toml", Form::Toml, TOML).unwrap();
    serde_json::to_string_pretty(&source.experiment).unwrap()
}

#[test]
fn three_forms_of_one_drill_say_the_same() {
    let toml = Source::parse("drill.toml", Form::Toml, TOML).unwrap();
    let yaml = Source::parse("drill.yaml", Form::Yaml, YAML).unwrap();
    let json = Source::parse("drill.json", Form::Json, &json()).unwrap();
    assert_eq!(toml.experiment, yaml.experiment);
    assert_eq!(toml.experiment, json.experiment);
    assert_ne!(toml.sha256(), yaml.sha256(), "the text is hashed, not what it says");
}

#[test]
fn every_form_knows_the_lines_of_its_keys() {
    let line = |text: &str, of: &str| text.lines().position(|line| line.contains(of)).unwrap() + 1;
    let json = json();
    for (form, text) in [(Form::Toml, TOML), (Form::Yaml, YAML), (Form::Json, json.as_str())] {
        let source = Source::parse("drill", form, text).unwrap();
        assert_eq!(source.line_of("method[0].duration"), Some(line(text, "duration")), "{form:?}");
        assert_eq!(source.line_of("steady_state[0].probe"), Some(line(text, "probe")), "{form:?}");
        // What is not there has the line of what it would stand in.
        assert_eq!(source.line_of("method[0].peer"), source.line_of("method[0]"), "{form:?}");
        assert!(!source.says("method[0].peer"));
        assert_eq!(source.line_of("nothing"), None);
    }
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let json = json();
    let cases = [
        (Form::Toml, TOML, "duration =", "durration =", "durration"),
        (Form::Yaml, YAML, "    duration:", "    durration:", "durration"),
        (Form::Json, json.as_str(), "\"duration\":", "\"durration\":", "durration"),
        (Form::Toml, TOML, "at_least", "atleast", "atleast"),
        (Form::Yaml, YAML, "at_least", "atleast", "atleast"),
    ];
    for (form, text, from, to, key) in cases {
        let text = text.replacen(from, to, 1);
        let wanted = text.lines().position(|line| line.contains(key)).unwrap() + 1;
        let error = Source::parse("drill", form, &text).unwrap_err();
        assert!(error.message.contains(key), "{form:?}: {error}");
        assert_eq!(error.at.map(|(line, _)| line), Some(wanted), "{form:?}: {error}");
        assert!(error.to_string().starts_with(&format!("drill:{wanted}:")), "{error}");
    }
}

#[test]
fn values_that_are_none_are_errors_that_say_what_may_stand_there() {
    let cases = [
        ("mysqld-kill", "mysqld-kil", "unknown variant"),
        ("\"30s\"", "\"30\"", "no length of time"),
        ("\"30s\"", "30", "invalid type"),
        ("\"30s\"", "\"0.0001s\"", "whole number of milliseconds"),
        ("\"L3\"", "\"L9\"", "unknown variant"),
        ("level = \"L3\"", "", "missing field `level`"),
        ("id = \"yaml-drill\"", "id = \"yaml-drill\"\nid = \"twice\"", "duplicate"),
    ];
    for (from, to, says) in cases {
        let text = TOML.replacen(from, to, 1);
        let error = Source::parse("drill.toml", Form::Toml, &text).unwrap_err();
        assert!(error.message.contains(says), "{to:?}: {error}");
    }
    let long = format!("{TOML}\n#{}", "x".repeat(FILE_MAX));
    assert!(Source::parse("drill.toml", Form::Toml, &long).unwrap_err().message.contains("longer"));
}

#[test]
fn forms_go_by_the_ending() {
    for (name, form) in
        [("a.toml", Form::Toml), ("a", Form::Toml), ("a.yml", Form::Yaml), ("a.json", Form::Json)]
    {
        assert_eq!(Form::of(Path::new(name)), form);
    }
}

#[test]
fn the_schema_knows_every_key_of_every_shipped_drill() {
    /// Keys of a value that the schema does not have at this place.
    fn unknown(
        root: &serde_json::Value,
        schema: &serde_json::Value,
        value: &serde_json::Value,
    ) -> Vec<String> {
        let reference = schema.get("$ref").or_else(|| schema.pointer("/anyOf/0/$ref"));
        let name = reference.and_then(|name| name.as_str()?.strip_prefix("#/$defs/"));
        let schema = name.map_or(schema, |name| &root["$defs"][name]);
        match value {
            serde_json::Value::Object(entries) => {
                let each = entries.iter().flat_map(|(key, value)| {
                    let inner = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
                    match inner {
                        Some(inner) if inner.is_object() => unknown(root, inner, value),
                        _ => vec![key.clone()],
                    }
                });
                each.collect()
            }
            serde_json::Value::Array(list) => {
                list.iter().flat_map(|value| unknown(root, &schema["items"], value)).collect()
            }
            _ => Vec::new(),
        }
    }
    let schema = crate::schema::schema();
    for id in shipped::ids() {
        let value = serde_json::to_value(shipped::named(id).unwrap().experiment).unwrap();
        assert_eq!(unknown(&schema, &schema, &value), Vec::<String>::new(), "{id}");
    }
    let value = serde_json::json!({"slo": {"outtage": 3}});
    assert_eq!(unknown(&schema, &schema, &value), ["outtage"], "what it is to find, it finds");
}

#[test]
fn a_new_drill_is_the_shipped_one_by_another_name() {
    let text = shipped::template("my-drill", "holder-isolated").unwrap();
    let source = Source::parse("my-drill.toml", Form::Toml, &text).unwrap();
    let mut shipped = shipped::named("holder-isolated").unwrap().experiment;
    shipped.id = "my-drill".into();
    assert_eq!(source.experiment, shipped);
    assert!(shipped::template("my-drill", "nothing").is_err());
}

proptest! {
    #[test]
    fn a_length_of_time_is_read_as_it_is_written(ms in 0_u64..=365 * 86_400_000) {
        let span = Span::from_ms(ms);
        prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
    }

    #[test]
    fn no_text_is_read_as_a_length_by_accident(text in "[0-9.smhd ]{0,12}|\\PC{0,8}") {
        if let Ok(span) = text.parse::<Span>() {
            prop_assert!(span.ms() <= 365 * 86_400_000);
            prop_assert!(text.ends_with(|c: char| c.is_ascii_lowercase()) && !text.contains(' '));
        }
    }

    /// A file with a part cut out or replaced gives a drill or an error with a place in it, in every form.
    #[test]
    fn damaged_files_do_not_confuse_it(from in 0_usize..600, length in 0_usize..40, put in "\\PC{0,6}") {
        let json = json();
        for (form, text) in [(Form::Toml, TOML), (Form::Yaml, YAML), (Form::Json, json.as_str())] {
            let from = from.min(text.len());
            let to = (from + length).min(text.len());
            let damaged = format!("{}{put}{}", &text[..from], &text[to..]);
            if let Err(error) = Source::parse("drill", form, &damaged) {
                let lines = damaged.lines().count() + 1;
                prop_assert!(error.at.is_none_or(|(line, _)| (1..=lines).contains(&line)), "{}", error);
                prop_assert!(!error.message.is_empty());
            }
        }
    }
}
