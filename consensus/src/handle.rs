//! The handle: how the rest of the agent talks to the consensus thread.
//!
//! Every call is a message on a bounded queue and a wait with a deadline on the *caller's* runtime, so that a
//! consensus thread that hangs in its disk delays nobody longer than the caller allows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_runbooks::ledger::{Command, Response};
use baton_runbooks::model::{NodeId, Term};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{HandOverError, ProposeError, ReadError, RequestError};
use crate::force::Place;
use crate::outbox::Outbox;
use crate::standing::{Committed, Standing};
use crate::types::{Incarnation, Stamp};

/// Calls that may wait for the consensus thread. It takes them at once unless its disk hangs; a full queue makes
/// callers wait until their deadline.
pub(crate) const CALLS_MAX: usize = 256;

/// How long after its deadline a call ends at the latest, with the consensus thread hanging.
const GRACE: Duration = Duration::from_millis(50);

/// A command that was applied, here and on the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its log index.
    pub index: u64,
    /// The ledger's answer.
    pub response: Response,
}

/// A message of a peer. The peer has been told that it is here.
#[derive(Debug)]
pub struct Inbound {
    /// Who sent it, from its verified certificate.
    pub from: NodeId,
    /// The message.
    pub body: Bytes,
    /// When it arrived.
    pub at: Instant,
}

/// Messages of peers. Bounded: when nobody takes them, peers are refused.
#[derive(Debug)]
pub struct Inbox(pub(crate) mpsc::Receiver<Inbound>);

impl Inbox {
    /// The next message; `None` when consensus has been shut down.
    pub async fn recv(&mut self) -> Option<Inbound> {
        self.0.recv().await
    }

    /// The next message if it is here. Whoever only asks is not woken by what comes.
    pub fn try_recv(&mut self) -> Option<Inbound> {
        self.0.try_recv().ok()
    }
}

/// In what capacity a command is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capacity {
    /// Whoever leads may append it.
    Anyone,
    /// This node, as leader of this term.
    Leader(Term),
}

/// What the handle asks of the consensus thread.
#[derive(Debug)]
pub(crate) enum Call {
    Propose {
        command: Box<Command>,
        capacity: Capacity,
        deadline: Duration,
        reply: oneshot::Sender<Result<Applied, ProposeError>>,
    },
    ReadBarrier {
        deadline: Duration,
        reply: oneshot::Sender<Result<u64, ReadError>>,
    },
    Request {
        to: NodeId,
        body: Bytes,
        deadline: Duration,
        reply: oneshot::Sender<Result<(), RequestError>>,
    },
    HandOver {
        to: NodeId,
        reply: oneshot::Sender<Result<(), HandOverError>>,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// Talks to the consensus thread. Cheap to clone. When the last one is dropped, the thread ends.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) calls: mpsc::Sender<Call>,
    pub(crate) committed: watch::Receiver<Committed>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) order: watch::Sender<Vec<NodeId>>,
    pub(crate) outbox: Arc<Outbox>,
    /// This node's log and how far it has come; `None`: it is damaged.
    pub(crate) reached: Option<(Incarnation, Arc<Mutex<Stamp>>)>,
}

impl Handle {
    /// Proposes a command, through whoever leads, and waits until it is applied there and here.
    ///
    /// A command is applied at most once, however often it is sent again on the way.
    ///
    /// # Errors
    /// See [`ProposeError`]. After [`ProposeError::Unknown`] the command may still be applied.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Result<Applied, ProposeError> {
        self.propose_in(command, Capacity::Anyone, deadline).await
    }

    /// Proposes a command as the leader of `term`. It has no effect unless the entry is of that very leadership, even
    /// if this node loses and regains leadership on the way.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] unless this node leads in `term`; the others as for [`Self::propose`].
    pub async fn propose_as_leader(
        &self,
        command: Command,
        term: Term,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        self.propose_in(command, Capacity::Leader(term), deadline).await
    }

    async fn propose_in(
        &self,
        command: Command,
        capacity: Capacity,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        let (reply, answer) = oneshot::channel();
        let call = Call::Propose { command: Box::new(command), capacity, deadline, reply };
        let asked = async {
            self.calls.send(call).await.map_err(|_| ProposeError::Shutdown)?;
            answer.await.map_err(|_| ProposeError::Shutdown)?
        };
        // The thread keeps the deadline itself and knows more about what happened; this is for one that hangs.
        tokio::time::timeout(deadline + GRACE, asked).await.unwrap_or(Err(ProposeError::Unknown))
    }

    /// The newest applied ledger. Readable at once after the start, before any leader is known.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Committed> {
        self.committed.clone()
    }

    /// How far this node's log has come; `None`: it is damaged.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let (incarnation, stamp) = self.reached.as_ref()?;
        let stamp = *stamp.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Place { incarnation: incarnation.clone(), stamp })
    }

    /// Where this node stands.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits until this node has applied everything that was committed anywhere before the call, and returns that
    /// log index.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self, deadline: Duration) -> Result<u64, ReadError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let call = Call::ReadBarrier { deadline, reply };
            self.calls.send(call).await.map_err(|_| ReadError::Shutdown)?;
            answer.await.map_err(|_| ReadError::Shutdown)?
        };
        tokio::time::timeout(deadline, asked).await.unwrap_or(Err(ReadError::NoQuorum))
    }

    /// Says who should lead, best first. A leader hands over to a better one that has been healthy and caught up for a
    /// while; a node that does not stand in the list is never handed to.
    pub fn prefer(&self, order: Vec<NodeId>) {
        self.order.send_if_modified(|present| {
            let changed = *present != order;
            if changed {
                *present = order;
            }
            changed
        });
    }

    /// Hands leadership to `to` now, whatever the order says, if it is a healthy voter that has everything.
    ///
    /// # Errors
    /// See [`HandOverError`].
    pub async fn hand_over(&self, to: &NodeId) -> Result<(), HandOverError> {
        let (reply, answer) = oneshot::channel();
        let call = Call::HandOver { to: to.clone(), reply };
        self.calls.send(call).await.map_err(|_| HandOverError::Shutdown)?;
        answer.await.map_err(|_| HandOverError::Shutdown)?
    }

    /// Sends a message to a peer of which nobody needs to know whether it has arrived. It leaves with the next heartbeat, or
    /// after two without any, unless a newer one has taken its place.
    pub fn post(&self, to: &NodeId, body: Bytes) {
        self.outbox.put(to, body);
    }

    /// Sends a message to a peer and waits until it is in the queue of the peer's agent.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(&self, to: &NodeId, body: Bytes, deadline: Duration) -> Result<(), RequestError> {
        let (reply, answer) = oneshot::channel();
        // A queue that is full ends it at once.
        let _ = self.calls.try_send(Call::Request { to: to.clone(), body, deadline, reply });
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer.unwrap_or(Err(RequestError::Shutdown)),
            Err(_) => Err(RequestError::TimedOut { to: to.clone() }),
        }
    }

    /// Ends the consensus thread, and waits until its files are closed.
    pub async fn shutdown(self) {
        let (done, ended) = oneshot::channel();
        if self.calls.send(Call::Shutdown { done }).await.is_ok() {
            // An error means that the thread dropped its end, which it does last: it has ended as well.
            let _ = ended.await;
        }
    }
}
