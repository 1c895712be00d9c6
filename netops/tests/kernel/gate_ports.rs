//! The port gate: clients from outside and inside, replication, open connections, and DNAT to a container.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

use baton_netops::{Gate, Which};

use crate::lab::{
    CLIENT, DATABASE, Echo, LONG, Lab, Netns, OTHER, PATIENCE, PEER, SILENCE, US, US6, VIP, VIP6, connect,
    echoes, is_refused, is_reset, nft, sh, until,
};

fn open(gate: &mut Gate, which: Which, timeout: Duration) {
    gate.ticket(which, 3, timeout).unwrap();
    gate.permit(which, 3, timeout).unwrap();
}

#[test]
fn clients_are_refused_while_closed_and_served_while_open() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let (_database, _other) = (Echo::start(DATABASE), Echo::start(OTHER));
    open(&mut gate, Which::Vip, LONG);
    let ways = [(US, CLIENT), (VIP, CLIENT), (US6, "fd99::3"), (VIP6, "fd99::3")];
    for (to, from) in ways {
        assert!(is_refused(&lab.connect_from(from, to, DATABASE)), "closed: {to}");
        assert!(lab.connect(to, OTHER).is_ok(), "an unguarded port: {to}");
    }
    for to in ["127.0.0.1", "::1", VIP, VIP6] {
        let from = if to.contains(':') { "::1" } else { "127.0.0.1" };
        assert!(is_refused(&connect(from, to, DATABASE)), "closed to local clients: {to}");
    }
    gate.ticket(Which::Ports, 3, LONG).unwrap();
    assert!(is_refused(&lab.connect(VIP, DATABASE)), "a ticket alone opens nothing");
    gate.permit(Which::Ports, 3, LONG).unwrap();
    for (to, from) in ways {
        echoes(&mut lab.connect_from(from, to, DATABASE).unwrap()).unwrap();
    }
    for to in ["127.0.0.1", "::1", VIP] {
        let from = if to.contains(':') { "::1" } else { "127.0.0.1" };
        echoes(&mut connect(from, to, DATABASE).unwrap()).unwrap();
    }
}

#[test]
fn a_parting_gate_refuses_new_connections_and_lets_the_others_go_on() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let _database = Echo::start(DATABASE);
    open(&mut gate, Which::Both, LONG);
    let mut old = lab.connect(VIP, DATABASE).unwrap();
    echoes(&mut old).unwrap();
    gate.part(LONG).unwrap();
    for to in [VIP, VIP6, US, US6] {
        assert!(is_refused(&lab.connect(to, DATABASE)), "{to}");
    }
    echoes(&mut old).expect("it was there before");
    echoes(&mut lab.connect_from(PEER, US, DATABASE).unwrap()).expect("replication comes and goes");
    gate.permit(Which::Both, 3, LONG).unwrap();
    echoes(&mut lab.connect(VIP, DATABASE).unwrap()).expect("the next permit ends it");
    gate.part(Duration::from_millis(1)).unwrap();
    until("it ends by itself", || lab.connect(VIP, DATABASE).is_ok());
}

#[test]
fn one_slot_is_voided_and_the_others_go_on() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let _database = Echo::start(DATABASE);
    open(&mut gate, Which::Both, LONG);
    gate.ticket(Which::Both, 2, LONG).unwrap();
    gate.permit(Which::Both, 2, LONG).unwrap();
    gate.void_slot(Which::Both, 3).unwrap();
    assert!(gate.alive(Which::Both).unwrap().iter().all(|state| state.slot == 2));
    let mut connection = lab.connect(VIP, DATABASE).unwrap();
    echoes(&mut connection).unwrap();
    gate.void_slot(Which::Both, 2).unwrap();
    assert_eq!(gate.alive(Which::Both).unwrap(), []);
    // A permit that was on its way finds its ticket gone.
    gate.permit(Which::Both, 2, LONG).unwrap();
    assert!(is_refused(&connect("127.0.0.1", "127.0.0.1", DATABASE)));
}

