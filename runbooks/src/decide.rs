//! `decide`: what the leader does, as a function of what is committed and what was seen.
//!
//! It keeps nothing and changes nothing: everything that it weighs is in [`Facts`]. Holding is a decision too and has
//! its reasons. What a node must do *without* a quorum is not here but in [`local`].

mod candidate;
pub mod force;
pub mod local;
pub mod loss;
pub mod pause;
mod supervise;
pub mod switchover;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::loss::Canaries;
use crate::detect::Sight;
use crate::exposure::{Following, UNFOLLOWED_MIN_MS};
use crate::lease::granter::Office;
use crate::ledger::{Complete, Ledger, Pause};
use crate::model::{Mono, NodeId, PauseId};
use crate::observe::NodeReport;
use crate::plan::{Basis, Plan, Runbook, Step};
use crate::run::table::Scope;
use crate::run::takeover;
use crate::why::Why;

/// Numbers and facts from the configuration, the same on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What the configuration has.
    pub scope: Scope,
    /// A report older than this says nothing any more, in milliseconds.
    pub report_max_ms: u64,
    /// A quorum acknowledgement older than this is none, in milliseconds.
    pub quorum_max_ms: u64,
    /// Failed takeovers to one node within this time, in milliseconds, count as flapping.
    pub anti_flap_ms: u64,
    /// Number of failed takeovers to one node within that time after which the next one waits.
    pub anti_flap_max: u32,
    /// After a start of all agents, the last holder is waited for so long, in milliseconds.
    #[serde(default)]
    pub cold_start_ms: u64,
}

/// A report with the instant at which it arrived here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// When it arrived.
    pub at: Mono,
    /// What it says.
    #[serde(with = "crate::shared")]
    pub report: Arc<NodeReport>,
}

/// A takeover that failed, as this leader saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When it ended.
    pub at: Mono,
    /// Its target.
    pub target: NodeId,
}

/// Everything that a decision weighs.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The present instant.
    pub now: Mono,
    /// This node.
    pub me: &'a NodeId,
    /// The committed state.
    pub ledger: &'a Ledger,
    /// This node's standing in Raft.
    pub office: &'a Office,
    /// The earliest instant at which a takeover may be decided, from the granter.
    pub takeover_at: Option<Mono>,
    /// The same, after the holder gave its lease back.
    pub released_at: Option<Mono>,
    /// When the newest grant was given.
    pub granted_at: Option<Mono>,
    /// The pause that the granter sees, and the earliest instant at which it may be taken for over.
    pub pause_over: Option<(PauseId, Mono)>,
    /// Newest report of each node, this one included.
    pub reports: &'a BTreeMap<NodeId, Heard>,
    /// When the holder was seen with which canary.
    pub canaries: &'a Canaries,
    /// When the other data node's Redis was seen to follow.
    pub following: &'a Following,
    /// Since when each step of the current run could have been under way.
    pub ready_since: &'a BTreeMap<Step, Mono>,
    /// Takeovers that failed lately.
    pub failures: &'a [Failure],
    /// Length of an own gap and milliseconds left until this agent judges others again.
    pub settling: Option<(u64, u64)>,
    /// The configuration.
    pub policy: &'a Policy,
}

impl Facts<'_> {
    /// Every lease that this leader knows of has ended, margin included.
    fn is_lease_over(&self) -> bool {
        self.takeover_at.is_some_and(|at| at <= self.now)
    }

    /// Milliseconds since the node's newest report; `None`: never.
    fn silent_ms(&self, node: &NodeId) -> Option<u64> {
        self.reports.get(node).map(|heard| self.now.since_ms(heard.at))
    }

    fn is_silent(&self, node: &NodeId) -> bool {
        self.silent_ms(node).is_none_or(|ms| ms > self.policy.report_max_ms)
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Nothing.
    Hold,
    /// Propose this plan.
    StartRun {
        /// The plan.
        plan: Box<Plan>,
    },
    /// End the current run before its pivot.
    AbandonRun {
        /// Why, for the history.
        reason: String,
    },
    /// Go on without a forward step.
    Skip {
        /// The step.
        step: Step,
        /// Why, for the journal.
        reason: String,
    },
    /// End a pause that was waited out.
    ExpirePause {
        /// Which.
        pause: PauseId,
    },
}

