//! The writer: one write per kind of data every 10 ms, whatever happens to those before.
//!
//! *Open loop*: write `k` is due at `start + k · period` and is measured from then. A writer that waits for an answer
//! before it asks again stops asking during an outage and hides it. Each write runs as a task of its own; how many run
//! at once is capped, and what is over the cap is recorded as refused (never sent), not delayed.
//!
//! *Connections* are taken from a small stack, the newest first. When one fails, all idle ones are dropped, as a
//! connection pool of an application does: they lead to the same server. A connection is asked once, when it is
//! made, which server it leads to; a TCP connection cannot move to another.
//!
//! *Several clients* take turns at the writes. Each has one connection of its own and does one write at a time: a turn that
//! comes while it still waits is recorded as refused. A client whose write failed connects anew and tries another one every
//! few milliseconds, until one is acknowledged or its next turn is near: else a move that breaks every connection would
//! seem to last for as long as all of them take to have two turns. Each attempt is a write of its own in the history, with
//! an id of its own and the intended time of its turn.
//!
//! *Visits*: beside the writer a client that keeps no connection connects, reads and goes, if it is wanted.
//!
//! The writer runs on one thread with one single-threaded runtime, so that it costs the machine little.

mod mysql;
mod redis;
mod visit;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::history::{History, Kind, Lateness, Origin, Outcome, Write};
use crate::netns::{self, EnterError};

pub use mysql::{MysqlTarget, SCHEMA_SQL, schema_sql};
pub use redis::{KEY_PREFIX, RedisTarget};
use visit::Visitors;

/// Idle connections that are kept per kind: a healthy server needs one or two.
const IDLE_MAX: usize = 4;
/// One of several clients whose write failed tries again after this.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// Ids of such attempts lie this far above those of the turns.
const RETRY_IDS: u64 = 1 << 40;
/// How long a stopping writer waits for the writes that still run, beyond their own limits.
const STOP_SLACK: Duration = Duration::from_millis(200);

/// What to write, where, how often.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Namespace to stand in; none: the caller's.
    pub netns: Option<PathBuf>,
    /// MySQL, if it is to be written to.
    pub mysql: Option<MysqlTarget>,
    /// Redis, if it is to be written to.
    pub redis: Option<RedisTarget>,
    /// Time between two writes of one kind, whoever's turn it is.
    pub period: Duration,
    /// Time between two visits of one kind, by a client that connects anew for each, in whole periods; none: there are none.
    pub visit_every: Option<Duration>,
    /// How many clients take turns. One is a pool that writes on time whatever happens to the writes before.
    pub clients: u64,
    /// Longest time for a connection to be made, and again for a write to be answered.
    pub limit: Duration,
    /// Most writes of one kind that run at once. A server that hangs holds each for twice `limit`, so fewer than
    /// `2 · limit / period` would make the loop miss the moment at which the service returns.
    pub in_flight_max: usize,
    /// Id of the first write; the others follow it.
    pub first_id: u64,
    /// Where the history's time starts.
    pub origin: Origin,
}

impl LoadOptions {
    /// The measuring writer of the figures: every 10 ms, limits 0.4 s, nothing to write to yet.
    #[must_use]
    pub fn every_10_ms(origin: Origin) -> Self {
        Self {
            netns: None,
            mysql: None,
            redis: None,
            period: Duration::from_millis(10),
            visit_every: None,
            clients: 1,
            limit: Duration::from_millis(400),
            in_flight_max: 96,
            first_id: 0,
            origin,
        }
    }
}

/// Why the writer could not be started, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The thread could not enter its namespace.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The runtime could not be made.
    #[error("runtime of the writer")]
    Runtime(#[from] std::io::Error),
    /// The thread ended before it was told to.
    #[error("the writer ended by itself")]
    Lost,
}

/// What a running writer has achieved so far, one counter of acknowledgements per kind.
#[derive(Debug, Default)]
struct Progress {
    mysql: AtomicU64,
    redis: AtomicU64,
}

impl Progress {
    fn of(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Mysql => &self.mysql,
            Kind::Redis => &self.redis,
        }
    }
}

/// A running writer; it stops when it is dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<Option<Result<History, LoadError>>>>,
}

