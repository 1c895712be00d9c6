//! Messages that nobody waits for. They leave when this thread is awake for Raft anyhow.
//!
//! An agent tells its peers how it fares, several times a second. To wake this thread for each of these messages would cost
//! more than to send it, and so it would at the peers. So a message waits for the next heartbeat that this node sends or
//! takes; a newer one to the same peer takes its place, since nobody wants yesterday's news.
//!
//! ```text
//!  agent ──post──▶ waiting ──▶ heartbeat sent or taken, or none for two of them ──▶ link
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_runbooks::model::NodeId;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::error::RequestError;
use crate::node::Node;
use crate::observe::heartbeat;
use crate::timer::Timer;
use crate::transport::Channel;
use crate::wire::Kind;

/// A message waits for this many heartbeats at most: a node without a leader has none to wait for.
pub const PATIENCE_HEARTBEATS: u32 = 2;
/// For so long the answer of a peer is waited for whose version knows no notes.
const ANSWER_DEADLINE: Duration = Duration::from_millis(500);

/// What waits: the newest message for each peer.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<BTreeMap<NodeId, Bytes>>,
    awake: Notify,
}

impl Outbox {
    /// Puts a message in the place of the one that waits for the same peer. Wakes nobody.
    pub fn put(&self, to: &NodeId, body: Bytes) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(to.clone(), body);
    }

    /// The thread is awake: what waits may leave.
    pub fn open(&self) {
        self.awake.notify_one();
    }

    /// Waits until it is opened; at once if it was since the last time.
    pub async fn opened(&self) {
        self.awake.notified().await;
    }

    fn take(&self) -> BTreeMap<NodeId, Bytes> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends what waits. Ends with its runtime.
pub async fn keep(node: Arc<Node>) {
    let patience = heartbeat(&node) * PATIENCE_HEARTBEATS;
    let mut silence = Timer::until(Instant::now() + patience);
    loop {
        tokio::select! {
            () = node.outbox.opened() => {}
            () = silence.wait() => {}
        }
        silence.reset(Instant::now() + patience);
        for (to, body) in node.outbox.take() {
            send(&node, &to, body);
        }
    }
}

fn send(node: &Node, to: &NodeId, body: Bytes) {
    match node.peer(to, Channel::Peer) {
        Ok(peer) if node.knows_notes(to) => note(to, peer.note(body)),
        Ok(peer) => {
            let (peer, to) = (peer.clone(), to.clone());
            tokio::spawn(async move {
                note(&to, peer.ask(Kind::Message, body, ANSWER_DEADLINE).await.map(drop));
            });
        }
        Err(error) => note(to, Err(error)),
    }
}

fn note(to: &NodeId, sent: Result<(), RequestError>) {
    if let Err(error) = sent {
        tracing::debug!(%to, %error, "message not delivered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_does_not_open_it() {
        let outbox = Outbox::default();
        outbox.put(&NodeId::from("db2"), Bytes::new());
        let opened = |within| tokio::time::timeout(within, outbox.opened());
        assert!(opened(Duration::from_millis(1)).await.is_err());
        outbox.open();
        assert!(opened(Duration::from_secs(30)).await.is_ok());
    }

    #[test]
    fn a_newer_message_takes_the_place_of_the_one_that_waits() {
        let outbox = Outbox::default();
        let (db2, mon) = (NodeId::from("db2"), NodeId::from("mon"));
        outbox.put(&db2, Bytes::from_static(b"old"));
        outbox.put(&mon, Bytes::from_static(b"mon's"));
        outbox.put(&db2, Bytes::from_static(b"new"));
        let left = outbox.take();
        assert_eq!(left.get(&db2).map(AsRef::as_ref), Some(&b"new"[..]));
        assert_eq!(left.get(&mon).map(AsRef::as_ref), Some(&b"mon's"[..]));
        assert!(outbox.take().is_empty(), "none leaves twice");
    }
}
