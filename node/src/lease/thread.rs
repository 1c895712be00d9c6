//! The thread's loop: one owner of both halves of the lease and of the kernel's gates.
//!
//! What it does on an order is in [`orders`], renewals and grants are in [`renewals`], and what it does when another
//! program changes the kernel under its feet is in [`changes`].

mod changes;
mod orders;
mod pausing;
mod renewals;

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::time::Instant;

use baton_consensus::timer::Timer;
use baton_consensus::transport::{Channel, Listener};
use baton_netops::{Event, WatchError, Watcher};
use baton_runbooks::agent::LeaseFacts;
use baton_runbooks::lease::Renewal;
use baton_runbooks::lease::granter::{Appointment, Granter, Office};
use baton_runbooks::lease::holder::{Door, Holder};
use baton_runbooks::model::{Mono, NodeId};
use tokio::sync::{mpsc, oneshot, watch};

use super::address::AddressLife;
use super::kernel::Kernel;
use super::links::{Arrived, Frame, IN_MAX, Links};
use super::pulse::Pulse;
use super::suspend::Suspend;
use super::{LeaseHandle, LeaseView, ORDERS_MAX, Order, OrderError, Setup, realtime};
use crate::hands::server::ServerId;
use pausing::Pausing;

/// Starts the thread.
///
/// # Errors
/// The port is taken, the gates cannot be installed, or the thread cannot be started.
pub fn spawn(setup: Setup) -> Result<LeaseHandle, OrderError> {
    let (orders, order_rx) = mpsc::channel(ORDERS_MAX);
    let (view_tx, view) = watch::channel(LeaseView::default());
    let (started_tx, started) = std::sync::mpsc::sync_channel(1);
    let pulse = Pulse::start(setup.clock.now());
    let heard = pulse.clone();
    let failed = |error: std::io::Error| OrderError::Kernel {
        doing: "start the lease thread",
        detail: error.to_string(),
    };
    std::thread::Builder::new()
        .name("baton-lease".to_owned())
        .spawn(move || {
            realtime::prepare();
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started_tx.send(Err(failed(error)));
                    return;
                }
            };
            runtime.block_on(async {
                match Thread::start(setup, order_rx, view_tx, heard).await {
                    Ok(thread) => {
                        let _ = started_tx.send(Ok(()));
                        thread.run().await;
                    }
                    Err(error) => {
                        let _ = started_tx.send(Err(error));
                    }
                }
            });
        })
        .map_err(failed)?;
    started.recv().map_err(|_| OrderError::Ended)??;
    Ok(LeaseHandle { orders, view, pulse })
}

/// Ends when a server process does.
type Exit = Pin<Box<dyn Future<Output = std::io::Result<()>>>>;

struct Thread {
    setup: Setup,
    holder: Holder,
    granter: Granter,
    kernel: Option<Kernel>,
    address: AddressLife,
    watcher: Option<Watcher>,
    links: Links,
    arrived: mpsc::Receiver<Arrived>,
    orders: mpsc::Receiver<Order>,
    view: watch::Sender<LeaseView>,
    pulse: Pulse,
    /// It was said that the driver hangs.
    pulse_lost: bool,
    routes: BTreeMap<(NodeId, u64, u64), mpsc::Sender<Frame>>,
    opening: Vec<(Door, oneshot::Sender<Result<(), OrderError>>)>,
    /// Renewals that were refused for a reason that may be gone in a moment, and the way back; `None`: this node's own.
    waiting: Vec<(Renewal, Option<mpsc::Sender<Frame>>)>,
    /// The newest wish that closed each door.
    closed_by: BTreeMap<Door, u64>,
    /// The newest wish that said for which epoch to renew.
    renewed_by: u64,
    /// An earlier agent may have left tickets alive that the ledger still gives us: they are not voided for nothing.
    inherits: bool,
    /// Until when a permit written here lets packets pass, at the latest; by door.
    permitted: BTreeMap<Door, Mono>,
    tickets: BTreeMap<u64, Mono>,
    /// The ticket of the newest permit, and until when its grant lasts.
    granted: Option<(u64, Mono)>,
    exit: Option<(ServerId, Exit)>,
    renew_at: Instant,
    refresh_at: Instant,
    /// The watcher failed, and is not asked again before this.
    watch_at: Instant,
    ticked_at: Instant,
    suspend: Suspend,
    /// When the rules were last looked at after a deletion, and whether another deletion came soon after.
    restored_at: Instant,
    restore_again: bool,
    refusal: Option<String>,
    pausing: Pausing,
}

