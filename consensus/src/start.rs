//! Starting the consensus thread.

use std::path::Path;

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
        // Opened for a look, and closed before it is moved.
        let is_outranked = match store::open(&dir, fresh())? {
            // One of the same generation is the log of another survivor. Which of the two counts is not known yet.
            Opened::Sound { store, identity, .. } => {
                store.outranked_by().map_err(io)?.is_some_and(|by| by > identity.generation)
            }
            Opened::Damaged { .. } => false,
        };
        force::put_aside(&dir, is_outranked).map_err(io)?;
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
    let engine = Engine { node, listener, calls: calls_rx, order: order_rx, bootstrap };
    spawn(engine).map_err(|source| StartError::Thread { source })?;
    Ok((Handle { calls, committed, standing: standing_rx, order, reached }, Inbox(inbox_rx)))
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
