//! What readers see: the driver publishes a view, the API serves it.

mod mend;
mod services;

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_runbooks::agent::Agent;
use baton_runbooks::decide::Decision;
use baton_runbooks::decide::local;
use baton_runbooks::exposure::Exposure;
use baton_runbooks::ledger::Complete;
use baton_runbooks::model::{Mono, NodeId, NodeKind};
use baton_runbooks::observe::{MysqlFacts, NodeReport, ResyncPhase};
use tokio::sync::{mpsc, watch};

use super::{Context, clock, own};
use crate::api::alarm::AlarmCode;
use crate::api::ending;
use crate::api::force::ForcedRecord;
use crate::api::pause::PauseRecord;
use crate::api::server::{self, Operator};
use crate::api::types::{Alarm, DecisionRow, Lease, NodeRow, Role, RunRecord, RunResult, Status, Sync, View};
use crate::api::view;
use crate::hands::mysql::gtid;

/// A view is made at most this often; readers poll.
const PERIOD: Duration = Duration::from_millis(200);

/// Publishes views.
pub(super) struct Publisher {
    view: watch::Sender<Arc<View>>,
    decisions: Vec<DecisionRow>,
    made_at: Instant,
    wish: Option<local::Wish>,
    history: Arc<Vec<RunRecord>>,
    pauses: Arc<Vec<PauseRecord>>,
    forced: Arc<Vec<ForcedRecord>>,
}

impl Publisher {
    /// Serves the API on the configured socket.
    pub(super) async fn start(context: &Context) -> anyhow::Result<(Self, mpsc::Receiver<Operator>)> {
        let listener = server::bind(&context.config.socket()).await?;
        let status = empty_status(context);
        let empty = View {
            status,
            decisions: Vec::new(),
            suspicions: Vec::new(),
            history: Arc::default(),
            pauses: Arc::default(),
            forced: Arc::default(),
        };
        let (view, readers) = watch::channel(Arc::new(empty));
        let (operator, commands) = mpsc::channel(server::COMMANDS_MAX);
        tokio::spawn(async move {
            if let Err(error) = server::serve(listener, readers, operator, std::future::pending()).await {
                tracing::error!(%error, "the local API has ended");
            }
        });
        let made_at = Instant::now();
        let (history, pauses, forced) = (Arc::default(), Arc::default(), Arc::default());
        Ok((Self { view, decisions: Vec::new(), made_at, wish: None, history, pauses, forced }, commands))
    }

    /// Notes a decision of the leader.
    pub(super) fn note(&mut self, decision: &Decision) {
        view::note_decision(&mut self.decisions, view::decision_row(decision, clock::wall()));
        self.made_at = self.made_at.checked_sub(PERIOD).unwrap_or(self.made_at);
    }

    /// Publishes a view unless the last one is fresh.
    pub(super) fn publish(&mut self, core: &Agent, context: &Context) {
        if self.wish.as_ref() != core.wish() {
            self.wish = core.wish().cloned();
            if let Some(wish) = &self.wish {
                view::note_decision(&mut self.decisions, view::wish_row(wish, clock::wall()));
            }
        } else if self.made_at.elapsed() < PERIOD {
            return;
        }
        self.made_at = Instant::now();
        let now = clock::wall();
        let ledger = core.ledger();
        // Ended runs do not change any more.
        let ended = self.history.last().map(|run| run.number) == ledger.newest_run().map(|(run, _)| run.id)
            && self.history.iter().all(|run| match run.result {
                RunResult::Running | RunResult::Undoing | RunResult::NeedsOperator => false,
                RunResult::Completed | RunResult::Degraded | RunResult::RolledBack | RunResult::Abandoned => {
                    true
                }
            });
        if ledger.run.is_some() || !ended {
            self.history = Arc::new(view::history(ledger, now));
        }
        if ledger.pause.is_some() || self.pauses.len() != ledger.pause_history.len() || self.has_open_pause()
        {
            self.pauses = Arc::new(view::paused::history(ledger));
        }
        if self.forced.len() != ledger.forced.len() {
            self.forced = Arc::new(view::forced::history(ledger));
        }
        let (history, pauses) = (Arc::clone(&self.history), Arc::clone(&self.pauses));
        let suspicions = core.suspicions().map(view::suspicion_row).collect();
        let (decisions, forced) = (self.decisions.clone(), Arc::clone(&self.forced));
        let status = view::conclude(status(core, context));
        self.view.send_replace(Arc::new(View { status, decisions, suspicions, history, pauses, forced }));
    }

