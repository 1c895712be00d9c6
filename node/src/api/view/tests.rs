//! Unit tests of what readers are told.

use baton_runbooks::model::{RunId, WallMs};
use baton_runbooks::observe::{ExportFacts, Quarantine, ResyncFacts, ResyncPhase};
use baton_runbooks::plan::Step;
use baton_runbooks::run::{Event, Run};

use super::*;
use crate::api::sample;
use crate::api::types::Alarm;

/// Concludes the sample after `change`.
fn after(change: impl FnOnce(&mut Status)) -> Status {
    let mut status = sample::facts();
    change(&mut status);
    conclude(status)
}

fn silence_node(status: &mut Status, name: &str, heard: Option<u64>) {
    let row = status.nodes.iter_mut().find(|row| row.name.as_str() == name).unwrap();
    row.silent = true;
    row.heard_ms_ago = heard;
}

#[test]
fn healthy_cluster_can_lose_one_node() {
    let status = sample::healthy();
    assert!(status.ok);
    assert_eq!(status.sentence, "OK: db2 can take over now (lag 0.1 s). Tolerates one failure.");
}

#[test]
fn unknown_lag_is_not_invented() {
    let status = after(|s| s.nodes[1].lag_ms = None);
    assert_eq!(status.sentence, "OK: db2 can take over now. Tolerates one failure.");
}

#[test]
fn not_in_sync() {
    let status = after(|s| s.sync = Sync::OutOfSync { reason: "no acknowledgement for 1400 ms".to_owned() });
    assert!(!status.ok);
    assert_eq!(
        status.sentence,
        "NOT OK: db2 could not take over now, since it may lack acknowledged writes: no acknowledgement for 1400 ms. It \
         is in sync again once it has caught up."
    );
}

fn quarantine(export: Option<ExportFacts>, problem: Option<&str>) -> Status {
    after(|s| {
        let extra = "0-11-40..43".to_owned();
        s.nodes[1].role = Role::Closed;
        s.nodes[1].quarantine =
            Some(Quarantine { extra, transactions: 4, export, problem: problem.map(str::to_owned) });
    })
}

#[test]
fn a_node_in_quarantine_says_what_it_has_and_the_way_out() {
    let file = "/var/lib/baton/quarantine/extra-1.sql".to_owned();
    let status =
        quarantine(Some(ExportFacts { file, transactions: 4, rows: 6, tables: 2, statements: 0 }), None);
    assert!(!status.ok);
    assert_eq!(
        status.sentence,
        "NOT OK: db2 could not take over, it is in quarantine: it has 4 transactions that db1 lacks (0-11-40..43). They \
         are saved in /var/lib/baton/quarantine/extra-1.sql on db2 (6 rows in 2 tables, 0 statements). Look at them, then \
         `baton resync db2` replaces its database by a copy of db1."
    );
    let failed = quarantine(None, Some("no space left on device"));
    assert!(failed.sentence.contains("could not be saved: no space left on device. Mend that"));
    assert!(quarantine(None, None).sentence.ends_with("Its agent is saving them."));
}

fn resync(phase: ResyncPhase, note: Option<&str>) -> Status {
    after(|s| {
        s.nodes[1].role = Role::Closed;
        s.nodes[1].resync = Some(ResyncFacts {
            number: 1,
            from: "db1".into(),
            phase,
            bytes: 300 << 20,
            bytes_expected: 650 << 20,
            took_ms: 4_230,
            note: note.map(str::to_owned),
        });
    })
}

#[test]
fn quarantine_of_what_the_binary_log_has_not_leads_out() {
    let file = "/var/lib/baton/quarantine/extra.sql".to_owned();
    let none = ExportFacts { file, transactions: 0, rows: 0, tables: 0, statements: 0 };
    let status = quarantine(Some(none), None);
    assert!(status.sentence.contains("Its binary log has none of them"), "{}", status.sentence);
    assert!(status.sentence.contains("`baton resync db2` replaces its database"), "{}", status.sentence);
    assert!(status.sentence.ends_with("keeps the old data beside it."), "{}", status.sentence);
}

