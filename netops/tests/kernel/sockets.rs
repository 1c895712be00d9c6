//! Reset of client connections; replication stays.

use std::io::Read;

use baton_netops::{ResetSpec, reset_clients};

use crate::lab::{DATABASE, Echo, Lab, OTHER, PEER, US, US6, VIP, VIP6, echoes, ip, is_reset, sh};

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
