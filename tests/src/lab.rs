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
pub mod pacemaker;
pub mod process;
pub mod redis;
mod restore;
pub mod sentinel;
pub mod shell;
mod sweep;
pub mod wait;
pub mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use baton_chaos::arp::WatchOptions;
use baton_chaos::check::Finals;
use baton_chaos::history::{Kind, Origin};
use baton_chaos::load::{LoadOptions, MysqlTarget, RedisTarget};

pub use flavour::Flavour;
use process::{Process, Spec};
pub use sweep::{end_all, sweep};
use wire::{ARP_SENDERS, INTERFACE, VIP, Wire};
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
        let mut lab = Self { id, dir, wire, config: None, options, hosts: hosts.into(), keep };
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

    /// Makes the directories of a host and starts its servers for the first time.
    fn prepare(&self, host: &Host, template: &Path, archive: Option<&Path>) -> Result<()> {
        for part in ["state", "tmp", "redis", "docker", "mysql"] {
            std::fs::create_dir_all(host.dir.join(part))?;
        }
        if !DATA.contains(&host.port) {
            return Ok(());
        }
        let data_dir = host.dir.join("mysql").display().to_string();
        let flavour = self.options.flavour;
        if self.options.small_disk {
            let size = format!("size={}m", flavour.small_disk_mib());
            shell::run("mount", &["-t", "tmpfs", "-o", &size, "baton-lab", &data_dir])?;
        }
        shell::run("cp", &["-a", &format!("{}/.", template.display()), &data_dir])?;
        let address = host.port.address().to_string();
        let primary = (host.port != Port::Db1).then(|| Port::Db1.address().to_string());
        let redis = redis::configuration(&host.dir, &address, primary.as_deref());
        std::fs::write(host.dir.join("redis.conf"), redis)?;
        database::write_scripts(flavour, &host.dir, host.port.address().octets()[3], &address)?;
        if let Some(path) = flavour.tools(&host.dir.join("bin"))? {
            host.agent_env.lock().expect("nobody panics with it in hand").push(("PATH".into(), path));
        }
        self.start_servers(host.port)?;
        if let Some(primary) = &primary {
            database::follow(flavour, &host.mysql(), primary)?;
        }
        archive.map_or(Ok(()), |archive| docker::prepare(&host.dir, archive))
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

    fn start(
        &self,
        port: Port,
        name: &'static str,
        program: &str,
        args: Vec<String>,
        restart: bool,
    ) -> Result<()> {
        let host = self.host(port);
        let env = if name == "agent" { Arc::clone(&host.agent_env) } else { Arc::default() };
        let process = process::start(Spec {
            name: format!("{name}-{}", port.name()),
            netns: self.wire.netns(port),
            program: program.to_owned(),
            args,
            env,
            log: host.dir.join(format!("{name}.log")),
            restart,
            powered: Arc::clone(&host.powered),
        })?;
        host.processes.lock().expect("nobody panics with the list in hand").insert(name, process);
        Ok(())
    }

    /// Starts the servers of a data node and waits until they answer.
    ///
    /// # Errors
    /// One does not start.
    pub fn start_servers(&self, port: Port) -> Result<()> {
        let host = self.host(port);
        self.start_server(port, "mysqld")?;
        self.start_server(port, "redis")?;
        if self.options.docker {
            let dockerd = docker::arguments(&host.dir, &sweep::cgroup(&self.id));
            self.start(port, "dockerd", "dockerd", dockerd, false)?;
        }
        redis::wait_ready(&host.redis())?;
        database::wait_ready(&host.mysql())
    }

    /// Starts one of `mysqld` and `redis`, and does not wait for it.
    fn start_server(&self, port: Port, name: &'static str) -> Result<()> {
        let host = self.host(port);
        if name == "redis" {
            return self.start(
                port,
                name,
                "redis-server",
                vec![host.dir.join("redis.conf").display().to_string()],
                false,
            );
        }
        let (server_id, address) = (port.address().octets()[3], port.address().to_string());
        let (program, mysqld) = database::command(self.options.flavour, &host.dir, server_id, &address)?;
        self.start(port, name, &program, mysqld, false)
    }

    /// Starts who decides on a host, if the lab has one. keepalived's backup is started only when the master serves,
    /// otherwise it promotes itself at once.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_driver(&self, port: Port) -> Result<()> {
        match &self.options.driver {
            Driver::Agents { .. } => {
                let config = self.config.as_ref().context("the configuration is made before")?;
                let args = ["agent", "--config", &config.display().to_string(), "--node", port.name()];
                let program = agents::program()?.display().to_string();
                self.start(port, "agent", &program, args.map(String::from).into(), true)
            }
            Driver::Keepalived { advert_ms } => {
                let Some(peer) =
                    DATA.into_iter().find(|other| *other != port).filter(|_| DATA.contains(&port))
                else {
                    return Ok(());
                };
                if port == Port::Db1 {
                    self.serve_by_hand(port, false)?;
                }
                let args = keepalived::prepare(&self.host(port).dir, port, peer, *advert_ms)?;
                self.start(port, "keepalived", "keepalived", args, false)?;
                if port == Port::Db1 { self.wait_serving().map(drop) } else { self.replicate_by_hand(port) }
            }
            Driver::Sentinel => sentinel::start(self, port),
            Driver::Pacemaker => pacemaker::start(self, port),
            Driver::Nobody => Ok(()),
        }
    }

    /// Opens the databases of a node as an administrator would, with semi-synchronous replication, and takes the
    /// virtual IP if asked.
    ///
    /// # Errors
    /// A server or the kernel refuses.
    pub fn serve_by_hand(&self, port: Port, with_vip: bool) -> Result<()> {
        let host = self.host(port);
        database::query(&host.mysql(), self.flavour().semi_sync(true))?;
        database::query(&host.mysql(), self.flavour().open())?;
        redis::ask::<String>(&host.redis(), &["REPLICAOF", "NO", "ONE"])?;
        redis::ask::<String>(&host.redis(), &["CONFIG", "SET", "min-replicas-to-write", "0"])?;
        if with_vip {
            let vip = format!("{VIP}/24");
            shell::run("ip", &["-n", &self.wire.netns(port), "addr", "add", &vip, "dev", INTERFACE])?;
        }
        Ok(())
    }

    /// Starts replication on a node and waits until both its databases follow.
    ///
    /// # Errors
    /// They do not within 30 s.
    pub fn replicate_by_hand(&self, port: Port) -> Result<()> {
        database::query(&self.host(port).mysql(), self.flavour().start_replica())?;
        self.wait_replicating(port)
    }

    /// Waits until both databases of a node follow.
    ///
    /// # Errors
    /// They do not within 30 s.
    pub fn wait_replicating(&self, port: Port) -> Result<()> {
        let host = self.host(port);
        wait::until_true("the database to replicate", VIP_LIMIT, || {
            let rows = database::query(&host.mysql(), self.flavour().replica_status())?;
            Ok(rows.first().is_some_and(|row| self.flavour().replicates(row)))
        })?;
        wait::until_true("Redis to replicate", VIP_LIMIT, || {
            Ok(redis::replication(&host.redis(), "master_link_status")? == "up")
        })
    }

    /// Waits until a data node with power has the virtual IP and a database that takes writes, and says which.
    ///
    /// # Errors
    /// None does within 30 s.
    pub fn wait_serving(&self) -> Result<Port> {
        wait::until("a node to serve", VIP_LIMIT, || self.serving())
    }

    /// The kinds of data that are looked after.
    #[must_use]
    pub fn kinds(&self) -> &'static [Kind] {
        self.options.driver.kinds()
    }

    /// Which data node has the virtual IP and databases that take writes.
    ///
    /// # Errors
    /// A namespace is gone.
    pub fn serving(&self) -> Result<Option<Port>> {
        for port in DATA {
            let host = self.host(port);
            let opened = |kind: &Kind| match kind {
                Kind::Mysql => database::value(&host.mysql(), "SELECT @@global.read_only")
                    .is_ok_and(|value| value == "0"),
                Kind::Redis => redis::replication(&host.redis(), "role").is_ok_and(|role| role == "master"),
            };
            let has_address = host.has_power() && self.wire.has_address(port, VIP)?;
            if has_address && self.kinds().iter().all(opened) {
                return Ok(Some(port));
            }
        }
        Ok(None)
    }

    /// What an agent that answers says of the cluster.
    ///
    /// # Errors
    /// None answers.
    pub fn standing(&self) -> Result<agents::Standing> {
        let config = self.config.as_ref().context("no agents in this lab")?;
        let mut refused = anyhow::anyhow!("no host has power");
        // The witness first: it is the last to be in trouble.
        for host in self.hosts.iter().rev().filter(|host| host.has_power()) {
            match agents::standing(config, host.port) {
                Ok(standing) => return Ok(standing),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Power loss: off the wire, every process killed, nothing left in the kernel.
    ///
    /// # Errors
    /// The kernel refuses, or something survives.
    pub fn power_off(&self, port: Port) -> Result<()> {
        self.host(port).powered.store(false, Ordering::SeqCst);
        self.wire.carrier(port, false)?;
        process::kill_all(&self.wire.path(port))?;
        self.wire.address(port)
    }

    /// The agent of a host is killed and stays down, until [`Lab::start_driver`]. All else lives on.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_driver(&self, port: Port) -> Result<()> {
        let host = self.host(port);
        let agent = host.process("agent")?;
        // A service manager starts nothing again without power.
        host.powered.store(false, Ordering::SeqCst);
        agent.signal(nix::sys::signal::Signal::SIGKILL)?;
        wait::until_true("the agent to end", Duration::from_secs(10), || Ok(agent.pid().is_none()))?;
        wait::pass(2 * process::RESTART_AFTER)?;
        host.powered.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Power is back: the host boots, its servers and its agent start as they always do.
    ///
    /// # Errors
    /// Something does not start.
    pub fn power_on(&self, port: Port) -> Result<()> {
        self.host(port).powered.store(true, Ordering::SeqCst);
        self.wire.carrier(port, true)?;
        if DATA.contains(&port) {
            self.start_servers(port)?;
        }
        self.start_driver(port)
    }

    /// The writer behind the virtual IP.
    #[must_use]
    pub fn load(&self, origin: Origin) -> LoadOptions {
        let vip = |port| SocketAddr::new(IpAddr::V4(VIP), port);
        let mysql = MysqlTarget {
            address: vip(database::PORT),
            user: "app".into(),
            password: database::PASSWORD.into(),
            schema: database::APP_SCHEMA.into(),
            table: "writes".into(),
        };
        LoadOptions {
            netns: Some(self.wire.path(Port::Client)),
            mysql: self.kinds().contains(&Kind::Mysql).then_some(mysql),
            redis: Some(RedisTarget::plain(vip(redis::PORT))),
            ..LoadOptions::every_10_ms(origin)
        }
    }

    /// The watch on who answers for the virtual IP.
    #[must_use]
    pub fn watch(&self, origin: Origin) -> WatchOptions {
        WatchOptions {
            netns: Some(self.wire.path(Port::Observer)),
            interface: INTERFACE.into(),
            vip: VIP,
            senders: ARP_SENDERS,
            period: Duration::from_millis(10),
            origin,
        }
    }

    /// What the databases of a node hold. A kind that cannot be read is missing from the answer.
    #[must_use]
    pub fn contents(&self, port: Port) -> Finals {
        let host = self.host(port);
        let mysql = database::contents(&host.mysql()).map(|ids| (Kind::Mysql, ids));
        let redis = redis::contents(&host.redis()).map(|ids| (Kind::Redis, ids));
        Finals([mysql, redis].into_iter().flatten().collect())
    }

    /// The same of some writes, in a lab that has had many.
    #[must_use]
    pub fn contents_of(&self, port: Port, ids: Range<u64>) -> Finals {
        let host = self.host(port);
        let mysql = database::contents_of(&host.mysql(), ids.clone()).map(|ids| (Kind::Mysql, ids));
        let redis = redis::contents_of(&host.redis(), ids).map(|ids| (Kind::Redis, ids));
        Finals([mysql, redis].into_iter().flatten().collect())
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
