//! ARP frames (RFC 826, RFC 5227): built and read, nothing sent. Pure.

use std::net::Ipv4Addr;

use pnet_base::MacAddr;
use pnet_packet::{
    MutablePacket, Packet,
    arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket},
    ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket},
};

use crate::link::Mac;

/// Length of an ARP frame; the driver pads it.
pub const FRAME_BYTES: usize = 42;

/// 'Who has `ip`?' without a sender address: asks without claiming.
#[must_use]
pub fn probe(mac: Mac, ip: Ipv4Addr) -> [u8; FRAME_BYTES] {
    frame(ArpOperations::Request, mac, Ipv4Addr::UNSPECIFIED, MacAddr::zero(), ip)
}

/// Gratuitous request: the announcement of RFC 5227.
#[must_use]
pub fn announcement(mac: Mac, ip: Ipv4Addr) -> [u8; FRAME_BYTES] {
    frame(ArpOperations::Request, mac, ip, MacAddr::zero(), ip)
}

/// Gratuitous reply, for neighbours that only learn from replies.
#[must_use]
pub fn unasked_reply(mac: Mac, ip: Ipv4Addr) -> [u8; FRAME_BYTES] {
    frame(ArpOperations::Reply, mac, ip, mac.into(), ip)
}

/// Who else claims `ip` in this frame, if anybody: the sender of an ARP message whose sender address it is.
#[must_use]
pub fn claimant(bytes: &[u8], ip: Ipv4Addr, ours: Mac) -> Option<Mac> {
    let ethernet = EthernetPacket::new(bytes)?;
    let is_arp = ethernet.get_ethertype() == EtherTypes::Arp;
    let arp = ArpPacket::new(ethernet.payload())?;
    let is_ipv4 = arp.get_hw_addr_len() == 6 && arp.get_proto_addr_len() == 4;
    let sender = Mac::from(arp.get_sender_hw_addr());
    (is_arp && is_ipv4 && arp.get_sender_proto_addr() == ip && sender != ours).then_some(sender)
}

fn frame(
    operation: ArpOperation,
    sender: Mac,
    sender_ip: Ipv4Addr,
    target: MacAddr,
    target_ip: Ipv4Addr,
) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    let mut ethernet = MutableEthernetPacket::new(&mut bytes).expect("42 bytes hold an Ethernet header");
    ethernet.set_destination(MacAddr::broadcast());
    ethernet.set_source(sender.into());
    ethernet.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(ethernet.payload_mut()).expect("28 bytes hold an ARP message");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(sender.into());
    arp.set_sender_proto_addr(sender_ip);
    arp.set_target_hw_addr(target);
    arp.set_target_proto_addr(target_ip);
    bytes
}

impl From<Mac> for MacAddr {
    fn from(mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        Self::new(a, b, c, d, e, f)
    }
}

impl From<MacAddr> for Mac {
    fn from(mac: MacAddr) -> Self {
        Self(mac.octets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

    #[test]
    fn a_probe_asks_and_claims_nothing() {
        let bytes = probe(OTHER, VIP);
        assert_eq!(bytes[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 2, 8, 6]);
        assert_eq!(bytes[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(bytes[28..32], [0; 4]);
        assert_eq!(bytes[38..], VIP.octets());
        assert_eq!(claimant(&bytes, VIP, OURS), None);
    }

    #[test]
    fn announcements_claim_but_not_against_ourselves() {
        for bytes in [announcement(OTHER, VIP), unasked_reply(OTHER, VIP)] {
            assert_eq!(claimant(&bytes, VIP, OURS), Some(OTHER));
            assert_eq!(claimant(&bytes, VIP, OTHER), None);
            assert_eq!(claimant(&bytes, Ipv4Addr::LOCALHOST, OURS), None);
        }
    }

    #[test]
    fn short_and_foreign_frames_are_no_claim() {
        let whole = announcement(OTHER, VIP);
        for length in 0..FRAME_BYTES {
            assert_eq!(claimant(&whole[..length], VIP, OURS), None);
        }
        assert_eq!(claimant(&[0xff; 64], VIP, OURS), None);
    }
}
