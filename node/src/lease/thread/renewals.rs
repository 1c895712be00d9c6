//! Renewals, grants and what follows from them.

use std::time::{Duration, Instant};

use baton_runbooks::lease::holder::Door;
use baton_runbooks::lease::{Grant, Refusal, Renewal, Surrender};
use baton_runbooks::model::NodeId;
use baton_runbooks::observe::Observation;
use tokio::sync::mpsc;

use super::super::links::{Arrived, Frame};
use super::Thread;

/// Renewals that wait for an answer on behalf of a peer. A handful per second pass through.
const ROUTES_MAX: usize = 64;
/// Renewals that are answered again when something has changed. One node at a time gets the baton, and asks for it by two
/// ways, once for each door.
const WAITING_MAX: usize = 8;
/// Own gap, in renewal periods, from which this agent judges nobody for a while (design, 4.11).
const GAP_PERIODS: u32 = 3;
/// The VIP's addresses are refreshed this often; their lifetime is two of these or more.
const REFRESH: Duration = Duration::from_millis(700);

impl Thread {
    pub(super) async fn tick(&mut self) {
        let now = Instant::now();
        let gap = now.duration_since(self.ticked_at);
        let period = Duration::from_millis(self.setup.terms.renew_ms);
        if gap > period * GAP_PERIODS {
            let gap_ms = gap.as_millis() as u64;
            tracing::warn!(gap_ms, "the lease thread had no processor");
            let _ = self.setup.observations.try_send(Observation::OwnGap { gap_ms });
        }
        self.ticked_at = now;
        if let Some(asleep) = self.suspend.since_last(Duration::from_millis(self.setup.terms.margin_ms)) {
            // The tickets have not run down meanwhile, and somebody else may serve by now (design, section 2).
            tracing::error!(
                asleep_ms = asleep.as_millis() as u64,
                "the machine was suspended: everything closes"
            );
            self.shut(&[Door::Vip, Door::Ports]).await;
        }
        // Whoever has stopped waiting is forgotten.
        self.opening.retain(|(_, done)| !done.is_closed());
        self.lapse().await;
        self.look_again().await;
        self.renew().await;
        self.tend_pause().await;
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH;
            self.refresh().await;
        }
    }

    /// A lease that has ended latches both doors: they open again only by order, when everything was looked at anew.
    async fn lapse(&mut self) {
        let now = self.setup.clock.now();
        let ended = self.holder.ends_at().is_some_and(|end| now >= end);
        if ended && (self.holder.is_open(Door::Vip) || self.holder.is_open(Door::Ports)) {
            tracing::warn!("the lease has ended");
            self.shut(&[Door::Vip, Door::Ports]).await;
        }
    }

    /// The driver hangs: what it holds open ends with the lease.
    fn hangs(&mut self) -> bool {
        let lost = self.pulse.is_lost(self.setup.clock.now());
        if lost && !self.pulse_lost {
            tracing::error!("the driver gives no sign of life: nothing is renewed until it does");
            self.refusal = Some("the agent's own driver hangs".to_owned());
        }
        self.pulse_lost = lost;
        lost
    }

    /// Ticket first, then the clock, then the question (design, 4.5).
    pub(super) async fn renew(&mut self) {
        self.renew_at = Instant::now() + Duration::from_millis(self.setup.terms.renew_ms);
        if self.holder.epoch().is_some() && self.hangs() {
            return;
        }
        let Some((seq, slot, doors)) = self.holder.next_ticket() else { return };
        // Read before the ticket is written, so that this side never takes it for alive longer than the kernel does.
        let ticket_ends = self.setup.clock.now().plus_ms(self.setup.terms.ticket_ms());
        if let Some(kernel) = &mut self.kernel {
            let timeout = Duration::from_millis(self.setup.terms.ticket_ms());
            match kernel.ticket(&doors, slot, timeout).await {
                Ok(true) => {}
                // The rules are back, closed; this slot has no ticket, so the next renewal follows at once.
                Ok(false) => {
                    self.all_is_closed();
                    self.renew_at = Instant::now();
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "no ticket");
                    return;
                }
            }
        }
        let now = self.setup.clock.now();
        let Some(renewal) = self.holder.renew(seq, now) else { return };
        self.tickets.insert(seq, ticket_ends);
        while self.tickets.len() > self.setup.terms.slots as usize {
            self.tickets.pop_first();
        }
        if self.office().is_leader {
            self.grant_own(&renewal).await;
        }
        self.links.send_all(&Frame::Renew { renewal, relayed: false });
    }

    pub(super) async fn grant_own(&mut self, renewal: &Renewal) {
        match self.granter.grant(self.setup.clock.now(), &self.office(), &self.appointment(), renewal) {
            Ok(grant) => self.granted(&grant).await,
            Err(refusal) => {
                self.refused(&refusal);
                self.keep_waiting(&refusal, renewal, None);
            }
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::PauseEnds { left_ms } => {
                self.pausing.cap(self.setup.clock.now().plus_ms(*left_ms));
                self.holder.refuse_long();
            }
            // The leader may not have seen yet who has claimed it.
            Refusal::NotPaused => self.holder.refuse_long(),
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
        self.refusal = Some(format!("{refusal:?}"));
    }

    /// Of a switchover's new holder, whose baton this node has not seen passed yet, or whose predecessor has not said that
    /// it is closed. It does not have to ask again.
    fn keep_waiting(&mut self, refusal: &Refusal, renewal: &Renewal, back: Option<mpsc::Sender<Frame>>) {
        let may_pass = match refusal {
            Refusal::OldHolderOpen { .. } => true,
            Refusal::NotTheHolder { epoch } => renewal.epoch > *epoch,
            Refusal::NotLeader
            | Refusal::NothingAppliedYet
            | Refusal::NoQuorum
            | Refusal::OwnDiskStalled
            | Refusal::Released
            | Refusal::WaitsForOperator
            | Refusal::Ending
            | Refusal::Surrendered
            | Refusal::HolderHearsNothing
            | Refusal::NotPaused
            | Refusal::PauseEnds { .. } => false,
        };
        if may_pass {
            // The same question may have come twice, by way of a peer too: that way is not better than the direct one.
            self.waiting.retain(|(other, _)| other.node != renewal.node || other.seq >= renewal.seq);
            self.waiting.push((renewal.clone(), back));
            if self.waiting.len() > WAITING_MAX {
                self.waiting.remove(0);
            }
        }
    }

    /// Answers what waits, now that something has changed.
    pub(super) async fn answer_again(&mut self) {
        if self.waiting.is_empty() || !self.office().is_leader {
            return;
        }
        for (renewal, back) in std::mem::take(&mut self.waiting) {
            match back {
                None => self.grant_own(&renewal).await,
                Some(back) => self.grant_to(renewal, back),
            }
        }
    }

    /// Says to everybody that this node is closed, and hears it itself.
    pub(super) async fn surrender(&mut self) {
        let surrender = self.holder.surrender();
        let office = self.office();
        self.granter.surrender(&office, &surrender);
        self.links.send_all(&Frame::Surrender { surrender, relayed: false });
        self.answer_again().await;
    }

    async fn hear_surrender(&mut self, surrender: Surrender, relayed: bool, from: &NodeId) {
        if !relayed && surrender.node != *from {
            return;
        }
        let office = self.office();
        if office.is_leader {
            self.granter.surrender(&office, &surrender);
            self.answer_again().await;
        } else if let Some(leader) = office.leader.filter(|leader| !relayed && *leader != surrender.node) {
            self.links.send(&leader, Frame::Surrender { surrender, relayed: true });
        }
    }

    pub(super) async fn take(&mut self, message: Arrived) {
        match message.frame {
            Frame::Renew { renewal, relayed } => self.answer(renewal, relayed, &message.from, message.back),
            Frame::Granted { node, grant } if node == self.setup.me => self.granted(&grant).await,
            Frame::Refused { node, refusal, .. } if node == self.setup.me => self.refused(&refusal),
            Frame::Granted { node, grant } => {
                let key = (node.clone(), grant.boot, grant.seq);
                self.pass_back(&key, Frame::Granted { node, grant });
            }
            Frame::Surrender { surrender, relayed } => {
                self.hear_surrender(surrender, relayed, &message.from).await;
            }
            Frame::Refused { node, boot, seq, refusal } => {
                let key = (node.clone(), boot, seq);
                self.pass_back(&key, Frame::Refused { node, boot, seq, refusal });
            }
        }
    }

    /// Answers as the leader, or passes the question on to it, once.
    fn answer(&mut self, renewal: Renewal, relayed: bool, from: &NodeId, back: mpsc::Sender<Frame>) {
        let office = self.office();
        // A node asks for itself; only what a peer relays may name another.
        if !relayed && renewal.node != *from {
            return;
        }
        let (node, boot, seq) = (renewal.node.clone(), renewal.boot, renewal.seq);
        if !office.is_leader && !relayed {
            let Some(leader) = office.leader.filter(|leader| *leader != node && *leader != self.setup.me)
            else {
                return;
            };
            if self.routes.len() >= ROUTES_MAX {
                // First what nobody asks any more, then the oldest questions of who does.
                self.routes.retain(|(asked_by, start, _), _| *asked_by == node && *start == boot);
                self.routes.pop_first();
            }
            self.routes.insert((node, boot, seq), back);
            self.links.send(&leader, Frame::Renew { renewal, relayed: true });
            return;
        }
        self.grant_to(renewal, back);
    }

    fn grant_to(&mut self, renewal: Renewal, back: mpsc::Sender<Frame>) {
        let (node, boot, seq) = (renewal.node.clone(), renewal.boot, renewal.seq);
        let (now, office) = (self.setup.clock.now(), self.office());
        let frame = match self.granter.grant(now, &office, &self.appointment(), &renewal) {
            Ok(grant) => Frame::Granted { node, grant },
            Err(refusal) => {
                self.keep_waiting(&refusal, &renewal, Some(back.clone()));
                Frame::Refused { node, boot, seq, refusal }
            }
        };
        let _ = back.try_send(frame);
    }

    /// The way back stays after a refusal: what was refused may be granted a moment later.
    fn pass_back(&mut self, key: &(NodeId, u64, u64), frame: Frame) {
        if let Some(back) = self.routes.get(key) {
            let _ = back.try_send(frame);
        }
    }

    /// A grant arrived: permit into the kernel, address, and whoever waits for the door is told.
    async fn granted(&mut self, grant: &Grant) {
        let now = self.setup.clock.now();
        let accepted = match self.holder.accept(grant, now) {
            Ok(accepted) => accepted,
            Err(ignored) => {
                tracing::debug!(?ignored, seq = grant.seq, "a grant opens nothing");
                return;
            }
        };
        self.refusal = None;
        // The same question was asked by way of a peer, too. Its answer is no news, if the first one is in the kernel.
        let is_known = self.granted.is_some_and(|(seq, end)| seq == grant.seq && accepted.ends_at <= end);
        if is_known && accepted.doors.iter().all(|door| self.permitted.contains_key(door)) {
            return;
        }
        let Some(kernel) = &mut self.kernel else { return };
        let timeout = Duration::from_millis(accepted.ends_at.since_ms(now));
        match kernel.permit(&accepted.doors, accepted.slot, timeout).await {
            Ok(true) => {}
            Ok(false) => {
                self.all_is_closed();
                self.renew_at = Instant::now();
                return;
            }
            Err(error) => {
                tracing::error!(%error, "no permit");
                if accepted.slot == self.setup.terms.long_slot() {
                    self.holder.drop_long();
                }
                return;
            }
        }
        let is_long = accepted.slot == self.setup.terms.long_slot();
        if !is_long {
            self.granted = Some((grant.seq, accepted.ends_at));
        }
        let ticket_ends =
            if is_long { Some(self.pausing.ticket_ends) } else { self.tickets.get(&grant.seq).copied() };
        let until = ticket_ends.unwrap_or(now).min(accepted.ends_at);
        for door in accepted.doors {
            let noted = self.permitted.entry(door).or_insert(until);
            *noted = until.max(*noted);
        }
        if is_long {
            self.refresh().await;
        }
        self.tell_opened().await;
    }

    async fn tell_opened(&mut self) {
        let now = self.setup.clock.now();
        let wants_vip = self.opening.iter().any(|(door, _)| *door == Door::Vip);
        if wants_vip && self.permitted.contains_key(&Door::Vip) {
            self.refresh().await;
        }
        let permitted = &self.permitted;
        let is_open = |door: &Door| permitted.get(door).is_some_and(|until| now < *until);
        for (_, done) in self.opening.extract_if(.., |(door, _)| is_open(door)) {
            let _ = done.send(Ok(()));
        }
    }
}
