//! The key table as text: the commented example, the answer of `baton config explain`, and the reference page.

use std::fmt::Write;

use serde::Serialize;

use super::keys::{Key, Occurs, Preset, SECTIONS, Section, find};
use super::timing::{Profile, RULES, Rule};

/// Width of the example's comments.
const WIDTH: usize = 100;

/// A complete, commented configuration. It parses, and is valid.
#[must_use]
pub fn example() -> String {
    let mut out = String::new();
    for section in SECTIONS {
        if !out.is_empty() {
            out.push('\n');
        }
        comment(&mut out, section.doc);
        heading(&mut out, section);
        for key in section.keys {
            comment(&mut out, &format!("{} ({})", key.doc, key.form));
            let line = match key.preset {
                Preset::Required(value) | Preset::Value(value) => format!("{} = {value}", key.name),
                Preset::Nothing(value) if is_wanted(section, key) => format!("{} = {value}", key.name),
                Preset::Nothing(value) => format!("# {} = {value}", key.name),
                Preset::Profile => {
                    format!("# {} = \"{}\"", key.name, profile_value(key.name, Profile::Standard))
                }
            };
            out.push_str(&line);
            out.push('\n');
        }
        if let Occurs::Repeated(more) = section.occurs {
            for values in more {
                out.push('\n');
                heading(&mut out, section);
                for (key, value) in section.keys.iter().zip(*values) {
                    out.push_str(&format!("{} = {value}\n", key.name));
                }
            }
        }
    }
    out
}

/// A service needs one of two keys; the example takes the container.
fn is_wanted(section: &Section, key: &Key) -> bool {
    section.name == "service" && key.name == "container"
}

fn heading(out: &mut String, section: &Section) {
    match section.occurs {
        Occurs::Top => out.push('\n'),
        Occurs::Once | Occurs::Optional => out.push_str(&format!("[{}]\n", section.name)),
        Occurs::Repeated(_) => out.push_str(&format!("[[{}]]\n", section.name)),
    }
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// An example of a value, as TOML.
pub(super) fn value(key: &Key) -> String {
    match key.preset {
        Preset::Required(value) | Preset::Value(value) | Preset::Nothing(value) => value.to_owned(),
        Preset::Profile => format!("\"{}\"", profile_value(key.name, Profile::Standard)),
    }
}

fn profile_value(key: &str, profile: Profile) -> String {
    let values = profile.timing().values();
    values.iter().find(|(name, _)| *name == key).map_or_else(String::new, |(_, value)| value.to_string())
}

fn absent(key: &Key) -> String {
    match key.preset {
        Preset::Required(_) => "must be written".to_owned(),
        Preset::Value(value) => value.to_owned(),
        Preset::Nothing(_) => "nothing".to_owned(),
        Preset::Profile => {
            let values = Profile::ALL.map(|p| format!("{} {}", p.as_str(), profile_value(key.name, p)));
            values.join(", ")
        }
    }
}

/// What a key or a section means.
///
/// # Errors
/// There is no such key; the message names keys that look like it.
pub fn explain(path: &str) -> Result<String, String> {
    if let Some((section, key)) = find(path) {
        return Ok(explain_key(section, key));
    }
    if let Some(section) = SECTIONS.iter().find(|s| !s.name.is_empty() && s.name == path) {
        let mut out = format!("[{}]\n  {}\n", section.name, section.doc);
        for key in section.keys {
            let _ = write!(out, "\n{}", explain_key(section, key));
        }
        return Ok(out);
    }
    let word = path.rsplit('.').next().unwrap_or(path);
    let near: Vec<String> = SECTIONS
        .iter()
        .flat_map(|s| s.keys.iter().map(move |k| full_name(s, k)))
        .filter(|name| {
            !word.is_empty()
                && (name.contains(word) || word.contains(name.rsplit('.').next().unwrap_or(name)))
        })
        .collect();
    let hint = if near.is_empty() {
        "`baton config default` prints all keys".to_owned()
    } else {
        format!("there is {}", near.join(", "))
    };
    Err(format!("there is no key {path}; {hint}"))
}

/// Every key by its full name, section by section, a line each.
#[must_use]
pub fn keys() -> String {
    let names = SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| full_name(section, key)));
    names.collect::<Vec<_>>().join("\n")
}

fn full_name(section: &Section, key: &Key) -> String {
    if section.name.is_empty() { key.name.to_owned() } else { format!("{}.{}", section.name, key.name) }
}

