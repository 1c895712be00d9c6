//! What changes behind our back: addresses, carriers, and our nftables tables.
//!
//! ```text
//! open:     subscribe, then dump          every present address and link arrives as an event first
//! next:     notifications as they come
//! overrun:  Event::Overrun, then a dump   whatever was lost in between is in the dump, except what is gone:
//!                                         the reader forgets what it knew at Overrun
//! ```
//!
//! Our own changes arrive too (each refresh of an address is an `AddressSeen`); the reader compares with what it
//! wants, and its repair is idempotent. `RulesGone` comes when a table, chain, rule or set of ours is deleted by
//! anybody, ourselves included; `gate::install_or_keep` answers it and changes nothing if all is well.
//!
//! The kernel tells of every ticket and permit too, which is no event here. It can be told to keep those of one gate to itself
//! ([`Watcher::pass_over`]), so that renewals wake nobody. That only spares work: what is an event is decided here.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::IpAddr,
    pin::Pin,
};

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{RouteNetlinkMessage, address::AddressMessage, link::LinkMessage};
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rtnetlink::MulticastGroup;
use socket2::{SockFilter, SockRef};
use tokio::task::AbortHandle;

use crate::{
    address::address_of,
    cut::CUT_TABLE,
    filter::{JUMP_IF_EQUAL, KEEP_OUT, LET_IN, LOAD_WORD},
    gate::{Gate, PORTS_TABLE, VIP_TABLE},
    link::{Link, describe},
    netfilter::{SUBSYSTEM, TABLE_NAME},
    network::{Network, NetworkError, ask},
    wire,
};

/// `NFNLGRP_NFTABLES`.
const NFTABLES_GROUP: u32 = 7;
/// nf_tables messages that take something away: table, chain, rule, set.
const DELETIONS: [u16; 4] = [2, 5, 8, 11];
/// Length of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;

/// Something that changed, or at the start something that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The address is there: added, refreshed, or found by a dump.
    AddressSeen {
        /// The address.
        ip: IpAddr,
        /// Index of its interface.
        ifindex: u32,
    },
    /// The address was removed or has lapsed.
    AddressGone {
        /// The address.
        ip: IpAddr,
        /// Index of its interface.
        ifindex: u32,
    },
    /// The interface is up and its other end is there. Only on a change, and once for each link of a dump.
    LinkUp {
        /// Its name.
        interface: String,
        /// Its index.
        ifindex: u32,
    },
    /// The interface was set down, lost its other end, or is gone.
    LinkDown {
        /// Its name.
        interface: String,
        /// Its index.
        ifindex: u32,
    },
    /// Something of this table of ours was deleted.
    RulesGone {
        /// The table's name.
        table: &'static str,
    },
    /// Events were lost. A dump follows; forget what was known.
    Overrun,
}

