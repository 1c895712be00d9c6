//! A cluster in one process: real sockets on loopback, real certificates, real files.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baton_consensus::{Handle, Inbox, Member, Options, Standing, Timing, Tls, pki, start};
use baton_runbooks::ledger::Command;
use baton_runbooks::model::{Epoch, NodeId, NodeKind, SyncGeneration};

pub const NAMES: [&str; 3] = ["db1", "db2", "mon"];
/// Generous: the machine that runs this may be busy.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub members: Vec<Member>,
    pub nodes: BTreeMap<&'static str, Handle>,
    /// Where the others reach a node, if that is not where it listens.
    pub detour: Option<(&'static str, SocketAddr)>,
    heard: BTreeMap<&'static str, Heard>,
}

/// Messages that a node has got.
type Heard = Arc<Mutex<Vec<String>>>;

/// A port that nobody has at this moment: below those that the kernel hands out to whoever connects, and no two calls
/// of a process return the same. A port that was merely free may be another test's when it is bound.
pub fn free_addr() -> SocketAddr {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + offset).unwrap();
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

pub fn tls(dir: &Path, cluster: &str, node: &str) -> Tls {
    let file = |suffix: &str| dir.join(format!("{node}.{suffix}"));
    Tls::load(&dir.join("ca.pem"), &file("pem"), &file("key"), cluster, node.into()).unwrap()
}

pub fn make_pki(dir: &Path, nodes: &[&str]) {
    pki::init(dir).unwrap();
    for node in nodes {
        pki::issue(dir, &NodeId::from(*node)).unwrap();
    }
}

