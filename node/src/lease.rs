//! The lease thread: renewals, grants, and the kernel's tickets and permits.
//!
//! It has a thread and a runtime of its own, real-time priority and locked memory where permitted, does no disk I/O and
//! waits for no proposal (design, 4.11), so that neither a hung disk nor a busy driver costs the holder its lease. The
//! arithmetic is [`baton_runbooks::lease`]; this module reads the clock, talks to the peers and writes into the kernel.
//!
//! ```text
//! driver ──Order──▶ lease thread ──Renew──▶ every peer ──▶ the leader's lease thread
//!    ▲                │   ▲  ticket, then permit              │ Granter
//!    └── LeaseFacts ──┘   └──────────── Grant ◀───────────────┘
//! ```
//!
//! Everything it opens, the kernel closes by itself. It decides nothing: which doors may open is the driver's order,
//! and who is granted what is the ledger's word.

mod address;
mod kernel;
mod links;
mod pulse;
mod realtime;
mod suspend;
mod thread;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use baton_consensus::{Committed, Standing, Tls};
use baton_netops::GateSpec;
use baton_runbooks::agent::LeaseFacts;
use baton_runbooks::lease::Terms;
use baton_runbooks::lease::granter::Office;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::model::{Epoch, Mono, NodeId, PauseId};
use baton_runbooks::observe::Observation;
use tokio::sync::{mpsc, oneshot, watch};

use crate::agent::clock::Clock;
use crate::hands::server::ServerId;

pub use thread::spawn;

/// Orders that may wait. The driver sends a handful per change of state and waits for most of them.
const ORDERS_MAX: usize = 64;

/// This node's standing in Raft, as the core and the granter count time.
pub(crate) fn office(standing: &Standing, clock: Clock) -> Office {
    let at = |instant: Instant| clock.at(instant);
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

/// What the lease thread needs to start.
#[derive(Debug)]
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// The numbers of the lease.
    pub terms: Terms,
    /// Drawn at random at this start of the agent.
    pub boot: u64,
    /// Where this node listens for lease links.
    pub listen: SocketAddr,
    /// The other nodes and where they listen.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// This node's side of every link.
    pub tls: Tls,
    /// The clock that the driver uses, too.
    pub clock: Clock,
    /// What the gates guard; `None` on a witness.
    pub gate: Option<GateSpec>,
    /// Lifetime of the VIP's address in the kernel.
    pub address_lifetime_s: u32,
    /// This node's standing in Raft.
    pub standing: watch::Receiver<Standing>,
    /// The applied ledger.
    pub committed: watch::Receiver<Committed>,
    /// Where own gaps and a VIP that cannot be restored are told.
    pub observations: mpsc::Sender<Observation>,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OrderError {
    /// The lease thread has ended; the agent is about to die.
    #[error("the lease thread has ended")]
    Ended,
    /// A newer wish has overtaken the order.
    #[error("a newer wish has overtaken this order")]
    Late,
    /// The server to which the ports were to be bound has ended.
    #[error("the database's process {server} has ended")]
    ServerGone {
        /// Which.
        server: ServerId,
    },
    /// No permit was written within the deadline: there is no lease, or no leader with a quorum.
    #[error("no lease for the {door:?} door within {after_ms} ms")]
    NotOpened {
        /// Which door.
        door: Door,
        /// The deadline.
        after_ms: u64,
    },
    /// The kernel refused.
    #[error("{doing}: {detail}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// The error with its causes.
        detail: String,
    },
}

/// What the driver can order.
#[derive(Debug)]
pub(crate) enum Order {
    /// Renew for this epoch, or not at all. A change closes everything first. Refused when a newer wish has said otherwise.
    Renew { epoch: Option<Epoch>, wish: u64, done: oneshot::Sender<Result<(), OrderError>> },
    /// Open a door; answered once its permit is in the kernel. Ports are bound to the life of `server`. Refused when a
    /// newer wish has closed it: an order that was given late opens nothing.
    Open { door: Door, wish: u64, server: Option<ServerId>, done: oneshot::Sender<Result<(), OrderError>> },
    /// Close doors: void, read back, take the VIP's address away; answered when it is so.
    Close { doors: Vec<Door>, wish: u64, done: oneshot::Sender<Result<(), OrderError>> },
    /// Grant nothing more for this epoch, if every lease of it has ended; answered with whether that is so.
    End { epoch: Epoch, done: oneshot::Sender<bool> },
    /// Has this leader waited for all of the pause?
    IsPauseOver { pause: PauseId, done: oneshot::Sender<bool> },
    /// The ledger refused to end this epoch.
    GoOn { epoch: Epoch },
}

/// What the lease thread shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// For the core.
    pub facts: LeaseFacts,
    /// The VIP door is ordered open.
    pub vip_open: bool,
    /// The ports door is ordered open.
    pub ports_open: bool,
    /// How often another program removed our rules or address.
    pub repairs: u64,
    /// Why the newest renewal was refused, for people.
    pub refusal: Option<String>,
}

