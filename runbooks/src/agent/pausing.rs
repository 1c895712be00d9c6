//! The holder's part in a pause: it claims it, and says when it lives on short lifetimes again.

use super::proposals::Purpose;
use super::{Agent, Output};
use crate::decide::pause::{self, PausePreflight, PauseWanted};
use crate::ledger::command::Command;
use crate::model::{Epoch, Mono, PauseId, WallMs};
use crate::observe::PausedFacts;

impl Agent {
    /// What stands in the way of a pause.
    #[must_use]
    pub fn pause_preflight(&self, now: Mono, wanted: &PauseWanted) -> PausePreflight {
        pause::preflight(&self.view(now), wanted)
    }

    /// This node's lease. One that an earlier start of the agent left in the kernel is there before anything was looked at:
    /// to serve under it would close ports whose database was not seen yet. It is a moment.
    pub(super) fn valid_lease(&self) -> Option<(Epoch, Mono)> {
        let blind = self.ledger.pause.is_some() && self.is_unseen();
        self.lease.held.filter(|_| !blind)
    }

    pub(super) fn look_after_pause(&mut self, wall: WallMs, out: &mut Vec<Output>) {
        let Some(pause) = &self.ledger.pause else { return };
        if self.ledger.holder.as_ref() != Some(&self.setup.me) {
            return;
        }
        let (me, boot, id) = (self.setup.me.clone(), self.setup.boot, pause.id);
        if pause.claimed_by != Some(boot) {
            if self.may_propose(&Purpose::ClaimPause(id)) {
                let command = Command::ClaimPause { pause: id, by: me, boot };
                self.propose(Purpose::ClaimPause(id), command, None, None, out);
            }
        } else if self.lease.short_again == Some(id) && self.may_propose(&Purpose::EndPause(id)) {
            let command = Command::EndPause { pause: id, by: me, boot, at: wall };
            self.propose(Purpose::EndPause(id), command, None, None, out);
        }
    }

    pub(super) fn expire_pause(&mut self, pause: PauseId, wall: WallMs, out: &mut Vec<Output>) {
        if self.may_propose(&Purpose::ExpirePause(pause)) {
            let command = Command::ExpirePause { pause, by: self.setup.me.clone(), at: wall };
            self.propose(Purpose::ExpirePause(pause), command, Some(self.office.term), None, out);
        }
    }

    /// What this node says of the pause that it has seen.
    pub(super) fn paused_facts(&self, now: Mono) -> Option<PausedFacts> {
        let pause = self.ledger.pause.as_ref()?;
        // Alone means that no commit waits for anybody any more: before that it is not so.
        let waits = pause.order.alone
            && self.detector.mysql_facts().is_some_and(|(_, facts)| facts.semi_sync.source_enabled);
        let pause = pause.id;
        let armed = self.lease.long.filter(|(id, _)| *id == pause && !waits);
        let over = self.lease.pause_over.filter(|(id, _)| *id == pause);
        Some(PausedFacts {
            pause,
            armed_ms: armed.map(|(_, until)| until.since_ms(now)).filter(|ms| *ms > 0),
            over_in_ms: over.map(|(_, at)| at.since_ms(now)),
        })
    }
}
