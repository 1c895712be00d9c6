//! The listening side: takes links, lets the peer introduce itself, answers its questions side by side.
//!
//! Raft hears nothing from a peer before that peer's greeting on the same link, since the greeting carries what the
//! peer remembers of this log; and nothing from anybody before this node has *settled* (see [`crate::engine`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_runbooks::model::NodeId;
use bytes::Bytes;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::handle::Inbound;
use crate::machine;
use crate::newer::Newer;
use crate::node::Node;
use crate::propose;
use crate::transport::{Channel, Link, LinkSender, Listener};
use crate::types::{Raft, TypeConfig};
use crate::wire::{self, Ask, Envelope, Kind, Rpc};

/// Questions of one link that are answered at the same time. Beyond it the link is not read, which slows the peer.
const CONCURRENT_MAX: usize = 64;
/// A link on which nothing arrives is closed; dialers greet every few seconds.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// A peer that does not read its answers is dropped.
const SEND_DEADLINE: Duration = Duration::from_secs(2);

/// Serves until it is dropped.
pub async fn serve(node: Arc<Node>, mut listener: Listener) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            (from, channel, link) = listener.accept() => {
                links.spawn(serve_link(Arc::clone(&node), from, channel, link));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

async fn serve_link(node: Arc<Node>, from: NodeId, channel: Channel, link: Link) {
    let (sender, mut receiver) = link.split();
    let (answers, queue) = mpsc::channel(CONCURRENT_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(send_answers(sender, queue));
    let permits = Arc::new(Semaphore::new(CONCURRENT_MAX));
    let mut greeted = false;
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(Ok(Some(frame))) = tokio::time::timeout(IDLE_MAX, receiver.recv()).await else { break };
        let Some((id, kind, payload)) = wire::parse(frame) else { break };
        let question = match kind {
            Kind::Control => match serde_json::from_slice::<Envelope<Ask>>(&payload) {
                Ok(Envelope { reached, body: Ask::Hello(hello) }) => {
                    node.hear_hello(&from, &Envelope { reached, body: *hello });
                    greeted = true;
                    let answer = node.envelope(&node.hello_for(&from));
                    if answers.send(wire::frame(id, Kind::Answer, &answer)).await.is_err() {
                        break;
                    }
                    continue;
                }
                Ok(envelope) if greeted => Question::Control(envelope),
                Ok(_) => break,
                Err(error) if greeted => unclear(&payload, &error),
                Err(error) => Question::Unclear(error.to_string()),
            },
            Kind::Message => Question::Message(payload),
            Kind::Note => {
                if channel == Channel::Peer {
                    // An agent that takes nothing gets no more; whoever sends notes sends newer ones.
                    let inbound = Inbound { from: from.clone(), body: payload, at: Instant::now() };
                    let _ = node.inbox.try_send(inbound);
                }
                continue;
            }
            Kind::Answer | Kind::Refusal => break,
        };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
        let (node, from, answers) = (Arc::clone(&node), from.clone(), answers.clone());
        tasks.spawn(async move {
            let frame = match answer(&node, &from, channel, question).await {
                Ok(answer) => wire::frame(id, Kind::Answer, &answer),
                Err(refusal) => wire::frame(id, Kind::Refusal, refusal.as_bytes()),
            };
            let _ = answers.send(frame).await;
            drop(permit);
        });
    }
}

async fn send_answers(mut sender: LinkSender, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(frame) = queue.recv().await {
        if !matches!(tokio::time::timeout(SEND_DEADLINE, sender.send(frame)).await, Ok(Ok(()))) {
            return;
        }
    }
}

enum Question {
    Control(Envelope<Ask>),
    Message(Bytes),
    Unclear(String),
    /// It has something that this version does not know, and came in this payload.
    Newer(Newer, Bytes),
}

fn unclear(payload: &Bytes, error: &serde_json::Error) -> Question {
    match Newer::found(payload, error) {
        Some(newer) => Question::Newer(newer, payload.clone()),
        None => Question::Unclear(error.to_string()),
    }
}

async fn answer(
    node: &Arc<Node>,
    from: &NodeId,
    channel: Channel,
    question: Question,
) -> Result<Bytes, String> {
    match question {
        Question::Unclear(error) => Err(format!("not understood: {error}")),
        Question::Newer(newer, payload) => {
            if let Some((to, vote)) = wire::append_in(&payload) {
                note_newer(node, from, to, &vote, &newer);
            }
            Err(newer.to_string())
        }
        Question::Message(body) => {
            if channel != Channel::Peer {
                return Err("messages have a channel of their own".to_owned());
            }
            // Answered here: to wake this thread again for an answer of the agent would cost more than the message.
            let inbound = Inbound { from: from.clone(), body, at: Instant::now() };
            node.inbox.try_send(inbound).map_err(|_| "too busy".to_owned())?;
            Ok(Bytes::new())
        }
        Question::Control(Envelope { reached, body }) => {
            if node.is_of_another_generation(from) {
                return Err("is of another generation of the cluster".to_owned());
            }
            node.remember(from, reached.as_ref());
            match body {
                Ask::Raft { to, rpc: Rpc::Append(request) } => answer_append(node, to, request).await,
                // On the heap, all that is rare: each question is a task as large as the largest answer.
                Ask::Raft { to, rpc } => Box::pin(answer_raft(node, from, to, rpc)).await,
                Ask::Propose(proposal) => {
                    Ok(node.envelope(&Box::pin(propose::take_forwarded(node, *proposal)).await))
                }
                Ask::ReadIndex => {
                    Box::pin(propose::read_index(node)).await.map(|index| node.envelope(&index))
                }
                Ask::Hello(_) => Err("already greeted".to_owned()),
            }
        }
    }
}

async fn answer_append(
    node: &Arc<Node>,
    to: u64,
    request: AppendEntriesRequest<TypeConfig>,
) -> Result<Bytes, String> {
    let has_entries = !request.entries.is_empty();
    let answer = raft_for(node, to)?.append_entries(request).await;
    if answer.as_ref().is_ok_and(AppendEntriesResponse::is_success) {
        node.hear_leader();
        // A heartbeat says nothing of what could not be read.
        if has_entries {
            node.refusals.clear();
        }
    }
    encode(node, answer)
}

/// The leader's log has something that this version does not know.
fn note_newer(node: &Arc<Node>, from: &NodeId, to: u64, vote: &VoteOf<TypeConfig>, newer: &Newer) {
    let Ok(raft) = raft_for(node, to) else { return };
    let metrics = raft.metrics();
    let present = metrics.borrow_watched().vote;
    if counts(vote, &present, node.is_of_another_generation(from)) {
        node.refusals.note(newer);
    }
}

/// What came under `vote` is of a leader that this node would follow. What is not may never come again: the next leader does not
/// have it, or it is of another cluster.
fn counts(vote: &VoteOf<TypeConfig>, present: &VoteOf<TypeConfig>, is_of_another_generation: bool) -> bool {
    vote >= present && !is_of_another_generation
}

async fn answer_raft(node: &Arc<Node>, from: &NodeId, to: u64, rpc: Rpc) -> Result<Bytes, String> {
    let raft = raft_for(node, to)?;
    match rpc {
        Rpc::Append(request) => answer_append(node, to, request).await,
        Rpc::Vote(request) => encode(node, raft.vote(request).await),
        Rpc::PreVote(request) => encode(node, raft.pre_vote(request).await),
        Rpc::Transfer(request) => encode(node, raft.handle_transfer_leader(request).await),
        Rpc::Snapshot { vote, meta, state } => {
            if let Some(newer) = machine::newer_in(&state) {
                note_newer(node, from, to, &vote, &newer);
                return Err(newer.to_string());
            }
            let snapshot = SnapshotOf::<TypeConfig, String> { meta, snapshot: state };
            let answer = raft.install_full_snapshot(vote, snapshot).await;
            if answer.is_ok() {
                node.refusals.clear();
            }
            encode(node, answer)
        }
    }
}

/// The Raft that may answer for the id, if any.
fn raft_for(node: &Arc<Node>, to: u64) -> Result<&Raft, String> {
    if let Some(problem) = node.retired.borrow().as_ref() {
        return Err(format!("takes no part: {problem}"));
    }
    let raft = node.raft().ok_or("takes no part yet")?;
    if *raft.node_id() != to {
        return Err(format!("this log has Raft id {}, not {to}", raft.node_id()));
    }
    if !node.is_settled() {
        return Err("is still waiting for the greetings of its peers".to_owned());
    }
    Ok(raft)
}

fn encode<T: Serialize, E: std::fmt::Display>(node: &Node, result: Result<T, E>) -> Result<Bytes, String> {
    result.map(|answer| node.envelope(&answer)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::watch;

    use super::*;
    use crate::memory::Memory;
    use crate::node::Parts;
    use crate::{Standing, Timing, Tls, pki};

    fn node(dir: &Path, inbox: mpsc::Sender<Inbound>) -> Arc<Node> {
        let me = NodeId::from("db1");
        pki::init(dir).unwrap();
        pki::issue(dir, &me).unwrap();
        let [ca, cert, key] = ["ca.pem", "db1.pem", "db1.key"].map(|file| dir.join(file));
        Node::new(Parts {
            cluster: "shop".to_owned(),
            me: me.clone(),
            members: Vec::new(),
            timing: Timing { heartbeat_ms: 100, election_min_ms: 300, election_max_ms: 400 },
            tls: Tls::load(&ca, &cert, &key, "shop", me).unwrap(),
            log: None,
            memory: Memory::default(),
            retired: None,
            standing: watch::Sender::new(Standing::default()),
            inbox,
            session: "a".to_owned(),
        })
    }

    /// A queue that nobody empties refuses what comes, at once: no message is answered for that is not in it.
    #[tokio::test]
    async fn a_full_queue_of_the_agent_refuses_the_message() {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, mut queue) = mpsc::channel(1);
        let (node, from) = (node(dir.path(), inbox), NodeId::from("db2"));
        let message = |text: &'static str| {
            answer(&node, &from, Channel::Peer, Question::Message(Bytes::from_static(text.as_bytes())))
        };
        assert_eq!(message("first").await, Ok(Bytes::new()));
        assert_eq!(message("second").await, Err("too busy".to_owned()));
        assert_eq!(queue.try_recv().unwrap().body, "first");
        assert_eq!(message("third").await, Ok(Bytes::new()));
        assert_eq!(queue.try_recv().unwrap().body, "third");
        assert!(queue.try_recv().is_err(), "the refused message is in the queue all the same");
    }

    /// Messages of this node wait for it.
    #[tokio::test]
    async fn a_heartbeat_that_is_taken_opens_the_outbox() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path(), mpsc::channel(1).0);
        node.hear_leader();
        tokio::time::timeout(Duration::from_secs(30), node.outbox.opened()).await.unwrap();
    }

    /// The refusal has the version and the way out instead of a parser's words.
    #[tokio::test]
    async fn an_append_that_has_something_newer_is_refused_with_the_version() {
        let dir = tempfile::tempdir().unwrap();
        let (node, from) = (node(dir.path(), mpsc::channel(1).0), NodeId::from("db2"));
        let ask = |text: String| {
            let payload = Bytes::from(text);
            let error = serde_json::from_slice::<Envelope<Ask>>(&payload).unwrap_err();
            answer(&node, &from, Channel::Raft, unclear(&payload, &error))
        };
        let refusal = ask(wire::tests::made_newer(&wire::tests::append())).await.unwrap_err();
        assert_eq!(refusal, Newer::named("frobnicate").to_string());
        let damaged = ask("{".to_owned()).await.unwrap_err();
        assert!(damaged.starts_with("not understood: "), "{damaged}");
    }

    #[test]
    fn what_is_refused_of_a_deposed_leader_or_of_another_cluster_is_not_noted() {
        type Vote = VoteOf<TypeConfig>;
        let present = Vote::new_committed(3, 2);
        for (vote, is_followed) in [
            (Vote::new_committed(3, 2), true),
            (Vote::new_committed(4, 1), true),
            (Vote::new_committed(3, 3), true),
            (Vote::new_committed(3, 1), false),
            (Vote::new_committed(2, 3), false),
        ] {
            assert_eq!(counts(&vote, &present, false), is_followed, "{vote}");
            assert!(!counts(&vote, &present, true), "{vote}");
        }
        // It was elected by this node's vote, and says so itself for the first time.
        assert!(counts(&present, &Vote::new(3, 2), false));
    }
}
