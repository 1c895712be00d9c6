//! What people and build servers read of a record: Markdown, one HTML file, JSON, JUnit XML.
//!
//! Pure. Markdown and HTML are two renderings of one list of blocks, so that they cannot say different things.

mod charts;
mod html;
mod junit;
mod markdown;
mod sections;
#[cfg(test)]
mod tests;

use crate::evidence::{Record, Stored, canonical};
use crate::experiment::Format;
use crate::trend::Past;

/// A piece of a report.
#[derive(Debug, Clone, PartialEq)]
enum Block {
    /// A heading of the second level.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A paragraph in somebody's own words, shown as they are.
    Words(String),
    /// Points.
    List(Vec<String>),
    /// A head and rows of as many cells.
    Table(Vec<&'static str>, Vec<Vec<String>>),
    /// Text as it is typed.
    Verbatim(String),
    /// A drawing, and what it shows as text.
    Figure { svg: String, text: String },
}

/// The report of a record in one form. `past`: earlier records of the same drill, the oldest first.
///
/// # Errors
/// The record has what JSON has not.
pub fn render(stored: &Stored, past: &[Past], format: Format) -> serde_json::Result<String> {
    let record = &stored.record;
    match format {
        Format::Md => Ok(markdown::page(&title(record), &sections::sections(stored, past))),
        Format::Html => Ok(html::page(record, &title(record), &sections::sections(stored, past))),
        Format::Json => canonical(record),
        Format::Junit => Ok(junit::suite(record)),
    }
}

/// The name of a report's file: the record's, with the form's ending.
#[must_use]
pub fn file_name(record: &Record, format: Format) -> String {
    format!("{:06}-{}.{}", record.number, record.experiment.id, format.extension())
}

fn title(record: &Record) -> String {
    format!("Drill {}: {}", record.number, record.experiment.title)
}

/// Milliseconds as seconds, three digits behind the point.
fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

/// The text with what XML and HTML take for markup written otherwise, and without what XML 1.0 does not allow.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(c),
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
