//! Whether commits wait for the replica for longer than they may.

use std::collections::VecDeque;

use crate::model::Mono;
use crate::observe::SemiSyncFacts;

/// What was seen of the primary's semi-sync, in the order of the observations.
#[derive(Debug)]
pub(super) struct Stall {
    seen_at: Option<Mono>,
    /// The count of acknowledgements, and since when it stands still while commits wait.
    acknowledged: Option<(u64, Mono)>,
    /// The count by which everything that waited at the newest look is acknowledged.
    waiting: Option<u64>,
    /// The same for earlier looks, each with the instant of the look after it.
    waited: VecDeque<(Mono, u64)>,
    gone_since: Option<Mono>,
}

impl Stall {
    pub(super) const fn new() -> Self {
        Self { seen_at: None, acknowledged: None, waiting: None, waited: VecDeque::new(), gone_since: None }
    }

    /// Commits wait and nothing was acknowledged for `patience_ms`, or one of them has waited for so long although others were
    /// acknowledged, or no replica is attached. Counted on the instants of the observations: a server that gives no figures
    /// any more is not a replica that acknowledges nothing.
    pub(super) fn look(&mut self, semi: &SemiSyncFacts, at: Mono, patience_ms: u64) -> Option<String> {
        // Nobody looked for a while: what happened meanwhile is not known, so patience begins anew.
        if self.seen_at.replace(at).is_none_or(|last| at.since_ms(last) > patience_ms / 2) {
            *self = Self { seen_at: Some(at), ..Self::new() };
        }
        let before = self.acknowledged.map(|(yes_tx, _)| yes_tx);
        if before != Some(semi.yes_tx) || semi.waiting == 0 {
            self.acknowledged = Some((semi.yes_tx, at));
        }
        self.follow_waiting(semi, before, at);
        if semi.clients > 0 || !semi.source_enabled {
            self.gone_since = None;
        } else {
            self.gone_since.get_or_insert(at);
        }
        let is_over = |since: Mono| at.since_ms(since) >= patience_ms;
        if self.acknowledged.is_some_and(|(_, since)| is_over(since)) || self.gone_since.is_some_and(is_over)
        {
            return Some(format!("the replica acknowledged nothing for {patience_ms} ms"));
        }
        let slow = self.waited.front().is_some_and(|(since, _)| is_over(*since));
        slow.then(|| format!("commits wait for the replica for {patience_ms} ms and longer"))
    }

    /// Acknowledgements come in the order of the commits. Whoever waited at an instant has been acknowledged when as many have
    /// come since as waited then; where others were counted too, it is found out later, not wrongly. The wait counts from the
    /// next look on: a holder that is cut off must not find its replica slow before it would have found it silent, or it could
    /// call it out of sync with a lease that has ended (`lease + renew ≤ sync_patience`).
    fn follow_waiting(&mut self, semi: &SemiSyncFacts, before: Option<u64>, at: Mono) {
        let is_another_server = before.is_some_and(|yes_tx| semi.yes_tx < yes_tx);
        if semi.waiting == 0 || is_another_server {
            self.waited.clear();
            self.waiting = None;
        }
        while self.waited.front().is_some_and(|(_, target)| *target <= semi.yes_tx) {
            self.waited.pop_front();
        }
        let left = self.waiting.take().filter(|target| *target > semi.yes_tx);
        self.waited.extend(left.map(|target| (at, target)));
        self.waiting = (semi.waiting > 0).then(|| semi.yes_tx.saturating_add(semi.waiting));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE_MS: u64 = 1_400;

    /// Looks every 100 ms at what `counts` gives as acknowledged and waiting; the instant at which it is too much.
    fn stalls_at(counts: impl Fn(u64) -> (u64, u64)) -> Option<(u64, String)> {
        let mut stall = Stall::new();
        (0..100).map(|turn| turn * 100).find_map(|at| {
            let (yes_tx, waiting) = counts(at);
            let semi = SemiSyncFacts {
                source_enabled: true,
                clients: 1,
                yes_tx,
                waiting,
                ..SemiSyncFacts::default()
            };
            stall.look(&semi, Mono(at), PATIENCE_MS).map(|why| (at, why))
        })
    }

    #[test]
    fn a_trickle_of_acknowledgements_is_a_stall_too() {
        // Ten writers, and two acknowledgements a second: each commit waits for five.
        let (at, why) = stalls_at(|at| (at / 500, 10)).unwrap();
        assert_eq!((at, why.as_str()), (1_500, "commits wait for the replica for 1400 ms and longer"));
    }

    #[test]
    fn a_busy_replica_is_none() {
        // Always ten that wait, and none of them for long: a hundred acknowledgements a second.
        assert_eq!(stalls_at(|at| (at / 10, 10)), None);
        // One at a time, each for a second.
        assert_eq!(stalls_at(|at| (at / 1_000, 1)), None);
        // A session that was ended while it waited is never acknowledged; the next ones are.
        assert_eq!(stalls_at(|at| (at / 100, if at == 0 { 3 } else { 1 })), None);
    }

    #[test]
    fn no_acknowledgement_at_all_is_told_as_that() {
        let (at, why) = stalls_at(|_| (7, 1)).unwrap();
        assert_eq!((at, why.as_str()), (1_400, "the replica acknowledged nothing for 1400 ms"));
    }

    /// Ten of twenty were acknowledged before all went silent. Of the others it is known since the look before, and told when
    /// silence is.
    #[test]
    fn silence_is_not_found_sooner_behind_others() {
        let (at, why) = stalls_at(|at| if at == 0 { (0, 20) } else { (10, 20) }).unwrap();
        assert_eq!((at, why.as_str()), (1_500, "the replica acknowledged nothing for 1400 ms"));
    }

    #[test]
    fn a_server_that_was_started_again_counts_from_nought() {
        assert_eq!(stalls_at(|at| if at < 1_000 { (5_000 + at, 1) } else { (at / 10, 1) }), None);
    }
}
