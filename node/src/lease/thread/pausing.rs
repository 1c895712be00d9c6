//! A pause on the holder: long tickets and permits in a slot of their own, beside the short ones.
//!
//! The pause is counted from when this thread first sees it in the ledger. A thread of a new start of the agent goes on with the count of
//! the one before it, as far as that shows in the kernel; with nothing there it counts anew, but is granted no more than the leader
//! has left.

use std::time::Duration;

use baton_runbooks::lease::LongLease;
use baton_runbooks::lease::granter::PausedEpoch;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::model::{Mono, PauseId};

use super::super::links::Frame;
use super::Thread;

/// What this thread knows of the pause.
#[derive(Debug, Default)]
pub(super) struct Pausing {
    /// The pause, and when it ends as counted here.
    counted: Option<(PauseId, Mono)>,
    /// End of the newest long ticket in the kernel.
    pub(super) ticket_ends: Mono,
    /// The pause for which no long lease is asked any more.
    over: Option<PauseId>,
    /// Its long slot is void, and was read back.
    void: bool,
    /// The ports are open by an earlier agent's doing, and were bound to no server yet.
    pub(super) unbound: bool,
}

impl Pausing {
    /// The leader's count ends sooner.
    pub(super) fn cap(&mut self, ends: Mono) {
        if let Some((_, counted)) = &mut self.counted {
            *counted = ends.min(*counted);
        }
    }

    fn end_of(&mut self, paused: PausedEpoch, now: Mono) -> Mono {
        match self.counted {
            Some((id, ends)) if id == paused.id => ends,
            Some(_) | None => {
                let ends = now.plus_ms(paused.for_ms);
                (self.counted, self.over, self.void) = (Some((paused.id, ends)), None, false);
                ends
            }
        }
    }
}

impl Thread {
    /// The pause for which this agent lives on short lifetimes again.
    pub(super) fn short_again(&self) -> Option<PauseId> {
        self.pausing.over.filter(|_| self.pausing.void)
    }

    /// The cluster has gone on without this node, which must be closed however long its leases last.
    pub(super) fn is_outranked(&self) -> bool {
        self.setup.standing.borrow().outranked
    }

    /// Milliseconds for which the long leases still last.
    pub(super) fn long_ms(&self) -> u64 {
        let now = self.setup.clock.now();
        self.holder.long_end().map_or(0, |until| until.since_ms(now))
    }

    /// Everything in the kernel is closed, by another program's doing.
    pub(super) fn all_is_closed(&mut self) {
        self.permitted.clear();
        self.holder.drop_long();
    }

    /// Asks for long leases while a pause goes on, and lets go of them when it is over.
    pub(super) async fn tend_pause(&mut self) {
        let appointment = self.appointment();
        if self.is_outranked() {
            // An agent that has just started renews nothing yet, and has what the one before it left open, of whatever epoch.
            let may_be_open = self.inherits || self.holder.epoch().is_some();
            if may_be_open && self.shut(&[Door::Vip, Door::Ports]).await {
                self.inherits = false;
                self.holder.appoint(None);
            }
            return;
        }
        let is_holder = appointment.holder.as_ref() == Some(&self.setup.me);
        if let Some(paused) = appointment.paused.filter(|paused| is_holder && paused.resumed) {
            self.confirm_closed(paused).await;
        }
        let mine = is_holder && self.holder.epoch() == Some(appointment.epoch);
        let now = self.setup.clock.now();
        let Some(paused) = appointment.paused.filter(|_| mine) else {
            if self.holder.long_end().is_some() {
                // Over for everybody, and this thread was not asked: its own count ended long ago.
                self.let_go().await;
            }
            return;
        };
        let ends = self.pausing.end_of(paused, now);
        // The short leases carry the last stretch, so that nobody is closed between the two.
        let left_ms = ends.since_ms(now).saturating_sub(2 * self.setup.terms.lease_ms);
        if paused.resumed || left_ms == 0 || self.pausing.over.is_some() {
            self.end_pause(paused.id, now).await;
        } else if paused.claimed_by == Some(self.setup.boot) {
            let asked = self.holder.long_asked_at();
            if asked.is_none_or(|at| now.since_ms(at) > self.setup.terms.lease_ms) {
                self.ask_long(LongLease { pause: paused.id, length_ms: left_ms }).await;
            }
        }
    }