    fn has_open_pause(&self) -> bool {
        self.pauses.last().is_some_and(|pause| pause.ended_at.is_none())
    }
}

fn empty_status(context: &Context) -> Status {
    let config = &context.config;
    Status {
        at: view::timestamp(clock::wall()),
        node: config.node.clone(),
        cluster: config.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: baton_runbooks::model::Generation(0),
        epoch: baton_runbooks::model::Epoch(0),
        holder: None,
        leader: None,
        term: baton_runbooks::model::Term(0),
        sync: Sync::NotApplicable,
        lease: Lease {
            valid_ms: None,
            length_ms: config.timing.lease.as_ms(),
            renewed_ms_ago: None,
            repairs: 0,
        },
        nodes: Vec::new(),
        run: None,
        paused: None,
        alarms: Vec::new(),
        ok: false,
        sentence: "NOT OK: the agent has just started.".to_owned(),
    }
}

fn status(core: &Agent, context: &Context) -> Status {
    let ledger = core.ledger();
    let standing = context.consensus.standing().borrow().clone();
    let mut alarms = alarms(core);
    alarms.extend(forced_alarm(core, context));
    alarms.extend(mend::vip_taken(ledger));
    alarms.extend(context.hands.looks.contests().iter().map(mend::contested));
    let services = context.hands.services.as_ref();
    alarms.extend(services.and_then(|services| mend::restarting(&services.restarting())));
    let ends = context.tls.ends();
    alarms.extend(ends.into_iter().flat_map(|ends| {
        ending::alarms(context.config.node.as_str(), ends.own, ends.authority, clock::wall())
    }));
    if let Some(problem) = &standing.problem {
        let code = match (standing.outranked, standing.newer_log) {
            (true, _) => AlarmCode::Outranked,
            (false, true) => AlarmCode::NewerLog,
            (false, false) => AlarmCode::NotVoting,
        };
        alarms.insert(0, code.alarm(problem));
    }
    Status {
        generation: ledger.generation,
        epoch: ledger.epoch,
        holder: ledger.holder.clone(),
        leader: standing.leader,
        term: standing.term,
        sync: sync(core),
        lease: lease(context),
        nodes: context.config.nodes.iter().map(|node| row(core, context, &node.name, node.kind)).collect(),
        run: ledger.run.as_ref().map(|run| view::run_record(run, clock::wall())),
        paused: view::paused::row(ledger, core.reports(), context.clock.now(), report_max_ms(context)),
        alarms,
        ..empty_status(context)
    }
}

/// Loud until everybody who was given up is back.
fn forced_alarm(core: &Agent, context: &Context) -> Option<Alarm> {
    let (ledger, now) = (core.ledger(), context.clock.now());
    let heard = |node: &NodeId| {
        let fresh = core.reports().get(node).filter(|heard| now.since_ms(heard.at) <= report_max_ms(context));
        fresh.map(|heard| (heard.report.generation, heard.report.founder.as_str()))
    };
    let is_back = |node: &NodeId| {
        let same = |founder: &str| founder.is_empty() || founder == ledger.founder();
        heard(node).is_some_and(|(generation, founder)| generation == ledger.generation && same(founder))
    };
    let is_old = |node: &NodeId| heard(node).is_some_and(|(generation, _)| generation < ledger.generation);
    view::forced::alarm(ledger, is_back, is_old)
}

