//! Everything that the agent can lay hands on at its own node, opened once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use baton_netops::{Announcer, Cut, Gate, GateError, Network, ResetSpec, gate, reset_clients};
use baton_runbooks::model::NodeId;
use baton_runbooks::observe::NodeReport;

use super::contest::Looks;
use super::services::Services;
use crate::config::Config;
use crate::hands::mysql::{Mysql, MysqlAccess};
use crate::hands::redis::{Redis, RedisAccess};

/// A reset lists and destroys sockets; it takes milliseconds unless there are very many.
const RESET_DEADLINE: Duration = Duration::from_secs(2);
/// What comes first must not hold up the closing.
const RESET_FIRST_DEADLINE: Duration = Duration::from_millis(50);
/// The ports are closed long before this is over; should they not be, clients are let in again.
const PARTING: Duration = Duration::from_secs(1);

/// A stream that was found to pass is looked at again after this. This agent knows what it cuts; whoever else would make a
/// rule in its table is found later.
const PASSES_FOR: Duration = Duration::from_secs(3);

/// The cut, and which streams were found to pass, and when.
struct Cuts {
    cut: Cut,
    pass: BTreeMap<(IpAddr, u16), Instant>,
}

/// The hands.
pub(crate) struct Hands {
    pub(crate) mysql: Option<Mysql>,
    pub(crate) redis: Option<Redis>,
    pub(crate) services: Option<Services>,
    pub(crate) network: Network,
    /// Who was heard to answer for the VIPs.
    pub(crate) looks: Looks,
    vips: Vec<(IpAddr, String)>,
    reset: ResetSpec,
    parting: Arc<Mutex<Option<Gate>>>,
    cut: tokio::sync::Mutex<Cuts>,
    announcer: Mutex<Option<Announcer>>,
    peers: Mutex<BTreeMap<NodeId, (Instant, NodeReport)>>,
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands").field("vips", &self.vips).finish_non_exhaustive()
    }
}

