//! One question to the segment, who has an address: its frame, who claims the address in what comes back, and the socket
//! that hears it. ARP for IPv4, neighbour solicitation for IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::SockFilter;

use crate::{
    arp,
    filter::{JUMP_IF_EQUAL, KEEP_OUT, LET_IN, LOAD_BYTE, LOAD_HALF, LOAD_WORD},
    link::Mac,
    ndp,
    packet::{PacketError, PacketSocket},
};

/// Holds every frame that can be an answer.
pub(crate) const FRAME_BYTES_MAX: usize = 1_514;

/// One question, in the words of its address family, and the hardware address that asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Question {
    Arp(Ipv4Addr, Mac),
    Ndp(Ipv6Addr, Mac),
}

impl Question {
    pub(crate) const fn new(ip: IpAddr, mac: Mac) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::Arp(ip, mac),
            IpAddr::V6(ip) => Self::Ndp(ip, mac),
        }
    }

    /// Hears everybody who claims any address, for the short time of a probe.
    pub(crate) fn socket(&self, ifindex: u32) -> Result<PacketSocket, PacketError> {
        match self {
            Self::Arp(..) => PacketSocket::open(ifindex, libc::ETH_P_ARP as u16, &[]),
            Self::Ndp(..) => PacketSocket::open(ifindex, libc::ETH_P_IPV6 as u16, &ADVERTISEMENTS_ONLY),
        }
    }

    /// Hears only what answers this very question, so that it may stay open and wakes nobody for the segment's other traffic.
    /// What it costs while it is open: the kernel runs the filter over each ARP message, or each IPv6 packet, of the interface.
    pub(crate) fn socket_for_answers(&self, ifindex: u32) -> Result<PacketSocket, PacketError> {
        match *self {
            Self::Arp(ip, _) => PacketSocket::open(ifindex, libc::ETH_P_ARP as u16, &arp_answers(ip)),
            Self::Ndp(ip, _) => PacketSocket::open(ifindex, libc::ETH_P_IPV6 as u16, &advertisements_of(ip)),
        }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        match self {
            Self::Arp(ip, mac) => arp::probe(*mac, *ip).to_vec(),
            Self::Ndp(ip, mac) => ndp::probe(*mac, *ip),
        }
    }

    pub(crate) fn claimant(&self, bytes: &[u8]) -> Option<Mac> {
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
    LET_IN,
    KEEP_OUT,
];

/// Classic BPF: sender address `ip` at byte 28, and either a reply (2 at byte 20) or an announcement (`ip` at byte 38 as
/// well), with which some hosts answer. What the owner of `ip` asks others is no answer, and a gateway asks all day long.
fn arp_answers(ip: Ipv4Addr) -> [SockFilter; 8] {
    let ip = u32::from(ip);
    [
        SockFilter::new(LOAD_WORD, 0, 0, 28),
        SockFilter::new(JUMP_IF_EQUAL, 0, 5, ip),
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(JUMP_IF_EQUAL, 2, 0, 2),
        SockFilter::new(LOAD_WORD, 0, 0, 38),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, ip),
        LET_IN,
        KEEP_OUT,
    ]
}

/// Classic BPF: as [`ADVERTISEMENTS_ONLY`], and the target address `ip` at byte 62.
fn advertisements_of(ip: Ipv6Addr) -> [SockFilter; 14] {
    let ip = u128::from(ip);
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_IF_EQUAL, 0, 11, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(JUMP_IF_EQUAL, 0, 9, 136),
        SockFilter::new(LOAD_WORD, 0, 0, 62),
        SockFilter::new(JUMP_IF_EQUAL, 0, 7, (ip >> 96) as u32),
        SockFilter::new(LOAD_WORD, 0, 0, 66),
        SockFilter::new(JUMP_IF_EQUAL, 0, 5, (ip >> 64) as u32),
        SockFilter::new(LOAD_WORD, 0, 0, 70),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, (ip >> 32) as u32),
        SockFilter::new(LOAD_WORD, 0, 0, 74),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, ip as u32),
        LET_IN,
        KEEP_OUT,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::lets_in;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OWNER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 7);
    const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 1, 0, 2, 0x12, 0x3456);
    /// Where an ARP message says who is asked for.
    const TARGET: std::ops::Range<usize> = 38..42;

    /// The same frame, but about another host.
    fn about(mut frame: Vec<u8>, target: Ipv4Addr) -> Vec<u8> {
        frame[TARGET].copy_from_slice(&target.octets());
        frame
    }

    #[test]
    fn whatever_answers_by_arp_is_let_in() {
        let question = Question::new(GATEWAY.into(), OURS);
        let reply = arp::unasked_reply(OWNER, GATEWAY).to_vec();
        let padded = [&reply[..], &[0; 18]].concat();
        let to_the_probe = about(reply.clone(), Ipv4Addr::UNSPECIFIED);
        let to_a_host = about(reply.clone(), HOST);
        let announcement = arp::announcement(OWNER, GATEWAY).to_vec();
        for answer in [reply, padded, to_the_probe, to_a_host, announcement] {
            assert!(lets_in(&arp_answers(GATEWAY), &answer), "{answer:?}");
            assert_eq!(question.claimant(&answer), Some(OWNER));
        }
    }

    #[test]
    fn ordinary_arp_traffic_is_kept_out() {
        let by_the_gateway = about(arp::announcement(OWNER, GATEWAY).to_vec(), HOST);
        let for_the_gateway = about(arp::announcement(OWNER, HOST).to_vec(), GATEWAY);
        let answered_to_it = about(arp::unasked_reply(OWNER, HOST).to_vec(), GATEWAY);
        let another = arp::unasked_reply(OWNER, HOST).to_vec();
        let probe = arp::probe(OWNER, GATEWAY).to_vec();
        for frame in [by_the_gateway, for_the_gateway, answered_to_it, another, probe] {
            assert!(!lets_in(&arp_answers(GATEWAY), &frame), "{frame:?}");
        }
        let announcement = arp::announcement(OWNER, GATEWAY);
        for length in 0..announcement.len() {
            assert!(!lets_in(&arp_answers(GATEWAY), &announcement[..length]), "{length}");
        }
    }

    #[test]
    fn advertisements_of_this_address_are_let_in_and_nothing_else() {
        let question = Question::new(GATEWAY6.into(), OURS);
        let answer = ndp::announcement(OWNER, GATEWAY6);
        assert!(lets_in(&advertisements_of(GATEWAY6), &answer));
        assert_eq!(question.claimant(&answer), Some(OWNER));
        for length in 0..78 {
            assert!(!lets_in(&advertisements_of(GATEWAY6), &answer[..length]), "{length}");
        }
        // Next header, type, and each byte of the address.
        for at in [20, 54].into_iter().chain(62..78) {
            let mut other = answer.clone();
            other[at] ^= 1;
            assert!(!lets_in(&advertisements_of(GATEWAY6), &other), "{at}");
        }
        assert!(!lets_in(&advertisements_of(GATEWAY6), &question.frame()));
    }

    #[test]
    fn a_probe_hears_advertisements_of_everybody() {
        assert!(lets_in(&ADVERTISEMENTS_ONLY, &ndp::announcement(OWNER, GATEWAY6)));
        assert!(lets_in(&ADVERTISEMENTS_ONLY, &ndp::announcement(OWNER, Ipv6Addr::LOCALHOST)));
        assert!(!lets_in(&ADVERTISEMENTS_ONLY, &ndp::probe(OWNER, GATEWAY6)));
    }
}
