//! The holder's half of the lease.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Grant, LongLease, Renewal, Surrender, Terms};
use crate::model::{Epoch, Mono, NodeId, PauseId};

/// What a lease opens. Each has tickets and permits of its own in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// Packets for and from the VIP.
    Vip,
    /// The database ports.
    Ports,
}

/// A door is open from the ticket of number `from` on; everything older is void.
#[derive(Debug, Clone, Copy, Default)]
struct DoorState {
    open: bool,
    void_below: u64,
    /// It has a long ticket and permit.
    long: bool,
}

/// A question for a long lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LongAsked {
    seq: u64,
    lease: LongLease,
    /// The doors whose ticket was written.
    doors: Vec<Door>,
    sent_at: Option<Mono>,
}

/// Why a grant opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// For another epoch, or for an earlier start of the agent.
    NotMine,
    /// Its ticket was voided by a close, or its slot is used by a newer one.
    Void,
    /// Its quorum acknowledgement was too old.
    TooOld,
    /// The lease that it gives has ended already.
    Late,
}

/// What to put into the kernel for a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Slot of the ring.
    pub slot: u64,
    /// When the lease ends, on this clock.
    pub ends_at: Mono,
    /// The doors whose permit is to be written.
    pub doors: Vec<Door>,
}

/// The holder's half: numbers the tickets, counts the lease from the moment of asking, and latches when it closes.
#[derive(Debug)]
pub struct Holder {
    node: NodeId,
    terms: Terms,
    boot: u64,
    epoch: Option<Epoch>,
    seq: u64,
    sent: BTreeMap<u64, Mono>,
    ends_at: Option<Mono>,
    heard_at: Option<Mono>,
    vip: DoorState,
    ports: DoorState,
    long_asked: Option<LongAsked>,
    /// The pause for which long leases are held, and when the newest of them ends.
    long: Option<(PauseId, Mono)>,
}

impl Holder {
    /// A holder's half for `node`; `boot` is drawn at random at each start of the agent.
    #[must_use]
    pub fn new(node: NodeId, terms: Terms, boot: u64) -> Self {
        Self {
            node,
            terms,
            boot,
            epoch: None,
            seq: 0,
            sent: BTreeMap::new(),
            ends_at: None,
            heard_at: None,
            vip: DoorState::default(),
            ports: DoorState::default(),
            long_asked: None,
            long: None,
        }
    }

    /// The ledger says that this node holds `epoch` (or that it holds none). A change voids everything.
    pub fn appoint(&mut self, epoch: Option<Epoch>) {
        if self.epoch != epoch {
            self.close(Door::Vip);
            self.close(Door::Ports);
            self.epoch = epoch;
            self.sent.clear();
            self.drop_long();
            self.ends_at = None;
            self.heard_at = None;
        }
    }

    /// The epoch for which renewals are sent.
    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// This start's word that it is closed. Only worth something when both doors were voided in the kernel and read back, and
    /// nothing is renewed any more.
    #[must_use]
    pub fn surrender(&self) -> Surrender {
        Surrender { node: self.node.clone(), boot: self.boot, seq: self.seq }
    }

    /// Opens a door for the grants of tickets that are still to be written.
    pub fn open(&mut self, door: Door) {
        let next = self.seq + 1;
        if self.epoch.is_some() && !self.is_open(door) {
            // Tickets that are out were written without this door.
            *self.door(door) = DoorState { open: true, void_below: next, long: false };
        }
    }

    /// Closes a door: a latch. A grant still in flight opens nothing. The caller then voids and reads back the kernel.
    pub fn close(&mut self, door: Door) {
        let next = self.seq + 1;
        let state = self.door(door);
        state.open = false;
        state.void_below = next;
        state.long = false;
        self.forget_long_without_doors();
    }

    /// The door is open as far as this half is concerned.
    #[must_use]
    pub const fn is_open(&self, door: Door) -> bool {
        match door {
            Door::Vip => self.vip.open,
            Door::Ports => self.ports.open,
        }
    }

