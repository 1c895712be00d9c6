//! What the tasks of the consensus thread share: this node's log, what the peers have said, and the way to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use baton_runbooks::model::{Generation, NodeId, Term};
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::error::RequestError;
use crate::force;
use crate::handle::Inbound;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::newer::{Newer, Refusals};
use crate::outbox::Outbox;
use crate::peer::Peer;
use crate::standing::Standing;
use crate::store::{Identity, Store};
use crate::transport::{Channel, DialError, Tls};
use crate::types::{Incarnation, Leadership, ProposalId, Raft, TypeConfig};
use crate::wire::{Envelope, Hello, PROTOCOL, PROTOCOL_NOTES, Reached};
use crate::{Member, Timing};

/// This node's log and what it says.
pub struct Log {
    /// The log.
    pub store: Store,
    /// The state machine on it.
    pub machine: Machine,
}

/// Shared by the tasks of the consensus thread.
pub struct Node {
    pub cluster: String,
    pub me: NodeId,
    pub members: Vec<Member>,
    pub timing: Timing,
    pub tls: Tls,
    /// `None`: damaged.
    pub log: Option<Log>,
    pub standing: watch::Sender<Standing>,
    pub inbox: mpsc::Sender<Inbound>,
    /// Filled by the handles.
    pub outbox: Arc<Outbox>,
    /// Start of the grid on which this thread wakes.
    began: Instant,
    /// Something that [`crate::founding`] or the standing depends on has changed.
    pub changed: Notify,
    /// What of the leader's log is newer than this agent.
    pub refusals: Refusals,
    /// This log must not vote any more, and why.
    pub retired: watch::Sender<Option<String>>,
    /// One more than the generation in which the cluster has gone on without this log, 0: it has not, as far as was heard or is
    /// on the disk, which may not take it any more. Asked with every heartbeat.
    outranked: AtomicU64,
    /// Raft may be heard and answered (see [`crate::engine`]).
    settled: AtomicBool,
    stopping: AtomicBool,
    leader_heard_at: Mutex<Option<Instant>>,
    raft: OnceLock<Raft>,
    peers: OnceLock<BTreeMap<(NodeId, Channel), Peer>>,
    identity: Mutex<Option<Identity>>,
    memory: Mutex<Memory>,
    hellos: Mutex<BTreeMap<NodeId, Hello>>,
    dial_errors: Mutex<BTreeMap<NodeId, String>>,
    session: String,
    proposals: AtomicU64,
}