/// What keeps this node from what it should be.
fn alarms(core: &Agent) -> Vec<Alarm> {
    let Some(wish) = core.wish() else { return Vec::new() };
    own::unusual(wish).map(|why| Alarm { code: why.code().to_owned(), text: why.to_string() }).collect()
}

fn sync(core: &Agent) -> Sync {
    let ledger = core.ledger();
    if !ledger.mysql {
        return Sync::NotApplicable;
    }
    let replica = ledger.in_sync.iter().find_map(|(node, complete)| match complete {
        Complete::Replica { .. } => Some(node.clone()),
        Complete::Holder | Complete::Accepted { .. } => None,
    });
    match replica {
        Some(replica) => Sync::InSync { replica },
        None => {
            let reason = ledger.sync_history.last().map(|change| change.reason.clone());
            Sync::OutOfSync { reason: reason.unwrap_or_else(|| "no replica has been in sync yet".to_owned()) }
        }
    }
}

fn lease(context: &Context) -> Lease {
    let view = context.lease.view();
    let (facts, repairs) = {
        let view = view.borrow();
        (view.facts.clone(), view.repairs)
    };
    let now = context.clock.now();
    Lease {
        repairs,
        valid_ms: facts.held.map(|(_, until)| until.since_ms(now)),
        length_ms: context.config.timing.lease.as_ms(),
        renewed_ms_ago: facts.granted_at.map(|at| now.since_ms(at)),
    }
}

/// A node whose last report is older is silent, milliseconds.
fn report_max_ms(context: &Context) -> u64 {
    (4 * context.config.timing.report.as_ms()).max(context.config.timing.lease.as_ms())
}

fn row(core: &Agent, context: &Context, node: &NodeId, kind: NodeKind) -> NodeRow {
    let heard = core.reports().get(node);
    let report = heard.map(|heard| heard.report.as_ref());
    let now = context.clock.now();
    let heard_ms_ago = heard.map(|heard| now.since_ms(heard.at));
    let silent = heard_ms_ago.is_none_or(|ms| ms > report_max_ms(context));
    let role = role(core, node, kind, report);
    NodeRow {
        name: node.clone(),
        kind,
        role,
        state: describe(role, report, silent),
        serving: report.is_some_and(|report| report.serving) && !silent,
        mysql: verdict(report, kind, |report| &report.mysql_verdict, context.config.mysql.is_some()),
        redis: verdict(report, kind, |report| &report.redis_verdict, context.config.redis.is_some()),
        lag_ms: lag_ms(core, node),
        extra: if role == Role::Closed { extra(core, node) } else { None },
        quarantine: report.filter(|_| role == Role::Closed).and_then(|report| report.quarantine.clone()),
        resync: report.and_then(|report| report.resync.clone()),
        redis_behind: redis_behind(core, node),
        mysql_read_only: mysql(report).map(|facts| facts.read_only),
        redis_unfollowed_ms: core.redis_unfollowed_ms(node),
        open: report.and_then(|report| report.open),
        alarms: report.map(|report| report.alarms.clone()).unwrap_or_default(),
        mysql_version: mysql(report).map(|facts| facts.version.clone()),
        obstacles: report.map(|report| report.obstacles.clone()).unwrap_or_default(),
        services: services::rows(
            role,
            &context.config.services,
            report.filter(|_| !silent).map(|report| &report.services),
        ),
        heard_ms_ago,
        silent,
        unheard_by: unheard_by(core, node, now),
        version: report.map(|report| report.version.clone()).unwrap_or_default(),
        config_matches: report.is_none_or(|report| report.config_hash == context.config.hash),
    }
}

/// Only where others hear it: a node that nobody hears is silent.
fn unheard_by(core: &Agent, node: &NodeId, now: Mono) -> Vec<NodeId> {
    let sight = core.sight(node, now);
    if sight.is_divided() { sight.unheard_by.into_keys().collect() } else { Vec::new() }
}

