//! The configuration as the operator writes it: what was typed, nothing filled in, nothing judged.
//!
//! Unknown keys are refused by the parser, with line and caret. What the keys mean stands in [`super::keys`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::timing::{Ms, Profile, RawTiming};
use super::{DrillLevel, NodeKind, ResyncPolicy, RunsOn};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawConfig {
    pub cluster: String,
    pub profile: Option<Profile>,
    pub initial_holder: String,
    #[serde(default)]
    pub paths: RawPaths,
    #[serde(default)]
    pub pki: RawPki,
    #[serde(default, rename = "node")]
    pub nodes: Vec<RawNode>,
    #[serde(default)]
    pub transport: RawTransport,
    #[serde(default, rename = "vip")]
    pub vips: Vec<RawVip>,
    pub mysql: Option<RawMysql>,
    pub redis: Option<RawRedis>,
    pub docker: Option<RawDocker>,
    #[serde(default, rename = "service")]
    pub services: Vec<RawService>,
    #[serde(default)]
    pub hooks: RawHooks,
    #[serde(default)]
    pub drill: RawDrill,
    #[serde(default)]
    pub timing: RawTiming,
}

/// `[paths]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawPaths {
    pub state: Option<PathBuf>,
    pub run: Option<PathBuf>,
}

/// `[pki]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawPki {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// `[[node]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawNode {
    pub name: String,
    pub kind: NodeKind,
    pub address: IpAddr,
}

/// `[transport]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawTransport {
    pub raft_port: Option<u16>,
    pub lease_port: Option<u16>,
    pub copy_port: Option<u16>,
}

/// `[[vip]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawVip {
    pub address: IpNet,
    pub interface: String,
    pub interfaces: Option<BTreeMap<String, String>>,
    pub gateway: Option<IpAddr>,
}

/// `[mysql]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawMysql {
    pub port: Option<u16>,
    pub socket: Option<PathBuf>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub check_user: Option<String>,
    pub check_password_file: Option<PathBuf>,
    pub replication_user: Option<String>,
    pub replication_password_file: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub schema: Option<String>,
    pub start: Option<Vec<String>>,
    pub stop: Option<Vec<String>>,
    pub resync: Option<ResyncPolicy>,
}

/// `[redis]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawRedis {
    pub port: Option<u16>,
    pub socket: Option<PathBuf>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
}

/// `[docker]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawDocker {
    pub socket: Option<PathBuf>,
}

/// `[[service]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawService {
    pub name: String,
    pub container: Option<String>,
    pub compose_project: Option<String>,
    pub runs_on: Option<RunsOn>,
    pub after: Option<Vec<String>>,
    pub needs_database: Option<bool>,
    pub ports: Option<Vec<u16>>,
    pub check: Option<String>,
}

/// `[hooks]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawHooks {
    pub fence: Option<Vec<String>>,
}

/// `[drill]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawDrill {
    pub allow: Option<DrillLevel>,
    pub window: Option<String>,
    pub cooldown: Option<Ms>,
    pub duration_max: Option<Ms>,
    pub power_off: Option<Vec<String>>,
    pub evidence: Option<PathBuf>,
    pub arp_senders: Option<std::net::Ipv4Addr>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub schema: Option<String>,
}
