//! Asking for one address again and again over a kept socket. Checked with what arrives at the peer's end of the wire, and
//! with the kernel's list of packet sockets.

use std::{
    fs,
    io::Read,
    net::IpAddr,
    time::{Duration, Instant},
};

use baton_netops::{Asker, LinkError, Mac, Network, ProbeError, arp, ndp};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{CLIENT, CLIENT6, LONG, Lab, PATIENCE, PEER, US, VIP, VIP6, ip, json, sh, until};

/// What nobody answers is known only after waiting for it.
const GAP: Duration = Duration::from_millis(100);
/// Long enough for something to be done while a question is open.
const MEANWHILE: Duration = Duration::from_secs(2);
/// Another hardware address for our interface.
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x42]);
const PEER6: &str = "fd99::2";

/// All frames of one end of the wire.
struct Tap(Socket);

impl Tap {
    /// In the calling thread's namespace.
    fn open() -> Self {
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        Self(Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(all)).unwrap())
    }

    /// The frames that have come since the last call.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 1514];
        let mut frames = Vec::new();
        while let Ok(length) = self.0.read(&mut buffer) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }

    /// The hardware addresses that have asked for `ip` since the last call, without claiming an address themselves.
    fn questions(&mut self, of: IpAddr) -> Vec<Mac> {
        let frames = self.frames();
        let asked = frames.iter().filter(|frame| asks_for(frame, of));
        asked.map(|frame| Mac(frame[6..12].try_into().unwrap())).collect()
    }

    /// Waits until a question for `ip` has come, and gives what `questions` does.
    async fn wait_for_question(&mut self, of: IpAddr) -> Vec<Mac> {
        let start = Instant::now();
        loop {
            let heard = self.questions(of);
            if !heard.is_empty() {
                return heard;
            }
            assert!(start.elapsed() < PATIENCE, "no question for {of}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until somebody has claimed `ip`. Whatever was sent before that has arrived by then.
    fn wait_for_claim(&mut self, of: IpAddr) {
        until("the claim arrives", || self.frames().iter().any(|frame| claims(frame, of)));
    }
}

fn asks_for(frame: &[u8], of: IpAddr) -> bool {
    let at = |bytes: std::ops::Range<usize>| frame.get(bytes).unwrap_or_default();
    match of {
        IpAddr::V4(of) => {
            at(12..14) == [8_u8, 6]
                && at(20..22) == [0_u8, 1]
                && at(28..32) == [0_u8; 4]
                && at(38..42) == of.octets()
        }
        IpAddr::V6(of) => {
            at(12..14) == [0x86_u8, 0xdd]
                && at(20..21) == [58_u8]
                && at(22..38) == [0_u8; 16]
                && at(54..55) == [135_u8]
                && at(62..78) == of.octets()
        }
    }
}

fn claims(frame: &[u8], of: IpAddr) -> bool {
    let nobody = Mac([0; 6]);
    match of {
        IpAddr::V4(of) => arp::claimant(frame, of, nobody).is_some(),
        IpAddr::V6(of) => ndp::claimant(frame, of, nobody).is_some(),
    }
}

fn asker(of: &str) -> Asker {
    Network::open().unwrap().asker(ip(of), "v0")
}

/// The peer says that it has an address, whether it has it or not.
fn peer_announces(lab: &Lab, claimed: &str) {
    lab.peer.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            Network::open().unwrap().announce_once(ip(claimed), "v1").await.unwrap();
        });
    });
}

fn peer_gets(lab: &Lab, address: &str) {
    match ip(address) {
        IpAddr::V4(_) => lab.peer.sh(&format!("ip addr add {address}/32 dev v1")),
        IpAddr::V6(_) => lab.peer.sh(&format!("ip -6 addr add {address}/128 dev v1 nodad")),
    };
    until("the peer can be asked for it", || lab.peer_hears(address));
}

fn peer_loses(lab: &Lab, address: &str) {
    match ip(address) {
        IpAddr::V4(_) => lab.peer.sh(&format!("ip addr del {address}/32 dev v1")),
        IpAddr::V6(_) => lab.peer.sh(&format!("ip -6 addr del {address}/128 dev v1")),
    };
}

fn our_mac() -> Mac {
    let text = json(&sh("ip -j link show v0"))[0]["address"].as_str().unwrap().to_owned();
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    Mac(bytes.try_into().unwrap())
}

/// Our packet sockets for ARP and IPv6, each as its inode and the bytes that are queued in it.
fn sockets() -> Vec<(String, String)> {
    let list = fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    let rows = list.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| ["0806", "86dd"].contains(&row[3]));
    ours.map(|row| (row[8].to_owned(), row[6].to_owned())).collect()
}

#[test]
fn the_same_asker_says_whether_the_address_is_there_each_time() {
    let lab = Lab::new();
    lab.wait_for_wire();
    for vip in [VIP, VIP6] {
        lab.block_on(async {
            let mut tap = lab.peer.within(Tap::open);
            let mut asker = asker(vip);
            assert!(sockets().is_empty(), "it opens nothing before it is asked");
            assert!(!asker.is_there(GAP).await.unwrap());
            let kept = sockets();
            assert_eq!(kept.len(), 1, "{kept:?}");
            for _ in 0..2 {
                peer_gets(&lab, vip);
                // Longer than the test may take: the first answer ends it.
                for _ in 0..3 {
                    assert!(asker.is_there(LONG).await.unwrap());
                }
                peer_loses(&lab, vip);
                assert!(!asker.is_there(GAP).await.unwrap());
            }
            assert_eq!(sockets(), kept, "all over one socket, and nothing is left in it");
            assert_eq!(tap.questions(ip(vip)), [our_mac(); 9], "nobody asks twice on an interface as it was");
            drop(asker);
            // It is closed by another thread.
            until("the socket is closed", || sockets().is_empty());
        });
    }
}

