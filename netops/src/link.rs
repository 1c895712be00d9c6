//! Interfaces: index, hardware address, carrier, default gateway. All from netlink: `/sys` shows the
//! namespace in which it was mounted, not the one we run in.

use std::{fmt, net::IpAddr};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use rtnetlink::RouteMessageBuilder;

use crate::network::{Network, NetworkError, ask};

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index; a new one after it was deleted and made again.
    pub ifindex: u32,
    /// Its hardware address, if it is an Ethernet-like one.
    pub mac: Option<Mac>,
    /// Set up by the administrator.
    pub is_up: bool,
    /// The other end is there.
    pub has_carrier: bool,
}

/// Why an interface or its gateway could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no interface of that name.
    #[error("there is no interface {0:?}")]
    NoSuchInterface(String),
    /// The kernel did not tell.
    #[error("cannot look up the interface {interface:?}")]
    Query {
        /// The interface.
        interface: String,
        /// What failed.
        #[source]
        source: NetworkError,
    },
}

impl Network {
    /// Looks up an interface by name.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn link(&self, interface: &str) -> Result<Link, LinkError> {
        let mut found = self.handle.link().get().match_name(interface.to_owned()).execute();
        match ask(found.try_next()).await {
            Ok(Some(message)) => Ok(describe(&message)),
            Ok(None) => Err(LinkError::NoSuchInterface(interface.to_owned())),
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                Err(LinkError::NoSuchInterface(interface.to_owned()))
            }
            Err(source) => Err(LinkError::Query { interface: interface.to_owned(), source }),
        }
    }

    /// The IPv4 default gateway by way of this interface, if there is one.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn gateway(&self, interface: &str) -> Result<Option<IpAddr>, LinkError> {
        let link = self.link(interface).await?;
        let every = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let dump = self.handle.route().get(every).execute().try_collect::<Vec<_>>();
        let query = |source| LinkError::Query { interface: interface.to_owned(), source };
        let routes = ask(dump).await.map_err(query)?;
        Ok(routes.iter().find_map(|route| default_gateway(route, link.ifindex)))
    }
}

pub(crate) fn describe(message: &LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        ifindex: message.header.index,
        mac: None,
        is_up: message.header.flags.contains(LinkFlags::Up),
        has_carrier: message.header.flags.contains(LinkFlags::LowerUp),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    link
}

fn default_gateway(route: &RouteMessage, ifindex: u32) -> Option<IpAddr> {
    let by_way_of = route.attributes.contains(&RouteAttribute::Oif(ifindex));
    if route.header.destination_prefix_length != 0 || !by_way_of {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}
