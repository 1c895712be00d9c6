//! What the API answers: data only. Field names and words are stable; fields may be added.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_runbooks::decide::loss::{Acceptance, LossPreflight};
use baton_runbooks::decide::switchover::Preflight;
use baton_runbooks::exposure::Exposure;
use baton_runbooks::ledger::DrillId;
use baton_runbooks::model::{Epoch, Generation, NodeId, NodeKind, RunId, SyncGeneration, Term};
use baton_runbooks::observe::{Quarantine, ResyncFacts};
use baton_runbooks::plan::Plan;
use baton_runbooks::why::Why;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::force::ForcedRecord;
use super::pause::{PauseRecord, PauseRow};

/// Everything that the driver publishes for readers. It does not leave the process as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The answer of `GET /v1/status`.
    pub status: Status,
    /// Recent decisions, newest last, bounded by [`super::view::DECISIONS_MAX`].
    pub decisions: Vec<DecisionRow>,
    /// Suspicions of this leader that came to nothing, newest last.
    pub suspicions: Vec<SuspicionRow>,
    /// Runs of the ledger, newest last; the one under way included. Shared, since it changes only with the ledger.
    pub history: Arc<Vec<RunRecord>>,
    /// Pauses of the ledger, newest last; one that is not over included.
    pub pauses: Arc<Vec<PauseRecord>>,
    /// Forced recoveries, newest last.
    pub forced: Arc<Vec<ForcedRecord>>,
}

/// Where the cluster stands, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When this view was made, on this node's wall clock.
    pub at: Timestamp,
    /// The node that answers.
    pub node: NodeId,
    /// Name of the cluster.
    pub cluster: String,
    /// Version of this agent.
    pub version: String,
    /// Generation of the cluster, raised by a forced recovery only.
    #[serde(default)]
    pub generation: Generation,
    /// The newest epoch that this node has applied.
    pub epoch: Epoch,
    /// Who holds the baton; `None`: nobody.
    pub holder: Option<NodeId>,
    /// The Raft leader that this node knows; `None`: no leader, so nothing is decided.
    pub leader: Option<NodeId>,
    /// The leader's term.
    pub term: Term,
    /// Which replica has every acknowledged write.
    pub sync: Sync,
    /// The holder's lease, as far as this node knows it.
    pub lease: Lease,
    /// All nodes, in the order of the configuration.
    pub nodes: Vec<NodeRow>,
    /// The run under way, or the one that needs an operator.
    pub run: Option<RunRecord>,
    /// The pause that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseRow>,
    /// What an operator should mend, worst first.
    pub alarms: Vec<Alarm>,
    /// A takeover would work now, and nothing is to be mended.
    pub ok: bool,
    /// The closing sentence: whether a takeover would work now, and if not, why and what to do.
    pub sentence: String,
}

/// Which replica has every acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Sync {
    /// This one.
    InSync {
        /// The replica.
        replica: NodeId,
    },
    /// None: an automatic takeover would lose acknowledged writes, so there will be none.
    OutOfSync {
        /// Why, in words.
        reason: String,
    },
    /// There is no MySQL, so nothing can be lost that semi-sync would protect.
    NotApplicable,
}

/// The holder's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Milliseconds for which it is still valid: on the holder its own view, on the leader what it granted; `None`
    /// where this node does not know, 0 when it has ended.
    pub valid_ms: Option<u64>,
    /// Full length in milliseconds.
    pub length_ms: u64,
    /// Milliseconds since this node last saw it renewed; `None`: never, or not known here.
    pub renewed_ms_ago: Option<u64>,
    /// How often another program has removed this node's addresses or rules since its agent started. They were put back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repairs: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a node is at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds the baton.
    Holder,
    /// A data node that replicates from the holder.
    Replica,
    /// A data node that is closed and does not replicate: a former holder that came back, or a replica that is not set
    /// up. Its MySQL is read-only, or being made so.
    Closed,
    /// Votes and watches.
    Witness,
    /// Not heard of since this agent started.
    Unknown,
}

