//! The fake kernel: doors of tickets and permits, each with the instant at which it ends by itself.

use baton_runbooks::lease::holder::Door;

use super::planted::Planted;

/// Slots of the ring.
pub const SLOTS: u64 = 8;

/// With the slot of the long ticket, which comes after the ring.
const PLACES: usize = SLOTS as usize + 1;

/// Tickets and permits of one node, in real time: the kernel's timers run whatever the agent does.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    tickets: [[u64; PLACES]; 2],
    permits: [[u64; PLACES]; 2],
    open_until: [u64; 2],
    planted: Option<Planted>,
}

const fn side(door: Door) -> usize {
    match door {
        Door::Vip => 0,
        Door::Ports => 1,
    }
}

impl Gate {
    /// A kernel that was just started: everything is closed.
    pub fn new(planted: Option<Planted>) -> Self {
        Self { planted, ..Self::default() }
    }

    /// A new ticket clears the permit of its slot in the same transaction.
    pub fn ticket(&mut self, door: Door, slot: u64, until: u64) {
        self.tickets[side(door)][slot as usize] = until;
        self.permits[side(door)][slot as usize] = 0;
        self.count(door);
    }

    /// A permit opens only together with the ticket of its slot.
    pub fn permit(&mut self, door: Door, slot: u64, until: u64) {
        let endless = self.planted == Some(Planted::VipRemovedByAgentOnly) && door == Door::Vip;
        self.permits[side(door)][slot as usize] = if endless { u64::MAX } else { until };
        if endless {
            self.tickets[side(door)][slot as usize] = u64::MAX;
        }
        self.count(door);
    }

    /// Deletes everything of a door.
    pub fn void(&mut self, door: Door) {
        self.tickets[side(door)] = Default::default();
        self.permits[side(door)] = Default::default();
        self.open_until[side(door)] = 0;
    }

    /// Deletes what is in one slot of both doors.
    pub fn void_slot(&mut self, slot: u64) {
        for door in [Door::Vip, Door::Ports] {
            self.tickets[side(door)][slot as usize] = 0;
            self.permits[side(door)][slot as usize] = 0;
            self.count(door);
        }
    }

    /// Packets pass.
    pub const fn is_open(&self, door: Door, at: u64) -> bool {
        at < self.open_until[side(door)]
    }

    fn count(&mut self, door: Door) {
        let (tickets, permits) = (&self.tickets[side(door)], &self.permits[side(door)]);
        let without_ticket = self.planted == Some(Planted::PermitWithoutTicket);
        let pairs = tickets.iter().zip(permits);
        let ends = pairs.map(|(ticket, permit)| if without_ticket { *permit } else { *ticket.min(permit) });
        self.open_until[side(door)] = ends.max().unwrap_or(0);
    }
}
