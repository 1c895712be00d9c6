//! Gates: kernel-held leases on the VIPs' traffic and on the guarded ports.
//!
//! A packet that is no reset passes a gate only while, in one slot of a small ring, a *ticket* and a *permit* are both alive.
//! Both are nftables set elements with a timeout, so a gate closes by itself.
//!
//! ```text
//! renewal n, slot k = n mod slots
//!   ticket(k, t)   one transaction: permit k cleared, ticket k set to expire in t     still as open as before
//!   .. the caller asks for its grant; whoever is frozen here finds the ticket gone ..
//!   permit(k, t)   permit k set: open until the earlier of the two ends
//! void()           all slots emptied in one transaction, then read back               closed, nothing in flight opens it
//! ```
//!
//! Why the ticket comes first: a timeout counts from the moment the kernel executes the request, and the caller
//! can be frozen between computing and executing. A permit that is written late finds its ticket expired
//! (guarded by `tests/kernel/gate_vip.rs`, `a_late_permit_opens_nothing`).
//!
//! The VIP gate's permit also says that the gate was open *lately*: for some seconds after its end clients that still send here
//! are refused instead of left hanging. That opens nothing, and closing does not end it.
//!
//! The caller's duty: never write the permit of ticket *n* after the ticket of *n + slots* has taken its slot.
//!
//! Not covered: a VIP that is reached through another interface than its own (multi-homed hosts on one
//! segment); traffic straight to a container's own address.
//!
//! Set-up (`install_or_keep`) runs the `nft` program. Everything else is synchronous netlink on an own socket.

mod install;
mod ruleset;
mod tables;

use std::{io, net::IpAddr, time::Duration};

use crate::{
    netfilter::{Batch, Element, NetfilterError, NetfilterSocket, SetName},
    nft::NftError,
};

use tables::tables;

pub(crate) use install::can_refuse;
pub use install::{install_or_keep, remove, ruleset_text};

/// Name of the netdev table that holds the VIP gate.
pub const VIP_TABLE: &str = "baton_vip";
/// Name of the inet table that holds the port gate.
pub const PORTS_TABLE: &str = "baton_ports";
/// Ring size unless told otherwise: renewals in flight at once. Each slot costs two set look-ups per packet.
pub const DEFAULT_SLOTS: u8 = 8;
/// For so long after a permit's end clients that still send to the VIP here are refused: longer than any move, and than the
/// announcements that follow it need to be heard.
pub const LATELY: Duration = Duration::from_millis(LATELY_MS);
const LATELY_MS: u64 = 10_000;
/// Largest ring.
pub const SLOTS_MAX: u8 = 17;

/// A VIP and the interface that carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipSpec {
    /// The address.
    pub ip: IpAddr,
    /// The interface's name; an Ethernet-like one.
    pub interface: String,
}

/// What the gates guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateSpec {
    /// The VIPs; each interface gets its own chain pair.
    pub vips: Vec<VipSpec>,
    /// Guarded TCP ports, as clients reach them (in front of DNAT).
    pub ports: Vec<u16>,
    /// Own addresses of the peer data node; exempt from the port gate, except by way of a VIP.
    pub peers: Vec<IpAddr>,
    /// Ring size, 1 to [`SLOTS_MAX`].
    pub slots: u8,
}

/// Which gate an operation is meant for. `Both` is one transaction over both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Traffic, ARP and neighbour discovery of the VIPs.
    Vip,
    /// The guarded TCP ports.
    Ports,
    /// Both gates at once.
    Both,
}

/// What became of one table at installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableOutcome {
    /// It already was as wanted; live tickets were left alone.
    Kept,
    /// It was loaded, closed.
    Loaded,
}

/// What became of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// The VIP gate's table.
    pub vip: TableOutcome,
    /// The port gate's table.
    pub ports: TableOutcome,
}

/// One slot as the kernel holds it, in milliseconds left; `u64::MAX` for an element without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    /// [`Which::Vip`] or [`Which::Ports`].
    pub which: Which,
    /// Index in the ring.
    pub slot: u8,
    /// Time left of the ticket, `None` if there is none.
    pub ticket_ms: Option<u64>,
    /// Time left of the permit, `None` if there is none.
    pub permit_ms: Option<u64>,
}

impl SlotState {
    /// How long this slot alone still lets packets pass, milliseconds; `None` if it does not.
    #[must_use]
    pub fn open_ms(&self) -> Option<u64> {
        Some(self.ticket_ms?.min(self.permit_ms?))
    }
}

