//! The agent: puts the parts together and runs until it is told to stop.
//!
//! ```text
//!  consensus thread        main runtime                                  lease thread
//!  ┌──────────────┐  ledger, standing  ┌────────┐  orders   ┌──────────────────────────┐
//!  │ openraft     │ ─────────────────▶ │ driver │ ────────▶ │ renewals, grants, kernel │
//!  └──────────────┘ ◀───── proposals ─ └────────┘ ◀──────── └──────────────────────────┘
//!                                        │  ▲ inputs
//!                          wishes, steps ▼  │
//!                        reconciler · executors · senses · keeper · reports · API
//! ```
//!
//! One task owns the pure core (`driver`). Everything else runs beside it, takes what it needs from watches, and comes
//! back as an input. Order at the start: the local state and the kernel's leftovers first, so that an agent that was killed
//! is closed or continued before it talks to anybody.

pub mod clock;
mod contest;
mod drill;
mod driver;
mod ending;
mod executor;
mod exposure;
mod hands;
mod keeper;
mod local_state;
mod operator;
mod own;
mod propose;
mod quarantine;
mod reconcile;
mod reports;
mod resync;
mod senses;
mod services;
mod settlement;
mod steering;
mod validate;
mod views;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use baton_consensus::{Handle, Member, Options, Tls};
use baton_netops::{GateSpec, VipSpec};
use baton_runbooks::agent::{Setup, TICK_MAX_MS};
use baton_runbooks::decide::Policy;
use baton_runbooks::detect::Patience;
use baton_runbooks::lease::Terms;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::Command;
use baton_runbooks::model::NodeKind;
use tokio::sync::mpsc;

use crate::cli::Exit;
use crate::config::Config;
use crate::copy::{self, Copies, Ordered};
use crate::hands::mysql::close::Closing;
use crate::hands::redis::Clients;
use crate::lease::{self, LeaseHandle};
use clock::Clock;
use hands::Hands;
use local_state::LocalState;
pub(crate) use local_state::write as write_synced;

/// Slots of the kernel's ring: more than the renewals that can be on the way within one lease.
const SLOTS: u8 = 16;
/// Free bytes on the data disk below which MySQL is about to hang (databases.md, A).
const DISK_FREE_MIN: u64 = 64 << 20;
/// A service is started anew as soon as it is seen to be gone, with this long to get healthy (the takeover's limit) and a
/// look every few seconds: one whole attempt fits in.
const SERVICE_LOST_MS: u64 = 25_000;
/// What a clean stop may take, part by part; together less than the service manager waits before it kills.
const LEAVE_DOORS: Duration = Duration::from_secs(1);
const LEAVE_DATABASES: Duration = Duration::from_secs(3);
const LEAVE_CONSENSUS: Duration = Duration::from_secs(3);
/// Budget for closing one database at a clean stop.
const CLOSE_BUDGET: Duration = Duration::from_secs(1);
/// Failed takeovers to one node within the anti-flap window after which the next one waits.
const ANTI_FLAP_MAX: u32 = 3;

/// Runs the agent until SIGTERM or SIGINT.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    // With two providers in the process rustls would refuse to choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread: every task waits for the outside nearly always, and to wake another thread costs more than its work.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return Exit::Usage.into();
        }
    };
    match runtime.block_on(live(Arc::new(config))) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            tracing::error!("the agent cannot start: {error:#}");
            eprintln!("baton agent: {error:#}");
            if let Some(patience) = ending::linger(&error) {
                crate::telemetry::flush();
                runtime.block_on(ending::stopped_within(patience));
            }
            Exit::Usage.into()
        }
    }
}

/// Everything that the agent's tasks share. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) consensus: Handle,
    pub(crate) lease: LeaseHandle,
    pub(crate) hands: Arc<Hands>,
    pub(crate) local: Arc<LocalState>,
    pub(crate) sync: Arc<settlement::Settlement>,
    pub(crate) ward: quarantine::Ward,
    pub(crate) resync: resync::Resync,
    pub(crate) drills: Arc<drill::Drills>,
    pub(crate) tls: Tls,
    /// `None` where there is no database to copy; orders are taken everywhere.
    pub(crate) copies: Option<Copies>,
}

async fn live(config: Arc<Config>) -> anyhow::Result<()> {
    let clock = Clock::start();
    let drills = Arc::new(drill::Drills::open(&config).await);
    let boot = local_state::draw_boot()?;
    let local = Arc::new(LocalState::open(&config.state_dir)?);
    let tls =
        Tls::load(&config.pki.ca, &config.pki.cert, &config.pki.key, &config.cluster, config.node.clone())?;
    let (consensus, inbox) = baton_consensus::start(consensus_options(&config, tls.clone()))?;
    let hands = Arc::new(Hands::open(&config).await?);
    let (observed, observations) = tokio::sync::mpsc::channel(driver::INPUTS_MAX);
    let setup = lease_setup(&config, boot, tls.clone(), clock, &consensus, observed.clone());
    let lease = tokio::task::spawn_blocking(move || lease::spawn(setup)).await??;
    let sync = Arc::new(settlement::Settlement::default());
    let ward = quarantine::Ward::new(&config.state_dir);
    let resync = resync::Resync::open(&config.state_dir);
    let (copies, orders) = start_copies(&config, &tls, &consensus, &lease)?;
    let context = Context {
        config: Arc::clone(&config),
        clock,
        consensus,
        lease,
        hands,
        local,
        sync,
        ward,
        resync,
        drills,
        tls,
        copies,
    };
    resync::serve(&context, orders);
    drill::start(&context);
    context.consensus.prefer(reports::preferred(&config, None));
    let core = core_setup(&context, boot);
    let stopped = ending::stop_signal()?;
    tracing::info!("agent started");
    let ended = driver::run(context.clone(), core, observed, observations, inbox, stopped).await;
    leave(context).await;
    ended
}

