//! A majority is lost for good: one survivor goes on alone, in a higher generation, and the others come back only as new members.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::{Duration, Instant};

use baton_consensus::force::{self, Boottime, ORDER_MS, Order, Place};
use baton_runbooks::ledger::Forced;
use baton_runbooks::model::{Generation, WallMs};
use harness::{Cluster, SOON};

/// Longer than any time after which an acknowledgement of a quorum is too old, and than an election.
const A_WHILE: Duration = Duration::from_secs(2);

fn order(generation: u64, place: Place) -> Order {
    Order {
        place,
        given: Boottime::now().unwrap(),
        forced: Forced {
            generation: Generation(generation),
            founder: String::new(),
            survivor: "db2".into(),
            gave_up: vec!["db1".into(), "mon".into()],
            last_index: 1,
            loss: None,
            by: "test".to_owned(),
            reason: "test".to_owned(),
            at: WallMs(0),
        },
    }
}

/// All are off; where db2's log ended.
async fn stopped(cluster: &mut Cluster) -> Place {
    let db2 = cluster.node("db2").clone();
    for name in ["db1", "mon", "db2"] {
        cluster.kill(name).await;
    }
    db2.place().unwrap()
}

/// A cluster of which only db2 is left, and goes on.
async fn forced() -> (Cluster, u64) {
    let mut cluster = Cluster::formed().await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    let place = stopped(&mut cluster).await;
    force::order(&cluster.state_dir("db2"), &order(1, place)).unwrap();
    cluster.start("db2");
    cluster
        .wait("db2", "its own leadership", |standing| standing.is_leader && standing.own_term_applied)
        .await;
    (cluster, index)
}

