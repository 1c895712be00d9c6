//! Every key of the configuration: what it means, how it is written, what holds when it is absent.
//!
//! This table is the only place that says so. The example, `baton config explain` and `docs/config.md` are made from
//! it; tests hold it against [`super::raw`] (same keys) and against the validated defaults (same values).

mod databases;
mod drill;
mod timing;

use databases::{MYSQL, REDIS};
use drill::DRILL;
use timing::TIMING;

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The key must be written; an example of a value.
    Required(&'static str),
    /// This value, as TOML.
    Value(&'static str),
    /// Nothing; an example of a value.
    Nothing(&'static str),
    /// The profile's value.
    Profile,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name within the section.
    pub name: &'static str,
    /// How its value is written.
    pub form: &'static str,
    /// What holds when it is absent.
    pub preset: Preset,
    /// What it means.
    pub doc: &'static str,
}

/// How often a section may stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurs {
    /// The top of the file, without a heading.
    Top,
    /// `[name]`; its keys have defaults.
    Once,
    /// `[name]`; what it describes is absent without it.
    Optional,
    /// `[[name]]`, as often as wanted. The examples after the first, as values in the order of the keys.
    Repeated(&'static [&'static [&'static str]]),
}

/// One section.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Its name; empty for the top of the file.
    pub name: &'static str,
    /// How often.
    pub occurs: Occurs,
    /// What it is for.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, form: &'static str, preset: Preset, doc: &'static str) -> Key {
    Key { name, form, preset, doc }
}

const fn span(name: &'static str, doc: &'static str) -> Key {
    key(name, "span, \"1200ms\" or \"1.2s\"", Preset::Profile, doc)
}

use Occurs::{Once, Optional, Repeated, Top};
use Preset::{Nothing, Required, Value};

/// All sections in the order of the example.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "",
        occurs: Top,
        doc: "One file for all three nodes: the same text everywhere. `{node}` in a path stands for the name of the node that reads it.",
        keys: &[
            key(
                "cluster",
                "name",
                Required("\"shop\""),
                "Name of the cluster. Agents of another cluster are refused.",
            ),
            key(
                "profile",
                "\"fast\", \"standard\" or \"relaxed\"",
                Value("\"standard\""),
                "Set of timings that fit together. `standard` suits a LAN; `fast` wants a quiet switch and disks with an fsync below 5 ms; `relaxed` suits two sites or noisy virtual machines.",
            ),
            key(
                "initial_holder",
                "name of a data node",
                Required("\"db1\""),
                "The data node whose data counts when the cluster is new. It has no meaning afterwards.",
            ),
        ],
    },
    Section {
        name: "paths",
        occurs: Once,
        doc: "Directories of the agent. They are made if they are missing.",
        keys: &[
            key(
                "state",
                "absolute path",
                Value("\"/var/lib/baton\""),
                "Raft log, local state and flight recorder. On a local disk that honours fsync; never shared, never copied to another node.",
            ),
            key(
                "run",
                "absolute path",
                Value("\"/run/baton\""),
                "The local API's socket `baton.sock` lies here.",
            ),
        ],
    },
    Section {
        name: "pki",
        occurs: Once,
        doc: "Certificates of the mutual TLS between agents, made by `baton pki init` and `baton pki issue`.",
        keys: &[
            key(
                "ca",
                "absolute path",
                Value("\"/etc/baton/pki/ca.pem\""),
                "Certificate of the cluster's own authority. Its key belongs on none of the nodes.",
            ),
            key(
                "cert",
                "absolute path",
                Value("\"/etc/baton/pki/{node}.pem\""),
                "This node's certificate; it carries the node's name.",
            ),
            key(
                "key",
                "absolute path",
                Value("\"/etc/baton/pki/{node}.key\""),
                "This node's private key, readable for the agent only.",
            ),
        ],
    },
    Section {
        name: "node",
        occurs: Repeated(&[
            &["\"db2\"", "\"data\"", "\"10.77.0.12\""],
            &["\"mon\"", "\"witness\"", "\"10.77.0.13\""],
        ]),
        doc: "The machines: two data nodes and one witness.",
        keys: &[
            key(
                "name",
                "name",
                Required("\"db1\""),
                "Name of the node. An agent takes the host's name unless --node says otherwise.",
            ),
            key(
                "kind",
                "\"data\" or \"witness\"",
                Required("\"data\""),
                "A data node has MySQL, Redis and the services. The witness votes and watches from outside.",
            ),
            key(
                "address",
                "IP address",
                Required("\"10.77.0.11\""),
                "Where the other agents and the other database reach this node. Never the VIP.",
            ),
        ],
    },
    Section {
        name: "transport",
        occurs: Once,
        doc: "Ports of the agents, open between the three nodes and to nobody else.",
        keys: &[
            key("raft_port", "port", Value("7400"), "TCP port of consensus and reports."),
            key(
                "lease_port",
                "port",
                Value("7401"),
                "Port of lease renewals, served by a thread of their own.",
            ),
            key(
                "copy_port",
                "port",
                Value("7402"),
                "Port of orders for a node (`baton resync`, `baton rejoin`, `baton drill`) and of copies of its database, served by a thread of their own.",
            ),
        ],
    },
    Section {
        name: "vip",
        occurs: Repeated(&[]),
        doc: "The virtual IPs that clients use. They move together; IPv4 and IPv6.",
        keys: &[
            key(
                "address",
                "IP address/prefix length",
                Required("\"10.77.0.100/24\""),
                "The address with the prefix length of its network.",
            ),
            key(
                "interface",
                "interface name",
                Required("\"eth0\""),
                "The interface that bears it, on every node that `interfaces` does not name.",
            ),
            key(
                "interfaces",
                "table of node name to interface name",
                Nothing("{ db2 = \"ens3\", mon = \"eth1\" }"),
                "Nodes where the interface has another name. The witness looks there for who answers.",
            ),
            key(
                "gateway",
                "IP address",
                Nothing("\"10.77.0.1\""),
                "The gateway by which clients come, asked by ARP or neighbour solicitation. A holder that it does not answer \
                 gives the baton up if it answers the other node. Not given: not watched.",
            ),
        ],
    },
    MYSQL,
    REDIS,
    Section {
        name: "docker",
        occurs: Optional,
        doc: "Container engine on both data nodes, for the services below.",
        keys: &[key(
            "socket",
            "absolute path",
            Value("\"/var/run/docker.sock\""),
            "Unix socket of the engine's API.",
        )],
    },
    Section {
        name: "service",
        occurs: Repeated(&[]),
        doc: "Containers that must run in one role only. They are created beforehand, with restart policy `no`; the agent starts and stops them.",
        keys: &[
            key("name", "name", Required("\"web\""), "Name of the service."),
            key(
                "container",
                "container name",
                Nothing("\"web\""),
                "The container. Either this or `compose_project`.",
            ),
            key(
                "compose_project",
                "project name",
                Nothing("\"shop\""),
                "All containers with this Compose project label. Either this or `container`.",
            ),
            key("runs_on", "\"holder\" or \"replica\"", Value("\"holder\""), "The role that it is bound to."),
            key(
                "after",
                "list of service names",
                Value("[]"),
                "Services that must be healthy before this one starts.",
            ),
            key(
                "needs_database",
                "true or false",
                Value("true"),
                "False lets it start at once, while the database is still being promoted.",
            ),
            key(
                "ports",
                "list of ports",
                Value("[]"),
                "TCP ports at which clients reach it. They are closed on every node without a valid lease, so a service that runs on \
                 the replica has none.",
            ),
            key(
                "check",
                "\"tcp:PORT\" or \"http://:PORT/PATH\"",
                Nothing("\"http://:8080/health\""),
                "What the witness tries through the virtual IP after a change of holder: a connection, or a GET that must be answered with a status from 200 to 399. Only for services that run on the holder.",
            ),
        ],
    },
    Section {
        name: "hooks",
        occurs: Once,
        doc: "Commands of your own. Each runs with a time limit, in a process group that is killed as a whole, and its output is kept.",
        keys: &[key(
            "fence",
            "list: absolute path, then arguments",
            Value("[]"),
            "Runs on the new holder before a takeover touches anything and should cut the lost holder's power. Its environment: \
             BATON_EPOCH, BATON_RUN, BATON_FROM (who is to be cut off), BATON_TO, and a PATH; nothing else. It is killed after \
             2.7 s, and tried twice; unless it exits with 0 there is no takeover. Empty: the lease alone fences.",
        )],
    },
    DRILL,
    TIMING,
];

/// The section and key of `path`, as `section.key`; keys of the top have no section.
#[must_use]
pub fn find(path: &str) -> Option<(&'static Section, &'static Key)> {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let section = SECTIONS.iter().find(|s| s.name == section)?;
    Some((section, section.keys.iter().find(|k| k.name == name)?))
}