impl Cluster {
    /// Files and addresses for three nodes; none runs yet.
    pub fn prepare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_pki(&dir.path().join("pki"), &NAMES);
        let members = NAMES.map(|name| Member { id: name.into(), raft_addr: free_addr() }).to_vec();
        Self { dir, members, nodes: BTreeMap::new(), detour: None, heard: BTreeMap::new() }
    }

    pub async fn formed() -> Self {
        let mut cluster = Self::prepare();
        for name in NAMES {
            cluster.start(name);
        }
        cluster.wait_leader().await;
        cluster
    }

    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log_file(&self, name: &str) -> PathBuf {
        self.state_dir(name).join("raft.redb")
    }

    pub fn options(&self, name: &str) -> Options {
        let mut members = self.members.clone();
        if let Some((to, addr)) = self.detour.filter(|(to, _)| *to != name) {
            members
                .iter_mut()
                .filter(|member| member.id == NodeId::from(to))
                .for_each(|member| member.raft_addr = addr);
        }
        Options {
            cluster: "shop".to_owned(),
            me: name.into(),
            members,
            dir: self.state_dir(name),
            tls: tls(&self.dir.path().join("pki"), "shop", name),
            timing: Timing { heartbeat_ms: 100, election_min_ms: 300, election_max_ms: 400 },
            bootstrap: bootstrap(),
        }
    }

    pub fn start(&mut self, name: &'static str) {
        let (handle, inbox) = start(self.options(name)).unwrap();
        tokio::spawn(take(inbox, Arc::clone(self.heard.entry(name).or_default())));
        self.nodes.insert(name, handle);
    }

    /// Ends a node without a word to the others.
    pub async fn kill(&mut self, name: &str) {
        self.nodes.remove(name).unwrap().shutdown().await;
    }

    /// Waits until a node's agent has this message.
    pub async fn wait_heard(&self, name: &str, message: &str) {
        let until = Instant::now() + SOON;
        while !self.heard[name].lock().unwrap().iter().any(|heard| heard == message) {
            assert!(Instant::now() < until, "{name} has not got {message:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn node(&self, name: &str) -> &Handle {
        &self.nodes[name]
    }

    pub fn standing(&self, name: &str) -> Standing {
        self.node(name).standing().borrow().clone()
    }

    /// Waits until a condition holds on a node's standing.
    pub async fn wait(&self, name: &str, what: &str, condition: impl FnMut(&Standing) -> bool) -> Standing {
        let mut standing = self.node(name).standing();
        let waited = tokio::time::timeout(SOON, standing.wait_for(condition)).await;
        match waited {
            Ok(standing) => standing.unwrap().clone(),
            Err(_) => panic!("{name}: {what} did not come: {:?}", self.standing(name)),
        }
    }

    /// Waits until one of the running nodes leads with a quorum and the cluster is bootstrapped, and all others know.
    pub async fn wait_leader(&self) -> &'static str {
        let until = Instant::now() + SOON;
        loop {
            let fresh = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < Duration::from_millis(500));
            let leader = self.nodes.iter().find(|(_, handle)| {
                let standing = handle.standing().borrow().clone();
                standing.is_leader && standing.own_term_applied && fresh(standing.quorum_acked_at)
            });
            if let Some((name, _)) = leader {
                let agreed = self.nodes.values().all(|handle| {
                    handle.standing().borrow().leader == Some(NodeId::from(*name))
                        && handle.committed().borrow().ledger.cluster == "shop"
                });
                if agreed {
                    return name;
                }
            }
            if Instant::now() > until {
                let all: Vec<_> = NAMES
                    .iter()
                    .filter(|n| self.nodes.contains_key(*n))
                    .map(|n| (n, self.standing(n)))
                    .collect();
                panic!("no leader: {all:#?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A command that every ledger takes: it only raises the generation of the in-sync flag.
    pub async fn propose(&self, name: &str) -> baton_consensus::Applied {
        let ledger = self.node(name).committed().borrow().ledger.clone();
        let command = release(ledger.epoch, ledger.sync_generation);
        self.node(name).propose(command, SOON).await.unwrap()
    }

    /// The same with a deadline of the caller's.
    pub async fn propose_soon(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<baton_consensus::Applied, baton_consensus::ProposeError> {
        let command = release(Epoch(0), SyncGeneration(0));
        self.node(name).propose(command, deadline).await
    }

    /// Waits until one of these leads with a quorum.
    pub async fn wait_leader_among(&self, names: &[&str]) {
        let until = Instant::now() + SOON;
        let leads = |name: &&str| {
            let standing = self.standing(name);
            standing.is_leader
                && standing.quorum_acked_at.is_some_and(|at| at.elapsed() < Duration::from_millis(500))
        };
        while !names.iter().any(leads) {
            assert!(Instant::now() < until, "none of {names:?} leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the running nodes have applied `index` and asserts that their ledgers are the same.
    pub async fn assert_same(&self, index: u64) {
        let mut ledgers = Vec::new();
        for handle in self.nodes.values() {
            let mut committed = handle.committed();
            let reached = tokio::time::timeout(SOON, committed.wait_for(|c| c.index >= index)).await;
            ledgers.push(reached.expect("applies everything").unwrap().ledger.clone());
        }
        assert!(ledgers.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Notes each message with its sender.
async fn take(mut inbox: Inbox, heard: Heard) {
    while let Some(message) = inbox.recv().await {
        let text = format!("{}: {}", message.from, String::from_utf8_lossy(&message.body));
        heard.lock().unwrap().push(text);
    }
}

pub fn bootstrap() -> Command {
    Command::Bootstrap {
        cluster: "shop".to_owned(),
        members: BTreeMap::from([
            ("db1".into(), NodeKind::Data),
            ("db2".into(), NodeKind::Data),
            ("mon".into(), NodeKind::Witness),
        ]),
        initial_holder: "db1".into(),
        mysql: true,
    }
}

/// Refused by the ledger of a new cluster, which has no holder yet; it is an entry of the log all the same.
pub fn release(epoch: Epoch, generation: SyncGeneration) -> Command {
    Command::SyncOut { epoch, generation, by: "db1".into(), reason: "test".to_owned() }
}
