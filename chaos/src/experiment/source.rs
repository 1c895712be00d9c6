//! A drill's file with its text and the line of every key, so that whatever is found wrong with it names a line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};

use super::Experiment;
use crate::evidence::ExperimentRef;

/// The longest file that is read, bytes. The shipped ones have about two thousand.
const FILE_MAX: usize = 256 * 1024;

/// Depth to which lines are noted; the form has five levels.
const DEPTH_MAX: usize = 16;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// What the shipped drills use.
    Toml,
    /// `.yaml`, `.yml`.
    Yaml,
    /// `.json`.
    Json,
}

impl Form {
    /// By the ending of a file's name; TOML if it says nothing.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// A drill with the text that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Name of the file, for messages.
    pub file: String,
    /// Its text; what is hashed.
    pub text: String,
    /// What it says.
    pub experiment: Experiment,
    lines: BTreeMap<String, usize>,
}

/// Why a file is no drill. Shown as `file:line:column: what`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// Name of the file.
    pub file: String,
    /// Line and column, from 1, where they are known.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl Source {
    /// Reads a file; its ending says how it is written.
    ///
    /// # Errors
    /// It cannot be read, is too long, or is no drill.
    pub fn read(path: &Path) -> Result<Self, ParseError> {
        let file = path.display().to_string();
        let failed = |message: String| ParseError { file: file.clone(), at: None, message };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&file, Form::of(path), &text)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// It is too long, has an unknown key, lacks one, or has a value of another kind.
    pub fn parse(file: &str, form: Form, text: &str) -> Result<Self, ParseError> {
        let failed = |at, message: String| ParseError { file: file.to_owned(), at, message };
        if text.len() > FILE_MAX {
            return Err(failed(None, format!("longer than {FILE_MAX} bytes")));
        }
        let (experiment, lines) = match form {
            Form::Toml => {
                let at = |error: toml::de::Error| {
                    let at = error.span().map(|span| position(text, span.start));
                    failed(at, error.message().to_owned())
                };
                (toml::from_str(text).map_err(at)?, toml_lines(text))
            }
            Form::Yaml => {
                let at = |error: serde_saphyr::Error| {
                    let error = error.without_snippet();
                    let at = error.location().and_then(saphyr_position);
                    failed(at, plain(&error.to_string()))
                };
                (serde_saphyr::from_str(text).map_err(at)?, yaml_lines(text))
            }
            Form::Json => {
                let at = |error: serde_json::Error| {
                    let at = (error.line() > 0).then(|| (error.line(), error.column()));
                    failed(at, plain(&error.to_string()))
                };
                // JSON is YAML where lines are concerned.
                (serde_json::from_str(text).map_err(at)?, yaml_lines(text))
            }
        };
        Ok(Self { file: file.to_owned(), text: text.to_owned(), experiment, lines })
    }

    /// The line of a key such as `method[0].duration`; if the file does not have it, that of what it would stand in.
    #[must_use]
    pub fn line_of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Whether the file itself has this key.
    #[must_use]
    pub fn says(&self, path: &str) -> bool {
        self.lines.contains_key(path)
    }

    /// SHA-256 of the text, hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        crate::evidence::hex(&Sha256::digest(self.text.as_bytes()).into())
    }

    /// What a record says of it.
    #[must_use]
    pub fn reference(&self) -> ExperimentRef {
        let experiment = &self.experiment;
        ExperimentRef {
            id: experiment.id.clone(),
            title: experiment.title.clone(),
            description: experiment.description.trim().to_owned(),
            level: experiment.level,
            sha256: self.sha256(),
            text: self.text.clone(),
            slo: experiment.slo.clone(),
            methods: u32::try_from(experiment.method.len()).unwrap_or(u32::MAX),
            wait_redundancy_ms: experiment.after.wait_redundancy.ms(),
            formats: experiment.report.formats.clone(),
        }
    }
}

/// Line and column, from 1, of a byte.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A message without the position that stands before it anyway.
fn plain(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let cut = message.rfind(" at line ").unwrap_or(message.len());
    let message = &message[..cut];
    let place = message.strip_prefix("error: ").unwrap_or(message);
    match place.split_once(": ") {
        Some((head, rest)) if head.starts_with("line ") => rest.to_owned(),
        _ => place.to_owned(),
    }
}

fn saphyr_position(location: serde_saphyr::Location) -> Option<(usize, usize)> {
    let line = usize::try_from(location.line()).ok().filter(|line| *line > 0)?;
    Some((line, usize::try_from(location.column()).ok()?))
}

fn toml_lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        let value = DeValue::Table(table.into_inner());
        toml_walk(text, "", &value, 0, &mut lines);
    }
    lines
}

fn toml_walk(text: &str, path: &str, value: &DeValue<'_>, depth: usize, lines: &mut BTreeMap<String, usize>) {
    if depth > DEPTH_MAX {
        return;
    }
    if let Some(table) = value.as_table() {
        for (key, value) in table {
            let path = under(path, key.get_ref());
            lines.insert(path.clone(), position(text, key.span().start).0);
            toml_walk(text, &path, value.get_ref(), depth + 1, lines);
        }
    } else if let Some(array) = value.as_array() {
        for (index, value) in array.iter().enumerate() {
            let path = format!("{path}[{index}]");
            lines.insert(path.clone(), position(text, value.span().start).0);
            toml_walk(text, &path, value.get_ref(), depth + 1, lines);
        }
    }
}

fn under(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A document of which only the places are of interest.
enum Places {
    Leaf,
    List(Vec<serde_saphyr::Spanned<Places>>),
    Table(Vec<(serde_saphyr::Spanned<String>, serde_saphyr::Spanned<Places>)>),
}

struct PlacesVisitor;

impl<'de> Visitor<'de> for PlacesVisitor {
    type Value = Places;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Places, E> {
        Ok(Places::Leaf)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Places, E> {
        Ok(Places::Leaf)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Places, E> {
        Ok(Places::Leaf)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Places, E> {
        Ok(Places::Leaf)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Places, E> {
        Ok(Places::Leaf)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Places, E> {
        Ok(Places::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Places, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Places::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Places, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = map.next_entry()? {
            table.push(entry);
        }
        Ok(Places::Table(table))
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlacesVisitor)
    }
}

fn yaml_lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    if let Ok(places) = serde_saphyr::from_str::<Places>(text) {
        yaml_walk("", &places, 0, &mut lines);
    }
    lines
}

fn yaml_walk(path: &str, places: &Places, depth: usize, lines: &mut BTreeMap<String, usize>) {
    if depth > DEPTH_MAX {
        return;
    }
    match places {
        Places::Leaf => {}
        Places::List(list) => {
            for (index, value) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Some((line, _)) = saphyr_position(value.referenced) {
                    lines.insert(path.clone(), line);
                }
                yaml_walk(&path, &value.value, depth + 1, lines);
            }
        }
        Places::Table(table) => {
            for (key, value) in table {
                let path = under(path, &key.value);
                if let Some((line, _)) = saphyr_position(key.referenced) {
                    lines.insert(path.clone(), line);
                }
                yaml_walk(&path, &value.value, depth + 1, lines);
            }
        }
    }
}

#[cfg(test)]
mod tests;
