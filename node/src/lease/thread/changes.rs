//! What another program changes in the kernel, and how it is put back.

use std::time::{Duration, Instant};

use baton_netops::{Event, WatchError};
use baton_runbooks::lease::holder::Door;
use baton_runbooks::observe::Observation;

use super::Thread;
use crate::chain::chain;

/// After a look at the rules, deletions within this time are answered by one more look at its end. Shorter than a lease,
/// so that what was deleted meanwhile is back before anybody can take over.
const QUIET: Duration = Duration::from_millis(200);

/// A refresh of the VIP's address that failed is tried again after this long: with the usual period before it, one
/// more attempt and both deadlines fit into a lifetime of 2 s. Long enough for renewals between two attempts that hang.
const REFRESH_AGAIN: Duration = Duration::from_millis(200);

/// A watcher that failed is not asked again for this long.
const WATCH_PAUSE: Duration = Duration::from_millis(250);

impl Thread {
    /// Holds the VIP's address while its door is open under a valid lease.
    pub(super) async fn refresh(&mut self) {
        if !self.holder.is_open(Door::Vip) || !self.holder.is_valid(self.setup.clock.now()) {
            return;
        }
        let Some(kernel) = &self.kernel else { return };
        let asked_at = self.setup.clock.now();
        match kernel.hold_addresses(self.long_ms()).await {
            Ok(lifetime_ms) => {
                if self.address.refreshed(asked_at, lifetime_ms)
                    && self.setup.observations.try_send(Observation::VipHeld).is_ok()
                {
                    tracing::warn!("the VIP's address is held again");
                    self.address.heard();
                }
            }
            Err(error) => {
                tracing::error!(
                    error = error.detail,
                    refused = error.is_refusal,
                    "the VIP's address is not refreshed"
                );
                self.refresh_at = Instant::now() + REFRESH_AGAIN;
                let seen = self.address.failed(self.setup.clock.now(), &error);
                let _ = self.setup.observations.try_send(seen);
            }
        }
    }

    /// Puts the rules back if they are not what they should be. They come back closed, so the lease is asked for at once.
    pub(super) async fn restore(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        let restored = kernel.repair().await;
        self.restored_at = Instant::now();
        self.restore_again = false;
        match restored {
            Ok(true) => {
                self.all_is_closed();
                self.renew().await;
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the rules are not back"),
        }
    }

    /// The second look after a deletion, when it is due.
    pub(super) async fn look_again(&mut self) {
        if self.restore_again && self.restored_at.elapsed() >= QUIET {
            self.restore().await;
        }
    }

    pub(super) async fn note(&mut self, event: Event) {
        match event {
            Event::AddressGone { ip, .. } => {
                let ours = self.kernel.as_ref().is_some_and(|kernel| kernel.is_vip(ip));
                if ours && self.holder.is_open(Door::Vip) && self.holder.is_valid(self.setup.clock.now()) {
                    // Or its life has ended while refreshes failed.
                    tracing::warn!(%ip, "the VIP was removed; putting it back");
                    self.address.gone(self.setup.clock.now());
                    if let Some(kernel) = &mut self.kernel {
                        kernel.repairs += 1;
                    }
                    self.refresh().await;
                }
            }
            // A flush is told as dozens of deletions, and a look at the rules takes tens of milliseconds: one look at
            // once, and one more when it is quiet.
            Event::RulesGone { .. } if self.restored_at.elapsed() < QUIET => self.restore_again = true,
            Event::RulesGone { .. } => self.restore().await,
            Event::LinkUp { interface, .. } => self.tell_link(interface, true),
            Event::LinkDown { interface, .. } => self.tell_link(interface, false),
            Event::AddressSeen { .. } | Event::Overrun => {}
        }
    }

    /// The subscription is a second eye: renewals put rules and addresses back without it.
    pub(super) fn watch_again(&mut self, error: &WatchError) {
        self.watch_at = Instant::now() + WATCH_PAUSE;
        match error {
            WatchError::Dump(_) => {
                tracing::debug!(error = chain(error), "the kernel's state was not listed yet")
            }
            WatchError::Subscribe(_) | WatchError::Open(_) | WatchError::Ended | WatchError::Read(_) => {
                tracing::warn!(error = chain(error), "watching the kernel's changes anew");
                let Some(kernel) = &self.kernel else { return };
                match kernel.watch() {
                    Ok(watcher) => self.watcher = Some(watcher),
                    Err(error) => {
                        tracing::error!(error = chain(&error), "no notice of changes in the kernel")
                    }
                }
            }
        }
    }

    fn tell_link(&self, interface: String, up: bool) {
        if self.setup.gate.as_ref().is_some_and(|spec| spec.vips.iter().any(|vip| vip.interface == interface))
        {
            let _ = self.setup.observations.try_send(Observation::Link { interface, up });
        }
    }
}
