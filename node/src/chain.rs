//! An error with its causes, for logs and for people.

use std::error::Error;
use std::fmt::Write;

/// `error` and everything that caused it, joined by colons. The causes are not in `Display` (house rule), so this is the
/// one place that shows them.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
