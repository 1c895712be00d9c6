//! The thread's loop: one owner of both halves of the lease and of the kernel's gates.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::time::{Duration, Instant};

use baton_consensus::transport::{Channel, Listener};
use baton_netops::{Event, Watcher};
use baton_runbooks::agent::LeaseFacts;
use baton_runbooks::lease::granter::{Appointment, Granter, Office};
use baton_runbooks::lease::holder::{Door, Holder};
use baton_runbooks::lease::{Grant, Renewal};
use baton_runbooks::model::{Mono, NodeId};
use baton_runbooks::observe::Observation;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use super::kernel::Kernel;
use super::links::{Arrived, Frame, IN_MAX, Links};
use super::{LeaseHandle, LeaseView, ORDERS_MAX, Order, OrderError, Setup, realtime};
use crate::hands::server::{ServerId, Watch};

/// Renewals that wait for an answer on behalf of a peer. A handful per second pass through.
const ROUTES_MAX: usize = 64;
/// Own gap, in renewal periods, from which this agent judges nobody for a while (design, 4.11).
const GAP_PERIODS: u32 = 3;
/// The VIP's addresses are refreshed this often; their lifetime is two of these or more.
const REFRESH: Duration = Duration::from_millis(700);

/// Starts the thread.
///
/// # Errors
/// The port is taken, the gates cannot be installed, or the thread cannot be started.
pub fn spawn(setup: Setup) -> Result<LeaseHandle, OrderError> {
    let (orders, order_rx) = mpsc::channel(ORDERS_MAX);
    let (view_tx, view) = watch::channel(LeaseView::default());
    let (started_tx, started) = std::sync::mpsc::sync_channel(1);
    let failed = |error: std::io::Error| OrderError::Kernel { doing: "start the lease thread", detail: error.to_string() };
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
                match Thread::start(setup, order_rx, view_tx).await {
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
    Ok(LeaseHandle { orders, view })
}

/// Ends when a server process does.
type Exit = Pin<Box<dyn Future<Output = std::io::Result<()>>>>;

struct Thread {
    setup: Setup,
    holder: Holder,
    granter: Granter,
    kernel: Option<Kernel>,
    watcher: Option<Watcher>,
    links: Links,
    arrived: mpsc::Receiver<Arrived>,
    orders: mpsc::Receiver<Order>,
    view: watch::Sender<LeaseView>,
    routes: BTreeMap<(NodeId, u64, u64), mpsc::Sender<Frame>>,
    opening: Vec<(Door, oneshot::Sender<()>)>,
    /// The newest wish that closed each door.
    closed_by: BTreeMap<Door, u64>,
    /// Until when a permit written here lets packets pass, at the latest; by door.
    permitted: BTreeMap<Door, Mono>,
    tickets: BTreeMap<u64, Mono>,
    exit: Option<(ServerId, Exit)>,
    renew_at: Instant,
    refresh_at: Instant,
    ticked_at: Instant,
    refusal: Option<String>,
}

impl Thread {
    async fn start(
        setup: Setup,
        orders: mpsc::Receiver<Order>,
        view: watch::Sender<LeaseView>,
    ) -> Result<Self, OrderError> {
        let listen = |error: &dyn std::error::Error| OrderError::Kernel {
            doing: "listen for lease links",
            detail: crate::chain::chain(error),
        };
        let members = setup.peers.iter().map(|(node, _)| node.clone());
        let listener = Listener::bind(setup.listen, setup.tls.clone(), members, &[Channel::Lease])
            .map_err(|error| listen(&error))?;
        let kernel = match setup.gate.clone() {
            Some(spec) => Some(Kernel::open(spec, setup.address_lifetime_s).await?),
            None => None,
        };
        let watcher = match &kernel {
            Some(_) => Some(Watcher::open().map_err(|error| listen(&error))?),
            None => None,
        };
        let (arrived_tx, arrived) = mpsc::channel(IN_MAX);
        let links = Links::start(&setup.tls, listener, &setup.peers, &arrived_tx);
        let now = Instant::now();
        Ok(Self {
            holder: Holder::new(setup.me.clone(), setup.terms, setup.boot),
            granter: Granter::new(setup.me.clone(), setup.terms),
            kernel,
            watcher,
            links,
            arrived,
            orders,
            view,
            routes: BTreeMap::new(),
            opening: Vec::new(),
            closed_by: BTreeMap::new(),
            permitted: BTreeMap::new(),
            tickets: BTreeMap::new(),
            exit: None,
            renew_at: now,
            refresh_at: now,
            ticked_at: now,
            refusal: None,
            setup,
        })
    }

    /// Ends when the driver is gone; what is open then ends with its ticket.
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                () = exited(&mut self.exit) => self.server_exited().await,
                event = next_event(&mut self.watcher) => self.note(event).await,
                Some(message) = self.arrived.recv() => self.take(message).await,
                () = sleep_until(self.renew_at.into()) => self.tick().await,
            }
            self.publish();
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Renew { epoch, done } => {
                if self.holder.epoch() != epoch {
                    self.shut(&[Door::Vip, Door::Ports]).await;
                    self.holder.appoint(epoch);
                    self.renew().await;
                }
                let _ = done.send(());
            }
            Order::Open { door, wish, .. } if self.closed_by.get(&door).is_some_and(|newer| wish < *newer) => {
                tracing::debug!(?door, wish, "a late order opens nothing");
            }
            Order::Open { door, server, done, .. } => {
                if door == Door::Ports && !self.bind_to(server).await {
                    return;
                }
                let fresh = !self.holder.is_open(door);
                self.holder.open(door);
                if self.permitted.get(&door).is_some_and(|until| self.setup.clock.now() < *until) {
                    let _ = done.send(());
                    return;
                }
                self.opening.push((door, done));
                if fresh {
                    self.renew().await;
                }
            }
            Order::Close { doors, wish, done } => {
                for door in &doors {
                    let newest = self.closed_by.entry(*door).or_default();
                    *newest = wish.max(*newest);
                }
                let closed = self.close(&doors).await;
                let _ = done.send(closed);
            }
            Order::End { epoch, done } => {
                self.granter.end(epoch);
                let _ = done.send(());
            }
            Order::GoOn { epoch } => self.granter.go_on(epoch),
        }
    }

    /// Binds the ports to the life of a server process. False: it has ended already.
    async fn bind_to(&mut self, server: Option<ServerId>) -> bool {
        let Some(server) = server else { return true };
        if self.exit.as_ref().is_some_and(|(bound, _)| *bound == server) {
            return true;
        }
        match Watch::open(server) {
            Ok(Some(watch)) => {
                self.exit = Some((server, Box::pin(watch.exited())));
                true
            }
            Ok(None) | Err(_) => {
                self.shut(&[Door::Ports]).await;
                false
            }
        }
    }

    /// The database is gone: what would be answered now is not its answer.
    async fn server_exited(&mut self) {
        if let Some((server, _)) = self.exit.take() {
            self.shut(&[Door::Ports]).await;
            let _ = self.setup.observations.try_send(Observation::MysqlExited { server: server.to_string() });
        }
    }

    async fn close(&mut self, doors: &[Door]) -> Result<(), OrderError> {
        for door in doors {
            self.holder.close(*door);
            self.permitted.remove(door);
        }
        self.opening.retain(|(door, _)| !doors.contains(door));
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        kernel.void(doors).await?;
        if doors.contains(&Door::Vip) {
            kernel.drop_addresses().await?;
        }
        Ok(())
    }

    /// Closes; a failure is logged, and the kernel ends what is open when its ticket does.
    async fn shut(&mut self, doors: &[Door]) {
        if let Err(error) = self.close(doors).await {
            tracing::error!(%error, "could not close at once; the tickets end it");
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let gap = now.duration_since(self.ticked_at);
        let period = Duration::from_millis(self.setup.terms.renew_ms);
        if gap > period * GAP_PERIODS {
            let gap_ms = gap.as_millis() as u64;
            tracing::warn!(gap_ms, "the lease thread had no processor");
            let _ = self.setup.observations.try_send(Observation::OwnGap { gap_ms });
        }
        self.ticked_at = now;
        self.lapse().await;
        self.renew().await;
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH;
            self.refresh().await;
        }
    }

    /// A lease that has ended latches both doors: they open again only by order, when everything was looked at anew.
    async fn lapse(&mut self) {
        let now = self.setup.clock.now();
        let ended = self.holder.ends_at().is_some_and(|end| now >= end);
        if ended && (self.holder.is_open(Door::Vip) || self.holder.is_open(Door::Ports)) {
            tracing::warn!("the lease has ended");
            self.shut(&[Door::Vip, Door::Ports]).await;
        }
    }

    /// Ticket first, then the clock, then the question (design, 4.5).
    async fn renew(&mut self) {
        self.renew_at = Instant::now() + Duration::from_millis(self.setup.terms.renew_ms);
        let Some((seq, slot, doors)) = self.holder.next_ticket() else { return };
        if let Some(kernel) = &mut self.kernel {
            let timeout = Duration::from_millis(self.setup.terms.ticket_ms());
            match kernel.ticket(&doors, slot, timeout).await {
                Ok(true) => {}
                // The rules are back, closed; this slot has no ticket, so the next renewal follows at once.
                Ok(false) => self.renew_at = Instant::now(),
                Err(error) => {
                    tracing::error!(%error, "no ticket");
                    return;
                }
            }
        }
        let now = self.setup.clock.now();
        let Some(renewal) = self.holder.renew(seq, now) else { return };
        self.tickets.insert(seq, now.plus_ms(self.setup.terms.ticket_ms()));
        while self.tickets.len() > self.setup.terms.slots as usize {
            self.tickets.pop_first();
        }
        if self.office().is_leader {
            self.grant_own(&renewal).await;
        }
        self.links.send_all(&Frame::Renew { renewal, relayed: false });
    }

    async fn grant_own(&mut self, renewal: &Renewal) {
        match self.granter.grant(self.setup.clock.now(), &self.office(), &self.appointment(), renewal) {
            Ok(grant) => self.granted(&grant).await,
            Err(refusal) => self.refusal = Some(format!("{refusal:?}")),
        }
    }

    async fn take(&mut self, message: Arrived) {
        match message.frame {
            Frame::Renew { renewal, relayed } => self.answer(renewal, relayed, &message.from, message.back),
            Frame::Granted { node, grant } if node == self.setup.me => self.granted(&grant).await,
            Frame::Refused { node, refusal, .. } if node == self.setup.me => {
                self.refusal = Some(format!("{refusal:?}"));
            }
            Frame::Granted { node, grant } => {
                let key = (node.clone(), grant.boot, grant.seq);
                self.pass_back(key, Frame::Granted { node, grant });
            }
            Frame::Refused { node, boot, seq, refusal } => {
                let key = (node.clone(), boot, seq);
                self.pass_back(key, Frame::Refused { node, boot, seq, refusal });
            }
        }
    }

    /// Answers as the leader, or passes the question on to it, once.
    fn answer(&mut self, renewal: Renewal, relayed: bool, from: &NodeId, back: mpsc::Sender<Frame>) {
        let office = self.office();
        // A node asks for itself; only what a peer relays may name another.
        if !relayed && renewal.node != *from {
            return;
        }
        let (node, boot, seq) = (renewal.node.clone(), renewal.boot, renewal.seq);
        if !office.is_leader && !relayed {
            let Some(leader) = office.leader.filter(|leader| *leader != node && *leader != self.setup.me) else { return };
            self.routes.insert((node, boot, seq), back);
            while self.routes.len() > ROUTES_MAX {
                self.routes.pop_first();
            }
            self.links.send(&leader, Frame::Renew { renewal, relayed: true });
            return;
        }
        let frame = match self.granter.grant(self.setup.clock.now(), &office, &self.appointment(), &renewal) {
            Ok(grant) => Frame::Granted { node, grant },
            Err(refusal) => Frame::Refused { node, boot, seq, refusal },
        };
        let _ = back.try_send(frame);
    }

    fn pass_back(&mut self, key: (NodeId, u64, u64), frame: Frame) {
        if let Some(back) = self.routes.remove(&key) {
            let _ = back.try_send(frame);
        }
    }

    /// A grant arrived: permit into the kernel, address, and whoever waits for the door is told.
    async fn granted(&mut self, grant: &Grant) {
        let now = self.setup.clock.now();
        let accepted = match self.holder.accept(grant, now) {
            Ok(accepted) => accepted,
            Err(ignored) => {
                tracing::debug!(?ignored, seq = grant.seq, "a grant opens nothing");
                return;
            }
        };
        self.refusal = None;
        let Some(kernel) = &mut self.kernel else { return };
        let timeout = Duration::from_millis(accepted.ends_at.since_ms(now));
        match kernel.permit(&accepted.doors, accepted.slot, timeout).await {
            Ok(true) => {}
            Ok(false) => {
                self.renew_at = Instant::now();
                return;
            }
            Err(error) => {
                tracing::error!(%error, "no permit");
                return;
            }
        }
        let until = self.tickets.get(&grant.seq).copied().unwrap_or(now).min(accepted.ends_at);
        for door in accepted.doors {
            let noted = self.permitted.entry(door).or_insert(until);
            *noted = until.max(*noted);
        }
        self.tell_opened().await;
    }

    async fn tell_opened(&mut self) {
        let now = self.setup.clock.now();
        let wants_vip = self.opening.iter().any(|(door, _)| *door == Door::Vip);
        if wants_vip && self.permitted.contains_key(&Door::Vip) {
            self.refresh().await;
        }
        let permitted = &self.permitted;
        let is_open = |door: &Door| permitted.get(door).is_some_and(|until| now < *until);
        for (_, done) in self.opening.extract_if(.., |(door, _)| is_open(door)) {
            let _ = done.send(());
        }
    }

    /// Holds the VIP's address while its door is open under a valid lease.
    async fn refresh(&mut self) {
        if !self.holder.is_open(Door::Vip) || !self.holder.is_valid(self.setup.clock.now()) {
            return;
        }
        let Some(kernel) = &self.kernel else { return };
        if let Err(error) = kernel.hold_addresses().await {
            tracing::error!(%error, "the VIP's address is not held");
            let _ = self.setup.observations.try_send(Observation::VipUnrestorable { detail: error.to_string() });
        }
    }

    async fn note(&mut self, event: Event) {
        match event {
            Event::AddressGone { ip, .. } => {
                let ours = self.kernel.as_ref().is_some_and(|kernel| kernel.is_vip(ip));
                if ours && self.holder.is_open(Door::Vip) && self.holder.is_valid(self.setup.clock.now()) {
                    tracing::warn!(%ip, "another program removed the VIP; putting it back");
                    if let Some(kernel) = &mut self.kernel {
                        kernel.repairs += 1;
                    }
                    self.refresh().await;
                }
            }
            Event::RulesGone { .. } => {
                let repaired = match &mut self.kernel {
                    Some(kernel) => kernel.repair().await,
                    None => Ok(()),
                };
                match repaired {
                    Ok(()) => self.renew().await,
                    Err(error) => tracing::error!(%error, "the rules are not back"),
                }
            }
            Event::LinkUp { interface, .. } => self.tell_link(interface, true),
            Event::LinkDown { interface, .. } => self.tell_link(interface, false),
            Event::AddressSeen { .. } | Event::Overrun => {}
        }
    }

    fn tell_link(&self, interface: String, up: bool) {
        if self.setup.gate.as_ref().is_some_and(|spec| spec.vips.iter().any(|vip| vip.interface == interface)) {
            let _ = self.setup.observations.try_send(Observation::Link { interface, up });
        }
    }

    fn office(&self) -> Office {
        let standing = self.setup.standing.borrow();
        let at = |instant: Instant| self.setup.clock.at(instant);
        Office {
            is_leader: standing.is_leader && standing.voting,
            term: standing.term,
            leader: standing.leader.clone(),
            elected_at: standing.elected_at.map(at),
            own_term_applied: standing.own_term_applied,
            quorum_acked_at: standing.quorum_acked_at.map(at),
            append_pending_since: standing.own_append_pending_since.map(at),
        }
    }

    fn appointment(&self) -> Appointment {
        let committed = self.setup.committed.borrow();
        let ledger = &committed.ledger;
        let released = ledger.released.as_ref().is_some_and(|released| released.epoch == ledger.epoch);
        Appointment { holder: ledger.holder.clone(), epoch: ledger.epoch, released }
    }

    fn publish(&mut self) {
        let office = self.office();
        let takeover_at = self.granter.takeover_at(&office);
        let released = self.setup.committed.borrow().ledger.released.clone();
        let released_at = released.and_then(|released| self.granter.released_at(&office, released.boot));
        let held = self.holder.epoch().zip(self.holder.ends_at());
        let view = LeaseView {
            facts: LeaseFacts { held, takeover_at, released_at, granted_at: self.granter.granted_at() },
            vip_open: self.holder.is_open(Door::Vip),
            ports_open: self.holder.is_open(Door::Ports),
            repairs: self.kernel.as_ref().map_or(0, |kernel| kernel.repairs),
            refusal: self.refusal.clone(),
        };
        self.view.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
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

async fn next_event(watcher: &mut Option<Watcher>) -> Event {
    match watcher {
        Some(watcher) => match watcher.next().await {
            Ok(event) => event,
            Err(error) => {
                // The subscription is a second eye; renewals put rules and addresses back without it.
                tracing::error!(%error, "no notice of changes in the kernel any more");
                pending().await
            }
        },
        None => pending().await,
    }
}
