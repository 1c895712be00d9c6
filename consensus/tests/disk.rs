//! Lost, outdated and damaged disks: such a node never votes with what it has, and says so.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::{Duration, Instant};

use baton_consensus::{ProposeError, StartError, start};
use bytes::Bytes;
use harness::{Cluster, NAMES, SOON};

/// For this long nobody may come to lead with a quorum. Several elections fit into it.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

async fn assert_no_quorum(cluster: &Cluster) {
    let until = Instant::now() + LONG_ENOUGH;
    while Instant::now() < until {
        for (name, handle) in &cluster.nodes {
            let standing = handle.standing().borrow().clone();
            assert!(!standing.own_term_applied, "{name} leads with a quorum: {standing:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_node_that_lost_its_disk_does_not_vote_until_it_is_taken_in_anew() {
    let mut cluster = Cluster::formed().await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    for name in NAMES {
        cluster.kill(name).await;
    }
    std::fs::remove_file(cluster.log_file("db2")).unwrap();
    // db1 and db2 would be a quorum if db2 still voted as the one it was.
    cluster.start("db1");
    cluster.start("db2");
    let standing = cluster
        .wait("db2", "a problem", |s| s.problem.as_ref().is_some_and(|p| p.contains("taken it in")))
        .await;
    assert!(!standing.voting);
    assert_no_quorum(&cluster).await;
    let refused = cluster.propose_soon("db2", Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NoLeader), "{refused}");
    // With a real quorum the leader takes the new log in by itself.
    cluster.start("mon");
    cluster.wait_leader().await;
    let taken_in = Instant::now();
    cluster.wait("db2", "its vote", |standing| standing.voting).await;
    println!("taken in {:?} after the leader was there", taken_in.elapsed());
    let index = cluster.propose("db2").await.index;
    cluster.assert_same(index).await;
    // Its new vote counts, and its old one is gone: db2 and mon are a quorum.
    cluster.kill("db1").await;
    cluster.wait_leader().await;
    let index = cluster.propose("db2").await.index;
    cluster.assert_same(index).await;
}

#[tokio::test]
async fn an_older_copy_of_the_disk_does_not_vote() {
    let mut cluster = Cluster::formed().await;
    cluster.kill("db2").await;
    let copy = cluster.dir.path().join("copy");
    std::fs::copy(cluster.log_file("db2"), &copy).unwrap();
    cluster.start("db2");
    cluster.wait("db2", "its vote", |standing| standing.voting).await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    cluster.kill("db2").await;
    std::fs::copy(&copy, cluster.log_file("db2")).unwrap();
    cluster.start("db2");
    let older = |p: &String| p.contains("older copy") && p.contains("remove its Raft log");
    let standing = cluster.wait("db2", "a problem", |s| s.problem.as_ref().is_some_and(older)).await;
    assert!(!standing.voting);
    // It takes no part: the remaining two are one short of a quorum as soon as one more is lost.
    cluster.wait_leader_among(&["db1", "mon"]).await;
    cluster.kill("mon").await;
    // Nothing changes any more on a leader that hears nobody, so its standing is looked at, not waited for.
    let until = Instant::now() + SOON;
    while cluster.standing("db1").quorum_acked_at.is_some_and(|at| at.elapsed() < LONG_ENOUGH) {
        assert!(Instant::now() < until, "db1 still has a quorum: {:?}", cluster.standing("db1"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = cluster.propose_soon("db2", Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NoPart { .. }), "{refused}");
    // It knows that after a restart too, with nobody there to tell.
    cluster.kill("db1").await;
    cluster.kill("db2").await;
    cluster.start("db2");
    assert!(cluster.standing("db2").problem.as_ref().is_some_and(older));
    // What it tells the operator to do helps.
    cluster.kill("db2").await;
    std::fs::remove_file(cluster.log_file("db2")).unwrap();
    for name in NAMES {
        cluster.start(name);
    }
    cluster.wait("db2", "its vote", |standing| standing.voting).await;
    cluster.assert_same(index).await;
}

#[tokio::test]
async fn peers_remember_across_their_own_restart() {
    let mut cluster = Cluster::formed().await;
    cluster.kill("db2").await;
    let copy = cluster.dir.path().join("copy");
    std::fs::copy(cluster.log_file("db2"), &copy).unwrap();
    cluster.start("db2");
    cluster.wait("db2", "its vote", |standing| standing.voting).await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    // Memories are written once per second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for name in NAMES {
        cluster.kill(name).await;
    }
    std::fs::copy(&copy, cluster.log_file("db2")).unwrap();
    cluster.start("mon");
    cluster.start("db2");
    cluster.wait("db2", "a problem", |s| s.problem.as_ref().is_some_and(|p| p.contains("older copy"))).await;
    assert_no_quorum(&cluster).await;
}

#[tokio::test]
async fn a_damaged_log_does_not_vote_and_the_node_can_still_be_asked() {
    let mut cluster = Cluster::formed().await;
    let index = cluster.propose("db1").await.index;
    cluster.assert_same(index).await;
    let damages = [flip_a_letter as fn(&std::path::Path), truncate, overwrite_the_head];
    for (turn, damage) in damages.into_iter().enumerate() {
        cluster.kill("mon").await;
        damage(&cluster.log_file("mon"));
        cluster.start("mon");
        let problem = cluster.standing("mon").problem.expect("it is known at once");
        println!("{problem}");
        assert!(problem.contains("damaged") && problem.contains("remove its Raft log"), "{problem}");
        while cluster.node("db1").request(&"mon".into(), Bytes::from_static(b"hello"), SOON).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.wait_heard("mon", "db1: hello").await;
        while cluster.node("mon").request(&"db1".into(), Bytes::from_static(b"hello"), SOON).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // It takes no heartbeat with which this could leave.
        cluster.node("mon").post(&"db1".into(), Bytes::from(format!("damaged {turn}")));
        cluster.wait_heard("db1", &format!("mon: damaged {turn}")).await;
        assert!(!cluster.standing("mon").voting);
        cluster.kill("mon").await;
        std::fs::remove_file(cluster.log_file("mon")).unwrap();
        cluster.start("mon");
        cluster.wait("mon", "its vote", |standing| standing.voting).await;
        cluster.assert_same(index).await;
    }
}

fn flip_a_letter(file: &std::path::Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let word = b"\"Normal\"";
    let found: Vec<usize> =
        (0..bytes.len() - word.len()).filter(|at| bytes[*at..].starts_with(word)).collect();
    assert!(!found.is_empty(), "there are entries in the log");
    for at in found {
        bytes[at + 1] ^= 1;
    }
    std::fs::write(file, bytes).unwrap();
}

fn truncate(file: &std::path::Path) {
    let length = std::fs::metadata(file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length / 3).unwrap();
}

fn overwrite_the_head(file: &std::path::Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[..4096].fill(0xa5);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_refused() {
    let mut cluster = Cluster::formed().await;
    cluster.kill("db2").await;
    let mut options = cluster.options("db2");
    options.dir = cluster.state_dir("db1");
    let in_use = start(options).unwrap_err();
    assert!(matches!(in_use, StartError::InUse { .. }), "{in_use}");
    cluster.kill("db1").await;
    let mut options = cluster.options("db2");
    options.dir = cluster.state_dir("db1");
    let foreign = start(options).unwrap_err();
    assert!(matches!(foreign, StartError::Foreign { .. }), "{foreign}");
    let mut options = cluster.options("db1");
    options.cluster = "other".to_owned();
    let foreign = start(options).unwrap_err();
    assert!(matches!(foreign, StartError::Foreign { .. }), "{foreign}");
    cluster.start("db1");
    cluster.wait("db1", "its vote", |standing| standing.voting).await;
}
