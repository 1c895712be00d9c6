//! Configuration: one TOML file for all nodes, read by every agent and by the command line.
//!
//! ```text
//!  text ──toml──▶ RawConfig ──validate──▶ Config        (for one node, chosen by name)
//!                 what was typed           newtypes, defaults filled in, {node} resolved, inequalities checked
//! ```
//!
//! What each key means, its form and its default stand in one table, [`keys`]: the example, `baton config explain`
//! and `docs/config.md` are made from it. Cross-field rules are checked here and nowhere else. Nothing here opens a
//! socket; passwords are read only when somebody asks, see [`Mysql::read_password`].

mod check;
mod drill;
mod error;
pub mod keys;
mod place;
pub mod raw;
mod render;
mod timing;
mod validate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use baton_runbooks::model::{NodeId, NodeKind};
use baton_runbooks::run::table::Scope;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use check::Check;
pub use drill::{Drill, DrillLevel, Window};
pub use error::{ConfigError, Problem};
pub use raw::RawConfig;
pub use render::{KeyEntry, entries, example, explain, keys as all_keys, markdown};
pub use timing::{Ms, Profile, RHO_PERCENT, RULES, RawTiming, Rule, SCHEDULING_MS, Timing};

/// A validated configuration, seen from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// The node that this agent is.
    pub node: NodeId,
    /// The data node whose data counts when the cluster is new.
    pub initial_holder: NodeId,
    /// Which set of timings was chosen.
    pub profile: Profile,
    /// The timings, overrides included.
    pub timing: Timing,
    /// Directory of the Raft log and of local state.
    pub state_dir: PathBuf,
    /// Directory of the local API's socket.
    pub run_dir: PathBuf,
    /// Certificates.
    pub pki: Pki,
    /// All nodes, in the order of the file.
    pub nodes: Vec<Node>,
    /// TCP port of consensus and reports, on every node.
    pub raft_port: u16,
    /// Port of lease renewals, on every node.
    pub lease_port: u16,
    /// TCP port of orders for a node, on every node, and of copies of its database.
    pub copy_port: u16,
    /// At least one.
    pub vips: Vec<Vip>,
    /// `None`: this cluster has no MySQL.
    pub mysql: Option<Mysql>,
    /// `None`: this cluster has no Redis.
    pub redis: Option<Redis>,
    /// `None`: no containers are managed.
    pub docker: Option<Docker>,
    /// Role-bound services; each comes after those that it waits for.
    pub services: Vec<Service>,
    /// The power-fence hook; `None`: there is none.
    pub fence_hook: Option<Hook>,
    /// What this node lets drills do to it.
    pub drill: Drill,
    /// Hash of the file's values (comments, order and `[drill]` do not count), equal on nodes that have the same values.
    pub hash: String,
}

/// Files of the mutual TLS between agents, for this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    /// Certificate of the cluster's own authority.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, also in its certificate.
    pub name: NodeId,
    /// What it is there for.
    pub kind: NodeKind,
    /// The address at which the agents and the databases reach each other.
    pub address: IpAddr,
}

/// A virtual IP and the interface that bears it, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// Address with prefix length.
    pub address: IpNet,
    /// Interface name on this node, at most 15 bytes.
    pub interface: String,
    /// The clients' gateway behind that interface, if it is to be watched.
    pub gateway: Option<IpAddr>,
}

/// The MySQL or MariaDB server of each data node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mysql {
    /// Guarded port, as clients and the other data node reach it.
    pub port: u16,
    /// Unix socket over which the agent reaches the local server.
    pub socket: PathBuf,
    /// The agent's account.
    pub user: String,
    /// File with its password; `None`: empty password.
    pub password_file: Option<PathBuf>,
    /// The account that writes and reads a row through the VIP; `None`: nobody does.
    pub check_user: Option<String>,
    /// File with its password; `None`: empty password.
    pub check_password_file: Option<PathBuf>,
    /// The account with which a replica connects to its primary.
    pub replication_user: String,
    /// File with its password; `None`: empty password.
    pub replication_password_file: Option<PathBuf>,
    /// Directory whose disk is watched.
    pub data_dir: PathBuf,
    /// Schema of the heartbeat and canary tables.
    pub schema: String,
    /// Starts the server; `None`: the agent cannot.
    pub start: Option<Hook>,
    /// Stops the server; `None`: the agent cannot.
    pub stop: Option<Hook>,
    /// Who begins a resync of a node in quarantine.
    pub resync: ResyncPolicy,
}

