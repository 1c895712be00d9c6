//! The two tables of the gates, and their sets by name.

use super::{PORTS_TABLE, SLOTS_MAX, VIP_TABLE, Which};
use crate::netfilter::{FAMILY_INET, FAMILY_NETDEV, SetName};

const TICKETS: [&str; SLOTS_MAX as usize] = [
    "ticket_0",
    "ticket_1",
    "ticket_2",
    "ticket_3",
    "ticket_4",
    "ticket_5",
    "ticket_6",
    "ticket_7",
    "ticket_8",
    "ticket_9",
    "ticket_10",
    "ticket_11",
    "ticket_12",
    "ticket_13",
    "ticket_14",
    "ticket_15",
    "ticket_16",
];
const PERMITS: [&str; SLOTS_MAX as usize] = [
    "permit_0",
    "permit_1",
    "permit_2",
    "permit_3",
    "permit_4",
    "permit_5",
    "permit_6",
    "permit_7",
    "permit_8",
    "permit_9",
    "permit_10",
    "permit_11",
    "permit_12",
    "permit_13",
    "permit_14",
    "permit_15",
    "permit_16",
];

/// A gate's table and the constant that its packets are looked up by.
pub(super) struct GateTable {
    pub(super) which: Which,
    pub(super) family: u8,
    pub(super) family_name: &'static str,
    pub(super) name: &'static str,
    pub(super) key: &'static [u8],
}

/// ARPHRD_ETHER, in the byte order of the host, as the kernel compares it.
static ETHERNET: [u8; 2] = libc::ARPHRD_ETHER.to_ne_bytes();
pub(super) static TABLES: [GateTable; 2] = [
    GateTable {
        which: Which::Vip,
        family: FAMILY_NETDEV,
        family_name: "netdev",
        name: VIP_TABLE,
        key: &ETHERNET,
    },
    GateTable {
        which: Which::Ports,
        family: FAMILY_INET,
        family_name: "inet",
        name: PORTS_TABLE,
        key: &[libc::IPPROTO_TCP as u8],
    },
];

impl GateTable {
    pub(super) fn ticket(&self, slot: u8) -> SetName<'static> {
        SetName { family: self.family, table: self.name, set: TICKETS[usize::from(slot)] }
    }

    pub(super) fn permit(&self, slot: u8) -> SetName<'static> {
        SetName { family: self.family, table: self.name, set: PERMITS[usize::from(slot)] }
    }

    /// The set that says that new connections are refused before the ports close.
    pub(super) fn parting(&self) -> Option<SetName<'static>> {
        match self.which {
            Which::Ports => Some(SetName { family: self.family, table: self.name, set: "parting" }),
            Which::Vip | Which::Both => None,
        }
    }

    /// The set that says that the VIP was held here a moment ago.
    pub(super) fn lately(&self) -> Option<SetName<'static>> {
        match self.which {
            Which::Vip => Some(SetName { family: self.family, table: self.name, set: "lately" }),
            Which::Ports | Which::Both => None,
        }
    }
}

pub(super) fn tables(which: Which) -> &'static [GateTable] {
    match which {
        Which::Vip => &TABLES[..1],
        Which::Ports => &TABLES[1..],
        Which::Both => &TABLES,
    }
}
