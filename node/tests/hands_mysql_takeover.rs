//! Semi-sync, canary, takeover and rejoining with two real servers of a family.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use baton_node::hands::mysql::gtid;
use baton_node::hands::mysql::promote::Drained;
use baton_node::hands::mysql::replica::Attached;
use baton_node::hands::mysql::semisync::Switch;
use baton_runbooks::observe::Flavour;
use mysql_async::prelude::Queryable;
use support::database::{D, on_both};
use support::eventually;
use support::pair::{in_sync, source};

on_both!(
    canary_is_received_and_applied,
    the_short_look_says_what_the_probe_says,
    commits_that_wait_for_the_replica_block_neither_probe_nor_write_probe,
    takeover_loses_nothing_that_was_received,
    promotion_is_undone_without_losing_the_relay_log,
    broken_applier_ends_the_drain,
    errant_transactions_refuse_the_attachment,
    a_receiver_that_gave_up_is_started_again_and_goes_on_trying,
    what_was_received_survives_an_attachment_to_the_same_source,
    relay_logs_of_a_restarted_replica_are_saved,
);

/// What to say to this family.
fn word<'a>(flavour: Flavour, mariadb: &'a str, mysql: &'a str) -> &'a str {
    match flavour {
        Flavour::Mariadb => mariadb,
        Flavour::Mysql => mysql,
    }
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

async fn the_short_look_says_what_the_probe_says(flavour: Flavour) {
    let pair = in_sync(flavour).await;
    for (hands, is_primary) in [(&pair.on_primary, true), (&pair.on_replica, false)] {
        eventually("both looks say the same", || async {
            let (facts, seen) = (hands.facts(D).await.ok()?, hands.standing(D).await.ok()?);
            let same = seen.flavour == facts.flavour
                && seen.read_only == facts.read_only
                && seen.position == facts.position
                && seen.replication == facts.replication
                && seen.backlog == facts.apply_backlog;
            same.then_some(())
        })
        .await;
        let seen = hands.standing(D).await.unwrap();
        assert_eq!((seen.read_only, seen.replication.is_none()), (!is_primary, is_primary), "{seen:?}");
        assert_eq!(seen.is_promoted(), is_primary);
        let is_source = hands.facts(D).await.unwrap().semi_sync.source_enabled;
        assert_eq!(hands.is_semi_sync_source(D).await.unwrap(), is_source);
    }
    pair.on_primary.semi_sync_source(Switch::Off, D).await.unwrap();
    assert!(!pair.on_primary.is_semi_sync_source(D).await.unwrap());
    pair.on_primary.semi_sync_source(Switch::On, D).await.unwrap();
    assert!(pair.on_primary.is_semi_sync_source(D).await.unwrap());
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

/// MySQL's receiving thread ends for good after ten attempts, unless it is told otherwise: within half a minute of a lost
/// primary, and with it goes what the ledger vouches for.
async fn a_receiver_that_gave_up_is_started_again_and_goes_on_trying(flavour: Flavour) {
    let pair = in_sync(flavour).await;
    let mut root = pair.replica.root().await;
    let few = word(flavour, "DO 0", "CHANGE REPLICATION SOURCE TO SOURCE_RETRY_COUNT=3");
    root.query_drop(format!("STOP REPLICA IO_THREAD; {few}")).await.unwrap();
    let ended = pair.on_replica.facts(D).await.unwrap().replication.unwrap();
    assert!(ended.sql_running && !ended.receiver_alive && !ended.io_running, "{ended:?}");
    let server = source(&pair.primary, &pair.on_primary).await;
    assert_eq!(pair.on_replica.attach(&server, D).await.unwrap(), Attached::Attached);
    pair.on_replica.start_replication(D).await.unwrap();
    pair.on_primary.canary(6, D).await.unwrap();
    assert!(pair.on_replica.facts(D).await.unwrap().replication.unwrap().receiver_alive);
    assert!(!pair.on_replica.gives_up_soon(D).await.unwrap(), "it is told already");

    // And one that somebody else has set up, and that runs.
    root.query_drop(format!("STOP REPLICA IO_THREAD; {few}; START REPLICA IO_THREAD")).await.unwrap();
    assert_eq!(pair.on_replica.gives_up_soon(D).await.unwrap(), flavour == Flavour::Mysql);
    let applier = |threads: &str| threads.split_once('/').unwrap().1.to_owned();
    let before = pair.on_replica.facts(D).await.unwrap().instance.threads;
    pair.on_replica.outlast_source(D).await.unwrap();
    assert!(!pair.on_replica.gives_up_soon(D).await.unwrap());
    let after = pair.on_replica.facts(D).await.unwrap().instance.threads;
    assert_eq!(applier(&after), applier(&before), "the applier goes on");
    pair.on_primary.canary(7, D).await.unwrap();
}

/// MySQL deletes its relay logs when a stopped replica is told anything new about its source: what it had acknowledged and not
/// applied would be gone until it is sent again.
async fn what_was_received_survives_an_attachment_to_the_same_source(flavour: Flavour) {
    // MariaDB throws it away at the start, in any case.
    if flavour == Flavour::Mariadb {
        return;
    }
    let pair = in_sync(flavour).await;
    let mut root = pair.replica.root().await;
    let few = "CHANGE REPLICATION SOURCE TO SOURCE_RETRY_COUNT=3";
    root.query_drop(format!("STOP REPLICA IO_THREAD; {few}; START REPLICA IO_THREAD")).await.unwrap();
    root.query_drop("STOP REPLICA SQL_THREAD").await.unwrap();
    pair.primary.app().await.query_drop("INSERT INTO t (v) VALUES (1),(2)").await.unwrap();
    root.query_drop("STOP REPLICA").await.unwrap();
    let received = pair.on_replica.capture_received(D).await.unwrap();
    assert_eq!(received.backlog, 1, "{received:?}");
    pair.on_replica.outlast_source(D).await.unwrap_err();
    let server = source(&pair.primary, &pair.on_primary).await;
    assert_eq!(pair.on_replica.attach(&server, D).await.unwrap(), Attached::Attached);
    assert_eq!(pair.on_replica.capture_received(D).await.unwrap(), received, "nothing is thrown away");
    pair.on_replica.start_replication(D).await.unwrap();
    assert_eq!(pair.on_replica.drain(&received.received, D, |_| {}).await.unwrap(), Drained::Reached);
    assert!(pair.on_replica.gives_up_soon(D).await.unwrap());
    pair.on_replica.outlast_source(D).await.unwrap();
    assert!(!pair.on_replica.gives_up_soon(D).await.unwrap());
}