impl Mysql {
    /// Reads the password of the agent's account.
    ///
    /// # Errors
    /// The file is named and cannot be read.
    pub fn read_password(&self) -> Result<Secret, ConfigError> {
        read_secret("mysql.password_file", self.password_file.as_deref())
    }

    /// Reads the password of the account that checks through the VIP.
    ///
    /// # Errors
    /// The file is named and cannot be read.
    pub fn read_check_password(&self) -> Result<Secret, ConfigError> {
        read_secret("mysql.check_password_file", self.check_password_file.as_deref())
    }

    /// Reads the password of the replication account.
    ///
    /// # Errors
    /// The file is named and cannot be read.
    pub fn read_replication_password(&self) -> Result<Secret, ConfigError> {
        read_secret("mysql.replication_password_file", self.replication_password_file.as_deref())
    }
}

fn read_secret(key: &'static str, path: Option<&Path>) -> Result<Secret, ConfigError> {
    let Some(path) = path else { return Ok(Secret(String::new())) };
    std::fs::read_to_string(path)
        .map(|text| Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
        .map_err(|source| ConfigError::Password { key, path: path.to_owned(), source })
}

/// A password. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The password itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(empty)" } else { "Secret(hidden)" })
    }
}

/// The Redis server of each data node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Guarded port, as clients and the other data node reach it.
    pub port: u16,
    /// Unix socket over which the agent reaches the local server.
    pub socket: PathBuf,
    /// Account of the agent, and of a replica at its primary; `None`: the default account.
    pub user: Option<String>,
    /// File with its password; `None`: none is sent.
    pub password_file: Option<PathBuf>,
}

impl Redis {
    /// Reads the password of the agent's account.
    ///
    /// # Errors
    /// The file is named and cannot be read.
    pub fn read_password(&self) -> Result<Secret, ConfigError> {
        read_secret("redis.password_file", self.password_file.as_deref())
    }
}

/// The container engine of each data node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// Unix socket of the engine's API.
    pub socket: PathBuf,
}

/// Who begins a resync of a node in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResyncPolicy {
    /// An operator, with `baton resync`.
    #[default]
    ByHand,
    /// The node's agent, once everything is saved.
    Automatic,
}

/// Which role a service is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunsOn {
    /// Only on the node that holds the baton.
    Holder,
    /// Only on the data node that does not.
    Replica,
}

/// What a service consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workload {
    /// One container, by its name.
    Container(String),
    /// All containers with this Compose project label.
    ComposeProject(String),
}

/// A role-bound service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What it consists of.
    pub workload: Workload,
    /// The role that it is bound to.
    pub runs_on: RunsOn,
    /// Names of services that must be healthy before it starts.
    pub after: Vec<String>,
    /// It starts only once the database is writable.
    pub needs_database: bool,
    /// TCP ports at which clients reach it; guarded like the databases'.
    pub ports: Vec<u16>,
    /// What is tried through the VIP after a change of holder.
    pub check: Option<Check>,
}

