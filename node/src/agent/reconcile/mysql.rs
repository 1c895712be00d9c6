//! MySQL's share: read-only and following when closed; writable, with semi-sync as the ledger says, when serving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_runbooks::agent::Input;
use baton_runbooks::decide::local::Role;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::model::NodeId;
use baton_runbooks::observe::MysqlFacts;

use super::super::Context;
use super::super::driver::{Inputs, Numbered};
use super::super::senses::Seen;
use super::Share;
use crate::chain::chain;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::close::Closing;
use crate::hands::mysql::replica::{Attached, SourceServer};
use crate::hands::mysql::semisync::Switch;

/// Budget for closing: kill, read-only, kill again.
const CLOSE_BUDGET: Duration = Duration::from_secs(2);
/// Deadline of one statement.
const STATEMENT: Duration = Duration::from_secs(2);
/// Forgetting a lost primary takes seconds on MariaDB; nobody waits for it.
const DETACH_DEADLINE: Duration = Duration::from_secs(30);
/// Time for the ports' door to open.
const OPEN_DEADLINE: Duration = Duration::from_secs(1);

pub(super) struct MysqlShare {
    context: Context,
    inputs: Inputs,
    seen: Seen,
    detaching: Arc<AtomicBool>,
    refused: Option<String>,
}

impl MysqlShare {
    pub(super) fn new(context: Context, inputs: Inputs, seen: Seen) -> Self {
        Self { context, inputs, seen, detaching: Arc::default(), refused: None }
    }

    async fn close(&mut self, mysql: &Mysql, facts: &MysqlFacts) -> bool {
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
                false
            }
        }
    }

    /// A closed node follows the holder, unless it has transactions that the holder lacks.
    async fn follow(&mut self, mysql: &Mysql, facts: &MysqlFacts, holder: &NodeId) {
        let config = &self.context.config;
        let (Some(node), Some(port)) = (config.find(holder), config.mysql.as_ref().map(|mysql| mysql.port)) else {
            return;
        };
        let host = node.address.to_string();
        if let Err(error) = self.context.hands.lift_cut(node.address, port).await {
            tracing::error!("the cut is not lifted: {error:#}");
            return;
        }
        let runs = facts.replication.as_ref().is_some_and(|replication| {
            replication.source_host == host && replication.source_port == port && replication.sql_running
        });
        if runs {
            self.tend(mysql, facts).await;
            return;
        }
        // The holder's set must be newer than ours, or what is in flight looks errant: its report comes after our facts.
        let report = self.context.hands.peer(holder).filter(|report| report.serving);
        let Some(theirs) = report.and_then(|report| report.mysql) else { return };
        let source = SourceServer { host, port, executed: theirs.executed };
        let attached = match mysql.attach(&source, STATEMENT).await {
            Ok(Attached::Attached) => mysql.start_replication(STATEMENT).await,
            Ok(Attached::Refused { extra }) => {
                if self.refused.as_ref() != Some(&extra) {
                    tracing::error!(extra, %holder, "not followed: this server has transactions that the holder lacks");
                    self.refused = Some(extra);
                }
                return;
            }
            Err(error) => Err(error),
        };
        match attached {
            Ok(()) => tracing::info!(%holder, "following"),
            Err(error) => tracing::warn!(error = chain(&error), %holder, "not following yet"),
        }
    }

    /// A replica that follows: semi-sync's replica side on, its source side off.
    async fn tend(&mut self, mysql: &Mysql, facts: &MysqlFacts) {
        self.refused = None;
        if facts.semi_sync.source_enabled
            && let Err(error) = mysql.ensure_relay_rule(STATEMENT).await
        {
            tracing::warn!(error = chain(&error), "semi-sync's source side is on at a replica");
        }
        let receiving = facts.replication.as_ref().is_some_and(|replication| replication.io_running);
        if receiving
            && !facts.semi_sync.replica_on
            && let Err(error) = mysql.semi_sync_replica(STATEMENT).await
        {
            tracing::warn!(error = chain(&error), "semi-sync's replica side is not on");
        }
    }

    /// Writable first, semi-sync before that, ports last.
    async fn serve(&mut self, mysql: &Mysql, facts: &MysqlFacts, wish: &Numbered, semi_sync: bool) {
        let server = match mysql.server_identity().await {
            Ok(server) if server.to_string() == facts.instance.server => server,
            Ok(_) | Err(_) => return,
        };
        if facts.read_only {
            if let Err(error) = self.context.local.note_opening(&facts.instance.server) {
                tracing::error!(%error, "not opened: the state directory refuses a write");
                return;
            }
            if self.inputs.send(Input::Opening { server: facts.instance.server.clone() }).await.is_err() {
                return;
            }
            let switch = if semi_sync { Switch::On } else { Switch::Off };
            if let Err(error) = mysql.open_writes(switch, STATEMENT).await {
                tracing::warn!(error = chain(&error), "MySQL is not open yet");
                return;
            }
            tracing::info!(semi_sync, "MySQL is open again");
        }
        if let Err(error) = mysql.ensure_schema(STATEMENT).await {
            tracing::warn!(error = chain(&error), "the agent's own tables are not there");
        }
        if let Err(error) = self.context.lease.open(Door::Ports, wish.number, Some(server), OPEN_DEADLINE).await {
            tracing::debug!(%error, "the ports are not open yet");
        }
        if facts.replication.is_some() && !facts.read_only {
            self.forget_old_primary(mysql);
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
            Role::Witness | Role::Acquiring { .. } | Role::Serving { ports: false, .. } => {}
            Role::Closed { follow } => {
                if self.close(&mysql, &facts).await
                    && facts.read_only
                    && let Some(holder) = follow
                {
                    self.follow(&mysql, &facts, holder).await;
                }
            }
            Role::Serving { ports: true, semi_sync, .. } => self.serve(&mysql, &facts, wish, *semi_sync).await,
        }
    }
}