#[test]
fn a_node_under_resync_says_how_far_it_is_or_what_to_repeat() {
    assert_eq!(
        resync(ResyncPhase::Copying, None).sentence,
        "NOT OK: db2 could not take over: its database is being replaced by a copy of db1, 300 of about 650 MiB have \
         come, 4.2 s so far."
    );
    assert_eq!(
        resync(ResyncPhase::Stuck, Some("mysql.start failed")).sentence,
        "NOT OK: db2 could not take over: its resync stopped: mysql.start failed. It stays closed until `baton resync \
         db2` is repeated."
    );
    assert!(resync(ResyncPhase::Failed, Some("x")).sentence.contains("it waits closed"), "it is as it was");
}

#[test]
fn silent_replica_comes_before_its_sync_state() {
    let status = after(|s| {
        s.sync = Sync::OutOfSync { reason: "x".to_owned() };
        silence_node(s, "db2", Some(4_210));
    });
    assert_eq!(
        status.sentence,
        "NOT OK: nobody could take over from db1: db2 is silent (last heard 4.2 s ago). Bring it back."
    );
}

#[test]
fn silent_witness() {
    let status = after(|s| silence_node(s, "mon", None));
    assert_eq!(
        status.sentence,
        "NOT OK: the witness mon is silent (never heard): if db1 were lost now, no majority would be left and nobody \
         could take over. Bring it back."
    );
}

#[test]
fn a_witness_that_does_not_know_the_log_is_told_by_every_node() {
    let old = "its agent does not know what the log has: upgrade it";
    for asked in ["db1", "db2"] {
        let status = after(|s| {
            s.node = asked.into();
            s.leader = Some("db1".into());
            s.nodes[2].obstacles = vec![old.to_owned()];
        });
        assert!(!status.ok);
        assert_eq!(
            status.sentence,
            format!(
                "NOT OK: the witness mon does not count ({old}): if db1 were lost now, no majority would be left and nobody \
                 could take over."
            ),
            "{asked}"
        );
    }
    let silent = after(|s| {
        s.nodes[2].obstacles = vec![old.to_owned()];
        silence_node(s, "mon", None);
    });
    assert!(!silent.sentence.contains(old), "what it said is old: {}", silent.sentence);
}

#[test]
fn unfit_replica_says_what_stands_in_the_way() {
    let status = after(|s| s.nodes[1].obstacles = vec!["mysql-hung".to_owned(), "disk-full".to_owned()]);
    assert_eq!(status.sentence, "NOT OK: db2 could not take over now: mysql-hung, disk-full.");
}

#[test]
fn former_holder_that_came_back_says_what_to_do() {
    let status = after(|s| {
        s.sync = Sync::OutOfSync { reason: "no replica attached".to_owned() };
        s.nodes[1].role = Role::Closed;
    });
    assert_eq!(
        status.sentence,
        "NOT OK: db2 could not take over: it waits closed and read-only and does not replicate. Its agent attaches it \
         as soon as db1 serves; if it stays so, the agent's log on db2 says why."
    );
}

#[test]
fn closed_node_whose_mysql_still_takes_writes_is_not_called_read_only() {
    let status = after(|s| {
        s.sync = Sync::OutOfSync { reason: "no replica attached".to_owned() };
        s.nodes[1].role = Role::Closed;
        s.nodes[1].mysql_read_only = Some(false);
    });
    assert_eq!(
        status.sentence,
        "NOT OK: db2 could not take over: its ports are closed, but its MySQL is not read-only yet and does not \
         replicate. Its agent makes it so; if it stays so, the agent's log on db2 says what stands in the way."
    );
}

#[test]
fn vacant_names_each_candidate() {
    let status = after(|s| {
        s.holder = None;
        silence_node(s, "db1", Some(9_000));
        s.nodes[1].obstacles = vec!["candidate-not-in-sync".to_owned()];
    });
    assert_eq!(
        status.sentence,
        "NOT OK: nobody holds the baton, clients are not served (db1 is silent (last heard 9.0 s ago); db2: \
         candidate-not-in-sync). `baton explain` on mon says what is awaited."
    );
}

