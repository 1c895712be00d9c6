//! An agent is older than the others: the log has a command that it does not know.
#![allow(clippy::unwrap_used)]

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton_consensus::ProposeError;
use baton_consensus::transport::{Channel, Link, Listener, dial};
use baton_runbooks::model::{Epoch, NodeId, SyncGeneration};
use bytes::Bytes;
use harness::{Cluster, NAMES, SOON, free_addr, tls};

/// The command of [`harness::release`], and what an older agent sees in its place.
const KNOWN: &str = r#""command":"sync-out""#;
const NEWER: &str = r#""command":"frobnicate""#;
/// Bytes of a frame before its payload.
const HEADER: usize = 9;

/// The beginning of a snapshot's state in a frame, and the same of a later version which needs something.
const STATE: &str = r#""state":"{\"applied\":"#;
const NEEDS: &str = r#""state":"{\"needs\":[\"frobnicate\"],\"applied\":"#;

/// All that is sent to a node passes here, under the certificates of both ends. While that is switched on, a command comes out
/// as one that the node does not know; or a snapshot as one that needs what it does not know.
struct Detour {
    addr: SocketAddr,
    is_newer: Arc<AtomicBool>,
    is_needed: Arc<AtomicBool>,
}

impl Detour {
    fn to(cluster: &Cluster, name: &'static str) -> Self {
        let pki = cluster.dir.path().join("pki");
        let channels = [Channel::Raft, Channel::Snapshot, Channel::Peer];
        let members = NAMES.map(NodeId::from);
        let mut listener = Listener::bind(free_addr(), tls(&pki, "shop", name), members, &channels).unwrap();
        let addr = listener.local_addr();
        let own = cluster.members.iter().find(|member| member.id == NodeId::from(name)).unwrap().raft_addr;
        let (is_newer, is_needed): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let switches = [(Arc::clone(&is_newer), KNOWN, NEWER), (Arc::clone(&is_needed), STATE, NEEDS)];
        tokio::spawn(async move {
            loop {
                let (from, channel, link) = listener.accept().await;
                let (tls, switches) = (tls(&pki, "shop", from.as_str()), switches.clone());
                tokio::spawn(async move {
                    // A node that is not there: the link ends, and is dialed anew.
                    if let Ok(onward) = dial(&tls, &name.into(), own, channel, SOON).await {
                        pass(link, onward, &switches).await;
                    }
                });
            }
        });
        Self { addr, is_newer, is_needed }
    }

    fn switch(&self, is_newer: bool) {
        self.is_newer.store(is_newer, Ordering::SeqCst);
    }
}

/// While it is on, the first text comes out as the second.
type Switch = (Arc<AtomicBool>, &'static str, &'static str);

