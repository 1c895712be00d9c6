//! Reset of client connections; replication stays.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener},
};

use baton_netops::{ResetSpec, Which, reset_clients};
use socket2::{Domain, Socket, Type};

use crate::lab::{
    DATABASE, Echo, LONG, Lab, OTHER, PATIENCE, PEER, SILENCE, US, US6, VIP, VIP6, echoes, ip, is_reset, sh,
    until,
};

#[test]
fn clients_are_reset_and_replication_stays() {
    let lab = Lab::new();
    sh(&format!("ip addr add {VIP}/32 dev v0"));
    sh(&format!("ip -6 addr add {VIP6}/128 dev v0 nodad"));
    let (_database, _other) = (Echo::start(DATABASE), Echo::start(OTHER));
    let connected = |from, to, port| {
        let mut stream = lab.connect_from(from, to, port).unwrap();
        echoes(&mut stream).unwrap();
        stream
    };
    // The server listens on the IPv6 wildcard, so its IPv4 connections are v4-mapped.
    let mut clients = [
        connected("10.99.0.3", VIP, DATABASE),
        connected("10.99.0.3", US, DATABASE),
        connected("fd99::3", VIP6, DATABASE),
        connected(PEER, VIP, DATABASE),
    ];
    let mut others = [
        connected(PEER, US, DATABASE),
        connected("fd99::2", US6, DATABASE),
        connected("10.99.0.3", VIP, OTHER),
    ];
    let mut spec = ResetSpec {
        ports: vec![DATABASE],
        local_ip: Some(ip(VIP6)),
        except_peers: vec![ip(PEER), ip("fd99::2")],
        vips: vec![ip(VIP), ip(VIP6)],
    };
    assert_eq!(reset_clients(&spec).unwrap(), 1);
    spec.local_ip = None;
    assert_eq!(reset_clients(&spec).unwrap(), 3);
    assert_eq!(reset_clients(&spec).unwrap(), 0);
    for client in &mut clients {
        assert!(is_reset(&client.read_exact(&mut [0])), "reset without having sent anything");
    }
    for other in &mut others {
        echoes(other).unwrap();
    }
    echoes(&mut connected("10.99.0.3", VIP, DATABASE)).expect("the listener stays");
}

/// Listens at a wildcard address; at that of IPv6 for IPv6 alone or for both.
fn listen(at: &str, port: u16, only_v6: bool) -> TcpListener {
    let at = SocketAddr::new(ip(at), port);
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    if at.is_ipv6() {
        socket.set_only_v6(only_v6).unwrap();
    }
    socket.bind(&at.into()).unwrap();
    socket.listen(2).unwrap();
    socket.into()
}

/// However the server listens: for IPv4 alone, for IPv6 alone, or for both.
#[test]
fn clients_of_every_kind_of_listener_are_reset_at_once() {
    let lab = Lab::new();
    let v4 = listen("0.0.0.0", DATABASE, false);
    let v6 = listen("::", DATABASE, true);
    let both = listen("::", OTHER, false);
    let mut connections =
        [(&v4, US, DATABASE), (&v6, US6, DATABASE), (&both, US, OTHER), (&both, US6, OTHER)].map(
            |(listener, to, port)| {
                let client = lab.connect(to, port).unwrap();
                (client, listener.accept().unwrap())
            },
        );
    let spec = ResetSpec { ports: vec![DATABASE, OTHER], ..ResetSpec::default() };
    assert_eq!(reset_clients(&spec).unwrap(), connections.len());
    for (client, _server) in &mut connections {
        assert!(is_reset(&client.read_exact(&mut [0])));
    }
    assert_eq!(reset_clients(&spec).unwrap(), 0);
}

/// The kernel lists it among the connections for a minute, and not every kernel can reset it.
#[test]
fn a_connection_that_the_server_has_ended_is_left_alone() {
    let lab = Lab::new();
    let listener = TcpListener::bind(("0.0.0.0", DATABASE)).unwrap();
    let mut told = lab.connect(US, DATABASE).unwrap();
    drop(listener.accept().unwrap());
    assert_eq!(told.read(&mut [0]).unwrap(), 0, "its client is told");
    until("the kernel alone knows of it", || !sh("ss -Htn state fin-wait-2").is_empty());
    let mut other = lab.connect(US, DATABASE).unwrap();
    let _server = listener.accept().unwrap();
    let spec = ResetSpec { ports: vec![DATABASE], ..ResetSpec::default() };
    assert_eq!(reset_clients(&spec).unwrap(), 1, "only the other one");
    assert!(is_reset(&other.read_exact(&mut [0])));
}

/// Why clients are reset before the gate closes, and not only after it: who waits for an answer sends nothing by itself.
#[test]
fn a_client_who_waits_for_an_answer_is_told_before_the_gate_closes() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    gate.ticket(Which::Both, 0, LONG).unwrap();
    gate.permit(Which::Both, 0, LONG).unwrap();
    let listener = TcpListener::bind(("0.0.0.0", DATABASE)).unwrap();
    let asked = || {
        let mut client = lab.connect(VIP, DATABASE).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"commit").unwrap();
        server.read_exact(&mut [0; 6]).unwrap();
        (client, server)
    };
    let spec = ResetSpec { ports: vec![DATABASE], vips: vec![ip(VIP)], ..ResetSpec::default() };

    let (mut told, _server) = asked();
    assert_eq!(reset_clients(&spec).unwrap(), 1);
    assert!(is_reset(&told.read_exact(&mut [0])));

    let (mut left, mut server) = asked();
    gate.void(Which::Ports).unwrap();
    server.write_all(b"ok").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_reset(&server.read(&mut [0]).map(drop)), "the gate resets the server's own end");
    assert_eq!(reset_clients(&spec).unwrap(), 0, "nothing is left to reset");
    left.set_read_timeout(Some(SILENCE)).unwrap();
    let waits = left.read(&mut [0]).unwrap_err();
    assert_eq!(waits.kind(), ErrorKind::WouldBlock, "nobody tells the client");
}