impl Load {
    /// Starts to write.
    ///
    /// # Errors
    /// The thread cannot enter its namespace.
    pub fn start(options: LoadOptions) -> Result<Self, LoadError> {
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Progress::default());
        let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&progress));
        let netns = options.netns.clone();
        let thread = netns::spawn("load", netns, move || run(&options, &stopping, &counting))?;
        Ok(Self { stop, progress, thread: Some(thread) })
    }

    /// How many writes of this kind were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self, kind: Kind) -> u64 {
        self.progress.of(kind).load(Ordering::Relaxed)
    }

    /// Stops, waits for the writes that still run, and tells what happened.
    ///
    /// # Errors
    /// The runtime could not be made, or the thread ended by itself.
    pub fn stop(mut self) -> Result<History, LoadError> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop and drop take it");
        thread.join().ok().flatten().ok_or(LoadError::Lost)?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Why a write was not acknowledged.
#[derive(Debug)]
enum Failure {
    /// It has certainly not been executed.
    Refused(String),
    /// It may have been executed.
    Unknown(String),
}

/// A kind of server that can be written to.
trait Target: 'static {
    const KIND: Kind;
    type Conn;
    /// A connection, and the name of the server that it leads to.
    async fn connect(&self) -> Result<(Self::Conn, String), String>;
    async fn write(&self, conn: &mut Self::Conn, id: u64) -> Result<(), Failure>;
}

/// What one client keeps.
struct Client<C> {
    idle: RefCell<Vec<Idle<C>>>,
    /// Raised at each failure: a connection of an older generation is not kept.
    generation: Cell<u64>,
    in_flight: Cell<usize>,
}

impl<C> Default for Client<C> {
    fn default() -> Self {
        Self { idle: RefCell::default(), generation: Cell::new(0), in_flight: Cell::new(0) }
    }
}

struct Idle<C> {
    conn: C,
    server: Rc<str>,
    generation: u64,
}

/// One kind's writer.
struct Writer<T: Target> {
    target: T,
    address: SocketAddr,
    limit: Duration,
    origin: Origin,
    clients: Vec<Client<T::Conn>>,
    /// From one turn of a client to its next, microseconds.
    turn_us: u64,
    /// Id of the next attempt that is no turn's first.
    retry_id: Cell<u64>,
    in_flight: Cell<usize>,
    history: Rc<RefCell<History>>,
    progress: Arc<Progress>,
}

impl<T: Target> Writer<T> {
    fn client(&self, id: u64) -> &Client<T::Conn> {
        let turn = usize::try_from(id).unwrap_or(usize::MAX) % self.clients.len();
        &self.clients[turn]
    }

    async fn attempt(
        &self,
        client: &Client<T::Conn>,
        id: u64,
        server: &RefCell<Option<Rc<str>>>,
    ) -> Result<(), Failure> {
        let kept = client.idle.borrow_mut().pop();
        let mut idle = match kept {
            Some(idle) => idle,
            None => {
                let generation = client.generation.get();
                let made = timeout(self.limit, self.target.connect()).await;
                let made = made.unwrap_or_else(|_| Err("time-out at connect".into()));
                let (conn, server) =
                    made.map_err(|error| Failure::Refused(format!("{}: {error}", self.address)))?;
                Idle { conn, server: server.into(), generation }
            }
        };
        *server.borrow_mut() = Some(Rc::clone(&idle.server));
        match timeout(self.limit, self.target.write(&mut idle.conn, id)).await {
            Ok(Ok(())) => {
                let mut stack = client.idle.borrow_mut();
                if stack.len() < IDLE_MAX && idle.generation == client.generation.get() {
                    stack.push(idle);
                }
                Ok(())
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Unknown("time-out at write".into())),
        }
    }

    /// One attempt, and what came of it. True: it was acknowledged.
    async fn write(&self, client: &Client<T::Conn>, id: u64, intended_us: u64) -> bool {
        let started_us = self.origin.now_us();
        let server = RefCell::new(None);
        let ended = self.attempt(client, id, &server).await;
        let ended_us = self.origin.now_us();
        let outcome = match ended {
            Ok(()) => {
                self.progress.of(T::KIND).fetch_add(1, Ordering::Relaxed);
                Outcome::Acknowledged
            }
            Err(failure) => {
                client.generation.set(client.generation.get() + 1);
                client.idle.borrow_mut().clear();
                match failure {
                    Failure::Refused(error) => Outcome::Refused { error },
                    Failure::Unknown(error) => Outcome::Unknown { error },
                }
            }
        };
        let is_done = outcome == Outcome::Acknowledged;
        let server = server.into_inner().map(|name| name.to_string());
        self.record(Write { kind: T::KIND, id, intended_us, started_us, ended_us, outcome, server });
        is_done
    }

