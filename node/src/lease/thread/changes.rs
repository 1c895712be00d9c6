//! What another program changes in the kernel, and how it is put back.

use baton_netops::Event;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::observe::Observation;

use super::Thread;

impl Thread {
    /// Holds the VIP's address while its door is open under a valid lease.
    pub(super) async fn refresh(&mut self) {
        if !self.holder.is_open(Door::Vip) || !self.holder.is_valid(self.setup.clock.now()) {
            return;
        }
        let Some(kernel) = &self.kernel else { return };
        if let Err(error) = kernel.hold_addresses().await {
            tracing::error!(%error, "the VIP's address is not held");
            let _ =
                self.setup.observations.try_send(Observation::VipUnrestorable { detail: error.to_string() });
        }
    }

    pub(super) async fn note(&mut self, event: Event) {
        match event {
            Event::AddressGone { ip, .. } => {
                let ours = self.kernel.as_ref().is_some_and(|kernel| kernel.is_vip(ip));
                if ours && self.holder.is_open(Door::Vip) && self.holder.is_valid(self.setup.clock.now()) {
                    tracing::warn!(%ip, "another program removed the VIP; putting it back");
                    if let Some(kernel) = &mut self.kernel {
                        kernel.repairs += 1;
                    }
                    self.refresh().await;
                }
            }
            Event::RulesGone { .. } => {
                let repaired = match &mut self.kernel {
                    Some(kernel) => kernel.repair().await,
                    None => Ok(()),
                };
                match repaired {
                    Ok(()) => {
                        // Rules that were put back are closed.
                        self.permitted.clear();
                        self.renew().await;
                    }
                    Err(error) => tracing::error!(%error, "the rules are not back"),
                }
            }
            Event::LinkUp { interface, .. } => self.tell_link(interface, true),
            Event::LinkDown { interface, .. } => self.tell_link(interface, false),
            Event::AddressSeen { .. } | Event::Overrun => {}
        }
    }

    fn tell_link(&self, interface: String, up: bool) {
        if self.setup.gate.as_ref().is_some_and(|spec| spec.vips.iter().any(|vip| vip.interface == interface))
        {
            let _ = self.setup.observations.try_send(Observation::Link { interface, up });
        }
    }
}
