//! The consensus thread: brings Raft up, watches it, does what the handle asks.
//!
//! ```text
//! log damaged or retired ────────────────────────────────> answers messages, votes never
//! log without a Raft id ── founding ──┐
//! log with a Raft id ─────────────────┴─> Raft runs, deaf ── settled ──> hears, votes, leads
//! ```
//!
//! *Settled*: all peers have greeted, or [`SETTLE`] has passed. Until then Raft neither hears anything nor campaigns,
//! since a peer that has not greeted yet may be the one that knows that this disk is an older copy.
//!
//! The thread has a runtime of its own with this thread only. What blocks it, a disk that hangs, blocks Raft and
//! nothing else in the process; its peers see a node that went silent.
//!
//! A Raft core that panicked or met an error of its disk looks alive to everybody who holds a handle. So the end of
//! its metrics, unless asked for, ends the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_runbooks::ledger::Command;
use baton_runbooks::model::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, ServerState, SnapshotPolicy, StepDownPolicy};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::Timing;
use crate::error::{HandOverError, RequestError};
use crate::founding::{self, Founding};
use crate::handle::{Call, Capacity};
use crate::membership;
use crate::network::Network;
use crate::newer;
use crate::node::{Log, Metrics, Node};
use crate::observe::{Anchor, heartbeat, observe};
use crate::outbox;
use crate::pace;
use crate::peer::Peer;
use crate::propose;
use crate::server;
use crate::steering::{Health, Steering, is_healthy};
use crate::transport::{Channel, Listener};
use crate::types::{Line, Raft, Voter};
use crate::wire::Kind;

/// How long a node waits for the greetings of peers that may be down. Longer delays a restart beside a lost peer by as
/// much; shorter than a dial with its greeting would make the wait pointless.
const SETTLE: Duration = Duration::from_millis(1000);
/// Memories of peers' logs are synced at most this often.
const MEMORIES_EVERY: Duration = Duration::from_secs(1);
/// Calls that are worked on at the same time.
const CALLS_AT_ONCE: usize = 512;
/// Time for the first command of a new cluster.
const BOOTSTRAP_DEADLINE: Duration = Duration::from_secs(2);
/// How often the membership is looked at. A log that came new waits a second or more for its greeting, so this is no delay.
const TEND_EVERY: Duration = Duration::from_millis(200);
/// Pause after a change of the membership failed.
const MEMBERSHIP_PAUSE: Duration = Duration::from_secs(1);
/// Entries between two snapshots, and entries kept behind one so that a peer that was away briefly needs no snapshot.
const SNAPSHOT_EVERY: u64 = 1000;
const KEEP_BEHIND_SNAPSHOT: u64 = 200;

/// What the thread is started with.
pub struct Engine {
    /// Shared with all tasks.
    pub node: Arc<Node>,
    /// Where peers connect.
    pub listener: std::net::TcpListener,
    /// From the handles.
    pub calls: mpsc::Receiver<Call>,
    /// Who should lead.
    pub order: watch::Receiver<Vec<NodeId>>,
    /// First entry of a new cluster.
    pub bootstrap: Command,
}

/// openraft's settings for the timing.
///
/// # Errors
/// What openraft finds wrong.
pub fn config(cluster: &str, timing: Timing) -> Result<Arc<Config>, String> {
    if timing.election_min_ms < 3 * timing.heartbeat_ms {
        return Err("election_min must be at least three heartbeats".to_owned());
    }
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        // Switched on when settled.
        enable_elect: false,
        // A follower that was cut off must not depose a healthy leader when it comes back.
        enable_pre_vote: Some(true),
        // A leader that can send but hears nothing must fall silent, or its heartbeats keep it in office.
        quorum_loss_probe_interval: Some(2 * timing.election_max_ms),
        // The ledger is replayed from what is committed, and a restarted leader may be an outdated one.
        enable_leader_restore: Some(false),
        backoff: "20ms 40ms ...200ms".to_owned(),
        install_snapshot_timeout: 2000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
        removed_leader_step_down: StepDownPolicy::After(100),
        // Small queues: a few commands per second is a busy cluster, and memory is bounded by what is queued.
        max_payload_entries: 128,
        max_append_entries: Some(256),
        api_channel_size: Some(1024),
        notification_channel_size: Some(4096),
        state_machine_channel_size: Some(256),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| error.to_string())
}