    /// A turn: one write, and for one of several clients more of them, until one is acknowledged or the next turn is near.
    async fn turn(&self, id: u64, intended_us: u64) {
        let client = self.client(id);
        let mut is_done = self.write(client, id, intended_us).await;
        let until_us = intended_us + self.turn_us;
        let pause_us = u64::try_from(RETRY_AFTER.as_micros()).expect("a short pause");
        // One that would hardly end before the next turn is not begun: that turn would find its client busy.
        while !is_done && self.clients.len() > 1 && self.origin.now_us() + 2 * pause_us < until_us {
            tokio::time::sleep(RETRY_AFTER).await;
            let again = self.retry_id.replace(self.retry_id.get() + 1);
            is_done = self.write(client, again, intended_us).await;
        }
    }

    fn record(&self, write: Write) {
        self.history.borrow_mut().writes.push(write);
    }

    fn start(self: &Rc<Self>, id: u64, intended_us: u64, in_flight_max: usize) {
        let is_busy = self.clients.len() > 1 && self.client(id).in_flight.get() > 0;
        if is_busy || self.in_flight.get() >= in_flight_max {
            let now_us = self.origin.now_us();
            let error = if is_busy { "the client still waits" } else { "too many writes in flight" };
            let outcome = Outcome::Refused { error: error.into() };
            self.record(Write {
                kind: T::KIND,
                id,
                intended_us,
                started_us: now_us,
                ended_us: now_us,
                outcome,
                server: None,
            });
            return;
        }
        self.in_flight.set(self.in_flight.get() + 1);
        let busy = &self.client(id).in_flight;
        busy.set(busy.get() + 1);
        let writer = Rc::clone(self);
        tokio::task::spawn_local(async move {
            writer.turn(id, intended_us).await;
            writer.in_flight.set(writer.in_flight.get() - 1);
            let busy = &writer.client(id).in_flight;
            busy.set(busy.get() - 1);
        });
    }
}

fn run(options: &LoadOptions, stop: &AtomicBool, progress: &Arc<Progress>) -> Result<History, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let history = Rc::new(RefCell::new(History::default()));
    let mysql =
        options.mysql.clone().map(|target| writer(options, target.address, target, &history, progress));
    let redis =
        options.redis.clone().map(|target| writer(options, target.address, target, &history, progress));
    let visitors = Visitors::new(options, &history);
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let period_us = u64::try_from(options.period.as_micros()).expect("a short period");
        let first_us = options.origin.now_us() + period_us;
        let mut lateness = Vec::new();
        for id in 0.. {
            let due_us = first_us + id * period_us;
            tokio::time::sleep_until(options.origin.at(due_us).into()).await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            lateness.push(options.origin.now_us().saturating_sub(due_us));
            visitors.turn(id, due_us);
            let id = options.first_id + id;
            if let Some(writer) = &mysql {
                writer.start(id, due_us, options.in_flight_max);
            }
            if let Some(writer) = &redis {
                writer.start(id, due_us, options.in_flight_max);
            }
        }
        let until = tokio::time::Instant::now() + options.limit * 2 + STOP_SLACK;
        let running = || {
            mysql.as_ref().map_or(0, |writer| writer.in_flight.get())
                + redis.as_ref().map_or(0, |writer| writer.in_flight.get())
                + visitors.under_way()
        };
        while running() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(options.period).await;
        }
        history.borrow_mut().lateness = Lateness::of(lateness);
    });
    Ok(history.take())
}

fn writer<T: Target>(
    options: &LoadOptions,
    address: SocketAddr,
    target: T,
    history: &Rc<RefCell<History>>,
    progress: &Arc<Progress>,
) -> Rc<Writer<T>> {
    let period_us = u64::try_from(options.period.as_micros()).expect("a short period");
    let clients = options.clients.max(1);
    Rc::new(Writer {
        target,
        address,
        limit: options.limit,
        origin: options.origin,
        clients: (0..clients).map(|_| Client::default()).collect(),
        turn_us: clients * period_us,
        retry_id: Cell::new(options.first_id + RETRY_IDS),
        in_flight: Cell::new(0),
        history: Rc::clone(history),
        progress: Arc::clone(progress),
    })
}

#[cfg(test)]
mod tests;
