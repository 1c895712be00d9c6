//! Starting the consensus thread.

use std::path::Path;
use std::sync::Arc;

use baton_runbooks::model::Generation;
use openraft::EntryPayload;
use rustls::crypto::SecureRandom;
use tokio::sync::{mpsc, watch};

use crate::Options;
use crate::engine::{self, Engine};
use crate::error::StartError;
use crate::force;
use crate::handle::{CALLS_MAX, Handle, Inbox};
use crate::memory::Memory;
use crate::node::{Log, Node, Parts};
use crate::standing::{Committed, Standing};
use crate::store::{self, FORMAT, Identity, Opened, Store};
use crate::transport;
use crate::types::Incarnation;

/// Messages of peers that wait for the agent.
const INBOX_MAX: usize = 256;

/// Starts the consensus thread. The ledger as this node last knew it is readable when this returns.
///
/// # Errors
/// See [`StartError`].
pub fn start(options: Options) -> Result<(Handle, Inbox), StartError> {
    let Options { cluster, me, members, dir, tls, timing, bootstrap } = options;
    let Some(own) = members.iter().find(|member| member.id == me) else {
        return Err(StartError::NotAMember { me });
    };
    engine::config(&cluster, timing).map_err(|reason| StartError::Timing { reason })?;
    let listener = transport::listen(own.raft_addr).map_err(|source| StartError::Listen { source })?;
    let io = |source| StartError::Open { file: dir.join(store::FILE), source };
    let fresh = || Identity {
        format: FORMAT,
        cluster: cluster.clone(),
        node: me.clone(),
        incarnation: Incarnation(random_name()),
        raft_id: None,
        generation: Generation::default(),
        founder: Incarnation::default(),
    };
    if force::is_asked_to_rejoin(&dir) {
        rejoin(&dir, fresh())?;
    }
    let opened = go_on_alone(&dir, store::open(&dir, fresh())?).map_err(io)?;
    let (standing, standing_rx) = watch::channel(Standing::default());
    let open = Open::new(opened, &standing).map_err(io)?;
    let committed = match &open.log {
        Some((log, _)) => log.machine.committed(),
        // Nobody sends: the state stays empty.
        None => watch::channel(Committed::default()).1,
    };
    let (outranked, forked) = match &open.log {
        Some((log, identity)) => {
            let by = log.store.outranked_by().map_err(io)?;
            (by.is_some(), by == Some(identity.generation))
        }
        None => (false, false),
    };
    standing.send_modify(|standing| {
        standing.problem.clone_from(&open.retired);
        (standing.retired, standing.outranked, standing.forked) = (open.retired.is_some(), outranked, forked);
    });
    let reached =
        open.log.as_ref().map(|(log, identity)| (identity.incarnation.clone(), log.store.reached()));
    let (calls, calls_rx) = mpsc::channel(CALLS_MAX);
    let (inbox, inbox_rx) = mpsc::channel(INBOX_MAX);
    let (order, order_rx) = watch::channel(Vec::new());
    let node = Node::new(Parts {
        cluster,
        me,
        members,
        timing,
        tls,
        log: open.log,
        memory: open.memory,
        retired: open.retired,
        standing,
        inbox,
        session: random_name(),
    });
    let outbox = Arc::clone(&node.outbox);
    let engine = Engine { node, listener, calls: calls_rx, order: order_rx, bootstrap };
    spawn(engine).map_err(|source| StartError::Thread { source })?;
    Ok((Handle { calls, committed, standing: standing_rx, order, outbox, reached }, Inbox(inbox_rx)))
}

/// Puts the log aside if it is outranked, as this node was asked to. The wish stays if a log that counts is newer than this version.
fn rejoin(dir: &Path, fresh: Identity) -> Result<(), StartError> {
    let io = |source| StartError::Open { file: dir.join(store::FILE), source };
    // Opened for a look, and closed before it is moved.
    let is_outranked = match store::open(dir, fresh) {
        // One of the same generation is the log of another survivor. Which of the two counts is not known yet.
        Ok(Opened::Sound { store, .. }) => store.is_outranked().map_err(io)?,
        Ok(Opened::Damaged { .. }) => false,
        // Nobody needs to know what is in a log that is put aside.
        Err(StartError::Newer { .. }) if store::is_newer_outranked(dir).map_err(io)? => true,
        Err(error) => return Err(error),
    };
    force::put_aside(dir, is_outranked).map_err(io)
}

