//! Whether the records are those that were written: all of them, unchanged, in their order.
//!
//! Each record holds the hash of the file before it, so that a change, a removal or another order shows at the next
//! one. The last one has no next: the ledger, which three nodes keep, holds its hash. Whoever could write both could
//! write another history; nobody on one node alone can.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::store::{NO_HASH, Store, StoreError};
use super::{Record, canonical, hash};
use crate::experiment::Level;
use crate::verdict::judge;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "flaw", rename_all = "kebab-case")]
pub enum Flaw {
    /// Numbers are missing.
    Missing {
        /// The first that is not there.
        from: u64,
        /// The last that is not there.
        to: u64,
    },
    /// A number is there more than once.
    Twice {
        /// Which.
        number: u64,
    },
    /// A file cannot be read as a record.
    Unreadable {
        /// Its number, by its name.
        number: u64,
        /// What is wrong.
        why: String,
    },
    /// A file is not in the form in which records are written.
    Rewritten {
        /// Its number.
        number: u64,
    },
    /// The number in the file is not that of its name.
    Renamed {
        /// The number by its name.
        name: u64,
        /// The number that it says.
        says: u64,
    },
    /// It does not hold the hash of the record before it: one of the two was changed.
    Broken {
        /// Its number.
        number: u64,
        /// The hash that it holds.
        holds: String,
        /// The hash of the file before it.
        before: String,
    },
    /// Its verdict does not follow from its facts.
    Verdict {
        /// Its number.
        number: u64,
        /// What it says.
        says: String,
        /// What follows.
        follows: String,
    },
    /// The drill's text does not have the hash that stands beside it.
    Experiment {
        /// Its number.
        number: u64,
    },
    /// The ledger knows a drill of this node, and no record is that drill's, or not in its place.
    Witness {
        /// Number of the drill in the ledger.
        drill: u64,
        /// What is wrong.
        why: String,
    },
    /// The hash that the ledger holds is that of no record: the end was cut off, or the chain was written anew.
    Head {
        /// What the ledger holds.
        ledger: String,
        /// The hash of the last file.
        last: String,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { from, to } if from == to => write!(f, "record {from} is missing"),
            Self::Missing { from, to } => write!(f, "records {from} to {to} are missing"),
            Self::Twice { number } => write!(f, "record {number} is there more than once"),
            Self::Unreadable { number, why } => write!(f, "record {number} cannot be read: {why}"),
            Self::Rewritten { number } => {
                write!(f, "record {number} is not in the form in which it was written")
            }
            Self::Renamed { name, says } => {
                write!(f, "the file of record {name} says that it is record {says}")
            }
            Self::Broken { number, holds, before } => write!(
                f,
                "record {number} was written after a record with the hash {holds}, before it stands {before}: \
                 one of the two was changed"
            ),
            Self::Verdict { number, says, follows } => {
                write!(f, "record {number} says {says}, from its facts follows {follows}")
            }
            Self::Witness { drill, why } => write!(f, "drill {drill} of the ledger: {why}"),
            Self::Experiment { number } => write!(f, "record {number}: the drill's text was changed"),
            Self::Head { ledger, last } => write!(
                f,
                "the ledger holds {ledger}, which is the hash of no record; the last one has {last}: \
                 the end was cut off, or records were written anew"
            ),
        }
    }
}

/// What came of looking at all records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// How many records there are.
    pub records: u64,
    /// Hash of the last one; zeros if there is none.
    pub head: String,
    /// How many records follow the one whose hash the ledger holds: a drill whose runner died before it could tell
    /// the ledger, or a ledger that could not be reached. Absent if no hash was given.
    pub after_ledger: Option<u64>,
    /// How many of those say that they passed, of drills that have a place in the ledger: nobody has witnessed that.
    pub unwitnessed: u64,
    /// What is not as it was written.
    pub flaws: Vec<Flaw>,
}

