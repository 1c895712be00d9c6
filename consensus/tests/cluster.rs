//! Three nodes: agreement, loss of the leader, restart, steering.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::{Duration, Instant};

use baton_consensus::{ProposeError, RequestError};
use baton_runbooks::ledger::Command;
use baton_runbooks::model::{Epoch, NodeId, RunId, Term};
use bytes::Bytes;
use harness::{Cluster, NAMES, SOON};

fn abandon() -> Command {
    Command::AbandonRun {
        run: RunId(1),
        epoch: Epoch(1),
        reason: "test".to_owned(),
        at: baton_runbooks::model::WallMs(0),
    }
}

#[tokio::test]
async fn all_nodes_agree_whoever_proposes() {
    let cluster = Cluster::formed().await;
    let mut last = 0;
    for name in NAMES {
        let applied = cluster.propose(name).await;
        assert!(applied.index > last, "in order");
        last = applied.index;
        assert!(cluster.node(name).committed().borrow().index >= last, "applied where it was proposed");
    }
    cluster.assert_same(last).await;
    for name in NAMES {
        let standing = cluster.standing(name);
        assert!(standing.voting && standing.problem.is_none(), "{standing:?}");
    }
    // A barrier on any node sees what another one has proposed.
    for (writer, reader) in [("db1", "db2"), ("db2", "mon"), ("mon", "db1")] {
        let index = cluster.propose(writer).await.index;
        let barrier = cluster.node(reader).read_barrier(SOON).await.unwrap();
        assert!(barrier >= index);
        assert!(cluster.node(reader).committed().borrow().index >= barrier);
    }
}

#[tokio::test]
async fn only_the_leader_itself_proposes_what_is_the_leaders() {
    let cluster = Cluster::formed().await;
    let leader = cluster.wait_leader().await;
    let other = NAMES.into_iter().find(|name| *name != leader).unwrap();
    let refused = cluster.node(other).propose(abandon(), SOON).await.unwrap_err();
    assert!(
        matches!(&refused, ProposeError::LeaderOnly { node } if *node == NodeId::from(leader)),
        "{refused}"
    );
    let term = cluster.standing(leader).term;
    let stale = cluster.node(leader).propose_as_leader(abandon(), Term(term.0 + 1), SOON).await.unwrap_err();
    assert!(matches!(stale, ProposeError::NotLeader { .. }), "{stale}");
    let not_me = cluster.node(other).propose_as_leader(abandon(), term, SOON).await.unwrap_err();
    assert!(matches!(not_me, ProposeError::NotLeader { .. }), "{not_me}");
    let applied = cluster.node(leader).propose_as_leader(abandon(), term, SOON).await.unwrap();
    cluster.assert_same(applied.index).await;
}

#[tokio::test]
async fn the_loss_of_the_leader_costs_an_election_and_nothing_else() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster.wait_leader().await;
    let before = cluster.propose("mon").await.index;
    let term = cluster.standing(leader).term;
    let lost = Instant::now();
    cluster.kill(leader).await;
    let next = cluster.wait_leader().await;
    println!("a new leader with a quorum after {:?}", lost.elapsed());
    let standing = cluster.standing(next);
    assert!(standing.term > term);
    assert!(standing.elected_at.unwrap() >= lost);
    let after = cluster.propose(next).await.index;
    assert!(after > before);
    cluster.assert_same(after).await;
    // The lost one comes back, knows the old ledger at once, and then the new one.
    cluster.start(leader);
    assert!(cluster.node(leader).committed().borrow().index > 0, "the last known ledger is there at once");
    cluster.wait(leader, "its vote", |standing| standing.voting).await;
    cluster.assert_same(after).await;
}

#[tokio::test]
async fn a_restart_of_all_keeps_the_ledger() {
    let mut cluster = Cluster::formed().await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    let ledger = cluster.node("db1").committed().borrow().ledger.clone();
    for name in NAMES {
        cluster.kill(name).await;
    }
    cluster.start("db1");
    // Alone, without any leader.
    assert_eq!(cluster.node("db1").committed().borrow().ledger.cluster, ledger.cluster);
    cluster.start("db2");
    cluster.start("mon");
    cluster.wait_leader().await;
    cluster.assert_same(index).await;
    assert_eq!(*cluster.node("db1").committed().borrow().ledger, *ledger);
}

#[tokio::test]
async fn leadership_goes_to_the_preferred_node_and_stays_there() {
    let cluster = Cluster::formed().await;
    for order in [["mon", "db2", "db1"], ["db2", "mon", "db1"], ["db1", "mon", "db2"]] {
        for name in NAMES {
            cluster.node(name).prefer(order.iter().map(|name| NodeId::from(*name)).collect());
        }
        let changed = Instant::now();
        let best = order[0];
        cluster.wait(best, "leadership", |standing| standing.is_leader && standing.own_term_applied).await;
        println!("leadership moved to {best} after {:?}", changed.elapsed());
        cluster.wait_leader().await;
        let term = cluster.standing(best).term;
        // Long enough for several hand-overs, if it did ping-pong.
        let mut standing = cluster.node(best).standing();
        let lost = standing.wait_for(|standing| !standing.is_leader || standing.term != term);
        assert!(tokio::time::timeout(Duration::from_secs(2), lost).await.is_err(), "it stays");
        cluster.propose("db1").await;
    }
}

