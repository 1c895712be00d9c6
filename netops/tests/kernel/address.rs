//! Addresses lapse by themselves, and refreshing keeps them. Checked with `ip -j`.

use std::time::{Duration, Instant};

use baton_netops::{AddressError, LinkError, Network};
use serde_json::Value;

use crate::lab::{Lab, US, VIP, VIP6, ip, json, sh, until};

fn listed(address: &str) -> Option<Value> {
    let links = json(&sh("ip -j addr show dev v0"));
    links[0]["addr_info"].as_array().unwrap().iter().find(|entry| entry["local"] == address).cloned()
}

#[test]
fn an_address_lapses_and_never_early() {
    let lab = Lab::new();
    let ensure = |vip| {
        lab.block_on(async { Network::open().unwrap().ensure_address(ip(vip), "v0", 1).await.unwrap() });
    };
    let start = Instant::now();
    ensure(VIP);
    ensure(VIP6);
    let (v4, v6) = (listed(VIP).unwrap(), listed(VIP6).unwrap());
    assert_eq!((&v4["prefixlen"], &v4["noprefixroute"]), (&Value::from(32), &Value::from(true)));
    assert_eq!((&v6["prefixlen"], &v6["deprecated"]), (&Value::from(128), &Value::from(true)));
    assert!(v6.get("tentative").is_none());
    until("both addresses lapse", || listed(VIP).is_none() && listed(VIP6).is_none());
    let lived = start.elapsed();
    assert!(lived >= Duration::from_secs(1), "{lived:?}");
    assert!(lived < Duration::from_secs(4), "measured 1.0 to 1.3 s: {lived:?}");
    assert!(listed(US).is_some(), "other addresses stay");
}

#[test]
fn refreshing_extends_in_place() {
    let lab = Lab::new();
    let network = lab.block_on(async { Network::open().unwrap() });
    lab.block_on(network.ensure_address(ip(VIP), "v0", 2)).unwrap();
    let start = Instant::now();
    let mut refreshed = start;
    until("four seconds pass", || {
        if refreshed.elapsed() > Duration::from_millis(500) {
            refreshed = Instant::now();
            lab.block_on(network.ensure_address(ip(VIP), "v0", 2)).unwrap();
        }
        assert!(listed(VIP).is_some(), "gone after {:?}", start.elapsed());
        start.elapsed() > Duration::from_secs(4)
    });
    lab.block_on(network.ensure_address(ip(VIP), "v0", 3_600)).unwrap();
    assert!(listed(VIP).unwrap()["valid_life_time"].as_u64().unwrap() > 3_500);
    assert_eq!(sh("ip -j addr show dev v0").matches(&format!("\"{VIP}\"")).count(), 1);
}

#[test]
fn ours_are_known_by_tag_or_by_name_and_removed_alone() {
    let lab = Lab::new();
    sh("ip addr add 10.99.0.50/24 dev v0");
    lab.block_on(async {
        let network = Network::open().unwrap();
        for vip in [VIP, VIP6] {
            network.ensure_address(ip(vip), "v0", 60).await.unwrap();
        }
        let by_tag = network.our_addresses(&[]).await.unwrap();
        let ips: Vec<_> = by_tag.iter().map(|own| (own.ip, own.tagged)).collect();
        assert_eq!(ips, [(ip(VIP), true), (ip(VIP6), true)]);
        assert!(by_tag.iter().all(|own| own.valid_s.is_some_and(|left| (50..=60).contains(&left))));
        let by_name = network.our_addresses(&[ip("10.99.0.50")]).await.unwrap();
        assert_eq!(by_name.len(), 3);
        let foreign = by_name.iter().find(|own| !own.tagged).unwrap();
        assert_eq!((foreign.prefix, foreign.valid_s), (24, None));
        network.remove_own(foreign).await.unwrap();
        for _ in 0..2 {
            network.remove_address(ip(VIP), "v0").await.unwrap();
            network.remove_address(ip(VIP6), "v0").await.unwrap();
            network.remove_address(ip(VIP), "nosuch").await.unwrap();
        }
    });
    assert_eq!((listed(VIP), listed(VIP6), listed("10.99.0.50")), (None, None, None));
    assert!(listed(US).is_some());
}

#[test]
fn errors_name_what_failed() {
    let lab = Lab::new();
    lab.block_on(async {
        let network = Network::open().unwrap();
        let missing = network.ensure_address(ip(VIP), "nosuch", 1).await;
        assert!(missing.as_ref().is_err_and(AddressError::is_refusal), "it will not come by itself");
        assert!(matches!(
            missing,
            Err(AddressError::Interface { source: LinkError::NoSuchInterface(name), .. }) if name == "nosuch"
        ));
        for lifetime_s in [0, u32::MAX] {
            let refused = network.ensure_address(ip(VIP), "v0", lifetime_s).await;
            assert!(matches!(refused, Err(AddressError::Lifetime)));
        }
    });
}

#[test]
fn links_and_gateways_are_as_ip_shows_them() {
    let lab = Lab::new();
    let shown = json(&sh("ip -j link show v0"))[0].clone();
    let network = lab.block_on(async { Network::open().unwrap() });
    let link = lab.block_on(network.link("v0")).unwrap();
    assert_eq!(Some(u64::from(link.ifindex)), shown["ifindex"].as_u64());
    assert_eq!(link.mac.unwrap().to_string(), shown["address"].as_str().unwrap());
    assert!(link.is_up && link.has_carrier);
    assert_eq!(lab.block_on(network.gateway("v0")).unwrap(), None);
    sh("ip route add default via 10.99.0.2");
    assert_eq!(lab.block_on(network.gateway("v0")).unwrap(), Some(ip("10.99.0.2")));
    assert_eq!(lab.block_on(network.gateway("lo")).unwrap(), None);
    lab.peer.sh("ip link set v1 down");
    until("the carrier is lost", || !lab.block_on(network.link("v0")).unwrap().has_carrier);
}
