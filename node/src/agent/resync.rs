//! Resync: this node's database is replaced by a copy of the holder's.
//!
//! ```text
//! preflight ─▶ copying ─▶ preparing ─▶ stopping ─▶ swapping ─▶ starting ─▶ seeding ─▶ catching up ─▶ done
//!              the old database stands beside │ marker on disk: this node follows nobody │ reconciler attaches
//! ```
//!
//! It is no run of the ledger: it touches a node that is closed and not in sync, so nothing that the ledger promises depends
//! on it. What could go wrong is a node that follows from the wrong place. Therefore a marker stands on disk from before the
//! old database is stopped until the new one knows its place, and while it stands the reconciler attaches nothing. An
//! agent that finds it at its start says so; a repeated resync begins from the copy on.
//!
//! The order may be given at any node; its agent passes it on to the node's own ([`crate::copy`]).

mod automatic;
mod fetch;
mod offer;
mod preflight;
mod run;
mod unsaved;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_runbooks::model::{NodeId, NodeKind};
use baton_runbooks::observe::{ResyncFacts, ResyncPhase};
use baton_runbooks::why::Obstacle;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::operator::rejoin;
use super::{Context, clock, drill};
use crate::api::drill::DrillRequest;
use crate::api::force::RejoinRequest;
use crate::api::resync::{ResyncAnswer, ResyncRequest};
use crate::api::server::CommandError;
use crate::chain::chain;
use crate::config::{Node, ResyncPolicy};
use crate::copy::{self, OrderError, Ordered, Progress};

/// What an agent asks of another's, over the port of copies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "order")]
pub(super) enum Order {
    /// An operator's wish for that node.
    Resync { request: ResyncRequest },
    /// What a copy of the holder would be.
    Offer { epoch: baton_runbooks::model::Epoch },
    /// Somebody drills.
    Drill { request: DrillRequest },
    /// That node is to come back, whose log is of a lower generation.
    Rejoin { request: RejoinRequest },
}

/// What stands on disk while the database does not know its place.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    /// The resync that wrote it.
    facts: Option<ResyncFacts>,
    /// Nobody knew what the old data have that the holder lacks.
    keep: bool,
}

/// An answer, or why there is none.
type Answered<T> = Result<T, String>;

/// What is known of this node's newest resync. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Resync {
    marker: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The newest one.
    newest: Mutex<Option<Newest>>,
    /// One is under way.
    is_busy: AtomicBool,
    /// The database does not know its place: nothing is to be attached.
    holds_back: AtomicBool,
    /// While that is so: nobody knows what the node's own data have that the holder lacks.
    keeps: AtomicBool,
}

#[derive(Debug)]
struct Newest {
    facts: ResyncFacts,
    began: Instant,
    progress: Progress,
}

impl Newest {
    const fn is_under_way(&self) -> bool {
        match self.facts.phase {
            ResyncPhase::Done | ResyncPhase::Failed | ResyncPhase::Stuck => false,
            ResyncPhase::Copying
            | ResyncPhase::Preparing
            | ResyncPhase::Stopping
            | ResyncPhase::Swapping
            | ResyncPhase::Starting
            | ResyncPhase::Seeding
            | ResyncPhase::CatchingUp => true,
        }
    }
}