#[test]
fn no_leader_names_who_is_missing() {
    let status = after(|s| {
        s.leader = None;
        silence_node(s, "db2", Some(2_000));
        silence_node(s, "mon", Some(2_000));
    });
    assert_eq!(
        status.sentence,
        "NOT OK: there is no leader: db1 sees no majority, so nothing is decided and nobody can take over. Bring back \
         db2 or mon or the network to it."
    );
}

#[test]
fn holder_that_does_not_serve() {
    let status = after(|s| {
        s.nodes[0].serving = false;
        s.nodes[0].obstacles = vec!["mysql-dead".to_owned()];
    });
    assert_eq!(
        status.sentence,
        "NOT OK: db1 holds the baton and does not serve: mysql-dead. See `baton explain` on db1."
    );
}

#[test]
fn run_under_way() {
    let status = sample::under_way();
    assert!(!status.ok);
    assert_eq!(
        status.sentence,
        "WAIT: run 7 is under way: takeover from db1 to db2, 2 of 8 steps done, at hold_vip and drain_relay_log, 1.2 s \
         so far."
    );
}

#[test]
fn run_that_needs_an_operator_shows_the_command() {
    let mut run = sample::takeover();
    sample::note(&mut run, Step::FenceOld, 4, Event::Started);
    sample::note(&mut run, Step::FenceOld, 9, Event::Failed { error: "power switch: no answer".to_owned() });
    run.journal.last_mut().unwrap().attempt = 2;
    run.aborting = Some("fence_old failed".to_owned());
    sample::note(&mut run, Step::FenceOld, 12, Event::UndoStarted);
    sample::note(&mut run, Step::FenceOld, 20, Event::UndoFailed { error: "disk full".to_owned() });
    let status = after(|s| s.run = Some(run_record(&run, WallMs(sample::START.0 + 90_000))));
    assert_eq!(
        status.sentence,
        "NOT OK: run 7 (takeover to db2) stopped and needs an operator: fence_old: disk full. Both databases are closed \
         to writes. Mend the cause, then `baton run ack 7`."
    );
    assert_eq!(status.run.unwrap().elapsed_ms, 20, "a run that stopped does not grow older");
}

#[test]
fn alarms_are_told_even_if_a_takeover_would_work() {
    let status = after(|s| s.nodes[1].unheard_by = vec!["db1".into()]);
    assert_eq!(
        status.sentence,
        "ATTENTION: db2 can take over now (lag 0.1 s), but db2 is not heard by db1, and by others it is; look at the network \
         between them."
    );
    assert_eq!(after(|s| s.nodes[1].lag_ms = Some(20_000)).alarms, []);
    let status = after(|s| s.nodes[1].lag_ms = Some(45_000));
    assert_eq!(
        status.sentence,
        "ATTENTION: db2 can take over now (lag 45.0 s), but db2 has the writes of 45 s left to apply first, and only 20 s are \
         meant for that."
    );
    let status = after(|s| s.nodes[1].config_matches = false);
    assert!(!status.ok);
    assert_eq!(status.alarms[0].code, "config-differs");
    assert!(
        status
            .sentence
            .starts_with("ATTENTION: db2 can take over now (lag 0.1 s), but the configuration of db2")
    );
    let two = after(|s| {
        s.nodes[1].version = "0.2.0".to_owned();
        s.alarms
            .push(Alarm { code: "disk-low".to_owned(), text: "the disk of db1 is nearly full".to_owned() });
    });
    assert_eq!(
        two.sentence,
        "ATTENTION: db2 can take over now (lag 0.1 s), but the disk of db1 is nearly full (and 1 more)."
    );
}

#[test]
fn a_takeover_that_would_find_the_vip_taken_would_not_work() {
    let text = "not only this node answers for 10.77.0.100, but also 02:00:00:00:00:99";
    let status = after(|s| s.alarms.push(AlarmCode::VipContested.alarm(text)));
    assert_eq!(
        status.sentence,
        format!("NOT OK: a takeover from db1 would stop before the virtual IP: {text}.")
    );
    assert!(!status.ok);
}

