//! The probe and the write probe against a real MariaDB and a real MySQL in all the states that must be told apart.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use baton_node::hands::mysql::replica::SourceServer;
use baton_node::hands::mysql::{Mysql, MysqlError, gtid};
use baton_node::hands::server;
use baton_runbooks::observe::{Flavour, ProbeFailure};
use mysql_async::prelude::Queryable;
use support::database::{D, Database, on_both};
use support::eventually;

on_both!(
    facts_of_a_primary,
    write_probe_leaves_no_transaction_behind,
    who_writes_finds_tables_that_were_dropped,
    failures_are_told_apart,
    frozen_server_gathers_no_connections,
    error_of_the_last_statement_of_a_text_is_seen,
);

async fn facts_of_a_primary(flavour: Flavour) {
    let db = Database::start(flavour, 1, &[]).await;
    let hands = db.hands();
    let facts = hands.probe(D).await.unwrap();
    assert_eq!(facts.flavour, flavour);
    assert_eq!(facts.version.contains("MariaDB"), flavour == Flavour::Mariadb);
    assert!(facts.read_only, "boots read-only");
    assert_eq!(facts.instance.server, server::listener(&db.socket()).await.unwrap().to_string());
    assert!(facts.instance.server.starts_with(&format!("{}@", db.process().pid())));
    assert_eq!(facts.instance.threads, "");
    assert_eq!(facts.replication, None);
    assert_eq!((facts.canary_applied, facts.apply_backlog), (0, Some(0)));

    hands.promote("", D).await.unwrap();
    assert!(hands.is_promoted(D).await.unwrap());
    hands.ensure_schema(D).await.unwrap();
    hands.ensure_schema(D).await.unwrap();
    let canary = hands.canary(42, D).await.unwrap();
    let _client = db.root().await;
    let facts = hands.probe(D).await.unwrap();
    assert!(!facts.read_only);
    assert_eq!(facts.canary_applied, 42);
    assert_eq!(facts.position, canary.position);
    assert!(gtid::contains(flavour, &facts.executed, &canary.position).unwrap());
    assert_eq!(facts.sessions, 1, "the agent's own sessions do not count");
    assert!(!facts.semi_sync.source_enabled);
}

async fn write_probe_leaves_no_transaction_behind(flavour: Flavour) {
    let db = Database::start(flavour, 1, &[]).await;
    let hands = db.as_primary().await;
    let before = hands.probe(D).await.unwrap().executed;
    for _ in 0..3 {
        hands.write_probe(D).await.unwrap();
    }
    assert_eq!(hands.probe(D).await.unwrap().executed, before);
    assert_eq!(db.value("SELECT n FROM baton.probe WHERE id=1").await, "3");
    db.root().await;
    hands.close_writes(D).await;
    hands.write_probe(D).await.unwrap_err();
    hands.canary(7, D).await.unwrap_err();
    assert_eq!(db.value("SELECT n FROM baton.probe WHERE id=1").await, "3");
    assert_eq!(db.value("SELECT value FROM baton.canary WHERE id=1").await, "0");
}

async fn who_writes_finds_tables_that_were_dropped(flavour: Flavour) {
    let db = Database::start(flavour, 1, &[]).await;
    let hands = db.as_primary().await;
    let harms = [
        ("DROP TABLE baton.canary", true),
        ("DELETE FROM baton.canary", true),
        ("DROP DATABASE baton", true),
        ("DROP TABLE baton.probe", false),
        ("DROP DATABASE baton", false),
    ];
    for (number, (harm, by_canary)) in (10..).step_by(2).zip(harms) {
        hands.write_probe(D).await.unwrap();
        hands.canary(number, D).await.unwrap();
        assert!(!hands.lacks_tables(), "before {harm}");
        db.root().await.query_drop(harm).await.unwrap();
        if by_canary {
            hands.canary(number + 1, D).await.unwrap_err();
        } else {
            hands.write_probe(D).await.unwrap_err();
        }
        assert!(hands.lacks_tables(), "{harm}");
        hands.ensure_schema(D).await.unwrap();
        assert!(!hands.lacks_tables(), "after {harm}");
    }
}

