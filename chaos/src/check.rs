//! The judge: a history and what the databases hold afterwards, in; what was broken, out. Pure.
//!
//! What it proves, per kind of data:
//!
//! - *lost*: acknowledged and not there afterwards;
//! - *duplicated*: there more than once;
//! - *resurrected*: there although the client was told that it was refused;
//! - *interleaved*: two servers acknowledged at the same time. The proof is an order, not a sample: write `w` comes
//!   before `x` if `w` was acknowledged before `x` was started. The longest chain in this order whose members change
//!   server `n` times proves `n` handovers; more than the ledger's changes of holder prove two primaries;
//! - *outage*: the longest time without an acknowledgement, from the last one before the fault on. It is the longest,
//!   not the first, since some faults bite only when a lease ends;
//! - *connect gap* and *read gap*: the same of the connections and of the reads of a client that keeps no connection;
//! - *sustained recovery*, in [`steady`]: from a fault until writes are acknowledged steadily again.
//!
//! And for the virtual IP: the milliseconds in which two machines answered for it. Every ARP request is numbered and
//! its answers carry the number, so a clean change of holder is never mistaken for an overlap.
//!
//! A kind whose contents could not be read afterwards is `unread`: then nothing is known of its losses, which is not
//! the same as none.

pub mod holders;
pub mod steady;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use serde::{Deserialize, Serialize};

use crate::history::{Answer, History, Kind, Outcome, Visit, Write};

/// Requests that a holder may leave unanswered before its reign counts as ended: 100 ms at the usual period.
const UNANSWERED_PROBES_MAX: u64 = 10;

/// What the databases hold afterwards: how often each id is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finals(pub BTreeMap<Kind, BTreeMap<u64, u32>>);

/// What the history is to be judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// When the fault was injected.
    pub fault_us: u64,
    /// When the writer was told to stop: an outage that has not ended by then has lasted until then.
    pub end_us: u64,
    /// How often the holder changed according to the ledger.
    pub holder_changes: u32,
}

/// The judgement on one kind of data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindVerdict {
    /// How many writes were attempted.
    pub attempted: usize,
    /// How many were acknowledged.
    pub acknowledged: usize,
    /// The contents could not be read afterwards, so `lost`, `duplicated` and `resurrected` mean nothing.
    pub unread: bool,
    /// Ids acknowledged and missing.
    pub lost: Vec<u64>,
    /// Ids that are there more than once, or were acknowledged more than once.
    pub duplicated: Vec<u64>,
    /// Ids that are there although they were refused.
    pub resurrected: Vec<u64>,
    /// Ids whose acknowledgement proves a handover that the ledger does not have.
    pub interleaved: Vec<u64>,
    /// Handovers between servers that the acknowledgements prove.
    pub handovers: u32,
    /// The longest time without an acknowledgement, microseconds.
    pub outage_us: u64,
    /// Acknowledgements came after the fault, and still did in the last second.
    pub restored: bool,
    /// Which servers acknowledged, and how many writes each.
    pub servers: BTreeMap<String, usize>,
    /// What the client saw that keeps no connection; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visits: Option<Visits>,
}

/// What a client saw that connects, reads and goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visits {
    /// How many visits were attempted.
    pub attempted: usize,
    /// How many were let in.
    pub connected: usize,
    /// How many read.
    pub read: usize,
    /// The longest time without a new connection, microseconds, over the same span as the outage.
    pub connect_gap_us: u64,
    /// The longest time without a read, microseconds, over the same span.
    pub read_gap_us: u64,
}

/// The time during which one machine answered for the virtual IP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// Who answered.
    pub mac: String,
    /// The first request that it answered.
    pub first_probe: u64,
    /// The last request that it answered.
    pub last_probe: u64,
    /// When the first answer was read.
    pub from_us: u64,
    /// When the last answer was read.
    pub to_us: u64,
}

/// The judgement on a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Per kind of data that was written.
    pub kinds: BTreeMap<Kind, KindVerdict>,
    /// Milliseconds in which two machines answered for the virtual IP.
    pub two_holders_ms: u64,
    /// Who answered for it, when.
    pub reigns: Vec<Reign>,
}

