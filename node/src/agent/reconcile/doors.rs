//! The doors: renewals, the VIP, and the clients of a node that has closed.

use std::time::Duration;

use baton_runbooks::decide::local::Role;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::plan::Step;
use baton_runbooks::run::StepStatus;

use super::super::driver::Numbered;
use super::super::{Context, part_from_clients};
use super::{Settled, Share};

/// Time for the VIP's door to open on a tick; the next tick tries again.
const OPEN_DEADLINE: Duration = Duration::from_secs(1);

pub(super) struct Doors {
    context: Context,
    /// The wish for which everything is closed and clients were reset.
    closed_for: Option<u64>,
    /// Renewals are as the wish says.
    asked: Settled,
    /// The VIP's door is open.
    held: Settled,
}

impl Doors {
    pub(super) const fn new(context: Context) -> Self {
        Self { context, closed_for: None, asked: Settled(None), held: Settled(None) }
    }

    async fn close(&mut self, wish: &Numbered) {
        if self.closed_for == Some(wish.number) {
            return;
        }
        self.context.hands.stop_announcing();
        part_from_clients(&self.context.lease, &self.context.hands).await;
        match self.context.lease.close(&[Door::Vip, Door::Ports], wish.number).await {
            Ok(()) => {
                self.ask(wish).await;
                self.context.hands.reset_clients().await;
                self.closed_for = Some(wish.number);
            }
            Err(error) => tracing::error!(%error, "not closed yet"),
        }
    }

    /// Renews for what the wish says. A late wish is refused, and the next one is on its way.
    async fn ask(&mut self, wish: &Numbered) {
        if self.asked.is(wish) {
            return;
        }
        match self.context.lease.renew(wish.wish.renew, wish.number).await {
            Ok(()) => self.asked.note(wish),
            Err(error) => tracing::debug!(%error, "not renewing as wished"),
        }
    }

    async fn hold_vip(&mut self, wish: &Numbered) {
        if self.held.is(wish) && self.context.lease.view().borrow().vip_open {
            return;
        }
        if let Err(error) = self.context.lease.open(Door::Vip, wish.number, None, OPEN_DEADLINE).await {
            tracing::debug!(%error, "the VIP is not held yet");
            return;
        }
        self.context.hands.keep_announcing();
        self.held.note(wish);
    }

    /// An agent that was restarted in the middle of a run holds what the journal says is held.
    fn vip_was_held(&self) -> bool {
        let committed = self.context.consensus.committed();
        let ledger = &committed.borrow().ledger;
        ledger
            .run
            .as_ref()
            .is_some_and(|run| run.aborting.is_none() && run.status(Step::HoldVip) == StepStatus::Done)
    }
}

impl Share for Doors {
    async fn wait(&mut self, wish: &Numbered) {
        self.ask(wish).await;
    }

    async fn make_so(&mut self, wish: &Numbered) {
        match wish.wish.role {
            Role::Witness => {}
            Role::Closed { .. } | Role::Receiving { .. } => {
                self.close(wish).await;
                self.ask(wish).await;
            }
            Role::Acquiring { .. } => {
                self.ask(wish).await;
                if self.vip_was_held() {
                    self.hold_vip(wish).await;
                }
            }
            Role::Serving { ports, .. } => {
                self.ask(wish).await;
                if !ports {
                    part_from_clients(&self.context.lease, &self.context.hands).await;
                    if let Err(error) = self.context.lease.close(&[Door::Ports], wish.number).await {
                        tracing::error!(%error, "the ports are not closed yet");
                    }
                }
                self.hold_vip(wish).await;
            }
        }
    }
}
