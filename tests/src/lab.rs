//! The lab: three hosts, a client and an observer, with real servers, driven by agents, by another system or by nobody.
//!
//! A lab is one value; any number may stand side by side, each with namespaces and a directory of its own. Dropping it
//! kills every process that stands in its namespaces, whoever started it, and removes what it made. A lab whose
//! process died without dropping it is removed by the next one: see [`sweep`].
//!
//! ```text
//!  DIR/owner            pid and start time of the process that the lab belongs to
//!  DIR/HOST/            everything of one host: data, sockets, logs, state of its agent
//!  DIR/baton.toml, pki/ the product's configuration, one for all hosts
//! ```

pub mod agents;
pub mod database;
pub mod docker;
mod failpoints;
pub mod flavour;
pub mod keepalived;
mod look;
pub mod pacemaker;
mod power;
pub mod process;
pub mod redis;
mod restore;
pub mod sentinel;
mod servers;
pub mod shell;
mod sweep;
pub mod turn;
pub mod wait;
pub mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use baton_chaos::history::Kind;

pub use flavour::Flavour;
use process::Process;
pub use sweep::{end_all, sweep};
use wire::Wire;
pub use wire::{Port, Traffic};

/// The data nodes.
pub const DATA: [Port; 2] = [Port::Db1, Port::Db2];
const VIP_LIMIT: Duration = Duration::from_secs(30);

/// Who decides who serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// Three agents of the product with this timing profile.
    Agents {
        /// `fast`, `standard` or `relaxed`.
        profile: String,
    },
    /// keepalived on the data nodes.
    Keepalived {
        /// Milliseconds between two adverts.
        advert_ms: u32,
    },
    /// Redis Sentinel on all three hosts. It looks after Redis only.
    Sentinel,
    /// Pacemaker and Corosync on all three hosts, with a power switch that they may use.
    Pacemaker,
    /// Nobody: the databases stay as they boot.
    Nobody,
}

impl Driver {
    /// The kinds of data that it looks after; the others are neither written to nor waited for.
    #[must_use]
    pub fn kinds(&self) -> &'static [Kind] {
        match self {
            Self::Sentinel => &[Kind::Redis],
            Self::Agents { .. } | Self::Keepalived { .. } | Self::Pacemaker | Self::Nobody => &Kind::ALL,
        }
    }
}

/// What is to stand in the lab.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who decides.
    pub driver: Driver,
    /// Which database.
    pub flavour: Flavour,
    /// A container engine with a service on each data node; costs some seconds.
    pub docker: bool,
    /// The databases' directories are on a small file system of their own, which can be filled.
    pub small_disk: bool,
    /// Agents resync by themselves.
    pub resync_by_itself: bool,
    /// The deepest drill that nodes allow, `L0` to `L5`.
    pub drills: &'static str,
    /// More lines of `[drill]`, and whole sections after them; `{lab}` stands for the lab's directory, `{node}` for the node's
    /// name.
    pub drill_keys: String,
    /// Agents can be told to die or to be held at a step: see [`Lab::arm`].
    pub failpoints: bool,
    /// What commands say is not printed.
    pub quiet: bool,
}

impl Options {
    /// Only what is always there.
    #[must_use]
    pub fn plain(driver: Driver) -> Self {
        Self {
            driver,
            flavour: Flavour::default(),
            docker: false,
            small_disk: false,
            resync_by_itself: false,
            drills: "L2",
            drill_keys: String::new(),
            failpoints: false,
            quiet: false,
        }
    }
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// Its place on the wire.
    pub port: Port,
    /// Everything of it.
    pub dir: PathBuf,
    /// Environment of its agent, read at each start of it.
    pub agent_env: Arc<Mutex<Vec<(String, String)>>>,
    powered: Arc<AtomicBool>,
    processes: Mutex<BTreeMap<&'static str, Process>>,
}

impl Host {
    /// Whether it has power.
    #[must_use]
    pub fn has_power(&self) -> bool {
        self.powered.load(Ordering::SeqCst)
    }

    /// Socket of its database.
    #[must_use]
    pub fn mysql(&self) -> PathBuf {
        self.dir.join("mysql.sock")
    }

    /// Socket of its Redis.
    #[must_use]
    pub fn redis(&self) -> PathBuf {
        self.dir.join("redis.sock")
    }