    /// Number of the next ticket, its slot, and the doors whose ticket is to be written into the kernel *before* the
    /// clock is read for [`Holder::renew`]. `None` while this node holds nothing.
    pub fn next_ticket(&mut self) -> Option<(u64, u64, Vec<Door>)> {
        self.epoch?;
        self.seq += 1;
        // The slot is the new ticket's from here on: a late grant for the one before it must not write a permit there,
        // also when renewals in between failed before they were sent.
        let (newest, slots) = (self.seq, self.terms.slots);
        while let Some(oldest) = self.sent.first_entry().filter(|oldest| oldest.key() + slots <= newest) {
            oldest.remove();
        }
        let doors = [Door::Vip, Door::Ports].into_iter().filter(|d| self.is_open(*d)).collect();
        Some((self.seq, self.seq % self.terms.slots, doors))
    }

    /// The renewal for ticket `seq`; `now` was read after the ticket went into the kernel.
    pub fn renew(&mut self, seq: u64, now: Mono) -> Option<Renewal> {
        let epoch = self.epoch?;
        self.sent.insert(seq, now);
        Some(Renewal {
            node: self.node.clone(),
            epoch,
            boot: self.boot,
            seq,
            heard_ms: self.heard_at.map(|at| now.since_ms(at)),
            long: None,
        })
    }

    /// Number, slot and doors of a long ticket for the open doors that have none; to be written, as for a short one, before
    /// the clock is read for [`Holder::renew_long`]. `None`: none wants one. An earlier question is void with it.
    pub fn next_long_ticket(&mut self, lease: LongLease) -> Option<(u64, u64, Vec<Door>)> {
        self.epoch?;
        let states = [(Door::Vip, self.vip), (Door::Ports, self.ports)];
        let doors: Vec<Door> =
            states.into_iter().filter(|(_, state)| state.open && !state.long).map(|(door, _)| door).collect();
        if doors.is_empty() {
            return None;
        }
        self.seq += 1;
        self.long_asked = Some(LongAsked { seq: self.seq, lease, doors: doors.clone(), sent_at: None });
        Some((self.seq, self.terms.long_slot(), doors))
    }

    /// The question for the long ticket `seq`; `now` was read after the ticket went into the kernel.
    pub fn renew_long(&mut self, seq: u64, now: Mono) -> Option<Renewal> {
        let asked = self.long_asked.as_mut().filter(|asked| asked.seq == seq)?;
        asked.sent_at = Some(now);
        let long = Some(asked.lease);
        let heard_ms = self.heard_at.map(|at| now.since_ms(at));
        Some(Renewal { node: self.node.clone(), epoch: self.epoch?, boot: self.boot, seq, heard_ms, long })
    }

    /// When the question for a long lease that has no answer was sent.
    #[must_use]
    pub fn long_asked_at(&self) -> Option<Mono> {
        self.long_asked.as_ref().and_then(|asked| asked.sent_at)
    }

    /// What an earlier start of this agent left in the kernel lets packets pass `doors` until `ends_at`, by a grant of `pause`.
    /// It is a lease of this one, which opens these doors.
    pub fn adopt_long(&mut self, pause: PauseId, ends_at: Mono, doors: &[Door]) {
        if self.epoch.is_none() || doors.is_empty() {
            return;
        }
        self.long = Some((pause, ends_at));
        let next = self.seq + 1;
        for door in doors {
            *self.door(*door) = DoorState { open: true, void_below: next, long: true };
        }
    }

    /// The long tickets are gone from the kernel, or are about to be: no late grant of one opens anything.
    pub fn drop_long(&mut self) {
        self.long = None;
        self.long_asked = None;
        self.vip.long = false;
        self.ports.long = false;
    }

    /// The pause for which both doors are held open by long leases, and until when.
    #[must_use]
    pub fn long(&self) -> Option<(PauseId, Mono)> {
        self.long.filter(|_| self.vip.long && self.ports.long)
    }

