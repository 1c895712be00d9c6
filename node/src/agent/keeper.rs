//! The keeper's hands: semi-sync's source side and the canary, in the order that the core wants.
//!
//! Orders are carried out later than they were decided. What makes that safe is in [`super::settlement`].

use std::time::Duration;

use baton_runbooks::agent::Input;
use baton_runbooks::decide::local::Role;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::Command;
use baton_runbooks::sync::Keep;
use tokio::sync::mpsc;

use super::Context;
use super::driver::{Inputs, Wishes};
use super::senses::Seen;
use crate::chain::chain;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::semisync::Switch;

/// A canary is committed this often; its age is the lag that status shows.
const CANARY_PERIOD: Duration = Duration::from_secs(1);
/// A canary may wait for the replica for as long as a lease and more; then it is given up, and its session dropped.
const CANARY_DEADLINE: Duration = Duration::from_secs(10);
/// Switching takes milliseconds on MariaDB and a second on MySQL.
const SWITCH_DEADLINE: Duration = Duration::from_secs(3);
/// An order of the core is repeated until it shows, so one that waits is enough.
const ORDERS_MAX: usize = 1;
/// A proposal takes milliseconds.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Where the core's orders go.
pub(super) struct Orders(mpsc::Sender<Keep>);

impl Orders {
    /// Hands an order on; one that finds another waiting is dropped, the core repeats it.
    pub(super) fn order(&self, keep: Keep) {
        let _ = self.0.try_send(keep);
    }
}

struct Keeper {
    context: Context,
    inputs: Inputs,
    wishes: Wishes,
    seen: Seen,
}

/// Starts the keeper's task.
pub(super) fn start(context: &Context, inputs: Inputs, wishes: Wishes, seen: Seen) -> Orders {
    let (tx, mut orders) = mpsc::channel(ORDERS_MAX);
    let keeper = Keeper { context: context.clone(), inputs, wishes, seen };
    tokio::spawn(async move {
        let mut tick = keeper.context.clock.every(CANARY_PERIOD, Duration::ZERO);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(keep) => keeper.obey(keep).await,
                    None => return,
                },
                _ = tick.tick() => keeper.canary(),
            }
        }
    });
    Orders(tx)
}

impl Keeper {
    async fn obey(&self, keep: Keep) {
        let Some(mysql) = &self.context.hands.mysql else { return };
        match keep {
            Keep::Canary => self.canary(),
            Keep::SourceOn => self.source_on(mysql).await,
            Keep::SourceOff => self.source_off(mysql).await,
            Keep::ProposeOut { reason, close_ports: true } => {
                tracing::error!(reason, "semi-sync moved by itself; the ports close until the ledger knows");
                let number = self.wishes.borrow().as_ref().map_or(0, |wish| wish.number);
                if let Err(error) = self.context.lease.close(&[Door::Ports], number).await {
                    tracing::error!(%error, "the ports did not close at once");
                }
            }
            Keep::Nothing | Keep::ProposeOut { .. } | Keep::ProposeIn { .. } => {}
        }
    }

    async fn source_on(&self, mysql: &Mysql) {
        let _alone = self.context.sync.exclusive().await;
        if !self.is_serving() {
            return;
        }
        match mysql.semi_sync_source(Switch::On, SWITCH_DEADLINE).await {
            Ok(_) => tracing::info!("semi-sync on; a canary decides"),
            Err(error) => tracing::warn!(error = chain(&error), "semi-sync is not on"),
        }
    }

    /// Off, which releases waiting commits: only while the ledger says *out of sync* and nothing else can be applied.
    async fn source_off(&self, mysql: &Mysql) {
        let _alone = self.context.sync.exclusive().await;
        if !self.context.sync.is_settled() {
            let (epoch, generation) = {
                let committed = self.context.consensus.committed();
                let committed = committed.borrow();
                (committed.ledger.epoch, committed.ledger.sync_generation)
            };
            let by = self.context.config.node.clone();
            let reason = "settles an in-sync proposal whose fate is unknown".to_owned();
            let command = Command::SyncOut { epoch, generation, by, reason };
            match self.context.consensus.propose(command, PROPOSE_DEADLINE).await {
                Ok(applied) if applied.response.is_accepted() => self.context.sync.is_out(generation),
                Ok(_) | Err(_) => return,
            }
        }
        if self.context.consensus.committed().borrow().ledger.has_replica_in_sync() || !self.is_serving() {
            return;
        }
        match mysql.semi_sync_source(Switch::Off, SWITCH_DEADLINE).await {
            Ok(_) => tracing::warn!("semi-sync off: the ledger says out of sync, waiting commits go on"),
            Err(error) => tracing::warn!(error = chain(&error), "semi-sync is not off"),
        }
    }

    fn is_serving(&self) -> bool {
        let wish = self.wishes.borrow();
        wish.as_ref().is_some_and(|numbered| match &numbered.wish.role {
            Role::Serving { ports, .. } => *ports,
            Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } | Role::Receiving { .. } => false,
        })
    }

    /// Commits a canary unless one is under way. Runs beside: it may wait for the replica's acknowledgement.
    fn canary(&self) {
        if self.context.hands.mysql.is_none() || !self.is_serving() {
            return;
        }
        let Some(facts) = self.seen.mysql().filter(|facts| !facts.read_only) else { return };
        let Some(number) = self.context.sync.canary.begin(facts.canary_applied) else { return };
        let (context, inputs) = (self.context.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let _ = inputs.send(Input::Canary { number, committed: false }).await;
            if let Some(mysql) = &context.hands.mysql {
                match mysql.canary(number, CANARY_DEADLINE).await {
                    Ok(_) => {
                        let _ = inputs.send(Input::Canary { number, committed: true }).await;
                    }
                    Err(error) => tracing::debug!(error = chain(&error), "no canary"),
                }
            }
            context.sync.canary.ended();
        });
    }
}
