//! MySQL's share: read-only and following when closed; writable, with semi-sync as the ledger says, when serving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton_runbooks::agent::Input;
use baton_runbooks::decide::local::Role;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::model::{Instance, NodeId};
use baton_runbooks::observe::MysqlFacts;

use super::super::Context;
use super::super::driver::{Inputs, Numbered};
use super::super::local_state::Events;
use super::super::senses::Seen;
use super::{Newest, Settled, Share};
use crate::chain::chain;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::close::Closing;
use crate::hands::mysql::replica::{Attached, SourceServer};
use crate::hands::mysql::semisync::Switch;

/// Budget for closing: kill, read-only, kill again.
const CLOSE_BUDGET: Duration = Duration::from_secs(2);
/// Budget for closing over commits that wait: switching semi-sync off can take a second on MySQL.
const FINISH_BUDGET: Duration = Duration::from_secs(6);
/// Deadline of one statement.
const STATEMENT: Duration = Duration::from_secs(2);
/// Replication that was started and did not run for a moment is started again after this.
const START_PAUSE: Duration = Duration::from_secs(5);
/// Forgetting a lost primary takes seconds on MariaDB; nobody waits for it.
const DETACH_DEADLINE: Duration = Duration::from_secs(30);
/// Time for the ports' door to open.
const OPEN_DEADLINE: Duration = Duration::from_secs(1);

pub(super) struct MysqlShare {
    context: Context,
    inputs: Inputs,
    seen: Seen,
    newest: Newest,
    detaching: Arc<AtomicBool>,
    refused: Option<String>,
    /// After whom replication was started last, and when, as long as it was not seen to run since.
    started: Option<(NodeId, Instant)>,
    /// The threads of this instance try for long to reach a source that is lost.
    outlasts: Option<Instance>,
    /// The ports are open for `server`, and the agent's tables are there.
    served: Settled,
    server: String,
    /// Was found writable, and that is not on disk yet.
    unnoted: Option<String>,
}

impl MysqlShare {
    pub(super) fn new(context: Context, inputs: Inputs, seen: Seen, newest: Newest) -> Self {
        Self {
            context,
            inputs,
            seen,
            newest,
            detaching: Arc::default(),
            refused: None,
            started: None,
            outlasts: None,
            served: Settled::default(),
            server: String::new(),
            unnoted: None,
        }
    }

    async fn close(&self, mysql: &Mysql, facts: &MysqlFacts, wish: &Numbered) -> bool {
        if facts.read_only {
            return true;
        }
        match mysql.close_writes(CLOSE_BUDGET).await {
            Closing::Closed { killed, took_ms } => {
                tracing::info!(killed, took_ms, "MySQL is read-only");
                true
            }
            Closing::StillOpen { why } | Closing::Unknown { why } => {
                tracing::error!(why, "MySQL is not read-only yet; its ports are closed");
                self.close_over_waiting_commits(mysql, wish).await
            }
        }
    }

    /// MySQL keeps a commit that waits for the replica's acknowledgement, and with it the lock, also when its session is
    /// ended. A node that lost the baton may never be answered: it would never close, and so never follow again.
    async fn close_over_waiting_commits(&self, mysql: &Mysql, wish: &Numbered) -> bool {
        match mysql.semi_sync_status(STATEMENT).await {
            Ok(semi_sync) if semi_sync.source_enabled && semi_sync.waiting > 0 => {}
            Ok(_) | Err(_) => return false,
        }
        // Whoever opens this server waits for this, and decides about semi-sync anew.
        let Ok(_alone) = tokio::time::timeout(STATEMENT, self.context.sync.exclusive()).await else {
            return false;
        };
        // A holder that closes for a while opens again, and what its clients were never told would be read by them.
        let passed = self.context.consensus.committed().borrow().ledger.holder.as_ref()
            != Some(&self.context.config.node);
        if !passed || !self.newest.is(wish) {
            return false;
        }
        match mysql.close_over_waiting_commits(FINISH_BUDGET).await {
            Closing::Closed { killed, took_ms } => {
                tracing::warn!(
                    killed,
                    took_ms,
                    "MySQL is read-only; commits that nobody heard of were finished"
                );
                true
            }
            Closing::StillOpen { why } | Closing::Unknown { why } => {
                tracing::error!(why, "MySQL is not read-only; commits wait for the replica as before");
                false
            }
        }
    }