/// The port and thread of orders and copies; the orders that come over it. Copies are for a data node with a database.
fn start_copies(
    config: &Config,
    tls: &Tls,
    consensus: &Handle,
    lease: &LeaseHandle,
) -> anyhow::Result<(Option<Copies>, mpsc::Receiver<Ordered>)> {
    let (orders, ordered) = mpsc::channel(copy::ORDERS_MAX);
    let giver = |mysql| -> anyhow::Result<_> {
        Ok(copy::Giver {
            me: config.node.clone(),
            committed: consensus.committed(),
            lease: lease.view(),
            access: hands::access(mysql)?,
            run_dir: config.run_dir.clone(),
            given: Arc::default(),
        })
    };
    let giver = config.mysql.as_ref().filter(|_| config.is_data_node()).map(giver).transpose()?;
    let has_database = giver.is_some();
    let setup = copy::Setup {
        tls: tls.clone(),
        listen: config.copy_address(config.this()),
        members: config.nodes.iter().map(|node| node.name.clone()).collect(),
        orders,
        giver,
    };
    let copies = Copies::start(setup)?;
    Ok((has_database.then_some(copies), ordered))
}

/// A clean stop: what is open is closed at once instead of when its lease ends, for an agent that is gone cannot stop what
/// runs beside it: events that write, clients on this host. The holder does not release: a stop for an upgrade must not
/// move the service if the agent is back within the lease. Role-bound services go on for the same reason; they reach no
/// database of ours until the doors are open again.
///
/// While a pause goes on a stop is what the pause is for: what is open stays open until the pause ends.
async fn leave(context: Context) {
    drill::leave(&context).await;
    let Context { lease, hands, consensus, clock, .. } = context;
    hands.stop_announcing();
    let long = lease.view().borrow().facts.long;
    if let Some((pause, until)) = long.filter(|(_, until)| clock.now() < *until) {
        let left_ms = until.since_ms(clock.now());
        tracing::warn!(%pause, left_ms, "paused: this node goes on serving without its agent until the pause ends");
        if tokio::time::timeout(LEAVE_CONSENSUS, consensus.shutdown()).await.is_err() {
            tracing::warn!("the Raft log did not close in time; it recovers at the next start");
        }
        return;
    }
    // No wish is newer than this one, so no task that is still at work opens anything again.
    let doors = async {
        part_from_clients(&lease, &hands).await;
        let closed = lease.close(&[Door::Vip, Door::Ports], u64::MAX).await;
        // The others wait for the lease's end, so it is not prolonged while the rest closes.
        closed.and(lease.renew(None, u64::MAX).await)
    };
    match tokio::time::timeout(LEAVE_DOORS, doors).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "could not close at once; the tickets end it"),
        Err(_) => tracing::error!("closing did not end in time; the tickets end it"),
    }
    let databases = async {
        hands.reset_clients().await;
        tokio::join!(close_mysql(&hands), close_redis(&hands));
    };
    if tokio::time::timeout(LEAVE_DATABASES, databases).await.is_err() {
        tracing::warn!("the databases did not close in time; their ports are closed");
    }
    if tokio::time::timeout(LEAVE_CONSENSUS, consensus.shutdown()).await.is_err() {
        tracing::warn!("the Raft log did not close in time; it recovers at the next start");
    }
}

/// The last thing before open ports close; where they are not open there is nobody to be told.
async fn part_from_clients(lease: &LeaseHandle, hands: &Hands) {
    if lease.view().borrow().ports_open {
        hands.reset_clients_first().await;
    }
}

async fn close_mysql(hands: &Hands) {
    let Some(mysql) = &hands.mysql else { return };
    match mysql.is_read_only(CLOSE_BUDGET).await {
        Ok(true) => {}
        Ok(false) | Err(_) => match mysql.close_writes(CLOSE_BUDGET).await {
            Closing::Closed { killed, .. } => tracing::info!(killed, "MySQL is read-only"),
            Closing::StillOpen { why } | Closing::Unknown { why } => {
                tracing::warn!(why, "MySQL is not read-only; its port is closed");
            }
        },
    }
}

