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
use crate::types::{Incarnation, Stamp, Voter};

/// The order, beside the log.
const ORDER: &str = "force.json";
/// The wish to come back as a new member, beside the log.
const REJOIN: &str = "rejoin.json";
/// Raft ids of a generation begin here, so that no two logs of two generations ever have the same.
const IDS_PER_GENERATION: u64 = 1 << 40;
/// And within it those of a founder, so that two survivors that were forced to the same one do not either, but for a chance of one
/// in 16 million. The links keep them apart all the same.
const IDS_PER_FOUNDER: u64 = 1 << 16;

/// The Raft id of a founder.
fn first_id(generation: Generation, founder: &Incarnation) -> u64 {
    let drawn = u64::from_str_radix(&founder.0, 16).unwrap_or_default();
    let of_founder = drawn % (IDS_PER_GENERATION / IDS_PER_FOUNDER) * IDS_PER_FOUNDER;
    generation.0.saturating_mul(IDS_PER_GENERATION).saturating_add(of_founder).saturating_add(1)
}

/// For so long an order counts, in milliseconds: an agent that ends cleanly and is started again by its supervisor needs seconds.
/// What the operator saw when he gave it may not be so any more after that.
pub const ORDER_MS: u64 = 60_000;

/// What is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What the ledger notes. Its generation says for which log the order is: the one of the generation before.
    pub forced: Forced,
    /// The log when it was ordered. Another one, or one that went on, is not what the operator saw.
    pub place: Place,
    /// When.
    pub given: Boottime,
}

/// How far a log has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which log.
    pub incarnation: Incarnation,
    /// Its vote, and its newest entry.
    pub stamp: Stamp,
}

impl Place {
    /// Nobody else has decided anything in this log since `earlier`. `own` Raft id: entries that this node appended under the
    /// vote that it had, as a leader without a majority, are no news.
    fn is_still(&self, earlier: &Self, own: u64) -> bool {
        let (now, then) = (self.stamp, earlier.stamp);
        let is_own = now.last.1 == own && now.vote.1 == own && now.last >= then.last;
        self.incarnation == earlier.incarnation && now.vote == then.vote && (now.last == then.last || is_own)
    }
}

/// A point in time of one run of this host's kernel, suspended time included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boottime {
    /// Which run.
    pub boot_id: String,
    /// Milliseconds since it began.
    pub ms: u64,
}

impl Boottime {
    /// Now.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn now() -> io::Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
        let ms = now.tv_sec().cast_unsigned() * 1000 + now.tv_nsec().cast_unsigned() / 1_000_000;
        Ok(Self { boot_id, ms })
    }

    /// `now` is at most `ms` later, in the same run.
    fn is_within(&self, now: &Self, ms: u64) -> bool {
        self.boot_id == now.boot_id && (self.ms..=self.ms.saturating_add(ms)).contains(&now.ms)
    }
}

/// Why an order is not carried out, if so, on a log that is `identity`'s and has come to `place`. `retired`: why it must not vote.
fn refusal(
    order: &Order,
    identity: &Identity,
    place: &Place,
    retired: Option<&str>,
    now: &Boottime,
) -> Option<String> {
    let Some(own) = identity.raft_id else {
        return Some("this log is new, it was never of a cluster".to_owned());
    };
    if let Some(why) = retired {
        return Some(format!("this log must not vote any more: {why}"));
    }
    if order.forced.generation != identity.generation.next() {
        return Some(format!(
            "it is for generation {}, this log is of {}",
            order.forced.generation, identity.generation
        ));
    }
    if !order.given.is_within(now, ORDER_MS) {
        return Some(format!("it is older than {} s, or from before the host was booted", ORDER_MS / 1000));
    }
    (!place.is_still(&order.place, own))
        .then(|| "the log is not any more what it was when that was ordered".to_owned())
}

