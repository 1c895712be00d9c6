//! What did not happen: the leader suspected that the holder is lost, and it was not.
//!
//! Kept in memory only, by the leader that suspected: it explains a night to an operator, and nothing is decided by it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::decide::{Action, Decision};
use crate::model::{Mono, NodeId, WallMs};
use crate::why::Why;

/// Suspicions that are kept.
pub const SUSPICIONS_MAX: usize = 32;
/// A shorter one is not kept, in milliseconds: a renewal that was late by the network's mood.
const KEPT_FROM_MS: u64 = 50;

/// A suspicion that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// Who was suspected to be lost.
    pub holder: Option<NodeId>,
    /// When it began, for people.
    pub at: WallMs,
    /// How long it lasted, in milliseconds.
    pub lasted_ms: u64,
    /// What was seen when it began.
    pub why: Why,
    /// What ended it.
    pub cleared_by: Why,
}

/// What the leader suspects, and what it suspected.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    now: Option<(Mono, WallMs, Why, Option<NodeId>)>,
    ended: VecDeque<Suspicion>,
}

impl Suspicions {
    /// Looks at a decision; since when it suspects the holder, if it does.
    pub(super) fn weigh(
        &mut self,
        decision: &Decision,
        holder: Option<&NodeId>,
        now: Mono,
        wall: WallMs,
    ) -> Option<Mono> {
        let first = decision.why.first();
        if let Some(why) = first.filter(|why| why.is_suspicion()) {
            let began = self.now.get_or_insert_with(|| (now, wall, why.clone(), holder.cloned()));
            return Some(began.0);
        }
        let (since, at, why, holder) = self.now.take()?;
        let lasted_ms = now.since_ms(since);
        // A takeover that followed is in the history; a leader that leads no more has not seen the end.
        let came_to_nothing = match (&decision.action, first) {
            (_, Some(Why::NotLeader { .. } | Why::NoQuorum { .. } | Why::RunInProgress { .. }) | None) => {
                false
            }
            (Action::Hold, Some(_)) => true,
            (
                Action::StartRun { .. }
                | Action::AbandonRun { .. }
                | Action::Skip { .. }
                | Action::ExpirePause { .. },
                Some(_),
            ) => false,
        };
        if let Some(cleared_by) = first.filter(|_| came_to_nothing && lasted_ms >= KEPT_FROM_MS) {
            let cleared_by = cleared_by.clone();
            self.ended.push_back(Suspicion { holder, at, lasted_ms, why, cleared_by });
            if self.ended.len() > SUSPICIONS_MAX {
                self.ended.pop_front();
            }
        }
        None
    }

    /// The holder is suspected.
    pub(super) const fn is_open(&self) -> bool {
        self.now.is_some()
    }

    /// Those that came to nothing, oldest first.
    pub(super) const fn ended(&self) -> &VecDeque<Suspicion> {
        &self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    fn hold(why: Why) -> Decision {
        Decision { action: Action::Hold, why: vec![why] }
    }

    fn healthy() -> Decision {
        hold(Why::HolderHealthy { holder: "db1".into(), granted_ms_ago: 20 })
    }

    fn late() -> Decision {
        hold(Why::LeaseNotEnded { epoch: Epoch(1), left_ms: 700 })
    }

    fn after(decisions: &[(u64, Decision)]) -> Suspicions {
        let mut suspicions = Suspicions::default();
        let holder = NodeId::from("db1");
        for (ms, decision) in decisions {
            suspicions.weigh(decision, Some(&holder), Mono(*ms), WallMs(*ms));
        }
        suspicions
    }

    #[test]
    fn a_suspicion_that_is_cleared_is_kept_with_what_cleared_it() {
        let kept = after(&[(0, healthy()), (1_000, late()), (1_300, late()), (1_600, healthy())]);
        let [one] = kept.ended.iter().collect::<Vec<_>>()[..] else { panic!("{kept:?}") };
        assert_eq!((one.at, one.lasted_ms), (WallMs(1_000), 600));
        assert_eq!((one.why.code(), one.cleared_by.code()), ("lease-not-ended", "holder-healthy"));
    }

    #[test]
    fn what_led_to_a_run_or_was_not_seen_to_end_is_not_kept() {
        let run = hold(Why::RunInProgress { run: crate::model::RunId(2), steps: Vec::new() });
        assert!(after(&[(0, late()), (900, run)]).ended.is_empty());
        let deposed = hold(Why::NotLeader { leader: None });
        assert!(after(&[(0, late()), (900, deposed)]).ended.is_empty());
        assert!(after(&[(0, late()), (20, healthy())]).ended.is_empty(), "a moment");
    }

    #[test]
    fn the_list_is_bounded() {
        let many = (0..100u64).flat_map(|i| [(i * 1_000, late()), (i * 1_000 + 500, healthy())]);
        let kept = after(&many.collect::<Vec<_>>());
        assert_eq!(kept.ended.len(), SUSPICIONS_MAX);
        assert_eq!(kept.ended.back().map(|one| one.at), Some(WallMs(99_000)));
    }
}
