//! One round in a standing lab: load, perhaps an operator's order, the fault, its heal, everything on again, a whole cluster,
//! and the judgement.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use baton_chaos::check::Finals;
use baton_chaos::history::{History, Kind};

use super::draw::Round;
use super::memory::Remembered;
use super::summary::Played;
use crate::fault::{Fault, Scene, back};
use crate::lab::{Driver, Lab, Port, agents, wait};
use crate::run::{self, Outcome, Plan, Report, Terms};

/// How long a cluster may take to be whole again after everything is on again: with a copy of all data, if it has to be.
pub(super) const WHOLE_WITHIN: Duration = Duration::from_secs(90);
/// How long the lab is watched after it serves again, before everything is switched on.
const SETTLE: Duration = Duration::from_secs(1);
/// How long an agent may take to say how often it has put back what another program took.
const REPAIRS_WITHIN: Duration = Duration::from_secs(10);
/// How long a command may go on that follows a run for a minute.
const COMMAND_WITHIN: Duration = Duration::from_secs(75);

/// A round and what it leaves for the next ones.
pub struct Done {
    /// What came of it.
    pub played: Played,
    /// The writes that must be there from now on; none if the round came to no end.
    pub remembered: Option<Remembered>,
}

/// Plays a round. `ids` begins with the id of its first write.
///
/// # Errors
/// The process is told to stop. Whatever else goes wrong is a reason to fail.
pub fn play(lab: &Lab, round: &Round, first_id: u64, history: PathBuf) -> Result<Done> {
    let started = Instant::now();
    // The one of the round before is not this one's, also if this one comes to no end.
    let _ = std::fs::remove_file(&history);
    let plan = Plan {
        driver: Driver::Agents { profile: "standard".into() },
        fault: round.fault,
        flavour: lab.flavour(),
        docker: false,
        whole: false,
        at: round.at.clone(),
        keep: false,
    };
    let order = Order::default();
    let (lease_age_ms, repairs_before) = (Cell::new(None), Cell::new(None));
    let last = RefCell::new(Finals::default());
    let terms = Terms {
        expected: round.expectation(),
        delay: round.delay(),
        spread: Duration::from_millis(round.spread_ms),
        settle: Some(SETTLE),
        first_id,
        history,
        before: &|scene| {
            repairs_before.set(told_before(round.fault, scene)?);
            order.begin(round, scene)?;
            lease_age_ms.set(lease_age(scene));
            Ok(())
        },
        afterwards: &|scene| {
            told_since(repairs_before.get(), scene)?;
            scene.lab.restore()?;
            if !scene.lab.resyncs_by_itself() {
                // Somebody has to order it, if the fault has left transactions that the holder lacks.
                back::whole(scene.lab, WHOLE_WITHIN)?;
            }
            scene.lab.whole(WHOLE_WITHIN)?;
            order.end()?;
            // The order may have gone on when the cluster was whole for a moment.
            scene.lab.whole(WHOLE_WITHIN).map(drop)
        },
        contents: &|lab: &Lab, holder: Port, ids: Range<u64>| {
            let finals = lab.contents_of(holder, ids);
            last.replace(finals.clone());
            finals
        },
    };
    let observed = run::observe(lab, &plan, &terms);
    if wait::is_interrupted() {
        bail!("interrupted");
    }
    let remembered = observed
        .as_ref()
        .ok()
        .map(|(_, history)| Remembered::of(round.number, first_id, history, &last.borrow()));
    let mut played = judged(round, &lab.id, observed);
    played.seconds = started.elapsed().as_secs_f64();
    played.lease_age_ms = lease_age_ms.get();
    played.begun_code = order.code.get();
    Ok(Done { played, remembered })
}

/// What the run says of a round. A round that came to no end is broken: somebody has to look why.
pub(super) fn judged(round: &Round, lab: &str, observed: Result<(Report, History)>) -> Played {
    let mut played = Played {
        round: round.clone(),
        lab: lab.to_owned(),
        outcome: Outcome::Fail,
        reasons: Vec::new(),
        bit: false,
        holder_changes: 0,
        outage_ms: BTreeMap::new(),
        lost: BTreeMap::new(),
        two_holders_ms: 0,
        lease_age_ms: None,
        begun_code: None,
        seconds: 0.0,
        kept: None,
    };
    match observed {
        Ok((report, _)) => {
            played.outcome = report.result;
            played.bit = report.bit;
            played.holder_changes = report.holder_changes;
            played.outage_ms = report.outage_ms;
            played.lost = report.lost_acknowledged;
            played.two_holders_ms = report.two_holders_ms;
            played.reasons = report.reasons;
            if round.expectation().loses {
                played.lost.remove(&Kind::Mysql);
            }
        }
        Err(error) => played.reasons.push(format!("the round came to no end: {error:#}")),
    }
    played
}

/// The switchover that an operator has begun.
#[derive(Default)]
struct Order {
    child: RefCell<Option<Child>>,
    code: Cell<Option<i32>>,
}

impl Order {
    fn begin(&self, round: &Round, scene: Scene<'_>) -> Result<()> {
        let Some(begun) = round.begun else { return Ok(()) };
        let config = scene.lab.config.as_ref().context("only agents pass a baton")?;
        self.child.replace(Some(agents::begin_switchover(config, begun.at)?));
        wait::pass(Duration::from_millis(begun.ms_before))
    }

    /// The command must end; how, is noted. It must not say that an operator is needed.
    fn end(&self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let ended = wait::until("baton switchover to end", COMMAND_WITHIN, || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let code = ended?.code().context("the command was killed")?;
        self.code.set(Some(code));
        let mut said = String::new();
        child.stderr.take().context("it has one")?.read_to_string(&mut said)?;
        ensure!(code != 4, "baton switchover ended with {code}: {said}");
        Ok(())
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        // Left over only if the round came to no end.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How often the holder's agent has put back what another program took, if the fault is such a program.
fn told_before(fault: Fault, scene: Scene<'_>) -> Result<Option<u64>> {
    if !matches!(fault, Fault::VipRemoved | Fault::RulesFlushed) {
        return Ok(None);
    }
    let told = wait::until("the holder to say how often it has repaired", REPAIRS_WITHIN, || {
        repairs(scene).map(Some)
    });
    told.map(Some)
}

/// It has done so once more: what an earlier round has caused does not count.
fn told_since(before: Option<u64>, scene: Scene<'_>) -> Result<()> {
    let Some(before) = before else { return Ok(()) };
    wait::until_true("status to tell of one repair more", REPAIRS_WITHIN, || Ok(repairs(scene)? > before))
}

/// Counted from the start of the agent.
fn repairs(scene: Scene<'_>) -> Result<u64> {
    let config = scene.lab.config.as_ref().context("only agents repair")?;
    let status = agents::ask(config, scene.primary, &["status"])?;
    let lease = status["lease"].as_object().context("no lease in the status")?;
    // None at all are not told.
    Ok(lease.get("repairs").and_then(serde_json::Value::as_u64).unwrap_or(0))
}

/// How old the holder's lease is: how much of its length has passed, as its agent says.
fn lease_age(scene: Scene<'_>) -> Option<u64> {
    let config = scene.lab.config.as_ref()?;
    let status = agents::ask(config, scene.primary, &["status"]).ok()?;
    let lease = &status["lease"];
    lease["length_ms"].as_u64()?.checked_sub(lease["valid_ms"].as_u64()?)
}
