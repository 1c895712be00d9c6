//! The carriers of some interfaces, for whoever has to speak anew when one has returned: a switch that lost the link has
//! forgotten behind which port an address is.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    pin::Pin,
};

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use rtnetlink::MulticastGroup;
use tokio::task::AbortHandle;

use crate::{
    link::{Link, describe},
    network::{Network, ask},
};

type Notifications = Pin<Box<dyn Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Send>>;

/// A subscription to links only: nobody wakes it while the cable stays in.
pub(crate) struct Carriers {
    network: Network,
    interfaces: BTreeSet<String>,
    changes: Notifications,
    task: AbortHandle,
    /// By the interface's index.
    known: BTreeMap<u32, Carrier>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Carrier {
    is_up: bool,
    /// The kernel's count. A loss and a return in quick succession are told as one change, and both say 'up'.
    changes: Option<u32>,
}

impl Drop for Carriers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Carriers {
    /// Subscribes, on the current tokio runtime. What is up already is not known before [`Carriers::look`].
    pub(crate) fn open(network: Network, interfaces: BTreeSet<String>) -> io::Result<Self> {
        let (connection, _, changes) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
        let task = tokio::spawn(connection).abort_handle();
        Ok(Self {
            network,
            interfaces,
            changes: Box::pin(changes.map(|(message, _)| message.payload)),
            task,
            known: BTreeMap::new(),
        })
    }

    /// Notes how they are now. One that cannot be looked at counts as having come up when it is first heard of.
    pub(crate) async fn look(&mut self) {
        let network = self.network.clone();
        for interface in self.interfaces.clone() {
            let mut found = network.handle.link().get().match_name(interface).execute();
            if let Ok(Some(message)) = ask(found.try_next()).await {
                self.note(&message);
            }
        }
    }

    /// Waits until one of them has come up. Dropping the future loses nothing.
    pub(crate) async fn came_up(&mut self) {
        while let Some(payload) = self.changes.next().await {
            let came_up = match payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => self.note(&message),
                // It may have been among what was lost.
                NetlinkPayload::Overrun(_) => true,
                _ => false,
            };
            if came_up {
                return;
            }
        }
        pending().await
    }

    /// Whether it has come up since it was last heard of.
    fn note(&mut self, message: &LinkMessage) -> bool {
        let Link { name, ifindex, is_up, has_carrier, .. } = describe(message);
        // What a bridge says of its port is not all that there is to know.
        let is_whole = message.header.interface_family == AddressFamily::Unspec;
        if !is_whole || !self.interfaces.contains(&name) {
            return false;
        }
        let now = Carrier { is_up: is_up && has_carrier, changes: changes_of(message) };
        let before = self.known.insert(ifindex, now);
        now.is_up && before != Some(now)
    }
}

fn changes_of(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::CarrierChanges(changes) => Some(*changes),
        _ => None,
    })
}
