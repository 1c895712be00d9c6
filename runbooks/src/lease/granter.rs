//! The leader's half of the lease.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Grant, LongLease, Refusal, Renewal, Surrender, Terms};
use crate::model::{Epoch, Mono, NodeId, PauseId, Term};

/// What a node knows of Raft and of the ledger when it is asked for a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Office {
    /// This node leads.
    pub is_leader: bool,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// When this node became the leader of this term.
    pub elected_at: Option<Mono>,
    /// It has applied an entry of its own term.
    pub own_term_applied: bool,
    /// When the newest message that a quorum acknowledged was *sent*.
    pub quorum_acked_at: Option<Mono>,
    /// Its own log append has been pending since.
    pub append_pending_since: Option<Mono>,
}

/// What the ledger says about the holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appointment {
    /// Who holds the baton.
    pub holder: Option<NodeId>,
    /// In which epoch.
    pub epoch: Epoch,
    /// The epoch was given back.
    pub released: bool,
    /// The run that made it the holder waits for an operator, before it opened: it is to be closed, also if it comes back with
    /// a copy of the ledger that does not say so yet.
    pub waits_for_operator: bool,
    /// A switchover has passed the baton from this node, and the holder has not opened yet.
    pub passed_by: Option<NodeId>,
    /// A pause stands.
    pub paused: Option<PausedEpoch>,
}

/// What the ledger says about the pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PausedEpoch {
    /// Its number.
    pub id: PauseId,
    /// Its length, in milliseconds.
    pub for_ms: u64,
    /// The start of the holder's agent that may have long leases.
    pub claimed_by: Option<u64>,
    /// It was ended: nobody is granted one any more.
    pub resumed: bool,
}

/// A pause as this leader counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    id: PauseId,
    for_ms: u64,
    /// When it was first seen in this term.
    since: Mono,
}

/// The newest lease that was granted to one start of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    node: NodeId,
    /// When it must have ended, margin not included.
    end: Mono,
    /// Its ticket.
    seq: u64,
}

/// Starts of agents whose surrender is remembered: two data nodes that are restarted now and then.
const SURRENDERED_MAX: usize = 16;

/// Grants to one start of a holder's agent, without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    epoch: Epoch,
    boot: u64,
    /// When the first was given.
    began_at: Mono,
    /// When the newest could have been given.
    asked_at: Mono,
}

/// The leader's half: grants, and remembers until when it must not decide a takeover.
#[derive(Debug)]
pub struct Granter {
    me: NodeId,
    terms: Terms,
    term: Option<Term>,
    /// For each start of a holder's agent, its newest lease.
    noted: BTreeMap<u64, Noted>,
    /// For each start of an agent that has surrendered, the newest ticket that is void.
    surrendered: BTreeMap<u64, u64>,
    granted_at: Option<Mono>,
    ending: Option<Epoch>,
    stretch: Option<Stretch>,
    paused: Option<Counted>,
}

impl Granter {
    /// A leader's half for node `me`.
    #[must_use]
    pub const fn new(me: NodeId, terms: Terms) -> Self {
        Self {
            me,
            terms,
            term: None,
            noted: BTreeMap::new(),
            surrendered: BTreeMap::new(),
            granted_at: None,
            ending: None,
            stretch: None,
            paused: None,
        }
    }

    /// Looks at the ledger for a pause. Called before everything that asks when something is over, so that no answer is given
    /// without it.
    pub fn see(&mut self, now: Mono, office: &Office, paused: Option<PausedEpoch>) {
        self.follow(office);
        // Not to be seen to lead for a moment does not begin the count anew: what was answered before would be wrong.
        if office.is_leader {
            self.paused = paused.map(|paused| {
                let same = self.paused.filter(|counted| counted.id == paused.id);
                let since = same.map_or(now, |counted| counted.since);
                Counted { id: paused.id, for_ms: paused.for_ms, since }
            });
        }
    }

    /// The pause that this leader sees, and the earliest instant at which it may take it for over although the holder says
    /// nothing.
    #[must_use]
    pub fn pause_over(&mut self, office: &Office) -> Option<(PauseId, Mono)> {
        self.follow(office);
        let counted = self.paused.filter(|_| office.is_leader)?;
        Some((counted.id, counted.since.plus_ms(self.terms.pause_wait_ms(counted.for_ms))))
    }