    /// Until when some door is held open by a long lease; `None`: none is.
    #[must_use]
    pub fn long_end(&self) -> Option<Mono> {
        self.long.map(|(_, end)| end)
    }

    /// The question for a long lease was refused: the next one need not wait for its answer.
    pub fn refuse_long(&mut self) {
        self.long_asked = None;
    }

    /// A lease of `L` is valid at `now`.
    #[must_use]
    pub fn is_short_valid(&self, now: Mono) -> bool {
        self.ends_at.is_some_and(|end| now < end)
    }

    fn forget_long_without_doors(&mut self) {
        if !self.vip.long && !self.ports.long {
            self.long = None;
        }
    }

    fn accept_long(&mut self, asked: &LongAsked, grant: &Grant, now: Mono) -> Result<Accepted, Ignored> {
        let sent_at = asked.sent_at.ok_or(Ignored::Void)?;
        if grant.age_ms > self.terms.age_max_ms {
            return Err(Ignored::TooOld);
        }
        let ends_at = sent_at.minus_ms(grant.age_ms).plus_ms(asked.lease.length_ms);
        if ends_at <= now {
            return Err(Ignored::Late);
        }
        self.long_asked = None;
        let mut doors = Vec::new();
        for door in &asked.doors {
            let state = self.door(*door);
            if state.open && grant.seq >= state.void_below {
                state.long = true;
                doors.push(*door);
            }
        }
        if !doors.is_empty() {
            // Doors that were opened at different times end at different times; what is said is the earliest.
            let earlier = self.long.filter(|(pause, _)| *pause == asked.lease.pause).map(|(_, end)| end);
            let ends = earlier.map_or(ends_at, |end| end.min(ends_at));
            self.long = Some((asked.lease.pause, ends));
        }
        Ok(Accepted { slot: self.terms.long_slot(), ends_at, doors })
    }

    /// Takes a grant.
    ///
    /// # Errors
    /// Says why the grant opens nothing; none of these is a fault of the caller.
    pub fn accept(&mut self, grant: &Grant, now: Mono) -> Result<Accepted, Ignored> {
        if self.epoch != Some(grant.epoch) || grant.boot != self.boot {
            return Err(Ignored::NotMine);
        }
        if let Some(asked) = self.long_asked.as_ref().filter(|asked| asked.seq == grant.seq).cloned() {
            // Whoever does not know of long leases grants a short one.
            if grant.long != Some(asked.lease) {
                return Err(Ignored::NotMine);
            }
            return self.accept_long(&asked, grant, now);
        }
        let sent_at = *self.sent.get(&grant.seq).ok_or(Ignored::Void)?;
        if grant.age_ms > self.terms.age_max_ms {
            return Err(Ignored::TooOld);
        }
        let ends_at = sent_at.minus_ms(grant.age_ms).plus_ms(self.terms.lease_ms);
        if ends_at <= now {
            return Err(Ignored::Late);
        }
        self.heard_at = Some(now);
        self.ends_at = self.ends_at.max(Some(ends_at));
        let doors = [(Door::Vip, self.vip), (Door::Ports, self.ports)]
            .into_iter()
            .filter(|(_, state)| state.open && grant.seq >= state.void_below)
            .map(|(door, _)| door)
            .collect();
        Ok(Accepted { slot: grant.seq % self.terms.slots, ends_at, doors })
    }

    /// When the lease ends on this clock, the short one or the long one; `None`: there is none.
    #[must_use]
    pub fn ends_at(&self) -> Option<Mono> {
        self.ends_at.max(self.long.map(|(_, end)| end))
    }

    /// The lease is valid at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Mono) -> bool {
        self.ends_at().is_some_and(|end| now < end)
    }

    const fn door(&mut self, door: Door) -> &mut DoorState {
        match door {
            Door::Vip => &mut self.vip,
            Door::Ports => &mut self.ports,
        }
    }
}
