//! Records for tests: one of a drill that passed, made by hand, from which others are changed.

use std::collections::BTreeMap;

use super::{
    Bucket, ClientRecord, Ending, Event, FaultRecord, Gap, GateCheck, Harness, InvariantRecord, Judgement,
    NodeRecord, PhaseRecord, ProbeRecord, Reconnecting, Record, Who,
};
use crate::check::Reign;
use crate::experiment::{Fault, Heal, Mode, Phase, Probe, Role, shipped};
use crate::history::{Kind, Lateness};
use crate::verdict::{Verdict, judge};

fn node(name: &str, role: Role) -> NodeRecord {
    let mut versions = BTreeMap::from([
        ("baton".to_owned(), "0.1.0".to_owned()),
        ("kernel".to_owned(), "6.1.0-18-amd64".to_owned()),
    ]);
    if role != Role::Witness {
        versions.insert("mysql".to_owned(), "10.11.6-MariaDB".to_owned());
    }
    NodeRecord { name: name.into(), role, versions, config: Some("same".into()) }
}

fn client(kind: Kind, down_from: usize, down_to: usize) -> ClientRecord {
    let buckets = (0..60).map(|index| match index {
        _ if (down_from..down_to).contains(&index) => Bucket { acknowledged: 0, failed: 10, slowest_ms: 0 },
        _ if index == down_to => Bucket { acknowledged: 9, failed: 1, slowest_ms: 80 },
        _ => Bucket { acknowledged: 10, failed: 0, slowest_ms: 3 },
    });
    let buckets: Vec<Bucket> = buckets.collect();
    let (from_ms, to_ms) = (down_from as u64 * 100 - 6, down_to as u64 * 100 + 24);
    let acknowledged = buckets.iter().map(|bucket| u64::from(bucket.acknowledged)).sum();
    ClientRecord {
        kind,
        attempted: 600,
        acknowledged,
        unread: false,
        lost: 0,
        duplicated: 0,
        resurrected: 0,
        interleaved: 0,
        outage_ms: to_ms - from_ms,
        restored: true,
        reconnecting: Some(Reconnecting {
            attempted: 120,
            connected: 111,
            read: 110,
            connect_gap_ms: to_ms - from_ms + 41,
            read_gap_ms: to_ms - from_ms + 92,
        }),
        sustained_ms: Some(to_ms - 1_000),
        gaps: vec![Gap { from_ms, to_ms }],
        buckets,
    }
}

fn phase(phase: Phase, from_ms: u64, to_ms: u64, budget_ms: u64) -> PhaseRecord {
    PhaseRecord { run: 7, phase, from_ms, to_ms, budget_ms, source: "ledger".into() }
}

fn probe(name: &str, probe: Probe, mode: Mode, value: f64, tolerance: &str) -> ProbeRecord {
    ProbeRecord {
        name: name.into(),
        probe,
        mode,
        value: Some(value),
        tolerance: tolerance.into(),
        held: Some(true),
    }
}

fn events() -> Vec<Event> {
    let event = |at_ms, source: &str, what: &str| Event { at_ms, source: source.into(), what: what.into() };
    vec![
        event(1_010, "db1", "mysqld-kill: the process is gone"),
        event(1_110, "ledger", "run 7: takeover from db1 to db2, epoch 42"),
        event(1_700, "ledger", "run 7 completed"),
        event(31_000, "runner", "nothing is left of mysqld-kill"),
    ]
}

fn fault() -> FaultRecord {
    FaultRecord {
        method: 0,
        fault: Fault::MysqldKill,
        node: "db1".into(),
        role: Role::Holder,
        heal: Heal::Supervisor,
        duration_ms: 30_000,
        armed_ms: Some(980),
        armed_verified_ms: Some(985),
        injected_ms: Some(1_000),
        verified_ms: Some(1_010),
        effect: "process 4711 is gone".into(),
        healed_ms: Some(3_000),
        heal_verified_ms: Some(31_000),
        stood_ms: None,
    }
}

/// A drill that passed: the holder's database server was killed, and the baton moved.
pub fn passed() -> Record {
    let reign = |mac: &str, first_probe: u64, last_probe: u64| Reign {
        mac: mac.into(),
        first_probe,
        last_probe,
        from_us: first_probe * 10_000,
        to_us: last_probe * 10_000,
    };
    let invariant = |code: &str, says: &str, seen: &str| InvariantRecord {
        code: code.into(),
        says: says.into(),
        held: Some(true),
        seen: seen.into(),
    };
    let mut record = Record {
        version: 1,
        number: 1,
        previous: "0".repeat(64),
        experiment: shipped::named("mysqld-killed").unwrap().reference(),
        who: Who {
            operator: "ANNA".into(),
            approver: Some("BERT".into()),
            host: "wit".into(),
            reason: Some("monthly drill <1>".into()),
            version: "0.1.0".into(),
        },
        started: "2026-11-27T20:01:02Z".parse().unwrap(),
        ended: "2026-11-27T20:02:40Z".parse().unwrap(),
        nodes: vec![node("db1", Role::Holder), node("db2", Role::Backup), node("wit", Role::Witness)],
        gate: vec![
            GateCheck { code: "quorum".into(), passed: true, seen: "3 of 3 agents are heard".into() },
            GateCheck { code: "ready".into(), passed: true, seen: "db2 can take over now".into() },
        ],
        ending: Ending::Completed {},
        drill: 0,
        faults: vec![fault()],
        timeline: vec![
            phase(Phase::Detect, 1_010, 1_110, 3_000),
            phase(Phase::Vip, 1_110, 1_240, 5_000),
            phase(Phase::Activate, 1_110, 1_600, 20_000),
            phase(Phase::Validate, 1_600, 1_700, 2_000),
        ],
        events: events(),
        clients: vec![client(Kind::Mysql, 10, 14), client(Kind::Redis, 11, 14)],
        two_holders_ms: 0,
        reigns: vec![reign("02:00:00:00:00:01", 0, 104), reign("02:00:00:00:00:02", 124, 600)],
        holder_changes: 1,
        probes: vec![
            probe("every agent is heard", Probe::Agents, Mode::Before, 3.0, ">= 3"),
            probe("one machine has the virtual IP", Probe::VipOwners, Mode::Continuous, 1.0, "<= 1"),
            probe("the holder changes once", Probe::HolderChanges, Mode::After, 1.0, "1 to 1"),
        ],
        invariants: vec![
            invariant(
                "one-holder",
                "one machine answers for the virtual IP",
                "600 requests, 0 with two answers",
            ),
            invariant("epoch-grows", "the epoch only grows", "41, 42"),
        ],
        harness: Harness { lateness: Lateness { p99_us: 400, max_us: 2_100 }, overflowed: 0 },
        redundancy_ms: Some(4_200),
        judgement: Judgement { verdict: Verdict::Pass, reasons: Vec::new() },
    };
    record.judgement = judge(&record);
    record
}