/// Passes frames in both directions until one end is gone.
async fn pass(link: Link, onward: Link, switches: &[Switch]) {
    let (mut to_asker, mut asked) = link.split();
    let (mut to_node, mut answered) = onward.split();
    loop {
        let sent = tokio::select! {
            frame = asked.recv() => match frame {
                Ok(Some(frame)) => {
                    let on = switches.iter().filter(|(is_on, ..)| is_on.load(Ordering::SeqCst));
                    let frame = on.fold(frame, |frame, (_, known, newer)| made_newer(frame, known, newer));
                    to_node.send(frame).await
                }
                Ok(None) | Err(_) => return,
            },
            frame = answered.recv() => match frame {
                Ok(Some(frame)) => to_asker.send(frame).await,
                Ok(None) | Err(_) => return,
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

fn made_newer(frame: Bytes, known: &str, newer: &str) -> Bytes {
    let (header, payload) = frame.split_at(HEADER);
    match std::str::from_utf8(payload) {
        Ok(text) if text.contains(known) => [header, text.replace(known, newer).as_bytes()].concat().into(),
        Ok(_) | Err(_) => frame,
    }
}

/// Three nodes, of which db1 leads and mon is reached by the detour.
async fn formed() -> (Cluster, Detour) {
    let mut cluster = Cluster::prepare();
    let detour = Detour::to(&cluster, "mon");
    cluster.detour = Some(("mon", detour.addr));
    for name in NAMES {
        cluster.start(name);
    }
    cluster.wait_leader().await;
    for name in NAMES {
        cluster.node(name).prefer(["db1", "db2"].map(NodeId::from).to_vec());
    }
    cluster.wait("db1", "leadership", |standing| standing.is_leader && standing.own_term_applied).await;
    (cluster, detour)
}

/// How far mon's log has come on its disk.
fn last_of_mon(cluster: &Cluster) -> (u64, u64, u64) {
    cluster.node("mon").place().unwrap().stamp.last
}

/// Waits until a look at db1 finds what is wanted: the times of acknowledgements wake nobody.
async fn until_on_db1(cluster: &Cluster, what: &str, found: impl Fn(&baton_consensus::Standing) -> bool) {
    let until = Instant::now() + SOON;
    while !found(&cluster.standing("db1")) {
        assert!(Instant::now() < until, "{what} did not come: {:?}", cluster.standing("db1"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_older_node_takes_nothing_newer_and_the_two_others_go_on() {
    let (cluster, detour) = formed().await;
    let known = cluster.propose("db1").await.index;
    cluster.assert_same(known).await;
    detour.switch(true);
    let newer = cluster.propose("db1").await.index;
    // It says so itself, and keeps what it has.
    let standing = cluster.wait("mon", "its problem", |standing| standing.newer_log).await;
    let problem = standing.problem.unwrap();
    for part in ["`frobnicate`", "upgrade it", env!("CARGO_PKG_VERSION"), "do not remove it"] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    assert!(standing.voting && !standing.retired, "its log is whole");
    let kept = last_of_mon(&cluster);
    assert!((known..newer).contains(&kept.2), "{kept:?}");
    // So does the leader, of it.
    let standing = cluster.wait("db1", "word of it", |standing| standing.newer_log).await;
    let problem = standing.problem.unwrap();
    for part in ["mon (version", "`frobnicate`", "upgrade the agent there"] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    assert!(standing.voting);
    // The two others go on.
    let mut last = newer;
    for name in ["db1", "db2", "db1"] {
        last = cluster.propose(name).await.index;
    }
    assert_eq!(last_of_mon(&cluster), kept, "nothing was written");
    assert!(cluster.node("mon").committed().borrow().index < newer, "nor applied");
    // The upgrade: everything goes on by itself.
    detour.switch(false);
    cluster.wait("mon", "an end of it", |standing| !standing.newer_log && standing.problem.is_none()).await;
    cluster.wait("db1", "an end of it", |standing| !standing.newer_log && standing.problem.is_none()).await;
    cluster.assert_same(last).await;
    let last = cluster.propose("mon").await.index;
    cluster.assert_same(last).await;
}

/// While one agent is upgraded, the leader has only an older one beside it. It stays in office, so that the holder's lease is
/// renewed; but nothing is decided with it.
#[tokio::test]
async fn an_older_node_keeps_the_leader_in_office_and_decides_nothing() {
    let (mut cluster, detour) = formed().await;
    detour.switch(true);
    cluster.propose("db1").await;
    cluster.wait("mon", "its problem", |standing| standing.newer_log).await;
    cluster.kill("db2").await;
    let alone = Instant::now() + Duration::from_secs(1);
    let in_office =
        |standing: &baton_consensus::Standing| standing.quorum_acked_at.is_some_and(|at| at > alone);
    until_on_db1(&cluster, "an acknowledgement of mon's", in_office).await;
    let refused = cluster.propose_soon("db1", Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Unknown), "{refused}");
    // The upgraded one is back.
    cluster.start("db2");
    cluster.wait("db2", "its vote", |standing| standing.voting).await;
    let decided = cluster.propose("db2").await.index;
    assert!(last_of_mon(&cluster).2 < decided);
    detour.switch(false);
    cluster.assert_same(decided).await;
}

/// The entry that it would refuse is purged, and the snapshot that has its effect is refused too: it is not carried past it.
#[tokio::test]
async fn an_older_node_is_not_carried_past_it_by_a_snapshot() {
    let (mut cluster, detour) = formed().await;
    // Enough for a snapshot and a purge of what is before it.
    let mut last = 0;
    for _ in 0..50 {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let handle = cluster.node("db1").clone();
            let command = harness::release(Epoch(0), SyncGeneration(0));
            tasks.spawn(async move { handle.propose(command, SOON).await.unwrap().index });
        }
        last = tasks.join_all().await.into_iter().max().unwrap();
    }
    cluster.assert_same(last).await;
    cluster.kill("mon").await;
    // A new log gets a snapshot for certain: nobody sends to it while the old entries are purged.
    std::fs::remove_file(cluster.log_file("mon")).unwrap();
    detour.is_needed.store(true, Ordering::SeqCst);
    cluster.start("mon");
    let standing = cluster.wait("mon", "its problem", |standing| standing.newer_log).await;
    let problem = standing.problem.unwrap();
    assert!(problem.contains("`frobnicate`"), "{problem}");
    assert!(!standing.retired, "its log is whole");
    assert!(cluster.node("mon").committed().borrow().index < last, "it has not caught up");
    detour.is_needed.store(false, Ordering::SeqCst);
    cluster.wait("mon", "an end of it", |standing| !standing.newer_log && standing.problem.is_none()).await;
    cluster.assert_same(last).await;
}