impl Verdict {
    /// Whether nothing was lost, duplicated, resurrected or interleaved in `kind`, and its contents were read.
    #[must_use]
    pub fn is_safe(&self, kind: Kind) -> bool {
        self.kinds.get(&kind).is_some_and(|judged| {
            !judged.unread
                && [&judged.lost, &judged.duplicated, &judged.resurrected, &judged.interleaved]
                    .iter()
                    .all(|ids| ids.is_empty())
        })
    }
}

/// An acknowledgement within this before the end: the service is still there.
pub(crate) const AT_THE_END_US: u64 = 1_000_000;

/// Judges a history.
#[must_use]
pub fn check(history: &History, finals: &Finals, bounds: Bounds) -> Verdict {
    let mut by_kind: BTreeMap<Kind, Vec<&Write>> = BTreeMap::new();
    for write in &history.writes {
        by_kind.entry(write.kind).or_default().push(write);
    }
    let kinds = by_kind
        .into_iter()
        .map(|(kind, writes)| {
            let visits = check_visits(history.visits.iter().filter(|visit| visit.kind == kind), bounds);
            (kind, KindVerdict { visits, ..check_kind(&writes, finals.0.get(&kind), bounds) })
        })
        .collect();
    let reigns = reigns(&history.answers);
    let two_holders_ms = overlap_probes(&reigns) * history.probe_period_us.div_ceil(1000);
    Verdict { kinds, two_holders_ms, reigns }
}

fn check_kind(writes: &[&Write], there: Option<&BTreeMap<u64, u32>>, bounds: Bounds) -> KindVerdict {
    let mut judged =
        KindVerdict { attempted: writes.len(), unread: there.is_none(), ..KindVerdict::default() };
    let mut acknowledged = BTreeSet::new();
    let mut duplicated = BTreeSet::new();
    let times = |id: u64| there.map_or(0, |ids| ids.get(&id).copied().unwrap_or(0));
    for write in writes {
        match &write.outcome {
            Outcome::Acknowledged => {
                judged.acknowledged += 1;
                if let Some(server) = &write.server {
                    *judged.servers.entry(server.clone()).or_default() += 1;
                }
                if !acknowledged.insert(write.id) {
                    duplicated.insert(write.id);
                }
                if there.is_some() && times(write.id) == 0 {
                    judged.lost.push(write.id);
                }
            }
            Outcome::Refused { .. } => {
                if times(write.id) > 0 {
                    judged.resurrected.push(write.id);
                }
            }
            Outcome::Unknown { .. } => {}
        }
    }
    duplicated.extend(there.into_iter().flatten().filter(|&(_, times)| *times > 1).map(|(id, _)| *id));
    judged.duplicated = duplicated.into_iter().collect();
    let proofs = handover_proofs(writes);
    judged.handovers = proofs.iter().map(|(_, handovers)| *handovers).max().unwrap_or(0);
    judged.interleaved = proofs
        .into_iter()
        .filter(|(_, handovers)| *handovers > bounds.holder_changes)
        .map(|(id, _)| id)
        .collect();
    (judged.outage_us, judged.restored) = outage(writes, bounds);
    judged
}

/// For every acknowledged write: how many changes of server the best chain proves that ends in it.
fn handover_proofs(writes: &[&Write]) -> Vec<(u64, u32)> {
    let mut acknowledged: Vec<(&Write, &str)> = writes
        .iter()
        .filter(|write| write.outcome == Outcome::Acknowledged)
        .filter_map(|write| write.server.as_deref().map(|server| (*write, server)))
        .collect();
    acknowledged.sort_by_key(|(write, _)| write.started_us);
    let mut proofs = Vec::with_capacity(acknowledged.len());
    let mut best: BTreeMap<&str, u32> = BTreeMap::new();
    // Acknowledgements that have not yet been passed by the start of the write at hand.
    let mut open: BinaryHeap<Reverse<(u64, &str, u32)>> = BinaryHeap::new();
    for (write, server) in acknowledged {
        while let Some(Reverse((ended_us, by, handovers))) = open.peek().copied() {
            if ended_us >= write.started_us {
                break;
            }
            open.pop();
            let known = best.entry(by).or_default();
            *known = handovers.max(*known);
        }
        let chain = |(by, handovers): (&&str, &u32)| handovers + u32::from(*by != server);
        let handovers = best.iter().map(chain).max().unwrap_or(0);
        open.push(Reverse((write.ended_us, server, handovers)));
        proofs.push((write.id, handovers));
    }
    proofs
}

