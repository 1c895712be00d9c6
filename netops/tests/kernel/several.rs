//! Several VIPs, on several interfaces: opened, announced and closed together.

use std::time::Duration;

use baton_netops::{Announcer, Gate, GateSpec, Network, VipSpec, Which, gate};

use crate::lab::{
    CLIENT, CLIENT6, Echo, LONG, Lab, OTHER, SILENCE, VIP, VIP6, connect_within, ip, json, sh, spec, until,
};

/// A second one on the first wire.
const SECOND: &str = "10.99.0.101";
/// On the second wire.
const ELSEWHERE: &str = "10.98.0.100";
/// Each with its interface here, that of the client's host, and the client that reaches it.
const ALL: [(&str, &str, &str, &str); 4] = [
    (VIP, "v0", "v1", CLIENT),
    (SECOND, "v0", "v1", CLIENT),
    (VIP6, "v0", "v1", CLIENT6),
    (ELSEWHERE, "w0", "w1", "10.98.0.3"),
];

/// A second wire beside the first, both gates, and every VIP as the agent adds it.
fn gated(lab: &Lab, network: &Network) -> Gate {
    sh("ip link add w0 type veth peer name w1");
    sh(&format!("ip link set w1 netns {}", lab.peer.path()));
    sh("ip link set w0 up");
    sh("ip addr add 10.98.0.1/24 dev w0");
    lab.peer.sh("ip link set w1 up");
    lab.peer.sh("ip addr add 10.98.0.3/24 dev w1");
    let vips = ALL.map(|(vip, interface, ..)| VipSpec { ip: ip(vip), interface: interface.into() });
    lab.block_on(async {
        gate::install_or_keep(&GateSpec { vips: vips.to_vec(), ..spec() }).await.unwrap();
        for VipSpec { ip, interface } in &vips {
            network.ensure_address(*ip, interface, 60).await.unwrap();
        }
    });
    Gate::open(spec().slots).unwrap()
}

fn reached(lab: &Lab) -> [bool; 4] {
    ALL.map(|(vip, _, _, from)| lab.peer.within(|| connect_within(SILENCE, from, vip, OTHER).is_ok()))
}

fn open(gate: &mut Gate) {
    gate.ticket(Which::Both, 0, LONG).unwrap();
    gate.permit(Which::Both, 0, LONG).unwrap();
}

#[test]
fn one_gate_opens_and_closes_all() {
    let lab = Lab::new();
    let network = lab.block_on(async { Network::open().unwrap() });
    let mut gate = gated(&lab, &network);
    let _echo = Echo::start(OTHER);
    assert_eq!(reached(&lab), [false; 4], "closed at first");
    open(&mut gate);
    until("every VIP is reached", || reached(&lab) == [true; 4]);
    gate.void(Which::Vip).unwrap();
    assert_eq!(reached(&lab), [false; 4]);
}

#[test]
fn each_is_announced_on_its_own_interface() {
    let lab = Lab::new();
    let network = lab.block_on(async { Network::open().unwrap() });
    let mut gate = gated(&lab, &network);
    open(&mut gate);
    let stale = "02:00:00:00:00:99";
    for (vip, _, there, _) in ALL {
        lab.peer.sh(&format!("ip neigh replace {vip} lladdr {stale} nud reachable dev {there}"));
    }
    let addresses = ALL.map(|(vip, here, ..)| (ip(vip), here.to_owned())).to_vec();
    lab.block_on(async {
        let _announcer = Announcer::start(network, addresses);
        for (vip, here, there, _) in ALL {
            let ours = json(&sh(&format!("ip -j link show {here}")))[0]["address"].clone();
            let is_known = || {
                let entries = json(&lab.peer.sh(&format!("ip -j neigh show dev {there}")));
                entries.as_array().unwrap().iter().any(|e| e["dst"] == vip && e["lladdr"] == ours)
            };
            let told = tokio::time::timeout(Duration::from_secs(10), async {
                while !is_known() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            told.await.unwrap_or_else(|_| panic!("{vip} is not announced on {here}"));
        }
    });
}

#[test]
fn each_lapses_without_renewal() {
    let lab = Lab::new();
    let network = lab.block_on(async { Network::open().unwrap() });
    let _gate = gated(&lab, &network);
    let ours = || {
        let listed = lab.block_on(network.our_addresses(&[])).unwrap();
        listed.into_iter().map(|own| own.ip).collect::<Vec<_>>()
    };
    assert!(ALL.iter().all(|(vip, ..)| ours().contains(&ip(vip))), "{:?}", ours());
    for (vip, interface, ..) in ALL {
        lab.block_on(network.ensure_address(ip(vip), interface, 1)).unwrap();
    }
    until("all lapse", || ours().is_empty());
}
