//! How a log without a Raft id gets one.
//!
//! ```text
//! all members are there with empty logs ── the first by name forms the cluster ──> ids 1, 2, 3 … by member order
//! a cluster exists                      ── its leader takes this log in         ──> a fresh id (see `membership`)
//! ```
//!
//! A cluster is formed only when *every* member has said that its log is empty. A node that lost its disk has a log of
//! another incarnation than the membership knows, so it falls into the second case: it has no id, hence no vote, until
//! the others have committed a membership that names its new log. There is no way from a lost log to its old id.

use std::collections::BTreeMap;

use baton_runbooks::model::{Generation, NodeId};

use crate::types::{Incarnation, Voter};
use crate::wire::Hello;

/// What a log without a Raft id can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Founding {
    /// Nothing yet, and why, in a sentence.
    Wait(String),
    /// Form the cluster with these ids.
    Form(BTreeMap<u64, Voter>),
    /// Take the id that the cluster gave to it.
    Adopt {
        /// The id.
        raft_id: u64,
        /// The cluster's generation.
        generation: Generation,
        /// The log on which that was founded.
        founder: Incarnation,
    },
}

/// Decides it. `members` in the order of the configuration; `hellos` what the peers have said.
pub fn decide(
    me: &NodeId,
    mine: &Incarnation,
    members: &[NodeId],
    hellos: &BTreeMap<NodeId, Hello>,
) -> Founding {
    // A peer of a lower generation speaks of a cluster that is over.
    let founded = hellos.values().filter(|hello| hello.raft_id.is_some());
    let newest = founded.map(|hello| hello.generation).max().unwrap_or_default();
    let mut present = hellos.values().filter(|hello| hello.raft_id.is_some() && hello.generation == newest);
    let given = present.find_map(|hello| Some((*hello.your_ids.get(mine)?, hello.founder.clone())));
    if let Some((raft_id, founder)) = given {
        return Founding::Adopt { raft_id, generation: newest, founder };
    }
    if hellos.values().any(|hello| hello.membership_at.is_some() || hello.raft_id.is_some()) {
        let text = "this node's log is new, and the cluster exists; it votes once the leader has taken it in";
        return Founding::Wait(text.to_owned());
    }
    let mut sorted = members.to_vec();
    sorted.sort();
    if let Some(other) = hellos.iter().find(|(_, hello)| hello.members != sorted) {
        return Founding::Wait(format!("{} is configured with another list of nodes", other.0));
    }
    let mut voters = BTreeMap::new();
    let mut missing = Vec::new();
    for (raft_id, name) in (1..).zip(members) {
        let incarnation = if name == me {
            Some(mine.clone())
        } else {
            hellos.get(name).and_then(|hello| hello.incarnation.clone())
        };
        match incarnation {
            Some(incarnation) => {
                voters.insert(raft_id, Voter { name: name.clone(), incarnation });
            }
            None => missing.push(name.as_str()),
        }
    }
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        return Founding::Wait(format!(
            "waiting for {missing}: a new cluster is formed when all nodes are there"
        ));
    }
    match sorted.first() {
        Some(first) if first == me => Founding::Form(voters),
        Some(first) => Founding::Wait(format!("waiting for {first} to form the cluster")),
        None => Founding::Wait("no nodes are configured".to_owned()),
    }
}
