//! Drills: what this agent lets others do to its own node, and how it ends.
//!
//! ```text
//! any agent ──order──▶ the node's own agent ──▶ may it? (this node's configuration, the ledger, the clock) ──▶ arm · inject
//!   ledger: DrillBegin · Renew … · End                       expiry · end · abort · silence · a run to this node ──▶ heal
//! ```
//!
//! Each agent holds to its own limits, whoever asks. A fault is healed when the first of these comes: its own time is over
//! (the kernel's or the watchdog's doing, the agent only tidies up), its drill has ended or is to end, whoever drills
//! was not heard for the drill's lease, or this node is to take over. Nothing here touches a decision: a takeover never
//! waits for a drill.

mod admit;
mod container;
mod fault;
mod power;
mod warden;
mod watch;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_runbooks::ledger::{Command, DrillCommand, DrillId, Ledger};
use baton_runbooks::model::NodeId;
use jiff::Timestamp;

use super::{Context, clock, operator, resync};
use crate::api::drill::{
    CertificateDays, DrillOrder, DrillRequest, DrillView, FaultKind, FaultPhase, FaultState,
};
use crate::api::server::CommandError;
use crate::api::view::timestamp;
use crate::drill::Note;

/// Ended drills that a view shows.
const ENDED_SHOWN: usize = 16;
/// Words of an operator that are kept; longer ones are cut.
const WORDS_MAX: usize = 400;
/// Bounds of a drill's lease.
const LEASE_MS: std::ops::RangeInclusive<u64> = 2_000..=60_000;
/// Agents report several times a second: one that was not heard for so long is not heard now.
const HEARD_NOW: Duration = Duration::from_secs(1);
/// A stop has more to close, and all of it within ten seconds.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// How long the ledger's answer is waited for to come back as a view.
const APPLIED_WITHIN: Duration = Duration::from_secs(3);
/// How long those are waited for who have a say in whether the baton is passed. A look and a proposal follow, which may
/// outlast the patience of whoever asks: once he has given up nothing is proposed any more.
const MAY_PASS_WITHIN: Duration = Duration::from_secs(3);

/// What this agent knows of drills beside the ledger.
#[derive(Debug)]
pub(crate) struct Drills {
    /// The fault that this node bears, or bore last.
    fault: Mutex<Option<Borne>>,
    /// When whoever drills was last heard, and of which drill.
    heard: Mutex<Option<(DrillId, Instant)>>,
    /// One order on the fault at a time.
    busy: tokio::sync::Mutex<()>,
}

/// A fault, with what is needed to end it.
#[derive(Debug)]
struct Borne {
    note: Note,
    /// When it ends by itself; `None`: it has not been injected.
    ends: Option<Instant>,
    watchdog: Option<warden::Warden>,
}

impl Borne {
    /// Nothing is armed and nothing bites.
    const fn is_over(&self) -> bool {
        match self.note.state.phase {
            FaultPhase::Armed | FaultPhase::Biting | FaultPhase::Stuck => false,
            FaultPhase::Healed => true,
        }
    }
}

impl Drills {
    /// Heals what an earlier agent left, before anything else is done.
    pub(crate) async fn open(config: &crate::config::Config) -> Self {
        let filler = config.mysql.as_ref().map(|mysql| mysql.data_dir.join(crate::drill::FILLER));
        let left = watch::heal_left(&crate::drill::note_path(&config.state_dir), filler.as_deref()).await;
        Self {
            fault: Mutex::new(left.map(|note| Borne { note, ends: None, watchdog: None })),
            heard: Mutex::new(None),
            busy: tokio::sync::Mutex::new(()),
        }
    }

    fn fault(&self) -> MutexGuard<'_, Option<Borne>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> Option<FaultState> {
        self.fault().as_ref().map(|borne| borne.note.state.clone())
    }

    /// Whoever drills was heard now.
    fn hear(&self, number: DrillId) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, Instant::now()));
    }

    /// Whoever runs this drill was heard now, if it is the one that was heard of before, or none was.
    fn keep(&self, number: DrillId) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = heard.is_some_and(|(of, _)| of != number);
        if !is_other {
            *heard = Some((number, Instant::now()));
        }
        !is_other
    }

    /// For how long whoever runs this drill was not heard.
    fn silent_for(&self, number: DrillId) -> Option<Duration> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.filter(|(of, _)| *of == number).map(|(_, at)| at.elapsed())
    }
}

