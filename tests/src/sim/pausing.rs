//! A pause on the lease thread: long tickets and permits in a slot of their own, beside the short ones.
//!
//! The kernel keeps them whatever becomes of the agent. A new start of the agent takes nothing over here: it closes, and asks
//! anew when it has claimed the pause.

use baton_runbooks::agent::LeaseFacts;
use baton_runbooks::lease::granter::Office;
use baton_runbooks::lease::{LongLease, Refusal};
use baton_runbooks::ledger::Command;
use baton_runbooks::ledger::pause::PAUSE_MIN_MS;
use baton_runbooks::model::{Mono, PauseId};

use super::event::Mail;
use super::node::{NAMES, TERMS};
use super::planted::Planted;
use super::world::World;

/// How long a leader waits that does not wait for the pause, in milliseconds. Longer than it takes to be granted a long lease.
const HASTY_MS: u64 = 4_000;

/// What a start of the lease thread knows of the pause.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pausing {
    /// The pause, and when it ends as counted here.
    counted: Option<(PauseId, Mono)>,
    /// The pause for which no long lease is asked any more.
    over: Option<PauseId>,
    /// Its long slot is void.
    void: bool,
}

impl World {
    /// Asks for long leases while a pause goes on, and lets go of them when it is over.
    pub(super) fn tend_pause(&mut self, node: usize) {
        let appointment = self.applied(node).appointment();
        let it = &self.nodes[node];
        let mine =
            it.holder.epoch() == Some(appointment.epoch) && appointment.holder.as_ref() == Some(&it.name);
        let now = it.local(self.now);
        let Some(paused) = appointment.paused.filter(|_| mine) else {
            if it.holder.long_end().is_some() {
                self.let_go(node);
            }
            return;
        };
        let pausing = &mut self.nodes[node].pausing;
        if pausing.counted.is_none_or(|(id, _)| id != paused.id) {
            *pausing =
                Pausing { counted: Some((paused.id, now.plus_ms(paused.for_ms))), over: None, void: false };
        }
        let ends = pausing.counted.map_or(now, |(_, ends)| ends);
        let left_ms = ends.since_ms(now).saturating_sub(2 * TERMS.lease_ms);
        if paused.resumed || left_ms == 0 || pausing.over.is_some() {
            self.end_pause(node, paused.id, now);
        } else if paused.claimed_by == Some(self.nodes[node].boot) {
            let asked = self.nodes[node].holder.long_asked_at();
            if asked.is_none_or(|at| now.since_ms(at) > TERMS.lease_ms) {
                self.ask_long(node, LongLease { pause: paused.id, length_ms: left_ms });
            }
        }
    }

    /// Closes nothing as long as only the long leases are valid: they end by themselves.
    fn end_pause(&mut self, node: usize, pause: PauseId, now: Mono) {
        let it = &mut self.nodes[node];
        if it.pausing.void || (it.holder.long_end().is_some() && !it.holder.is_short_valid(now)) {
            return;
        }
        it.pausing.over = Some(pause);
        it.pausing.void = true;
        self.let_go(node);
    }

    fn let_go(&mut self, node: usize) {
        let forgets = self.has(Planted::PauseEndedButNotVoid);
        let it = &mut self.nodes[node];
        it.holder.drop_long();
        if !forgets {
            it.gate.void_slot(TERMS.long_slot());
        }
        self.tell(|| format!("{} lives on short leases again", NAMES[node]));
    }

    /// Ticket, clock, question.
    fn ask_long(&mut self, node: usize, lease: LongLease) {
        let at = self.now;
        let it = &mut self.nodes[node];
        let Some((seq, slot, doors)) = it.holder.next_long_ticket(lease) else { return };
        let until = at + it.real(TERMS.long_ticket_ms(lease.length_ms));
        for door in doors {
            it.gate.ticket(door, slot, until);
        }
        let Some(renewal) = it.holder.renew_long(seq, it.local(at)) else { return };
        self.tell(|| format!("{} asks for a long lease", NAMES[node]));
        self.ask(node, &renewal);
    }

    /// The leader has less of the pause left than was asked for, or does not know of it yet.
    pub(super) fn long_refused(&mut self, node: usize, refusal: Refusal) {
        let now = self.nodes[node].local(self.now);
        let it = &mut self.nodes[node];
        match refusal {
            Refusal::PauseEnds { left_ms } => {
                if let Some((_, ends)) = &mut it.pausing.counted {
                    *ends = now.plus_ms(left_ms).min(*ends);
                }
                it.holder.refuse_long();
            }
            Refusal::NotPaused => it.holder.refuse_long(),
            Refusal::NotLeader
            | Refusal::NothingAppliedYet
            | Refusal::NoQuorum
            | Refusal::OwnDiskStalled
            | Refusal::NotTheHolder { .. }
            | Refusal::Released
            | Refusal::WaitsForOperator
            | Refusal::Ending
            | Refusal::OldHolderOpen { .. }
            | Refusal::Surrendered
            | Refusal::HolderHearsNothing => {}
        }
    }

    /// A refusal goes back the way that the question came.
    pub(super) fn refuse_long(&mut self, node: usize, back: usize, to: usize, refusal: Refusal) {
        if node == to {
            self.long_refused(to, refusal);
        } else {
            self.send(node, back, Mail::Refused { refusal, to });
        }
    }

    /// What the lease thread tells the core of a pause.
    pub(super) fn paused_lease(&mut self, node: usize, office: &Office) -> LeaseFacts {
        let paused = self.applied(node).paused();
        let hasty = self.has(Planted::PauseNotWaitedOut);
        let it = &mut self.nodes[node];
        let now = it.local(self.now);
        it.granter.see(now, office, paused);
        let over = it.granter.pause_over(office);
        LeaseFacts {
            pause_over: over.map(|(id, at)| {
                let seen_at = at.minus_ms(TERMS.pause_wait_ms(PAUSE_MIN_MS));
                (id, if hasty { seen_at.plus_ms(HASTY_MS) } else { at })
            }),
            long: it.holder.long(),
            short_again: it.pausing.over.filter(|_| it.pausing.void),
            ..LeaseFacts::default()
        }
    }

    /// Another look, at the moment of proposing, at what is given up for over.
    pub(super) fn is_pause_over(&mut self, node: usize, command: &Command) -> bool {
        let Command::ExpirePause { pause, .. } = command else { return true };
        let office = self.office(node);
        let now = self.nodes[node].local(self.now);
        let over = self.paused_lease(node, &office).pause_over;
        over.is_some_and(|(id, over)| id == *pause && over <= now)
    }
}
