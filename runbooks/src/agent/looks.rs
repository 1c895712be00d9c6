//! What operators ask before they order, and how long their word on a loss stands.

use super::proposals::Purpose;
use super::{Agent, Output};
use crate::decide::force::{self, ForcePreflight, ForceWanted, Survivor};
use crate::decide::loss::{self, Accept, LossPreflight};
use crate::decide::switchover::{self, Preflight, View, Wanted};
use crate::detect::Sight;
use crate::ledger::command::Command;
use crate::model::{Mono, NodeId, WallMs};

/// A loss that was accepted, and led to no takeover under a leader for so long, in milliseconds, is not accepted any more:
/// the operator's command may have ended without taking its word back, and the next loss of the holder is another matter.
pub const WORD_MAX_MS: u64 = 120_000;

impl Agent {
    /// What stands in the way of a switchover, and its plan if nothing does.
    #[must_use]
    pub fn preflight(&self, now: Mono, wanted: &Wanted) -> Preflight {
        switchover::preflight(&self.view(now), wanted)
    }

    /// What stands in the way of accepting a loss, and what may be lost.
    #[must_use]
    pub fn loss_preflight(&self, now: Mono, wanted: &Accept) -> LossPreflight {
        loss::preflight(&self.view(now), wanted)
    }

    /// What stands in the way of going on alone.
    #[must_use]
    pub fn force_preflight(&self, now: Mono, wall: WallMs, wanted: &ForceWanted) -> ForcePreflight {
        let survivor = Survivor {
            me: &self.setup.me,
            office: &self.office,
            up_ms: self.began_at.map_or(0, |began| now.since_ms(began)),
            applied: self.applied,
            wall,
        };
        force::preflight(&self.view(now), &survivor, wanted)
    }

    /// Who hears `node`, and from whom it is unreachable.
    #[must_use]
    pub fn sight(&self, node: &NodeId, now: Mono) -> Sight {
        Sight::of(node, &self.setup.me, &self.reports, now, self.setup.policy.report_max_ms)
    }

    pub(super) fn view(&self, now: Mono) -> View<'_> {
        View {
            now,
            me: &self.setup.me,
            ledger: &self.ledger,
            reports: &self.reports,
            canaries: &self.canaries,
            report_max_ms: self.setup.policy.report_max_ms,
            scope: self.setup.policy.scope,
            redis: self.setup.redis,
            config_hash: &self.setup.config_hash,
            new_leader_ms: self.setup.new_leader_ms,
        }
    }

    pub(super) fn forget_old_word(&mut self, now: Mono, wall: WallMs, out: &mut Vec<Output>) {
        let generation = self.ledger.sync_generation;
        let word = self.ledger.in_sync.iter().find(|(_, known)| known.is_accepted());
        // Beside a pause it stands only after a forced recovery, which waits for the pause: it counts from then on.
        let counts = self.office.is_leader && self.ledger.run.is_none() && self.ledger.pause.is_none();
        let Some((node, _)) = word.filter(|_| counts) else {
            self.word = None;
            return;
        };
        let (node, epoch) = (node.clone(), self.ledger.epoch);
        let since = self.word.filter(|(seen, _)| *seen == generation).map_or(now, |(_, since)| since);
        self.word = Some((generation, since));
        let purpose = Purpose::WithdrawLoss(generation);
        if now.since_ms(since) > WORD_MAX_MS && self.may_propose(&purpose) {
            let by = format!("{}, after {} s", self.setup.me, WORD_MAX_MS / 1000);
            let command = Command::WithdrawLoss { epoch, generation, node, by, at: wall };
            self.propose(purpose, command, None, None, out);
        }
    }
}
