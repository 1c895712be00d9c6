//! Semi-sync, canary, takeover, closing and rejoining with two real servers of a family.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton_node::hands::mysql::close::Closing;
use baton_node::hands::mysql::promote::Drained;
use baton_node::hands::mysql::replica::{Attached, SourceServer};
use baton_node::hands::mysql::semisync::Switch;
use baton_node::hands::mysql::{Mysql, flavour, gtid};
use baton_runbooks::observe::Flavour;
use mysql_async::prelude::Queryable;
use support::database::{D, Database, is_there, on_both};
use support::eventually;

on_both!(
    canary_is_received_and_applied,
    commits_that_wait_for_the_replica_block_neither_probe_nor_write_probe,
    takeover_loses_nothing_that_was_received,
    promotion_is_undone_without_losing_the_relay_log,
    broken_applier_ends_the_drain,
    errant_transactions_refuse_the_attachment,
    closing_is_bounded_with_writers_in_the_way,
    closing_a_frozen_or_lost_server_says_so,
    closing_while_commits_wait_for_the_replica,
    closing_while_a_canary_waits_for_the_replica,
    a_server_that_waits_to_close_is_open,
    a_closed_primary_sends_to_nobody_any_more,
    relay_logs_of_a_restarted_replica_are_saved,
);

/// What to say to this family.
fn word<'a>(flavour: Flavour, mariadb: &'a str, mysql: &'a str) -> &'a str {
    match flavour {
        Flavour::Mariadb => mariadb,
        Flavour::Mysql => mysql,
    }
}

struct Pair {
    primary: Database,
    replica: Database,
    on_primary: Mysql,
    on_replica: Mysql,
}

async fn source(server: &Database, hands: &Mysql) -> SourceServer {
    let executed = hands.facts(D).await.unwrap().executed;
    SourceServer { host: "127.0.0.1".into(), port: server.port, executed }
}

/// A primary with a replica that is attached, semi-sync on, and seen to work by a canary.
async fn in_sync(flavour: Flavour) -> Pair {
    let primary = Database::start(flavour, 1, &[]).await;
    let replica = Database::start(flavour, 2, &[]).await;
    let on_primary = primary.as_primary().await;
    let on_replica = replica.hands();
    let attached = on_replica.attach(&source(&primary, &on_primary).await, D).await.unwrap();
    assert_eq!(attached, Attached::Attached);
    on_replica.start_replication(D).await.unwrap();
    eventually("the replica has caught up", || async {
        let (mine, theirs) = (on_replica.facts(D).await.ok()?, on_primary.facts(D).await.ok()?);
        (mine.position == theirs.position && mine.semi_sync.replica_on).then_some(())
    })
    .await;
    let semi_sync = on_primary.semi_sync_source(Switch::On, D).await.unwrap();
    assert!(semi_sync.source_enabled && semi_sync.variables_as_wanted);
    let canary = on_primary.canary(1, D).await.unwrap();
    let theirs = on_replica.facts(D).await.unwrap();
    let received = theirs.replication.unwrap().received;
    assert!(
        gtid::contains(flavour, &received, &canary.position).unwrap(),
        "{received} has {}",
        canary.position
    );
    let semi_sync = on_primary.semi_sync_status(D).await.unwrap();
    assert!(semi_sync.source_on && semi_sync.clients == 1 && semi_sync.no_tx == 0, "{semi_sync:?}");
    Pair { primary, replica, on_primary, on_replica }
}

