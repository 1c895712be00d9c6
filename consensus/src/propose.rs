//! Getting a command into the log, through whoever leads, and learning what became of it.
//!
//! A proposal has a name. Its outcome is taken from this node's *own* state machine when the entry is applied here, so
//! a lost answer costs nothing; and the state machine applies a name once, so handing it in again is harmless. That
//! leaves one thing to keep apart: whether any attempt may have been appended when the deadline passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_runbooks::ledger::Command;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, RaftError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{ProposeError, ReadError, RequestError};
use crate::handle::{Applied, Capacity};
use crate::machine::as_applied;
use crate::node::Node;
use crate::transport::Channel;
use crate::types::{Proposal, ProposalId};
use crate::wire::{Ask, Envelope, Kind, Taken};

/// Pause before the next attempt: a fresh leader takes writes one round trip after its election.
const PAUSE: Duration = Duration::from_millis(10);
/// How long one attempt waits for the leader's answer. The outcome does not depend on it.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a leader works on a forwarded command before it says that it does not know.
const FORWARDED: Duration = Duration::from_millis(1500);

/// Gives up waiting when it is dropped.
struct Waiting<'a> {
    node: &'a Node,
    id: ProposalId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(log) = &self.node.log {
            log.machine.forget(&self.id);
        }
    }
}

/// Proposes and waits until the entry is applied on this node.
pub async fn propose(
    node: &Arc<Node>,
    command: Command,
    capacity: Capacity,
    deadline: Duration,
) -> Result<Applied, ProposeError> {
    let until = Instant::now() + deadline;
    let Some(log) = &node.log else { return Err(no_part(node)) };
    if node.retired.borrow().is_some() {
        return Err(no_part(node));
    }
    let leadership = match capacity {
        Capacity::Leader(term) => {
            let mine = node.leadership().filter(|mine| mine.term == term.0);
            Some(mine.ok_or(ProposeError::NotLeader { term: term.0 })?)
        }
        Capacity::Anyone if command.is_leader_only() => node.leadership(),
        Capacity::Anyone => None,
    };
    let proposal = Proposal { id: node.next_proposal(), leadership, command };
    let (reply, outcome) = oneshot::channel();
    log.machine.await_outcome(&proposal.id, reply);
    let waiting = Waiting { node, id: proposal.id.clone() };
    let handed_in = AtomicBool::new(false);
    let result = tokio::select! {
        biased;
        outcome = outcome => match outcome {
            Ok((index, outcome)) => as_applied(index, outcome)
                .ok_or(ProposeError::NotLeader { term: leadership.map_or(0, |mine| mine.term) }),
            Err(_) => Err(ProposeError::Unknown),
        },
        error = hand_in(node, &proposal, &handed_in) => Err(error),
        () = tokio::time::sleep_until(until) => Err(
            if handed_in.load(Ordering::Relaxed) { ProposeError::Unknown } else { ProposeError::NoLeader }
        ),
    };
    drop(waiting);
    result
}

fn no_part(node: &Node) -> ProposeError {
    let problem = node.retired.borrow().clone().unwrap_or_default();
    ProposeError::NoPart { problem }
}

