//! The VIP gate: who reaches the VIP, and who hears of it, with which of ticket and permit.

use std::{
    io::ErrorKind,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use baton_netops::{Gate, LATELY, Mac, Network, Probe, Which};

use crate::lab::{
    CLIENT, CLIENT6, DATABASE, Echo, LONG, Lab, OTHER, SILENCE, US, VIP, VIP6, connect_within, echoes, ip,
    is_refused, is_reset, json, sh, until,
};

fn open(gate: &mut Gate, which: Which, timeout: Duration) {
    gate.ticket(which, 0, timeout).unwrap();
    gate.permit(which, 0, timeout).unwrap();
}

fn mac_of(link: &str) -> String {
    json(link)[0]["address"].as_str().unwrap().to_owned()
}

#[test]
fn only_ticket_and_permit_together_open() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let _echo = Echo::start(OTHER);
    let reachable = || (lab.answers_arp(), lab.reaches(VIP, OTHER), lab.reaches(VIP6, OTHER));
    assert_eq!(reachable(), (false, false, false), "closed at first");
    assert!(lab.connect(US, OTHER).is_ok(), "other traffic is untouched");
    gate.ticket(Which::Vip, 2, LONG).unwrap();
    assert_eq!(reachable(), (false, false, false), "a ticket alone opens nothing");
    gate.permit(Which::Vip, 1, LONG).unwrap();
    assert_eq!(reachable(), (false, false, false), "a permit of another slot opens nothing");
    gate.permit(Which::Vip, 2, LONG).unwrap();
    assert!(lab.answers_arp());
    for vip in [VIP, VIP6] {
        // The client's host waits a moment before it asks again who has the address.
        until("the client connects", || lab.reaches(vip, OTHER));
    }
    gate.ticket(Which::Vip, 2, LONG).unwrap();
    assert_eq!(reachable(), (false, false, false), "a new ticket clears its slot's permit");
}

#[test]
fn a_late_permit_opens_nothing() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    gate.ticket(Which::Vip, 0, Duration::from_millis(30)).unwrap();
    until("the ticket lapses", || gate.alive(Which::Vip).unwrap().is_empty());
    gate.permit(Which::Vip, 0, LONG).unwrap();
    let alive = gate.alive(Which::Vip).unwrap();
    assert_eq!(alive.iter().map(|slot| (slot.ticket_ms, slot.open_ms())).collect::<Vec<_>>(), [(None, None)]);
    assert!(!lab.answers_arp());
}

/// A datagram that was answered passed the gate after the moment before it was sent. So however late anybody is
/// scheduled, that moment must lie before the end of the ticket, which began at the latest when `ticket`
/// returned. 12 ms are allowed for the kernel's tick.
#[test]
fn nothing_passes_after_the_end() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let _echo = Echo::datagrams(VIP, OTHER);
    let lease = Duration::from_millis(400);
    gate.permit(Which::Vip, 0, LONG).unwrap();
    gate.ticket(Which::Vip, 1, lease).unwrap();
    let end = Instant::now() + lease;
    gate.permit(Which::Vip, 1, LONG).unwrap();
    let last_sent = lab.peer.within(|| last_answered(end + SILENCE));
    let last_sent = last_sent.expect("the gate was open at first");
    assert!(last_sent <= end + Duration::from_millis(12), "open {:?} after the end", last_sent - end);
}

