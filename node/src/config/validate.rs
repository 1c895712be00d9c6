//! From what was typed to what is meant: defaults, `{node}`, and every rule that spans keys.
//!
//! All problems are collected, so that one look mends the file.

mod drill;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::error::{ConfigError, Problem};
use super::raw::{RawConfig, RawMysql, RawVip};
use super::timing::{Profile, Timing};
use super::{Config, Docker, Hook, Mysql, Node, NodeId, NodeKind, Pki, Redis, ResyncPolicy, Vip};

pub(super) const DEFAULT_RUN: &str = "/run/baton";
const DEFAULT_STATE: &str = "/var/lib/baton";
const DEFAULT_CA: &str = "/etc/baton/pki/ca.pem";
const DEFAULT_CERT: &str = "/etc/baton/pki/{node}.pem";
const DEFAULT_KEY: &str = "/etc/baton/pki/{node}.key";
const DEFAULT_DOCKER: &str = "/var/run/docker.sock";

/// Replaces `{node}` in `path`, or in `default` when `path` is absent.
pub(super) fn resolve(path: Option<&Path>, default: &str, node: &NodeId) -> PathBuf {
    let text = path.map_or(default.into(), Path::to_string_lossy);
    PathBuf::from(text.replace("{node}", node.as_str()))
}

/// Collects what is wrong.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: impl Into<String>, value: impl fmt::Display, wrong: impl Into<String>, out: &str) {
        self.0.push(Problem::new(key, value, wrong, out));
    }
}

pub(super) fn validate(
    raw: &RawConfig,
    name: &str,
    node: &NodeId,
    hash: String,
) -> Result<Config, ConfigError> {
    let mut problems = Problems::default();
    check_cluster(raw, &mut problems);
    check_nodes(raw, &mut problems);
    check_vips(raw, &mut problems);
    check_ports(raw, &mut problems);
    let services = services::services(raw, &mut problems);
    let config = Config {
        cluster: raw.cluster.clone(),
        node: node.clone(),
        initial_holder: NodeId::new(raw.initial_holder.as_str()),
        profile: raw.profile.unwrap_or(Profile::Standard),
        timing: Timing::of(raw.profile.unwrap_or(Profile::Standard), &raw.timing),
        state_dir: resolve(raw.paths.state.as_deref(), DEFAULT_STATE, node),
        run_dir: resolve(raw.paths.run.as_deref(), DEFAULT_RUN, node),
        pki: Pki {
            ca: resolve(raw.pki.ca.as_deref(), DEFAULT_CA, node),
            cert: resolve(raw.pki.cert.as_deref(), DEFAULT_CERT, node),
            key: resolve(raw.pki.key.as_deref(), DEFAULT_KEY, node),
        },
        nodes: raw
            .nodes
            .iter()
            .map(|n| Node { name: NodeId::new(n.name.as_str()), kind: n.kind, address: n.address })
            .collect(),
        raft_port: raw.transport.raft_port.unwrap_or(7400),
        lease_port: raw.transport.lease_port.unwrap_or(7401),
        copy_port: raw.transport.copy_port.unwrap_or(7402),
        vips: raw.vips.iter().map(|v| vip(v, node)).collect(),
        mysql: raw.mysql.as_ref().map(|m| mysql(m, node, &mut problems)),
        redis: raw.redis.as_ref().map(|r| Redis {
            port: r.port.unwrap_or(6379),
            socket: resolve(r.socket.as_deref(), "/run/redis/redis.sock", node),
            user: r.user.clone(),
            password_file: r.password_file.as_deref().map(|path| resolve(Some(path), "", node)),
        }),
        docker: raw
            .docker
            .as_ref()
            .map(|d| Docker { socket: resolve(d.socket.as_deref(), DEFAULT_DOCKER, node) }),
        services,
        fence_hook: command("hooks.fence", raw.hooks.fence.as_deref(), node, &mut problems),
        drill: drill::drill(raw, node, &mut problems),
        hash,
    };
    check_paths(&config, &mut problems);
    check_mysql(&config, &mut problems);
    problems.0.extend(config.timing.problems());
    if !problems.0.is_empty() {
        return Err(ConfigError::Invalid { name: name.to_owned(), problems: problems.0 });
    }
    if config.find(node).is_none() {
        let names = raw.nodes.iter().map(|n| n.name.clone()).collect();
        return Err(ConfigError::NoSuchNode { name: name.to_owned(), node: node.to_string(), names });
    }
    Ok(config)
}