    /// A closed node follows the holder, unless it has transactions that the holder lacks.
    async fn follow(&mut self, mysql: &Mysql, facts: &MysqlFacts, holder: &NodeId, wish: &Numbered) {
        let config = &self.context.config;
        let (Some(node), Some(port)) = (config.find(holder), config.mysql.as_ref().map(|mysql| mysql.port))
        else {
            return;
        };
        let host = node.address.to_string();
        if let Err(error) = self.context.hands.lift_cut(node.address, port).await {
            tracing::error!("the cut is not lifted: {error:#}");
            return;
        }
        let runs = facts.replication.as_ref().is_some_and(|replication| {
            let is_source = replication.source_host == host && replication.source_port == port;
            is_source && replication.sql_running && replication.receiver_alive
        });
        if runs {
            self.started = None;
            self.tend(mysql, facts, wish).await;
            self.outlast(mysql, facts, holder, wish).await;
            self.start_events(mysql).await;
            return;
        }
        // A receiver that ends at once, of an error that only an operator can mend, is not started all the time.
        if self.started.as_ref().is_some_and(|(whom, at)| whom == holder && at.elapsed() < START_PAUSE) {
            return;
        }
        // Only from a holder that is there: MariaDB throws away what it received and did not apply when it is started, and
        // asks for it again. And its set must be newer than ours, or what is in flight looks errant.
        let age_max = self.context.config.timing.lease.duration();
        let report = self.context.hands.peer_lately(holder, age_max).filter(|report| report.serving);
        let Some(theirs) = report.and_then(|report| report.mysql) else { return };
        if !self.newest.is(wish) {
            return;
        }
        let source = SourceServer { host, port, executed: theirs.executed.clone() };
        let attached = match mysql.attach(&source, STATEMENT).await {
            Ok(Attached::Attached) => mysql.start_replication(STATEMENT).await,
            Ok(Attached::Refused { extra }) => {
                if self.refused.as_ref() != Some(&extra) {
                    tracing::error!(extra, %holder, "not followed: this server has transactions that the holder lacks");
                    self.refused = Some(extra.clone());
                }
                self.context.ward.refused(mysql, facts.flavour, &extra);
                return;
            }
            Err(error) => Err(error),
        };
        match attached {
            Ok(()) => {
                self.started = Some((holder.clone(), Instant::now()));
                tracing::info!(%holder, "following");
            }
            Err(error) => tracing::warn!(error = chain(&error), %holder, "not following yet"),
        }
    }

    /// A replica that follows: semi-sync's replica side on, its source side off.
    async fn tend(&mut self, mysql: &Mysql, facts: &MysqlFacts, wish: &Numbered) {
        self.refused = None;
        self.context.ward.discharged();
        if facts.semi_sync.source_enabled {
            let _alone = self.context.sync.exclusive().await;
            if !self.newest.is(wish) {
                return;
            }
            if let Err(error) = mysql.ensure_relay_rule(STATEMENT).await {
                tracing::warn!(error = chain(&error), "semi-sync's source side is on at a replica");
            }
        }
        if facts.semi_sync.clients > 0
            && self.newest.is(wish)
            && let Err(error) = mysql.end_old_dump_threads(STATEMENT).await
        {
            tracing::warn!(error = chain(&error), "threads that send to nobody are still there");
        }
        let receiving = facts.replication.as_ref().is_some_and(|replication| replication.io_running);
        if receiving
            && !facts.semi_sync.replica_on
            && self.newest.is(wish)
            && let Err(error) = mysql.semi_sync_replica(STATEMENT).await
        {
            tracing::warn!(error = chain(&error), "semi-sync's replica side is not on");
        }
    }

