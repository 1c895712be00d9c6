//! Severing for a drill: one way or both, the port of orders spared, ended by the kernel or by hand.

use std::time::{Duration, Instant};

use baton_netops::sever::{self, Way};

use crate::lab::{DATABASE, Echo, Lab, OTHER, PEER, SILENCE, US, connect, connect_within, echoes, ip, sh};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_is_severed_carries_nothing_but_orders_and_is_mended_by_hand() {
    let lab = Lab::new();
    let _peers = lab.peer.within(|| (Echo::start(DATABASE), Echo::start(OTHER)));
    assert_eq!(sever::severed_for().unwrap(), None, "no table yet");
    lab.block_on(sever::mend()).expect("nothing to mend");
    for ways in [vec![Way::From], vec![Way::To], vec![Way::From, Way::To]] {
        lab.block_on(sever::prepare(OTHER, 1)).unwrap();
        echoes(&mut connect(US, PEER, DATABASE).unwrap()).unwrap();
        let peers: Vec<_> = ways.iter().map(|way| (ip(PEER), *way)).collect();
        sever::sever(&peers, LONG).unwrap();
        assert!(connect_within(SILENCE, US, PEER, DATABASE).is_err(), "{ways:?}");
        assert!(lab.block_on(sever::dropped()).unwrap() > 0, "{ways:?}");
        echoes(&mut connect(US, PEER, OTHER).unwrap()).unwrap();
        let left = sever::severed_for().unwrap().unwrap();
        assert!(left <= LONG && left > LONG / 2, "{left:?}");
        lab.block_on(sever::mend()).unwrap();
        assert_eq!(sever::severed_for().unwrap(), None);
    }
    assert_eq!(sh("nft list ruleset").trim(), "");
}

#[test]
fn the_kernel_ends_a_severing_by_itself() {
    let lab = Lab::new();
    let _peer = lab.peer.within(|| Echo::start(DATABASE));
    lab.block_on(sever::prepare(OTHER, 1)).unwrap();
    sever::sever(&[(ip(PEER), Way::From)], Duration::from_millis(500)).unwrap();
    assert!(sever::severed_for().unwrap().is_some());
    let deadline = Instant::now() + Duration::from_secs(30);
    while sever::severed_for().unwrap().is_some() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::yield_now();
    }
    echoes(&mut connect(US, PEER, DATABASE).unwrap()).unwrap();
}

#[test]
fn nothing_is_severed_where_the_table_is_missing() {
    let _lab = Lab::new();
    assert!(sever::sever(&[(ip(PEER), Way::From)], LONG).is_err());
}

#[test]
fn a_trickle_lets_little_through() {
    let lab = Lab::new();
    let _peer = lab.peer.within(|| Echo::start(DATABASE));
    lab.block_on(sever::prepare(OTHER, 1)).unwrap();
    sever::sever(&[(ip(PEER), Way::Trickle(DATABASE))], LONG).unwrap();
    // Some 5 KiB in packets of their own at 1 KiB per second: what is dropped comes again, later.
    let mut stream = connect(US, PEER, DATABASE).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    for _ in 0..100 {
        echoes(&mut stream).unwrap();
    }
    assert!(lab.block_on(sever::dropped()).unwrap() > 0);
}
