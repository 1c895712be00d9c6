//! The gate's rules: their text, restarts, and other programs that flush them.

use std::{fs, path::Path, time::Duration};

use baton_netops::{GateError, GateSpec, Installed, TableOutcome, VipSpec, Which, gate, preflight};

use crate::lab::{LONG, Lab, VIP, ip, json, sh, spec};

const KEPT: Installed = Installed { vip: TableOutcome::Kept, ports: TableOutcome::Kept };
const LOADED: Installed = Installed { vip: TableOutcome::Loaded, ports: TableOutcome::Loaded };

/// `REWRITE=1` rewrites the file; commit it only if you understand each changed line.
#[test]
fn the_ruleset_reads_as_written_down() {
    let example = GateSpec {
        vips: vec![
            VipSpec { ip: ip("10.77.0.100"), interface: "eth0".into() },
            VipSpec { ip: ip("fd77::100"), interface: "eth0".into() },
            VipSpec { ip: ip("192.168.5.100"), interface: "eth1".into() },
        ],
        ports: vec![6379, 3306, 3306],
        peers: vec![ip("10.77.0.12")],
        slots: 2,
    };
    let text = gate::ruleset_text(&example).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/gate.nft");
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(golden).unwrap());
}

#[test]
fn names_that_nft_would_misread_are_refused() {
    for name in ["", "eth0\" accept", "a b", "0123456789abcdef", "a/b"] {
        let mut bad = spec();
        bad.vips[0].interface = name.into();
        assert!(matches!(gate::ruleset_text(&bad), Err(GateError::Interface(_))), "{name:?}");
    }
    for slots in [0, gate::SLOTS_MAX + 1] {
        assert!(matches!(gate::ruleset_text(&GateSpec { slots, ..spec() }), Err(GateError::Slot { .. })));
    }
}

#[test]
fn a_restart_keeps_live_tickets_unless_the_rules_differ() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let install = |spec: &GateSpec| lab.block_on(gate::install_or_keep(spec)).unwrap();
    gate.ticket(Which::Both, 1, LONG).unwrap();
    gate.permit(Which::Both, 1, LONG).unwrap();
    assert!(lab.answers_arp(), "packets have been counted");
    let before = gate.alive(Which::Both).unwrap().len();
    assert_eq!(install(&spec()), KEPT);
    assert_eq!(gate.alive(Which::Both).unwrap().len(), before);
    assert!(lab.answers_arp());
    let other_peers = GateSpec { peers: vec![ip("10.99.0.9")], ..spec() };
    assert_eq!(install(&other_peers), Installed { vip: TableOutcome::Kept, ports: TableOutcome::Loaded });
    assert_eq!(gate.alive(Which::Vip).unwrap().len(), 1);
    assert_eq!(gate.alive(Which::Ports).unwrap(), [], "a loaded gate is closed");
    let more_slots = GateSpec { slots: 5, ..spec() };
    assert_eq!(install(&more_slots), LOADED);
    // Both know the ports: one guards them, the other tells their clients that the VIP has gone.
    assert_eq!(install(&GateSpec { ports: vec![3306], ..more_slots }), LOADED);
    assert!(!sh("nft list tables").contains("expected"));
}

#[test]
fn rules_that_were_tampered_with_are_loaded_anew() {
    let lab = Lab::new();
    let _gate = lab.gated();
    let install = || lab.block_on(gate::install_or_keep(&spec())).unwrap();
    sh("nft flush chain netdev baton_vip egress_0");
    assert_eq!(install(), Installed { vip: TableOutcome::Loaded, ports: TableOutcome::Kept });
    sh("nft add rule inet baton_ports gate accept");
    assert_eq!(install(), Installed { vip: TableOutcome::Kept, ports: TableOutcome::Loaded });
    sh("nft add element inet baton_ports peers4 { 10.99.0.9 }");
    assert_eq!(install(), Installed { vip: TableOutcome::Kept, ports: TableOutcome::Loaded });
    sh("nft add table inet baton_ports { flags dormant ; }");
    assert_eq!(install(), Installed { vip: TableOutcome::Kept, ports: TableOutcome::Loaded });
    assert_eq!(install(), KEPT);
}

#[test]
fn a_flushed_ruleset_is_gone_and_comes_back() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    sh("nft flush ruleset");
    for which in [Which::Vip, Which::Ports, Which::Both] {
        assert!(matches!(gate.ticket(which, 0, LONG), Err(GateError::Gone)));
        assert!(matches!(gate.permit(which, 0, LONG), Err(GateError::Gone)));
        assert!(matches!(gate.void(which), Err(GateError::Gone)));
        assert!(matches!(gate.alive(which), Err(GateError::Gone)));
    }
    assert_eq!(lab.block_on(gate::install_or_keep(&spec())).unwrap(), LOADED);
    assert!(!lab.answers_arp());
    gate.ticket(Which::Both, 0, LONG).unwrap();
    gate.permit(Which::Both, 0, LONG).unwrap();
    assert!(lab.answers_arp());
    // One table alone is gone: nothing of a transaction over both takes effect.
    sh("nft delete table inet baton_ports");
    assert!(matches!(gate.ticket(Which::Both, 0, LONG), Err(GateError::Gone)));
    assert!(gate.alive(Which::Vip).unwrap()[0].open_ms().is_some());
}

#[test]
fn timeouts_and_slots_are_checked_and_shown() {
    let lab = Lab::new();
    let mut gate = lab.gated();
    let too_short = Duration::from_micros(999);
    assert!(matches!(gate.ticket(Which::Vip, 0, too_short), Err(GateError::NoTimeout)));
    assert!(matches!(gate.permit(Which::Vip, 4, LONG), Err(GateError::Slot { slot: 4, slots: 4 })));
    // A pause is one long lease.
    let day = Duration::from_secs(86_400);
    gate.ticket(Which::Vip, 0, day).unwrap();
    gate.permit(Which::Vip, 0, LONG).unwrap();
    let slot = gate.alive(Which::Vip).unwrap()[0];
    assert!((86_000_000..=86_400_000).contains(&slot.ticket_ms.unwrap()), "{slot:?}");
    assert!((50_000..=60_000).contains(&slot.open_ms().unwrap()), "{slot:?}");
    let listed = json(&sh("nft -j list set netdev baton_vip ticket_0"));
    assert_eq!(listed["nftables"][1]["set"]["elem"][0]["elem"]["timeout"], 86_400);
    // Renewing shortens as well as it extends.
    gate.ticket(Which::Vip, 0, Duration::from_secs(5)).unwrap();
    assert!(gate.alive(Which::Vip).unwrap()[0].ticket_ms.unwrap() <= 5_000);
}

#[test]
fn remove_takes_our_tables_and_no_others() {
    let lab = Lab::new();
    let _gate = lab.gated();
    sh("nft add table inet theirs");
    lab.block_on(gate::remove()).unwrap();
    lab.block_on(gate::remove()).expect("removing nothing is no error");
    assert_eq!(sh("nft list tables").trim(), "table inet theirs");
    assert!(sh("ip -j addr show v0").contains(VIP));
}

#[test]
fn preflight_passes_here_and_leaves_nothing() {
    let _lab = Lab::new();
    let checks = preflight();
    assert!(checks.len() >= 8, "{checks:#?}");
    assert!(checks.iter().all(|check| check.passed), "{checks:#?}");
    assert_eq!(sh("nft list ruleset").trim(), "");
}