async fn canary_is_received_and_applied(flavour: Flavour) {
    let pair = in_sync(flavour).await;
    let before = pair.on_replica.facts(D).await.unwrap();
    assert!(!before.instance.threads.is_empty() && before.instance.threads != "/", "{:?}", before.instance);
    pair.on_primary.canary(2, D).await.unwrap();
    eventually("the canary is applied", || async {
        (pair.on_replica.facts(D).await.ok()?.canary_applied == 2).then_some(())
    })
    .await;
    // Restarted threads are another instance, and a relay rule that is broken is repaired.
    pair.replica.root().await.query_drop("STOP REPLICA IO_THREAD; START REPLICA IO_THREAD").await.unwrap();
    assert_ne!(pair.on_replica.facts(D).await.unwrap().instance, before.instance);
    pair.replica
        .root()
        .await
        .query_drop(word(
            flavour,
            "SET GLOBAL rpl_semi_sync_master_enabled=1",
            "SET GLOBAL rpl_semi_sync_source_enabled=1",
        ))
        .await
        .unwrap();
    assert!(pair.on_replica.ensure_relay_rule(D).await.unwrap());
    assert!(!pair.on_replica.ensure_relay_rule(D).await.unwrap());
    pair.on_replica.semi_sync_source(Switch::On, D).await.unwrap_err();
}