impl Thread {
    async fn start(
        setup: Setup,
        orders: mpsc::Receiver<Order>,
        view: watch::Sender<LeaseView>,
        pulse: Pulse,
    ) -> Result<Self, OrderError> {
        let listen = |error: &dyn std::error::Error| OrderError::Kernel {
            doing: "listen for lease links",
            detail: crate::chain::chain(error),
        };
        let members = setup.peers.iter().map(|(node, _)| node.clone());
        let listener = Listener::bind(setup.listen, setup.tls.clone(), members, &[Channel::Lease])
            .map_err(|error| listen(&error))?;
        let inherits = setup.committed.borrow().ledger.holder.as_ref() == Some(&setup.me);
        let kernel = match setup.gate.clone() {
            Some(spec) => Some(Kernel::open(spec, setup.address_lifetime_s, inherits).await?),
            None => None,
        };
        let watcher = match &kernel {
            Some(kernel) => Some(kernel.watch().map_err(|error| listen(&error))?),
            None => None,
        };
        let (arrived_tx, arrived) = mpsc::channel(IN_MAX);
        let links = Links::start(&setup.tls, listener, &setup.peers, &arrived_tx);
        let now = Instant::now();
        Ok(Self {
            holder: Holder::new(setup.me.clone(), setup.terms, setup.boot),
            granter: Granter::new(setup.me.clone(), setup.terms),
            kernel,
            address: AddressLife::default(),
            watcher,
            links,
            arrived,
            orders,
            view,
            pulse,
            pulse_lost: false,
            routes: BTreeMap::new(),
            opening: Vec::new(),
            waiting: Vec::new(),
            closed_by: BTreeMap::new(),
            renewed_by: 0,
            inherits,
            permitted: BTreeMap::new(),
            tickets: BTreeMap::new(),
            granted: None,
            exit: None,
            renew_at: now,
            refresh_at: now,
            watch_at: now,
            ticked_at: now,
            suspend: Suspend::new(),
            restored_at: now,
            restore_again: false,
            refusal: None,
            pausing: Pausing::default(),
            setup,
        })
    }

    /// Ends when the driver is gone; what is open then ends with its ticket.
    async fn run(mut self) {
        let mut committed = self.setup.committed.clone();
        let mut renewal = Timer::until(self.renew_at);
        loop {
            renewal.reset(self.renew_at);
            tokio::select! {
                biased;
                // Before any order: one that opens for a new server must not meet doors that stand open for the last one.
                () = exited(&mut self.exit) => self.server_exited().await,
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                event = next_event(&mut self.watcher), if self.watch_at <= Instant::now() => match event {
                    Ok(event) => self.note(event).await,
                    Err(error) => self.watch_again(&error),
                },
                Some(message) = self.arrived.recv() => self.take(message).await,
                // What was refused because the ledger had not come so far here.
                Ok(()) = committed.changed() => self.answer_again().await,
                () = renewal.wait() => self.tick().await,
            }
            self.publish();
        }
    }

    fn office(&self) -> Office {
        super::office(&self.setup.standing.borrow(), self.setup.clock)
    }

    fn appointment(&self) -> Appointment {
        self.setup.committed.borrow().ledger.appointment()
    }

    fn publish(&mut self) {
        let office = self.office();
        self.granter.see(self.setup.clock.now(), &office, self.appointment().paused);
        let takeover_at = self.granter.takeover_at(&office);
        let released = self.setup.committed.borrow().ledger.released.clone();
        let released_at = released.and_then(|released| self.granter.released_at(&office, released.boot));
        let held = self.holder.epoch().zip(self.holder.ends_at());
        let view = LeaseView {
            facts: LeaseFacts {
                held,
                takeover_at,
                released_at,
                granted_at: self.granter.granted_at(),
                pause_over: self.granter.pause_over(&office),
                long: self.holder.long(),
                short_again: self.short_again(),
            },
            vip_open: self.holder.is_open(Door::Vip),
            ports_open: self.holder.is_open(Door::Ports),
            repairs: self.kernel.as_ref().map_or(0, |kernel| kernel.repairs),
            refusal: self.refusal.clone(),
        };
        self.view.send_if_modified(|old| {
            let is_news = view.is_news_to(old);
            *old = view;
            is_news
        });
    }
}

async fn exited(exit: &mut Option<(ServerId, Exit)>) {
    match exit {
        Some((server, exit)) => {
            if let Err(error) = exit.await {
                // Without the notice the ports must not stay open for a server that may be gone.
                tracing::error!(%error, %server, "cannot watch the database's process");
            }
        }
        None => pending().await,
    }
}

async fn next_event(watcher: &mut Option<Watcher>) -> Result<Event, WatchError> {
    match watcher {
        Some(watcher) => watcher.next().await,
        None => pending().await,
    }
}
