//! The cut of a stream: both directions, read back, repaired, lifted.

use std::{io::Read, time::Duration};

use baton_netops::Cut;

use crate::lab::{
    DATABASE, Echo, Lab, OTHER, PEER, SILENCE, US, US6, connect, connect_within, echoes, ip, sh,
};

#[test]
fn a_cut_stream_carries_nothing_and_others_go_on() {
    let lab = Lab::new();
    let _peers = lab.peer.within(|| (Echo::start(DATABASE), Echo::start(OTHER)));
    let mut cut = Cut::open().unwrap();
    assert!(!cut.is_cut(ip(PEER), DATABASE).unwrap(), "no table yet");
    cut.lift(ip(PEER), DATABASE).expect("nothing to lift");
    let mut stream = connect(US, PEER, DATABASE).unwrap();
    echoes(&mut stream).unwrap();
    for _ in 0..2 {
        lab.block_on(cut.cut(ip(PEER), DATABASE)).unwrap();
    }
    assert!(cut.is_cut(ip(PEER), DATABASE).unwrap());
    assert!(!cut.is_cut(ip(PEER), OTHER).unwrap());
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(echoes(&mut stream).is_err());
    assert!(connect_within(SILENCE, US, PEER, DATABASE).is_err());
    echoes(&mut connect(US, PEER, OTHER).unwrap()).unwrap();
    echoes(&mut connect(US6, "fd99::2", DATABASE).unwrap()).unwrap();
    lab.block_on(cut.cut(ip("fd99::2"), DATABASE)).unwrap();
    assert!(connect_within(SILENCE, US6, "fd99::2", DATABASE).is_err());
    cut.lift(ip(PEER), DATABASE).unwrap();
    assert!(!cut.is_cut(ip(PEER), DATABASE).unwrap());
    // What was sent while cut arrives by retransmission: the stream was dropped, not reset.
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    lab.block_on(cut.lift_all()).unwrap();
    assert_eq!(sh("nft list ruleset").trim(), "");
}

#[test]
fn a_cut_that_was_tampered_with_is_no_cut_and_is_repaired() {
    let lab = Lab::new();
    let _peers = lab.peer.within(|| Echo::start(DATABASE));
    let mut cut = Cut::open().unwrap();
    lab.block_on(cut.install()).unwrap();
    for damage in ["nft flush ruleset", "nft flush chain inet baton_cut inbound"] {
        lab.block_on(cut.cut(ip(PEER), DATABASE)).unwrap();
        sh(damage);
        assert!(!cut.is_cut(ip(PEER), DATABASE).unwrap(), "{damage}");
        lab.block_on(cut.cut(ip(PEER), DATABASE)).unwrap();
        assert!(connect_within(SILENCE, US, PEER, DATABASE).is_err(), "{damage}");
    }
}
