//! Authenticated links between agents: length-delimited frames over TLS 1.3 over TCP.
//!
//! Who is at the other end is decided by the certificate alone: its only DNS name is the node's name. The dialer
//! checks it against the name that it dials, the listener takes it from the verified certificate and refuses names
//! that are no members. Then one preamble and its answer, so that a refusal has a reason that reaches the dialer:
//!
//! ```text
//! dialer                                   listener
//!   TCP, TLS (both certificates verified)
//!   Preamble {cluster, to, channel}   ->
//!                                     <-   Accepted | Refused {reason}
//!   frames in both directions
//! ```
//!
//! The module knows neither Raft nor leases. It keeps no connections and retries nothing; who dials decides that.
//! Nothing here is bound to the consensus thread: the lease thread uses it on its own runtime and its own port.

mod link;
mod listener;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use baton_runbooks::model::NodeId;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

pub use link::{Link, LinkError, LinkReceiver, LinkSender};
pub(crate) use listener::listen;
pub use listener::{BindError, LINKS_PER_PEER_MAX, Listener};
pub use tls::{DaysLeft, Ends, Tls, TlsError};

/// Largest preamble. It is read before the peer has said what it wants.
const PREAMBLE_MAX: usize = 4096;
/// Unacknowledged data is given up after this long, so that a link into a black hole is noticed and dialed anew soon
/// after the network heals. Shorter, and a hiccup of the network would cost a handshake.
const USER_TIMEOUT: Duration = Duration::from_secs(1);
/// The same for a copy: a reader whose disk stalls must not end it. Longer, and a peer that is lost is noticed late.
const COPY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a link is used for. Each has its own connection, so that a large frame on one delays nothing on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// Raft's heartbeats, appends and votes.
    Raft,
    /// Raft's snapshots.
    Snapshot,
    /// Reports, forwarded commands and calls.
    Peer,
    /// Lease renewals.
    Lease,
    /// An operator's order for one node, and its answer.
    Order,
    /// The copy of a database.
    Copy,
}

impl Channel {
    /// Largest frame, in bytes.
    #[must_use]
    pub const fn frame_max(self) -> usize {
        match self {
            Self::Raft | Self::Snapshot | Self::Peer => 16 << 20,
            Self::Lease => 64 << 10,
            Self::Order | Self::Copy => 1 << 20,
        }
    }

    /// How long data may stay unacknowledged before the link is given up.
    const fn user_timeout(self) -> Duration {
        match self {
            Self::Raft | Self::Snapshot | Self::Peer | Self::Lease | Self::Order => USER_TIMEOUT,
            // Its reader waits for a disk that takes everything at once.
            Self::Copy => COPY_TIMEOUT,
        }
    }
}

/// A link was not established.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A node never dials itself.
    #[error("{to} is this node")]
    Myself {
        /// The name dialed.
        to: NodeId,
    },
    /// The name cannot stand in a certificate.
    #[error("{to} is no valid name for a certificate")]
    Name {
        /// The name dialed.
        to: NodeId,
    },
    /// No TCP connection.
    #[error("cannot connect to {to} at {addr}")]
    Connect {
        /// The name dialed.
        to: NodeId,
        /// Its address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The TLS handshake failed: wrong name, foreign authority, expired certificate.
    #[error("{to} at {addr} did not prove its name, or refused ours")]
    Handshake {
        /// The name dialed.
        to: NodeId,
        /// Its address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The peer refused the link.
    #[error("{to} refused the link: {reason}")]
    Refused {
        /// The name dialed.
        to: NodeId,
        /// Its words.
        reason: String,
    },
    /// The deadline passed.
    #[error("{to} at {addr} did not answer in time")]
    TimedOut {
        /// The name dialed.
        to: NodeId,
        /// Its address.
        addr: SocketAddr,
    },
}

/// First frame of a link.
#[derive(Debug, Serialize, Deserialize)]
struct Preamble {
    cluster: String,
    to: NodeId,
    channel: Channel,
}

/// The listener's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Accepted,
    Refused { reason: String },
}

/// Establishes a link to `to`. Everything together takes at most `deadline`.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(
    tls: &Tls,
    to: &NodeId,
    addr: SocketAddr,
    channel: Channel,
    deadline: Duration,
) -> Result<Link, DialError> {
    if *to == *tls.me() {
        return Err(DialError::Myself { to: to.clone() });
    }
    tokio::time::timeout(deadline, connect(tls, to, addr, channel))
        .await
        .unwrap_or_else(|_| Err(DialError::TimedOut { to: to.clone(), addr }))
}

async fn connect(tls: &Tls, to: &NodeId, addr: SocketAddr, channel: Channel) -> Result<Link, DialError> {
    let connect = |source| DialError::Connect { to: to.clone(), addr, source };
    let handshake = |source| DialError::Handshake { to: to.clone(), addr, source };
    let name = rustls::pki_types::ServerName::try_from(to.as_str().to_owned())
        .map_err(|_| DialError::Name { to: to.clone() })?;
    let tcp = TcpStream::connect(addr).await.map_err(connect)?;
    tune(&tcp).map_err(connect)?;
    let stream = tls.connector().connect(name, tcp).await.map_err(handshake)?;
    let mut framed: link::Stream = Framed::new(stream.into(), codec(PREAMBLE_MAX));
    let preamble = Preamble { cluster: tls.cluster().to_owned(), to: to.clone(), channel };
    let text = serde_json::to_vec(&preamble).expect("a preamble is plain data");
    framed.send(bytes::Bytes::from(text)).await.map_err(handshake)?;
    // In TLS 1.3 a client learns only here that its own certificate was refused.
    let answer = framed
        .next()
        .await
        .unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))
        .map_err(handshake)?;
    match serde_json::from_slice(&answer).map_err(|error| handshake(error.into()))? {
        Verdict::Accepted => Ok(Link::new(to.clone(), channel, framed, None)),
        Verdict::Refused { reason } => Err(DialError::Refused { to: to.clone(), reason }),
    }
}

fn codec(frame_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(frame_max).new_codec()
}

fn tune(tcp: &TcpStream) -> std::io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(2))
        .with_interval(Duration::from_secs(1))
        .with_retries(2);
    socket.set_tcp_keepalive(&keepalive)
}
