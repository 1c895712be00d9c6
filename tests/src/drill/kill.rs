//! The death of the one who drills: at which moment, and how far the drill was then.
//!
//! ```text
//!  gate ─ place ─ warm-up ─ ARMING ─ the fault BITES ─ HEALING ─ redundancy ─ last looks ─ KEEPING the record ─ ledger's end
//! ```
//!
//! Most moments are drawn over all of a drill. Where much is done in a short time they would hardly ever lie, so some are
//! looked for: the four in capitals. A fault that is to end by nothing but the loss of its runner must have long to stand yet
//! when that is killed: it is killed soon after the fault has bitten.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use baton_chaos::evidence::Store;
use baton_chaos::verdict::Verdict;
use baton_node::api::drill::{DrillId, DrillOrder, FaultPhase};
use baton_node::drill::note_path;
use nix::sys::signal::Signal;

use super::{SEAT, WHOLE_WITHIN, begin, order, stopped};
use crate::lab::{DATA, Lab, Port, wait};

/// How often it is looked for a moment: what lies around it takes some ten milliseconds.
const LOOK: Duration = Duration::from_millis(1);
/// Arming takes a watchdog's start, or the loading of rules; the order to inject follows at once.
const ARMING_MS: u64 = 25;
/// From the bite until a runner is killed that a fault is to outlive: a small part of the fault's own time.
const BITING_MS: u64 = 3_000;
/// From the order to heal until the cluster is whole again.
const HEALING_MS: u64 = 1_000;
/// From the record until the ledger has been told and the runner has ended.
const KEEPING_MS: u64 = 30;
/// How long a node may be between two phases of its fault.
const BETWEEN_WITHIN: Duration = Duration::from_secs(10);

/// When a runner is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long after it was started.
    After(Duration),
    /// So long after a node has begun to make a fault ready.
    Arming(Duration),
    /// So long after a node's fault was seen to bite.
    Biting(Duration),
    /// So long after a node has healed its fault.
    Healing(Duration),
    /// So long after the record was kept.
    Keeping(Duration),
}

impl Moment {
    /// The moment of the `kill`-th kill, of drills that take `length_ms`. The first one finds out how long that is.
    #[must_use]
    pub fn draw(kill: usize, length_ms: u64) -> Self {
        let up_to = |ms: u64| Duration::from_millis(rand::random::<u64>() % ms.max(1));
        match kill % 8 {
            0 => Self::Keeping(up_to(KEEPING_MS)),
            2 => Self::Arming(Duration::ZERO),
            3 => Self::Biting(up_to(BITING_MS)),
            4 => Self::Healing(up_to(HEALING_MS)),
            6 => Self::Arming(up_to(ARMING_MS)),
            _ => Self::After(up_to(length_ms)),
        }
    }
}

/// How far a drill was when its runner was killed, as the nodes say right after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It had no place in the ledger.
    Before,
    /// It had its place, and no fault was ready.
    Begun,
    /// A fault was ready.
    Armed,
    /// A fault stood.
    Biting,
    /// The fault was healed, and the cluster was not whole yet.
    Healing,
    /// The cluster was whole again: the last looks, the record, the ledger's end.
    Rest,
}

impl Stage {
    /// Every stage, in their order.
    pub const ALL: [Self; 6] =
        [Self::Before, Self::Begun, Self::Armed, Self::Biting, Self::Healing, Self::Rest];
}

/// A runner that was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed {
    /// How far its drill was.
    pub stage: Stage,
    /// How long it had lived.
    pub lived: Duration,
}

/// The newest drill that has a place in the ledger, or had one.
///
/// # Errors
/// The agent at [`SEAT`] cannot be asked.
pub fn newest(lab: &Lab) -> Result<DrillId> {
    Ok(order(lab, SEAT, DrillOrder::Look)?.drills)
}