impl Hands {
    /// Reads passwords and opens sockets to the kernel; databases are dialed when they are needed.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        let data = config.is_data_node();
        let mut cut = Cut::open().context("open netfilter; the agent needs CAP_NET_ADMIN")?;
        if data && config.mysql.is_some() {
            cut.install().await.context("install the table for cutting replication")?;
        }
        Ok(Self {
            mysql: config.mysql.as_ref().filter(|_| data).map(open_mysql).transpose()?,
            redis: config.redis.as_ref().filter(|_| data).map(open_redis).transpose()?,
            services: Services::open(config).await?,
            network: Network::open().context("open routing netlink")?,
            looks: Looks::default(),
            vips: config.vips.iter().map(|vip| (vip.address.addr(), vip.interface.clone())).collect(),
            reset: reset_spec(config),
            parting: Arc::default(),
            cut: tokio::sync::Mutex::new(Cuts { cut, pass: BTreeMap::new() }),
            announcer: Mutex::new(None),
            peers: Mutex::new(BTreeMap::new()),
        })
    }

    /// Drops this node's own stream from `peer`, and reads the rule back.
    pub(crate) async fn cut_stream(&self, peer: IpAddr, port: u16) -> anyhow::Result<()> {
        let mut cuts = self.cut.lock().await;
        cuts.pass.remove(&(peer, port));
        Ok(cuts.cut.cut(peer, port).await?)
    }

    /// Lets this node's stream from `peer` through again.
    pub(crate) async fn lift_cut(&self, peer: IpAddr, port: u16) -> anyhow::Result<()> {
        let mut cuts = self.cut.lock().await;
        if cuts.pass.get(&(peer, port)).is_some_and(|since| since.elapsed() < PASSES_FOR) {
            return Ok(());
        }
        if cuts.cut.is_cut(peer, port)? {
            cuts.cut.lift(peer, port)?;
        }
        cuts.pass.insert((peer, port), Instant::now());
        Ok(())
    }

    /// The VIPs with their interfaces.
    pub(crate) fn vips(&self) -> &[(IpAddr, String)] {
        &self.vips
    }

    /// Announces the VIPs from now on, or begins the schedule anew.
    pub(crate) fn announce(&self) {
        let mut announcer = self.announcer.lock().unwrap_or_else(PoisonError::into_inner);
        match &*announcer {
            Some(running) => running.poke(),
            None => *announcer = Some(Announcer::start(self.network.clone(), self.vips.clone())),
        }
    }

    /// Announces unless it is doing so already.
    pub(crate) fn keep_announcing(&self) {
        let mut announcer = self.announcer.lock().unwrap_or_else(PoisonError::into_inner);
        announcer.get_or_insert_with(|| Announcer::start(self.network.clone(), self.vips.clone()));
    }

    /// Announces no more.
    pub(crate) fn stop_announcing(&self) {
        *self.announcer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Resets the clients' connections, so that they fail at once instead of hanging.
    pub(crate) async fn reset_clients(&self) {
        self.reset_within(RESET_DEADLINE, None).await;
    }

    /// The same as the last thing before open ports close. A closed gate resets the server's own end of a connection that it
    /// answers on, and the database ends sessions: from then on there is nothing left by which the client, who waits for that
    /// answer, could be told. New connections are refused meanwhile. Closing waits only a moment for it.
    pub(crate) async fn reset_clients_first(&self) {
        self.reset_within(RESET_FIRST_DEADLINE, Some(PARTING)).await;
    }

    async fn reset_within(&self, deadline: Duration, parting: Option<Duration>) {
        let (spec, gate) = (self.reset.clone(), Arc::clone(&self.parting));
        let until = Instant::now() + deadline;
        let reset = tokio::task::spawn_blocking(move || {
            // Nobody waits for it any more: the ports may be open again, for another wish.
            if Instant::now() >= until {
                return Ok(0);
            }
            if let Some(parting) = parting
                && let Err(error) = part(&gate, parting)
            {
                tracing::warn!(
                    error = crate::chain::chain(&error),
                    "new clients are not refused before the closing"
                );
            }
            reset_clients(&spec)
        });
        match tokio::time::timeout(deadline, reset).await {
            Ok(Ok(Ok(0))) => {}
            Ok(Ok(Ok(count))) => tracing::info!(count, "client connections reset"),
            Ok(Ok(Err(error))) => tracing::warn!(error = crate::chain::chain(&error), "clients not reset"),
            Ok(Err(_)) | Err(_) => tracing::warn!("resetting clients did not end in time"),
        }
    }

    /// Notes a peer's newest report, which arrived then.
    pub(crate) fn note_peer(&self, report: NodeReport, at: Instant) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).insert(report.node.clone(), (at, report));
    }

    /// A peer's newest report, however old it is.
    pub(crate) fn peer(&self, node: &NodeId) -> Option<NodeReport> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).get(node).map(|(_, report)| report.clone())
    }

    /// A peer's newest report, unless it is older than `age_max`.
    pub(crate) fn peer_lately(&self, node: &NodeId, age_max: Duration) -> Option<NodeReport> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(node).filter(|(at, _)| at.elapsed() <= age_max).map(|(_, report)| report.clone())
    }
}

/// Refuses new clients for a while. The socket is kept: whoever closes one holds up all other transactions of netfilter, and the
/// next is that which closes the ports. 16 ms were seen.
fn part(kept: &Mutex<Option<Gate>>, parting: Duration) -> Result<(), GateError> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let mut gate = match kept.take() {
        Some(gate) => gate,
        None => Gate::open(gate::DEFAULT_SLOTS)?,
    };
    gate.part(parting)?;
    *kept = Some(gate);
    Ok(())
}

fn open_mysql(config: &crate::config::Mysql) -> anyhow::Result<Mysql> {
    Mysql::new(access(config)?).context("read this host's boot id")
}

/// How to reach the local server; reads the passwords.
pub(super) fn access(config: &crate::config::Mysql) -> anyhow::Result<MysqlAccess> {
    Ok(MysqlAccess {
        socket: config.socket.clone(),
        user: config.user.clone(),
        password: config.read_password()?.expose().to_owned(),
        replication_user: config.replication_user.clone(),
        replication_password: config.read_replication_password()?.expose().to_owned(),
        schema: config.schema.clone(),
        port: config.port,
    })
}

fn open_redis(config: &crate::config::Redis) -> anyhow::Result<Redis> {
    redis_access(config).map(Redis::new)
}

/// How to reach the local server; reads the password.
pub(super) fn redis_access(config: &crate::config::Redis) -> anyhow::Result<RedisAccess> {
    let password = config.read_password()?.expose().to_owned();
    Ok(RedisAccess { socket: config.socket.clone(), user: config.user.clone(), password })
}

fn reset_spec(config: &Config) -> ResetSpec {
    let peers = config.nodes.iter().filter(|node| node.name != config.node).map(|node| node.address);
    ResetSpec {
        ports: config.guarded_ports(),
        local_ip: None,
        except_peers: peers.collect(),
        vips: config.vips.iter().map(|vip| vip.address.addr()).collect(),
    }
}
