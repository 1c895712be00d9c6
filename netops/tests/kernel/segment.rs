//! Probing and announcing on the segment, without any gate. Checked with the peer's neighbour table.

use std::time::{Duration, Instant};

use baton_netops::{Announcer, Network, Probe};

use crate::lab::{Lab, PEER, VIP, VIP6, ip, json, sh, until};

const STALE: &str = "02:00:00:00:00:99";

fn spoil(lab: &Lab) {
    for vip in [VIP, VIP6] {
        lab.peer.sh(&format!("ip neigh replace {vip} lladdr {STALE} nud reachable dev v1"));
    }
}

fn ours() -> Option<String> {
    json(&sh("ip -j link show v0"))[0]["address"].as_str().map(str::to_owned)
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
    let addresses = [VIP, VIP6].map(|vip| (ip(vip), "v0".to_owned())).to_vec();
    lab.block_on(async {
        let announcer = Announcer::start(Network::open().unwrap(), addresses);
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
            let patience = Duration::from_secs(60);
            assert!(network.is_there(ip(taken), "v0", patience).await.unwrap(), "the first answer ends it");
        }
        for free in [VIP, VIP6] {
            assert!(!network.is_there(ip(free), "v0", gap).await.unwrap());
            let start = Instant::now();
            assert_eq!(network.probe_address(ip(free), "v0", 2, gap).await.unwrap(), Probe::Free);
            assert!(start.elapsed() >= gap * 2);
        }
        // Our own address is no conflict: the kernel does not answer itself.
        assert_eq!(network.probe_address(ip("10.99.0.1"), "v0", 1, gap).await.unwrap(), Probe::Free);
        assert!(network.probe_address(ip(VIP), "lo", 1, gap).await.is_ok());
    });
}