async fn close_redis(hands: &Hands) {
    let Some(redis) = &hands.redis else { return };
    if let Err(error) = redis.close(Clients::Kill, CLOSE_BUDGET).await {
        tracing::warn!(
            error = crate::chain::chain(&error),
            "Redis does not refuse writes; its port is closed"
        );
    }
}

fn consensus_options(config: &Config, tls: Tls) -> Options {
    let members = config
        .nodes
        .iter()
        .map(|node| Member { id: node.name.clone(), raft_addr: config.raft_address(node) });
    Options {
        cluster: config.cluster.clone(),
        me: config.node.clone(),
        members: members.collect(),
        dir: config.state_dir.clone(),
        tls,
        timing: baton_consensus::Timing {
            heartbeat_ms: config.timing.heartbeat.as_ms(),
            election_min_ms: config.timing.election_min.as_ms(),
            election_max_ms: config.timing.election_max.as_ms(),
        },
        bootstrap: Command::Bootstrap {
            cluster: config.cluster.clone(),
            members: config.members(),
            initial_holder: config.initial_holder.clone(),
            mysql: config.mysql.is_some(),
        },
    }
}

/// The numbers of the lease.
fn terms(config: &Config) -> Terms {
    Terms {
        lease_ms: config.timing.lease.as_ms(),
        renew_ms: config.timing.renew.as_ms(),
        margin_ms: config.timing.margin.as_ms(),
        age_max_ms: config.timing.age_max.as_ms(),
        slots: u64::from(SLOTS),
    }
}

fn lease_setup(
    config: &Config,
    boot: u64,
    tls: Tls,
    clock: Clock,
    consensus: &Handle,
    observations: tokio::sync::mpsc::Sender<baton_runbooks::observe::Observation>,
) -> lease::Setup {
    let others = config.nodes.iter().filter(|node| node.name != config.node);
    lease::Setup {
        me: config.node.clone(),
        terms: terms(config),
        boot,
        listen: config.lease_address(config.this()),
        peers: others.map(|node| (node.name.clone(), config.lease_address(node))).collect(),
        tls,
        clock,
        gate: (config.this().kind == NodeKind::Data).then(|| gate_spec(config)),
        address_lifetime_s: config.timing.address_lifetime.seconds_up(),
        standing: consensus.standing(),
        committed: consensus.committed(),
        observations,
    }
}

/// What the kernel guards on a data node.
fn gate_spec(config: &Config) -> GateSpec {
    let peers = config
        .nodes
        .iter()
        .filter(|node| node.kind == NodeKind::Data && node.name != config.node)
        .map(|node| node.address);
    GateSpec {
        vips: config
            .vips
            .iter()
            .map(|vip| VipSpec { ip: vip.address.addr(), interface: vip.interface.clone() })
            .collect(),
        ports: config.guarded_ports(),
        peers: peers.collect(),
        // One more for the long lease of a pause.
        slots: SLOTS + 1,
    }
}

/// Nothing is decided by a report that is older, milliseconds.
fn report_max_ms(config: &Config) -> u64 {
    let timing = &config.timing;
    (3 * timing.report.as_ms() + timing.rtt.as_ms()).max(timing.lease.as_ms() / 2)
}

fn core_setup(context: &Context, boot: u64) -> Setup {
    let config = &context.config;
    Setup {
        me: config.node.clone(),
        own_address: config.this().address.to_string(),
        policy: Policy {
            scope: config.scope(),
            report_max_ms: report_max_ms(config),
            // The core is told its standing at ticks.
            quorum_max_ms: config.timing.age_max.as_ms() + TICK_MAX_MS,
            anti_flap_ms: config.timing.anti_flap.as_ms(),
            anti_flap_max: ANTI_FLAP_MAX,
            cold_start_ms: config.timing.cold_start_patience.as_ms(),
        },
        patience: patience(config),
        sync_patience_ms: config.timing.sync_patience.as_ms(),
        redis: config.redis.is_some(),
        holder_services: config
            .services
            .iter()
            .filter(|service| service.runs_on == crate::config::RunsOn::Holder)
            .map(|service| service.name.clone())
            .collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_hash: config.hash.clone(),
        new_leader_ms: terms(config).new_leader_wait_ms(),
        opened: context.local.opened(),
        writable_boot: context.local.writable_boot(),
        redis_boot: context.local.redis_boot(),
        boot,
    }
}

/// How patient the detector is: it follows from the probe period and the lease, so that a fast profile judges fast.
fn patience(config: &Config) -> Patience {
    let probe = config.timing.probe.duration();
    Patience {
        refused_count: 2,
        hung_ms: (probe * 5).max(Duration::from_secs(1)).as_millis() as u64,
        stalled_ms: (probe * 8).max(Duration::from_millis(1_600)).as_millis() as u64,
        disk_free_min: DISK_FREE_MIN,
        settle_ms: config.timing.lease.as_ms(),
        service_lost_ms: SERVICE_LOST_MS,
        // A holder that is quite cut off is relieved when its lease ends: a quarter of that is early enough for the one that
        // can still give its lease back by another interface.
        link_lost_ms: config.timing.lease.as_ms() / 4,
    }
}