#[tokio::test]
async fn a_survivor_goes_on_alone_with_what_it_had() {
    let (mut cluster, index) = forced().await;
    let ledger = cluster.node("db2").committed().borrow().ledger.clone();
    assert_eq!((ledger.generation, ledger.forced.len()), (Generation(1), 1));
    assert_eq!(ledger.cluster, "shop", "the ledger is the one that it had");
    assert!(cluster.propose("db2").await.index > index, "the log goes on");
    // Alone, its own word is a quorum's, and never gets old.
    let until = Instant::now() + A_WHILE;
    while Instant::now() < until {
        let acked = cluster.standing("db2").quorum_acked_at.map(|at| at.elapsed());
        assert!(acked.is_some_and(|age| age < Duration::from_millis(400)), "{acked:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Once is enough, also if the order was not removed in time.
    let place = cluster.node("db2").place().unwrap();
    cluster.kill("db2").await;
    force::order(&cluster.state_dir("db2"), &order(1, place)).unwrap();
    cluster.start("db2");
    cluster
        .wait("db2", "its own leadership", |standing| standing.is_leader && standing.own_term_applied)
        .await;
    assert_eq!(cluster.node("db2").committed().borrow().ledger.forced.len(), 1);
    assert!(!cluster.state_dir("db2").join("force.json").exists());
    assert!(cluster.state_dir("db2").join("raft.redb.before-force-1").exists(), "the old log is kept");
}

#[tokio::test]
async fn the_others_are_told_and_come_back_as_new_members_only() {
    let (mut cluster, _) = forced().await;
    // Both are there, a majority of the cluster that is over.
    cluster.start("db1");
    cluster.start("mon");
    for name in ["db1", "mon"] {
        let told = cluster.wait(name, "to be told", |standing| standing.outranked).await;
        assert!(
            !told.voting && told.problem.as_ref().is_some_and(|p| p.contains("baton rejoin")),
            "{told:?}"
        );
    }
    tokio::time::sleep(A_WHILE).await;
    for name in ["db1", "mon"] {
        let standing = cluster.standing(name);
        assert!(
            standing.outranked && !standing.is_leader && standing.leader.is_none(),
            "{name}: {standing:?}"
        );
    }
    assert_eq!(cluster.standing("db2").leader, Some("db2".into()), "it is not disturbed");
    cluster.propose("db2").await;
    // It is known after a restart too, with nobody there to tell.
    cluster.kill("db1").await;
    cluster.start("db1");
    assert!(cluster.standing("db1").outranked);
    for name in ["db1", "mon"] {
        cluster.kill(name).await;
        force::ask_to_rejoin(&cluster.state_dir(name)).unwrap();
        cluster.start(name);
        cluster.wait(name, "its vote", |standing| standing.voting).await;
        assert!(cluster.state_dir(name).join("raft.redb.outranked-1").exists(), "the old log is kept");
        // Its vote counts as soon as the change of the membership is under way; what is proposed after it comes after its end.
        cluster.propose(name).await;
        cluster.propose("db2").await;
    }
    let index = cluster.propose("mon").await.index;
    cluster.assert_same(index).await;
    // An ordinary cluster again: two of them go on without the third.
    cluster.kill("db2").await;
    cluster.wait_leader_among(&["db1", "mon"]).await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    assert_eq!(cluster.node("mon").committed().borrow().ledger.generation, Generation(1));
}

#[tokio::test]
async fn an_order_that_does_not_fit_any_more_is_discarded() {
    let mut cluster = Cluster::formed().await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    let place = stopped(&mut cluster).await;
    let sound = order(1, place);
    let now = &sound.given;
    let late = Boottime { ms: now.ms.saturating_sub(ORDER_MS + 1000), ..now.clone() };
    let rebooted = Boottime { boot_id: "another".to_owned(), ..now.clone() };
    let mut voted = sound.clone();
    voted.place.stamp.vote.0 -= 1;
    let mut behind = sound.clone();
    behind.place.stamp.last.2 -= 1;
    behind.place.stamp.last.1 += 1;
    let mut another = sound.clone();
    another.place.incarnation.0.push('x');
    let orders = [
        Order { given: late, ..sound.clone() },
        Order { given: rebooted, ..sound.clone() },
        voted,
        behind,
        another,
        order(2, sound.place.clone()),
    ];
    let dir = cluster.state_dir("db2");
    for wrong in orders {
        force::order(&dir, &wrong).unwrap();
        cluster.start("db2");
        assert_eq!(cluster.node("db2").committed().borrow().ledger.generation, Generation(0), "{wrong:?}");
        assert!(!dir.join("force.json").exists(), "{wrong:?}");
        cluster.kill("db2").await;
    }
    // Nothing that cannot be understood keeps the agent from starting.
    std::fs::write(dir.join("force.json"), b"{").unwrap();
    cluster.start("db2");
    assert!(!dir.join("force.json").exists());
    cluster.kill("db2").await;
    // The log was removed, or is damaged: the order was not for what comes after it.
    for text in [None, Some(b"not a log at all".as_slice())] {
        force::order(&dir, &sound).unwrap();
        std::fs::remove_file(cluster.log_file("db2")).unwrap();
        if let Some(text) = text {
            std::fs::write(cluster.log_file("db2"), text).unwrap();
        }
        cluster.start("db2");
        assert!(!dir.join("force.json").exists());
        assert!(!cluster.standing("db2").is_leader);
        cluster.kill("db2").await;
    }
}

/// `name` goes on alone, with all others off.
async fn go_on(cluster: &mut Cluster, name: &'static str, generation: u64, place: Place) {
    let mut order = order(generation, place);
    order.forced.survivor = name.into();
    force::order(&cluster.state_dir(name), &order).unwrap();
    cluster.start(name);
    cluster.wait(name, "its own leadership", |now| now.is_leader && now.own_term_applied).await;
}

#[tokio::test]
async fn two_that_were_forced_apart_both_stop_and_one_of_them_is_forced_again() {
    let mut cluster = Cluster::formed().await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    let handles = ["db1", "db2"].map(|name| cluster.node(name).clone());
    stopped(&mut cluster).await;
    let [one, two] = handles.map(|handle| handle.place().unwrap());
    go_on(&mut cluster, "db1", 1, one).await;
    cluster.kill("db1").await;
    go_on(&mut cluster, "db2", 1, two).await;
    cluster.start("db1");
    for name in ["db1", "db2"] {
        let told = cluster.wait(name, "to be told", |now| now.forked).await;
        assert!(told.outranked && told.retired && !told.voting && !told.is_leader, "{name}: {told:?}");
        assert!(told.problem.is_some_and(|problem| problem.contains("`baton force`")));
    }
    cluster.kill("db1").await;
    let place = cluster.node("db2").place().unwrap();
    cluster.kill("db2").await;
    // Which of the two logs counts is not known yet, so neither is put aside.
    force::ask_to_rejoin(&cluster.state_dir("db2")).unwrap();
    cluster.start("db2");
    assert!(cluster.standing("db2").forked, "it is known after a restart, with nobody there to tell");
    assert!(!cluster.state_dir("db2").join("raft.redb.outranked-1").exists());
    cluster.kill("db2").await;
    go_on(&mut cluster, "db2", 2, place).await;
    assert!(!cluster.standing("db2").outranked);
    cluster.start("db1");
    cluster.wait("db1", "to be told", |now| now.outranked && !now.forked).await;
    cluster.kill("db1").await;
    force::ask_to_rejoin(&cluster.state_dir("db1")).unwrap();
    cluster.start("db1");
    cluster.wait("db1", "its vote", |now| now.voting).await;
    assert!(cluster.standing("db2").is_leader);
}

#[tokio::test]
async fn a_log_of_the_present_generation_is_not_put_aside() {
    let mut cluster = Cluster::formed().await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    cluster.kill("mon").await;
    force::ask_to_rejoin(&cluster.state_dir("mon")).unwrap();
    cluster.start("mon");
    let standing = cluster.wait("mon", "its vote", |standing| standing.voting).await;
    assert!(!standing.outranked && !cluster.state_dir("mon").join("raft.redb.outranked-1").exists());
    let index = tokio::time::timeout(SOON, cluster.propose("mon")).await.unwrap().index;
    cluster.assert_same(index).await;
}