/// Begins a drill, the next one after `before`, and kills its runner. `None`: it ended by itself, or was refused, which says
/// nothing of runners that are killed.
///
/// # Errors
/// The runner cannot be started, the moment does not come, or a node does not say how far the drill is.
pub fn kill(lab: &Lab, drill: &str, before: DrillId, moment: Moment) -> Result<Option<Killed>> {
    // A draft that was left becomes a record before anything else is done.
    let kept = records(lab) + usize::from(evidence(lab).draft()?.is_some());
    let mut runner = begin(lab, SEAT, drill)?;
    let started = Instant::now();
    let came = wait_for(lab, &mut runner, moment, kept);
    runner.kill()?;
    let ended = runner.wait()?;
    let lived = started.elapsed();
    came?;
    if ended.signal() != Some(Signal::SIGKILL as i32) {
        let said = std::fs::read_to_string(lab.dir.join("drill.log")).unwrap_or_default();
        println!("the runner had ended before {moment:?}: {ended}\n{said}");
        return Ok(None);
    }
    let stage = stage(lab, before)?;
    // A runner that finds that a fault bites too late heals it at once.
    if matches!(moment, Moment::Biting(_)) && stage != Stage::Biting {
        println!("no fault bit any more when the runner was killed: {stage:?}");
        return Ok(None);
    }
    // A drill that was refused has a record, too.
    if matches!(moment, Moment::Keeping(_)) && stage < Stage::Healing {
        println!("a record was kept, and no fault was healed: {stage:?}");
        return Ok(None);
    }
    Ok(Some(Killed { stage, lived }))
}

/// Waits for the moment, or for the end of the runner.
fn wait_for(lab: &Lab, runner: &mut Child, moment: Moment, kept: usize) -> Result<()> {
    let was_noted = Cell::new(false);
    let is_noted = || DATA.into_iter().any(|port| note(lab, port).exists());
    let has_come = || -> Result<bool> {
        Ok(match moment {
            Moment::After(_) => true,
            Moment::Arming(_) => is_noted(),
            Moment::Biting(_) => is_noted() && bites(lab)?,
            Moment::Healing(_) => {
                let is_noted = is_noted();
                was_noted.set(was_noted.get() || is_noted);
                was_noted.get() && !is_noted
            }
            Moment::Keeping(_) => records(lab) > kept,
        })
    };
    let until = Instant::now() + WHOLE_WITHIN;
    while !has_come()? && runner.try_wait()?.is_none() {
        ensure!(Instant::now() < until, "{moment:?}: not within {} s", WHOLE_WITHIN.as_secs());
        wait::pass(LOOK)?;
    }
    match moment {
        Moment::After(then)
        | Moment::Arming(then)
        | Moment::Biting(then)
        | Moment::Healing(then)
        | Moment::Keeping(then) => wait::pass(then),
    }
}