#[test]
fn replication_runs_while_closed_but_not_by_way_of_the_vip() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    open(&mut gate, Which::Vip, LONG);
    let _database = Echo::start(DATABASE);
    let _peers_database = lab.peer.within(|| Echo::start(DATABASE));
    echoes(&mut lab.connect_from(PEER, US, DATABASE).unwrap()).unwrap();
    echoes(&mut lab.connect_from("fd99::2", US6, DATABASE).unwrap()).unwrap();
    echoes(&mut connect(US, PEER, DATABASE).unwrap()).unwrap();
    echoes(&mut connect(US, CLIENT, DATABASE).unwrap()).expect("a database elsewhere is not ours to guard");
    assert!(is_refused(&lab.connect_from(PEER, VIP, DATABASE)), "a client that runs on the peer");
    assert!(is_refused(&lab.connect_from("fd99::2", VIP6, DATABASE)));
}

#[test]
fn an_open_connection_is_reset_at_its_next_packet_after_the_end() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    open(&mut gate, Which::Vip, LONG);
    let _database = Echo::start(DATABASE);
    open(&mut gate, Which::Ports, Duration::from_millis(1_500));
    let mut from_outside = lab.connect(VIP, DATABASE).unwrap();
    let mut from_inside = connect("127.0.0.1", "127.0.0.1", DATABASE).unwrap();
    let mut replication = lab.connect_from(PEER, US, DATABASE).unwrap();
    for stream in [&mut from_outside, &mut from_inside, &mut replication] {
        echoes(stream).unwrap();
    }
    until("the lease ends", || gate.alive(Which::Ports).unwrap().is_empty());
    assert!(is_reset(&echoes(&mut from_outside)));
    assert!(is_reset(&echoes(&mut from_inside)));
    echoes(&mut replication).unwrap();
}

#[test]
fn an_answer_after_the_end_is_not_delivered() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    open(&mut gate, Which::Both, LONG);
    let listener = TcpListener::bind(("0.0.0.0", DATABASE)).unwrap();
    let mut client = lab.connect(VIP, DATABASE).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"commit").unwrap();
    server.read_exact(&mut [0; 6]).unwrap();
    gate.void(Which::Ports).unwrap();
    server.write_all(b"ok").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_reset(&server.read(&mut [0]).map(drop)), "the server's own end is reset");
    client.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(client.read(&mut [0; 2]).is_err(), "the client must not see the acknowledgement");
}

/// A service in a container, reached through a published port that is not the container's.
#[test]
fn the_gate_stands_in_front_of_dnat() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    open(&mut gate, Which::Vip, LONG);
    let container = Netns::new();
    sh("ip link add c0 type veth peer name c1");
    sh(&format!("ip link set c1 netns {}", container.path()));
    sh("ip link set c0 up");
    sh("ip addr add 172.20.0.1/24 dev c0");
    container.sh("ip link set c1 up");
    container.sh("ip addr add 172.20.0.2/24 dev c1");
    container.sh("ip route add default via 172.20.0.1");
    // The file is that of the writing thread's namespace.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    nft("table ip nat {\n\
         chain prerouting { type nat hook prerouting priority -100;\n tcp dport 80 dnat to 172.20.0.2:8080\n}\n\
         chain output { type nat hook output priority -100;\n ip daddr 10.99.0.100 tcp dport 80 dnat to 172.20.0.2:8080\n}\n\
         }\n");
    let listener = container.within(|| TcpListener::bind(("0.0.0.0", 8080)).unwrap());
    assert!(is_refused(&lab.connect(VIP, 80)));
    assert!(is_refused(&connect(US, VIP, 80)), "a local client");
    open(&mut gate, Which::Ports, LONG);
    let mut client = lab.connect(VIP, 80).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let local = connect(US, VIP, 80).unwrap();
    let _local_server = listener.accept().unwrap();
    client.write_all(b"order").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    server.write_all(b"taken").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    gate.void(Which::Ports).unwrap();
    server.write_all(b"late").unwrap();
    client.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(client.read(&mut [0; 4]).is_err(), "an answer after the end");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_reset(&echoes(&mut client)));
    local.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_reset(&echoes(&mut { local })));
}
