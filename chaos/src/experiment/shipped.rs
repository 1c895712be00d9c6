//! The drills that come with the product, and the template of a new one.

use super::{Form, ParseError, Source};

macro_rules! shipped {
    ($($id:literal)*) => {
        /// Ids and texts of the shipped drills, from the shallowest.
        const SHIPPED: &[(&str, &str)] =
            &[$(($id, include_str!(concat!("../../drills/", $id, ".toml"))),)*];
    };
}

shipped! {
    "rehearsal"
    "certificates"
    "switchover-and-back"
    "mysqld-killed"
    "mysqld-frozen"
    "redis-killed"
    "agent-killed"
    "agent-frozen"
    "leader-frozen"
    "container-killed"
    "container-never-healthy"
    "witness-lost"
    "witness-lost-then-database"
    "holder-isolated"
    "data-nodes-cut"
    "one-way-to-witness"
    "replication-lags"
    "lag-then-database"
    "replica-disk-full"
    "power-cut"
}

/// Ids of the shipped drills, from the shallowest.
pub fn ids() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(id, _)| *id)
}

/// The text of a shipped drill.
#[must_use]
pub fn text(id: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| *known == id).map(|(_, text)| *text)
}

/// A shipped drill, read.
///
/// # Errors
/// There is none of that name.
pub fn named(id: &str) -> Result<Source, ParseError> {
    let Some(text) = text(id) else {
        let message = "neither a file nor a shipped drill; `baton drill list` shows them".to_owned();
        return Err(ParseError { file: id.to_owned(), at: None, message });
    };
    Source::parse(&format!("{id}.toml"), Form::Toml, text)
}

/// The text of a new drill of this name, made from a shipped one: every key as there, for the operator to change.
///
/// # Errors
/// There is no shipped drill `from`.
pub fn template(id: &str, from: &str) -> Result<String, ParseError> {
    let source = named(from)?;
    let line = format!("id = \"{from}\"");
    let text = source.text.replacen(&line, &format!("id = \"{id}\""), 1);
    Ok(format!(
        "# A drill, made from {from}. `baton drill lint FILE` checks it, `baton drill plan FILE` says what it would do.\n\
         # Lengths of time: a number and ms, s, m, h or d.\n\n{text}"
    ))
}
