//! Links between lease threads: one that this node dials to each peer, and those that the peers dial.
//!
//! A link that does not take a frame in time is dropped and dialed anew. Queues are short, and what does not fit is
//! dropped: the next renewal follows in a moment, and an old one is worth nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use baton_consensus::Tls;
use baton_consensus::transport::{Channel, Link, Listener, dial};
use baton_runbooks::lease::{Grant, Refusal, Renewal, Surrender};
use baton_runbooks::model::NodeId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Frames that wait to be sent on one link: a few renewals and their answers.
const OUT_MAX: usize = 16;
/// Frames of all links that wait for the thread.
pub(super) const IN_MAX: usize = 128;
/// A dial takes three round trips and some milliseconds of arithmetic. Longer, and a host that is gone delays nothing
/// but its own link.
const DIAL_DEADLINE: Duration = Duration::from_millis(400);
/// Pause after a failed dial.
const DIAL_PAUSE: Duration = Duration::from_millis(100);
/// A frame that is not taken by the kernel for this long finds the link dead.
const SEND_DEADLINE: Duration = Duration::from_millis(400);

/// What travels between lease threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Frame {
    /// A holder asks. `relayed`: a peer that is not the leader passed it on, once.
    Renew { renewal: Renewal, relayed: bool },
    /// The leader grants.
    Granted { node: NodeId, grant: Grant },
    /// The leader does not.
    Refused { node: NodeId, boot: u64, seq: u64, refusal: Refusal },
    /// A node that does not hold the baton any more is closed. `relayed`: as for a renewal.
    Surrender { surrender: Surrender, relayed: bool },
}

/// A frame that arrived, and the way back.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) frame: Frame,
    pub(super) from: NodeId,
    pub(super) back: mpsc::Sender<Frame>,
}

/// The dialed links, by peer.
pub(super) struct Links {
    out: BTreeMap<NodeId, mpsc::Sender<Frame>>,
}

impl Links {
    /// Starts the dialers and the acceptor on the current runtime.
    pub(super) fn start(
        tls: &Tls,
        mut listener: Listener,
        peers: &[(NodeId, SocketAddr)],
        arrived: &mpsc::Sender<Arrived>,
    ) -> Self {
        let mut out = BTreeMap::new();
        for (peer, addr) in peers {
            let (tx, rx) = mpsc::channel(OUT_MAX);
            out.insert(peer.clone(), tx.clone());
            tokio::spawn(keep_dialing(tls.clone(), peer.clone(), *addr, tx, rx, arrived.clone()));
        }
        let arrived = arrived.clone();
        tokio::spawn(async move {
            loop {
                let (_, _, link) = listener.accept().await;
                let (tx, mut rx) = mpsc::channel(OUT_MAX);
                let arrived = arrived.clone();
                tokio::spawn(async move { serve(link, &tx, &mut rx, &arrived).await });
            }
        });
        Self { out }
    }

    /// Sends to one peer; what does not fit is dropped.
    pub(super) fn send(&self, to: &NodeId, frame: Frame) {
        if let Some(out) = self.out.get(to) {
            let _ = out.try_send(frame);
        }
    }

    /// Sends to every peer.
    pub(super) fn send_all(&self, frame: &Frame) {
        for out in self.out.values() {
            let _ = out.try_send(frame.clone());
        }
    }
}

async fn keep_dialing(
    tls: Tls,
    peer: NodeId,
    addr: SocketAddr,
    tx: mpsc::Sender<Frame>,
    mut rx: mpsc::Receiver<Frame>,
    arrived: mpsc::Sender<Arrived>,
) {
    loop {
        match dial(&tls, &peer, addr, Channel::Lease, DIAL_DEADLINE).await {
            Ok(link) => serve(link, &tx, &mut rx, &arrived).await,
            Err(error) => {
                tracing::debug!(%peer, %error, "no lease link");
                tokio::time::sleep(DIAL_PAUSE).await;
            }
        }
        while rx.try_recv().is_ok() {}
    }
}

/// Carries frames both ways until the link breaks.
async fn serve(
    link: Link,
    back: &mpsc::Sender<Frame>,
    out: &mut mpsc::Receiver<Frame>,
    arrived: &mpsc::Sender<Arrived>,
) {
    let from = link.peer().clone();
    let (mut sender, mut receiver) = link.split();
    let send = async {
        while let Some(frame) = out.recv().await {
            let text = serde_json::to_vec(&frame).expect("a frame is plain data");
            match tokio::time::timeout(SEND_DEADLINE, sender.send(Bytes::from(text))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    };
    let receive = async {
        while let Ok(Some(bytes)) = receiver.recv().await {
            let Ok(frame) = serde_json::from_slice::<Frame>(&bytes) else { return };
            let message = Arrived { frame, from: from.clone(), back: back.clone() };
            if arrived.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
}