impl Verification {
    /// Whether everything is as it was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.flaws.is_empty()
    }

    /// Sound, compared with the ledger, and no pass that it has not seen.
    #[must_use]
    pub fn is_witnessed(&self) -> bool {
        self.is_sound() && self.after_ledger.is_some() && self.unwitnessed == 0
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for flaw in &self.flaws {
            writeln!(f, "NO  {flaw}")?;
        }
        let seen = match self.after_ledger {
            None => "not compared with the ledger".to_owned(),
            Some(0) => "the ledger holds the last one".to_owned(),
            Some(after) => format!("the ledger has not seen the last {after}"),
        };
        let word = match (self.is_sound(), self.after_ledger) {
            (false, _) => "NOT SOUND",
            (true, None) => "NOT COMPARED",
            (true, Some(_)) if self.unwitnessed > 0 => "NOT WITNESSED",
            (true, Some(_)) => "OK",
        };
        write!(f, "{word}: {} records, {seen}\nhead {}", self.records, self.head)
    }
}

/// Looks at all records of a directory. `ledger`: the hash that the ledger holds, if it can be asked.
///
/// # Errors
/// The directory cannot be read. A file in it that cannot be read is a flaw.
pub fn verify(dir: &Path, ledger: Option<&str>) -> Result<Verification, StoreError> {
    let mut flaws = Vec::new();
    let mut hashes = vec![NO_HASH.to_owned()];
    // Of each record, whether it says that a drill with a place in the ledger passed.
    let mut passes = Vec::new();
    let mut expected = 1;
    let files = Store::at(dir).files()?;
    let records = files.len() as u64;
    for (number, path) in files {
        if number > expected {
            flaws.push(Flaw::Missing { from: expected, to: number - 1 });
        } else if number < expected {
            flaws.push(Flaw::Twice { number });
        }
        let before = hashes.last().map_or(NO_HASH, String::as_str);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                flaws.push(Flaw::Unreadable { number, why: error.to_string() });
                Vec::new()
            }
        };
        flaws.extend(flaws_of(number, &bytes, before));
        let record = serde_json::from_slice::<Record>(&bytes).ok();
        passes.push(
            record.is_some_and(|record| {
                record.experiment.level > Level::L1 && record.judgement.verdict.is_pass()
            }),
        );
        hashes.push(hash(&bytes));
        expected = number + 1;
    }
    let last = hashes.last().cloned().unwrap_or_default();
    let after_ledger = ledger.and_then(|ledger| {
        let place = hashes.iter().rposition(|hash| hash.eq_ignore_ascii_case(ledger));
        if place.is_none() {
            flaws.push(Flaw::Head { ledger: ledger.to_owned(), last: last.clone() });
        }
        place.map(|place| (hashes.len() - 1 - place) as u64)
    });
    let tail = after_ledger.and_then(|after| usize::try_from(after).ok()).unwrap_or(0);
    let unwitnessed = passes.iter().rev().take(tail).filter(|passes| **passes).count() as u64;
    Ok(Verification { records, head: last, after_ledger, unwitnessed, flaws })
}

/// What is wrong with one file; `before` is the hash of the one before it.
fn flaws_of(number: u64, bytes: &[u8], before: &str) -> Vec<Flaw> {
    let record: Record = match serde_json::from_slice(bytes) {
        Ok(record) => record,
        Err(error) => return vec![Flaw::Unreadable { number, why: error.to_string() }],
    };
    let mut flaws = Vec::new();
    if !canonical(&record).is_ok_and(|text| text.as_bytes() == bytes) {
        flaws.push(Flaw::Rewritten { number });
    }
    if record.number != number {
        flaws.push(Flaw::Renamed { name: number, says: record.number });
    }
    if record.previous != before {
        flaws.push(Flaw::Broken { number, holds: record.previous.clone(), before: before.to_owned() });
    }
    let follows = judge(&record);
    if record.judgement != follows {
        let (says, follows) = (record.judgement.verdict.to_string(), follows.verdict.to_string());
        flaws.push(Flaw::Verdict { number, says, follows });
    }
    if hash(record.experiment.text.as_bytes()) != record.experiment.sha256 {
        flaws.push(Flaw::Experiment { number });
    }
    flaws
}
