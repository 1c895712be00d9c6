//! What the ledger knows of the drills of this node, held against the records: all of them that it remembers, in their
//! order. A record that was taken away, or whose place another one has, shows although the chain alone is whole.

use std::path::Path;

use super::store::{Store, StoreError};
use super::{Flaw, Stored};

/// The ledger's verdict on a drill whose runner was lost.
const LOST: &str = "INTERRUPTED";

/// A drill that was run from this node, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its number.
    pub drill: u64,
    /// Its verdict.
    pub verdict: String,
    /// Hash of its record; empty: the ledger was told none.
    pub evidence: String,
}

/// What is wrong with the records, by what the ledger knows; `witnesses` oldest first.
///
/// # Errors
/// A record cannot be read.
pub fn compare(dir: &Path, witnesses: &[Witness]) -> Result<Vec<Flaw>, StoreError> {
    let store = Store::at(dir);
    let records = store.records()?;
    let draft = store.draft()?;
    let is_left = |drill: u64| draft.as_ref().is_some_and(|draft| draft.drill == drill);
    let mut flaws = Vec::new();
    let mut last = None;
    for witness in witnesses.iter().filter(|it| !it.evidence.is_empty() || it.verdict == LOST) {
        let place = records.iter().position(|stored| is_of(stored, witness));
        let why = match place {
            // What a runner left that died is put into the chain when the next drill begins.
            None if is_left(witness.drill) => continue,
            None => format!("it ended as {}, and its record is not there", witness.verdict),
            Some(place) if last.is_some_and(|last| place <= last) => "its record is not in its place".into(),
            Some(place) => {
                // One that a lost runner left may come later than its number says.
                if !witness.evidence.is_empty() {
                    last = Some(place);
                }
                continue;
            }
        };
        flaws.push(Flaw::Witness { drill: witness.drill, why });
    }
    Ok(flaws)
}

fn is_of(stored: &Stored, witness: &Witness) -> bool {
    if witness.evidence.is_empty() {
        return stored.record.drill == witness.drill;
    }
    stored.hash.eq_ignore_ascii_case(&witness.evidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::sample::passed;

    #[test]
    fn each_drill_that_the_ledger_knows_has_its_record_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let witness = |drill: u64| {
            let stored = store.append(crate::evidence::Record { drill, ..passed() }).unwrap();
            Witness { drill, verdict: "PASS".into(), evidence: stored.hash }
        };
        let (first, second) = (witness(1), witness(2));
        let flaws = |witnesses: &[&Witness]| {
            let witnesses: Vec<Witness> = witnesses.iter().map(|it| (*it).clone()).collect();
            compare(dir.path(), &witnesses).unwrap().len()
        };
        assert_eq!(flaws(&[&first, &second]), 0);
        assert_eq!(flaws(&[&second, &first]), 1, "another order");
        let lost = Witness { drill: 3, verdict: LOST.into(), evidence: String::new() };
        assert_eq!(flaws(&[&first, &second, &lost]), 1, "an interrupted drill was erased");
        store.keep_draft(&crate::evidence::Record { drill: 3, ..passed() }).unwrap();
        assert_eq!(flaws(&[&first, &second, &lost]), 0, "it waits to be put into the chain");
        let refused = Witness { verdict: "REFUSED".into(), ..lost };
        assert_eq!(flaws(&[&refused]), 0, "nothing was kept of it, and the ledger says so");
        let other = Witness { evidence: "0".repeat(64), ..first };
        assert_eq!(flaws(&[&other]), 1);
    }
}
