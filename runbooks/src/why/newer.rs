//! Reasons of a newer version: read, shown, and passed on as they came.
//!
//! They stand in commands, plans and releases, so an agent that could not read one would not take what Raft replicates. It must
//! not change one either, since all nodes keep the same. So new evidence of a reason that is there already needs a new code: a field
//! that this version does not know is dropped.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A reason with a code that this version does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newer {
    /// Its code.
    pub why: String,
    /// Its evidence, by name.
    #[serde(flatten)]
    pub evidence: BTreeMap<String, Value>,
}

impl fmt::Display for Newer {
    /// Its evidence. The code comes first wherever a reason is written, since decisions look at how one begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = ": ";
        self.evidence.iter().try_for_each(|(name, value)| {
            write!(f, "{before}{name} {value}")?;
            before = ", ";
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Why;

    #[test]
    fn a_code_of_a_newer_version_is_read_and_passed_on_as_it_came() {
        let text = r#"{"why":"brownout","since":{"db1":null,"db2":40},"volts":190}"#;
        let why: Why = serde_json::from_str(text).unwrap();
        assert_eq!(why.code(), "unknown");
        let words = r#"brownout (unknown to this version): since {"db1":null,"db2":40}, volts 190"#;
        assert_eq!((why.own_code(), why.to_string().as_str()), ("brownout", words));
        assert_eq!(serde_json::to_string(&why).unwrap(), text);
    }

    #[test]
    fn a_known_code_stays_what_it_is() {
        for why in [
            Why::Vacant,
            Why::NotLeader { leader: None },
            Why::DiskFull { free_bytes: u64::MAX },
            Why::Unreachable {
                node: "db1".into(),
                from: [("db2".into(), None), ("mon".into(), Some(900))].into(),
                heard_by: Vec::new(),
            },
        ] {
            let text = serde_json::to_string(&why).unwrap();
            assert_eq!(serde_json::from_str::<Why>(&text).unwrap(), why);
        }
        assert_eq!(serde_json::from_str::<Why>(r#"{"why":"vacant","volts":190}"#).unwrap(), Why::Vacant);
        assert!(serde_json::from_str::<Why>("{}").is_err(), "a reason has a code");
    }
}
