//! An established link: frames in both directions, and the place among the peer's links that it takes.

use baton_runbooks::model::NodeId;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::Channel;
use super::listener::Place;

pub(super) type Stream = Framed<TlsStream<TcpStream>, LengthDelimitedCodec>;

/// A link is broken and must be dropped.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A frame is larger than the channel allows, in either direction.
    #[error("a frame is larger than {max} bytes")]
    Oversize {
        /// The limit.
        max: usize,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Broken {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// An established link to a peer whose name has been verified.
#[derive(Debug)]
pub struct Link {
    peer: NodeId,
    channel: Channel,
    framed: Stream,
    place: Option<Place>,
}

impl Link {
    pub(super) fn new(peer: NodeId, channel: Channel, mut framed: Stream, place: Option<Place>) -> Self {
        framed.codec_mut().set_max_frame_length(channel.frame_max());
        let tcp =
            SockRef::from(framed.get_ref().get_ref().0).set_tcp_user_timeout(Some(channel.user_timeout()));
        if let Err(error) = tcp {
            // The one of the handshake stays, which is shorter.
            tracing::debug!(%error, "the time for unacknowledged data is not set");
        }
        Self { peer, channel, framed, place }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &NodeId {
        &self.peer
    }

    /// What the link is used for.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// Sends a frame. Has no deadline of its own: the caller gives it one, and drops the link when it passes.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        check(&frame, self.channel)?;
        self.framed.send(frame).await.map_err(|source| broken(source, self.channel))
    }

    /// The next frame; `None` when the peer has closed the link. May be cancelled without losing a frame.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn recv(&mut self) -> Result<Option<Bytes>, LinkError> {
        received(self.framed.next().await, self.channel)
    }

    /// Both directions on their own. The link's place is given back when the receiver is dropped.
    #[must_use]
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        let (sink, stream) = self.framed.split();
        let receiver = LinkReceiver { channel: self.channel, stream, _place: self.place };
        (LinkSender { channel: self.channel, sink }, receiver)
    }
}

/// The sending half of a link.
#[derive(Debug)]
pub struct LinkSender {
    channel: Channel,
    sink: SplitSink<Stream, Bytes>,
}

impl LinkSender {
    /// As [`Link::send`].
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        check(&frame, self.channel)?;
        self.sink.send(frame).await.map_err(|source| broken(source, self.channel))
    }
}

/// The receiving half of a link.
#[derive(Debug)]
pub struct LinkReceiver {
    channel: Channel,
    stream: SplitStream<Stream>,
    _place: Option<Place>,
}

impl LinkReceiver {
    /// As [`Link::recv`].
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn recv(&mut self) -> Result<Option<Bytes>, LinkError> {
        received(self.stream.next().await, self.channel)
    }
}

fn check(frame: &Bytes, channel: Channel) -> Result<(), LinkError> {
    let max = channel.frame_max();
    if frame.len() > max { Err(LinkError::Oversize { max }) } else { Ok(()) }
}

fn received(
    frame: Option<std::io::Result<bytes::BytesMut>>,
    channel: Channel,
) -> Result<Option<Bytes>, LinkError> {
    match frame {
        Some(Ok(frame)) => Ok(Some(frame.freeze())),
        Some(Err(source)) => Err(broken(source, channel)),
        None => Ok(None),
    }
}

fn broken(source: std::io::Error, channel: Channel) -> LinkError {
    // The codec reports a frame over its limit in this kind, and TLS its own violations too; both end the link.
    let oversize =
        source.get_ref().is_some_and(|inner| inner.is::<tokio_util::codec::LengthDelimitedCodecError>());
    if oversize { LinkError::Oversize { max: channel.frame_max() } } else { LinkError::Broken { source } }
}