/// A command of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Config {
    /// Reads, parses and validates `path`, seen from `node`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path, node: &NodeId) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        Self::parse(&text, &path.display().to_string(), node)
    }

    /// Parses and validates `text`, seen from `node`. `name` is what messages call the text.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str, name: &str, node: &NodeId) -> Result<Self, ConfigError> {
        let raw = parse_raw(text, name)?;
        validate::validate(&raw, name, node, hash(text))
    }

    /// This node's own entry.
    #[must_use]
    pub fn this(&self) -> &Node {
        self.find(&self.node).expect("validated: this node is in the list")
    }

    /// The entry of `name`.
    #[must_use]
    pub fn find(&self, name: &NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// All nodes but this one.
    pub fn peers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.name != self.node)
    }

    /// The data node that is not this one; on the witness, the first.
    #[must_use]
    pub fn other_data_node(&self) -> &Node {
        self.peers().find(|node| node.kind == NodeKind::Data).expect("validated: two data nodes")
    }

    /// The witness.
    #[must_use]
    pub fn witness(&self) -> &Node {
        self.nodes.iter().find(|node| node.kind == NodeKind::Witness).expect("validated: one witness")
    }

    /// This node has data.
    #[must_use]
    pub fn is_data_node(&self) -> bool {
        self.this().kind == NodeKind::Data
    }

    /// Names and kinds, as the ledger wants them.
    #[must_use]
    pub fn members(&self) -> BTreeMap<NodeId, NodeKind> {
        self.nodes.iter().map(|node| (node.name.clone(), node.kind)).collect()
    }

    /// What a plan has to cover.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let mut at_holder = self.services.iter().filter(|service| service.runs_on == RunsOn::Holder);
        Scope {
            mysql: self.mysql.is_some(),
            independent_services: at_holder.clone().any(|service| !service.needs_database),
            services: at_holder.any(|service| service.needs_database),
        }
    }

    /// Every port that is closed without a lease, ascending.
    #[must_use]
    pub fn guarded_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> =
            self.services.iter().flat_map(|service| service.ports.iter().copied()).collect();
        ports.extend(self.mysql.as_ref().map(|mysql| mysql.port));
        ports.extend(self.redis.as_ref().map(|redis| redis.port));
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Where a node's agent listens for consensus and reports.
    #[must_use]
    pub const fn raft_address(&self, node: &Node) -> SocketAddr {
        SocketAddr::new(node.address, self.raft_port)
    }

    /// Where a node's agent listens for lease renewals.
    #[must_use]
    pub const fn lease_address(&self, node: &Node) -> SocketAddr {
        SocketAddr::new(node.address, self.lease_port)
    }

    /// Where a node's agent takes orders and hands out copies.
    #[must_use]
    pub const fn copy_address(&self, node: &Node) -> SocketAddr {
        SocketAddr::new(node.address, self.copy_port)
    }

    /// The local API's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.run_dir)
    }

    /// Directory of the flight recorder.
    #[must_use]
    pub fn flight_dir(&self) -> PathBuf {
        self.state_dir.join("flight")
    }
}

/// The local API's socket of `node`, taken from a file that need not be valid otherwise: an agent that runs can be
/// asked although its file was spoilt since.
///
/// # Errors
/// The file cannot be read, or is not TOML.
pub fn socket_of(path: &Path, node: &NodeId) -> Result<PathBuf, ConfigError> {
    let raw = parse_raw(&read_text(path)?, &path.display().to_string())?;
    Ok(socket_in(&validate::resolve(raw.paths.run.as_deref(), validate::DEFAULT_RUN, node)))
}

/// The names of the nodes in the file, in its order.
///
/// # Errors
/// The file cannot be read, or is not TOML.
pub fn node_names(path: &Path) -> Result<Vec<NodeId>, ConfigError> {
    let raw = parse_raw(&read_text(path)?, &path.display().to_string())?;
    Ok(raw.nodes.iter().map(|node| NodeId::new(node.name.as_str())).collect())
}

fn socket_in(run_dir: &Path) -> PathBuf {
    run_dir.join("baton.sock")
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })
}

fn parse_raw(text: &str, name: &str) -> Result<RawConfig, ConfigError> {
    toml::from_str(text).map_err(|e| ConfigError::Parse {
        name: name.to_owned(),
        message: e.to_string().trim_end().to_owned(),
        hint: place::expected(text, &e),
    })
}

/// FNV-1a over the values in key order. It finds differences between nodes; it protects against nobody.
fn hash(text: &str) -> String {
    let canonical = text.parse::<toml::Table>().map(|mut table| {
        // Each node's own word.
        table.remove("drill");
        table.to_string()
    });
    let canonical = canonical.unwrap_or_default();
    let hash = canonical.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
