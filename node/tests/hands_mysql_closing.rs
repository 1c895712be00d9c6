//! Closing a real server of each family: with writers in the way, with commits and canaries that wait for a replica.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton_node::hands::mysql::close::Closing;
use baton_node::hands::mysql::flavour;
use baton_node::hands::mysql::semisync::Switch;
use baton_runbooks::observe::Flavour;
use mysql_async::prelude::Queryable;
use support::database::{D, Database, is_there, on_both};
use support::eventually;
use support::pair::{Pair, in_sync};
use tokio::task::JoinHandle;

on_both!(
    closing_is_bounded_with_writers_in_the_way,
    closing_a_frozen_or_lost_server_says_so,
    closing_takes_the_sessions_that_were_ready,
    closing_dials_anew_when_what_was_ready_is_lost,
    closing_while_commits_wait_for_the_replica,
    closing_while_a_canary_waits_for_the_replica,
    a_server_that_waits_to_close_is_open,
    a_closed_primary_sends_to_nobody_any_more,
    a_transaction_is_as_old_in_every_time_zone,
);

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
    let threads = format!("SELECT COUNT(*) FROM ({}) AS t", flavour::dump_sessions(flavour, None));
    eventually("its replica is connected, again on MySQL", || async {
        (pair.primary.value(&threads).await == "1").then_some(())
    })
    .await;
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

/// InnoDB tells its beginning in the zone of the host, and `NOW()` is in that of the session.
async fn a_transaction_is_as_old_in_every_time_zone(flavour: Flavour) {
    const BEGIN: &str = "BEGIN; INSERT INTO t (v) VALUES (1)";
    let db = Database::start(flavour, 1, &[]).await;
    db.as_primary().await;
    for zone in ["SYSTEM", "+09:00", "-09:00"] {
        db.root().await.query_drop(format!("SET GLOBAL time_zone='{zone}'")).await.unwrap();
        // A session has the zone that the server had when it began.
        let hands = db.hands();
        // The server counts whole seconds: one that spans the turn of two may be long or not.
        let counted = eventually("a transaction begins and is counted within one second", || async {
            let second = db.value("SELECT UNIX_TIMESTAMP()").await;
            let mut fresh = db.app().await;
            // What InnoDB tells may be a tenth of a second old.
            fresh.query_drop("DO SLEEP(0.15)").await.unwrap();
            fresh.query_drop(BEGIN).await.unwrap();
            let counted = hands.long_transactions(D).await.unwrap();
            fresh.query_drop("ROLLBACK").await.unwrap();
            (db.value("SELECT UNIX_TIMESTAMP()").await == second).then_some(counted)
        })
        .await;
        assert_eq!(counted, 0, "{zone}: it has just begun");
        let mut long = db.app().await;
        long.query_drop(BEGIN).await.unwrap();
        long.query_drop("DO SLEEP(2)").await.unwrap();
        assert_eq!(hands.long_transactions(D).await.unwrap(), 1, "{zone}: it is two seconds old");
        long.query_drop("ROLLBACK").await.unwrap();
    }
}

/// Of a client, beside a replica that is frozen.
async fn a_commit_that_waits(pair: &Pair) -> JoinHandle<mysql_async::Result<()>> {
    let mut app = pair.primary.app().await;
    let waiting = tokio::spawn(async move { app.query_drop("INSERT INTO t (v) VALUES (1)").await });
    eventually("the commit waits", || async {
        (pair.on_primary.semi_sync_status(D).await.ok()?.waiting > 0).then_some(())
    })
    .await;
    waiting
}