fn verdict(
    report: Option<&NodeReport>,
    kind: NodeKind,
    of: impl Fn(&NodeReport) -> &str,
    configured: bool,
) -> Option<String> {
    report.filter(|_| configured && kind == NodeKind::Data).map(|report| of(report).to_owned())
}

fn mysql(report: Option<&NodeReport>) -> Option<&MysqlFacts> {
    report.and_then(|report| report.mysql.as_deref())
}

fn role(core: &Agent, node: &NodeId, kind: NodeKind, report: Option<&NodeReport>) -> Role {
    let follows = mysql(report).and_then(|facts| facts.replication.as_ref()).is_some_and(|r| r.sql_running);
    match kind {
        NodeKind::Witness => Role::Witness,
        NodeKind::Data if core.ledger().holder.as_ref() == Some(node) => Role::Holder,
        NodeKind::Data if report.is_none() => Role::Unknown,
        NodeKind::Data if follows || !core.ledger().mysql => Role::Replica,
        NodeKind::Data => Role::Closed,
    }
}

fn describe(role: Role, report: Option<&NodeReport>, silent: bool) -> String {
    let Some(report) = report else { return "not heard yet".to_owned() };
    if silent {
        return "silent".to_owned();
    }
    match role {
        Role::Holder if report.serving && report.open == Some(false) => {
            "holds the lease, its ports are closed".to_owned()
        }
        Role::Holder if report.serving => "serves".to_owned(),
        Role::Holder => "holds the baton, does not serve".to_owned(),
        Role::Replica => match mysql(Some(report)).and_then(|facts| facts.replication.as_ref()) {
            Some(broken) if !broken.io_running && broken.io_errno != 0 => {
                format!("does not receive: error {}", broken.io_errno)
            }
            Some(_) | None => "follows".to_owned(),
        },
        Role::Closed if report.resync.as_ref().is_some_and(|resync| resync.phase < ResyncPhase::Done) => {
            "is being resynced".to_owned()
        }
        Role::Closed if report.quarantine.is_some() => "in quarantine".to_owned(),
        Role::Closed if mysql(Some(report)).is_some_and(|facts| !facts.read_only) => {
            "closed; its MySQL is not read-only yet".to_owned()
        }
        Role::Closed => "closed and read-only".to_owned(),
        Role::Witness => "watches".to_owned(),
        Role::Unknown => "unknown".to_owned(),
    }
}

/// Canaries are written once a second, so the difference of their numbers is the lag in seconds, rounded up.
fn lag_ms(core: &Agent, node: &NodeId) -> Option<u64> {
    let holder = core.ledger().holder.as_ref().filter(|holder| *holder != node)?;
    let written = mysql(core.reports().get(holder).map(|heard| heard.report.as_ref()))?.canary_applied;
    let applied = mysql(core.reports().get(node).map(|heard| heard.report.as_ref()))?.canary_applied;
    // One canary may be on its way between the two reports.
    Some(written.saturating_sub(applied).saturating_sub(1) * 1_000)
}

/// What keeps a closed node from being attached. It does not replicate, so its set does not grow, and a holder's report
/// that is older only shows too much until the next one.
fn extra(core: &Agent, node: &NodeId) -> Option<String> {
    let holder = core.ledger().holder.as_ref().filter(|holder| *holder != node)?;
    let mine = mysql(core.reports().get(node).map(|heard| heard.report.as_ref()))?;
    let theirs = mysql(core.reports().get(holder).map(|heard| heard.report.as_ref()))?;
    let extra = gtid::extra(mine.flavour, &mine.executed, &theirs.executed).ok()?;
    (!extra.is_empty()).then_some(extra)
}

/// What the holder says that this node's Redis does not have. It stands also when the holder has fallen silent: that is lost with it.
fn redis_behind(core: &Agent, node: &NodeId) -> Option<Exposure> {
    let holder = core.ledger().holder.as_ref().filter(|holder| *holder != node)?;
    let is_data = core.ledger().members.get(node) == Some(&NodeKind::Data);
    core.reports().get(holder).filter(|_| is_data)?.report.redis_exposure
}