fn vip(raw: &RawVip, node: &NodeId) -> Vip {
    let own = raw.interfaces.as_ref().and_then(|names| names.get(node.as_str()));
    let interface = own.unwrap_or(&raw.interface).clone();
    Vip { address: raw.address, interface, gateway: raw.gateway }
}

fn mysql(raw: &RawMysql, node: &NodeId, problems: &mut Problems) -> Mysql {
    let file = |path: &Option<PathBuf>| path.as_deref().map(|p| resolve(Some(p), "", node));
    Mysql {
        port: raw.port.unwrap_or(3306),
        socket: resolve(raw.socket.as_deref(), "/run/mysqld/mysqld.sock", node),
        user: raw.user.clone().unwrap_or_else(|| "baton".to_owned()),
        password_file: file(&raw.password_file),
        check_user: raw.check_user.clone(),
        check_password_file: file(&raw.check_password_file),
        replication_user: raw.replication_user.clone().unwrap_or_else(|| "repl".to_owned()),
        replication_password_file: file(&raw.replication_password_file),
        data_dir: resolve(raw.data_dir.as_deref(), "/var/lib/mysql", node),
        schema: raw.schema.clone().unwrap_or_else(|| "baton".to_owned()),
        start: command("mysql.start", raw.start.as_deref(), node, problems),
        stop: command("mysql.stop", raw.stop.as_deref(), node, problems),
        resync: raw.resync.unwrap_or_default(),
    }
}

/// Names go into file names, certificates and table names: nothing that needs quoting anywhere.
fn is_plain_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

const NAME_RULE: &str = "use 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit";

fn check_cluster(raw: &RawConfig, problems: &mut Problems) {
    if !is_plain_name(&raw.cluster) {
        problems.add("cluster", &raw.cluster, "is not a plain name", NAME_RULE);
    }
    match raw.nodes.iter().find(|node| node.name == raw.initial_holder) {
        Some(node) if node.kind == NodeKind::Data => {}
        Some(_) => problems.add(
            "initial_holder",
            &raw.initial_holder,
            "is the witness, which has no data",
            "name the data node whose data counts",
        ),
        None => problems.add(
            "initial_holder",
            &raw.initial_holder,
            "is not the name of a [[node]]",
            "name the data node whose data counts",
        ),
    }
}

fn check_nodes(raw: &RawConfig, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for node in &raw.nodes {
        if !is_plain_name(&node.name) || node.name == "ca" || node.name.parse::<IpAddr>().is_ok() {
            problems.add("node.name", &node.name, "is not a plain name", NAME_RULE);
        }
        if !names.insert(&node.name) {
            problems.add("node.name", &node.name, "is used twice", "give each node a name of its own");
        }
        if !addresses.insert(node.address) {
            problems.add("node.address", node.address, "is used twice", "give each node its own address");
        }
        if !is_host_address(node.address) {
            problems.add(
                "node.address",
                node.address,
                "is not the address of a host",
                "write the address at which the other nodes reach this one",
            );
        }
    }
    let count = |kind| raw.nodes.iter().filter(|node| node.kind == kind).count();
    let data = count(NodeKind::Data);
    if data != 2 {
        problems.add(
            "node.kind",
            "",
            format!("there are {data} data nodes, and it takes exactly two"),
            "declare two [[node]] with kind = \"data\"",
        );
    }
    let witnesses = count(NodeKind::Witness);
    if witnesses != 1 {
        problems.add(
            "node.kind",
            "",
            format!("there are {witnesses} witnesses, and it takes exactly one: without it two nodes have no majority"),
            "declare one [[node]] with kind = \"witness\" on a third machine",
        );
    }
}

