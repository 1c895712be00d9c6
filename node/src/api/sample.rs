//! Samples for tests: a healthy cluster, a run under way, and an ended run made from a real journal.

use std::sync::Arc;

use baton_runbooks::exposure::Exposure;
use baton_runbooks::ledger::{EndedRun, Ledger};
use baton_runbooks::model::{Epoch, Instance, NodeId, NodeKind, RunId, SyncGeneration, Term, WallMs};
use baton_runbooks::plan::{Basis, Plan, Runbook, Step};
use baton_runbooks::run::table::Scope;
use baton_runbooks::run::takeover;
use baton_runbooks::run::{Entry, Event, Run};
use baton_runbooks::why::Why;

use super::types::{DecisionRow, Explain, Lease, NodeRow, Role, RunRecord, Status, SuspicionRow, Sync, View};
use super::view;

/// 2026-11-22 21:40:00 UTC.
pub(crate) const START: WallMs = WallMs(1_795_383_600_000);

fn row(name: &str, kind: NodeKind, role: Role, state: &str, heard: u64) -> NodeRow {
    let data = || (kind == NodeKind::Data).then(|| "ok".to_owned());
    NodeRow {
        name: name.into(),
        kind,
        role,
        state: state.to_owned(),
        serving: role == Role::Holder,
        mysql: data(),
        redis: data(),
        lag_ms: (role == Role::Replica).then_some(100),
        extra: None,
        quarantine: None,
        resync: None,
        redis_behind: (role == Role::Replica).then_some(Exposure { bytes: 0, ms: 0 }),
        mysql_read_only: None,
        redis_unfollowed_ms: None,
        open: None,
        alarms: Vec::new(),
        mysql_version: None,
        obstacles: Vec::new(),
        services: None,
        heard_ms_ago: Some(heard),
        silent: false,
        version: "0.1.0".to_owned(),
        unheard_by: Vec::new(),
        config_matches: true,
    }
}

/// Everything in order, not yet concluded.
pub(crate) fn facts() -> Status {
    Status {
        at: view::timestamp(START),
        node: "db1".into(),
        cluster: "shop".to_owned(),
        version: "0.1.0".to_owned(),
        generation: Default::default(),
        epoch: Epoch(2),
        holder: Some("db1".into()),
        leader: Some("mon".into()),
        term: Term(3),
        sync: Sync::InSync { replica: "db2".into() },
        lease: Lease { valid_ms: Some(1_120), length_ms: 1_200, renewed_ms_ago: Some(80), repairs: 0 },
        nodes: vec![
            row("db1", NodeKind::Data, Role::Holder, "serving", 0),
            row("db2", NodeKind::Data, Role::Replica, "replicates", 87),
            row("mon", NodeKind::Witness, Role::Witness, "leads, votes, watches", 41),
        ],
        run: None,
        paused: None,
        alarms: Vec::new(),
        ok: false,
        sentence: String::new(),
    }
}

pub(crate) fn healthy() -> Status {
    view::conclude(facts())
}

/// A takeover from db1 to db2 of epoch 3 with every kind of service.
pub(crate) fn takeover() -> Run {
    let target: NodeId = "db2".into();
    let witness: NodeId = "mon".into();
    let scope = Scope { mysql: true, independent_services: false, services: true };
    let plan = Plan {
        runbook: Runbook::Takeover,
        version: takeover::VERSION,
        epoch: Epoch(3),
        from: Some("db1".into()),
        to: target.clone(),
        basis: Basis {
            epoch: Epoch(2),
            sync: SyncGeneration(4),
            target_instance: Some(Instance {
                boot: "5f0c".to_owned(),
                server: "812@9000".to_owned(),
                threads: "7/8".to_owned(),
            }),
        },
        why: vec![
            Why::Candidate { node: target.clone() },
            Why::HolderReleased { epoch: Epoch(2), because: "mysql-dead".to_owned() },
        ],
        detected_ms_ago: Some(40),
        holder_heard_ms: [("db2".into(), Some(60)), ("mon".into(), None)].into(),
        asked_by: None,
        drain_patience_ms: 0,
        steps: takeover::steps(&target, Some(&witness), scope),
    };
    Run::new(RunId(7), plan, START)
}

/// Adds an entry `ms` after the run's start.
pub(crate) fn note(run: &mut Run, step: Step, ms: u64, event: Event) {
    let by = run.plan.step(step).unwrap().actor.clone();
    run.record(Entry { step, attempt: 1, event, by, at: WallMs(START.0 + ms) }).unwrap();
}

pub(crate) fn succeed(run: &mut Run, step: Step, from: u64, to: u64) {
    note(run, step, from, Event::Started);
    let facts = vec![("seen".to_owned(), format!("after {} ms", to - from))];
    note(run, step, to, Event::Succeeded { facts });
}

/// The ledger after a takeover that ended well.
pub(crate) fn ledger() -> Ledger {
    let mut run = takeover();
    succeed(&mut run, Step::FenceOld, 4, 12);
    succeed(&mut run, Step::CutStream, 14, 30);
    succeed(&mut run, Step::HoldVip, 14, 55);
    succeed(&mut run, Step::DrainRelayLog, 31, 90);
    succeed(&mut run, Step::PromoteMysql, 92, 140);
    succeed(&mut run, Step::OpenPorts, 142, 160);
    succeed(&mut run, Step::StartServices, 161, 900);
    succeed(&mut run, Step::Validate, 901, 1_010);
    let state = run.state();
    Ledger { history: vec![EndedRun { run: run.into(), state }], runs: RunId(7), ..Ledger::default() }
}

pub(crate) fn ended_run() -> RunRecord {
    view::history(&ledger(), START).remove(0)
}

/// A takeover that drains.
pub(crate) fn under_way() -> Status {
    let mut run = takeover();
    succeed(&mut run, Step::FenceOld, 4, 12);
    succeed(&mut run, Step::CutStream, 14, 30);
    note(&mut run, Step::HoldVip, 14, Event::Started);
    note(&mut run, Step::DrainRelayLog, 31, Event::Started);
    let record = view::run_record(&run, WallMs(START.0 + 1_200));
    view::conclude(Status { run: Some(record), holder: Some("db2".into()), epoch: Epoch(3), ..facts() })
}

pub(crate) fn decisions() -> Vec<DecisionRow> {
    vec![DecisionRow {
        at: view::timestamp(START),
        action: "hold".to_owned(),
        why: vec![Why::HolderHealthy { holder: "db1".into(), granted_ms_ago: 40 }],
    }]
}

pub(crate) fn explain() -> Explain {
    let status = healthy();
    Explain {
        node: status.node,
        leader: status.leader,
        holder: status.holder,
        epoch: status.epoch,
        sentence: status.sentence,
        decisions: decisions(),
        suspicions: vec![suspicion()],
    }
}

fn suspicion() -> SuspicionRow {
    SuspicionRow {
        at: view::timestamp(START),
        holder: Some("db1".into()),
        lasted_ms: 600,
        why: Why::LeaseNotEnded { epoch: Epoch(2), left_ms: 700 },
        cleared_by: Why::HolderHealthy { holder: "db1".into(), granted_ms_ago: 20 },
    }
}

pub(crate) fn view() -> View {
    View {
        status: healthy(),
        decisions: decisions(),
        suspicions: vec![suspicion()],
        history: Arc::new(view::history(&ledger(), START)),
        pauses: Arc::default(),
        forced: Arc::default(),
    }
}