async fn failures_are_told_apart(flavour: Flavour) {
    let mut db = Database::start(flavour, 1, &["--max-connections=10"]).await;
    let hands = db.hands();
    hands.probe(D).await.unwrap();

    let mut access = db.access();
    access.password = "wrong".into();
    let failure = Mysql::new(access).unwrap().probe(D).await.unwrap_err();
    assert!(
        matches!(&failure, ProbeFailure::WrongCredentials { message } if message.contains("baton")),
        "{failure:?}"
    );

    // The agent's open session answers when no connection is left, even for privileged accounts.
    let mut crowd = Vec::new();
    while let Ok(conn) = db.try_root2().await {
        crowd.push(conn);
        assert!(crowd.len() < 20);
    }
    assert_eq!(db.hands().probe(D).await.unwrap_err(), ProbeFailure::TooManyConnections);
    hands.probe(D).await.unwrap();
    drop(crowd);

    db.process().freeze();
    let short = Duration::from_millis(300);
    for _ in 0..3 {
        let started = Instant::now();
        let failure = hands.probe(short).await.unwrap_err();
        assert_eq!(failure, ProbeFailure::Timeout { after_ms: 300 });
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    assert!(server::is_alive(hands.server_identity().await.unwrap()), "known without the server's help");
    db.process().thaw();
    eventually("the server answers again", || async { hands.probe(D).await.ok() }).await;

    let id = hands.server_identity().await.unwrap();
    let exit = tokio::spawn(server::exited(id));
    db.kill();
    tokio::time::timeout(D, exit).await.unwrap().unwrap().unwrap();
    assert_eq!(hands.probe(D).await.unwrap_err(), ProbeFailure::Refused);
    std::fs::remove_file(db.socket()).unwrap();
    assert_eq!(hands.probe(D).await.unwrap_err(), ProbeFailure::Refused);

    db.restart().await;
    let facts = hands.probe(D).await.unwrap();
    assert_ne!(facts.instance.server, id.to_string());
}

async fn frozen_server_gathers_no_connections(flavour: Flavour) {
    let db = Database::start(flavour, 1, &[]).await;
    let hands = db.hands();
    hands.probe(D).await.unwrap();
    db.process().freeze();
    for _ in 0..20 {
        hands.probe(Duration::from_millis(20)).await.unwrap_err();
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..20 {
        hands.probe(Duration::from_millis(20)).await.unwrap_err();
    }
    eventually("sockets are closed", || async { (open() <= before + 4).then_some(()) }).await;
    db.process().thaw();
}

async fn error_of_the_last_statement_of_a_text_is_seen(flavour: Flavour) {
    // The last statement of the text is CHANGE MASTER or CHANGE REPLICATION SOURCE. MariaDB refuses the host's name;
    // MySQL takes it, and refuses to find positions by itself without transaction sets.
    let options: &[&str] = match flavour {
        Flavour::Mariadb => &[],
        Flavour::Mysql => &["--gtid-mode=OFF"],
    };
    let db = Database::start(flavour, 1, options).await;
    let hands = db.hands();
    let source = SourceServer { host: "x".repeat(300), port: 1, executed: String::new() };
    let error = hands.attach(&source, D).await.unwrap_err();
    assert!(matches!(error, MysqlError::Server { .. }), "{error}");
    // Without its privileges the agent's account is told so, and nothing is changed.
    let mut access = db.access();
    (access.user, access.password) = ("app".into(), String::new());
    let error = Mysql::new(access).unwrap().promote("", D).await.unwrap_err();
    assert!(error.is_code(1227), "{error}");
    assert!(hands.is_read_only(D).await.unwrap());
}
