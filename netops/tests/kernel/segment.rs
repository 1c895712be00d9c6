//! Probing and announcing on the segment, without any gate. Checked with the peer's neighbour table, and with what
//! arrives at its end of the wire.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use baton_netops::{Announcer, Mac, Network, Probe, arp, ndp};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{LONG, Lab, PATIENCE, PEER, VIP, VIP6, ip, json, sh, until};

const STALE: &str = "02:00:00:00:00:99";
/// When announcements are due, in milliseconds after the start.
const DUE_MS: [u64; 7] = [0, 50, 150, 500, 1_000, 2_000, 5_000];
/// So many of them are due in the first two seconds; three more seconds pass before the next one.
const DENSE: usize = 6;

fn spoil(lab: &Lab) {
    for vip in [VIP, VIP6] {
        lab.peer.sh(&format!("ip neigh replace {vip} lladdr {STALE} nud reachable dev v1"));
    }
}

fn ours() -> Option<String> {
    json(&sh("ip -j link show v0"))[0]["address"].as_str().map(str::to_owned)
}

fn addresses() -> Vec<(std::net::IpAddr, String)> {
    [VIP, VIP6].map(|vip| (ip(vip), "v0".to_owned())).to_vec()
}

/// The announcements that arrive at the peer's end of the wire.
struct Heard {
    socket: Socket,
    ours: Option<String>,
    /// When each of them was read.
    requests: Vec<Instant>,
    replies: usize,
    advertisements: usize,
}

impl Heard {
    fn on(lab: &Lab) -> Self {
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let open = || Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(all));
        let socket = lab.peer.within(open).unwrap();
        Self { socket, ours: ours(), requests: Vec::new(), replies: 0, advertisements: 0 }
    }

    /// Counts what has arrived.
    fn listen(&mut self) {
        let mut buffer = [0; 1514];
        while let Ok(length) = self.socket.read(&mut buffer) {
            self.count(&buffer[..length]);
        }
    }

    fn count(&mut self, frame: &[u8]) {
        let nobody = Mac([0; 6]);
        let is_ours = |mac: Option<Mac>| mac.is_some() && mac.map(|mac| mac.to_string()) == self.ours;
        let by_arp = is_ours(arp::claimant(frame, VIP.parse().unwrap(), nobody));
        let by_ndp = is_ours(ndp::claimant(frame, VIP6.parse().unwrap(), nobody));
        match frame.get(20..22) {
            Some([0, 1]) if by_arp => self.requests.push(Instant::now()),
            Some([0, 2]) if by_arp => self.replies += 1,
            Some(_) | None => self.advertisements += usize::from(by_ndp),
        }
    }

    /// Waits until each kind has come so often.
    async fn wait(&mut self, count: usize, limit: Duration) {
        let start = Instant::now();
        loop {
            self.listen();
            let counts = [self.requests.len(), self.replies, self.advertisements];
            if counts.iter().all(|seen| *seen >= count) {
                return;
            }
            assert!(start.elapsed() < limit, "{counts:?} requests, replies, advertisements of {count}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[test]
fn the_schedule_is_kept_in_all_three_kinds() {
    let lab = Lab::new();
    lab.block_on(async {
        let mut heard = Heard::on(&lab);
        let start = Instant::now();
        let _announcer = Announcer::start(Network::open().unwrap(), addresses());
        // Before the seventh is due.
        heard.wait(DENSE, Duration::from_millis(DUE_MS[DENSE])).await;
        for (at, due_ms) in heard.requests.iter().zip(DUE_MS) {
            let after = at.duration_since(start);
            assert!(after >= Duration::from_millis(due_ms), "{due_ms} ms: after {after:?}");
        }
    });
}

/// Lost and back so soon that no probe sees it.
#[test]
fn the_schedule_begins_anew_when_the_carrier_returns() {
    let lab = Lab::new();
    lab.block_on(async {
        let mut heard = Heard::on(&lab);
        let _announcer = Announcer::start(Network::open().unwrap(), addresses());
        heard.wait(DENSE, LONG).await;
        lab.peer.sh("ip link set v1 down");
        lab.peer.sh("ip link set v1 up");
        heard.listen();
        // Of what began before, one more is due in this time.
        heard.wait(heard.requests.len() + 4, PATIENCE).await;
    });
}

#[test]
fn an_announcement_changes_the_neighbours_table() {
    let lab = Lab::new();
    spoil(&lab);
    lab.block_on(async {
        let network = Network::open().unwrap();
        network.announce_once(ip(VIP), "v0").await.unwrap();
        network.announce_once(ip(VIP6), "v0").await.unwrap();
    });
    until("the peer learns", || lab.neighbour(VIP) == ours() && lab.neighbour(VIP6) == ours());
}

#[test]
fn the_announcer_repeats_and_starts_anew_when_poked() {
    let lab = Lab::new();
    lab.block_on(async {
        let announcer = Announcer::start(Network::open().unwrap(), addresses());
        let learnt = async |what: &str| {
            let start = Instant::now();
            while lab.neighbour(VIP) != ours() || lab.neighbour(VIP6) != ours() {
                assert!(start.elapsed() < Duration::from_secs(10), "{what}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        spoil(&lab);
        learnt("the schedule repeats").await;
        // Past the dense part of the schedule only a poke is this quick.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        spoil(&lab);
        let start = Instant::now();
        announcer.poke();
        learnt("poked").await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        drop(announcer);
    });
}

#[test]
fn a_probe_names_who_answers_and_ends_in_time() {
    let lab = Lab::new();
    let theirs = json(&lab.peer.sh("ip -j link show v1"))[0]["address"].as_str().unwrap().to_owned();
    lab.block_on(async {
        let network = Network::open().unwrap();
        let gap = Duration::from_millis(100);
        for taken in [PEER, "fd99::2"] {
            let Probe::TakenBy(macs) = network.probe_address(ip(taken), "v0", 3, gap).await.unwrap() else {
                panic!("{taken} is taken")
            };
            assert_eq!(macs.len(), 1);
            assert_eq!(macs[0].to_string(), theirs);
        }
        for free in [VIP, VIP6] {
            let start = Instant::now();
            assert_eq!(network.probe_address(ip(free), "v0", 2, gap).await.unwrap(), Probe::Free);
            assert!(start.elapsed() >= gap * 2);
        }
        // Our own address is no conflict: the kernel does not answer itself.
        assert_eq!(network.probe_address(ip("10.99.0.1"), "v0", 1, gap).await.unwrap(), Probe::Free);
        assert!(network.probe_address(ip(VIP), "lo", 1, gap).await.is_ok());
    });
}