async fn commits_that_wait_for_the_replica_block_neither_probe_nor_write_probe(flavour: Flavour) {
    let pair = in_sync(flavour).await;
    pair.on_primary.write_probe(D).await.unwrap();
    pair.replica.process().freeze();
    let mut writers = Vec::new();
    for v in 0..4 {
        let mut app = pair.primary.app().await;
        let insert = async move { app.query_drop(format!("INSERT INTO t (v) VALUES ({v})")).await };
        writers.push(tokio::spawn(insert));
    }
    eventually("commits wait", || async {
        (pair.on_primary.semi_sync_status(D).await.ok()?.waiting > 0).then_some(())
    })
    .await;
    pair.on_primary.canary(9, Duration::from_millis(300)).await.unwrap_err();
    let started = Instant::now();
    for _ in 0..5 {
        pair.on_primary.write_probe(Duration::from_secs(5)).await.unwrap();
        pair.on_primary.probe(Duration::from_secs(5)).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(writers.iter().all(|writer| !writer.is_finished()), "nothing was acknowledged");
    // Degrading, which the ledger must have allowed, lets them go.
    pair.on_primary.semi_sync_source(Switch::Off, D).await.unwrap();
    for writer in writers {
        tokio::time::timeout(D, writer).await.unwrap().unwrap().unwrap();
    }
    pair.replica.process().thaw();
}

async fn takeover_loses_nothing_that_was_received(flavour: Flavour) {
    let mut pair = in_sync(flavour).await;
    // The applier is held up by a lock, so that acknowledged writes are only in the relay log.
    let mut blocker = pair.replica.try_root2().await.unwrap();
    blocker.query_drop("LOCK TABLES app.t READ").await.unwrap();
    let mut app = pair.primary.app().await;
    for v in 0..50 {
        app.query_drop(format!("INSERT INTO t (v) VALUES ({v})")).await.unwrap();
    }
    pair.primary.kill();
    let captured = pair.on_replica.capture_received(D).await.unwrap();
    assert_eq!(captured.backlog, 50);

    let still = Duration::from_millis(400);
    let stuck = pair.on_replica.drain(&captured.received, still, |_| {}).await.unwrap();
    assert!(matches!(&stuck, Drained::NoProgress { left } if left.backlog == 50), "{stuck:?}");
    let refused = pair.on_replica.promote(&captured.received, D).await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");

    let mut looks = 0;
    let mut blocker = Some(blocker);
    let drain = pair.on_replica.drain(&captured.received, Duration::from_secs(20), |_| {
        looks += 1;
        drop(blocker.take());
    });
    assert_eq!(drain.await.unwrap(), Drained::Reached);
    let started = Instant::now();
    pair.on_replica.promote(&captured.received, D).await.unwrap();
    println!("promoted in {:?}", started.elapsed());
    assert!(looks > 0);
    assert!(pair.on_replica.is_promoted(D).await.unwrap());
    pair.on_replica.promote(&captured.received, D).await.unwrap();
    let mut app = pair.replica.app().await;
    let rows: Option<u64> = app.query_first("SELECT COUNT(*) FROM t").await.unwrap();
    assert_eq!(rows, Some(50));
    app.query_drop("INSERT INTO t (v) VALUES (99)").await.unwrap();
    let semi_sync = pair.on_replica.semi_sync_status(D).await.unwrap();
    assert!(!semi_sync.source_enabled);

    pair.on_replica.detach(D).await.unwrap();
    assert_eq!(pair.on_replica.facts(D).await.unwrap().replication, None);
    pair.on_replica.detach(D).await.unwrap();

    // The old primary comes back closed, has nothing extra, and follows from where it was.
    pair.primary.restart().await;
    let old = &pair.on_primary;
    assert!(old.facts(D).await.unwrap().read_only);
    if flavour == Flavour::Mariadb {
        assert_eq!(
            pair.primary.value("SELECT @@global.gtid_slave_pos").await,
            "",
            "as it is on an ex-primary"
        );
    }
    let new = source(&pair.replica, &pair.on_replica).await;
    assert_eq!(old.extra_transactions(&new.executed, D).await.unwrap(), "");
    assert_eq!(old.attach(&new, D).await.unwrap(), Attached::Attached);
    old.start_replication(D).await.unwrap();
    eventually("the old primary has everything", || async {
        let facts = old.facts(D).await.ok()?;
        let theirs = pair.on_replica.facts(D).await.ok()?;
        assert_eq!(facts.replication.as_ref()?.sql_errno, 0, "{facts:?}");
        (facts.position == theirs.position).then_some(())
    })
    .await;
    let rows: Option<u64> = pair.primary.app().await.query_first("SELECT COUNT(*) FROM t").await.unwrap();
    assert_eq!(rows, Some(51));
}

async fn relay_logs_of_a_restarted_replica_are_saved(flavour: Flavour) {
    let mut pair = in_sync(flavour).await;
    let mut blocker = pair.replica.try_root2().await.unwrap();
    blocker.query_drop("LOCK TABLES app.t READ").await.unwrap();
    if flavour == Flavour::Mariadb {
        // Beyond what the guide grants, for the replay alone.
        let grant = "SET sql_log_bin=0; GRANT BINLOG REPLAY ON *.* TO baton@localhost";
        pair.replica.root().await.query_drop(grant).await.unwrap();
    }
    // As rows: replaying statements needs their privileges.
    pair.primary.root().await.query_drop("SET GLOBAL binlog_format=ROW").await.unwrap();
    let mut app = pair.primary.app().await;
    for v in 0..50 {
        app.query_drop(format!("INSERT INTO t (v) VALUES ({v})")).await.unwrap();
    }
    let captured = pair.on_replica.capture_received(D).await.unwrap();
    let refused =
        pair.on_replica.replay_saved_relay_logs(std::path::Path::new("/nonexistent"), D).await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    pair.primary.kill();
    pair.replica.restart().await;
    assert_eq!(pair.replica.value("SELECT COUNT(*) FROM app.t").await, "0");

    if flavour == Flavour::Mysql {
        // The relay logs are still there, and the applier goes on in them.
        let aside = tempfile::tempdir().unwrap();
        pair.on_replica.replay_saved_relay_logs(aside.path(), D).await.unwrap_err();
        pair.replica.root().await.query_drop("START REPLICA SQL_THREAD").await.unwrap();
        let all = pair.on_replica.capture_received(D).await.unwrap();
        assert!(gtid::contains(flavour, &all.received, &captured.received).unwrap(), "{all:?}");
        eventually("everything received is applied", || async {
            (pair.replica.value("SELECT COUNT(*) FROM app.t").await == "50").then_some(())
        })
        .await;
        return;
    }
    let aside = tempfile::tempdir().unwrap();
    let replayed = pair.on_replica.replay_saved_relay_logs(aside.path(), D).await.unwrap();
    assert_eq!(
        (replayed.transactions, replayed.to.as_str()),
        (50, captured.received.as_str()),
        "{replayed:?}"
    );
    assert!(!replayed.copies.is_empty());
    let again = pair.on_replica.replay_saved_relay_logs(aside.path(), D).await.unwrap();
    assert_eq!(again.transactions, 0);
    pair.on_replica.promote(&captured.received, D).await.unwrap();
    assert_eq!(pair.replica.value("SELECT COUNT(*) FROM app.t").await, "50");

    // The old primary has nothing that is missing here, and follows.
    pair.primary.restart().await;
    let new = source(&pair.replica, &pair.on_replica).await;
    assert_eq!(pair.on_primary.attach(&new, D).await.unwrap(), Attached::Attached);
    pair.on_primary.start_replication(D).await.unwrap();
    pair.on_replica.canary(77, D).await.unwrap();
    eventually("the old primary follows", || async {
        let facts = pair.on_primary.facts(D).await.ok()?;
        assert_eq!(facts.replication.as_ref()?.sql_errno, 0, "{facts:?}");
        (facts.canary_applied == 77).then_some(())
    })
    .await;
}

async fn promotion_is_undone_without_losing_the_relay_log(flavour: Flavour) {
    let pair = in_sync(flavour).await;
    let captured = pair.on_replica.capture_received(D).await.unwrap();
    assert_eq!(pair.on_replica.drain(&captured.received, D, |_| {}).await.unwrap(), Drained::Reached);
    pair.on_replica.promote(&captured.received, D).await.unwrap();
    pair.on_replica.undo_promotion(D).await.unwrap();
    assert!(!pair.on_replica.is_promoted(D).await.unwrap());
    pair.on_primary.canary(5, D).await.unwrap();
    eventually("it replicates again", || async {
        (pair.on_replica.facts(D).await.ok()?.canary_applied == 5).then_some(())
    })
    .await;
    pair.on_replica.detach(D).await.unwrap_err();
}

async fn broken_applier_ends_the_drain(flavour: Flavour) {
    let pair = in_sync(flavour).await;
    let mut root = pair.replica.root().await;
    let insert = "SET sql_log_bin=0; INSERT INTO app.t (id,v) VALUES (1,1)";
    let opened = format!("SET GLOBAL super_read_only=0; {insert}; SET GLOBAL super_read_only=1");
    root.query_drop(word(flavour, insert, &opened)).await.unwrap();
    pair.primary.app().await.query_drop("INSERT INTO t (id,v) VALUES (1,2)").await.unwrap();
    let captured = pair.on_replica.capture_received(D).await.unwrap();
    let end = pair.on_replica.drain(&captured.received, D, |_| {}).await.unwrap();
    assert!(matches!(&end, Drained::ApplierError { errno: 1062, .. }), "{end:?}");
}

async fn errant_transactions_refuse_the_attachment(flavour: Flavour) {
    let mut pair = in_sync(flavour).await;
    pair.on_primary.semi_sync_source(Switch::Off, D).await.unwrap();
    let captured = pair.on_replica.capture_received(D).await.unwrap();
    pair.on_replica.drain(&captured.received, D, |_| {}).await.unwrap();
    pair.on_replica.promote(&captured.received, D).await.unwrap();
    pair.on_replica.detach(D).await.unwrap();
    // Both accept a write: what a fence is there to prevent.
    pair.primary.app().await.query_drop("INSERT INTO t (v) VALUES (1)").await.unwrap();
    pair.replica.app().await.query_drop("INSERT INTO t (v) VALUES (2),(3)").await.unwrap();
    pair.primary.restart().await;
    let new = source(&pair.replica, &pair.on_replica).await;
    let extra = pair.on_primary.extra_transactions(&new.executed, D).await.unwrap();
    assert!(!extra.is_empty());
    assert!(flavour == Flavour::Mysql || extra.starts_with("0-1-"), "{extra}");
    assert_eq!(pair.on_primary.attach(&new, D).await.unwrap(), Attached::Refused { extra });
    assert_eq!(pair.on_primary.facts(D).await.unwrap().replication, None, "nothing was changed");
    // And a server that accepts writes is not attached at all.
    let old = source(&pair.primary, &pair.on_primary).await;
    pair.on_replica.attach(&old, D).await.unwrap_err();
}

async fn closing_is_bounded_with_writers_in_the_way(flavour: Flavour) {
    let db = Database::start(flavour, 1, &[]).await;
    let hands = db.as_primary().await;
    db.app().await.query_drop("INSERT INTO t (v) WITH RECURSIVE s AS (SELECT 1 AS n UNION ALL SELECT n+1 FROM s WHERE n<200) SELECT n FROM s").await.unwrap();
    let mut long = db.app().await;
    let long = tokio::spawn(async move { long.query_drop("UPDATE t SET v=v+SLEEP(1)").await });
    let mut locker = db.try_root2().await.unwrap();
    locker.query_drop("CREATE TABLE app.other (id INT); LOCK TABLES app.other WRITE").await.unwrap();
    let mut idle = db.app().await;
    idle.query_drop("BEGIN; INSERT INTO t (v) VALUES (7)").await.unwrap();
    eventually("the update runs", || async {
        (db.value("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'UPDATE%'").await
            == "1")
            .then_some(())
    })
    .await;
    let end = hands.close_writes(Duration::from_secs(8)).await;
    println!("{end:?}");
    assert!(matches!(end, Closing::Closed { killed, .. } if killed >= 3), "{end:?}");
    assert!(hands.is_read_only(D).await.unwrap());
    assert!(tokio::time::timeout(D, long).await.unwrap().unwrap().is_err());
    assert!(idle.query_drop("COMMIT").await.is_err());
    hands.open_writes(Switch::Off, D).await.unwrap();
    db.app().await.query_drop("INSERT INTO t (v) VALUES (8)").await.unwrap();
}

async fn a_server_that_waits_to_close_is_open(flavour: Flavour) {
    let db = Database::start(flavour, 1, &[]).await;
    let hands = db.as_primary().await;
    let (mut app, mut closer) = (db.app().await, db.root().await);
    app.query_drop("LOCK TABLES t WRITE").await.unwrap();
    let closing = tokio::spawn(async move { closer.query_drop(flavour::close(flavour)).await });
    eventually("the statement waits for the lock", || async {
        let waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SET GLOBAL %read_only%' \
                     AND state LIKE 'Waiting%' AND id<>CONNECTION_ID()";
        (db.value(waits).await == "1").then_some(())
    })
    .await;
    app.query_drop("INSERT INTO t (v) VALUES (9)").await.unwrap();
    assert!(!hands.is_read_only(D).await.unwrap(), "clients write");
    assert!(!hands.facts(D).await.unwrap().read_only, "clients write");
    app.query_drop("UNLOCK TABLES").await.unwrap();
    closing.await.unwrap().unwrap();
    assert!(hands.is_read_only(D).await.unwrap() && hands.facts(D).await.unwrap().read_only);
    assert!(app.query_drop("INSERT INTO t (v) VALUES (10)").await.is_err());
}

async fn a_closed_primary_sends_to_nobody_any_more(flavour: Flavour) {
    let mut pair = in_sync(flavour).await;
    pair.on_primary.semi_sync_source(Switch::Off, D).await.unwrap();
    assert!(matches!(pair.on_primary.close_writes(D).await, Closing::Closed { .. }));
    pair.replica.process().freeze();
    assert_eq!(pair.on_primary.end_old_dump_threads(D).await.unwrap(), 1);
    eventually("no client is counted", || async {
        (pair.on_primary.semi_sync_status(D).await.ok()?.clients == 0).then_some(())
    })
    .await;
    assert_eq!(pair.on_primary.end_old_dump_threads(D).await.unwrap(), 0);
    pair.replica.process().thaw();
    pair.replica.kill();
}

async fn closing_a_frozen_or_lost_server_says_so(flavour: Flavour) {
    let mut db = Database::start(flavour, 1, &[]).await;
    let hands = db.as_primary().await;
    db.process().freeze();
    let started = Instant::now();
    let end = hands.close_writes(Duration::from_millis(500)).await;
    assert!(matches!(end, Closing::Unknown { .. }), "{end:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
    db.process().thaw();
    db.kill();
    let end = hands.close_writes(Duration::from_millis(500)).await;
    assert!(matches!(&end, Closing::Unknown { why } if why.contains("refused")), "{end:?}");
}

/// MySQL only: MariaDB lets such commits go with their sessions.
#[tokio::test]
async fn mysql_closing_over_commits_that_wait_acknowledges_nothing() {
    if !is_there(Flavour::Mysql) {
        return;
    }
    let pair = in_sync(Flavour::Mysql).await;
    pair.replica.process().freeze();
    let mut transaction = pair.primary.app().await;
    transaction.query_drop("BEGIN; INSERT INTO t (v) VALUES (2)").await.unwrap();
    let mut app = pair.primary.app().await;
    let waiting = tokio::spawn(async move { app.query_drop("INSERT INTO t (v) VALUES (1)").await });
    eventually("the commit waits", || async {
        (pair.on_primary.semi_sync_status(D).await.ok()?.waiting > 0).then_some(())
    })
    .await;
    let agent = pair.on_primary.clone();
    let canary = tokio::spawn(async move { agent.canary(7, Duration::from_secs(60)).await });
    // Behind the first one: a group of commits counts as one that waits.
    eventually("the canary waits", || async {
        let waits = "SELECT COUNT(*) FROM performance_schema.processlist WHERE info LIKE 'UPDATE %canary%'";
        (pair.primary.value(waits).await == "1").then_some(())
    })
    .await;
    // Local clients that come at any moment and commit at once: a server without semi-sync would tell them so.
    let acknowledged = Arc::new(AtomicBool::new(false));
    let mut late = Vec::new();
    for v in 10..14 {
        let (socket, acknowledged) = (pair.primary.socket(), Arc::clone(&acknowledged));
        late.push(tokio::spawn(async move {
            loop {
                match pushy(&socket, v).await {
                    Ok(()) => acknowledged.store(true, Ordering::SeqCst),
                    Err(mysql_async::Error::Server(refusal)) if refusal.code == 1290 => return,
                    Err(_) => {}
                }
            }
        }));
    }
    let end = pair.on_primary.close_over_waiting_commits(D).await;
    assert!(matches!(end, Closing::Closed { .. }), "{end:?}");
    for client in late {
        tokio::time::timeout(D, client).await.unwrap().unwrap();
    }
    assert!(!acknowledged.load(Ordering::SeqCst), "a client was told of a commit that nobody else has");
    assert!(tokio::time::timeout(D, waiting).await.unwrap().unwrap().is_err(), "never acknowledged");
    assert!(tokio::time::timeout(D, canary).await.unwrap().unwrap().is_err(), "no replica has it");
    assert!(transaction.query_drop("COMMIT").await.is_err());
    let facts = pair.on_primary.facts(D).await.unwrap();
    assert!(facts.read_only && facts.semi_sync.waiting == 0, "{facts:?}");
    assert_eq!(pair.primary.value("SELECT COUNT(*) FROM app.t WHERE v=1").await, "1", "it is in the log");
    assert_eq!(pair.primary.value("SELECT COUNT(*) FROM app.t WHERE v=2").await, "0");
    pair.replica.process().thaw();
}

/// A lock that nobody may end stands in the way: then commits wait for the replica again.
#[tokio::test]
async fn mysql_closing_that_gives_up_leaves_no_server_that_waits_for_nobody() {
    if !is_there(Flavour::Mysql) {
        return;
    }
    let pair = in_sync(Flavour::Mysql).await;
    let root = "CREATE TABLE app.other (id INT); GRANT LOCK TABLES, SELECT ON app.* TO baton@localhost";
    pair.primary.root().await.query_drop(root).await.unwrap();
    pair.replica.process().freeze();
    let mut app = pair.primary.app().await;
    let waiting = tokio::spawn(async move { app.query_drop("INSERT INTO t (v) VALUES (1)").await });
    eventually("the commit waits", || async {
        (pair.on_primary.semi_sync_status(D).await.ok()?.waiting > 0).then_some(())
    })
    .await;
    let access = pair.primary.access();
    let opts = mysql_async::OptsBuilder::default()
        .socket(Some(access.socket.display().to_string()))
        .user(Some(access.user))
        .pass(Some(access.password))
        .wait_timeout(Some(600))
        .max_allowed_packet(Some(1 << 24));
    let mut agent = mysql_async::Conn::new(opts).await.unwrap();
    agent.query_drop("LOCK TABLES app.other WRITE").await.unwrap();
    let end = pair.on_primary.close_over_waiting_commits(Duration::from_secs(3)).await;
    assert!(matches!(end, Closing::StillOpen { .. }), "{end:?}");
    assert!(tokio::time::timeout(D, waiting).await.unwrap().unwrap().is_err(), "never acknowledged");
    let semi_sync = pair.on_primary.semi_sync_status(D).await.unwrap();
    assert!(semi_sync.source_enabled, "{semi_sync:?}");
    pair.replica.process().thaw();
}

/// One write over a connection of its own.
async fn pushy(socket: &Path, v: u32) -> mysql_async::Result<()> {
    let opts = mysql_async::OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("app"))
        .db_name(Some("app"))
        .wait_timeout(Some(600))
        .max_allowed_packet(Some(1 << 24));
    let mut conn = mysql_async::Conn::new(opts).await?;
    conn.query_drop(format!("INSERT INTO t (v) VALUES ({v})")).await
}

async fn closing_while_a_canary_waits_for_the_replica(flavour: Flavour) {
    let pair = in_sync(flavour).await;
    pair.replica.process().freeze();
    let agent = pair.on_primary.clone();
    let canary = tokio::spawn(async move { agent.canary(7, Duration::from_secs(60)).await });
    eventually("the canary waits", || async {
        (pair.on_primary.semi_sync_status(D).await.ok()?.waiting > 0).then_some(())
    })
    .await;
    let end = pair.on_primary.close_writes(Duration::from_secs(8)).await;
    match flavour {
        Flavour::Mariadb => assert!(matches!(end, Closing::Closed { .. }), "{end:?}"),
        Flavour::Mysql => assert!(matches!(end, Closing::StillOpen { .. }), "{end:?}"),
    }
    assert!(tokio::time::timeout(D, canary).await.unwrap().unwrap().is_err(), "nobody acknowledged it");
    pair.replica.process().thaw();
}

async fn closing_while_commits_wait_for_the_replica(flavour: Flavour) {
    let pair = in_sync(flavour).await;
    pair.replica.process().freeze();
    let mut app = pair.primary.app().await;
    let writer = tokio::spawn(async move { app.query_drop("INSERT INTO t (v) VALUES (1)").await });
    eventually("the commit waits", || async {
        (pair.on_primary.semi_sync_status(D).await.ok()?.waiting > 0).then_some(())
    })
    .await;
    let end = pair.on_primary.close_writes(Duration::from_secs(8)).await;
    assert!(tokio::time::timeout(D, writer).await.unwrap().unwrap().is_err(), "never acknowledged");
    match flavour {
        Flavour::Mariadb => assert!(matches!(end, Closing::Closed { .. }), "{end:?}"),
        // It ends the session and keeps the waiting commit with its lock; what matters is that it is said.
        Flavour::Mysql => assert!(matches!(end, Closing::StillOpen { .. }), "{end:?}"),
    }
    pair.replica.process().thaw();
    eventually("it is closed when the acknowledgement has come", || async {
        let end = pair.on_primary.close_writes(Duration::from_secs(8)).await;
        matches!(end, Closing::Closed { .. }).then_some(())
    })
    .await;
}