/// Sends a datagram to the VIP every 2 ms until `stop`; the moment just before the last answered one was sent.
fn last_answered(stop: Instant) -> Option<Instant> {
    let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
    socket.connect((VIP, OTHER)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    let mut sent = Vec::new();
    let mut answered = None;
    while Instant::now() < stop {
        sent.push(Instant::now());
        let _ = socket.send(&(sent.len() as u32 - 1).to_be_bytes());
        let mut number = [0; 4];
        if socket.recv(&mut number).is_ok() {
            answered = answered.max(Some(sent[u32::from_be_bytes(number) as usize]));
        }
    }
    answered
}

/// Renewals come far faster here than in the product, round the ring, while datagrams go to and fro.
#[test]
fn no_packet_is_lost_while_renewing() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let _echo = Echo::datagrams(VIP, OTHER);
    gate.ticket(Which::Both, 3, LONG).unwrap();
    gate.permit(Which::Both, 3, LONG).unwrap();
    assert!(lab.answers_arp());
    let renewing = AtomicBool::new(true);
    let (peer, renewing) = (&lab.peer, &renewing);
    let (lost, renewals) = thread::scope(|scope| {
        let asking = scope.spawn(move || {
            let lost = peer.within(|| {
                let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
                socket.connect((VIP, OTHER)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let ask = || socket.send(b"?").is_err() || socket.recv(&mut [0; 4]).is_err();
                let end = Instant::now() + Duration::from_secs(1);
                (0..).take_while(|_| Instant::now() < end).filter(|_| ask()).count()
            });
            renewing.store(false, Ordering::Relaxed);
            lost
        });
        let mut renewals = 0_u8;
        while renewing.load(Ordering::Relaxed) {
            gate.ticket(Which::Both, renewals % 4, LONG).unwrap();
            thread::park_timeout(Duration::from_millis(1));
            gate.permit(Which::Both, renewals % 4, LONG).unwrap();
            thread::park_timeout(Duration::from_millis(1));
            renewals = renewals.wrapping_add(1);
        }
        (asking.join().unwrap(), renewals)
    });
    assert_eq!(lost, 0, "in {renewals} renewals");
}

#[test]
fn void_closes_at_once_and_reads_back() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    for slot in 0..4 {
        gate.ticket(Which::Both, slot, LONG).unwrap();
        gate.permit(Which::Both, slot, LONG).unwrap();
    }
    assert!(lab.answers_arp());
    assert_eq!(gate.alive(Which::Both).unwrap().len(), 8);
    assert!(!gate.is_void(Which::Vip).unwrap());
    gate.void(Which::Vip).unwrap();
    assert_eq!(gate.alive(Which::Vip).unwrap(), []);
    assert!(gate.is_void(Which::Vip).unwrap() && !gate.is_void(Which::Both).unwrap());
    assert_eq!(gate.alive(Which::Ports).unwrap().len(), 4, "the other gate is left alone");
    for set in ["ticket_0", "permit_3"] {
        let listed = json(&sh(&format!("nft -j list set netdev baton_vip {set}")));
        assert!(listed["nftables"][1]["set"].get("elem").is_none(), "{listed}");
    }
    assert!(!lab.answers_arp());
    // A grant that was in flight finds no ticket.
    gate.permit(Which::Vip, 0, LONG).unwrap();
    assert!(!lab.answers_arp());
    assert!(!gate.is_void(Which::Vip).unwrap(), "it would open with the next ticket");
}

/// Where the client's host thinks that the VIPs are.
fn point(lab: &Lab, at: &str) {
    for vip in [VIP, VIP6] {
        lab.peer.sh(&format!("ip neigh replace {vip} lladdr {at} nud permanent dev v1"));
    }
}

/// Nobody says anything to a client who connects.
fn is_silent(lab: &Lab, port: u16) -> [bool; 2] {
    [(CLIENT, VIP), (CLIENT6, VIP6)].map(|(from, vip)| {
        let tried = lab.peer.within(|| connect_within(SILENCE, from, vip, port));
        tried.is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    })
}

