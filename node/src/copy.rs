//! Copies of a database between agents, and orders for one node's agent: a port and a thread of their own, so that
//! neither the megabytes nor their encryption delay the driver, a lease or Raft.
//!
//! ```text
//! any agent ──Order──▶ data node          one question, one answer
//! data node ──Copy───▶ holder             one question, one answer, then the stream of `mariadb-backup`:
//!                                         0 bytes… | 0 bytes… | 1 {how it ended}
//! ```
//!
//! A stream counts only with its last frame: one that breaks is no copy. Both sides are authenticated as on every link.
//! The holder hands out a copy only while it holds a valid lease of the epoch that is asked for.

mod fetch;
mod give;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use baton_consensus::transport::{Channel, Link, Listener, dial};
use baton_consensus::{Committed, Tls};
use baton_runbooks::model::{Epoch, NodeId};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::hands::mysql::MysqlAccess;
use crate::lease::LeaseView;

pub(crate) use fetch::{Fetch, FetchError, Progress};

/// Orders that may wait for the agent. A handful of people give them.
pub(crate) const ORDERS_MAX: usize = 8;
/// Time for a link to be established.
const DIAL_DEADLINE: Duration = Duration::from_secs(3);
/// Time for the question of a new link to come, and for its answer to go.
const GREET_DEADLINE: Duration = Duration::from_secs(3);
/// Time for an order to be answered: what it looks at has deadlines of its own.
const ANSWER_DEADLINE: Duration = Duration::from_secs(12);

/// An order that has come over a link, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Ordered {
    /// Who gives it, from its verified certificate.
    pub(crate) from: NodeId,
    /// What is wanted, as JSON.
    pub(crate) body: Bytes,
    /// The answer, as JSON.
    pub(crate) reply: oneshot::Sender<Bytes>,
}

/// What the thread needs.
pub(crate) struct Setup {
    pub(crate) tls: Tls,
    pub(crate) listen: SocketAddr,
    pub(crate) members: Vec<NodeId>,
    pub(crate) orders: mpsc::Sender<Ordered>,
    /// `None`: there is no database to copy.
    pub(crate) giver: Option<Giver>,
}

/// What a holder needs to hand out a copy.
#[derive(Clone)]
pub(crate) struct Giver {
    pub(crate) me: NodeId,
    pub(crate) committed: watch::Receiver<Committed>,
    pub(crate) lease: watch::Receiver<LeaseView>,
    pub(crate) access: MysqlAccess,
    pub(crate) run_dir: std::path::PathBuf,
    /// Copies begun, so that each has a directory of its own.
    pub(crate) given: Arc<AtomicU64>,
}

/// The question of a copy's link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    epoch: Epoch,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
enum Verdict {
    Coming,
    Refused { reason: String },
}

/// First byte of a frame with data.
const DATA: u8 = 0;
/// First byte of the last frame.
const END: u8 = 1;

/// How a stream ended, as its sender says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    /// `None`: it is whole.
    failure: Option<String>,
}

/// The thread. Dropping it ends nothing: it lives as long as the process.
#[derive(Debug, Clone)]
pub(crate) struct Copies {
    runtime: tokio::runtime::Handle,
}

impl Copies {
    /// Listens, and starts the thread. Must not be called on a runtime's thread that may not block for a moment.
    ///
    /// # Errors
    /// The port is taken, or the system gives no thread.
    pub(crate) fn start(setup: Setup) -> anyhow::Result<Self> {
        use anyhow::Context;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
        let handle = runtime.handle().clone();
        let listener = {
            let _entered = runtime.enter();
            let channels = [Channel::Order, Channel::Copy];
            Listener::bind(setup.listen, setup.tls.clone(), setup.members.clone(), &channels)?
        };
        std::thread::Builder::new()
            .name("baton-copy".into())
            .spawn(move || runtime.block_on(serve(listener, setup)))
            .context("start the thread of copies")?;
        Ok(Self { runtime: handle })
    }

    /// Fetches a copy on the thread, and waits for it.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(crate) async fn fetch(&self, fetch: Fetch) -> Result<(), FetchError> {
        self.runtime.spawn(fetch.run()).await.unwrap_or(Err(FetchError::Ended))
    }
}

async fn serve(mut listener: Listener, setup: Setup) {
    loop {
        let (from, channel, link) = listener.accept().await;
        match channel {
            Channel::Order => drop(tokio::spawn(take_order(from, link, setup.orders.clone()))),
            Channel::Copy => {
                if let Some(giver) = setup.giver.clone() {
                    tokio::spawn(give::give(from, link, giver));
                }
            }
            Channel::Raft | Channel::Snapshot | Channel::Peer | Channel::Lease => {}
        }
    }
}

async fn take_order(from: NodeId, mut link: Link, orders: mpsc::Sender<Ordered>) {
    let Ok(Ok(Some(body))) = tokio::time::timeout(GREET_DEADLINE, link.recv()).await else { return };
    let (reply, answer) = oneshot::channel();
    if orders.try_send(Ordered { from, body, reply }).is_err() {
        return;
    }
    let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_DEADLINE, answer).await else { return };
    // Whoever asked and is gone meanwhile looks at the status.
    let _ = tokio::time::timeout(GREET_DEADLINE, link.send(answer)).await;
}

/// An order got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// Its agent cannot be reached.
    #[error("the agent of {to} cannot be reached")]
    Dial {
        /// The node.
        to: NodeId,
        /// Why.
        #[source]
        source: baton_consensus::transport::DialError,
    },
    /// It gave none; whether it does what was ordered is not known.
    #[error("the agent of {to} gave no answer")]
    NoAnswer {
        /// The node.
        to: NodeId,
    },
    /// It answered in another form.
    #[error("the answer of {to} cannot be read; agents of different versions?")]
    Unreadable {
        /// The node.
        to: NodeId,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// Gives an order to the agent of `to` and waits for the answer.
///
/// # Errors
/// See [`OrderError`].
pub(crate) async fn order<T: DeserializeOwned>(
    tls: &Tls,
    to: &NodeId,
    address: SocketAddr,
    body: &(impl Serialize + Sync),
) -> Result<T, OrderError> {
    let body = serde_json::to_vec(body).expect("an order is plain data");
    let dialled = dial(tls, to, address, Channel::Order, DIAL_DEADLINE).await;
    let mut link = dialled.map_err(|source| OrderError::Dial { to: to.clone(), source })?;
    let asked = async {
        link.send(body.into()).await.ok()?;
        link.recv().await.ok()?
    };
    let answer = tokio::time::timeout(ANSWER_DEADLINE, asked).await.ok().flatten();
    let answer = answer.ok_or_else(|| OrderError::NoAnswer { to: to.clone() })?;
    serde_json::from_slice(&answer).map_err(|source| OrderError::Unreadable { to: to.clone(), source })
}

#[cfg(test)]
mod tests;
