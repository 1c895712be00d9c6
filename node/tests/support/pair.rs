//! A primary with a replica that is in sync, for the tests of the hands.

use baton_node::hands::mysql::replica::{Attached, SourceServer};
use baton_node::hands::mysql::semisync::Switch;
use baton_node::hands::mysql::{Mysql, gtid};
use baton_runbooks::observe::Flavour;

use super::database::{D, Database};
use super::eventually;

/// A primary and its replica, and the agent's hands on each.
pub struct Pair {
    pub primary: Database,
    pub replica: Database,
    pub on_primary: Mysql,
    pub on_replica: Mysql,
}

/// The server as one to follow.
pub async fn source(server: &Database, hands: &Mysql) -> SourceServer {
    let executed = hands.facts(D).await.unwrap().executed;
    SourceServer { host: "127.0.0.1".into(), port: server.port, executed }
}

/// A primary with a replica that is attached, semi-sync on, and seen to work by a canary.
pub async fn in_sync(flavour: Flavour) -> Pair {
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
