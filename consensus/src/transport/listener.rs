//! Accepting links: verify, check the preamble, limit.
//!
//! Handshakes run beside each other, each with a deadline, so that one that hangs keeps nobody else out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_runbooks::model::NodeId;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::codec::Framed;

use super::link::Stream;
use super::tls::{Tls, dns_names};
use super::{Channel, Link, PREAMBLE_MAX, Preamble, Verdict, codec, tune};

/// Handshakes under way. Strangers can start them, so they are few; further connections are closed at once.
const HANDSHAKES_MAX: usize = 32;
/// A handshake takes two round trips and a few milliseconds of arithmetic.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// Links of one peer on one listener. A peer needs one per channel, and a second while it replaces a broken one.
pub const LINKS_PER_PEER_MAX: usize = 12;
/// Wait after `accept` failed, which means that this host is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Hands out links to verified members. Dropping it closes the port; links live on.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    links: mpsc::Receiver<Link>,
    _acceptor: JoinSet<()>,
}

struct Doorkeeper {
    tls: Tls,
    members: BTreeSet<NodeId>,
    channels: Vec<Channel>,
    places: Arc<Mutex<BTreeMap<NodeId, usize>>>,
}

/// A link's place among the links of its peer.
#[derive(Debug)]
pub(super) struct Place {
    peer: NodeId,
    places: Arc<Mutex<BTreeMap<NodeId, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.peer) {
            *taken = taken.saturating_sub(1);
        }
    }
}

impl Listener {
    /// Listens on `addr` for links of `members` on `channels`. Must be called in the runtime that will use it.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(
        addr: SocketAddr,
        tls: Tls,
        members: impl IntoIterator<Item = NodeId>,
        channels: &[Channel],
    ) -> Result<Self, BindError> {
        Self::from_std(listen(addr)?, tls, members, channels)
    }

    /// The same on a socket of `listen`.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn from_std(
        socket: std::net::TcpListener,
        tls: Tls,
        members: impl IntoIterator<Item = NodeId>,
        channels: &[Channel],
    ) -> Result<Self, BindError> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let addr = socket.local_addr().map_err(|source| BindError { addr: unknown, source })?;
        let tcp = TcpListener::from_std(socket).map_err(|source| BindError { addr, source })?;
        let members = members.into_iter().filter(|node| node != tls.me()).collect();
        let channels = channels.to_vec();
        let keeper = Arc::new(Doorkeeper { tls, members, channels, places: Arc::default() });
        let (tx, links) = mpsc::channel(HANDSHAKES_MAX);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(tcp, keeper, tx));
        Ok(Self { addr, links, _acceptor: acceptor })
    }

    /// The address that is listened on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next link, with the peer's verified name. May be cancelled.
    pub async fn accept(&mut self) -> (NodeId, Channel, Link) {
        match self.links.recv().await {
            Some(link) => (link.peer().clone(), link.channel(), link),
            // The acceptor never ends by itself; it is gone only while its runtime is being dropped.
            None => std::future::pending().await,
        }
    }
}

/// A listening socket, so that a port in use is known before a thread is started.
///
/// # Errors
/// [`BindError`].
pub(crate) fn listen(addr: SocketAddr) -> Result<std::net::TcpListener, BindError> {
    let open = || {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(addr),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        // A restarted agent must get its port back while old connections are in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(64)?;
        Ok(socket.into())
    };
    open().map_err(|source| BindError { addr, source })
}

/// Accepts until it is dropped; handshakes under way are dropped with it.
async fn accept(tcp: TcpListener, keeper: Arc<Doorkeeper>, tx: mpsc::Sender<Link>) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let stream = match tcp.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (keeper, tx) = (Arc::clone(&keeper), tx.clone());
        handshakes.spawn(async move {
            let greeted = tokio::time::timeout(HANDSHAKE_DEADLINE, keeper.greet(stream)).await;
            if let Ok(Some(link)) = greeted {
                let _ = tx.send(link).await;
            }
            drop(permit);
        });
    }
}

impl Doorkeeper {
    async fn greet(&self, tcp: TcpStream) -> Option<Link> {
        tune(&tcp).ok()?;
        let from = tcp.peer_addr().ok()?;
        let stream = match self.tls.acceptor().accept(tcp).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%from, %error, "a connection without a certificate of this cluster");
                return None;
            }
        };
        let names = stream.get_ref().1.peer_certificates()?.first().map(dns_names)?;
        let mut framed: Stream = Framed::new(stream.into(), codec(PREAMBLE_MAX));
        let first = framed.next().await?.ok()?;
        let preamble: Preamble = serde_json::from_slice(&first).ok()?;
        let (verdict, place) = match self.admit(&names, &preamble) {
            Ok(place) => (Verdict::Accepted, Some(place)),
            Err(reason) => {
                tracing::warn!(%from, ?names, reason, "refused a link");
                (Verdict::Refused { reason }, None)
            }
        };
        let text = serde_json::to_vec(&verdict).expect("a verdict is plain data");
        framed.send(bytes::Bytes::from(text)).await.ok()?;
        let place = place?;
        Some(Link::new(place.peer.clone(), preamble.channel, framed, Some(place)))
    }

    fn admit(&self, names: &[String], preamble: &Preamble) -> Result<Place, String> {
        let [name] = names else { return Err("the certificate must have exactly one name".to_owned()) };
        let Some(peer) = self.members.get(&NodeId::new(name)) else {
            return Err(format!("{name} is not a member of this cluster"));
        };
        if preamble.cluster != self.tls.cluster() {
            return Err(format!("this is cluster {}, not {}", self.tls.cluster(), preamble.cluster));
        }
        if preamble.to != *self.tls.me() {
            return Err(format!("this is {}, not {}", self.tls.me(), preamble.to));
        }
        if !self.channels.contains(&preamble.channel) {
            return Err("this port does not serve that channel".to_owned());
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(peer.clone()).or_default();
        if *taken >= LINKS_PER_PEER_MAX {
            return Err(format!("{name} has {taken} links already"));
        }
        *taken += 1;
        Ok(Place { peer: peer.clone(), places: Arc::clone(&self.places) })
    }
}
