//! What each action of the lease model does, the design's way and each weakened way.

use super::{
    AGE_MAX, Action, DRIFT, Entry, LEASE, Leader, Lease, MARGIN, STALE, State, Thread, Variant, Who,
};

impl Lease {
    fn may_grant(&self, state: &State, leader: &Leader, present: bool) -> bool {
        let own_term = leader.own_term || self.0 == Variant::GrantBeforeOwnTerm;
        let ending = leader.ending && self.0 != Variant::GrantWhileEnding;
        let quorum = leader.acked <= AGE_MAX || self.0 == Variant::GrantWithoutQuorum;
        let released = present && leader.own_term && state.released.is_some();
        state.question && own_term && !ending && quorum && !leader.ended && !released
    }

    fn is_over(&self, state: &State) -> bool {
        let margin = if self.0 == Variant::NoMargin { 0 } else { MARGIN };
        let any = self.0 == Variant::AnyRelease && state.released.is_some();
        let closed = |boot: usize| state.released.is_some_and(|b| usize::from(b) == boot) || any;
        let noted = [0, 1].into_iter().filter(|b| !closed(*b)).map(|b| state.noted[b]).max().unwrap_or(0);
        // `noted` counts down to the end plus margin.
        noted <= MARGIN - margin && (state.wait == 0 || self.0 == Variant::NoNewLeaderWait)
    }

    fn accept(&self, next: &mut State, age: u8) -> Option<()> {
        let Thread::Asked(since) = next.thread else { return None };
        let lasts = match self.0 {
            Variant::FromReceipt => LEASE,
            Variant::WithoutAge => LEASE.saturating_sub(since),
            _ => LEASE.saturating_sub(since + age),
        };
        if lasts == 0 || (next.latched && self.0 != Variant::CloseIsNoLatch) {
            return None;
        }
        next.grants &= !(1 << age);
        next.thread = Thread::Permitting(lasts);
        Some(())
    }

    fn ticket(&self) -> u8 {
        match self.0 {
            Variant::WithoutAge => LEASE,
            _ => LEASE - AGE_MAX,
        }
    }

    fn grant(&self, next: &mut State, who: Who) -> Option<()> {
        let leader = match who {
            Who::Leader => next.leader,
            Who::Deposed => next.deposed?,
        };
        if !self.may_grant(next, &leader, who == Who::Leader) {
            return None;
        }
        next.grants |= 1 << leader.acked.min(AGE_MAX);
        if who == Who::Leader {
            let noted = &mut next.noted[usize::from(next.boot)];
            *noted = (*noted).max(LEASE + MARGIN - leader.acked.min(AGE_MAX));
        }
        Some(())
    }

    pub(super) fn tick(&self, next: &mut State, slip_a: bool, slip_leader: bool, slip_deposed: bool) {
        if slip_a {
            next.may_slip = false;
        } else {
            next.ticket = next.ticket.saturating_sub(1);
            next.permit = next.permit.saturating_sub(1);
            if let Thread::Asked(since) = &mut next.thread {
                *since = (*since + 1).min(LEASE);
            }
        }
        next.deposed_for = (next.deposed_for + 1).min(STALE);
        if slip_leader {
            next.leader.may_slip = false;
        } else {
            next.leader.acked = (next.leader.acked + 1).min(STALE);
            next.noted = next.noted.map(|end| end.saturating_sub(1));
            next.wait = next.wait.saturating_sub(1);
        }
        if let Some(deposed) = &mut next.deposed {
            if slip_deposed {
                deposed.may_slip = false;
            } else {
                deposed.acked = (deposed.acked + 1).min(STALE);
            }
        }
    }

    fn elect(&self, next: &mut State, inherit: bool, forget_deposed: bool) {
        if forget_deposed || next.deposed.is_none() {
            next.deposed = Some(next.leader);
            next.deposed_for = 0;
        }
        next.entry = match next.entry {
            Entry::InLog | Entry::Limbo if inherit => Entry::InLog,
            Entry::InLog | Entry::Limbo => Entry::Limbo,
            other => other,
        };
        next.leader = Leader { acked: STALE, own_term: false, ended: false, ending: false, may_slip: true };
        next.noted = [0; 2];
        let rates = if self.0 == Variant::NewLeaderWaitWithoutRates { 0 } else { DRIFT };
        next.wait = LEASE + rates + MARGIN;
    }

