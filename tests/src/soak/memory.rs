//! What earlier rounds of a lab were told is done must still be there later: each round's writes are looked for again at the
//! end of the next one, and all of them when the lab is taken down.

use std::collections::BTreeMap;
use std::ops::Range;

use baton_chaos::check::Finals;
use baton_chaos::history::{History, Kind, Outcome};

/// The writes of one round that were acknowledged and there at its end.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// The round.
    pub round: u32,
    /// All ids that it used.
    pub ids: Range<u64>,
    acknowledged: BTreeMap<Kind, Vec<u64>>,
}

/// What one round has left of one kind and is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Of which kind.
    pub kind: Kind,
    /// How many writes are known to be lost; none where nothing can be read.
    pub lost: usize,
    /// The same in words.
    pub why: String,
}

impl Remembered {
    /// What a round leaves behind.
    #[must_use]
    pub fn of(round: u32, first_id: u64, history: &History, finals: &Finals) -> Self {
        let mut acknowledged: BTreeMap<Kind, Vec<u64>> = BTreeMap::new();
        let mut end = first_id;
        for write in &history.writes {
            end = end.max(write.id + 1);
            let there = finals.0.get(&write.kind).is_some_and(|ids| ids.contains_key(&write.id));
            if there && write.outcome == Outcome::Acknowledged {
                acknowledged.entry(write.kind).or_default().push(write.id);
            }
        }
        Self { round, ids: first_id..end, acknowledged }
    }

    /// What is missing now. A kind that cannot be read is missing as a whole.
    #[must_use]
    pub fn missing(&self, finals: &Finals) -> Vec<Missing> {
        let gone = |kind: &Kind, ids: &[u64]| -> Option<Missing> {
            let Some(there) = finals.0.get(kind) else {
                let why = format!("{kind}: the writes of round {} cannot be read any more", self.round);
                return Some(Missing { kind: *kind, lost: 0, why });
            };
            let gone: Vec<u64> = ids.iter().copied().filter(|id| !there.contains_key(id)).collect();
            let first = gone.first()?;
            let why = format!(
                "{kind}: {} writes of round {}, which were there at its end, are lost, the first is {first}",
                gone.len(),
                self.round
            );
            Some(Missing { kind: *kind, lost: gone.len(), why })
        };
        self.acknowledged.iter().filter_map(|(kind, ids)| gone(kind, ids)).collect()
    }
}

#[cfg(test)]
mod tests {
    use baton_chaos::history::Write;

    use super::*;

    fn finals(ids: &[u64]) -> Finals {
        Finals(BTreeMap::from([(Kind::Mysql, ids.iter().map(|id| (*id, 1)).collect())]))
    }

    #[test]
    fn what_was_there_and_is_gone_later_is_a_loss() {
        let write = |id, outcome| Write {
            kind: Kind::Mysql,
            id,
            intended_us: id,
            started_us: id,
            ended_us: id,
            outcome,
            server: None,
        };
        let unknown = Outcome::Unknown { error: "cut".into() };
        let writes =
            vec![write(40, Outcome::Acknowledged), write(41, unknown), write(42, Outcome::Acknowledged)];
        let history = History { writes, ..History::default() };
        let remembered = Remembered::of(3, 40, &history, &finals(&[40, 41, 42]));
        assert_eq!(remembered.ids, 40..43);
        assert!(remembered.missing(&finals(&[40, 42])).is_empty(), "nobody was told that 41 is done");
        let missing = remembered.missing(&finals(&[40, 41]));
        let why = "mysql: 1 writes of round 3, which were there at its end, are lost, the first is 42".into();
        assert_eq!(missing, [Missing { kind: Kind::Mysql, lost: 1, why }]);
        let unread = remembered.missing(&Finals::default());
        assert_eq!(unread.len(), 1, "what cannot be read is not known to be there");
        assert_eq!((unread[0].kind, unread[0].lost), (Kind::Mysql, 0), "nor is it known to be lost");
        // What was missing at the end of its own round was counted there, once.
        assert!(Remembered::of(3, 40, &history, &finals(&[40])).missing(&finals(&[40])).is_empty());
    }
}
