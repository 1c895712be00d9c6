//! The one form in which a record is written, so that one record has one hash.
//!
//! JSON, keys in the order of their bytes, no blanks, a newline at the end. The hash is that of the file: `sha256sum`
//! shows it too.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The canonical form of a value.
///
/// # Errors
/// It has what JSON has not, such as a number that is no number.
pub fn canonical(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = String::new();
    write(&serde_json::to_value(value)?, &mut text)?;
    text.push('\n');
    Ok(text)
}

// By hand, because the order of keys in `serde_json::Map` depends on what other crates ask of it.
fn write(value: &Value, text: &mut String) -> serde_json::Result<()> {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&serde_json::to_string(key)?);
                text.push(':');
                write(value, text)?;
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(value, text)?;
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&serde_json::to_string(value)?);
        }
    }
    Ok(())
}

/// SHA-256 of a file's bytes, hexadecimal.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    super::hex(&Sha256::digest(bytes).into())
}