    /// Answers a renewal.
    ///
    /// # Errors
    /// Says why nothing is granted; the holder shows it in `baton explain`.
    pub fn grant(
        &mut self,
        now: Mono,
        office: &Office,
        appointment: &Appointment,
        renewal: &Renewal,
    ) -> Result<Grant, Refusal> {
        self.see(now, office, appointment.paused);
        let acked_at = self.may_grant(now, office, appointment, renewal)?;
        if let Some(long) = renewal.long {
            self.may_be_long(now, appointment, renewal, long)?;
            return Ok(self.granted(now, acked_at, office, renewal));
        }
        self.hears(now, renewal)?;
        let end = acked_at.plus_ms(self.terms.lease_ms + 1);
        let (node, seq) = (renewal.node.clone(), renewal.seq);
        let noted = self.noted.entry(renewal.boot).or_insert(Noted { node, end, seq });
        noted.end = end.max(noted.end);
        noted.seq = seq.max(noted.seq);
        let margin_ms = self.terms.margin_ms;
        self.noted.retain(|boot, noted| *boot == renewal.boot || now < noted.end.plus_ms(margin_ms));
        self.granted_at = Some(now);
        Ok(self.granted(now, acked_at, office, renewal))
    }

    fn granted(&self, now: Mono, acked_at: Mono, office: &Office, renewal: &Renewal) -> Grant {
        Grant {
            epoch: renewal.epoch,
            boot: renewal.boot,
            seq: renewal.seq,
            // Both instants are cut to milliseconds; one more keeps the age from being too small.
            age_ms: now.since_ms(acked_at) + 1,
            leader: self.me.clone(),
            term: office.term,
            long: renewal.long,
        }
    }

    /// A long lease is not noted by itself: none outlives the pause as this leader counts it, and it waits for all of that.
    fn may_be_long(
        &self,
        now: Mono,
        appointment: &Appointment,
        renewal: &Renewal,
        long: LongLease,
    ) -> Result<(), Refusal> {
        let claimed = |paused: &PausedEpoch| {
            paused.id == long.pause && !paused.resumed && paused.claimed_by == Some(renewal.boot)
        };
        let counted = self.paused.filter(|_| appointment.paused.as_ref().is_some_and(claimed));
        let counted = counted.ok_or(Refusal::NotPaused)?;
        let left_ms = counted.since.plus_ms(counted.for_ms).since_ms(now);
        if long.length_ms <= left_ms { Ok(()) } else { Err(Refusal::PauseEnds { left_ms }) }
    }

    /// A node has closed: the leases that it was granted up to this ticket are over, and none is granted for an older one.
    /// What was granted for a later ticket stays noted: a surrender that comes late says nothing about it.
    pub fn surrender(&mut self, office: &Office, surrender: &Surrender) {
        self.follow(office);
        let over = |noted: &Noted| noted.node == surrender.node && noted.seq <= surrender.seq;
        if self.noted.get(&surrender.boot).is_some_and(over) {
            self.noted.remove(&surrender.boot);
        }
        let newest = self.surrendered.entry(surrender.boot).or_default();
        *newest = surrender.seq.max(*newest);
        if self.surrendered.len() > SURRENDERED_MAX {
            self.surrendered.retain(|boot, _| *boot == surrender.boot);
        }
    }

    /// From now on nothing more is granted for `epoch`. Called before its end is proposed, and only by a caller that
    /// looked at [`Granter::takeover_at`] in the same breath: a decision is made from a *copy* of that instant, and a
    /// grant may have been given since. Everybody else calls [`Granter::end_if_over`].
    pub const fn end(&mut self, epoch: Epoch) {
        self.ending = Some(epoch);
    }

    /// Stops granting for `epoch` if every lease of it has ended by `now`, margin included; otherwise changes nothing
    /// and answers false, and the end of the epoch must not be proposed. `closed` names the start of the holder's agent
    /// that gave its lease back, if that is the reason for the end.
    #[must_use]
    pub fn end_if_over(&mut self, now: Mono, office: &Office, epoch: Epoch, closed: Option<u64>) -> bool {
        let over = self.takeover_unless(office, closed).is_some_and(|at| at <= now);
        if over {
            self.ending = Some(epoch);
        }
        over
    }

    /// The proposal to end `epoch` was refused by the ledger, so the epoch goes on. Never called when the proposal's
    /// fate is unknown.
    pub fn go_on(&mut self, epoch: Epoch) {
        if self.ending == Some(epoch) {
            self.ending = None;
        }
    }

    /// The earliest instant at which a takeover may be decided; `None` while this node does not lead.
    #[must_use]
    pub fn takeover_at(&mut self, office: &Office) -> Option<Mono> {
        self.takeover_unless(office, None)
    }

    /// The same after the start `boot` of the holder's agent has closed and given the lease back: only leases of *other*
    /// starts of it can still be open. (An agent that dies while its release is on the way, and comes back, opens again
    /// under a number of its own.)
    #[must_use]
    pub fn released_at(&mut self, office: &Office, boot: u64) -> Option<Mono> {
        self.takeover_unless(office, Some(boot))
    }