fn explain_key(section: &Section, key: &Key) -> String {
    let mut out = format!(
        "{}\n  {}\n  written as: {}\n  if absent: {}\n",
        full_name(section, key),
        key.doc,
        key.form,
        absent(key)
    );
    for rule in rules(section, key) {
        let _ = writeln!(out, "  must hold: {}; otherwise {}", rule.text, rule.because);
    }
    out
}

/// The inequalities in which a key stands.
fn rules(section: &Section, key: &Key) -> impl Iterator<Item = &'static Rule> {
    let (is_timing, name) = (section.name == "timing", key.name);
    RULES.iter().filter(move |rule| {
        let mut words = rule.text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        is_timing && words.any(|word| word == name)
    })
}

/// A key, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyEntry {
    /// Its full name.
    pub key: String,
    /// What it means.
    pub means: &'static str,
    /// How its value is written.
    pub written_as: &'static str,
    /// What holds without it, in words.
    pub if_absent: String,
    /// The inequalities that it must keep.
    pub must_hold: Vec<&'static str>,
}

/// What a key means, or each of a section; `None`: all keys.
///
/// # Errors
/// As [`explain`].
pub fn entries(path: Option<&str>) -> Result<Vec<KeyEntry>, String> {
    let entry = |section: &Section, key: &Key| KeyEntry {
        key: full_name(section, key),
        means: key.doc,
        written_as: key.form,
        if_absent: absent(key),
        must_hold: rules(section, key).map(|rule| rule.text).collect(),
    };
    let Some(path) = path else {
        return Ok(SECTIONS.iter().flat_map(|s| s.keys.iter().map(move |key| entry(s, key))).collect());
    };
    if let Some((section, key)) = find(path) {
        return Ok(vec![entry(section, key)]);
    }
    match SECTIONS.iter().find(|s| !s.name.is_empty() && s.name == path) {
        Some(section) => Ok(section.keys.iter().map(|key| entry(section, key)).collect()),
        // It says which keys look like it.
        None => explain(path).map(|_| Vec::new()),
    }
}

/// The reference page, `docs/config.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\nMade from the table in `node/src/config/keys.rs`; a test keeps the two together \
         (`REWRITE=1 cargo test -p baton-node --test docs` writes this page anew).\n\n\
         `baton config default` prints a complete example, `baton config explain KEY` one entry of this page, and \
         `baton config check` reads a file as the agent would.\n",
    );
    for section in SECTIONS {
        let title = match section.occurs {
            Occurs::Top => "Top of the file".to_owned(),
            Occurs::Once => format!("`[{}]`", section.name),
            Occurs::Optional => format!("`[{}]` (optional)", section.name),
            Occurs::Repeated(_) => format!("`[[{}]]` (repeated)", section.name),
        };
        let _ = write!(out, "\n## {title}\n\n{}\n\n", section.doc);
        if section.name == "timing" {
            timing_tables(&mut out, section);
            continue;
        }
        out.push_str("| key | written as | if absent | meaning |\n|---|---|---|---|\n");
        for key in section.keys {
            let if_absent = match key.preset {
                Preset::Value(value) => format!("`{value}`"),
                Preset::Required(_) | Preset::Nothing(_) | Preset::Profile => absent(key),
            };
            let _ = writeln!(out, "| `{}` | {} | {if_absent} | {} |", key.name, key.form, key.doc);
        }
    }
    out
}

fn timing_tables(out: &mut String, section: &Section) {
    out.push_str("| key | fast | standard | relaxed | meaning |\n|---|---|---|---|---|\n");
    for key in section.keys {
        let [fast, standard, relaxed] = Profile::ALL.map(|p| profile_value(key.name, p));
        let _ = writeln!(out, "| `{}` | {fast} | {standard} | {relaxed} | {} |", key.name, key.doc);
    }
    out.push_str(
        "\nInequalities, checked when the file is read. Clock *rates* are assumed to be within 5 %.\n\n",
    );
    out.push_str("| must hold | otherwise |\n|---|---|\n");
    for rule in RULES {
        let _ = writeln!(out, "| `{}` | {} |", rule.text, rule.because);
    }
    out.push_str(
        "\nThe first one is the longest time without a grant when the Raft leader is lost: a follower campaigns when \
         it has heard nothing for `election_max` plus a draw of at most `election_max`, seen at a tick of 13/64 \
         `heartbeat`; pre-vote, vote and the first entry of the new term take three round trips and three synced \
         writes, the next renewal one round trip; and a renewal may have been lost just before and just after.\n",
    );
}
