//! Extra transactions are saved, counted, and nothing else with them: on real servers.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use baton_node::hands::mysql::Mysql;
use baton_node::hands::mysql::export::{Export, RowCounts, covers};
use baton_node::hands::mysql::replica::{Attached, SourceServer};
use baton_runbooks::observe::Flavour;
use mysql_async::prelude::Queryable;
use support::database::{D, Database, binlog_reader, on_both};
use support::eventually;

on_both!(extra_transactions_are_saved_once_and_counted);

const LONG: Duration = Duration::from_secs(60);

async fn extra_transactions_are_saved_once_and_counted(flavour: Flavour) {
    let primary = Database::start(flavour, 1, &[]).await;
    let old = Database::start(flavour, 2, &[]).await;
    let on_primary = primary.as_primary().await;
    let on_old = old.hands();
    let source = |executed| SourceServer { host: "127.0.0.1".into(), port: primary.port, executed };
    let theirs = on_primary.facts(D).await.unwrap().executed;
    assert_eq!(on_old.attach(&source(theirs), D).await.unwrap(), Attached::Attached);
    on_old.start_replication(D).await.unwrap();
    primary.root().await.query_drop("INSERT INTO app.t (id,v) VALUES (1,1),(2,2),(3,3)").await.unwrap();
    eventually("it has followed", || async {
        let (mine, theirs) = (on_old.facts(D).await.ok()?, on_primary.facts(D).await.ok()?);
        (mine.position == theirs.position).then_some(())
    })
    .await;
    let both = on_primary.facts(D).await.unwrap();

    // The two part: each writes on its own, with a rotated log in between.
    let mut root = old.root().await;
    root.query_drop("STOP REPLICA; RESET REPLICA ALL").await.unwrap();
    if flavour == Flavour::Mysql {
        root.query_drop("SET GLOBAL super_read_only=0").await.unwrap();
    }
    root.query_drop("FLUSH BINARY LOGS; SET GLOBAL read_only=0").await.unwrap();
    root.query_drop("SET SESSION binlog_format=ROW").await.unwrap();
    root.query_drop("UPDATE app.t SET v=v+1 WHERE id<3; FLUSH BINARY LOGS; CREATE TABLE app.u (id INT)")
        .await
        .unwrap();
    root.query_drop("INSERT INTO app.u VALUES (7),(8); DELETE FROM app.t WHERE id=3").await.unwrap();
    root.query_drop("SET GLOBAL read_only=1").await.unwrap();
    if flavour == Flavour::Mysql {
        root.query_drop("SET GLOBAL super_read_only=1").await.unwrap();
    }

    let Attached::Refused { extra } = on_old.attach(&source(both.executed.clone()), D).await.unwrap() else {
        panic!("it was attached");
    };
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("quarantine");
    let reader = binlog_reader(flavour, dir.path());
    let export = on_old.export_extra(&extra, &into, &reader, LONG).await.unwrap();
    assert_eq!((export.transactions, export.statements), (4, 1), "{export:?}");
    assert!(export.transactions_max >= 4 && (flavour == Flavour::Mariadb || export.transactions_max == 4));
    assert_eq!(export.tables["app.t"], RowCounts { inserted: 0, updated: 2, deleted: 1 });
    assert_eq!(export.tables["app.u"], RowCounts { inserted: 2, updated: 0, deleted: 0 });
    assert_eq!((export.tables.len(), export.rows()), (2, 5), "{export:?}");
    assert_eq!(Export::find(&into, &extra).as_ref(), Some(&export), "the next agent knows it");
    let sql = std::fs::read_to_string(&export.file).unwrap();
    assert!(sql.contains("@1=7") && sql.contains("CREATE TABLE app.u") && sql.contains("BINLOG '"), "{sql}");
    assert!(!sql.contains("INSERT INTO `app`.`t`"), "what both have is not saved: {sql}");
    assert!(sql.contains("-- app.t: 0 inserted, 2 updated, 1 deleted"), "{sql}");
    let left: Vec<_> = std::fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing unfinished is left: {left:?}");

    // Once is enough: the finished one is found without a program.
    let again = on_old.export_extra(&extra, &into, std::path::Path::new("/nonexistent"), LONG).await.unwrap();
    assert_eq!(again, export);
    std::fs::remove_file(&export.file).unwrap();
    let refused = on_old.export_extra(&extra, &into, std::path::Path::new("/nonexistent"), LONG).await;
    assert!(refused.unwrap_err().to_string().contains("/nonexistent cannot be run"));
    if flavour == Flavour::Mariadb {
        restores(&primary, &old, &sql).await;
        // Purged, or never written: the export is there and empty, so that a resync can follow, which keeps the old data.
        let gone = on_old.export_extra("0-9-5..6", &into, &reader, LONG).await.unwrap();
        assert_eq!((gone.transactions, gone.transactions_max, gone.rows()), (0, 2, 0), "{gone:?}");
    }
    what_comes_later_is_not_saved(&old, &on_old, &both.executed, &extra).await;
}

/// What is written after the export is found, whatever the server was asked before.
async fn what_comes_later_is_not_saved(old: &Database, on_old: &Mysql, theirs: &str, saved: &str) {
    let before = on_old.had(D).await.unwrap();
    assert!(covers(old.flavour, saved, &before.extra(theirs).unwrap()).unwrap());
    let (open, close) = match old.flavour {
        Flavour::Mariadb => ("", ""),
        Flavour::Mysql => ("SET GLOBAL super_read_only=0; ", "; SET GLOBAL super_read_only=1"),
    };
    let stray = format!("{open}INSERT INTO app.u VALUES (9){close}");
    old.root().await.query_drop(stray).await.unwrap();
    let extra = on_old.had(D).await.unwrap().extra(theirs).unwrap();
    assert!(!covers(old.flavour, saved, &extra).unwrap(), "{extra} beside {saved}");
    assert!(covers(old.flavour, saved, &before.extra(theirs).unwrap()).unwrap(), "it tells of its moment");
}

/// The SQL can be applied to the holder: there they are new transactions.
async fn restores(primary: &Database, old: &Database, sql: &str) {
    let mut client = tokio::process::Command::new("mariadb");
    client.args(["--no-defaults", "--binary-mode", "--user=root"]);
    client.arg(format!("--socket={}", primary.socket().display()));
    let mut client = client.stdin(std::process::Stdio::piped()).spawn().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client.stdin.take().unwrap(), sql.as_bytes()).await.unwrap();
    assert!(client.wait().await.unwrap().success());
    for table in ["app.t", "app.u"] {
        let sum = format!("CHECKSUM TABLE {table}");
        let sums = [primary, old].map(|server| async {
            server.root().await.query_first::<(String, u64), _>(&*sum).await.unwrap()
        });
        let [here, there] = sums;
        assert_eq!(here.await, there.await, "{table}");
    }
}