#[test]
fn an_agent_that_does_not_know_the_log_is_not_ok() {
    let own = "the cluster's log has `frobnicate`, which this agent does not know: upgrade it";
    let status = after(|s| {
        s.alarms.push(AlarmCode::NewerLog.alarm(own));
        // Nobody knows whether that is still so.
        s.holder = None;
    });
    assert_eq!(status.sentence, format!("NOT OK: {own}."));
    assert!(!status.ok);
    let peers = "mon does not know `frobnicate`, which the log has: upgrade the agent there";
    let told_by_leader = |silent: bool| {
        after(|s| {
            s.leader = Some(s.node.clone());
            s.alarms.push(AlarmCode::NewerLog.alarm(peers));
            if silent {
                silence_node(s, "db1", Some(60_000));
            }
        })
    };
    let status = told_by_leader(false);
    assert_eq!(status.sentence, format!("NOT OK: {peers}."));
    assert!(!status.ok);
    let worse = told_by_leader(true).sentence;
    assert!(worse.starts_with("NOT OK: db1 holds the baton and is silent"), "{worse}");
}

#[test]
fn a_redis_that_boots_open_is_told_with_the_way_out() {
    let boots_open = |node: usize| after(|s| s.nodes[node].obstacles = vec!["redis-boots-open".to_owned()]);
    let holder = boots_open(0);
    assert_eq!(holder.alarms.len(), 1);
    assert_eq!(holder.alarms[0].code, "redis-boots-open");
    assert!(holder.sentence.starts_with("ATTENTION: db2 can take over now"), "{}", holder.sentence);
    for part in ["Redis on db1", "`replicaof 127.0.0.1 1`", "`min-replicas-to-write 99`", "restart it"] {
        assert!(holder.sentence.contains(part), "{part}: {}", holder.sentence);
    }
    let replica = boots_open(1);
    assert_eq!(replica.sentence, "NOT OK: db2 could not take over now: redis-boots-open.");
    assert!(replica.alarms[0].text.starts_with("Redis on db2"), "{:?}", replica.alarms);
    let silent = after(|s| {
        s.nodes[1].obstacles = vec!["redis-boots-open".to_owned()];
        silence_node(s, "db2", Some(60_000));
    });
    assert_eq!(silent.alarms, [], "what it said is old");
}

#[test]
fn history_has_phases_since_the_start() {
    let record = sample::ended_run();
    let phases: Vec<(&str, u64)> =
        PHASE_NAMES.iter().filter_map(|name| Some((*name, *record.phases_ms.get(*name)?))).collect();
    assert_eq!(
        phases,
        [
            ("decided", 0),
            ("fenced", 12),
            ("cut", 30),
            ("vip_held", 55),
            ("drained", 90),
            ("promoted", 140),
            ("open", 160),
            ("services_healthy", 900),
            ("validated", 1_010),
        ]
    );
    assert_eq!(record.result, RunResult::Completed);
    assert_eq!(record.cause, "holder-released: mysql-dead");
    assert_eq!(record.elapsed_ms, 1_010);
    assert_eq!(record.at.to_string(), "2026-11-22T21:40:00Z");
}

#[test]
fn decisions_are_noted_when_they_change() {
    let mut rows = sample::decisions();
    let mut same = rows[0].clone();
    same.why = vec![Why::HolderHealthy { holder: "db1".into(), granted_ms_ago: 90 }];
    note_decision(&mut rows, same.clone());
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].why, same.why, "the evidence is the newest");
    for number in 0..DECISIONS_MAX {
        note_decision(&mut rows, DecisionRow { action: format!("action {number}"), ..same.clone() });
    }
    assert_eq!(rows.len(), DECISIONS_MAX);
    assert_eq!(rows.last().unwrap().action, "action 99");
}