/// A forced recovery that was ordered for this log is carried out before anything else.
fn go_on_alone(dir: &Path, opened: Opened) -> std::io::Result<Opened> {
    let Opened::Sound { store, identity, machine } = opened else {
        // Whatever log comes after the damaged one, the order was not for it.
        force::discard(dir, "this node's log is damaged")?;
        return Ok(opened);
    };
    let is_empty = machine.committed().borrow().ledger.members.is_empty();
    Ok(match force::carry_out(dir, &store, &identity, is_empty, Incarnation(random_name()))? {
        Some((identity, machine)) => Opened::Sound { store, identity, machine: Box::new(machine) },
        None => Opened::Sound { store, identity, machine },
    })
}

fn spawn(engine: Engine) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("baton-raft".to_owned()).spawn(move || {
        let done = runtime.block_on(engine.run());
        // Dropping the runtime drops every task, and with the last of them the log's file is closed.
        drop(runtime);
        if let Some(done) = done {
            let _ = done.send(());
        }
    })?;
    Ok(())
}

/// 64 random bits, as text.
fn random_name() -> String {
    let mut bits = [0; 8];
    let random: &dyn SecureRandom = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bits).expect("the system's randomness does not fail once it is there");
    format!("{:016x}", u64::from_be_bytes(bits))
}

/// What was found on disk.
struct Open {
    log: Option<(Log, Identity)>,
    memory: Memory,
    retired: Option<String>,
}

impl Open {
    fn new(opened: Opened, standing: &watch::Sender<Standing>) -> std::io::Result<Self> {
        match opened {
            Opened::Damaged { why } => {
                let problem = format!(
                    "this node's Raft log is damaged ({why}); this node must not vote with it. Stop the agent, remove \
                     its Raft log, start the agent: it rejoins by itself"
                );
                tracing::error!(problem, "this node takes no part in votes");
                Ok(Self { log: None, memory: Memory::default(), retired: Some(problem) })
            }
            Opened::Sound { store, mut identity, machine } => {
                let memory = Memory::new(store.seen()?);
                let retired = store.retired()?;
                if identity.raft_id.is_none() {
                    identity.raft_id = id_in_first_entry(&store, &identity)?;
                }
                let store = store.noting_in(standing.clone());
                let machine = machine.with_store(store.clone());
                Ok(Self { log: Some((Log { store, machine }, identity)), memory, retired })
            }
        }
    }
}

/// The id that the first entry gives to this log: this node formed the cluster and died before it noted its id.
fn id_in_first_entry(store: &Store, identity: &Identity) -> std::io::Result<Option<u64>> {
    let first = store.entries(0, 1)?.into_iter().next();
    let Some(EntryPayload::Membership(membership)) = first.map(|entry| entry.payload) else {
        return Ok(None);
    };
    let own = membership
        .nodes()
        .find(|(_, voter)| voter.name == identity.node && voter.incarnation == identity.incarnation);
    Ok(own.map(|(id, _)| *id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open_tests::{identity, with_newer_snapshot};

    /// A directory with a log that is newer than this version, and the wish to come back as a new member. `by`: the generation in
    /// which the cluster has gone on without it.
    async fn newer_log(by: Option<Generation>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let store = with_newer_snapshot(dir.path()).await;
        if let Some(by) = by {
            store.outrank("the cluster has gone on without this log", by).unwrap();
        }
        force::ask_to_rejoin(dir.path()).unwrap();
        dir
    }

    #[tokio::test]
    async fn a_log_that_is_outranked_is_put_aside_even_if_it_is_newer() {
        let dir = newer_log(Some(Generation::default().next())).await;
        rejoin(dir.path(), identity()).unwrap();
        assert!(!dir.path().join(store::FILE).exists());
        assert!(dir.path().join("raft.redb.outranked-1").exists(), "it is kept");
        assert!(!force::is_asked_to_rejoin(dir.path()));
        assert!(matches!(store::open(dir.path(), identity()), Ok(Opened::Sound { .. })), "the way is free");
    }

    #[tokio::test]
    async fn a_newer_log_that_may_count_stays_and_so_does_the_wish() {
        for by in [None, Some(Generation::default())] {
            let dir = newer_log(by).await;
            let refused = rejoin(dir.path(), identity()).unwrap_err();
            assert!(matches!(refused, StartError::Newer { .. }), "{refused}");
            assert!(dir.path().join(store::FILE).exists());
            assert!(force::is_asked_to_rejoin(dir.path()));
        }
    }
}
