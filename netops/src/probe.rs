//! Is an address in use on its segment? Asked before a VIP is taken.
//!
//! ARP for IPv4, neighbour solicitation for IPv6, both without claiming the address. Works while our own gate is
//! closed: the gate lets others' claims in. RFC 5227 would take seconds; for a takeover few probes with a short
//! gap must do, since the lease already says that the old holder has stopped.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::{
    link::{LinkError, Mac},
    network::Network,
    packet::PacketError,
    question::{FRAME_BYTES_MAX, Question},
};

/// What the segment says about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Nobody answered.
    Free,
    /// These hardware addresses claim it, in the order in which they answered. Two are an alarm.
    TakenBy(Vec<Mac>),
}

/// Why an address could not be probed, asked for or announced.
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
        let claimants = ask_segment(ip, ifindex, mac, probes, gap).await;
        let claimants = claimants.map_err(|source| ProbeError::Packet { ip, source })?;
        Ok(if claimants.is_empty() { Probe::Free } else { Probe::TakenBy(claimants) })
    }

    /// Index and hardware address of the interface on which `ip` is probed, asked for or announced.
    pub(crate) async fn hardware(&self, ip: IpAddr, interface: &str) -> Result<(u32, Mac), ProbeError> {
        let link = self.link(interface).await.map_err(|source| ProbeError::Interface { ip, source })?;
        match link.mac {
            Some(mac) => Ok((link.ifindex, mac)),
            None => Err(ProbeError::NoHardwareAddress(link.name)),
        }
    }
}

/// Who claims the address, in the order of their answers.
async fn ask_segment(
    ip: IpAddr,
    ifindex: u32,
    mac: Mac,
    probes: u32,
    gap: Duration,
) -> Result<Vec<Mac>, PacketError> {
    let question = Question::new(ip, mac);
    let socket = question.socket(ifindex)?;
    let mut claimants = Vec::new();
    let mut buffer = [0; FRAME_BYTES_MAX];
    for _ in 0..probes {
        socket.send(&question.frame()).await?;
        let end = Instant::now() + gap;
        while let Some(length) = socket.receive_until(end, &mut buffer).await? {
            if let Some(claimant) = question.claimant(&buffer[..length])
                && !claimants.contains(&claimant)
            {
                claimants.push(claimant);
            }
        }
        if !claimants.is_empty() {
            break;
        }
    }
    Ok(claimants)
}