/// Hands the proposal in until a leader has it, then waits to be dropped. Returns only if that is hopeless.
async fn hand_in(node: &Arc<Node>, proposal: &Proposal, handed_in: &AtomicBool) -> ProposeError {
    loop {
        let before = handed_in.swap(true, Ordering::Relaxed);
        match attempt(node, proposal).await {
            Taken::Applied => std::future::pending().await,
            Taken::NotLeading => {
                handed_in.store(before, Ordering::Relaxed);
                if let Some(leadership) = proposal.leadership
                    && !before
                {
                    return ProposeError::NotLeader { term: leadership.term };
                }
            }
            Taken::LeaderOnly => {
                let leader = node.leading_peer().unwrap_or_else(|| node.me.clone());
                return ProposeError::LeaderOnly { node: leader };
            }
            // As the leader of one term there is no second attempt; the first may still come through.
            Taken::Unknown if proposal.leadership.is_some() => std::future::pending().await,
            Taken::Unknown => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt(node: &Arc<Node>, proposal: &Proposal) -> Taken {
    if node.leadership().is_some() {
        return append(node, proposal.clone()).await;
    }
    let Some(leader) = node.leading_peer() else { return Taken::NotLeading };
    let Ok(peer) = node.peer(&leader, Channel::Peer) else { return Taken::NotLeading };
    let payload = node.envelope(&Ask::Propose(Box::new(proposal.clone())));
    match peer.ask(Kind::Control, payload, ATTEMPT).await {
        Ok(answer) => match serde_json::from_slice::<Envelope<Taken>>(&answer) {
            Ok(envelope) => envelope.body,
            Err(_) => Taken::Unknown,
        },
        Err(
            RequestError::NotAPeer { .. }
            | RequestError::NotConnected { .. }
            | RequestError::TooLarge { .. }
            | RequestError::Refused { .. }
            | RequestError::Shutdown,
        ) => Taken::NotLeading,
        Err(RequestError::Broken { .. } | RequestError::TimedOut { .. }) => Taken::Unknown,
    }
}

/// Appends to this leader's log.
async fn append(node: &Node, proposal: Proposal) -> Taken {
    let Some(raft) = node.raft() else { return Taken::NotLeading };
    match raft.client_write(proposal).await {
        Ok(_) => Taken::Applied,
        // The only error that says that nothing was appended.
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Taken::NotLeading,
        Err(_) => Taken::Unknown,
    }
}

/// A peer forwards a command.
pub async fn take_forwarded(node: &Node, proposal: Proposal) -> Taken {
    if proposal.command.is_leader_only() || proposal.leadership.is_some() {
        tracing::warn!(command = %proposal.command, "refused a forwarded command that only the leader may propose");
        return Taken::LeaderOnly;
    }
    if node.leadership().is_none() {
        return Taken::NotLeading;
    }
    tokio::time::timeout(FORWARDED, append(node, proposal)).await.unwrap_or(Taken::Unknown)
}

/// The log index that has everything that is committed; only a leader with a quorum can say.
pub async fn read_index(node: &Node) -> Result<u64, String> {
    let raft = node.raft().ok_or("takes no part yet")?;
    let read = tokio::time::timeout(FORWARDED, raft.get_read_log_id(ReadPolicy::ReadIndex)).await;
    match read {
        Ok(Ok((id, _))) => Ok(id.index()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no quorum confirmed the read".to_owned()),
    }
}

/// Waits until this node has applied everything that was committed before the call.
pub async fn read_barrier(node: &Arc<Node>, deadline: Duration) -> Result<u64, ReadError> {
    let barrier = async {
        let index = loop {
            if let Some(index) = try_read_index(node).await {
                break index;
            }
            tokio::time::sleep(PAUSE).await;
        };
        let Some(log) = &node.log else { return Err(ReadError::NoQuorum) };
        let mut committed = log.machine.committed();
        match committed.wait_for(|committed| committed.index >= index).await {
            Ok(_) => Ok(index),
            Err(_) => Err(ReadError::Shutdown),
        }
    };
    tokio::time::timeout(deadline, barrier).await.unwrap_or(Err(ReadError::NoQuorum))
}

async fn try_read_index(node: &Arc<Node>) -> Option<u64> {
    if node.leadership().is_some() {
        return read_index(node).await.ok();
    }
    let peer = node.peer(&node.leading_peer()?, Channel::Peer).ok()?;
    let answer = peer.ask(Kind::Control, node.envelope(&Ask::ReadIndex), ATTEMPT).await.ok()?;
    serde_json::from_slice::<Envelope<u64>>(&answer).ok().map(|envelope| envelope.body)
}