    /// One of its processes: `mysqld`, `redis`, `dockerd`, `agent`, `keepalived`, `sentinel`, `pacemaker`.
    ///
    /// # Errors
    /// It was never started.
    pub fn process(&self, name: &str) -> Result<Process> {
        let processes = self.processes.lock().expect("nobody panics with the list in hand");
        processes.get(name).cloned().with_context(|| format!("{} has no {name}", self.port.name()))
    }
}

/// A standing lab.
#[derive(Debug)]
pub struct Lab {
    /// Its name.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its wire.
    pub wire: Wire,
    /// The product's configuration file, if agents drive it.
    pub config: Option<PathBuf>,
    options: Options,
    hosts: Vec<Host>,
    keep: AtomicBool,
    /// The newest order of [`Lab::arm`].
    armed: Mutex<Option<String>>,
}

impl Lab {
    /// Builds the wire, starts the servers, and then who drives them. Returns when every server answers; that the
    /// driver has made one of them serve is for the caller to wait for ([`Lab::wait_serving`]).
    ///
    /// # Errors
    /// A tool is missing, the kernel refuses, or a server does not start. What was made is removed.
    pub fn up(options: Options) -> Result<Self> {
        sweep();
        let id = format!("{:05x}", rand::random::<u32>() >> 12);
        let dir = sweep::labs_dir().join(&id);
        std::fs::create_dir_all(&dir)?;
        sweep::claim(&dir)?;
        let wire = Wire::named(&id);
        let hosts = agents::NODES.map(|port| Host {
            port,
            dir: dir.join(port.name()),
            agent_env: Arc::default(),
            powered: Arc::new(AtomicBool::new(true)),
            processes: Mutex::default(),
        });
        let keep = AtomicBool::new(false);
        let armed = Mutex::default();
        let mut lab = Self { id, dir, wire, config: None, options, hosts: hosts.into(), keep, armed };
        lab.build().inspect_err(|_| lab.keep())?;
        Ok(lab)
    }

    fn build(&mut self) -> Result<()> {
        self.wire.create()?;
        let template = database::template(self.options.flavour, &target_dir().join("lab"))?;
        let archive = if self.options.docker { Some(docker::archive(&self.dir)?) } else { None };
        std::thread::scope(|scope| {
            let prepare = |host: &Host| self.prepare(host, &template, archive.as_deref());
            let started =
                self.hosts.iter().map(|host| scope.spawn(move || prepare(host))).collect::<Vec<_>>();
            started.into_iter().try_for_each(|thread| thread.join().expect("preparing returns its errors"))
        })?;
        if let Driver::Agents { profile } = &self.options.driver {
            let options = agents::Options {
                profile,
                docker: self.options.docker,
                resync_by_itself: self.options.resync_by_itself,
                drills: self.options.drills,
                drill_keys: &self.options.drill_keys,
            };
            self.config = Some(agents::prepare(&self.dir, options)?);
            if self.options.failpoints {
                self.let_agents_be_told();
            }
        }
        for port in agents::NODES {
            self.start_driver(port)?;
        }
        Ok(())
    }

    /// Which database it has.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.options.flavour
    }

    /// Whether agents resync without an operator.
    #[must_use]
    pub fn resyncs_by_itself(&self) -> bool {
        self.options.resync_by_itself
    }

    /// The host on a port.
    ///
    /// # Panics
    /// The port is not a host's.
    #[must_use]
    pub fn host(&self, port: Port) -> &Host {
        self.hosts.iter().find(|host| host.port == port).expect("client and observer are no hosts")
    }

    /// Prints what a command has said.
    pub fn tell(&self, said: &str) {
        if !self.options.quiet {
            println!("{said}");
        }
    }

    /// Leaves the directory with its logs when the lab is taken down.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::SeqCst);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in &self.hosts {
            host.powered.store(false, Ordering::SeqCst);
        }
        let keep = self.keep.load(Ordering::SeqCst) || std::thread::panicking();
        sweep::take_down(&self.id, &self.dir, keep);
        if keep {
            eprintln!("logs of the lab: {}", self.dir.display());
        }
    }
}

/// The build's target directory, where templates and reports are kept.
#[must_use]
pub fn target_dir() -> PathBuf {
    let own = std::env::current_exe().ok();
    let found = own.as_deref().and_then(|own| own.ancestors().find(|dir| dir.ends_with("target")));
    found.map_or_else(|| PathBuf::from("target"), Path::to_owned)
}
