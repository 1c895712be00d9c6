//! IPv6 neighbour messages (RFC 4861): built and read, nothing sent. Pure.

use std::net::Ipv6Addr;

use pnet_base::MacAddr;
use pnet_packet::{
    MutablePacket,
    ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket},
    icmpv6::{
        Icmpv6Packet, Icmpv6Types, checksum,
        ndp::{
            MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NdpOption, NdpOptionTypes,
            NeighborAdvertFlags, NeighborAdvertPacket,
        },
    },
    ip::IpNextHeaderProtocols,
    ipv6::{Ipv6Packet, MutableIpv6Packet},
};

use crate::link::Mac;

const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;
const SOLICITATION_BYTES: usize = 24;
const ADVERTISEMENT_BYTES: usize = 32;
/// Neighbour messages with another hop limit are forged from afar and are ignored.
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// 'Who has `ip`?' from the unspecified address, as in duplicate address detection: asks without claiming.
#[must_use]
pub fn probe(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let mut message = [0; SOLICITATION_BYTES];
    let mut solicitation =
        MutableNeighborSolicitPacket::new(&mut message).expect("24 bytes hold a solicitation");
    solicitation.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
    solicitation.set_target_addr(ip);
    frame(mac, Ipv6Addr::UNSPECIFIED, solicited_node(ip), &mut message)
}

/// Unsolicited advertisement with the override flag, to all nodes.
#[must_use]
pub fn announcement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let mut message = [0; ADVERTISEMENT_BYTES];
    let mut advertisement =
        MutableNeighborAdvertPacket::new(&mut message).expect("32 bytes hold an advertisement");
    advertisement.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
    advertisement.set_flags(NeighborAdvertFlags::Override);
    advertisement.set_target_addr(ip);
    advertisement.set_options(&[NdpOption {
        option_type: NdpOptionTypes::TargetLLAddr,
        length: 1,
        data: mac.0.to_vec(),
    }]);
    frame(mac, ip, ALL_NODES, &mut message)
}

/// Who else advertises `ip` in this frame, if anybody: the sender of a neighbour advertisement for it.
#[must_use]
pub fn claimant(bytes: &[u8], ip: Ipv6Addr, ours: Mac) -> Option<Mac> {
    let ethernet = EthernetPacket::new(bytes)?;
    if ethernet.get_ethertype() != EtherTypes::Ipv6 {
        return None;
    }
    // A frame's length in its header may lie; the rest is read from what has arrived.
    let rest = bytes.get(ETHERNET_BYTES..)?;
    let header = Ipv6Packet::new(rest)?;
    let message = rest.get(IPV6_BYTES..)?;
    let advertisement = NeighborAdvertPacket::new(message)?;
    let is_advertisement = header.get_next_header() == IpNextHeaderProtocols::Icmpv6
        && header.get_hop_limit() == HOP_LIMIT
        && advertisement.get_icmpv6_type() == Icmpv6Types::NeighborAdvert;
    let sender = Mac::from(ethernet.get_source());
    (is_advertisement && advertisement.get_target_addr() == ip && sender != ours).then_some(sender)
}

fn frame(mac: Mac, source: Ipv6Addr, destination: Ipv6Addr, message: &mut [u8]) -> Vec<u8> {
    let sum = checksum(
        &Icmpv6Packet::new(message).expect("a neighbour message is longer than its header"),
        &source,
        &destination,
    );
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = vec![0; ETHERNET_BYTES + IPV6_BYTES + message.len()];
    let mut ethernet = MutableEthernetPacket::new(&mut bytes).expect("the buffer holds all headers");
    ethernet.set_destination(multicast_mac(destination));
    ethernet.set_source(mac.into());
    ethernet.set_ethertype(EtherTypes::Ipv6);
    let mut header = MutableIpv6Packet::new(ethernet.payload_mut()).expect("the buffer holds all headers");
    header.set_version(6);
    header.set_payload_length(message.len() as u16);
    header.set_next_header(IpNextHeaderProtocols::Icmpv6);
    header.set_hop_limit(HOP_LIMIT);
    header.set_source(source);
    header.set_destination(destination);
    header.set_payload(message);
    bytes
}

/// The multicast group on which the owner of `ip` listens for solicitations.
fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr::new(0x33, 0x33, a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn vip() -> Ipv6Addr {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0x12, 0x3456)
    }

    #[test]
    fn a_probe_goes_to_the_solicited_node_group_and_claims_nothing() {
        let bytes = probe(OTHER, vip());
        assert_eq!(bytes.len(), 78);
        assert_eq!(bytes[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(bytes[54], 135);
        assert_eq!(bytes[62..78], vip().octets());
        assert_eq!(claimant(&bytes, vip(), OURS), None);
    }

    #[test]
    fn an_advertisement_claims_but_not_against_ourselves() {
        let bytes = announcement(OTHER, vip());
        assert_eq!(bytes.len(), 86);
        assert_eq!(bytes[58], 0x20);
        assert_eq!(bytes[80..], OTHER.0);
        assert_eq!(claimant(&bytes, vip(), OURS), Some(OTHER));
        assert_eq!(claimant(&bytes, vip(), OTHER), None);
        assert_eq!(claimant(&bytes, Ipv6Addr::LOCALHOST, OURS), None);
    }

    #[test]
    fn short_and_foreign_frames_are_no_claim() {
        let whole = announcement(OTHER, vip());
        for length in 0..78 {
            assert_eq!(claimant(&whole[..length], vip(), OURS), None);
        }
        assert_eq!(claimant(&[0xff; 100], vip(), OURS), None);
    }
}