/// The bytes that are queued in our only socket.
fn queued() -> String {
    let sockets = sockets();
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    sockets[0].1.clone()
}

#[test]
fn claims_of_other_addresses_are_no_answer() {
    let lab = Lab::new();
    lab.wait_for_wire();
    for (vip, other) in [(VIP, CLIENT), (VIP6, CLIENT6)] {
        lab.block_on(async {
            let mut there = lab.peer.within(Tap::open);
            let mut asker = asker(vip);
            for (claimed, is_answer) in [(other, false), (vip, true)] {
                let claim = async {
                    there.wait_for_question(ip(vip)).await;
                    peer_announces(&lab, claimed);
                };
                let (is_there, ()) = tokio::join!(asker.is_there(MEANWHILE), claim);
                assert_eq!(is_there.unwrap(), is_answer, "{claimed}");
            }
        });
    }
}

#[test]
fn between_the_questions_only_answers_come_in_and_they_are_too_late() {
    let lab = Lab::new();
    lab.wait_for_wire();
    for (vip, other) in [(VIP, CLIENT), (VIP6, CLIENT6)] {
        lab.block_on(async {
            let mut here = Tap::open();
            let mut asker = asker(vip);
            assert!(!asker.is_there(GAP).await.unwrap());
            if ip(vip).is_ipv4() {
                // As a gateway does that looks for a host.
                peer_gets(&lab, vip);
                lab.peer.sh(&format!("arping -c 1 -w 10 -I v1 -s {vip} {US}"));
                here.wait_for_claim(ip(vip));
                peer_loses(&lab, vip);
            }
            peer_announces(&lab, other);
            here.wait_for_claim(ip(other));
            assert_eq!(queued(), "0", "of others' traffic");
            // What comes after it shows that the late answer has arrived.
            peer_announces(&lab, vip);
            here.frames();
            peer_announces(&lab, other);
            here.wait_for_claim(ip(other));
            assert_ne!(queued(), "0", "of a late answer");
            assert!(!asker.is_there(GAP).await.unwrap(), "an answer to an earlier question");
            assert_eq!(queued(), "0", "after the next question");
            drop(asker);
            until("the socket is closed", || sockets().is_empty());
        });
    }
}

#[test]
fn an_interface_that_was_made_anew_is_asked_on() {
    let lab = Lab::new();
    for peer in [PEER, PEER6] {
        lab.wait_for_wire();
        lab.block_on(async {
            let mut asker = asker(peer);
            assert!(asker.is_there(PATIENCE).await.unwrap());
            sh("ip link del v0");
            let error = asker.is_there(GAP).await.unwrap_err();
            let is_gone =
                matches!(error, ProbeError::Interface { source: LinkError::NoSuchInterface(_), .. });
            assert!(is_gone, "{error:?}");
            lab.rewire();
            lab.wait_for_wire();
            assert!(asker.is_there(PATIENCE).await.unwrap(), "after an error");
            sh("ip link del v0");
            lab.rewire();
            lab.wait_for_wire();
            assert!(asker.is_there(PATIENCE).await.unwrap(), "without a question in between");
        });
    }
}

#[test]
fn an_interface_that_is_down_is_an_error_and_not_silence() {
    let lab = Lab::new();
    for peer in [PEER, PEER6] {
        lab.wait_for_wire();
        lab.block_on(async {
            let mut asker = asker(peer);
            assert!(asker.is_there(PATIENCE).await.unwrap());
            sh("ip link set v0 down");
            for _ in 0..2 {
                let error = asker.is_there(GAP).await.unwrap_err();
                assert!(matches!(error, ProbeError::Packet { .. }), "{error:?}");
            }
            sh("ip link set v0 up");
            lab.wait_for_wire();
            assert!(asker.is_there(PATIENCE).await.unwrap(), "after an error");
            sh("ip link set v0 down");
            sh("ip link set v0 up");
            lab.wait_for_wire();
            assert!(asker.is_there(PATIENCE).await.unwrap(), "without a question in between");
        });
    }
}

#[test]
fn it_asks_with_the_hardware_address_that_the_interface_has() {
    let lab = Lab::new();
    lab.wait_for_wire();
    let first = our_mac();
    for peer in [PEER, PEER6] {
        lab.block_on(async {
            let mut there = lab.peer.within(Tap::open);
            let mut asker = asker(peer);
            for mac in [first, OTHER_MAC, first] {
                sh(&format!("ip link set v0 address {mac}"));
                assert!(asker.is_there(PATIENCE).await.unwrap());
                assert_eq!(there.questions(ip(peer)), [mac]);
            }
        });
    }
}

#[test]
fn silence_of_an_interface_that_changed_meanwhile_is_no_answer() {
    let lab = Lab::new();
    lab.wait_for_wire();
    let first = our_mac();
    for vip in [VIP, VIP6] {
        lab.block_on(async {
            let mut there = lab.peer.within(Tap::open);
            let mut asker = asker(vip);
            assert!(!asker.is_there(GAP).await.unwrap());
            assert_eq!(there.questions(ip(vip)), [first]);
            let change = async {
                let heard = there.wait_for_question(ip(vip)).await;
                peer_gets(&lab, vip);
                sh(&format!("ip link set v0 address {OTHER_MAC}"));
                heard
            };
            let (is_there, heard) = tokio::join!(asker.is_there(MEANWHILE), change);
            assert_eq!(heard, [first]);
            assert!(is_there.unwrap(), "asked once more");
            assert_eq!(there.questions(ip(vip)), [OTHER_MAC]);
            peer_loses(&lab, vip);
            sh(&format!("ip link set v0 address {first}"));
        });
    }
}