    /// A replica that somebody else has set up may give up on a lost primary within seconds, and is then not what the ledger
    /// vouches for any more. Neither is it while its receiver is started anew, so that is done before it is in sync.
    async fn outlast(&mut self, mysql: &Mysql, facts: &MysqlFacts, holder: &NodeId, wish: &Numbered) {
        let receiving = facts.replication.as_ref().is_some_and(|replication| replication.io_running);
        let is_counted_on = {
            let committed = self.context.consensus.committed();
            let ledger = &committed.borrow().ledger;
            ledger.run.is_some() || ledger.in_sync.contains_key(&self.context.config.node)
        };
        if self.outlasts.as_ref() == Some(&facts.instance) || !receiving || is_counted_on {
            return;
        }
        let age_max = self.context.config.timing.lease.duration();
        let serves = self.context.hands.peer_lately(holder, age_max).is_some_and(|report| report.serving);
        if !serves || !self.newest.is(wish) {
            return;
        }
        let told = match mysql.gives_up_soon(STATEMENT).await {
            Ok(true) => mysql.outlast_source(STATEMENT).await.map(|()| true),
            other => other,
        };
        match told {
            Ok(true) => tracing::info!(%holder, "the replica goes on trying when its source is lost"),
            Ok(false) => self.outlasts = Some(facts.instance.clone()),
            Err(error) => tracing::warn!(error = chain(&error), "the replica may give up on a lost source"),
        }
    }

    /// Writable first, semi-sync before that, ports last.
    async fn serve(&mut self, mysql: &Mysql, facts: &MysqlFacts, wish: &Numbered) {
        if self.serves(mysql, facts, wish) {
            return;
        }
        let server = match mysql.server_identity().await {
            Ok(server) if server.to_string() == facts.instance.server => server,
            Ok(_) | Err(_) => return,
        };
        let is_open = if facts.read_only {
            self.open(mysql, &facts.instance.server, wish).await
        } else {
            self.is_open_as_it_should(facts)
        };
        if !is_open {
            return;
        }
        let schema = mysql.ensure_schema(STATEMENT).await;
        let opened = self.context.lease.open(Door::Ports, wish.number, Some(server), OPEN_DEADLINE).await;
        if schema.is_ok() && opened.is_ok() {
            self.served.note(wish);
            self.server = server.to_string();
        }
        if let Err(error) = schema {
            tracing::warn!(error = chain(&error), "the agent's own tables are not there");
        }
        if let Err(error) = opened {
            tracing::debug!(%error, "the ports are not open yet");
        }
        if facts.replication.is_some() && !facts.read_only && self.newest.is(wish) {
            self.forget_old_primary(mysql);
        }
    }

    /// Starts the event scheduler again that was stopped for a switchover.
    async fn start_events(&self, mysql: &Mysql) {
        if self.context.local.events() == Events::Untouched {
            return;
        }
        match mysql.event_scheduler(Switch::On, STATEMENT).await {
            Ok(()) => match self.context.local.note_events(Events::Untouched).await {
                Ok(()) => tracing::info!("the event scheduler runs again"),
                Err(error) => tracing::warn!(%error, "not noted that the event scheduler runs again"),
            },
            Err(error) => tracing::warn!(error = chain(&error), "the event scheduler does not run again yet"),
        }
    }

    /// Served a moment ago, and nothing has changed since, as far as the last probe, who writes, and the lease thread know.
    fn serves(&self, mysql: &Mysql, facts: &MysqlFacts, wish: &Numbered) -> bool {
        self.served.is(wish)
            && !mysql.lacks_tables()
            && self.server == facts.instance.server
            && !facts.read_only
            && facts.replication.is_none()
            && self.is_open_as_it_should(facts)
            && self.context.lease.view().borrow().ports_open
    }

    /// Writable by an agent's hand, and with semi-sync on if the ledger says *in sync*. What a server boots with is not
    /// taken for that: the core closes it, and until it does the ports stay as they are.
    fn is_open_as_it_should(&self, facts: &MysqlFacts) -> bool {
        let semi = &facts.semi_sync;
        let waits = semi.source_enabled && semi.variables_as_wanted;
        let in_sync = self.context.consensus.committed().borrow().ledger.has_replica_in_sync();
        self.context.local.opened().as_deref() == Some(&facts.instance.server) && (waits || !in_sync)
    }