/// A generation as [`Node::outranked`] keeps it.
fn above(outranked_by: Option<Generation>) -> u64 {
    outranked_by.map_or(0, |by| by.0.saturating_add(1))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a node is made of.
pub struct Parts {
    pub cluster: String,
    pub me: NodeId,
    pub members: Vec<Member>,
    pub timing: Timing,
    pub tls: Tls,
    pub log: Option<(Log, Identity)>,
    pub memory: Memory,
    pub retired: Option<String>,
    pub standing: watch::Sender<Standing>,
    pub inbox: mpsc::Sender<Inbound>,
    pub session: String,
}

impl Node {
    pub fn new(parts: Parts) -> Arc<Self> {
        let (log, identity) = match parts.log {
            Some((log, identity)) => (Some(log), Some(identity)),
            None => (None, None),
        };
        // What cannot be read is not known: the log is retired either way.
        let outranked = log.as_ref().and_then(|log| log.store.outranked_by().ok().flatten());
        Arc::new(Self {
            cluster: parts.cluster,
            me: parts.me,
            members: parts.members,
            timing: parts.timing,
            tls: parts.tls,
            log,
            standing: parts.standing,
            inbox: parts.inbox,
            outbox: Arc::default(),
            began: Instant::now(),
            changed: Notify::new(),
            refusals: Refusals::default(),
            retired: watch::Sender::new(parts.retired),
            outranked: AtomicU64::new(above(outranked)),
            settled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            leader_heard_at: Mutex::default(),
            raft: OnceLock::new(),
            peers: OnceLock::new(),
            identity: Mutex::new(identity),
            memory: Mutex::new(parts.memory),
            hellos: Mutex::default(),
            dial_errors: Mutex::default(),
            session: parts.session,
            proposals: AtomicU64::new(0),
        })
    }

    pub fn raft(&self) -> Option<&Raft> {
        self.raft.get()
    }

    pub fn set_raft(&self, raft: Raft) {
        // Set once, by the engine; a second one would be a defect there, and the first stays.
        let _ = self.raft.set(raft);
    }

    pub fn set_peers(&self, peers: BTreeMap<(NodeId, Channel), Peer>) {
        let _ = self.peers.set(peers);
    }

    /// The connection to a peer.
    ///
    /// # Errors
    /// [`RequestError::NotAPeer`].
    pub fn peer(&self, name: &NodeId, channel: Channel) -> Result<&Peer, RequestError> {
        let found = self.peers.get().and_then(|peers| peers.get(&(name.clone(), channel)));
        found.ok_or_else(|| RequestError::NotAPeer { to: name.clone() })
    }

    pub fn identity(&self) -> Option<Identity> {
        lock(&self.identity).clone()
    }

    pub fn set_identity(&self, identity: Identity) {
        *lock(&self.identity) = Some(identity);
    }

    pub fn hellos(&self) -> BTreeMap<NodeId, Hello> {
        lock(&self.hellos).clone()
    }

    /// Peers that refuse what they do not know, as they said last.
    pub fn newer_of_peers(&self) -> Vec<(NodeId, Newer)> {
        let hellos = lock(&self.hellos);
        hellos.iter().filter_map(|(peer, hello)| Some((peer.clone(), hello.newer.clone()?))).collect()
    }

    /// The peer speaks a version of the protocol that has notes.
    pub fn knows_notes(&self, peer: &NodeId) -> bool {
        lock(&self.hellos).get(peer).is_some_and(|hello| hello.protocol >= PROTOCOL_NOTES)
    }

    /// The peer's log takes part in another generation of the cluster than this one.
    pub fn is_of_another_generation(&self, peer: &NodeId) -> bool {
        let own = lock(&self.identity).as_ref().filter(|id| id.raft_id.is_some()).map(Identity::line);
        let hellos = lock(&self.hellos);
        let theirs = hellos.get(peer).filter(|hello| hello.raft_id.is_some()).map(Hello::line);
        own.zip(theirs).is_some_and(|(own, theirs)| own.is_another_than(&theirs))
    }

    pub fn has_heard_all(&self) -> bool {
        let hellos = lock(&self.hellos);
        self.members.iter().all(|member| member.id == self.me || hellos.contains_key(&member.id))
    }

    /// Raft may be heard: the peers have had their say about this log.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    pub fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// A period on this thread's grid.
    pub fn every(&self, period: std::time::Duration) -> crate::pace::Ends {
        crate::pace::every(self.began, period)
    }

    /// Raft took an append or a heartbeat of the leader.
    pub fn hear_leader(&self) {
        *lock(&self.leader_heard_at) = Some(Instant::now());
        self.outbox.open();
    }

    /// When Raft last did.
    pub fn leader_heard_at(&self) -> Option<Instant> {
        *lock(&self.leader_heard_at)
    }

    pub fn next_proposal(&self) -> ProposalId {
        let number = self.proposals.fetch_add(1, Ordering::Relaxed);
        ProposalId { session: self.session.clone(), number }
    }

    /// This node's leadership, if it leads.
    pub fn leadership(&self) -> Option<Leadership> {
        let metrics = self.raft()?.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.state == openraft::ServerState::Leader && metrics.vote.is_committed();
        let leader = metrics.vote.leader_id;
        leads.then_some(Leadership { term: leader.term, raft_id: leader.node_id })
    }

    /// The peer that leads, if a peer does.
    pub fn leading_peer(&self) -> Option<NodeId> {
        let metrics = self.raft()?.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let voter = metrics.membership_config.get_node(&leader)?;
        (voter.name != self.me).then(|| voter.name.clone())
    }

    /// A payload with this log's stamp.
    pub fn envelope<T: Serialize>(&self, body: &T) -> Bytes {
        let reached = self
            .log
            .as_ref()
            .zip(self.identity())
            .map(|(log, identity)| Reached { incarnation: identity.incarnation, stamp: log.store.stamp() });
        let text = serde_json::to_vec(&Envelope { reached, body });
        text.expect("messages are plain data with text keys").into()
    }

    /// Notes how far a peer's log has come.
    pub fn remember(&self, peer: &NodeId, reached: Option<&Reached>) {
        if let Some(reached) = reached {
            lock(&self.memory).note(peer, reached);
        }
    }

    /// What must be written down of that.
    pub fn take_memories(&self) -> Option<crate::store::Seen> {
        lock(&self.memory).take_changes()
    }

    /// How this node introduces itself to `peer`.
    pub fn hello_for(&self, peer: &NodeId) -> Hello {
        let mut members: Vec<NodeId> = self.members.iter().map(|member| member.id.clone()).collect();
        members.sort();
        let identity = self.identity();
        let (membership_at, your_ids) = self.ids_of(peer);
        let timing = self.timing;
        Hello {
            protocol: PROTOCOL,
            members,
            timing: [timing.heartbeat_ms, timing.election_min_ms, timing.election_max_ms],
            incarnation: identity.as_ref().map(|identity| identity.incarnation.clone()),
            raft_id: identity.as_ref().and_then(|identity| identity.raft_id),
            generation: identity.as_ref().map(|identity| identity.generation).unwrap_or_default(),
            founder: identity.map(|identity| identity.founder).unwrap_or_default(),
            seen_of_you: lock(&self.memory).of(peer),
            your_ids,
            membership_at,
            problem: self.retired.borrow().clone(),
            newer: self.refusals.last(),
        }
    }

    /// The Raft ids that the committed membership gives to `name`'s logs, and where that membership stands.
    fn ids_of(&self, name: &NodeId) -> (Option<u64>, BTreeMap<Incarnation, u64>) {
        let Some(raft) = self.raft() else { return (None, BTreeMap::new()) };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        // The entry that forms the cluster counts before it is committed: no other can ever take its place.
        let first = metrics.membership_config.log_id().filter(|id| id.index() == 0);
        let membership =
            if first.is_some() { &metrics.membership_config } else { &metrics.committed_membership_config };
        let Some(at) = membership.log_id() else { return (None, BTreeMap::new()) };
        let ids = membership
            .nodes()
            .filter(|(_, voter)| voter.name == *name)
            .map(|(id, voter)| (voter.incarnation.clone(), *id))
            .collect();
        (Some(at.index()), ids)
    }

    /// Where this node's own committed membership stands.
    fn own_membership_at(&self) -> Option<u64> {
        let metrics = self.raft()?.metrics();
        let metrics = metrics.borrow_watched();
        metrics.committed_membership_config.log_id().map(|id| id.index())
    }

    /// A peer has introduced itself, on a link of its own or in answer to a greeting.
    pub fn hear_hello(&self, from: &NodeId, envelope: &Envelope<Hello>) {
        let hello = &envelope.body;
        self.remember(from, envelope.reached.as_ref());
        let news = lock(&self.hellos).insert(from.clone(), hello.clone());
        lock(&self.dial_errors).remove(from);
        if news.as_ref().is_none_or(|before| before.incarnation != hello.incarnation) {
            let raft_id = hello.raft_id;
            tracing::info!(peer = %from, ?raft_id, problem = ?hello.problem, "peer greeted");
        }
        self.judge_own_log(from, hello);
        if news.as_ref() != Some(hello) {
            self.changed.notify_one();
        }
    }

    /// Does what the peer knows of this log fit with what is on this disk?
    fn judge_own_log(&self, from: &NodeId, hello: &Hello) {
        let (Some(log), Some(identity)) = (&self.log, self.identity()) else { return };
        let is_member = identity.raft_id.is_some() && hello.raft_id.is_some();
        if is_member && hello.generation > identity.generation {
            let problem = force::outranked(from, identity.generation, hello.generation);
            self.retire(&problem, Some(hello.generation));
            return;
        }
        if is_member && hello.line().is_rival_of(&identity.line()) {
            self.retire(&force::forked(from, hello.generation), Some(hello.generation));
            return;
        }
        // What a log of a lower generation remembers or decides is over; it is told so by this node's greeting.
        if is_member && hello.generation < identity.generation {
            return;
        }
        if let Some(seen) = hello.seen_of_you.get(&identity.incarnation) {
            let own = log.store.stamp();
            if !own.has_reached(seen) {
                let (had, has) = (seen.last.2.max(own.last.2), own.last.2);
                self.retire(&format!(
                    "{from} has seen this node's log farther than it is on this disk (entry {had} of term {}, now \
                     entry {has} of term {}), so the disk holds an older copy; this node must not vote with it. Stop \
                     the agent, remove its Raft log, start the agent: it rejoins by itself",
                    seen.vote.0, own.vote.0,
                ), None);
            }
        }
        let (Some(_), Some(at)) = (identity.raft_id, hello.membership_at) else { return };
        let newer = self.own_membership_at().is_some_and(|own| at > own);
        if newer && !hello.your_ids.contains_key(&identity.incarnation) && !hello.your_ids.is_empty() {
            self.retire(&format!(
                "{from} says that the cluster has replaced this log by a newer one of this node; this disk must not \
                 be used. Stop the agent, remove its Raft log, start the agent: it rejoins by itself",
            ), None);
        }
    }

    /// This log is retired since the cluster has gone on in a higher generation.
    pub fn is_outranked(&self) -> bool {
        self.outranked_by().is_some()
    }

    fn outranked_by(&self) -> Option<Generation> {
        self.outranked.load(Ordering::Acquire).checked_sub(1).map(Generation)
    }

    /// Two survivors were forced to the generation of this log, each without the other.
    fn is_forked(&self) -> bool {
        self.identity().is_some_and(|own| self.outranked_by() == Some(own.generation))
    }

    /// This log does not vote any more, now and after a restart.
    fn retire(&self, problem: &str, outranked_by: Option<Generation>) {
        // That it is outranked is more than that it is retired: this node closes, however long its leases last.
        let upgrades = outranked_by > self.outranked_by();
        if self.retired.borrow().is_some() && !upgrades {
            return;
        }
        // First of all, whatever the disk does.
        self.outranked.fetch_max(above(outranked_by), Ordering::AcqRel);
        self.standing.send_modify(|standing| *standing = self.retired_standing(standing.term, problem));
        tracing::error!(problem, "this node takes no part in votes");
        if let Some(log) = &self.log
            && let Err(error) = match outranked_by {
                Some(generation) => log.store.outrank(problem, generation),
                None => log.store.retire(problem),
            }
        {
            // It will be found out again at the next start.
            tracing::error!(%error, "cannot write that down");
        }
        self.retired.send_replace(Some(problem.to_owned()));
        self.changed.notify_one();
    }

    /// What the rest of the agent sees of a log that does not vote any more.
    pub fn retired_standing(&self, term: Term, problem: &str) -> Standing {
        Standing {
            term,
            problem: Some(problem.to_owned()),
            retired: true,
            outranked: self.is_outranked(),
            forked: self.is_forked(),
            ..Standing::default()
        }
    }

    /// A link could not be made. A peer that is down is no news; one that refuses us, or that we do not trust, is.
    pub fn note_dial_error(&self, peer: &NodeId, error: &DialError) {
        let serious = match error {
            DialError::Handshake { .. } | DialError::Refused { .. } | DialError::Name { .. } => true,
            DialError::Connect { .. } | DialError::TimedOut { .. } | DialError::Myself { .. } => false,
        };
        let text = error.to_string();
        let before = lock(&self.dial_errors).insert(peer.clone(), text.clone());
        if before.as_ref() != Some(&text) {
            let source = std::error::Error::source(error).map(ToString::to_string);
            if serious {
                tracing::warn!(%peer, error = text, source, "no link");
            } else {
                tracing::info!(%peer, error = text, source, "no link");
            }
        }
    }

    /// A peer's configuration differs from this node's in a way that matters.
    pub fn mismatch(&self) -> Option<String> {
        let timing = [self.timing.heartbeat_ms, self.timing.election_min_ms, self.timing.election_max_ms];
        let hellos = lock(&self.hellos);
        let mut members: Vec<&NodeId> = self.members.iter().map(|member| &member.id).collect();
        members.sort();
        hellos.iter().find_map(|(peer, hello)| {
            if hello.members.iter().collect::<Vec<_>>() != members {
                return Some(format!("{peer} is configured with another list of nodes"));
            }
            (hello.timing != timing).then(|| format!("{peer} is configured with other election times"))
        })
    }
}

/// The type of openraft's metrics.
pub type Metrics = openraft::RaftMetrics<TypeConfig>;
