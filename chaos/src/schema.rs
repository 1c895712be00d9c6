//! The JSON Schema of a drill's file, for editors and for other programs.

use serde_json::Value;

use crate::experiment::Experiment;

/// The schema, made from the types that read the file.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Experiment);
    schema.insert("title".to_owned(), Value::from("A drill of Baton"));
    schema.to_value()
}
