//! A majority is lost for good: one survivor founds the cluster anew, in a higher generation.
//!
//! ```text
//! order(dir) ── writes force.json ── the agent ends ── start ── carry_out:
//!   a copy of the log stays beside it
//!   one transaction: every entry is applied, committed or not ── ledger.force ── snapshot with one voter: this node, a new log
//! ```
//!
//! Everything in the log is applied, since what was committed through this node is in there, and nobody else decides any more
//! what becomes of the rest. The new log has an incarnation and a Raft id of its own; its vote and its last log id go on from the old
//! one's, so that terms and indexes only grow. Its generation is told in every greeting, and a log of a lower generation that
//! hears of it never votes again (see `crate::node`). What is left to do with such a log is [`ask_to_rejoin`].
//!
//! That the others are off is what the operator says. Nothing here can know it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use baton_runbooks::ledger::Forced;
use baton_runbooks::model::{Generation, NodeId};
use openraft::Membership;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::store::{FILE, Identity, Store};
use crate::types::{Incarnation, Voter};

/// The order, beside the log.
const ORDER: &str = "force.json";
/// The wish to come back as a new member, beside the log.
const REJOIN: &str = "rejoin.json";
/// Raft ids of a generation begin here, so that no two logs of two generations ever have the same.
const IDS_PER_GENERATION: u64 = 1 << 40;

/// What is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What the ledger notes. Its generation says for which log the order is: the one of the generation before.
    pub forced: Forced,
}

/// Writes the order down; it is carried out when this node's consensus starts the next time.
///
/// # Errors
/// The disk's.
pub fn order(dir: &Path, order: &Order) -> io::Result<()> {
    write(&dir.join(ORDER), &serde_json::to_vec(order)?)
}

/// At the next start the log is put aside, if it is of a lower generation than the cluster's, and this node comes back as a new
/// member.
///
/// # Errors
/// The disk's.
pub fn ask_to_rejoin(dir: &Path) -> io::Result<()> {
    write(&dir.join(REJOIN), b"{}")
}

fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut written = std::fs::File::create(file)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    sync_dir(file)
}

fn sync_dir(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
}

fn done(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Ok(()) => sync_dir(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The order that waits for the log in `dir`, if one does.
///
/// # Errors
/// It cannot be read.
fn waiting(dir: &Path) -> io::Result<Option<Order>> {
    match std::fs::read(dir.join(ORDER)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts the log aside if it is outranked; the wish is fulfilled either way. Nobody has the log open.
///
/// # Errors
/// The disk's.
pub(crate) fn put_aside(dir: &Path, is_outranked: bool) -> io::Result<()> {
    if is_outranked {
        let file = dir.join(FILE);
        let kept = free_name(dir, "outranked");
        std::fs::rename(&file, &kept)?;
        sync_dir(&file)?;
        tracing::warn!(kept = %kept.display(), "this node's log of a lower generation is put aside; it rejoins as a new member");
    }
    done(&dir.join(REJOIN))
}

/// Somebody has asked for that.
pub(crate) fn is_asked_to_rejoin(dir: &Path) -> bool {
    dir.join(REJOIN).exists()
}

fn free_name(dir: &Path, why: &str) -> PathBuf {
    let name = |number: u32| dir.join(format!("{FILE}.{why}-{number}"));
    (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(u32::MAX))
}

/// Founds the cluster anew on this log, if that was ordered for it. Returns whose log it is then, and its state; `None`: there is
/// nothing to do.
///
/// # Errors
/// The disk's. Nothing is changed then.
pub(crate) fn carry_out(
    dir: &Path,
    store: &Store,
    identity: &Identity,
    fresh: Incarnation,
) -> io::Result<Option<(Identity, Machine)>> {
    let Some(order) = waiting(dir)? else { return Ok(None) };
    if order.forced.generation != identity.generation.next() {
        // It was carried out, and this process died before it could remove the order.
        done(&dir.join(ORDER))?;
        return Ok(None);
    }
    let kept = free_name(dir, "before-force");
    std::fs::copy(dir.join(FILE), &kept)?;
    std::fs::File::open(&kept)?.sync_all()?;
    let generation = order.forced.generation;
    let raft_id = generation.0.saturating_mul(IDS_PER_GENERATION) + 1;
    let next = Identity { incarnation: fresh, raft_id: Some(raft_id), generation, ..identity.clone() };
    let membership = alone(raft_id, next.node.clone(), &next.incarnation)?;
    let machine = store.found_anew(&next, membership, order.forced)?;
    done(&dir.join(ORDER))?;
    tracing::error!(%generation, kept = %kept.display(), "this node goes on alone, by an operator's force");
    Ok(Some((next, machine)))
}

fn alone(raft_id: u64, name: NodeId, incarnation: &Incarnation) -> io::Result<Membership<u64, Voter>> {
    let voter = Voter { name, incarnation: incarnation.clone() };
    let nodes: BTreeMap<u64, Voter> = [(raft_id, voter)].into();
    Membership::new(vec![BTreeSet::from([raft_id])], nodes).map_err(io::Error::other)
}

/// Why a log of `own` generation must not vote any more once `other` is heard of.
pub(crate) fn outranked(from: &NodeId, own: Generation, other: Generation) -> String {
    format!(
        "{from} says that the cluster was forced to generation {other}, and this node's log is of generation {own}: what was \
         decided without the survivor does not count. This node is closed. `baton rejoin` on it puts its log aside, and it \
         comes back as a new member"
    )
}