/// Heals what this node bears before its agent ends: who stops an agent wants an end of all that it does.
pub(super) async fn leave(context: &Context) {
    if tokio::time::timeout(LEAVE_WITHIN, fault::heal(context, "the agent is stopped")).await.is_err() {
        tracing::error!(
            "the fault of a drill is not healed in time; `baton drill-heal` or its deadline does it"
        );
    }
}

/// Watches over what this node bears.
pub(super) fn start(context: &Context) {
    tokio::spawn(watch::watch(context.clone()));
}

/// An order of somebody at this machine: done here, or passed on to the node's own agent.
pub(super) async fn ask(context: &Context, request: DrillRequest) -> Result<DrillView, CommandError> {
    let node = request.node.clone().unwrap_or_else(|| context.config.node.clone());
    if node == context.config.node {
        return serve(context, request).await;
    }
    let Some(found) = context.config.find(&node) else {
        return Err(CommandError::Refused { reason: format!("{node} is not the name of a node") });
    };
    resync::pass_on(context, found, &resync::Order::Drill { request }).await
}

/// Whether this drill may pass the baton to `to`. The agents that are asked, lose the baton and get it say so, each by its
/// own configuration: nobody's word stands for another's.
///
/// # Errors
/// One of them does not allow it, or does not say.
pub(super) async fn may_pass(
    context: &Context,
    number: DrillId,
    by: &str,
    to: &NodeId,
) -> Result<(), CommandError> {
    let holder = ledger(context).holder.clone();
    let nodes = have_a_say(&context.config.node, holder.as_ref(), to).into_iter();
    // All at once: one that is slow takes nothing of the others' time.
    let asked: Vec<_> = nodes
        .map(|node| {
            let (by, order) = (by.to_owned(), DrillOrder::MayPass { number });
            ask(context, DrillRequest { node: Some(node), by, order })
        })
        .collect();
    match tokio::time::timeout(MAY_PASS_WITHIN, futures_util::future::try_join_all(asked)).await {
        Ok(said) => said.map(drop),
        Err(_) => {
            let within = MAY_PASS_WITHIN.as_secs();
            let reason =
                format!("not every agent has said within {within} s that drill {number} may pass the baton");
            Err(CommandError::Refused { reason })
        }
    }
}

/// Who says whether a drill may pass the baton: the node that is asked, the one that loses it, and the one that gets it.
fn have_a_say(me: &NodeId, holder: Option<&NodeId>, to: &NodeId) -> BTreeSet<NodeId> {
    [Some(me), holder, Some(to)].into_iter().flatten().cloned().collect()
}

/// An order for this node.
pub(super) async fn serve(context: &Context, request: DrillRequest) -> Result<DrillView, CommandError> {
    let refused = |reason: String| CommandError::Refused { reason };
    let DrillRequest { by, order, node } = request;
    if node.is_some_and(|node| node != context.config.node) {
        return Err(refused(format!("this is {}, and the order is for another node", context.config.node)));
    }
    match order {
        DrillOrder::Look => {}
        DrillOrder::Begin { number, name, experiment, level, lease_ms } => {
            admit::begin(context, level).map_err(refused)?;
            let lease_ms = lease_ms.clamp(*LEASE_MS.start(), *LEASE_MS.end());
            let at_node = context.config.node.clone();
            let (name, experiment, by, at) = (cut(name), cut(experiment), cut(by), clock::wall());
            let command = DrillCommand::Begin { number, name, experiment, by, at_node, lease_ms, at };
            propose(context, command).await?;
        }
        DrillOrder::Renew { number, beat } => propose(context, DrillCommand::Renew { number, beat }).await?,
        DrillOrder::Keep { number } => {
            // A runner of another drill must not make this one look forsaken.
            if !context.drills.keep(number) {
                return Err(refused(format!("drill {number} is not the one that was heard of here")));
            }
        }
        DrillOrder::Abort { number, reason } => {
            let reason = cut(format!("{by}: {reason}"));
            propose(context, DrillCommand::Abort { number, reason }).await?;
        }
        DrillOrder::End { number, verdict, evidence } => {
            let (verdict, evidence, at) = (cut(verdict), cut(evidence), clock::wall());
            let command = DrillCommand::End { number, verdict, evidence, unless_after: None, at };
            propose(context, command).await?;
        }
        DrillOrder::MayPass { number } => {
            admit::pass(context, number).map_err(refused)?;
            // To look at what is left takes time, and whoever asks this has little.
            return Ok(view(context, Vec::new()));
        }
        DrillOrder::Arm { number, fault } => {
            tracing::warn!(by, kind = %fault.kind, duration_ms = fault.duration_ms, "a drill arms a fault");
            fault::arm(context, number, fault).await.map_err(refused)?;
        }
        DrillOrder::Inject { number } => {
            tracing::warn!(by, "a drill injects its fault");
            fault::inject(context, number).await.map_err(refused)?;
        }
        DrillOrder::Heal { reason } => {
            fault::heal(context, &format!("{by}: {reason}")).await.map_err(refused)?;
        }
    }
    Ok(view(context, fault::leftovers(context).await))
}