/// One node as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    pub name: NodeId,
    /// What it is there for.
    pub kind: NodeKind,
    /// What it is at this moment.
    pub role: Role,
    /// Its state in a few words, for people.
    pub state: String,
    /// It holds a valid lease, as it says itself.
    pub serving: bool,
    /// Verdict on its MySQL, as code; `None`: none there, or not known.
    pub mysql: Option<String>,
    /// Verdict on its Redis, as code; `None`: none there, or not known.
    pub redis: Option<String>,
    /// How far its MySQL is behind the holder's, in milliseconds, if known.
    pub lag_ms: Option<u64>,
    /// Transactions that it has and the holder lacks, by the newest reports of both, while it does not replicate: it is
    /// not attached because of them. `None`: none, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<String>,
    /// It says itself that it is in quarantine because of such transactions, and whether they are saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
    /// The newest resync of it, while it runs and after it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<ResyncFacts>,
    /// What its Redis lacks of the holder's, and would be lost with the holder, as the holder's newest report says. `None`: there is
    /// no Redis, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_behind: Option<Exposure>,
    /// Whether its MySQL refuses writes, as its agent last saw it; `None` where there is none or it has not been seen.
    /// A closed node's agent keeps clients out in front of a MySQL that does not refuse them yet.
    #[serde(default)]
    pub mysql_read_only: Option<bool>,
    /// Version of its MySQL, as the server calls itself; `None` where there is none or it has not been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql_version: Option<String>,
    /// How long its Redis was not seen to follow before the holder's was last seen to take writes, in milliseconds; `None`: not
    /// longer than a moment, or there is no Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_unfollowed_ms: Option<u64>,
    /// Its ports are open, as it says itself; `None`: no lease opens any there, or it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// Reasons why it could not hold the baton now; empty: it could.
    pub obstacles: Vec<String>,
    /// What it says itself is to be mended there, beside that: a code each, with its evidence after a colon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// Of the holder: the role-bound services that are to run on it, in the order of the configuration. `None`: it is not the
    /// holder, or it is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceRow>>,
    /// Milliseconds since this node last heard from it, 0 for itself; `None`: never.
    pub heard_ms_ago: Option<u64>,
    /// It has been silent for longer than its reports may take.
    pub silent: bool,
    /// Nodes that do not hear it while others do: the network between them is broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard_by: Vec<NodeId>,
    /// Version of its agent; empty when not known.
    pub version: String,
    /// Its configuration has the same values as this node's.
    pub config_matches: bool,
}

/// A role-bound service as its node's agent last saw it. Agents look once a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Its name in the configuration.
    pub name: String,
    /// `healthy`; `starting`: its health is not known yet; `unhealthy`, `stopped`, `missing`; `unknown`: the container engine
    /// did not answer; `not-seen`: the agent has not looked yet. Others may come.
    pub state: String,
}

impl ServiceRow {
    /// Runs, and its health check, if it has one, passes.
    pub const HEALTHY: &'static str = "healthy";
    /// Its health is not known yet.
    pub const STARTING: &'static str = "starting";
    /// The container engine did not answer.
    pub const UNKNOWN: &'static str = "unknown";
    /// The agent has not looked yet.
    pub const NOT_SEEN: &'static str = "not-seen";

    /// Runs, and its health check, if it has one, passes. Nothing else counts as healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state == Self::HEALTHY
    }

    /// Somebody has seen how it is. A word of a newer agent counts as seen.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.state != Self::UNKNOWN && self.state != Self::NOT_SEEN
    }
}

/// Something that an operator should mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Stable code.
    pub code: String,
    /// What is wrong and what to do, in words.
    pub text: String,
}

/// One decision, noted when it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// When, on this node's wall clock.
    pub at: Timestamp,
    /// What was decided, in words.
    pub action: String,
    /// Why, with evidence.
    pub why: Vec<Why>,
}

/// The leader suspected that the holder is lost, and it was not. Kept by the leader that suspected, since its agent started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspicionRow {
    /// When it began, on the leader's wall clock.
    pub at: Timestamp,
    /// Who was suspected.
    pub holder: Option<NodeId>,
    /// How long it lasted, in milliseconds.
    pub lasted_ms: u64,
    /// What was seen when it began.
    pub why: Why,
    /// What ended it.
    pub cleared_by: Why,
}

/// The answer of `GET /v1/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The node that answers.
    pub node: NodeId,
    /// The Raft leader that it knows; decisions on takeovers are the leader's.
    pub leader: Option<NodeId>,
    /// Who holds the baton.
    pub holder: Option<NodeId>,
    /// The newest epoch that this node has applied.
    pub epoch: Epoch,
    /// The closing sentence of the status.
    pub sentence: String,
    /// Recent decisions of this node, newest last.
    pub decisions: Vec<DecisionRow>,
    /// What did not happen: suspicions of this node as a leader that came to nothing, newest last.
    #[serde(default)]
    pub suspicions: Vec<SuspicionRow>,
}

/// The answer of `GET /v1/history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Runs, newest last.
    pub runs: Vec<RunRecord>,
    /// Pauses, newest last; one that is not over included.
    #[serde(default)]
    pub pauses: Vec<PauseRecord>,
    /// Forced recoveries, newest last.
    #[serde(default)]
    pub forced: Vec<ForcedRecord>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its number.
    pub number: RunId,
    /// When the leader proposed it, on the leader's wall clock.
    pub at: Timestamp,
    /// Which runbook.
    pub runbook: String,
    /// The holder that lost the baton, if there was one.
    pub from: Option<NodeId>,
    /// Who got it.
    pub to: NodeId,
    /// The epoch that it began.
    pub epoch: Epoch,
    /// Why, as one stable code, with the holder's own reason after a colon if it gave one.
    pub cause: String,
    /// All reasons, with evidence.
    pub why: Vec<Why>,
    /// How it ended, or where it stands.
    pub result: RunResult,
    /// What failed; `None`: nothing.
    pub failure: Option<String>,
    /// Milliseconds from its start until it ended, or until this view was made.
    pub elapsed_ms: u64,
    /// Milliseconds from its start to each phase that was reached; `decided` is 0. From the wall clocks of the nodes
    /// that carried the steps out.
    pub phases_ms: BTreeMap<String, u64>,
    /// How many milliseconds before its start the leader began to suspect that the holder is lost; `None`: it did not.
    pub detected_ms_before: Option<u64>,
    /// For each node that spoke when it was decided: milliseconds since it had last heard from the holder, `None`: never.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holder_heard_ms_before: BTreeMap<NodeId, Option<u64>>,
    /// Who has carried out its steps, each node once, in the order in which they began; from the journal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<NodeId>,
    /// What acknowledged writes may be lost by it, as the leader knew it, and an operator had accepted; `None`: no loss was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_accepted: Option<String>,
    /// Its steps, in the order of the plan.
    pub steps: Vec<StepRecord>,
}