/// Why there are no more events.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A subscription failed.
    #[error("cannot subscribe to the kernel's changes")]
    Subscribe(#[source] io::Error),
    /// A netlink connection for dumps failed.
    #[error("cannot open the connection for dumps")]
    Open(#[source] NetworkError),
    /// The dump failed; the next call tries again.
    #[error("cannot list addresses and links")]
    Dump(#[source] NetworkError),
    /// The kernel's stream of addresses and links ended.
    #[error("the subscription to addresses and links ended")]
    Ended,
    /// The subscription to nftables failed.
    #[error("cannot read the subscription to nftables")]
    Read(#[source] io::Error),
}

type Notifications = Pin<Box<dyn Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Send>>;

/// A subscription. Read it without pause: the kernel's buffer is finite, and then `Overrun` comes.
pub struct Watcher {
    network: Network,
    routes: Notifications,
    rules: TokioSocket,
    task: AbortHandle,
    pending: VecDeque<Event>,
    carriers: BTreeMap<u32, Carrier>,
    dump_is_due: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Carrier {
    interface: String,
    is_up: bool,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Subscribes, on the current tokio runtime. The present state arrives with the first calls of `next`.
    ///
    /// # Errors
    /// [`WatchError::Subscribe`], [`WatchError::Open`].
    pub fn open() -> Result<Self, WatchError> {
        let mut rules = TokioSocket::new(libc::NETLINK_NETFILTER as isize).map_err(WatchError::Subscribe)?;
        rules.socket_mut().bind_auto().map_err(WatchError::Subscribe)?;
        rules.socket_mut().add_membership(NFTABLES_GROUP).map_err(WatchError::Subscribe)?;
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, routes) =
            rtnetlink::new_multicast_connection(&groups).map_err(WatchError::Subscribe)?;
        let task = tokio::spawn(connection).abort_handle();
        Ok(Self {
            network: Network::open().map_err(WatchError::Open)?,
            routes: Box::pin(routes.map(|(message, _)| message.payload)),
            rules,
            task,
            pending: VecDeque::new(),
            carriers: BTreeMap::new(),
            dump_is_due: true,
        })
    }

    /// From now on what this gate changes does not wake us. Changes by anybody else arrive as before, also those by other gates
    /// of this process, and no event is lost: a gate changes elements only. The gate named last is the one that is passed over.
    ///
    /// The watcher must not be used for longer than the gate: the kernel may give its port to another socket afterwards.
    ///
    /// Where the kernel refuses, all stays as it was: this only spares work.
    pub fn pass_over(&self, gate: &Gate) {
        let rules = SockRef::from(self.rules.socket_ref());
        if let Err(error) = gate.port().and_then(|port| rules.attach_filter(&not_from(port))) {
            tracing::debug!(%error, "renewals wake the watcher of the rules as well");
        }
    }

    /// The next event. Waits for as long as nothing changes; dropping the future loses nothing.
    ///
    /// # Errors
    /// [`WatchError::Dump`] can be tried again; after the others open a new watcher.
    pub async fn next(&mut self) -> Result<Event, WatchError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            if self.dump_is_due {
                self.dump().await?;
                continue;
            }
            tokio::select! {
                payload = self.routes.next() => self.note_route(payload.ok_or(WatchError::Ended)?),
                read = self.rules.recv_from_full() => self.note_rules(read.map(|(bytes, _)| bytes))?,
            }
        }
    }

    async fn dump(&mut self) -> Result<(), WatchError> {
        let handle = &self.network.handle;
        let links = ask(handle.link().get().execute().try_collect::<Vec<_>>());
        let links = links.await.map_err(WatchError::Dump)?;
        let addresses = ask(handle.address().get().execute().try_collect::<Vec<_>>());
        let addresses = addresses.await.map_err(WatchError::Dump)?;
        self.carriers.clear();
        links.iter().for_each(|link| self.note_link(link));
        addresses.iter().for_each(|address| self.note_address(address));
        self.dump_is_due = false;
        Ok(())
    }

    fn note_route(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
                self.note_address(&message);
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message)) => {
                let ifindex = message.header.index;
                let gone = address_of(&message).map(|ip| Event::AddressGone { ip, ifindex });
                self.pending.extend(gone);
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => self.note_link(&message),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
                // A bridge says DELLINK too when it lets go of a port; the port itself is still there.
                let is_whole = message.header.interface_family == netlink_packet_route::AddressFamily::Unspec;
                let known = is_whole.then(|| self.carriers.remove(&message.header.index)).flatten();
                let ifindex = message.header.index;
                let gone = known.filter(|carrier| carrier.is_up);
                let interface = gone.map(|carrier| carrier.interface);
                self.pending.extend(interface.map(|interface| Event::LinkDown { interface, ifindex }));
            }
            NetlinkPayload::Overrun(_) => self.note_overrun(),
            _ => {}
        }
    }

    fn note_address(&mut self, message: &AddressMessage) {
        let ifindex = message.header.index;
        let seen = address_of(message).map(|ip| Event::AddressSeen { ip, ifindex });
        self.pending.extend(seen);
    }

    fn note_link(&mut self, message: &LinkMessage) {
        let Link { name: interface, ifindex, is_up, has_carrier, .. } = describe(message);
        let carrier = Carrier { interface, is_up: is_up && has_carrier };
        if self.carriers.get(&ifindex) == Some(&carrier) {
            return;
        }
        let interface = carrier.interface.clone();
        self.pending.push_back(match carrier.is_up {
            true => Event::LinkUp { interface, ifindex },
            false => Event::LinkDown { interface, ifindex },
        });
        self.carriers.insert(ifindex, carrier);
    }

    fn note_rules(&mut self, read: io::Result<Vec<u8>>) -> Result<(), WatchError> {
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.note_overrun();
                // What was lost may have been a deletion of ours.
                let tables = [VIP_TABLE, PORTS_TABLE, CUT_TABLE];
                self.pending.extend(tables.map(|table| Event::RulesGone { table }));
                return Ok(());
            }
            Err(error) => return Err(WatchError::Read(error)),
        };
        for message in wire::messages(&bytes) {
            if message.kind >> 8 != SUBSYSTEM || !DELETIONS.contains(&(message.kind & 0xff)) {
                continue;
            }
            let body = message.payload.get(FAMILY_HEADER..).unwrap_or_default();
            let name = wire::attribute(body, TABLE_NAME).map(wire::text);
            let ours = [VIP_TABLE, PORTS_TABLE, CUT_TABLE].into_iter().find(|table| name == Some(table));
            let event = ours.map(|table| Event::RulesGone { table });
            // One deletion of a table is dozens of messages.
            if let Some(event) = event.filter(|event| self.pending.back() != Some(event)) {
                self.pending.push_back(event);
            }
        }
        Ok(())
    }

    fn note_overrun(&mut self) {
        self.pending.push_back(Event::Overrun);
        self.dump_is_due = true;
    }
}