/// Why a gate could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A table or set of ours is missing: another program flushed or deleted it. Whatever it guarded is *open*
    /// until `install_or_keep` has run again.
    #[error("the gate's table is gone: another program removed it")]
    Gone,
    /// No netfilter socket.
    #[error("cannot open the gate's netlink socket")]
    Open(#[source] NetfilterError),
    /// The transaction failed.
    #[error("the gate could not be changed")]
    Change(#[source] NetfilterError),
    /// The sets could not be read.
    #[error("the gate could not be read")]
    Read(#[source] NetfilterError),
    /// The kernel still lists tickets or permits after they were voided.
    #[error("the gate still lists {count} tickets or permits after they were voided")]
    StillOpen {
        /// How many.
        count: usize,
    },
    /// The `nft` program failed at set-up.
    #[error("the gate's rules could not be loaded")]
    Rules(#[source] NftError),
    /// A timeout below one millisecond; the kernel would read zero as 'for ever'.
    #[error("a ticket or permit needs a timeout of at least 1 ms")]
    NoTimeout,
    /// A slot outside the ring, or a ring of an impossible size.
    #[error("slot {slot} is outside the ring of {slots}")]
    Slot {
        /// The slot asked for.
        slot: u8,
        /// The ring's size.
        slots: u8,
    },
    /// An interface name that could not be written into a ruleset.
    #[error("{0:?} is not an interface name")]
    Interface(String),
}

/// The hot path: an own socket, used from one thread.
#[derive(Debug)]
pub struct Gate {
    socket: NetfilterSocket,
    slots: u8,
}

impl Gate {
    /// Opens the socket. The tables need not exist yet. `slots` as in the installed [`GateSpec`].
    ///
    /// # Errors
    /// [`GateError::Open`]; [`GateError::Slot`] for an impossible ring size.
    pub fn open(slots: u8) -> Result<Self, GateError> {
        check_slots(slots)?;
        Ok(Self { socket: NetfilterSocket::open().map_err(GateError::Open)?, slots })
    }

    /// The port from which this gate changes elements, and nothing else: it takes no table, chain, rule or set away.
    pub(crate) fn port(&self) -> io::Result<u32> {
        self.socket.port()
    }

    /// Clears the slot's permit and sets its ticket to expire in `timeout` (whole milliseconds, rounded down),
    /// in one transaction. The gate is as open as before: other slots are untouched.
    ///
    /// # Errors
    /// [`GateError::Gone`], [`GateError::Change`], [`GateError::NoTimeout`], [`GateError::Slot`].
    pub fn ticket(&mut self, which: Which, slot: u8, timeout: Duration) -> Result<(), GateError> {
        let ms = self.checked(slot, timeout)?;
        self.change(|batch| {
            for table in tables(which) {
                batch.flush(table.permit(slot));
                batch.flush(table.ticket(slot));
                batch.add(table.ticket(slot), table.key, Some(ms));
            }
        })
    }

    /// Sets the slot's permit to expire in `timeout`. It opens the gate if the slot's ticket is still alive; nothing is parting
    /// any more.
    ///
    /// # Errors
    /// As [`Gate::ticket`].
    pub fn permit(&mut self, which: Which, slot: u8, timeout: Duration) -> Result<(), GateError> {
        let ms = self.checked(slot, timeout)?;
        self.change(|batch| {
            for table in tables(which) {
                batch.flush(table.permit(slot));
                batch.add(table.permit(slot), table.key, Some(ms));
                if let Some(lately) = table.lately() {
                    batch.flush(lately);
                    batch.add(lately, table.key, Some(ms.saturating_add(LATELY_MS)));
                }
                if let Some(parting) = table.parting() {
                    batch.flush(parting);
                }
            }
        })
    }

    /// From now on, for `timeout` or until the next permit, new connections to guarded ports are refused; those that stand go on.
    ///
    /// # Errors
    /// [`GateError::Gone`], [`GateError::Change`], [`GateError::NoTimeout`].
    pub fn part(&mut self, timeout: Duration) -> Result<(), GateError> {
        let ms = self.checked(0, timeout)?;
        self.change(|batch| {
            for table in tables(Which::Ports) {
                if let Some(parting) = table.parting() {
                    batch.flush(parting);
                    batch.add(parting, table.key, Some(ms));
                }
            }
        })
    }

    /// Closes: removes every ticket and permit in one transaction, then reads back that none is left. `Ok` means
    /// that the kernel lists nothing; nobody may be told that the gate is closed before.
    ///
    /// # Errors
    /// On any error but [`GateError::Gone`] call it again. `Gone` means that there is no gate at all.
    pub fn void(&mut self, which: Which) -> Result<(), GateError> {
        let slots = self.slots;
        self.change(|batch| {
            for table in tables(which) {
                for slot in 0..slots {
                    batch.flush(table.permit(slot));
                    batch.flush(table.ticket(slot));
                }
            }
        })?;
        let left = self.alive(which)?;
        let count = left.iter().map(|s| s.ticket_ms.iter().count() + s.permit_ms.iter().count()).sum();
        if count > 0 {
            return Err(GateError::StillOpen { count });
        }
        self.shorten_lately(which)
    }

    /// Whether no slot has a ticket or a permit, as after [`Gate::void`].
    ///
    /// # Errors
    /// [`GateError::Gone`], [`GateError::Read`].
    pub fn is_void(&mut self, which: Which) -> Result<bool, GateError> {
        Ok(self.alive(which)?.is_empty())
    }

    /// A permit of a pause would have lasted for long; what was voided before its end is lately from now on.
    fn shorten_lately(&mut self, which: Which) -> Result<(), GateError> {
        for table in tables(which) {
            let Some(lately) = table.lately() else { continue };
            if self.left_ms(lately)?.is_some_and(|left| left > LATELY_MS) {
                self.change(|batch| {
                    batch.flush(lately);
                    batch.add(lately, table.key, Some(LATELY_MS));
                })?;
            }
        }
        Ok(())
    }

    /// Removes the tickets and permits of one slot in one transaction, then reads back that none is left. Other slots are
    /// untouched: the gate stays open for as long as one of them lets packets pass.
    ///
    /// # Errors
    /// As [`Gate::void`]; [`GateError::Slot`].
    pub fn void_slot(&mut self, which: Which, slot: u8) -> Result<(), GateError> {
        if slot >= self.slots {
            return Err(GateError::Slot { slot, slots: self.slots });
        }
        self.change(|batch| {
            for table in tables(which) {
                batch.flush(table.permit(slot));
                batch.flush(table.ticket(slot));
            }
        })?;
        let mut count = 0;
        for table in tables(which) {
            count += usize::from(self.left_ms(table.ticket(slot))?.is_some());
            count += usize::from(self.left_ms(table.permit(slot))?.is_some());
        }
        if count == 0 { Ok(()) } else { Err(GateError::StillOpen { count }) }
    }

    /// The slots that hold a live ticket or permit, as the kernel lists them, in order. Empty slots are left out.
    ///
    /// # Errors
    /// [`GateError::Gone`], [`GateError::Read`].
    pub fn alive(&mut self, which: Which) -> Result<Vec<SlotState>, GateError> {
        let mut alive = Vec::new();
        for table in tables(which) {
            for slot in 0..self.slots {
                let ticket_ms = self.left_ms(table.ticket(slot))?;
                let permit_ms = self.left_ms(table.permit(slot))?;
                if ticket_ms.is_some() || permit_ms.is_some() {
                    alive.push(SlotState { which: table.which, slot, ticket_ms, permit_ms });
                }
            }
        }
        Ok(alive)
    }

    fn left_ms(&mut self, set: SetName<'_>) -> Result<Option<u64>, GateError> {
        let elements = self.socket.elements(set).map_err(|error| or_gone(error, GateError::Read))?;
        Ok(elements.iter().map(|Element { left_ms, .. }| left_ms.unwrap_or(u64::MAX)).max())
    }

    fn change(&mut self, fill: impl FnOnce(&mut Batch<'_>)) -> Result<(), GateError> {
        self.socket.commit(fill).map_err(|error| or_gone(error, GateError::Change))
    }

    fn checked(&self, slot: u8, timeout: Duration) -> Result<u64, GateError> {
        if slot >= self.slots {
            return Err(GateError::Slot { slot, slots: self.slots });
        }
        match u64::try_from(timeout.as_millis()) {
            Ok(0) | Err(_) => Err(GateError::NoTimeout),
            Ok(ms) => Ok(ms),
        }
    }
}

fn or_gone(error: NetfilterError, other: fn(NetfilterError) -> GateError) -> GateError {
    match error {
        NetfilterError::Gone => GateError::Gone,
        error => other(error),
    }
}

fn check_slots(slots: u8) -> Result<(), GateError> {
    if (1..=SLOTS_MAX).contains(&slots) {
        Ok(())
    } else {
        Err(GateError::Slot { slot: slots, slots: SLOTS_MAX })
    }
}