/// Proposes, and waits until this node has applied it, so that the view that follows shows it.
async fn propose(context: &Context, drill: DrillCommand) -> Result<(), CommandError> {
    let applied = operator::propose(context, Command::Drill { drill }).await?;
    let mut committed = context.consensus.committed();
    let seen = committed.wait_for(|state| state.index >= applied.index);
    let _ = tokio::time::timeout(APPLIED_WITHIN, seen).await;
    Ok(())
}

fn cut(words: String) -> String {
    words.chars().take(WORDS_MAX).collect()
}

fn view(context: &Context, leftovers: Vec<String>) -> DrillView {
    let ledger = context.consensus.committed().borrow().ledger.clone();
    let config = &context.config.drill;
    let ended = &ledger.ended_drills;
    DrillView {
        node: context.config.node.clone(),
        at: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        allow: config.allow,
        outside_window: admit::outside_window(config),
        cooldown_left_ms: admit::cooldown_left_ms(config, &ledger),
        duration_max_ms: config.duration_max.as_ms(),
        drill: ledger.drill.clone(),
        drills: ledger.drills,
        ended: ended[ended.len().saturating_sub(ENDED_SHOWN)..].to_vec(),
        fault: context.drills.state(),
        leftovers,
        power_off: power::hook(context).is_ok(),
        not_heard: others(context)
            .filter(|other| context.hands.peer_lately(other, HEARD_NOW).is_none())
            .cloned()
            .collect(),
        certificate_days: context
            .tls
            .days_left()
            .map(|left| CertificateDays { own: left.own, authority: left.authority }),
        versions: versions(),
    }
}

fn versions() -> std::collections::BTreeMap<String, String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    kernel.map(|text| ("kernel".to_owned(), text.trim().to_owned())).into_iter().collect()
}

/// The ledger as this node has applied it.
fn ledger(context: &Context) -> std::sync::Arc<Ledger> {
    context.consensus.committed().borrow().ledger.clone()
}

/// When something of the ledger happened, for people.
fn when(at: baton_runbooks::model::WallMs) -> Timestamp {
    timestamp(at)
}

/// A fault of this kind and this drill bites here, now.
fn stands(context: &Context, number: DrillId, kind: FaultKind) -> bool {
    let fault = context.drills.fault();
    fault.as_ref().map(|borne| &borne.note.state).is_some_and(|state| {
        state.drill == number && state.phase == FaultPhase::Biting && state.spec.kind == kind
    })
}

/// The nodes other than this one.
fn others(context: &Context) -> impl Iterator<Item = &NodeId> {
    context.config.peers().map(|node| &node.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_of_another_drill_does_not_stand_in_for_the_one_that_was_heard() {
        let drills =
            Drills { fault: Mutex::new(None), heard: Mutex::new(None), busy: tokio::sync::Mutex::new(()) };
        let (one, two) = (DrillId(1), DrillId(2));
        assert!(drills.keep(one) && !drills.keep(two));
        assert!(drills.silent_for(one).is_some() && drills.silent_for(two).is_none());
        drills.hear(two);
        assert!(drills.keep(two) && !drills.keep(one));
    }

    #[test]
    fn holder_and_target_of_a_move_are_asked_wherever_it_is_asked_for() {
        let (db1, db2, mon) = (NodeId::from("db1"), NodeId::from("db2"), NodeId::from("mon"));
        let asked = |me: &NodeId, holder: Option<&NodeId>| {
            have_a_say(me, holder, &db2).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(asked(&mon, Some(&db1)), ["db1", "db2", "mon"]);
        assert_eq!(asked(&db1, Some(&db1)), ["db1", "db2"]);
        assert_eq!(asked(&db2, Some(&db1)), ["db1", "db2"]);
        assert_eq!(asked(&mon, None), ["db2", "mon"]);
    }
}
