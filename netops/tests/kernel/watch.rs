//! What other programs change is reported.

use std::time::Duration;

use baton_netops::{Event, Gate, Network, Watcher, Which};
use tokio::time::timeout;

use crate::lab::{LONG, Lab, PATIENCE, US, VIP, VIP6, ip, sh, spec, until};

/// The next event that is one of these; others are passed over.
async fn wait_for(watcher: &mut Watcher, wanted: impl Fn(&Event) -> bool) -> Event {
    let found = async {
        loop {
            let event = watcher.next().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("an event")
}

#[test]
fn present_state_comes_first_then_what_others_do() {
    let lab = Lab::new();
    lab.block_on(async {
        let network = Network::open().unwrap();
        let ifindex = network.link("v0").await.unwrap().ifindex;
        let mut watcher = Watcher::open().unwrap();
        let up = Event::LinkUp { interface: "v0".into(), ifindex };
        wait_for(&mut watcher, |event| *event == up).await;
        wait_for(&mut watcher, |event| *event == Event::AddressSeen { ip: ip(US), ifindex }).await;
        for vip in [VIP, VIP6] {
            network.ensure_address(ip(vip), "v0", 60).await.unwrap();
            wait_for(&mut watcher, |event| *event == Event::AddressSeen { ip: ip(vip), ifindex }).await;
            sh(&format!("ip addr del {vip} dev v0"));
            wait_for(&mut watcher, |event| *event == Event::AddressGone { ip: ip(vip), ifindex }).await;
        }
        network.ensure_address(ip(VIP), "v0", 1).await.unwrap();
        wait_for(&mut watcher, |event| *event == Event::AddressGone { ip: ip(VIP), ifindex }).await;
        lab.peer.sh("ip link set v1 down");
        let down = Event::LinkDown { interface: "v0".into(), ifindex };
        wait_for(&mut watcher, |event| *event == down).await;
        lab.peer.sh("ip link set v1 up");
        wait_for(&mut watcher, |event| *event == up).await;
        sh("ip link del v0");
        wait_for(&mut watcher, |event| *event == down).await;
    });
}

#[test]
fn deleted_rules_are_reported_and_renewals_are_not() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let mut watcher = lab.block_on(async { Watcher::open().unwrap() });
    let is_gone = |event: &Event| matches!(event, Event::RulesGone { .. });
    for slot in 0..4 {
        gate.ticket(Which::Both, slot, LONG).unwrap();
        gate.permit(Which::Both, slot, LONG).unwrap();
    }
    gate.void(Which::Both).unwrap();
    sh("nft add table inet theirs");
    sh("nft delete table inet theirs");
    let quiet = lab.block_on(async {
        timeout(Duration::from_millis(300), wait_for(&mut watcher, is_gone)).await.is_err()
    });
    assert!(quiet);
    sh("nft flush chain inet baton_ports output");
    let event = lab.block_on(wait_for(&mut watcher, is_gone));
    assert_eq!(event, Event::RulesGone { table: "baton_ports" });
    sh("nft flush ruleset");
    lab.block_on(wait_for(&mut watcher, |event| *event == Event::RulesGone { table: "baton_vip" }));
}

#[test]
fn lost_events_are_followed_by_a_dump() {
    let lab = Lab::new();
    lab.block_on(async {
        let mut watcher = Watcher::open().unwrap();
        wait_for(&mut watcher, |event| matches!(event, Event::AddressSeen { .. })).await;
        // Nobody reads while far more happens than a buffer of some 200 KiB holds.
        let mut batch = String::new();
        for number in 0..2_000 {
            let (high, low) = (number / 250, number % 250);
            batch += &format!("addr add 10.98.{high}.{low}/32 dev v0\n");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        sh(&format!("ip -b {}", file.path().display()));
        wait_for(&mut watcher, |event| *event == Event::Overrun).await;
        let last = ip("10.98.7.249");
        let seen = |event: &Event| matches!(event, Event::AddressSeen { ip, .. } if *ip == last);
        wait_for(&mut watcher, seen).await;
    });
}

fn renew(gate: &mut Gate) {
    gate.ticket(Which::Both, 0, LONG).unwrap();
    gate.permit(Which::Both, 0, LONG).unwrap();
}

/// The socket of this namespace that hears of changes of nftables, as the kernel lists it. Notices are queued before whoever
/// made the change goes on.
struct Queue {
    /// Bytes that wait to be read.
    waiting: u64,
    /// How often one found no room.
    lost: u64,
}

fn queue() -> Queue {
    let listed = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let lines = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    let found: Vec<_> = lines.filter(|line| line[1] == "12" && line[3] == "00000040").collect();
    assert_eq!(found.len(), 1, "{listed}");
    Queue { waiting: found[0][4].parse().unwrap(), lost: found[0][8].parse().unwrap() }
}

#[test]
fn a_gate_that_is_passed_over_leaves_nothing_to_read() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let mut watcher = lab.block_on(async { Watcher::open().unwrap() });
    // Before the gate has asked for anything.
    watcher.pass_over(&gate);
    for _ in 0..3 {
        renew(&mut gate);
    }
    gate.void(Which::Both).unwrap();
    renew(&mut gate);
    assert_eq!(queue().waiting, 0);
    sh("nft flush chain inet baton_ports output");
    assert!(queue().waiting > 0, "the first thing that arrives is somebody else's");
    let is_gone = |event: &Event| matches!(event, Event::RulesGone { .. } | Event::Overrun);
    let event = lab.block_on(wait_for(&mut watcher, is_gone));
    assert_eq!(event, Event::RulesGone { table: "baton_ports" });
}

#[test]
fn only_the_gate_named_last_is_passed_over() {
    let lab = Lab::new();
    let (mut first, mut second) = (lab.gated(), Gate::open(spec().slots).unwrap());
    let watcher = lab.block_on(async { Watcher::open().unwrap() });
    watcher.pass_over(&first);
    renew(&mut first);
    watcher.pass_over(&second);
    renew(&mut second);
    assert_eq!(queue().waiting, 0);
    renew(&mut first);
    assert!(queue().waiting > 0, "a gate like any other, although of this process");
}

#[test]
fn lost_notices_are_taken_for_deletions() {
    let lab = Lab::new();
    let (mut gate, mut other) = (lab.gated(), Gate::open(spec().slots).unwrap());
    let mut watcher = lab.block_on(async { Watcher::open().unwrap() });
    watcher.pass_over(&gate);
    // Nobody reads while far more happens than the buffer holds.
    until("the buffer is full", || {
        (0..32).for_each(|_| renew(&mut other));
        queue().lost > 0
    });
    let lost = queue().lost;
    (0..32).for_each(|_| renew(&mut gate));
    assert_eq!(queue().lost, lost, "what is passed over needs no room");
    lab.block_on(wait_for(&mut watcher, |event| *event == Event::Overrun));
    for table in ["baton_vip", "baton_ports", "baton_cut"] {
        lab.block_on(wait_for(&mut watcher, |event| *event == Event::RulesGone { table }));
    }
}
