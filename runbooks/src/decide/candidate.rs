//! Which data node could take over, and what stands in its way.

use super::Facts;
use super::loss::Lack;
use crate::ledger::{Complete, LossAccepted};
use crate::model::{Epoch, Instance, NodeId, NodeKind};
use crate::observe::MysqlFacts;
use crate::why::Why;

/// The data node that gets the baton, or for each one the reason why it cannot.
pub(super) fn choose(facts: &Facts<'_>) -> Result<NodeId, Vec<Why>> {
    let ledger = facts.ledger;
    // A holder that gave its lease back is better than none: its data needs no proof. It comes last, and not before
    // its lease would have ended, so that its reports are younger than its reasons.
    let returns = ledger.has_released() && facts.is_lease_over();
    let is_holder = |node: &NodeId| ledger.holder.as_ref() == Some(node);
    let mut nodes: Vec<&NodeId> = ledger
        .members
        .iter()
        .filter(|(node, kind)| **kind == NodeKind::Data && (returns || !is_holder(node)))
        .map(|(node, _)| node)
        .collect();
    // The last holder first: its own data needs no proof. Last of all who may lack something.
    nodes.sort_by_key(|node| {
        let accepted = ledger.in_sync.get(*node).is_some_and(Complete::is_accepted);
        (accepted, is_holder(node), ledger.in_sync.get(*node) != Some(&Complete::Holder), (*node).clone())
    });
    let mut obstacles = Vec::new();
    for node in nodes {
        match obstacle(facts, node) {
            None => return Ok(node.clone()),
            Some(why) => obstacles.push(why),
        }
    }
    Err(obstacles)
}

/// What keeps `node` from taking over; `None`: it could.
pub(super) fn obstacle(facts: &Facts<'_>, node: &NodeId) -> Option<Why> {
    let heard = facts.reports.get(node);
    let Some(heard) = heard.filter(|_| !facts.is_silent(node)) else {
        return Some(Why::CandidateSilent { node: node.clone(), silent_ms: facts.silent_ms(node) });
    };
    if let Some(why) = not_complete(facts, node, heard.report.mysql.as_deref()) {
        return Some(why);
    }
    if !heard.report.obstacles.is_empty() {
        return Some(Why::CandidateUnfit { node: node.clone(), obstacles: heard.report.obstacles.clone() });
    }
    flapping(facts, node)
}

fn not_complete(facts: &Facts<'_>, node: &NodeId, mysql: Option<&MysqlFacts>) -> Option<Why> {
    if facts.ledger.holder.as_ref() == Some(node) {
        return None;
    }
    if !facts.ledger.mysql {
        return not_initial(facts, node);
    }
    match facts.ledger.in_sync.get(node) {
        Some(Complete::Holder) => None,
        Some(Complete::Replica { instance }) => restarted(node, instance, mysql),
        Some(Complete::Accepted { instance, loss }) => {
            restarted(node, instance, mysql).or_else(|| too_large(facts, node, loss))
        }
        None => Some(Why::CandidateNotInSync { node: node.clone(), behind: behind(facts, node, mysql) }),
    }
}

/// Without MySQL the ledger vouches for nobody, but for the very first holder: only its data count, and the other node is made its
/// copy.
fn not_initial(facts: &Facts<'_>, node: &NodeId) -> Option<Why> {
    let mut complete = facts.ledger.in_sync.iter();
    let (initial, _) = complete.find(|(_, known)| **known == Complete::Holder)?;
    let behind = format!("the data of {initial} count, which has not served yet");
    let is_refused = facts.ledger.epoch == Epoch(0) && initial != node;
    is_refused.then(|| Why::CandidateNotInSync { node: node.clone(), behind })
}

fn restarted(node: &NodeId, seen: &Instance, mysql: Option<&MysqlFacts>) -> Option<Why> {
    let now = mysql.map(|facts| &facts.instance);
    (now != Some(seen)).then(|| Why::CandidateRestarted {
        node: node.clone(),
        ledger: seen.to_string(),
        now: now.map_or_else(|| "not running".to_owned(), ToString::to_string),
    })
}

fn lack<'a>(facts: &'a Facts<'_>, node: &'a NodeId) -> Lack<'a> {
    Lack { ledger: facts.ledger, reports: facts.reports, canaries: facts.canaries, node }
}

fn too_large(facts: &Facts<'_>, node: &NodeId, accepted: &LossAccepted) -> Option<Why> {
    let (lack, ended_at) = (lack(facts, node), facts.takeover_at.unwrap_or(facts.now));
    let at_most_ms = accepted.at_most_ms.filter(|_| !accepted.covers(lack.at_most_ms(ended_at)))?;
    Some(Why::LossTooLarge { node: node.clone(), at_most_ms, loss: lack.told(ended_at) })
}

/// What a takeover to `node` may lose, if an operator has accepted it.
pub(super) fn accepted_loss(facts: &Facts<'_>, node: &NodeId) -> Option<Why> {
    match facts.ledger.in_sync.get(node)? {
        Complete::Accepted { loss, .. } => {
            let told = lack(facts, node).told(facts.takeover_at.unwrap_or(facts.now));
            Some(Why::LossAccepted { node: node.clone(), by: loss.by.clone(), loss: told })
        }
        Complete::Holder | Complete::Replica { .. } => None,
    }
}

/// By how much the candidate may be behind, as far as the reports say. Counts canaries, which are written once a second.
fn behind(facts: &Facts<'_>, node: &NodeId, mysql: Option<&MysqlFacts>) -> String {
    let since = facts.ledger.sync_history.last().map_or_else(
        || "it was never in sync".to_owned(),
        |change| format!("out of sync since generation {} ({})", change.generation, change.reason),
    );
    let holder = facts.ledger.holder.as_ref().or(facts.ledger.last_holder.as_ref());
    let there = holder
        .filter(|holder| *holder != node)
        .and_then(|holder| facts.reports.get(holder))
        .and_then(|heard| heard.report.mysql.as_deref());
    let positions = match (mysql, there) {
        (Some(here), Some(there)) => format!(
            ", {} canaries behind, position {} of {}",
            there.canary_applied.saturating_sub(here.canary_applied),
            here.position,
            there.position
        ),
        (Some(here), None) => format!(", position {}, the last holder's is not known", here.position),
        (None, _) => ", its database does not answer".to_owned(),
    };
    since + &positions
}

fn flapping(facts: &Facts<'_>, node: &NodeId) -> Option<Why> {
    let policy = facts.policy;
    // Oldest first.
    let recent: Vec<_> = facts
        .failures
        .iter()
        .filter(|f| f.target == *node && facts.now.since_ms(f.at) < policy.anti_flap_ms)
        .collect();
    let max = usize::try_from(policy.anti_flap_max.max(1)).unwrap_or(usize::MAX);
    // Once this one is out of the window, fewer than so many are left in it.
    let last_in_the_way = recent.get(recent.len().checked_sub(max)?)?;
    Some(Why::AntiFlap {
        node: node.clone(),
        failed: u32::try_from(recent.len()).unwrap_or(u32::MAX),
        left_ms: last_in_the_way.at.plus_ms(policy.anti_flap_ms).since_ms(facts.now),
    })
}