/// A node says that its fault bites.
fn bites(lab: &Lab) -> Result<bool> {
    for port in DATA {
        let fault = order(lab, port, DrillOrder::Look)?.fault;
        if fault.is_some_and(|fault| fault.phase == FaultPhase::Biting) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The fault of a drill was healed because its runner was lost, while its own time was not over: nothing else would have ended
/// it then.
///
/// # Errors
/// It is not so, or a node cannot be asked.
pub fn healed_by_loss(lab: &Lab, number: DrillId) -> Result<()> {
    let mut borne = Vec::new();
    for port in DATA {
        borne.extend(order(lab, port, DrillOrder::Look)?.fault.filter(|fault| fault.drill == number));
    }
    let [fault] = &borne[..] else { bail!("drill {number}: not one fault, but {borne:?}") };
    let healed_at = fault.healed_at.with_context(|| format!("not healed: {fault:?}"))?;
    // By the node's own clock. Its time begins to run only after it was armed.
    let stood_ms = u64::try_from(healed_at.as_millisecond() - fault.armed_at.as_millisecond())?;
    println!("{stood_ms} of {} ms: {}", fault.spec.duration_ms, fault.healed);
    ensure!(stood_ms < fault.spec.duration_ms, "its own time was over: {fault:?}");
    ensure!(fault.healed.starts_with("whoever drills was not heard"), "healed for another reason: {fault:?}");
    Ok(())
}

/// How far the drill after `before` is.
fn stage(lab: &Lab, before: DrillId) -> Result<Stage> {
    let view = order(lab, SEAT, DrillOrder::Look)?;
    if view.drills <= before {
        return Ok(Stage::Before);
    }
    let mut seen = None;
    for port in DATA {
        seen = seen.or(phase(lab, port, view.drills)?);
    }
    let is_over = || -> Result<bool> {
        let standing = lab.standing()?;
        Ok(view.drill.is_none() || (standing.ok && standing.in_sync))
    };
    Ok(match seen {
        None => Stage::Begun,
        Some(FaultPhase::Armed) => Stage::Armed,
        Some(FaultPhase::Biting | FaultPhase::Stuck) => Stage::Biting,
        Some(FaultPhase::Healed) if is_over()? => Stage::Rest,
        Some(FaultPhase::Healed) => Stage::Healing,
    })
}

/// How far the fault of a drill is on a node, if it bears one. A node whose processes stand still cannot be asked.
fn phase(lab: &Lab, port: Port, number: DrillId) -> Result<Option<FaultPhase>> {
    wait::until("a node to say how far its fault is", BETWEEN_WITHIN, || {
        if !stopped(lab, port).is_empty() {
            return Ok(Some(Some(FaultPhase::Biting)));
        }
        let view = order(lab, port, DrillOrder::Look)?;
        let fault = view.fault.filter(|fault| fault.drill == number);
        // Between two phases a node shows no fault, and its note is there.
        let is_between = fault.is_none() && note(lab, port).exists();
        Ok((!is_between).then(|| fault.map(|fault| fault.phase)))
    })
}

/// The drill after `before`, if one was begun: it has an end in the ledger, which is the agents' word or witnesses a record.
///
/// # Errors
/// It is not so.
pub fn ended_after(lab: &Lab, before: DrillId) -> Result<Option<DrillId>> {
    let view = order(lab, SEAT, DrillOrder::Look)?;
    if view.drills <= before {
        return Ok(None);
    }
    ensure!(view.drills.0 == before.0 + 1, "drills {before} to {}: more than one", view.drills);
    let ended = view.ended.iter().find(|ended| ended.drill.number == view.drills);
    let ended = ended.with_context(|| format!("drill {} has no end in the ledger", view.drills))?;
    let is_lost = ended.verdict == Verdict::Interrupted.name();
    ensure!(is_lost || ended.evidence.len() == 64, "no record is witnessed: {ended:?}");
    Ok(Some(view.drills))
}

/// Of these drills, those of which no record was kept and no draft is left.
///
/// # Errors
/// The evidence cannot be read.
pub fn without_record(lab: &Lab, drills: &BTreeSet<DrillId>) -> Result<Vec<DrillId>> {
    let store = evidence(lab);
    let mut kept: BTreeSet<u64> = store.records()?.iter().map(|stored| stored.record.drill).collect();
    kept.extend(store.draft()?.map(|draft| draft.drill));
    Ok(drills.iter().copied().filter(|drill| !kept.contains(&drill.0)).collect())
}

fn evidence(lab: &Lab) -> Store {
    Store::at(&lab.host(SEAT).dir.join("drills"))
}

/// How many records there are, by the names of files: their contents would take too long to read this often.
fn records(lab: &Lab) -> usize {
    let Ok(entries) = std::fs::read_dir(evidence(lab).dir()) else { return 0 };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.ends_with(".json") && name.starts_with(|first: char| first.is_ascii_digit()))
        .count()
}

/// The note of the fault that a node bears.
fn note(lab: &Lab, port: Port) -> PathBuf {
    note_path(&lab.host(port).dir.join("state"))
}