    /// Closes nothing as long as only the long leases are valid: they end by themselves.
    async fn end_pause(&mut self, pause: PauseId, now: Mono) {
        if self.pausing.void || (self.holder.long_end().is_some() && !self.holder.is_short_valid(now)) {
            return;
        }
        // A latch: from here on this agent asks for none, so what it says stays true.
        self.pausing.over = Some(pause);
        self.pausing.void = self.let_go().await;
        if self.pausing.void {
            tracing::info!(%pause, "the long lifetimes are void, the short ones carry on");
        }
    }

    /// A holder that renews nothing and has closed, because its database boots writable for instance, has no short lease to
    /// go on with. It says that the long ones are void all the same: nobody else can, and the pause would last to its end.
    async fn confirm_closed(&mut self, paused: PausedEpoch) {
        self.pausing.end_of(paused, self.setup.clock.now());
        let is_open = [Door::Vip, Door::Ports].into_iter().any(|door| self.holder.is_open(door));
        if self.holder.epoch().is_some() || self.inherits || is_open || self.pausing.void {
            return;
        }
        self.pausing.over = Some(paused.id);
        self.pausing.void = self.let_go().await;
    }

    /// Voids the long slot and reads back. What was open only by it is closed then.
    async fn let_go(&mut self) -> bool {
        self.holder.drop_long();
        if let Some(kernel) = &mut self.kernel
            && let Err(error) = kernel.void_slot(self.setup.terms.long_slot()).await
        {
            tracing::error!(%error, "the long tickets are not void yet");
            return false;
        }
        // Whatever is open now is open by short leases; until when shows with the next grant.
        let short = self.setup.clock.now().plus_ms(self.setup.terms.lease_ms);
        self.permitted.values_mut().for_each(|until| *until = short.min(*until));
        self.refresh().await;
        true
    }

    /// Ticket first, then the clock, then the question, as for a short lease.
    async fn ask_long(&mut self, lease: LongLease) {
        let Some((seq, slot, doors)) = self.holder.next_long_ticket(lease) else { return };
        let timeout_ms = self.setup.terms.long_ticket_ms(lease.length_ms);
        let ticket_ends = self.setup.clock.now().plus_ms(timeout_ms);
        let Some(kernel) = &mut self.kernel else { return };
        match kernel.ticket(&doors, slot, Duration::from_millis(timeout_ms)).await {
            Ok(true) => {}
            Ok(false) => return self.all_is_closed(),
            Err(error) => {
                tracing::error!(%error, "no long ticket");
                return;
            }
        }
        self.pausing.ticket_ends = ticket_ends;
        let Some(renewal) = self.holder.renew_long(seq, self.setup.clock.now()) else { return };
        if self.office().is_leader {
            self.grant_own(&renewal).await;
        }
        self.links.send_all(&Frame::Renew { renewal, relayed: false });
    }

    /// What an earlier start of this agent left in the kernel's long slot goes on if the pause does; otherwise it ends here.
    pub(super) async fn adopt(&mut self) {
        let paused = self.appointment().paused.filter(|paused| !paused.resumed);
        let now = self.setup.clock.now();
        let slot = self.setup.terms.long_slot();
        let Some(kernel) = &mut self.kernel else { return };
        let open = match kernel.open_in(slot) {
            Ok(open) => open,
            Err(error) => {
                tracing::error!(%error, "what is open is not known");
                Vec::new()
            }
        };
        let Some((paused, shortest_ms)) = paused.zip(open.iter().map(|(_, ms)| *ms).min()) else {
            self.let_go().await;
            return;
        };
        let doors: Vec<Door> = open.iter().map(|(door, _)| *door).collect();
        let until = now.plus_ms(shortest_ms);
        tracing::info!(pause = %paused.id, ?doors, left_ms = shortest_ms, "an earlier agent's long leases go on");
        // What is in the kernel was counted from when the earlier agent saw the pause.
        self.pausing.counted = Some((paused.id, until));
        self.pausing.unbound = doors.contains(&Door::Ports);
        self.holder.adopt_long(paused.id, until, &doors);
        self.permitted.extend(doors.into_iter().map(|door| (door, until)));
    }
}