/// Nobody could connect before the statement either: clients hold every connection, and one of the agent's is left.
#[tokio::test]
async fn mysql_whose_connections_are_all_taken_lets_its_commits_go() {
    if !is_there(Flavour::Mysql) {
        return;
    }
    let pair = in_sync(Flavour::Mysql).await;
    pair.replica.process().freeze();
    let waiting = a_commit_that_waits(&pair).await;
    let (mut root, mut later) = (pair.primary.root().await, pair.primary.root().await);
    root.query_drop("SET GLOBAL max_connections=1").await.unwrap();
    assert!(pair.primary.try_root2().await.is_err(), "somebody can still connect");
    pair.on_primary.semi_sync_source(Switch::Off, D).await.unwrap();
    assert!(tokio::time::timeout(D, waiting).await.unwrap().unwrap().is_ok(), "it waits for nobody");
    later.query_drop("SET GLOBAL max_connections=100").await.unwrap();
    pair.replica.process().thaw();
}

/// Its variables are locked until the thread that reads acknowledgements has looked up, and nobody can connect.
#[tokio::test]
async fn mysql_switching_off_wakes_the_reader_of_acknowledgements() {
    if !is_there(Flavour::Mysql) {
        return;
    }
    let pair = in_sync(Flavour::Mysql).await;
    pair.replica.process().freeze();
    let waiting = a_commit_that_waits(&pair).await;
    pair.on_primary.semi_sync_source(Switch::Off, D).await.unwrap();
    waiting.await.unwrap().unwrap();
    // The replica is frozen, so its dump thread ends only if it is ended.
    eventually("the dump thread is gone", || async {
        let threads = "SELECT COUNT(*) FROM performance_schema.processlist WHERE command LIKE 'Binlog Dump%'";
        (pair.primary.value(threads).await == "0").then_some(())
    })
    .await;
    pair.replica.process().thaw();
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

/// Clients hold every connection by then, so that none could be dialled.
async fn closing_takes_the_sessions_that_were_ready(flavour: Flavour) {
    let db = Database::start(flavour, 1, &[]).await;
    let hands = db.as_primary().await;
    let ready = hands.ready_to_close().await;
    assert!(ready.is_some());
    let mut root = db.root().await;
    let own = "SELECT id FROM information_schema.processlist WHERE user='baton'";
    let before: Vec<u64> = root.query(own).await.unwrap();
    root.query_drop("SET GLOBAL max_connections=10").await.unwrap();
    let mut taken = Vec::new();
    while let Ok(client) = db.try_root2().await {
        taken.push(client);
    }
    let clients = u64::try_from(taken.len()).unwrap();
    assert!(clients > 0);
    let end = hands.close_writes_with(ready, Duration::from_secs(8)).await;
    assert!(matches!(end, Closing::Closed { killed, .. } if killed > clients), "{end:?}");
    assert!(hands.is_read_only(D).await.unwrap());
    // Thrown away, they would have made room for two others, and one of those is kept for the next call.
    let mut root = eventually("the clients are gone", || async { db.try_root2().await.ok() }).await;
    let after: Vec<u64> = root.query(own).await.unwrap();
    assert!(!after.is_empty() && after.iter().all(|id| before.contains(id)), "{before:?}, then {after:?}");
}

async fn closing_dials_anew_when_what_was_ready_is_lost(flavour: Flavour) {
    let db = Database::start(flavour, 1, &[]).await;
    let hands = db.as_primary().await;
    let ready = hands.ready_to_close().await;
    assert!(ready.is_some());
    let mut root = db.root().await;
    let own: Vec<u64> =
        root.query("SELECT id FROM information_schema.processlist WHERE user='baton'").await.unwrap();
    let mut ended = 0;
    for id in own {
        match root.query_drop(format!("KILL {id}")).await {
            Ok(()) => ended += 1,
            Err(error) => println!("{id}: {error}"),
        }
    }
    assert!(ended >= 2, "the closer and the killer");
    let end = hands.close_writes_with(ready, Duration::from_secs(8)).await;
    assert!(matches!(end, Closing::Closed { .. }), "{end:?}");
    assert!(hands.is_read_only(D).await.unwrap());
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
    let waiting = a_commit_that_waits(&pair).await;
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
    let waiting = a_commit_that_waits(&pair).await;
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
    let writer = a_commit_that_waits(&pair).await;
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
