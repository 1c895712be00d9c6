//! The text of the two gate tables, as `nft` reads it. Pure: same specification, same text.
//!
//! ```text
//! netdev baton_vip     one chain pair per interface; only what is for or from a VIP enters the gate
//!   ingress  IP to the VIP · who-has the VIP · neighbour solicitation for the VIP      -> gate_in
//!   egress   IP from the VIP · ARP sent as the VIP · neighbour advertisement of it     -> gate_out
//! inet baton_ports     in front of DNAT (-100), behind connection tracking (-200)
//!   prerouting   requests to a guarded port of an address of ours                      -> gate, reset
//!   output       requests of local clients, answers of local servers                   -> gate, reset
//!   input        answers of a container to a local client, after un-DNAT (100)         -> gate, reset
//!   postrouting  answers of a container to others, after un-DNAT (100)                 -> gate, dropped
//! ```
//!
//! What stays open on purpose:
//! - ARP and neighbour messages in which *others* claim the VIP reach us, so that probing works while closed.
//! - Resets pass: they carry no answer, and the gates' own resets leave through the same hooks.
//! - The peer data node passes by its own addresses (replication), but not by way of the VIP: a client that
//!   runs on the peer is a client.
//! - A connection that this host or its containers open to a guarded port elsewhere is not ours to guard.
//!
//! A VIP gate that was open *lately*, within the last [`LATELY`](super::LATELY), resets what comes for a guarded port instead of
//! dropping it. For some milliseconds of each move a client's host still sends here; refused, the client tries again at once,
//! and does not wait for its kernel to send a second SYN (1 s). Bounded in time, since a host that never held the VIP, or not for
//! long, has no business to speak for it; and only what is addressed to this host's own hardware address is answered: a frame
//! that a switch floods is for somebody else. A kernel without `reject` in netdev drops as ever.
//!
//! A port gate that is *parting* refuses new connections, and lets those that stand be reset before it closes: one that came between
//! the two would not be greeted, and nobody could tell its client.
//!
//! The sets are keyed by a constant of the packet (ARPHRD_ETHER, TCP): one element opens the set for all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use super::GateSpec;

/// The netdev table's text. `dormant`: loaded for comparison only, no hook is registered. `resets`: the kernel can.
pub(super) fn vip_table(spec: &GateSpec, table: &str, dormant: bool, resets: bool) -> String {
    let mut text = String::new();
    opening(&mut text, "netdev", table, dormant);
    rings(&mut text, "iface_type", spec.slots);
    text.push_str("\tset lately { type iface_type; flags timeout; }\n");
    let ports: BTreeSet<u16> = spec.ports.iter().copied().collect();
    members(&mut text, "ports", "inet_service", ports.iter());
    text.push_str("\tchain gate_in {\n");
    passes(&mut text, "iiftype", spec.slots);
    if resets {
        text.push_str(
            "\t\tmeta iiftype @lately meta pkttype host tcp dport @ports counter reject with tcp reset\n",
        );
    }
    text.push_str("\t\tcounter drop\n\t}\n");
    text.push_str("\tchain gate_out {\n\t\ttcp flags & rst == rst accept\n");
    passes(&mut text, "oiftype", spec.slots);
    text.push_str("\t\tcounter drop\n\t}\n");
    let mut interfaces: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
    for vip in &spec.vips {
        interfaces.entry(&vip.interface).or_default().insert(vip.ip);
    }
    for (number, (interface, ips)) in interfaces.iter().enumerate() {
        for (hook, priority, rules) in
            [("ingress", -300, to_vip as fn(&mut String, &IpAddr)), ("egress", 300, from_vip)]
        {
            let _ = writeln!(text, "\tchain {hook}_{number} {{");
            let _ = writeln!(
                text,
                "\t\ttype filter hook {hook} device \"{interface}\" priority {priority}; policy accept;"
            );
            ips.iter().for_each(|ip| rules(&mut text, ip));
            text.push_str("\t}\n");
        }
    }
    text.push_str("}\n");
    text
}

/// The inet table's text.
pub(super) fn ports_table(spec: &GateSpec, table: &str, dormant: bool) -> String {
    let mut text = String::new();
    opening(&mut text, "inet", table, dormant);
    let ports: BTreeSet<u16> = spec.ports.iter().copied().collect();
    members(&mut text, "ports", "inet_service", ports.iter());
    let vips = || spec.vips.iter().map(|vip| vip.ip);
    let peers = || spec.peers.iter().copied();
    members(&mut text, "vips4", "ipv4_addr", only(vips(), IpAddr::is_ipv4).iter());
    members(&mut text, "vips6", "ipv6_addr", only(vips(), IpAddr::is_ipv6).iter());
    members(&mut text, "peers4", "ipv4_addr", only(peers(), IpAddr::is_ipv4).iter());
    members(&mut text, "peers6", "ipv6_addr", only(peers(), IpAddr::is_ipv6).iter());
    rings(&mut text, "inet_proto", spec.slots);
    text.push_str("\tset parting { type inet_proto; flags timeout; }\n");
    for (chain, verdict) in [("gate", "reject with tcp reset"), ("gate_silent", "drop")] {
        let _ = writeln!(text, "\tchain {chain} {{");
        text.push_str("\t\ttcp flags & rst == rst accept\n");
        passes(&mut text, "l4proto", spec.slots);
        let _ = writeln!(text, "\t\tmeta l4proto tcp counter {verdict}\n\t}}");
    }
    text.push_str(PORT_CHAINS);
    text.push_str("}\n");
    text
}