/// How a run ended, or where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunResult {
    /// Steps remain.
    Running,
    /// It failed before the point of no return and takes back what it did.
    Undoing,
    /// Every step succeeded.
    Completed,
    /// The baton was passed, but a later step failed or was skipped.
    Degraded,
    /// Everything was taken back. After a takeover nobody holds the baton; after a switchover the old holder serves.
    RolledBack,
    /// Ended before the point of no return because its actor stayed away, or acknowledged by an operator.
    Abandoned,
    /// It stopped, and both databases are closed to writes.
    NeedsOperator,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Begun, no outcome.
    Acting,
    /// Succeeded.
    Done,
    /// The last attempt failed.
    Failed,
    /// The leader went on without it.
    Skipped,
    /// Being undone.
    Undoing,
    /// Undone.
    Undone,
    /// Its undo failed.
    Stuck,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its name.
    pub step: String,
    /// Who carries it out.
    pub actor: NodeId,
    /// Where it stands.
    pub state: StepState,
    /// Attempts so far.
    pub attempts: u32,
    /// Milliseconds from the run's start to its first attempt.
    pub started_ms: Option<u64>,
    /// Milliseconds from its first attempt to its newest entry, or to the making of this view while it is being
    /// carried out.
    pub took_ms: Option<u64>,
    /// Time limit of one attempt, in milliseconds.
    pub limit_ms: u64,
    /// What the actor learned.
    pub facts: BTreeMap<String, String>,
    /// Newest failure or reason, if any.
    pub note: Option<String>,
}

/// Body of `POST /v1/run/{id}/ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckRequest {
    /// Name of the operator, for the history. The agent adds the user id that the kernel reports.
    pub by: String,
    /// The epoch that the operator saw. A command from an older one is refused.
    pub expected_epoch: Epoch,
}

/// Body of `POST /v1/switchover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverRequest {
    /// Who gets the baton; `None`: the other data node.
    pub to: Option<NodeId>,
    /// Name of the operator, for the history. The agent adds the user id that the kernel reports.
    pub by: String,
    /// How long clients' transactions under way may go on, in milliseconds.
    pub drain_patience_ms: u64,
    /// The plan that the operator saw: it is proposed as it is, or refused. `None`: only look, and answer with a plan.
    pub plan: Option<Box<Plan>>,
    /// The drill that wants it: the agents that are asked, lose the baton and get it each hold to their own `[drill]`.
    /// `None`: an operator does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillId>,
}

/// Answer of `POST /v1/switchover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverAnswer {
    /// Everything that was looked at, and the plan.
    pub preflight: Preflight,
    /// The run that was started; `None`: none was asked for.
    pub run: Option<RunId>,
}

/// Body of `POST /v1/takeover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverRequest {
    /// Who takes over; `None`: the data node that does not hold the baton.
    pub to: Option<NodeId>,
    /// Name of the operator, for the history. The agent adds the user id that the kernel reports.
    pub by: String,
    /// Writes of the last so many milliseconds may be lost; `None`: any.
    pub at_most_ms: Option<u64>,
    /// What the operator saw. `None`: only look.
    pub acceptance: Option<Acceptance>,
}

/// Answer of `POST /v1/takeover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverAnswer {
    /// Everything that was looked at.
    pub preflight: LossPreflight,
    /// The number that the run will have when the leader starts it; `None`: nothing was accepted.
    pub run: Option<RunId>,
}

/// Body of `POST /v1/takeover/withdraw`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawRequest {
    /// The generation that the acceptance began.
    pub generation: SyncGeneration,
    /// For which node a loss was accepted.
    pub node: NodeId,
    /// Name of the operator, for the history.
    pub by: String,
}

/// Body of `POST /v1/run/{id}/abort`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortRequest {
    /// Name of the operator, for the history. The agent adds the user id that the kernel reports.
    pub by: String,
}

/// Answer to a command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What was done, in one sentence.
    pub done: String,
}

/// Stable codes of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// There is no such run or page.
    NotFound,
    /// The request cannot be read.
    BadRequest,
    /// A safety gate, or the ledger, refused; nothing was changed.
    Refused,
    /// There is no leader or no majority.
    NoQuorum,
    /// The time was up; the command may still take effect.
    TimedOut,
    /// Too many commands wait.
    Busy,
    /// The agent is stopping.
    Stopping,
}

/// Body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable code.
    pub code: ErrorCode,
    /// What was refused and why.
    pub message: String,
    /// What to do.
    pub way_out: String,
}
