//! The leader takes in members whose log the membership does not know: nodes that lost their disk.
//!
//! ```text
//! a member greets with an incarnation that is in no membership
//!   ── fresh Raft id from a committed blank entry ──> learner
//!   ── has everything ──> voter, and the id of its lost log is removed, in one change
//! ```
//!
//! Each round does at most one step and decides anew from what is committed, so that a leader that dies in between
//! leaves nothing that its successor would not finish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_runbooks::model::NodeId;
use openraft::async_runtime::WatchReceiver;

use crate::node::{Metrics, Node};
use crate::types::{Raft, Voter};
use crate::wire::Hello;

/// Raft ids of logs that were taken in later: the first ones are counted from 1, and log indexes start there too.
const LATER_IDS_FROM: u64 = 1000;
/// A step is given up after this long and decided anew.
const STEP_DEADLINE: Duration = Duration::from_secs(2);

/// What a leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Give this log a fresh id, as a learner.
    Learn(Voter),
    /// Make these ids the voters. Ids that are left out are removed.
    Vote(BTreeSet<u64>),
}

/// Decides it from the effective membership (`nodes`, `configs`), the logs that have everything, and the greetings.
pub fn next_step(
    nodes: &BTreeMap<u64, Voter>,
    configs: &[BTreeSet<u64>],
    caught_up: &BTreeSet<u64>,
    hellos: &BTreeMap<NodeId, Hello>,
) -> Option<Step> {
    let [.., voters] = configs else { return None };
    // A change whose leader died half-way is finished first.
    if configs.len() > 1 {
        return Some(Step::Vote(voters.clone()));
    }
    for (name, hello) in hellos {
        let Some(incarnation) = &hello.incarnation else { continue };
        if hello.problem.is_some() {
            continue;
        }
        let voter = Voter { name: name.clone(), incarnation: incarnation.clone() };
        let Some((id, _)) = nodes.iter().find(|(_, known)| **known == voter) else {
            // A log that has an id which is in no membership was replaced: an old disk. It is told so by greeting.
            if hello.raft_id.is_some() {
                continue;
            }
            return Some(Step::Learn(voter));
        };
        if !voters.contains(id) && caught_up.contains(id) {
            let lost = |other: &u64| nodes.get(other).is_some_and(|known| known.name == *name);
            let mut next: BTreeSet<u64> = voters.iter().copied().filter(|other| !lost(other)).collect();
            next.insert(*id);
            return Some(Step::Vote(next));
        }
    }
    None
}

/// Does the next step, if there is one. Called while this node leads. False: it failed, so leave it for a while.
pub async fn tend(node: &Arc<Node>, raft: &Raft) -> bool {
    let metrics = raft.metrics().borrow_watched().clone();
    // One change at a time: the last one must be committed.
    if metrics.membership_config != metrics.committed_membership_config {
        return true;
    }
    let membership = metrics.membership_config.membership();
    let nodes = membership.nodes().map(|(id, voter)| (*id, voter.clone())).collect();
    let step = next_step(&nodes, membership.get_joint_config(), &caught_up(&metrics), &node.hellos());
    let Some(step) = step else { return true };
    tracing::info!(?step, "membership");
    let done = tokio::time::timeout(STEP_DEADLINE, take(raft, step)).await;
    match done {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::warn!(error, "membership step failed"),
        Err(_) => tracing::warn!("membership step is not committed yet"),
    }
    false
}

async fn take(raft: &Raft, step: Step) -> Result<(), String> {
    match step {
        Step::Learn(voter) => {
            // A committed log index belongs to one leader for ever, so it names an id that nobody else gives out.
            let blank = raft.write_blank().await.map_err(|error| error.to_string())?;
            let id = LATER_IDS_FROM + blank.log_id.index();
            raft.add_learner(id, voter, false).await.map_err(|error| error.to_string())?;
        }
        Step::Vote(voters) => {
            raft.change_membership(voters, false).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Raft ids whose logs have this leader's last entry, or nearly.
pub fn caught_up(metrics: &Metrics) -> BTreeSet<u64> {
    let last = metrics.last_log_index;
    let progress = metrics.replication.iter().flatten();
    let has_all = |matched: Option<u64>| matched.is_some() && matched >= last;
    progress
        .filter(|(_, matched)| has_all(matched.as_ref().map(|matched| matched.index())))
        .map(|(id, _)| *id)
        .collect()
}