/// Removes an order that does not count any more.
pub(crate) fn discard(dir: &Path, why: &str) -> io::Result<()> {
    if dir.join(ORDER).exists() {
        tracing::error!(
            why,
            "the order to go on alone is discarded; nothing was changed. `baton force` gives a new one"
        );
    }
    done(&dir.join(ORDER))
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
    // Under another name first: a half-written order is none.
    let new = file.with_extension("new");
    let mut written = std::fs::File::create(&new)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    std::fs::rename(&new, file)?;
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

/// The order that waits in `dir`, if one does. `Some(None)`: one that cannot be understood.
///
/// # Errors
/// It cannot be read.
fn waiting(dir: &Path) -> io::Result<Option<Option<Order>>> {
    match std::fs::read(dir.join(ORDER)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).ok())),
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
    discard(dir, "this node was asked to come back as a new member")?;
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

/// Founds the cluster anew on this log, if that was ordered for it, a moment ago. `is_empty`: its ledger knows of no cluster.
/// Returns whose log it is then, and its state; `None`: there is nothing to do.
///
/// # Errors
/// The disk's. Nothing is changed then.
pub(crate) fn carry_out(
    dir: &Path,
    store: &Store,
    identity: &Identity,
    is_empty: bool,
    fresh: Incarnation,
) -> io::Result<Option<(Identity, Machine)>> {
    let Some(order) = waiting(dir)? else { return Ok(None) };
    let Some(order) = order else {
        discard(dir, "it cannot be understood")?;
        return Ok(None);
    };
    if order.forced.generation == identity.generation && identity.incarnation != order.place.incarnation {
        // It was carried out, and this process died before it could remove the order.
        done(&dir.join(ORDER))?;
        return Ok(None);
    }
    let place = Place { incarnation: identity.incarnation.clone(), stamp: store.stamp() };
    // Of two survivors that were forced to the same generation one is forced again; else nobody could ever go on.
    let is_forked = store.outranked_by()? == Some(identity.generation);
    let retired = store.retired()?.filter(|_| !is_forked);
    if let Some(why) = refusal(&order, identity, &place, retired.as_deref(), &Boottime::now()?) {
        discard(dir, &why)?;
        return Ok(None);
    }
    if is_empty {
        discard(dir, "the ledger of this log knows of no cluster")?;
        return Ok(None);
    }
    let kept = free_name(dir, "before-force");
    std::fs::copy(dir.join(FILE), &kept)?;
    std::fs::File::open(&kept)?.sync_all()?;
    let generation = order.forced.generation;
    let raft_id = first_id(generation, &fresh);
    let founder = fresh.clone();
    let next =
        Identity { incarnation: fresh, raft_id: Some(raft_id), generation, founder, ..identity.clone() };
    let forced = Forced { founder: next.founder.0.clone(), ..order.forced };
    let membership = alone(raft_id, next.node.clone(), &next.incarnation)?;
    let machine = store.found_anew(&next, membership, forced)?;
    done(&dir.join(ORDER))?;
    tracing::error!(%generation, kept = %kept.display(), "this node goes on alone, by an operator's force");
    Ok(Some((next, machine)))
}

fn alone(raft_id: u64, name: NodeId, incarnation: &Incarnation) -> io::Result<Membership<u64, Voter>> {
    let voter = Voter { name, incarnation: incarnation.clone() };
    let nodes: BTreeMap<u64, Voter> = [(raft_id, voter)].into();
    Membership::new(vec![BTreeSet::from([raft_id])], nodes).map_err(io::Error::other)
}

/// Why a log must not vote any more once another one of the same generation is heard of, which somebody else has founded.
pub(crate) fn forked(from: &NodeId, generation: Generation) -> String {
    format!(
        "{from} too was forced to generation {generation}, or is with a node that was: two nodes went on alone, each without the \
         other, and each may have taken writes. Both are closed. Decide which one goes on, stop the agents of all others, run \
         `baton force` on it, then start the others and run `baton rejoin NODE` for each"
    )
}

/// Why a log of `own` generation must not vote any more once `other` is heard of.
pub(crate) fn outranked(from: &NodeId, own: Generation, other: Generation) -> String {
    format!(
        "{from} says that the cluster was forced to generation {other}, and this node's log is of generation {own}: what was \
         decided without the survivor does not count. This node is closed. `baton rejoin` with its name puts its log aside, and it \
         comes back as a new member"
    )
}
