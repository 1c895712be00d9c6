//! A server that runs on a copy of another's data, made as a resync makes it, knows its place: it follows, and extra
//! transactions are found later. On real MariaDB with the privileges of the install guide.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use baton_node::hands::mysql::datadir::{DataDir, Standing};
use baton_node::hands::mysql::replica::{Attached, SourceServer};
use baton_node::hands::mysql::seed::{position_of_copy, state_of_copy};
use baton_runbooks::observe::Flavour;
use mysql_async::prelude::Queryable;
use support::database::{D, Database, is_there};
use support::eventually;

/// Everything of `server` into `copy`, prepared.
fn back_up(server: &Database, copy: &Path) {
    let options = server.dir.path().join("options.cnf");
    let socket = server.socket();
    let text = format!("[mariadb-backup]\nuser=baton\npassword=\"se'cret\"\nsocket={}\n", socket.display());
    std::fs::write(&options, text).unwrap();
    let target = format!("--target-dir={}", copy.display());
    let run = |args: &[&str]| {
        let ended = Command::new("mariadb-backup").args(args).stderr(Stdio::piped()).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    run(&[&format!("--defaults-file={}", options.display()), "--backup", &target]);
    run(&["--no-defaults", "--prepare", &target]);
}

#[tokio::test]
async fn a_copied_server_follows_and_its_extra_transactions_are_found_later() {
    if !is_there(Flavour::Mariadb) {
        return;
    }
    let primary = Database::start(Flavour::Mariadb, 1, &[]).await;
    let mut node = Database::start(Flavour::Mariadb, 2, &[]).await;
    let on_primary = primary.as_primary().await;
    let mut app = primary.app().await;
    app.query_drop("INSERT INTO t (v) VALUES (1),(2)").await.unwrap();
    // The node wrote on its own: it cannot be attached.
    node.root().await.query_drop("CREATE DATABASE stray").await.unwrap();
    let on_node = node.hands();
    let state = on_primary.facts(D).await.unwrap().executed;
    let refused = on_node.extra_transactions(&state, D).await.unwrap();
    assert_eq!(refused, "0-2-1..1");

    // Something happens between the question and the copy, as always.
    app.query_drop("INSERT INTO t (v) VALUES (3)").await.unwrap();
    let dir = DataDir::new(&node.dir.path().join("data"));
    let incoming = dir.begin(Standing::Own).unwrap();
    back_up(&primary, &incoming);
    app.query_drop("INSERT INTO t (v) VALUES (4)").await.unwrap();
    let position = position_of_copy(&incoming).unwrap();
    let state = state_of_copy(&state, &position).unwrap();
    node.kill();
    dir.dress().unwrap();
    dir.swap().unwrap();
    node.restart().await;
    let facts = on_node.facts(D).await.unwrap();
    assert!(facts.read_only && facts.executed.is_empty() && facts.replication.is_none(), "{facts:?}");
    on_node.seed(&state, &position, D).await.unwrap();
    on_node.seed(&state, &position, D).await.unwrap();

    let executed = on_primary.facts(D).await.unwrap().executed;
    let source = SourceServer { host: "127.0.0.1".into(), port: primary.port, executed };
    assert_eq!(on_node.attach(&source, D).await.unwrap(), Attached::Attached);
    on_node.start_replication(D).await.unwrap();
    app.query_drop("INSERT INTO t (v) VALUES (5)").await.unwrap();
    eventually("the copy has everything", || async {
        let facts = on_node.facts(D).await.ok()?;
        assert_eq!(facts.replication.as_ref()?.sql_errno, 0, "{facts:?}");
        (node.value("SELECT COUNT(*) FROM app.t").await == "5").then_some(())
    })
    .await;
    assert_eq!(
        node.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='stray'").await,
        "0"
    );
    let theirs = on_primary.facts(D).await.unwrap().executed;
    assert_eq!(on_node.extra_transactions(&theirs, D).await.unwrap(), "");

    // A later one is found, though a transaction of the primary's came in between.
    node.root().await.query_drop("STOP SLAVE; CREATE DATABASE stray").await.unwrap();
    let extra = on_node.extra_transactions(&theirs, D).await.unwrap();
    assert!(extra.starts_with("0-2-"), "{extra}");
    on_primary.seed("", "0-1-1", D).await.unwrap_err();
}