    fn takeover_unless(&mut self, office: &Office, closed: Option<u64>) -> Option<Mono> {
        self.follow(office);
        let elected_at = office.elected_at.filter(|_| office.is_leader)?;
        let new_leader = elected_at.plus_ms(self.terms.new_leader_wait_ms());
        let new_leader = self.pause_over(office).map_or(new_leader, |(_, over)| new_leader.max(over));
        let open =
            self.noted.iter().filter(|(boot, _)| Some(**boot) != closed).map(|(_, noted)| noted.end).max();
        Some(open.map_or(new_leader, |end| new_leader.max(end.plus_ms(self.terms.margin_ms))))
    }

    /// The earliest instant at which the node that passed the baton is surely closed.
    fn closed_at(&self, office: &Office, old: &NodeId) -> Mono {
        let wait = self.terms.new_leader_wait_ms();
        let new_leader = office.elected_at.map_or(Mono(u64::MAX), |at| at.plus_ms(wait));
        let open = self.noted.values().filter(|noted| noted.node == *old).map(|noted| noted.end).max();
        open.map_or(new_leader, |end| new_leader.max(end.plus_ms(self.terms.margin_ms)))
    }

    /// When the newest grant of this term was given.
    #[must_use]
    pub const fn granted_at(&self) -> Option<Mono> {
        self.granted_at
    }

    fn may_grant(
        &mut self,
        now: Mono,
        office: &Office,
        appointment: &Appointment,
        renewal: &Renewal,
    ) -> Result<Mono, Refusal> {
        self.follow(office);
        if !office.is_leader {
            return Err(Refusal::NotLeader);
        }
        if !office.own_term_applied {
            return Err(Refusal::NothingAppliedYet);
        }
        if office.append_pending_since.is_some_and(|since| now.since_ms(since) >= self.terms.lease_ms) {
            return Err(Refusal::OwnDiskStalled);
        }
        if appointment.holder.as_ref() != Some(&renewal.node) || appointment.epoch != renewal.epoch {
            return Err(Refusal::NotTheHolder { epoch: appointment.epoch });
        }
        if appointment.released {
            return Err(Refusal::Released);
        }
        if appointment.waits_for_operator {
            return Err(Refusal::WaitsForOperator);
        }
        if self.ending == Some(renewal.epoch) {
            return Err(Refusal::Ending);
        }
        if self.surrendered.get(&renewal.boot).is_some_and(|seq| renewal.seq <= *seq) {
            return Err(Refusal::Surrendered);
        }
        if let Some(old) = &appointment.passed_by {
            let left_ms = self.closed_at(office, old).since_ms(now);
            if left_ms > 0 {
                return Err(Refusal::OldHolderOpen { left_ms });
            }
        }
        // A quorum acknowledged what was sent at `acked_at`; the age may be used up to `a_max`, less the rounding.
        let acked_at = office.quorum_acked_at.filter(|at| now.since_ms(*at) < self.terms.age_max_ms);
        acked_at.ok_or(Refusal::NoQuorum)
    }

    /// Inbound loss must not keep a closed holder in office (design, 4.3). A stretch of grants lasts `L` without an echo;
    /// after that it must be heard, or one whole lease and margin must pass without any grant, so that a takeover can be
    /// decided if there is somebody to take over.
    ///
    /// A stretch ends where for half a lease nothing could be granted, for want of a quorum or because nobody asked: nothing
    /// was sent then that could have been heard, and silence that is the leader's own does not make a holder deaf.
    fn hears(&mut self, now: Mono, renewal: &Renewal) -> Result<(), Refusal> {
        let lease_ms = self.terms.lease_ms;
        let goes_on = |s: &Stretch| {
            s.epoch == renewal.epoch && s.boot == renewal.boot && now.since_ms(s.asked_at) < lease_ms / 2
        };
        let Some(before) = self.stretch.filter(goes_on) else {
            let (epoch, boot) = (renewal.epoch, renewal.boot);
            self.stretch = Some(Stretch { epoch, boot, began_at: now, asked_at: now });
            return Ok(());
        };
        let stretch = Stretch { asked_at: now, ..before };
        self.stretch = Some(stretch);
        if renewal.heard_ms.is_some_and(|ms| ms < lease_ms) || now.since_ms(stretch.began_at) < lease_ms {
            return Ok(());
        }
        let noted = self.noted.values().map(|noted| noted.end).max();
        let ended = noted.is_none_or(|end| now >= end.plus_ms(self.terms.margin_ms + lease_ms));
        if ended {
            self.stretch = Some(Stretch { began_at: now, ..stretch });
            return Ok(());
        }
        Err(Refusal::HolderHearsNothing)
    }

    /// Forgets what it noted in another term: the wait of a new leader covers every older grant. A node that is not seen
    /// to lead for a moment and then leads in the *same* term forgets nothing: it has no new wait that would cover.
    fn follow(&mut self, office: &Office) {
        if office.is_leader && self.term != Some(office.term) {
            self.term = Some(office.term);
            self.noted.clear();
            self.surrendered.clear();
            self.granted_at = None;
            self.ending = None;
            self.stretch = None;
            self.paused = None;
        }
    }
}