/// The words of the JSON are an interface: this test is to be changed only by adding.
#[test]
fn status_json_is_stable() {
    let json = serde_json::to_value(sample::healthy()).unwrap();
    let expected = serde_json::json!({
        "at": "2026-11-22T21:40:00Z",
        "node": "db1",
        "cluster": "shop",
        "version": "0.1.0",
        "generation": 0,
        "epoch": 2,
        "holder": "db1",
        "leader": "mon",
        "term": 3,
        "sync": {"state": "in-sync", "replica": "db2"},
        "lease": {"valid_ms": 1120, "length_ms": 1200, "renewed_ms_ago": 80},
        "nodes": [
            {"name": "db1", "kind": "data", "role": "holder", "state": "serving", "serving": true, "mysql": "ok",
             "redis": "ok", "lag_ms": null, "obstacles": [], "heard_ms_ago": 0, "silent": false, "version": "0.1.0",
             "mysql_read_only": null, "config_matches": true},
            {"name": "db2", "kind": "data", "role": "replica", "state": "replicates", "serving": false, "mysql": "ok",
             "redis": "ok", "redis_behind": {"bytes": 0, "ms": 0}, "lag_ms": 100, "obstacles": [], "heard_ms_ago": 87, "silent": false, "version": "0.1.0",
             "mysql_read_only": null, "config_matches": true},
            {"name": "mon", "kind": "witness", "role": "witness", "state": "leads, votes, watches", "serving": false,
             "mysql": null, "redis": null, "lag_ms": null, "obstacles": [], "heard_ms_ago": 41, "silent": false,
             "version": "0.1.0", "mysql_read_only": null, "config_matches": true},
        ],
        "run": null,
        "alarms": [],
        "ok": true,
        "sentence": "OK: db2 can take over now (lag 0.1 s). Tolerates one failure.",
    });
    assert_eq!(json, expected);
}

/// Nobody's, before it has begun; and what an operator gave up stands in its reasons.
#[test]
fn a_run_says_who_acted_and_what_loss_was_accepted() {
    let mut run = sample::takeover();
    let record = run_record(&run, sample::START);
    assert_eq!((record.actors.len(), record.loss_accepted), (0, None));
    let mut plan = (*run.plan).clone();
    let loss = "writes of at most 900 ms".to_owned();
    plan.why.push(Why::LossAccepted { node: "db2".into(), by: "ada".to_owned(), loss: loss.clone() });
    run = Run::new(RunId(8), plan, sample::START);
    sample::succeed(&mut run, Step::FenceOld, 4, 12);
    let record = run_record(&run, sample::START);
    assert_eq!((record.actors, record.loss_accepted), (vec![NodeId::from("db2")], Some(loss)));
}

#[test]
fn run_json_is_stable() {
    let mut json = serde_json::to_value(sample::ended_run()).unwrap();
    let steps = json["steps"].take();
    let expected = serde_json::json!({
        "number": 7,
        "at": "2026-11-22T21:40:00Z",
        "runbook": "takeover",
        "from": "db1",
        "to": "db2",
        "epoch": 3,
        "cause": "holder-released: mysql-dead",
        "why": [{"why": "candidate", "node": "db2"}, {"why": "holder-released", "epoch": 2, "because": "mysql-dead"}],
        "result": "completed",
        "failure": null,
        "elapsed_ms": 1010,
        "phases_ms": {"decided": 0, "fenced": 12, "cut": 30, "vip_held": 55, "drained": 90, "promoted": 140,
                      "open": 160, "services_healthy": 900, "validated": 1010},
        "detected_ms_before": 40,
        "holder_heard_ms_before": {"db2": 60, "mon": null},
        "actors": ["db2", "mon"],
        "steps": null,
    });
    assert_eq!(json, expected);
    assert_eq!(
        steps[0],
        serde_json::json!({"step": "fence_old", "actor": "db2", "state": "done", "attempts": 1, "started_ms": 4,
            "took_ms": 8, "limit_ms": 3000, "facts": {"seen": "after 8 ms"}, "note": null})
    );
}