impl Action {
    /// The word on screen.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::StartRun { .. } => "start-run",
            Self::AbandonRun { .. } => "abandon-run",
            Self::Skip { .. } => "skip",
            Self::ExpirePause { .. } => "expire-pause",
        }
    }
}

/// A decision and its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Decision {
    /// What is to be done.
    #[serde(flatten)]
    pub action: Action,
    /// Why, most important first.
    pub why: Vec<Why>,
}

impl Decision {
    fn hold(why: impl IntoIterator<Item = Why>) -> Self {
        Self { action: Action::Hold, why: why.into_iter().collect() }
    }
}

/// What the leader does now.
pub fn decide(facts: &Facts<'_>) -> Decision {
    if let Some(why) = no_authority(facts) {
        return Decision::hold([why]);
    }
    if facts.ledger.members.is_empty() {
        return Decision::hold([Why::Vacant]);
    }
    if let Some(run) = &facts.ledger.run {
        return supervise::supervise(facts, run);
    }
    if let Some(pause) = &facts.ledger.pause {
        return paused(facts, pause);
    }
    let seen = unreachable(facts);
    match may_take_over(facts) {
        Ok(cause) => take_over(facts, cause, seen),
        Err(why) => Decision::hold([why].into_iter().chain(seen)),
    }
}

/// From whom the holder is unreachable, for whoever reads the decision.
fn unreachable(facts: &Facts<'_>) -> Option<Why> {
    let holder = facts.ledger.holder.as_ref()?;
    let sight = Sight::of(holder, facts.me, facts.reports, facts.now, facts.policy.report_max_ms);
    let is_obscured = sight.is_obscured();
    let (from, heard_by) = (sight.unheard_by, sight.heard_by);
    is_obscured.then(|| Why::Unreachable { node: holder.clone(), from, heard_by })
}

/// Nothing, until the holder says that the pause is over, or nobody needs to be asked.
fn paused(facts: &Facts<'_>, pause: &Pause) -> Decision {
    let counted = facts.pause_over.filter(|(id, _)| *id == pause.id);
    let left_ms = counted.map(|(_, over)| over.since_ms(facts.now));
    if left_ms == Some(0) {
        let why = vec![Why::PauseOver { pause: pause.id }];
        return Decision { action: Action::ExpirePause { pause: pause.id }, why };
    }
    if pause.resumed_by.is_some() {
        return Decision::hold([Why::PauseNotConfirmed { pause: pause.id, left_ms }]);
    }
    let (by, reason) = (pause.order.by.clone(), pause.order.reason.clone());
    Decision::hold([Why::Paused { pause: pause.id, by, reason }])
}

fn no_authority(facts: &Facts<'_>) -> Option<Why> {
    let office = facts.office;
    if !office.is_leader {
        return Some(Why::NotLeader { leader: office.leader.clone() });
    }
    let acknowledged_ms_ago = office.quorum_acked_at.map(|at| facts.now.since_ms(at));
    if acknowledged_ms_ago.is_none_or(|ms| ms > facts.policy.quorum_max_ms) {
        return Some(Why::NoQuorum { acknowledged_ms_ago });
    }
    if !office.own_term_applied {
        return Some(Why::NewLeaderWaits { left_ms: 0 });
    }
    None
}

/// The cause of a takeover, or the reason why there is none.
fn may_take_over(facts: &Facts<'_>) -> Result<Why, Why> {
    let ledger = facts.ledger;
    let released = ledger.released.as_ref().filter(|_| ledger.has_released());
    if let Some(released) = released.filter(|_| facts.released_at.is_some_and(|at| at <= facts.now)) {
        return Ok(Why::HolderReleased { epoch: ledger.epoch, because: released.why.to_string() });
    }
    if let Some((gap_ms, left_ms)) = facts.settling {
        return Err(Why::OwnGap { gap_ms, left_ms });
    }
    let Some(takeover_at) = facts.takeover_at else {
        return Err(Why::NotLeader { leader: facts.office.leader.clone() });
    };
    let left_ms = takeover_at.since_ms(facts.now);
    let granted_ms_ago = facts.granted_at.map(|at| facts.now.since_ms(at));
    match (&ledger.holder, left_ms, granted_ms_ago) {
        (Some(holder), 0, _) => match cold_start(facts, holder) {
            Some(why) => Err(why),
            None => {
                Ok(Why::LeaseEnded { epoch: ledger.epoch, ended_ms_ago: facts.now.since_ms(takeover_at) })
            }
        },
        (None, 0, _) => Ok(Why::Vacant),
        (Some(holder), _, Some(ms)) if ms <= facts.policy.report_max_ms && !ledger.has_released() => {
            Err(Why::HolderHealthy { holder: holder.clone(), granted_ms_ago: ms })
        }
        (Some(_), left_ms, Some(_)) => Err(Why::LeaseNotEnded { epoch: ledger.epoch, left_ms }),
        (_, left_ms, _) => Err(Why::NewLeaderWaits { left_ms }),
    }
}