impl Engine {
    /// Runs until the handle ends it. Returns who waits for the end.
    pub async fn run(self) -> Option<oneshot::Sender<()>> {
        let Self { node, listener, calls, order, bootstrap } = self;
        let names = node.members.iter().map(|member| member.id.clone());
        let channels = [Channel::Raft, Channel::Snapshot, Channel::Peer];
        match Listener::from_std(listener, node.tls.clone(), names, &channels) {
            Ok(listener) => vital("listener", server::serve(Arc::clone(&node), listener)),
            Err(error) => die(&format!("cannot listen: {error}")),
        }
        let mut peers = BTreeMap::new();
        for member in node.members.iter().filter(|member| member.id != node.me) {
            for channel in channels {
                let peer = Peer::keep(&node, member.id.clone(), member.raft_addr, channel);
                peers.insert((member.id.clone(), channel), peer);
            }
        }
        node.set_peers(peers);
        vital("outbox", outbox::keep(Arc::clone(&node)));
        vital("raft", lead_through(Arc::clone(&node), order, bootstrap));
        serve_calls(&node, calls).await
    }
}

/// A task without which this node must not look alive.
fn vital(name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    struct Bomb(&'static str);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if std::thread::panicking() {
                die(&format!("the task {} panicked", self.0));
            }
        }
    }
    tokio::spawn(async move {
        let _bomb = Bomb(name);
        task.await;
    });
}

/// The process must not go on: it would look healthy without being so.
fn die(why: &str) -> ! {
    tracing::error!(why, "consensus failed, the agent ends itself");
    std::process::abort()
}

async fn serve_calls(node: &Arc<Node>, mut calls: mpsc::Receiver<Call>) -> Option<oneshot::Sender<()>> {
    let permits = Arc::new(Semaphore::new(CALLS_AT_ONCE));
    let mut done = None;
    while let Some(call) = calls.recv().await {
        if let Call::Shutdown { done: waiting } = call {
            done = Some(waiting);
            break;
        }
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
        let node = Arc::clone(node);
        tokio::spawn(async move {
            serve_call(&node, call).await;
            drop(permit);
        });
    }
    node.stop();
    if let Some(raft) = node.raft() {
        let _ = raft.shutdown().await;
    }
    done
}

/// Whoever asked may have gone; that an answer cannot be delivered is no matter.
async fn serve_call(node: &Arc<Node>, call: Call) {
    match call {
        Call::Propose { command, capacity, deadline, reply } => {
            // On the heap, like all that is rare: each call is a task as large as the largest.
            let _ = reply.send(Box::pin(propose::propose(node, *command, capacity, deadline)).await);
        }
        Call::ReadBarrier { deadline, reply } => {
            let _ = reply.send(Box::pin(propose::read_barrier(node, deadline)).await);
        }
        Call::Request { to, body, deadline, mut reply } => {
            let told = async {
                let peer = node.peer(&to, Channel::Peer)?;
                // The answer says that the message is there, and nothing else.
                peer.ask(Kind::Message, body, deadline).await.map(drop)
            };
            tokio::select! {
                ended = told => { let _: Result<(), Result<_, RequestError>> = reply.send(ended); }
                () = reply.closed() => {}
            }
        }
        Call::HandOver { to, reply } => {
            let _ = reply.send(Box::pin(hand_over(node, &to)).await);
        }
        // Taken care of where calls are received.
        Call::Shutdown { done } => drop(done),
    }
}

/// The whole life of Raft on this node.
async fn lead_through(node: Arc<Node>, order: watch::Receiver<Vec<NodeId>>, bootstrap: Command) {
    let Some(log) = &node.log else {
        refuse(&node).await;
        return;
    };
    if node.retired.borrow().is_some() {
        refuse(&node).await;
        return;
    }
    let (raft_id, line, form) = find_raft_id(&node).await;
    let raft = match start_raft(&node, log, raft_id).await {
        Ok(raft) => raft,
        Err(error) => die(&error),
    };
    if let Some(voters) = form
        && let Err(error) = raft.initialize(voters).await
    {
        die(&format!("cannot form the cluster: {error}"));
    }
    if let Some(identity) = node.identity().filter(|identity| identity.raft_id.is_none()) {
        let Line { generation, founder } = line;
        let identity = crate::store::Identity { raft_id: Some(raft_id), generation, founder, ..identity };
        // Written before anybody is heard or asked, and after the first entry: a crash in between is found at the
        // next start, where the entry names this log (see `start`).
        if let Err(error) = log.store.set_identity(&identity) {
            die(&format!("cannot write the identity: {error}"));
        }
        node.set_identity(identity);
    }
    node.set_raft(raft.clone());
    vital("memories", keep_memories(Arc::clone(&node)));
    vital("pace", pace::keep(Arc::clone(&node), raft.clone()));
    vital("leader", lead(Arc::clone(&node), raft.clone(), order, bootstrap));
    tokio::join!(settle(&node, &raft), watch_raft(&node, &raft));
}

