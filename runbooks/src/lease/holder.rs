//! The holder's half of the lease.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Grant, Renewal, Surrender, Terms};
use crate::model::{Epoch, Mono, NodeId};

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
        }
    }

    /// The ledger says that this node holds `epoch` (or that it holds none). A change voids everything.
    pub fn appoint(&mut self, epoch: Option<Epoch>) {
        if self.epoch != epoch {
            self.close(Door::Vip);
            self.close(Door::Ports);
            self.epoch = epoch;
            self.sent.clear();
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
            *self.door(door) = DoorState { open: true, void_below: next };
        }
    }

    /// Closes a door: a latch. A grant still in flight opens nothing. The caller then voids and reads back the kernel.
    pub fn close(&mut self, door: Door) {
        let next = self.seq + 1;
        let state = self.door(door);
        state.open = false;
        state.void_below = next;
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
        self.sent.retain(|seq, _| *seq + slots > newest);
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
        })
    }

    /// Takes a grant.
    ///
    /// # Errors
    /// Says why the grant opens nothing; none of these is a fault of the caller.
    pub fn accept(&mut self, grant: &Grant, now: Mono) -> Result<Accepted, Ignored> {
        if self.epoch != Some(grant.epoch) || grant.boot != self.boot {
            return Err(Ignored::NotMine);
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

    /// When the lease ends on this clock; `None`: there is none.
    #[must_use]
    pub const fn ends_at(&self) -> Option<Mono> {
        self.ends_at
    }

    /// The lease is valid at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Mono) -> bool {
        self.ends_at.is_some_and(|end| now < end)
    }

    const fn door(&mut self, door: Door) -> &mut DoorState {
        match door {
            Door::Vip => &mut self.vip,
            Door::Ports => &mut self.ports,
        }
    }
}