const fn is_host_address(address: IpAddr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

fn check_vips(raw: &RawConfig, problems: &mut Problems) {
    if raw.vips.is_empty() {
        problems.add("vip", "", "there is no [[vip]], so nothing could move", "declare at least one [[vip]]");
    }
    let mut seen = BTreeSet::new();
    for vip in &raw.vips {
        let address = vip.address.addr();
        if !seen.insert(address) {
            problems.add("vip.address", vip.address, "is used twice", "declare each address once");
        }
        if let Some(node) = raw.nodes.iter().find(|node| node.address == address) {
            problems.add(
                "vip.address",
                vip.address,
                format!("is the own address of {}", node.name),
                "take an address that belongs to no machine",
            );
        }
        if !is_host_address(address) || is_edge_of_network(vip.address) {
            problems.add(
                "vip.address",
                vip.address,
                "is not an address that a host can have",
                "write a free address of the network with its prefix length, for instance 10.0.0.100/24",
            );
        }
        check_interfaces(raw, vip, problems);
        if let Some(gateway) = vip.gateway.filter(|ip| !vip.address.contains(ip) || *ip == address) {
            problems.add(
                "vip.gateway",
                gateway,
                format!("is not another address of {}", vip.address.trunc()),
                "name the router of the virtual IP's own network, or leave the key out",
            );
        }
    }
}

fn check_interfaces(raw: &RawConfig, vip: &RawVip, problems: &mut Problems) {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let own = vip.interfaces.iter().flatten();
    for node in own.clone().map(|(node, _)| node).filter(|name| !raw.nodes.iter().any(|n| n.name == **name)) {
        problems.add("vip.interfaces", node, "is not the name of a [[node]]", "name a declared node");
    }
    let names = own.map(|(_, interface)| ("vip.interfaces", interface));
    for (key, interface) in std::iter::once(("vip.interface", &vip.interface)).chain(names) {
        if interface.is_empty() || interface.len() > 15 || interface.contains(odd) {
            problems.add(
                key,
                interface,
                "is not the name of a network interface",
                "write a name that `ip link` shows, at most 15 bytes",
            );
        }
    }
}

/// Network and broadcast address of an IPv4 network are no host's.
fn is_edge_of_network(net: IpNet) -> bool {
    match net {
        IpNet::V4(v4) => v4.prefix_len() < 31 && (v4.addr() == v4.network() || v4.addr() == v4.broadcast()),
        IpNet::V6(_) => false,
    }
}

fn check_ports(raw: &RawConfig, problems: &mut Problems) {
    let mut ports = vec![
        ("transport.raft_port".to_owned(), raw.transport.raft_port.unwrap_or(7400)),
        ("transport.lease_port".to_owned(), raw.transport.lease_port.unwrap_or(7401)),
        ("transport.copy_port".to_owned(), raw.transport.copy_port.unwrap_or(7402)),
    ];
    ports.extend(raw.mysql.as_ref().map(|m| ("mysql.port".to_owned(), m.port.unwrap_or(3306))));
    ports.extend(raw.redis.as_ref().map(|r| ("redis.port".to_owned(), r.port.unwrap_or(6379))));
    for service in &raw.services {
        let own = service.ports.iter().flatten();
        ports.extend(own.map(|port| (format!("service.ports ({})", service.name), *port)));
    }
    let mut taken: BTreeMap<u16, String> = BTreeMap::new();
    for (key, port) in ports {
        if port == 0 {
            problems.add(&key, port, "is not a port", "write a port between 1 and 65535");
        } else if let Some(other) = taken.get(&port) {
            problems.add(&key, port, format!("is {other} already"), "give each its own port");
        } else {
            taken.insert(port, key);
        }
    }
}

/// A program with its arguments. Without any there is none.
fn command(key: &str, words: Option<&[String]>, node: &NodeId, problems: &mut Problems) -> Option<Hook> {
    let (program, args) = words?.split_first()?;
    let resolved = |word: &String| resolve(Some(Path::new(word)), "", node);
    let program = resolved(program);
    if !program.is_absolute() {
        problems.add(
            key,
            program.display(),
            "is not an absolute path, and an agent has no PATH to search",
            "write the program's full path as the first element",
        );
    }
    Some(Hook { program, args: args.iter().map(|word| resolved(word).display().to_string()).collect() })
}

fn check_paths(config: &Config, problems: &mut Problems) {
    let mut paths = vec![
        ("paths.state", &config.state_dir),
        ("paths.run", &config.run_dir),
        ("pki.ca", &config.pki.ca),
        ("pki.cert", &config.pki.cert),
        ("pki.key", &config.pki.key),
        ("drill.evidence", &config.drill.evidence),
    ];
    if let Some(mysql) = &config.mysql {
        paths.extend([("mysql.socket", &mysql.socket), ("mysql.data_dir", &mysql.data_dir)]);
        paths.extend(mysql.password_file.as_ref().map(|path| ("mysql.password_file", path)));
        paths.extend(mysql.check_password_file.as_ref().map(|path| ("mysql.check_password_file", path)));
        paths.extend(
            mysql.replication_password_file.as_ref().map(|path| ("mysql.replication_password_file", path)),
        );
    }
    paths.extend(config.redis.as_ref().map(|redis| ("redis.socket", &redis.socket)));
    let redis_password = config.redis.as_ref().and_then(|redis| redis.password_file.as_ref());
    paths.extend(redis_password.map(|path| ("redis.password_file", path)));
    paths.extend(config.drill.password_file.as_ref().map(|path| ("drill.password_file", path)));
    paths.extend(config.docker.as_ref().map(|docker| ("docker.socket", &docker.socket)));
    for (key, path) in paths {
        if !path.is_absolute() {
            problems.add(
                key,
                path.display(),
                "is not an absolute path",
                "write the full path, beginning with /",
            );
        }
    }
    // The kernel's limit for the path of a Unix socket, terminating zero included.
    let socket = config.socket();
    if socket.as_os_str().len() > 107 {
        problems.add(
            "paths.run",
            config.run_dir.display(),
            "is too long for the path of a Unix socket (107 bytes with baton.sock)",
            "take a shorter directory",
        );
    }
}

fn check_mysql(config: &Config, problems: &mut Problems) {
    let Some(mysql) = &config.mysql else { return };
    if mysql.resync == ResyncPolicy::Automatic && (mysql.start.is_none() || mysql.stop.is_none()) {
        problems.add(
            "mysql.resync",
            "\"automatic\"",
            "needs mysql.start and mysql.stop, by which the agent stops and starts the database",
            "set both, or remove the key",
        );
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if mysql.schema.is_empty() || mysql.schema.len() > 64 || !mysql.schema.chars().all(plain) {
        problems.add(
            "mysql.schema",
            &mysql.schema,
            "is not a plain schema name",
            "use 1 to 64 letters, digits and '_'",
        );
    }
    let mut users = vec![("mysql.user", &mysql.user), ("mysql.replication_user", &mysql.replication_user)];
    users.extend(mysql.check_user.as_ref().map(|user| ("mysql.check_user", user)));
    for (key, user) in users {
        if user.is_empty() || user.contains(['\'', '"', '\\', '`', '\0']) {
            problems.add(key, user, "is not an account name", "write the name without host and quotes");
        }
    }
}