async fn start_raft(node: &Arc<Node>, log: &Log, raft_id: u64) -> Result<Raft, String> {
    let config = config(&node.cluster, node.timing)?;
    let network = Network { node: Arc::clone(node) };
    Raft::new(raft_id, config, network, log.store.clone(), log.machine.clone())
        .await
        .map_err(|error| format!("cannot start Raft: {error}"))
}

/// Says why this node takes no part, for as long as the process lives.
async fn refuse(node: &Node) {
    let problem = node.retired.borrow().clone();
    let problem = problem.unwrap_or_default();
    node.standing.send_modify(|standing| *standing = node.retired_standing(standing.term, &problem));
    std::future::pending().await
}

/// The Raft id of this log, and whom to form a cluster with if that is what makes it one.
async fn find_raft_id(node: &Node) -> (u64, Line, Option<BTreeMap<u64, Voter>>) {
    let members: Vec<NodeId> = node.members.iter().map(|member| member.id.clone()).collect();
    loop {
        let Some(identity) = node.identity() else { return std::future::pending().await };
        if let Some(raft_id) = identity.raft_id {
            return (raft_id, identity.line(), None);
        }
        let problem = match founding::decide(&node.me, &identity.incarnation, &members, &node.hellos()) {
            Founding::Adopt { raft_id, generation, founder } => {
                return (raft_id, Line { generation, founder }, None);
            }
            Founding::Form(voters) => {
                let own = voters.iter().find(|(_, voter)| voter.name == node.me).map(|(id, _)| *id);
                match own {
                    Some(own) => return (own, Line::default(), Some(voters)),
                    None => "this node is not in the list of nodes".to_owned(),
                }
            }
            Founding::Wait(problem) => problem,
        };
        node.standing.send_if_modified(|standing| {
            let changed = standing.problem.as_ref() != Some(&problem);
            standing.voting = false;
            standing.problem = Some(problem);
            changed
        });
        node.changed.notified().await;
    }
}

/// Lets Raft hear and campaign once the peers have had their say.
async fn settle(node: &Node, raft: &Raft) {
    let until = tokio::time::Instant::now() + SETTLE;
    while !node.has_heard_all() {
        if tokio::time::timeout_at(until, node.changed.notified()).await.is_err() {
            break;
        }
    }
    if node.retired.borrow().is_some() {
        return;
    }
    node.settle();
    raft.runtime_config().elect(true);
    update_standing(node, &raft.metrics().borrow_watched().clone(), &Anchor::new());
}

/// Keeps the standing up to date; ends the process when Raft has ended by itself; stops Raft when the log is retired.
async fn watch_raft(node: &Node, raft: &Raft) {
    let anchor = Anchor::new();
    let mut metrics = raft.metrics();
    let mut retired = node.retired.subscribe();
    let mut refusals = node.refusals.subscribe();
    let mut beat = node.every(heartbeat(node));
    loop {
        let problem = retired.borrow_and_update().clone();
        if let Some(problem) = problem {
            raft.runtime_config().elect(false);
            node.stop();
            // Said before Raft has ended: that may take as long as its disk does.
            node.standing.send_modify(|standing| *standing = node.retired_standing(standing.term, &problem));
            let _ = raft.shutdown().await;
            return;
        }
        let alone = {
            // Not cloned: it moves with every heartbeat.
            let current = metrics.borrow_watched();
            if let Err(error) = &current.running_state
                && !node.is_stopping()
            {
                die(&format!("Raft has stopped: {error}"));
            }
            update_standing(node, &current, &anchor);
            current.membership_config.voter_ids().count() == 1
        };
        let ended = tokio::select! {
            changed = WatchReceiver::changed(&mut metrics) => changed.is_err(),
            _ = retired.changed() => false,
            _ = refusals.changed() => false,
            // Nobody acknowledges anything to a leader that is alone, so nothing moves: its own word is looked at anew.
            _ = beat.tick(), if alone => false,
        };
        if ended && node.is_stopping() {
            return;
        }
        if ended {
            die("Raft has ended");
        }
    }
}

