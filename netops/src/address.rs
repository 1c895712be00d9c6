//! Addresses that the kernel removes by itself: the second net below the gates.
//!
//! An address of ours is always a host address (/32 or /128) whatever the prefix of its network, without a
//! route of its own: removing it can then never take secondaries of the same subnet with it, and refreshing it
//! never touches routes. IPv6 ones skip duplicate address detection (the caller probes) and are deprecated from
//! the start, so that the host never picks the VIP as a source address.
//!
//! Life times are whole seconds and count from the refresh. Measured: never early, up to 0.4 s late.
//! `ensure_address` is one request that adds or refreshes; `RTM_DELADDR` is sent when an address lapses.
//!
//! Ours are recognised by a protocol tag (`IFA_PROTO`, Linux 5.18). An older kernel ignores the tag; there the
//! caller's list of known VIPs decides.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo},
};

use crate::{
    link::LinkError,
    network::{Network, NetworkError, ask},
};

/// `IFA_PROTO` value that marks an address as ours.
pub const ADDRESS_TAG: u8 = 0xF0;

/// An address that is ours, as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub ip: IpAddr,
    /// Its prefix length; anything but 32 or 128 was added by somebody else.
    pub prefix: u8,
    /// Index of its interface.
    pub ifindex: u32,
    /// Seconds left, `None` for ever.
    pub valid_s: Option<u32>,
    /// Carries our tag; otherwise it is listed because the caller named it.
    pub tagged: bool,
}

/// Why an address could not be changed or listed.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The interface could not be resolved.
    #[error("cannot find the interface of {ip}")]
    Interface {
        /// The address.
        ip: IpAddr,
        /// What failed.
        #[source]
        source: LinkError,
    },
    /// The address could not be added or refreshed.
    #[error("cannot add or refresh {ip} on {interface}")]
    Ensure {
        /// The address.
        ip: IpAddr,
        /// The interface.
        interface: String,
        /// What failed.
        #[source]
        source: NetworkError,
    },
    /// A life time of zero or of `u32::MAX` seconds, which the kernel reads as 'for ever'.
    #[error("an address needs a life time between 1 and {} seconds", u32::MAX - 1)]
    Lifetime,
    /// The address could not be removed.
    #[error("cannot remove {ip}")]
    Remove {
        /// The address.
        ip: IpAddr,
        /// What failed.
        #[source]
        source: NetworkError,
    },
    /// The addresses could not be listed.
    #[error("cannot list the addresses")]
    List(#[source] NetworkError),
}

impl AddressError {
    /// The kernel said no, and will say so again: no permission, no such interface. Otherwise the answer did not come, or the
    /// kernel was short of something for a moment.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Interface { source: LinkError::NoSuchInterface(_), .. } | Self::Lifetime => true,
            Self::Interface { source: LinkError::Query { source, .. }, .. }
            | Self::Ensure { source, .. }
            | Self::Remove { source, .. }
            | Self::List(source) => source.is_refusal(),
        }
    }
}

impl Network {
    /// Adds `ip` to `interface` for `lifetime_s` seconds, or refreshes it in place. Two requests, about 0.2 ms,
    /// bounded by 1 s.
    ///
    /// # Errors
    /// [`AddressError::Interface`], [`AddressError::Ensure`], [`AddressError::Lifetime`].
    pub async fn ensure_address(
        &self,
        ip: IpAddr,
        interface: &str,
        lifetime_s: u32,
    ) -> Result<(), AddressError> {
        if lifetime_s == 0 || lifetime_s == u32::MAX {
            return Err(AddressError::Lifetime);
        }
        let link = self.link(interface).await.map_err(|source| AddressError::Interface { ip, source })?;
        let mut request = self.handle.address().add(link.ifindex, ip, host_prefix(ip)).replace();
        let mut flags = AddressFlags::Noprefixroute;
        if ip.is_ipv6() {
            flags |= AddressFlags::Nodad;
        }
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_valid = lifetime_s;
        lifetimes.ifa_preferred = if ip.is_ipv6() { 0 } else { lifetime_s };
        request.message_mut().attributes.extend([
            AddressAttribute::Flags(flags),
            AddressAttribute::CacheInfo(lifetimes),
            AddressAttribute::Protocol(AddressProtocol::Other(ADDRESS_TAG)),
        ]);
        let interface = interface.to_owned();
        ask(request.execute()).await.map_err(|source| AddressError::Ensure { ip, interface, source })
    }

    /// Removes `ip` as we add it (host prefix) from `interface`. An address that is not there, or whose
    /// interface is gone, is no error.
    ///
    /// # Errors
    /// [`AddressError::Interface`], [`AddressError::Remove`].
    pub async fn remove_address(&self, ip: IpAddr, interface: &str) -> Result<(), AddressError> {
        match self.link(interface).await {
            Ok(link) => self.remove_exactly(ip, host_prefix(ip), link.ifindex).await,
            Err(LinkError::NoSuchInterface(_)) => Ok(()),
            Err(source) => Err(AddressError::Interface { ip, source }),
        }
    }

    /// Removes what [`Network::our_addresses`] listed. One that is not there any more is no error.
    ///
    /// # Errors
    /// [`AddressError::Remove`].
    pub async fn remove_own(&self, address: &OwnAddress) -> Result<(), AddressError> {
        self.remove_exactly(address.ip, address.prefix, address.ifindex).await
    }

    async fn remove_exactly(&self, ip: IpAddr, prefix: u8, ifindex: u32) -> Result<(), AddressError> {
        let mut message = AddressMessage::default();
        message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.prefix_len = prefix;
        message.header.index = ifindex;
        message.attributes.extend([AddressAttribute::Local(ip), AddressAttribute::Address(ip)]);
        match ask(self.handle.address().del(message).execute()).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            Err(source) => Err(AddressError::Remove { ip, source }),
        }
    }

    /// Addresses that carry our tag, and those equal to one of `known` whoever added them, on any interface.
    ///
    /// # Errors
    /// [`AddressError::List`].
    pub async fn our_addresses(&self, known: &[IpAddr]) -> Result<Vec<OwnAddress>, AddressError> {
        let dump = self.handle.address().get().execute().try_collect::<Vec<_>>();
        let messages = ask(dump).await.map_err(AddressError::List)?;
        let ours = |address: &OwnAddress| address.tagged || known.contains(&address.ip);
        Ok(messages.iter().filter_map(own_address).filter(ours).collect())
    }
}

fn host_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn own_address(message: &AddressMessage) -> Option<OwnAddress> {
    let mut address = OwnAddress {
        ip: address_of(message)?,
        prefix: message.header.prefix_len,
        ifindex: message.header.index,
        valid_s: None,
        tagged: false,
    };
    for attribute in &message.attributes {
        if let AddressAttribute::CacheInfo(times) = attribute {
            address.valid_s = (times.ifa_valid != u32::MAX).then_some(times.ifa_valid);
        }
        address.tagged |= *attribute == AddressAttribute::Protocol(AddressProtocol::Other(ADDRESS_TAG));
    }
    Some(address)
}

/// The local address of a message; on a point-to-point link `Address` is the other end's.
pub(crate) fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}
