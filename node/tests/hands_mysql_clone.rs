//! A copy by MySQL's clone plugin takes the place of a server's own data, and follows. On real MySQL with the privileges of
//! the install guide.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use baton_node::hands::mysql::datadir::{DataDir, Standing};
use baton_node::hands::mysql::gtid;
use baton_node::hands::mysql::replica::{Attached, SourceServer};
use baton_runbooks::observe::Flavour;
use mysql_async::prelude::Queryable;
use support::database::{D, Database, is_there};
use support::eventually;

const LONG: Duration = Duration::from_secs(120);
const PLUGIN: &str = "--plugin-load-add=mysql_clone.so";

#[tokio::test]
async fn a_clone_takes_the_place_of_a_server_with_extra_transactions() {
    if !is_there(Flavour::Mysql) {
        return;
    }
    let primary = Database::start(Flavour::Mysql, 1, &[PLUGIN]).await;
    let mut node = Database::start(Flavour::Mysql, 2, &[PLUGIN]).await;
    let (on_primary, on_node) = (primary.as_primary().await, node.hands());
    assert!(on_node.has_clone_plugin(D).await.unwrap());
    let grant = "SET sql_log_bin=0; GRANT BACKUP_ADMIN ON *.* TO repl@'127.0.0.1'";
    primary.root().await.query_drop(grant).await.unwrap();
    primary.app().await.query_drop("INSERT INTO t (v) VALUES (1),(2)").await.unwrap();
    let stray = "SET GLOBAL super_read_only=0; CREATE DATABASE stray; SET GLOBAL super_read_only=1";
    node.root().await.query_drop(stray).await.unwrap();
    let before = on_primary.facts(D).await.unwrap().executed;
    assert_ne!(on_node.extra_transactions(&before, D).await.unwrap(), "");
    let uuid = node.value("SELECT @@server_uuid").await;

    let dir = DataDir::new(&node.dir.path().join("data"));
    let into = dir.begin_nested(Standing::Own).unwrap();
    on_node.end_clones(D).await.unwrap();
    on_node.clone_into("127.0.0.1", primary.port, &into, LONG).await.unwrap();
    assert!(on_node.clone_progress(D).await.unwrap() > 1 << 20);
    assert_eq!(
        node.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='stray'").await,
        "1"
    );
    primary.app().await.query_drop("INSERT INTO t (v) VALUES (3)").await.unwrap();
    dir.unnest().unwrap();
    node.kill();
    dir.dress().unwrap();
    dir.swap().unwrap();
    node.restart().await;

    let facts = on_node.facts(D).await.unwrap();
    assert!(facts.read_only && facts.replication.is_none(), "{facts:?}");
    assert!(
        gtid::contains(Flavour::Mysql, &facts.executed, &before).unwrap(),
        "it has what was copied: {facts:?}"
    );
    assert_ne!(
        node.value("SELECT @@server_uuid").await,
        uuid,
        "numbers of its old transactions are not used again"
    );
    let executed = on_primary.facts(D).await.unwrap().executed;
    let source = SourceServer { host: "127.0.0.1".into(), port: primary.port, executed };
    assert_eq!(on_node.attach(&source, D).await.unwrap(), Attached::Attached);
    on_node.start_replication(D).await.unwrap();
    eventually("the clone has everything", || async {
        let facts = on_node.facts(D).await.ok()?;
        assert_eq!(facts.replication.as_ref()?.sql_errno, 0, "{facts:?}");
        (node.value("SELECT COUNT(*) FROM app.t").await == "3").then_some(())
    })
    .await;
    assert_eq!(
        node.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='stray'").await,
        "0"
    );

    // What cannot be reached is an error with the server's words, and leaves the server as it is.
    let into = dir.begin_nested(Standing::Own).unwrap();
    on_node.clone_into("127.0.0.1", 1, &into, LONG).await.unwrap_err();
    assert!(on_node.facts(D).await.is_ok());
}