/// While the VIP moves a client's host still sends to the old holder, which soon has the address no longer.
#[test]
fn a_gate_that_has_just_closed_refuses_clients_instead_of_letting_them_hang() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let _echo = Echo::start(DATABASE);
    gate.ticket(Which::Ports, 0, LONG).unwrap();
    gate.permit(Which::Ports, 0, LONG).unwrap();
    point(&lab, &mac_of(&sh("ip -j link show v0")));
    assert_eq!(is_silent(&lab, DATABASE), [true, true], "a host that has not held it speaks for nobody");

    open(&mut gate, Which::Vip, LONG);
    gate.void(Which::Vip).unwrap();
    let refused = || [VIP, VIP6].map(|vip| is_refused(&lab.connect(vip, DATABASE)));
    assert_eq!(refused(), [true, true], "with the address");
    for vip in [VIP, VIP6] {
        sh(&format!("ip addr del {vip} dev v0"));
    }
    assert_eq!(refused(), [true, true], "without it");
    assert_eq!(is_silent(&lab, OTHER), [true, true], "what is not guarded may wait for the other host");
    assert!(!lab.answers_arp());

    // A switch floods what is for another host; an interface that takes every frame must not answer for it.
    sh("ip link set v0 promisc on");
    point(&lab, "02:00:00:00:00:99");
    assert_eq!(is_silent(&lab, DATABASE), [true, true]);

    let listed = json(&sh("nft -j list set netdev baton_vip lately"));
    let left_s = listed["nftables"][1]["set"]["elem"][0]["elem"]["expires"].as_u64().unwrap();
    assert!(
        (1..=LATELY.as_secs()).contains(&left_s),
        "it ends soon, however long the permit was for: {left_s} s"
    );
}

#[test]
fn an_open_connection_is_reset_when_the_gate_closes() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let _echo = Echo::start(DATABASE);
    open(&mut gate, Which::Both, LONG);
    for vip in [VIP, VIP6] {
        until("the client connects", || lab.reaches(vip, DATABASE));
    }
    let mut streams = [VIP, VIP6].map(|vip| lab.connect(vip, DATABASE).unwrap());
    for stream in &mut streams {
        echoes(stream).unwrap();
    }
    gate.void(Which::Vip).unwrap();
    for stream in &mut streams {
        assert!(is_reset(&echoes(stream)), "at its next packet");
    }
}

#[test]
fn announcements_of_a_closed_node_go_nowhere() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let ours = mac_of(&sh("ip -j link show v0"));
    let stale = "02:00:00:00:00:99";
    for vip in [VIP, VIP6] {
        lab.peer.sh(&format!("ip neigh replace {vip} lladdr {stale} nud reachable dev v1"));
    }
    let announce = || {
        lab.block_on(async {
            let network = Network::open().unwrap();
            // The kernel may say that it dropped them.
            let _ = network.announce_once(ip(VIP), "v0").await;
            let _ = network.announce_once(ip(VIP6), "v0").await;
        });
        // Frames arrive in order: when this one has, the announcements would have.
        sh("arping -c 1 -w 5 -I v0 10.99.0.2");
        (lab.neighbour(VIP).unwrap(), lab.neighbour(VIP6).unwrap())
    };
    assert_eq!(announce(), (stale.to_owned(), stale.to_owned()));
    open(&mut gate, Which::Vip, LONG);
    assert_eq!(announce(), (ours.clone(), ours));
}

#[test]
fn a_closed_node_hears_who_has_the_vip() {
    let lab = Lab::new();
    let _gate = lab.gated();
    for vip in [VIP, VIP6] {
        sh(&format!("ip addr del {vip} dev v0"));
    }
    let probe = |vip| {
        lab.block_on(async {
            let network = Network::open().unwrap();
            network.probe_address(ip(vip), "v0", 2, Duration::from_millis(150)).await.unwrap()
        })
    };
    assert_eq!((probe(VIP), probe(VIP6)), (Probe::Free, Probe::Free));
    lab.peer.sh(&format!("ip addr add {VIP}/24 dev v1"));
    lab.peer.sh(&format!("ip -6 addr add {VIP6}/64 dev v1 nodad"));
    let theirs = mac_of(&lab.peer.sh("ip -j link show v1"));
    for vip in [VIP, VIP6] {
        let Probe::TakenBy(macs) = probe(vip) else { panic!("{vip} is taken") };
        assert_eq!(macs.iter().map(Mac::to_string).collect::<Vec<_>>(), std::slice::from_ref(&theirs));
    }
}
