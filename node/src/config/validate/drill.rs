//! `[drill]`: what this node lets drills do to it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::super::raw::RawConfig;
use super::super::{Drill, DrillLevel, Ms, NodeId};
use super::{Problems, command, resolve};

/// No fault of a drill stands longer; the kernel's half has the same bound.
const DRILL_MAX: std::time::Duration = baton_netops::sever::SEVER_MAX;

/// The last of the addresses from which a drill asks, counted from the first. The watch takes 32 in turn.
const SENDERS_LAST: u32 = 31;

pub(super) fn drill(config: &RawConfig, node: &NodeId, problems: &mut Problems) -> Drill {
    let raw = &config.drill;
    let window = raw.window.as_deref().map(str::parse).transpose();
    if let Err(wrong) = &window {
        let value = raw.window.as_deref().unwrap_or_default();
        problems.add("drill.window", value, wrong, "write days and times, or remove the key: always");
    }
    let duration_max = raw.duration_max.unwrap_or(Ms(120_000));
    if duration_max.duration().is_zero() || duration_max.duration() > DRILL_MAX {
        problems.add("drill.duration_max", duration_max, "is not 1 ms to 600 s", "take a span in between");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some(schema) = raw.schema.as_ref().filter(|name| name.is_empty() || !name.chars().all(plain)) {
        problems.add("drill.schema", schema, "is not a plain schema name", "use letters, digits and '_'");
    }
    if let Some(first) = raw.arp_senders {
        check_senders(first, config, problems);
    }
    let allow = raw.allow.unwrap_or(DrillLevel::L2);
    let power_off = command("drill.power_off", raw.power_off.as_deref(), node, problems);
    if power_off.is_some() && allow < DrillLevel::L5 {
        problems.add(
            "drill.power_off",
            "a command",
            format!("is for drills of level L5, and drill.allow is {allow}"),
            "write allow = \"L5\", or remove the key",
        );
    }
    Drill {
        allow,
        power_off,
        window: window.ok().flatten(),
        cooldown: raw.cooldown.unwrap_or(Ms(60_000)),
        duration_max,
        evidence: resolve(raw.evidence.as_deref(), "/var/lib/baton/drills", node),
        user: raw.user.clone(),
        password_file: raw.password_file.as_deref().map(|path| resolve(Some(path), "", node)),
        schema: raw.schema.clone(),
        arp_senders: raw.arp_senders,
    }
}

/// The requests of a drill come from these addresses: one that belongs to somebody would be taken away from him in the
/// neighbour tables of the whole segment, several times a second.
fn check_senders(first: Ipv4Addr, config: &RawConfig, problems: &mut Problems) {
    let mut refuse = |wrong: String| {
        problems.add(
            "drill.arp_senders",
            first,
            wrong,
            "name the first of 32 addresses in a row that nobody has in the virtual IP's network, or remove the key",
        );
    };
    // The first IPv4 address is the one that is asked for.
    let mut nets = config.vips.iter().filter_map(|vip| match vip.address {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    });
    let Some(net) = nets.next() else {
        return refuse("is of no use: there is no IPv4 virtual IP".to_owned());
    };
    let last = first.to_bits().checked_add(SENDERS_LAST).map(Ipv4Addr::from_bits);
    let Some(last) = last.filter(|last| net.contains(&first) && net.contains(last)) else {
        return refuse(format!("does not begin 32 addresses inside {}", net.trunc()));
    };
    let mut taken = vec![
        ("the network's own address", IpAddr::V4(net.network())),
        ("the broadcast address", net.broadcast().into()),
    ];
    taken.extend(config.vips.iter().map(|vip| ("a vip.address", vip.address.addr())));
    taken.extend(config.vips.iter().filter_map(|vip| Some(("a vip.gateway", vip.gateway?))));
    taken.extend(config.nodes.iter().map(|node| ("a node.address", node.address)));
    let range = IpAddr::V4(first)..=IpAddr::V4(last);
    if let Some((whose, address)) = taken.into_iter().find(|(_, address)| range.contains(address)) {
        refuse(format!("begins 32 addresses, up to {last}, among which is {address}, {whose}"));
    }
}