/// `None`: nobody visited.
fn check_visits<'a>(visits: impl Iterator<Item = &'a Visit>, bounds: Bounds) -> Option<Visits> {
    let mut seen = Visits::default();
    let (mut connects, mut reads) = (Vec::new(), Vec::new());
    for visit in visits {
        seen.attempted += 1;
        connects.extend(visit.connected_us);
        reads.extend(visit.read_us);
    }
    (seen.connected, seen.read) = (connects.len(), reads.len());
    (seen.connect_gap_us, _) = longest_without(connects, bounds);
    (seen.read_gap_us, _) = longest_without(reads, bounds);
    (seen.attempted > 0).then_some(seen)
}

fn outage(writes: &[&Write], bounds: Bounds) -> (u64, bool) {
    let acknowledged = writes.iter().filter(|write| write.outcome == Outcome::Acknowledged);
    longest_without(acknowledged.map(|write| write.ended_us).collect(), bounds)
}

/// The longest time without a success, from the last one before the fault on; and whether they came again after the fault,
/// and still did in the last second. `ends`: when each success was known.
fn longest_without(mut ends: Vec<u64>, bounds: Bounds) -> (u64, bool) {
    ends.sort_unstable();
    let after = ends.partition_point(|end| *end <= bounds.fault_us);
    // One success is no service: it must still be there at the end.
    let at_the_end = ends.last().is_some_and(|last| last.saturating_add(AT_THE_END_US) >= bounds.end_us);
    let restored = after < ends.len() && at_the_end;
    let before = after.checked_sub(1).map_or(bounds.fault_us, |last| ends[last]);
    let mut longest = 0;
    let mut from = before;
    for end in ends[after..].iter().copied().chain(std::iter::once(bounds.end_us)) {
        longest = longest.max(end.saturating_sub(from));
        from = from.max(end);
    }
    (longest, restored)
}

fn reigns(answers: &[Answer]) -> Vec<Reign> {
    let mut by_mac: BTreeMap<&str, Vec<&Answer>> = BTreeMap::new();
    for answer in answers {
        by_mac.entry(&answer.mac).or_default().push(answer);
    }
    let mut reigns: Vec<Reign> = Vec::new();
    for (mac, mut answers) in by_mac {
        answers.sort_by_key(|answer| (answer.probe, answer.at_us));
        let mut current: Option<Reign> = None;
        for answer in answers {
            match &mut current {
                Some(reign) if answer.probe <= reign.last_probe + UNANSWERED_PROBES_MAX => {
                    reign.last_probe = answer.probe;
                    reign.to_us = answer.at_us;
                }
                Some(_) | None => {
                    let fresh = Reign {
                        mac: mac.to_owned(),
                        first_probe: answer.probe,
                        last_probe: answer.probe,
                        from_us: answer.at_us,
                        to_us: answer.at_us,
                    };
                    reigns.extend(current.replace(fresh));
                }
            }
        }
        reigns.extend(current);
    }
    reigns.sort_by_key(|reign| reign.first_probe);
    reigns
}

/// How many requests lie inside the reigns of two different machines.
fn overlap_probes(reigns: &[Reign]) -> u64 {
    let mut shared: BTreeSet<u64> = BTreeSet::new();
    for (index, one) in reigns.iter().enumerate() {
        for other in reigns[index + 1..].iter().filter(|other| other.mac != one.mac) {
            let from = one.first_probe.max(other.first_probe);
            let to = one.last_probe.min(other.last_probe);
            shared.extend(from..=to);
        }
    }
    u64::try_from(shared.len()).expect("a count of probes fits")
}

#[cfg(test)]
mod tests;
