//! Whether commits wait for the replica for longer than they may.

use crate::model::Mono;
use crate::observe::SemiSyncFacts;

/// Canaries begun and ended here: their numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct CanaryCommits {
    pub(super) started: u64,
    pub(super) committed: u64,
}

/// What was seen of the primary's semi-sync, in the order of the observations.
#[derive(Debug)]
pub(super) struct Stall {
    seen_at: Option<Mono>,
    /// The count of acknowledgements, and since when it stands still while commits wait.
    acknowledged: Option<(u64, Mono)>,
    /// A canary was on its way at the newest look: the last one that ended before it.
    on_its_way: Option<u64>,
    /// The same canary is on its way still, and commits wait for the replica, since this look.
    slow_since: Option<Mono>,
    gone_since: Option<Mono>,
}

impl Stall {
    pub(super) const fn new() -> Self {
        Self { seen_at: None, acknowledged: None, on_its_way: None, slow_since: None, gone_since: None }
    }

    /// Commits wait and nothing was acknowledged for `patience_ms`, or a canary has not come through for so long although
    /// others were acknowledged, or no replica is attached. Counted on the instants of the observations: a server that gives
    /// no figures any more is not a replica that acknowledges nothing.
    pub(super) fn look(
        &mut self,
        semi: &SemiSyncFacts,
        canary: CanaryCommits,
        at: Mono,
        patience_ms: u64,
    ) -> Option<String> {
        // Nobody looked for a while: what happened meanwhile is not known, so patience begins anew.
        if self.seen_at.replace(at).is_none_or(|last| at.since_ms(last) > patience_ms / 2) {
            *self = Self { seen_at: Some(at), ..Self::new() };
        }
        if self.acknowledged.is_none_or(|(yes_tx, _)| yes_tx != semi.yes_tx) || semi.waiting == 0 {
            self.acknowledged = Some((semi.yes_tx, at));
        }
        self.follow_canary(semi, canary, at);
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
        let slow = self.slow_since.is_some_and(is_over);
        slow.then(|| format!("a commit has waited for the replica's acknowledgements for {patience_ms} ms"))
    }

    /// Of a queue of commits only the first waits for an acknowledgement, as the servers count them: a replica that
    /// acknowledges one in a while looks alive. A canary stands in that queue as any client does. Where nobody waits for the
    /// replica it is something else that holds commits up, such as the disk. Its wait counts from the second look on: a holder
    /// that is cut off must not find its replica slow before it would have found it silent, or it could call it out of sync
    /// with a lease that has ended (`lease + renew ≤ sync_patience`).
    fn follow_canary(&mut self, semi: &SemiSyncFacts, canary: CanaryCommits, at: Mono) {
        let now = (canary.started > canary.committed && semi.waiting > 0).then_some(canary.committed);
        if now.is_none() || self.on_its_way != now {
            self.slow_since = None;
        } else {
            self.slow_since.get_or_insert(at);
        }
        self.on_its_way = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE_MS: u64 = 1_400;

    /// Looks every 100 ms at what `counts` gives as acknowledged, waiting, canaries begun and ended; when it is too much.
    fn stalls_at(counts: impl Fn(u64) -> (u64, u64, u64, u64)) -> Option<(u64, String)> {
        let mut stall = Stall::new();
        (0..100).map(|turn| turn * 100).find_map(|at| {
            let (yes_tx, waiting, started, committed) = counts(at);
            let semi = SemiSyncFacts {
                source_enabled: true,
                clients: 1,
                yes_tx,
                waiting,
                ..SemiSyncFacts::default()
            };
            let canary = CanaryCommits { started, committed };
            stall.look(&semi, canary, Mono(at), PATIENCE_MS).map(|why| (at, why))
        })
    }

    #[test]
    fn a_trickle_of_acknowledgements_is_a_stall_too() {
        // Two acknowledgements a second, one that waits, and a canary in the queue behind it.
        let (at, why) = stalls_at(|at| (at / 500, 1, 1, 0)).unwrap();
        assert_eq!(at, 1_500);
        assert_eq!(why, "a commit has waited for the replica's acknowledgements for 1400 ms");
    }

    #[test]
    fn a_busy_replica_and_a_slow_disk_are_none() {
        assert_eq!(stalls_at(|at| (at / 10, 10, at / 1_000, at / 1_000)), None, "always somebody who waits");
        assert_eq!(
            stalls_at(|at| (at / 500, 1, at / 1_000 + 1, at / 1_000)),
            None,
            "each canary for a second"
        );
        assert_eq!(stalls_at(|_| (7, 0, 1, 0)), None, "nobody waits for the replica");
        let now_and_then = |at: u64| u64::from(!at.is_multiple_of(700));
        assert_eq!(stalls_at(|at| (at / 100, now_and_then(at), 1, 0)), None, "nor all the time");
    }

    #[test]
    fn no_acknowledgement_at_all_is_told_as_that() {
        let (at, why) = stalls_at(|_| (7, 1, 1, 0)).unwrap();
        assert_eq!((at, why.as_str()), (1_400, "the replica acknowledged nothing for 1400 ms"));
    }
}
