//! Is an address in use on its segment? Asked before a VIP is taken.
//!
//! ARP for IPv4, neighbour solicitation for IPv6, both without claiming the address. Works while our own gate is
//! closed: the gate lets others' claims in. RFC 5227 would take seconds; for a takeover few probes with a short
//! gap must do, since the lease already says that the old holder has stopped.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use socket2::SockFilter;
use tokio::time::Instant;

use crate::{
    arp,
    link::{LinkError, Mac},
    ndp,
    network::Network,
    packet::{PacketError, PacketSocket},
};

/// What the segment says about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Nobody answered.
    Free,
    /// These hardware addresses claim it, in the order in which they answered. Two are an alarm.
    TakenBy(Vec<Mac>),
}

/// Why an address could not be probed or announced.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The interface could not be looked up.
    #[error("cannot look up the interface for {ip}")]
    Interface {
        /// The address.
        ip: IpAddr,
        /// What failed.
        #[source]
        source: LinkError,
    },
    /// The interface has no hardware address, so there is nothing to probe or announce.
    #[error("interface {0:?} has no Ethernet address")]
    NoHardwareAddress(String),
    /// A frame could not be sent or received.
    #[error("cannot exchange frames for {ip}")]
    Packet {
        /// The address.
        ip: IpAddr,
        /// What failed.
        #[source]
        source: PacketError,
    },
}

impl Network {
    /// Asks `probes` times, `gap` apart, who has `ip`. A free address takes `probes * gap`; a taken one ends with
    /// the gap in which the first answer came, so that a second claimant is heard as well.
    ///
    /// # Errors
    /// [`ProbeError`]; an error is not 'free'.
    pub async fn probe_address(
        &self,
        ip: IpAddr,
        interface: &str,
        probes: u32,
        gap: Duration,
    ) -> Result<Probe, ProbeError> {
        let (ifindex, mac) = self.hardware(ip, interface).await?;
        let claimants = ask_segment(ip, ifindex, mac, probes, gap, Until::TheGapEnds).await;
        let claimants = claimants.map_err(|source| ProbeError::Packet { ip, source })?;
        Ok(if claimants.is_empty() { Probe::Free } else { Probe::TakenBy(claimants) })
    }

    /// Asks once whether anybody has `ip`, and waits for `patience` at most; ends with the first answer.
    ///
    /// # Errors
    /// [`ProbeError`]; an error is not 'nobody'.
    pub async fn is_there(
        &self,
        ip: IpAddr,
        interface: &str,
        patience: Duration,
    ) -> Result<bool, ProbeError> {
        let (ifindex, mac) = self.hardware(ip, interface).await?;
        let claimants = ask_segment(ip, ifindex, mac, 1, patience, Until::SomebodyAnswers).await;
        claimants.map(|claimants| !claimants.is_empty()).map_err(|source| ProbeError::Packet { ip, source })
    }

    /// Index and hardware address of the interface on which `ip` is probed or announced.
    pub(crate) async fn hardware(&self, ip: IpAddr, interface: &str) -> Result<(u32, Mac), ProbeError> {
        let link = self.link(interface).await.map_err(|source| ProbeError::Interface { ip, source })?;
        match link.mac {
            Some(mac) => Ok((link.ifindex, mac)),
            None => Err(ProbeError::NoHardwareAddress(link.name)),
        }
    }
}

/// For how long answers are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// A second claimant is heard as well.
    TheGapEnds,
    SomebodyAnswers,
}

/// Who claims the address, in the order of their answers.
async fn ask_segment(
    ip: IpAddr,
    ifindex: u32,
    mac: Mac,
    probes: u32,
    gap: Duration,
    until: Until,
) -> Result<Vec<Mac>, PacketError> {
    let question = Question::new(ip, mac);
    let socket = question.socket(ifindex)?;
    let mut claimants = Vec::new();
    let mut buffer = [0; 1514];
    for _ in 0..probes {
        socket.send(&question.frame()).await?;
        let end = Instant::now() + gap;
        while let Some(length) = socket.receive_until(end, &mut buffer).await? {
            if let Some(claimant) = question.claimant(&buffer[..length])
                && !claimants.contains(&claimant)
            {
                claimants.push(claimant);
                if until == Until::SomebodyAnswers {
                    return Ok(claimants);
                }
            }
        }
        if !claimants.is_empty() {
            break;
        }
    }
    Ok(claimants)
}

/// One question, in the words of its address family.
enum Question {
    Arp(Ipv4Addr, Mac),
    Ndp(Ipv6Addr, Mac),
}

impl Question {
    fn new(ip: IpAddr, mac: Mac) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::Arp(ip, mac),
            IpAddr::V6(ip) => Self::Ndp(ip, mac),
        }
    }

    fn socket(&self, ifindex: u32) -> Result<PacketSocket, PacketError> {
        match self {
            Self::Arp(..) => PacketSocket::open(ifindex, libc::ETH_P_ARP as u16, &[]),
            Self::Ndp(..) => PacketSocket::open(ifindex, libc::ETH_P_IPV6 as u16, &ADVERTISEMENTS_ONLY),
        }
    }

    fn frame(&self) -> Vec<u8> {
        match self {
            Self::Arp(ip, mac) => arp::probe(*mac, *ip).to_vec(),
            Self::Ndp(ip, mac) => ndp::probe(*mac, *ip),
        }
    }

    fn claimant(&self, bytes: &[u8]) -> Option<Mac> {
        match self {
            Self::Arp(ip, mac) => arp::claimant(bytes, *ip, *mac),
            Self::Ndp(ip, mac) => ndp::claimant(bytes, *ip, *mac),
        }
    }
}

/// Classic BPF: next header ICMPv6 (58) at byte 20 and type 136 at byte 54, else nothing. Keeps all other IPv6
/// traffic of the interface out of our queue.
const ADVERTISEMENTS_ONLY: [SockFilter; 6] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 20),
    SockFilter::new(JUMP_IF_EQUAL, 0, 3, 58),
    SockFilter::new(LOAD_BYTE, 0, 0, 54),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, 136),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
    SockFilter::new(RETURN, 0, 0, 0),
];
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