#[tokio::test]
async fn leadership_is_not_handed_to_a_node_that_is_away() {
    let mut cluster = Cluster::formed().await;
    let order: Vec<NodeId> = ["mon", "db2", "db1"].map(NodeId::from).to_vec();
    for name in NAMES {
        cluster.node(name).prefer(order.clone());
    }
    cluster.wait("mon", "leadership", |standing| standing.is_leader).await;
    cluster.kill("mon").await;
    cluster.wait("db2", "leadership", |standing| standing.is_leader && standing.own_term_applied).await;
    let refused = cluster.node("db2").hand_over(&"mon".into()).await;
    assert!(refused.is_err());
    let term = cluster.standing("db2").term;
    let mut standing = cluster.node("db2").standing();
    let lost = standing.wait_for(|standing| standing.term != term);
    assert!(tokio::time::timeout(Duration::from_secs(2), lost).await.is_err(), "no attempt is made");
    cluster.start("mon");
    cluster.node("mon").prefer(order);
    cluster.wait("mon", "leadership again", |standing| standing.is_leader).await;
}

#[tokio::test]
async fn messages_reach_the_peer_with_the_senders_name() {
    let mut cluster = Cluster::formed().await;
    for (from, to) in [("db1", "db2"), ("db2", "mon"), ("mon", "db1")] {
        cluster.node(from).request(&to.into(), Bytes::from_static(b"hello"), SOON).await.unwrap();
        cluster.wait_heard(to, &format!("{from}: hello")).await;
    }
    for (from, to) in [("db1", "db2"), ("db2", "mon"), ("mon", "db1")] {
        cluster.node(from).post(&to.into(), Bytes::from_static(b"by the way"));
        cluster.wait_heard(to, &format!("{from}: by the way")).await;
    }
    let large = Bytes::from(vec![0; 17 << 20]);
    let refused = cluster.node("db1").request(&"db2".into(), large, SOON).await.unwrap_err();
    assert!(matches!(refused, RequestError::TooLarge { .. }), "{refused}");
    let oneself = cluster.node("db1").request(&"db1".into(), Bytes::new(), SOON).await.unwrap_err();
    assert!(matches!(oneself, RequestError::NotAPeer { .. }), "{oneself}");
    cluster.kill("db2").await;
    let gone = loop {
        match cluster.node("db1").request(&"db2".into(), Bytes::new(), Duration::from_secs(1)).await {
            Err(RequestError::Broken { .. }) => {}
            other => break other,
        }
    };
    assert!(matches!(gone, Err(RequestError::NotConnected { .. })), "{gone:?}");
}

#[tokio::test]
async fn without_a_quorum_nothing_is_applied_and_it_is_said() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster.wait_leader().await;
    for name in NAMES.into_iter().filter(|name| *name != leader) {
        cluster.kill(name).await;
    }
    let index = cluster.node(leader).committed().borrow().index;
    let command = harness::release(Epoch(0), baton_runbooks::model::SyncGeneration(0));
    let failed = cluster.node(leader).propose(command, Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(failed, ProposeError::NoLeader | ProposeError::Unknown), "{failed}");
    assert!(cluster.node(leader).read_barrier(Duration::from_secs(1)).await.is_err());
    assert_eq!(cluster.node(leader).committed().borrow().index, index);
    let acked = cluster.standing(leader).quorum_acked_at;
    assert!(acked.is_none_or(|at| at.elapsed() > Duration::from_millis(500)), "its authority ages");
}

#[tokio::test]
async fn a_purged_log_loses_nothing_and_a_new_node_gets_it_as_a_snapshot() {
    let mut cluster = Cluster::formed().await;
    // Enough for a snapshot and a purge of what is before it.
    let mut index = 0;
    for _ in 0..50 {
        let command = || harness::release(Epoch(0), baton_runbooks::model::SyncGeneration(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let handle = cluster.node("db1").clone();
            tasks.spawn(async move { handle.propose(command(), SOON).await.unwrap().index });
        }
        index = tasks.join_all().await.into_iter().max().unwrap();
    }
    cluster.assert_same(index).await;
    cluster.kill("db2").await;
    std::fs::remove_file(cluster.log_file("db2")).unwrap();
    cluster.start("db2");
    cluster.wait("db2", "its vote", |standing| standing.voting).await;
    cluster.assert_same(index).await;
    let ledger = cluster.node("db1").committed().borrow().ledger.clone();
    for name in NAMES {
        cluster.kill(name).await;
        let length = std::fs::metadata(cluster.log_file(name)).unwrap().len();
        assert!(length < 4 << 20, "{name}'s log is bounded: {length} bytes");
    }
    for name in NAMES {
        cluster.start(name);
        assert_eq!(*cluster.node(name).committed().borrow().ledger, *ledger, "{name} knows it at once");
    }
    cluster.wait_leader().await;
    let index = cluster.propose("db2").await.index;
    cluster.assert_same(index).await;
}