impl LeaseView {
    /// More has changed than a renewal moves on. Whoever waits for changes is not woken for less: it happens at each renewal,
    /// and wakes another thread.
    fn is_news_to(&self, before: &Self) -> bool {
        let Self { facts, vip_open, ports_open, repairs, refusal } = self;
        !facts.only_prolongs(&before.facts)
            || (vip_open, ports_open, repairs, refusal)
                != (&before.vip_open, &before.ports_open, &before.repairs, &before.refusal)
    }
}

/// Talks to the lease thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LeaseHandle {
    orders: mpsc::Sender<Order>,
    view: watch::Receiver<LeaseView>,
    pulse: pulse::Pulse,
}

impl LeaseHandle {
    /// What the thread sees. A mere renewal changes it without a notice.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<LeaseView> {
        self.view.clone()
    }

    /// The driver is alive at `now`. Without this sign nothing is renewed.
    pub(crate) fn beat(&self, now: Mono) {
        self.pulse.beat(now);
    }

    /// Renews for `epoch` from now on, or for none, on behalf of the wish with number `wish`.
    ///
    /// # Errors
    /// [`OrderError::Late`] when a newer wish has said otherwise; [`OrderError::Ended`].
    pub async fn renew(&self, epoch: Option<Epoch>, wish: u64) -> Result<(), OrderError> {
        self.order(|done| Order::Renew { epoch, wish, done }).await?
    }

    /// Opens `door` on behalf of the wish with number `wish`, and waits until the kernel lets packets pass, at most for
    /// `deadline`.
    ///
    /// # Errors
    /// [`OrderError::NotOpened`] when there is no lease within the deadline; the door stays ordered open.
    /// [`OrderError::Late`], [`OrderError::ServerGone`].
    pub async fn open(
        &self,
        door: Door,
        wish: u64,
        server: Option<ServerId>,
        deadline: Duration,
    ) -> Result<(), OrderError> {
        let opened = self.order(|done| Order::Open { door, wish, server, done });
        let after_ms = deadline.as_millis() as u64;
        let not_opened = OrderError::NotOpened { door, after_ms };
        match tokio::time::timeout(deadline, opened).await {
            Ok(Ok(outcome)) => outcome,
            // Nobody answers an order whose door was closed meanwhile.
            Ok(Err(_)) | Err(_) => Err(not_opened),
        }
    }

    /// Closes `doors` on behalf of the wish with number `wish`, and waits until the kernel was read back. No older wish
    /// opens them again.
    ///
    /// # Errors
    /// [`OrderError::Kernel`] when it could not be made sure; what was open then ends with its ticket.
    pub async fn close(&self, doors: &[Door], wish: u64) -> Result<(), OrderError> {
        self.order(|done| Order::Close { doors: doors.to_vec(), wish, done }).await?
    }

    /// Grants nothing more for `epoch`, if every lease of it has ended at this moment, margin included. False: nothing
    /// was changed, and its end must not be proposed.
    ///
    /// # Errors
    /// [`OrderError::Ended`].
    pub async fn end(&self, epoch: Epoch) -> Result<bool, OrderError> {
        self.order(|done| Order::End { epoch, done }).await
    }

    /// This leader has waited for all of `pause`, at this moment. False: its end must not be proposed.
    ///
    /// # Errors
    /// [`OrderError::Ended`].
    pub async fn is_pause_over(&self, pause: PauseId) -> Result<bool, OrderError> {
        self.order(|done| Order::IsPauseOver { pause, done }).await
    }

    /// The ledger refused to end `epoch`: grants go on.
    pub async fn go_on(&self, epoch: Epoch) {
        // The thread is gone only when the agent dies, and then nobody is granted anything.
        let _ = self.orders.send(Order::GoOn { epoch }).await;
    }

    async fn order<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, OrderError> {
        let (done, answer) = oneshot::channel();
        self.orders.send(make(done)).await.map_err(|_| OrderError::Ended)?;
        answer.await.map_err(|_| OrderError::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> LeaseView {
        let held = Some((Epoch(3), Mono(5_000)));
        LeaseView {
            facts: LeaseFacts { held, granted_at: Some(Mono(4_000)), ..LeaseFacts::default() },
            vip_open: true,
            ports_open: true,
            ..LeaseView::default()
        }
    }

    #[test]
    fn a_renewal_is_no_news_and_all_else_is() {
        let before = shown();
        assert!(!before.is_news_to(&before));
        let mut renewed = shown();
        renewed.facts.held = Some((Epoch(3), Mono(5_200)));
        renewed.facts.granted_at = Some(Mono(4_200));
        assert!(!renewed.is_news_to(&before));

        let changes: [fn(&mut LeaseView); 6] = [
            |view| view.facts.held = None,
            |view| view.facts.held = Some((Epoch(4), Mono(5_200))),
            |view| view.facts.held = Some((Epoch(3), Mono(4_999))),
            |view| view.vip_open = false,
            |view| view.ports_open = false,
            |view| view.repairs += 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut view = renewed.clone();
            change(&mut view);
            assert!(view.is_news_to(&before), "change {number}");
        }
    }
}
