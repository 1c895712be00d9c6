//! What can be wrong with a configuration, said so that the reader can mend it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One thing that is wrong: the key, its value, what is wrong with it, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, as `section.key`.
    pub key: String,
    /// Its value as written; empty when the key is missing.
    pub value: String,
    /// What is wrong.
    pub wrong: String,
    /// What to do.
    pub way_out: String,
}

impl Problem {
    pub(super) fn new(
        key: impl Into<String>,
        value: impl fmt::Display,
        wrong: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), value: value.to_string(), wrong: wrong.into(), way_out: way_out.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}: {}. To mend it: {}", self.key, self.wrong, self.way_out)
        } else {
            write!(f, "{} = {}: {}. To mend it: {}", self.key, self.value, self.wrong, self.way_out)
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {cause}; name it with --config or BATON_CONFIG, or print an example with `baton config default`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is not TOML, or has a key that does not exist, or a value of another form.
    #[error("{name}: {message}\n{hint}")]
    Parse {
        /// Name of the file.
        name: String,
        /// The parser's words with line, column and a caret.
        message: String,
        /// What is expected there, or where to look.
        hint: String,
    },
    /// Values do not fit.
    #[error("{name}: {}", list(problems))]
    Invalid {
        /// Name of the file.
        name: String,
        /// All of them.
        problems: Vec<Problem>,
    },
    /// This node is not in the file.
    #[error("{name}: no [[node]] is called {node:?}; the names are {}. Say which node this is with --node", names.join(", "))]
    NoSuchNode {
        /// Name of the file.
        name: String,
        /// The node wanted.
        node: String,
        /// The nodes in the file.
        names: Vec<String>,
    },
    /// A password file that the configuration names cannot be read.
    #[error("cannot read {key} = {}; make it readable for the agent, or remove the key for an empty password", path.display())]
    Password {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => {
            let lines: Vec<String> = many.iter().map(|p| format!("\n  - {p}")).collect();
            format!("{} problems:{}", many.len(), lines.concat())
        }
    }
}