    /// Makes states equal that can only behave alike.
    pub(super) fn normalise(&self, state: &mut State) {
        if !matches!(self.0, Variant::PermitWithoutTicket | Variant::FromReceipt | Variant::CloseIsNoLatch) {
            // Both count down on one clock, and open only together.
            state.permit = state.permit.min(state.ticket);
            // Nothing that comes for a ticket that has ended opens it again.
            let waits = matches!(state.thread, Thread::Ticketed | Thread::Asked(_) | Thread::Permitting(_));
            if state.ticket == 0 && waits {
                state.thread = Thread::Idle;
            }
        }
        // An answer that the thread no longer waits for could only move the noted end further away.
        if !matches!(state.thread, Thread::Asked(_)) && self.0 != Variant::LateGrantForReusedSlot {
            (state.question, state.grants) = (false, 0);
        }
        // The end is in the leader's log: what it waited for is past, and another leader would wait anew.
        if matches!(state.entry, Entry::InLog | Entry::Committed) {
            (state.noted, state.wait) = ([0; 2], 0);
        }
        // A deposed leader that can grant nothing more.
        let stale = state.deposed_for == STALE && self.0 != Variant::GrantWithoutQuorum;
        let mute = |old: &Leader| {
            (stale && old.acked == STALE) || old.ended || (old.ending && self.0 != Variant::GrantWhileEnding)
        };
        if state.deposed.as_ref().is_none_or(mute) {
            (state.deposed, state.deposed_for) = (None, 0);
        }
    }

    pub(super) fn holder(&self, next: &mut State, action: Action) -> Option<()> {
        match (action, next.thread) {
            (Action::Ticket, Thread::Idle | Thread::Asked(_)) if !next.latched => {
                // A question to which no answer counts any more is forgotten with its slot.
                next.question = false;
                if self.0 != Variant::LateGrantForReusedSlot {
                    next.grants = 0;
                }
                (next.ticket, next.permit, next.thread) = (self.ticket(), 0, Thread::Ticketed);
            }
            (Action::Ask, Thread::Ticketed) => {
                (next.question, next.thread) = (true, Thread::Asked(0));
            }
            (Action::Accept { age }, _) if next.grants & (1 << age) != 0 => self.accept(next, age)?,
            (Action::WritePermit, Thread::Permitting(lasts)) => {
                next.permit = lasts;
                if matches!(self.0, Variant::FromReceipt | Variant::CloseIsNoLatch) {
                    next.ticket = lasts;
                }
                next.thread = Thread::Idle;
            }
            (Action::Close, Thread::Idle | Thread::Ticketed | Thread::Asked(_)) if !next.latched => {
                next.latched = true;
                if self.0 != Variant::ReleaseBeforeClose {
                    (next.ticket, next.permit) = (0, 0);
                }
                if self.0 != Variant::CloseIsNoLatch {
                    next.thread = Thread::Idle;
                }
                next.releasing = Some(next.boot);
            }
            (Action::AgentRestarts | Action::HostCrashes, _) if next.boot == 0 => {
                if action == Action::HostCrashes {
                    (next.ticket, next.permit) = (0, 0);
                }
                (next.boot, next.thread, next.latched) = (1, Thread::Idle, false);
                (next.question, next.grants) = (false, 0);
            }
            _ => return None,
        }
        Some(())
    }

    pub(super) fn raft(&self, next: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Release if next.entry != Entry::Committed => {
                next.released = Some(next.releasing.take()?);
            }
            Action::Acknowledge { who: Who::Leader, age } => {
                next.leader.acked = next.leader.acked.min(age);
            }
            // What a quorum acknowledged to a deposed leader was sent before the election.
            Action::Acknowledge { who: Who::Deposed, age } if age >= next.deposed_for => {
                let deposed = next.deposed.as_mut()?;
                deposed.acked = deposed.acked.min(age);
            }
            Action::Grant(who) => self.grant(next, who)?,
            Action::End if next.entry == Entry::None && next.leader.own_term && self.is_over(next) => {
                next.leader.ending = true;
                next.entry = Entry::InLog;
            }
            Action::Commit if next.entry == Entry::InLog && next.leader.own_term => {
                next.entry = Entry::Committed;
                next.leader.ended = true;
            }
            Action::Elect { inherit, forget_deposed } => self.elect(next, inherit, forget_deposed),
            Action::ApplyOwnTerm if !next.leader.own_term => {
                next.leader.own_term = true;
                next.entry = match next.entry {
                    Entry::InLog | Entry::Committed => Entry::Committed,
                    Entry::Limbo | Entry::None => Entry::None,
                };
                next.leader.ended = next.entry == Entry::Committed;
            }
            Action::BOpens if next.entry == Entry::Committed && !next.b_open => next.b_open = true,
            _ => return None,
        }
        Some(())
    }
}