fn update_standing(node: &Node, metrics: &Metrics, anchor: &Anchor) {
    if node.retired.borrow().is_some() || node.is_outranked() {
        // What Raft still says does not count.
        return;
    }
    let votes = metrics.membership_config.voter_ids().any(|id| id == metrics.id);
    // Nothing is heard, so nothing is refused, before.
    let newer = newer::problem(node, metrics.state == ServerState::Leader).filter(|_| node.is_settled());
    let newer_log = newer.is_some();
    let (voting, problem) = match (node.is_settled(), votes) {
        (true, _) if newer_log => (votes, newer),
        (true, true) => (true, node.mismatch()),
        (true, false) => (false, Some("this node is not a voter yet; the leader is taking it in".to_owned())),
        (false, _) => (false, Some("waiting for the greetings of the other nodes".to_owned())),
    };
    node.standing.send_if_modified(|standing| {
        let mut next = observe(node, metrics, standing, anchor, Instant::now());
        (next.voting, next.problem, next.newer_log) = (voting, problem, newer_log);
        let changed = next.is_news_to(standing);
        if next.leader != standing.leader || next.term != standing.term {
            tracing::info!(term = %next.term, leader = ?next.leader, "leadership");
        }
        *standing = next;
        changed
    });
}

async fn keep_memories(node: Arc<Node>) {
    let Some(log) = &node.log else { return };
    let mut tick = node.every(MEMORIES_EVERY);
    loop {
        tick.tick().await;
        if let Some(seen) = node.take_memories()
            && let Err(error) = log.store.set_seen(&seen)
        {
            die(&format!("cannot write to the log: {error}"));
        }
    }
}

/// What a leader does beside leading: the first entry, the members, the steering.
async fn lead(node: Arc<Node>, raft: Raft, order: watch::Receiver<Vec<NodeId>>, bootstrap: Command) {
    let mut steering = Steering::default();
    let mut tend_after = Instant::now();
    let mut tick = node.every(heartbeat(&node));
    loop {
        tick.tick().await;
        let standing = node.standing.borrow().clone();
        if node.is_stopping() || !standing.is_leader || !standing.own_term_applied {
            steering.follow();
            let leads = |standing: &crate::Standing| standing.is_leader && standing.own_term_applied;
            // Nothing is looked at until it is told: a follower has nothing to do here.
            if node.standing.subscribe().wait_for(leads).await.is_err() {
                return;
            }
            continue;
        }
        let empty =
            node.log.as_ref().is_some_and(|log| log.machine.committed().borrow().ledger.members.is_empty());
        if empty {
            let capacity = Capacity::Leader(standing.term);
            let proposed = propose::propose(&node, bootstrap.clone(), capacity, BOOTSTRAP_DEADLINE).await;
            tracing::info!(?proposed, "first entry");
            continue;
        }
        if Instant::now() >= tend_after {
            let pause = if membership::tend(&node, &raft).await { TEND_EVERY } else { MEMBERSHIP_PAUSE };
            tend_after = Instant::now() + pause;
        }
        let voters = health(&node, &raft);
        let order = order.borrow().clone();
        let to = steering.lead(&node.me, &order, &voters, heartbeat(&node), Instant::now());
        if let Some(to) = to {
            let handed = hand_over(&node, &to).await;
            tracing::info!(%to, ?handed, "leadership is handed over");
        }
    }
}

/// The peers that vote, as this leader sees them.
fn health(node: &Node, raft: &Raft) -> BTreeMap<NodeId, Health> {
    let metrics = raft.metrics().borrow_watched().clone();
    let caught_up = membership::caught_up(&metrics);
    let acked_at = node.standing.borrow().acked_at.clone();
    let voters = metrics.membership_config.voter_ids();
    voters
        .filter_map(|id| Some((id, metrics.membership_config.get_node(&id)?.name.clone())))
        .filter(|(_, name)| *name != node.me)
        .map(|(id, name)| {
            let health =
                Health { acked_at: acked_at.get(&name).copied(), caught_up: caught_up.contains(&id) };
            (name, health)
        })
        .collect()
}

async fn hand_over(node: &Node, to: &NodeId) -> Result<(), HandOverError> {
    let (Some(raft), Some(_)) = (node.raft(), node.leadership()) else {
        return Err(HandOverError::NotLeader);
    };
    let not_ready = |reason: &str| HandOverError::NotReady { to: to.clone(), reason: reason.to_owned() };
    let health = health(node, raft).remove(to).ok_or_else(|| not_ready("it is not a voting peer"))?;
    if !is_healthy(health, heartbeat(node), Instant::now()) {
        return Err(not_ready("it is behind or does not answer"));
    }
    let metrics = raft.metrics().borrow_watched().clone();
    let mut voters = metrics.membership_config.voter_ids();
    let id = voters.find(|id| metrics.membership_config.get_node(id).is_some_and(|voter| voter.name == *to));
    let id = id.ok_or_else(|| not_ready("it is not a voting peer"))?;
    raft.trigger().transfer_leader(id).await.map_err(|_| HandOverError::Shutdown)
}