/// The part of the inet table that is the same for every specification: it speaks of the sets only.
const PORT_CHAINS: &str = "\
\tchain requests {
\t\tip saddr @peers4 ip daddr != @vips4 accept
\t\tip6 saddr @peers6 ip6 daddr != @vips6 accept
\t\ttcp flags & (fin | syn | rst | ack) == syn meta l4proto @parting counter reject with tcp reset
\t\tip daddr @vips4 goto gate
\t\tip6 daddr @vips6 goto gate
\t\tfib daddr type local goto gate
\t}
\tchain answers {
\t\tip daddr @peers4 ip saddr != @vips4 accept
\t\tip6 daddr @peers6 ip6 saddr != @vips6 accept
\t\tgoto gate
\t}
\tchain forwarded_answers {
\t\tip daddr @peers4 ip saddr != @vips4 accept
\t\tip6 daddr @peers6 ip6 saddr != @vips6 accept
\t\tgoto gate_silent
\t}
\tchain prerouting {
\t\ttype filter hook prerouting priority -190; policy accept;
\t\ttcp dport @ports jump requests
\t}
\tchain output {
\t\ttype filter hook output priority -190; policy accept;
\t\ttcp dport @ports fib daddr type local jump gate
\t\ttcp sport @ports jump answers
\t}
\tchain input {
\t\ttype filter hook input priority 190; policy accept;
\t\ttcp sport @ports fib saddr type local jump gate
\t}
\tchain postrouting {
\t\ttype filter hook postrouting priority 190; policy accept;
\t\ttcp sport @ports fib saddr type local jump forwarded_answers
\t}
";

/// One transaction: whatever stood under this name is replaced.
fn opening(text: &mut String, family: &str, table: &str, dormant: bool) {
    let _ = writeln!(text, "add table {family} {table}");
    let _ = writeln!(text, "delete table {family} {table}");
    let _ = writeln!(text, "table {family} {table} {{");
    if dormant {
        text.push_str("\tflags dormant;\n");
    }
}

fn rings(text: &mut String, key_type: &str, slots: u8) {
    for ring in ["ticket", "permit"] {
        for slot in 0..slots {
            let _ = writeln!(text, "\tset {ring}_{slot} {{ type {key_type}; flags timeout; }}");
        }
    }
}

fn passes(text: &mut String, key: &str, slots: u8) {
    for slot in 0..slots {
        let _ = writeln!(text, "\t\tmeta {key} @ticket_{slot} meta {key} @permit_{slot} accept");
    }
}

fn members<T: ToString>(text: &mut String, set: &str, key_type: &str, items: impl Iterator<Item = T>) {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.is_empty() {
        let _ = writeln!(text, "\tset {set} {{ type {key_type}; }}");
    } else {
        let _ = writeln!(text, "\tset {set} {{ type {key_type}; elements = {{ {} }}; }}", items.join(", "));
    }
}

fn only(ips: impl Iterator<Item = IpAddr>, family: fn(&IpAddr) -> bool) -> BTreeSet<IpAddr> {
    ips.filter(family).collect()
}

fn to_vip(text: &mut String, ip: &IpAddr) {
    let _ = match ip {
        IpAddr::V4(ip) => writeln!(
            text,
            "\t\tip daddr {ip} jump gate_in\n\
             \t\tarp operation request arp saddr ip != {ip} arp daddr ip {ip} jump gate_in"
        ),
        IpAddr::V6(ip) => writeln!(
            text,
            "\t\tip6 daddr {ip} jump gate_in\n\
             \t\ticmpv6 type nd-neighbor-solicit {} jump gate_in",
            target(ip)
        ),
    };
}

fn from_vip(text: &mut String, ip: &IpAddr) {
    let _ = match ip {
        IpAddr::V4(ip) => writeln!(
            text,
            "\t\tip saddr {ip} jump gate_out\n\
             \t\tarp saddr ip {ip} jump gate_out"
        ),
        IpAddr::V6(ip) => writeln!(
            text,
            "\t\tip6 saddr {ip} jump gate_out\n\
             \t\ticmpv6 type nd-neighbor-advert {} jump gate_out",
            target(ip)
        ),
    };
}

/// The target address of a neighbour message lies 8 bytes into it; nft before 1.0.8 has no name for it.
fn target(ip: &Ipv6Addr) -> String {
    format!("@th,64,128 0x{:032x}", u128::from(*ip))
}