/// Classic BPF: everything but the notices of what was asked for from this port. The first message of a datagram tells for
/// all: the kernel joins notices of one transaction only, and each of them bears the port from which that one came. It is the
/// kernel that writes it, whatever the request says. What is too short to be a message is kept out as well.
fn not_from(port: u32) -> [SockFilter; 4] {
    [
        SockFilter::new(LOAD_WORD, 0, 0, wire::PORT_AT as u32),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from_be_bytes(port.to_ne_bytes())),
        KEEP_OUT,
        LET_IN,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::lets_in;

    /// A process' number, as most have, and one of those that the kernel takes when that is in use.
    const PORTS: [u32; 3] = [1, 4_242, u32::MAX - 4_096];

    /// A deletion, asked for from this port.
    fn notice(port: u32) -> Vec<u8> {
        let mut writer = wire::Writer::default();
        writer.begin(SUBSYSTEM << 8 | DELETIONS[0], 0, 7);
        writer.raw(&[1, 0, 0, 0]);
        writer.string(TABLE_NAME, PORTS_TABLE);
        writer.finish();
        let mut bytes = writer.as_bytes().to_vec();
        bytes[wire::PORT_AT..wire::HEADER].copy_from_slice(&port.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_what_comes_from_this_port_is_kept_out() {
        for port in PORTS {
            assert!(!lets_in(&not_from(port), &notice(port)), "{port}");
            // 0 is the kernel itself.
            let others =
                [0, port ^ 0x1, port ^ 0x100, port ^ 0x1_0000, port ^ 0x8000_0000, port.swap_bytes()];
            for other in others {
                assert!(lets_in(&not_from(port), &notice(other)), "{port} and {other}");
            }
        }
    }

    #[test]
    fn the_first_message_tells_for_all() {
        for port in PORTS {
            let (ours, theirs) = (notice(port), notice(port ^ 2));
            assert!(!lets_in(&not_from(port), &[&ours[..], &theirs[..]].concat()), "{port}");
            assert!(lets_in(&not_from(port), &[&theirs[..], &ours[..]].concat()), "{port}");
        }
    }

    #[test]
    fn what_is_too_short_for_a_message_is_kept_out() {
        let theirs = notice(PORTS[0]);
        for length in 0..wire::HEADER {
            assert_eq!(wire::messages(&theirs[..length]).count(), 0);
            assert!(!lets_in(&not_from(PORTS[1]), &theirs[..length]), "{length}");
        }
        assert!(lets_in(&not_from(PORTS[1]), &theirs[..wire::HEADER]));
    }
}