impl Resync {
    /// Reads what an earlier agent left.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let marker = state_dir.join("resync");
        let left: Option<Marker> =
            std::fs::read_to_string(&marker).ok().and_then(|text| serde_json::from_str(&text).ok());
        let keeps = left.as_ref().is_none_or(|left| left.keep);
        let is_left = marker.exists();
        if is_left {
            tracing::error!("a resync was interrupted; nothing is attached until it is repeated");
        }
        let note = "it was interrupted while the database was being replaced".to_owned();
        let newest = left.and_then(|left| left.facts).map(|facts| Newest {
            facts: ResyncFacts { phase: ResyncPhase::Stuck, note: Some(note), ..facts },
            began: Instant::now(),
            progress: Progress::default(),
        });
        let shared = Shared {
            newest: Mutex::new(newest),
            is_busy: AtomicBool::new(false),
            holds_back: AtomicBool::new(is_left),
            keeps: AtomicBool::new(keeps),
        };
        Self { marker, shared: Arc::new(shared) }
    }

    /// The database does not know its place in the holder's history, or is about to be replaced: nothing is attached.
    pub(crate) fn holds_back(&self) -> bool {
        self.shared.holds_back.load(Ordering::Acquire)
    }

    /// Why this node could not hold the baton now, if that is so.
    pub(crate) fn obstacle(&self) -> Option<String> {
        self.holds_back().then(|| Obstacle::BeingReplaced.to_string())
    }

    /// Of an interrupted one: nobody knows what the node's own data, which it moved aside, have that the holder lacks.
    fn keeps(&self) -> bool {
        self.shared.keeps.load(Ordering::Acquire)
    }

    /// What the others are to be told.
    pub(crate) fn facts(&self) -> Option<ResyncFacts> {
        let newest = self.newest();
        let newest = newest.as_ref()?;
        let took_ms = u64::try_from(newest.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(match newest.is_under_way() {
            true => ResyncFacts { bytes: newest.progress.bytes(), took_ms, ..newest.facts.clone() },
            false => newest.facts.clone(),
        })
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, Option<Newest>> {
        self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_busy(&self) -> bool {
        self.shared.is_busy.load(Ordering::Acquire)
    }

    /// Takes the only place for a resync; `None`: one is under way.
    fn begin(&self, from: &NodeId, bytes_expected: u64, progress: Progress) -> Option<u64> {
        if self.shared.is_busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let number = clock::wall().0;
        let facts = ResyncFacts {
            number,
            from: from.clone(),
            phase: ResyncPhase::Copying,
            bytes: 0,
            bytes_expected,
            took_ms: 0,
            note: None,
        };
        *self.newest() = Some(Newest { facts, began: Instant::now(), progress });
        Some(number)
    }

    fn enter(&self, phase: ResyncPhase) {
        tracing::info!(?phase, "resync");
        if let Some(newest) = self.newest().as_mut() {
            newest.facts.phase = phase;
        }
    }

    /// Nothing is attached from here on, by this agent or a later one.
    fn hold_back(&self, keep: bool) -> std::io::Result<()> {
        let marker = Marker { facts: self.facts(), keep };
        let text = serde_json::to_string(&marker).map_err(std::io::Error::other)?;
        super::local_state::write(&self.marker, &text)?;
        self.shared.keeps.store(keep, Ordering::Release);
        self.shared.holds_back.store(true, Ordering::Release);
        Ok(())
    }

    /// The database may be attached if it knows its place: it was told, or it is the node's own.
    fn let_go_if(&self, knows_its_place: bool) -> std::io::Result<()> {
        if !knows_its_place {
            return Ok(());
        }
        match std::fs::remove_file(&self.marker) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.shared.holds_back.store(false, Ordering::Release);
        Ok(())
    }

    fn end(&self, phase: ResyncPhase, note: Option<String>) {
        if let Some(facts) = self.facts()
            && let Some(newest) = self.newest().as_mut()
        {
            newest.facts = ResyncFacts { phase, note, ..facts };
        }
        self.shared.is_busy.store(false, Ordering::Release);
    }
}

/// What an operator wants of any node: looked at and begun here, or passed on to the node's own agent.
pub(super) async fn ask(context: &Context, request: ResyncRequest) -> Result<ResyncAnswer, CommandError> {
    let node = request.node.clone();
    let refused = |reason: String| CommandError::Refused { reason };
    let Some(found) = context.config.find(&node).filter(|found| found.kind == NodeKind::Data) else {
        return Err(refused(format!("{node} is not the name of a data node")));
    };
    if context.config.mysql.is_none() {
        return Err(refused("no [mysql] is configured, so there is nothing to copy".to_owned()));
    }
    if node == context.config.node {
        return preflight::ask(context, request).await.map_err(refused);
    }
    pass_on(context, found, &Order::Resync { request }).await
}

/// Gives an order to the agent of `found`, and waits for its answer.
pub(super) async fn pass_on<T: DeserializeOwned>(
    context: &Context,
    found: &Node,
    order: &Order,
) -> Result<T, CommandError> {
    let node = found.name.clone();
    let address = context.config.copy_address(found);
    match copy::order::<Answered<T>>(&context.tls, &node, address, order).await {
        Ok(answer) => answer.map_err(|reason| CommandError::Refused { reason }),
        Err(error @ (OrderError::Dial { .. } | OrderError::Unreadable { .. })) => {
            Err(CommandError::Unreachable { node, reason: chain(&error) })
        }
        Err(OrderError::NoAnswer { .. }) => Err(CommandError::TimedOut),
    }
}

/// Answers the orders that come over the port of copies, and begins resyncs by itself if it is to.
pub(super) fn serve(context: &Context, mut orders: mpsc::Receiver<Ordered>) {
    let policy = context.config.mysql.as_ref().map(|mysql| mysql.resync);
    if context.config.is_data_node() && policy == Some(ResyncPolicy::Automatic) {
        tokio::spawn(automatic::watch(context.clone()));
    }
    let context = context.clone();
    tokio::spawn(async move {
        while let Some(Ordered { from, body, reply }) = orders.recv().await {
            let context = context.clone();
            tokio::spawn(async move {
                if let Ok(answer) = answer(&context, &from, &body).await {
                    let _ = reply.send(answer);
                }
            });
        }
    });
}

async fn answer(context: &Context, from: &NodeId, body: &[u8]) -> serde_json::Result<Bytes> {
    let text = match serde_json::from_slice(body) {
        Ok(Order::Resync { request }) if request.node == context.config.node => {
            let by = format!("{} at {from}", request.by);
            serde_json::to_vec(&preflight::ask(context, ResyncRequest { by, ..request }).await)
        }
        Ok(Order::Resync { request }) => {
            let answer: Answered<()> = Err(format!("this is {}, not {}", context.config.node, request.node));
            serde_json::to_vec(&answer)
        }
        Ok(Order::Drill { request }) => {
            let by = format!("{} at {from}", request.by);
            let answer = drill::serve(context, DrillRequest { by, ..request }).await;
            serde_json::to_vec(&answer.map_err(|error| error.to_string()))
        }
        Ok(Order::Rejoin { request }) => {
            let by = format!("{} at {from}", request.by);
            serde_json::to_vec(&rejoin::serve(context, &RejoinRequest { by, ..request }))
        }
        Ok(Order::Offer { epoch }) => serde_json::to_vec(&offer::offer(context, epoch).await),
        Err(error) => {
            let answer: Answered<()> = Err(format!("the order cannot be read: {error}"));
            serde_json::to_vec(&answer)
        }
    };
    text.map(Bytes::from)
}

/// Deadline of one statement on the database.
const STATEMENT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_resync_holds_the_next_agent_back_until_it_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let resync = Resync::open(dir.path());
        assert!(!resync.holds_back() && resync.facts().is_none());
        let number = resync.begin(&"db2".into(), 100, Progress::default()).unwrap();
        assert_eq!(resync.begin(&"db2".into(), 100, Progress::default()), None, "one at a time");
        resync.enter(ResyncPhase::Stopping);
        resync.hold_back(false).unwrap();
        assert!(resync.holds_back());

        let next = Resync::open(dir.path());
        let facts = next.facts().unwrap();
        assert_eq!((facts.number, facts.phase), (number, ResyncPhase::Stuck));
        assert!(next.holds_back() && !next.is_busy() && !next.keeps());
        next.begin(&"db2".into(), 100, Progress::default()).unwrap();
        next.let_go_if(false).unwrap();
        assert!(next.holds_back());
        next.let_go_if(true).unwrap();
        next.let_go_if(true).unwrap();
        next.end(ResyncPhase::Done, None);
        assert!(!next.holds_back() && !next.is_busy());
        assert!(!Resync::open(dir.path()).holds_back());
    }
}