/// All that are there started lately, and the holder has not been heard since: it is starting too, and is waited for. A holder
/// that was seen to serve since, or anybody who was there before, and its silence means what it always means.
fn cold_start(facts: &Facts<'_>, holder: &NodeId) -> Option<Why> {
    if facts.granted_at.is_some() || facts.reports.contains_key(holder) {
        return None;
    }
    let mut oldest_ms = 0;
    for (_, heard) in facts.reports.iter().filter(|(node, _)| !facts.is_silent(node)) {
        oldest_ms = oldest_ms.max(heard.report.up_ms?);
    }
    let left_ms = facts.policy.cold_start_ms.saturating_sub(oldest_ms);
    (left_ms > 0).then(|| Why::ColdStart { holder: holder.clone(), left_ms })
}

/// `seen` stands beside the cause for whoever reads the decision, and at the end what Redis may lose. They are not in the plan,
/// which every agent has to read, also one of an older version that does not know their codes.
fn take_over(facts: &Facts<'_>, cause: Why, seen: Option<Why>) -> Decision {
    match candidate::choose(facts) {
        Ok(node) => {
            let why = [cause, Why::Candidate { node: node.clone() }].into_iter();
            let why = why.chain(candidate::accepted_loss(facts, &node)).collect();
            let plan = takeover_plan(facts, &node, why);
            let mut why = plan.why.clone();
            why.splice(1..1, seen);
            why.extend(redis_behind(facts, &node));
            Decision { action: Action::StartRun { plan: Box::new(plan) }, why }
        }
        Err(obstacles) => Decision::hold([cause].into_iter().chain(seen).chain(obstacles)),
    }
}

/// What the Redis of `node` may lack of a holder's that is lost. It stands in nobody's way (design, G3), and is said.
fn redis_behind(facts: &Facts<'_>, node: &NodeId) -> Option<Why> {
    let holder = facts.ledger.holder.as_ref().filter(|holder| *holder != node)?;
    let unfollowed_ms = facts.following.unfollowed_ms(facts.ledger.epoch, node);
    let measured = facts.reports.get(holder).and_then(|heard| heard.report.redis_exposure);
    let measured = measured.filter(|exposure| exposure.ms > UNFOLLOWED_MIN_MS);
    let behind_ms = unfollowed_ms.max(measured.map(|exposure| exposure.ms))?;
    Some(Why::RedisBehind { node: node.clone(), behind_ms, bytes: measured.map(|exposure| exposure.bytes) })
}

/// The plan of a takeover to `target`, complete and without choices.
fn takeover_plan(facts: &Facts<'_>, target: &NodeId, why: Vec<Why>) -> Plan {
    let ledger = facts.ledger;
    // Only a replica has to prove that it still is what the ledger vouches for; a last holder's own data needs no proof.
    let target_instance = ledger.in_sync.get(target).and_then(Complete::instance).cloned();
    Plan {
        runbook: Runbook::Takeover,
        version: takeover::VERSION,
        epoch: ledger.epoch.next(),
        from: ledger.holder.clone().filter(|holder| holder != target),
        to: target.clone(),
        basis: Basis { epoch: ledger.epoch, sync: ledger.sync_generation, target_instance },
        why,
        detected_ms_ago: None,
        holder_heard_ms: Default::default(),
        asked_by: None,
        drain_patience_ms: 0,
        steps: takeover::steps(target, ledger.witness(), facts.policy.scope),
    }
}