    /// Opens for writing, with semi-sync as the ledger says at this moment. What was seen before may be older than a
    /// promotion and all that followed it, so everything is looked at again under the lock: a second opening with
    /// semi-sync off would acknowledge writes alone while the ledger says *in sync*.
    async fn open(&self, mysql: &Mysql, server: &str, wish: &Numbered) -> bool {
        if let Err(error) = self.context.local.note_opening(server).await {
            tracing::error!(%error, "not opened: the state directory refuses a write");
            return false;
        }
        if self.inputs.send(Input::Opening { server: server.to_owned() }).await.is_err() {
            return false;
        }
        let Ok(_alone) = tokio::time::timeout(STATEMENT, self.context.sync.exclusive()).await else {
            return false;
        };
        let facts = match mysql.facts(STATEMENT).await {
            Ok(facts) if facts.instance.server == server => facts,
            Ok(_) | Err(_) => return false,
        };
        if !facts.read_only {
            return true;
        }
        let Some(switch) = self.wanted_semi_sync(wish) else { return false };
        if let Err(error) = mysql.open_writes(switch, STATEMENT).await {
            tracing::warn!(error = chain(&error), "MySQL is not open yet");
            return false;
        }
        tracing::info!(semi_sync = ?switch, "MySQL is open again");
        true
    }

    /// On when the ledger says *in sync*, or may still come to say so. `None`: this node is not to open any more.
    fn wanted_semi_sync(&self, wish: &Numbered) -> Option<Switch> {
        let Role::Serving { epoch, ports: true, .. } = wish.wish.role else { return None };
        let committed = self.context.consensus.committed();
        let ledger = &committed.borrow().ledger;
        if !self.newest.is(wish) || ledger.epoch != epoch || !ledger.is_open_for(&self.context.config.node) {
            return None;
        }
        let may_wait = ledger.has_replica_in_sync() || !self.context.sync.is_settled();
        Some(if may_wait { Switch::On } else { Switch::Off })
    }

    /// An agent that starts anew finds it closed, and must know all the same that its configuration would open it.
    /// Tried until it is on disk: once closed, the server does not show it any more.
    async fn note_writable_boot(&mut self, facts: &MysqlFacts) {
        let (local, server) = (&self.context.local, &facts.instance.server);
        if !facts.read_only && local.opened().as_ref() != Some(server) {
            self.unnoted = Some(server.clone());
        }
        let Some(server) = &self.unnoted else { return };
        match local.note_writable_boot(server).await {
            Ok(()) => self.unnoted = None,
            Err(error) => tracing::warn!(error = chain(&error), "not noted that this MySQL boots writable"),
        }
    }

    /// Beside the path: against a lost primary this takes seconds.
    fn forget_old_primary(&self, mysql: &Mysql) {
        if self.detaching.swap(true, Ordering::AcqRel) {
            return;
        }
        let (mysql, detaching) = (mysql.clone(), Arc::clone(&self.detaching));
        tokio::spawn(async move {
            if let Err(error) = mysql.detach(DETACH_DEADLINE).await {
                tracing::warn!(error = chain(&error), "the old primary is not forgotten yet");
            }
            detaching.store(false, Ordering::Release);
        });
    }
}

impl Share for MysqlShare {
    async fn make_so(&mut self, wish: &Numbered) {
        let Some(mysql) = self.context.hands.mysql.clone() else { return };
        let Some(facts) = self.seen.mysql() else { return };
        match &wish.wish.role {
            Role::Witness
            | Role::Acquiring { .. }
            | Role::Receiving { .. }
            | Role::Serving { ports: false, .. } => {}
            Role::Closed { follow } => {
                let closed = self.close(&mysql, &facts, wish).await;
                self.note_writable_boot(&facts).await;
                if closed
                    && facts.read_only
                    && !self.context.resync.holds_back()
                    && let Some(holder) = follow
                {
                    self.follow(&mysql, &facts, holder, wish).await;
                }
            }
            Role::Serving { ports: true, services, .. } => {
                self.context.ward.discharged();
                self.serve(&mysql, &facts, wish).await;
                if *services {
                    self.start_events(&mysql).await;
                }
            }
        }
    }
}
