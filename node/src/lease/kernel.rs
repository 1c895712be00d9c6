//! What the lease thread does in the kernel: tickets, permits, voiding, and the VIP's addresses.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_netops::gate::SlotState;
use baton_netops::{Gate, GateError, GateSpec, Network, TableOutcome, WatchError, Watcher, Which, gate};
use baton_runbooks::lease::holder::Door;

use super::OrderError;

/// Why the VIP's addresses were not all refreshed.
#[derive(Debug)]
pub(super) struct NotHeld {
    /// What was done, and the error with its causes.
    pub(super) detail: String,
    /// The kernel said no. Otherwise its answer did not come in time, or it was short of something: the next attempt may
    /// go well.
    pub(super) is_refusal: bool,
}

/// The kernel's side on a data node.
pub(super) struct Kernel {
    gate: Gate,
    spec: GateSpec,
    network: Network,
    address_lifetime_s: u32,
    pub(super) repairs: u64,
    /// Doors that were voided, with nothing put in since.
    voided: BTreeSet<Door>,
}

impl Kernel {
    /// Installs the gates, closed, unless they stand already, and removes what the ledger does not give us. `is_holder`:
    /// it names this node, and what an earlier agent left open may go on until its tickets end.
    pub(super) async fn open(
        spec: GateSpec,
        address_lifetime_s: u32,
        is_holder: bool,
    ) -> Result<Self, OrderError> {
        gate::install_or_keep(&spec).await.map_err(|error| failed("install the gates", &error))?;
        let gate = Gate::open(spec.slots).map_err(|error| failed("open the gates", &error))?;
        let network = Network::open().map_err(|error| failed("open routing netlink", &error))?;
        let mut kernel =
            Self { gate, spec, network, address_lifetime_s, repairs: 0, voided: BTreeSet::new() };
        if !is_holder {
            kernel.void(&[Door::Vip, Door::Ports]).await?;
        }
        kernel.remove_leftovers(is_holder).await?;
        Ok(kernel)
    }

    /// A subscription to what changes in the kernel, which our own renewals do not wake. The gate is kept as long as the kernel's
    /// side is, which is as long as the thread.
    pub(super) fn watch(&self) -> Result<Watcher, WatchError> {
        let watcher = Watcher::open()?;
        watcher.pass_over(&self.gate);
        Ok(watcher)
    }

    /// Removes addresses that an earlier agent added: all of them, or on a holder those that are no VIP any more. What
    /// somebody else configured is left alone; its traffic does not pass the gate.
    async fn remove_leftovers(&self, is_holder: bool) -> Result<(), OrderError> {
        let vips: Vec<_> = self.spec.vips.iter().map(|vip| vip.ip).collect();
        let found =
            self.network.our_addresses(&vips).await.map_err(|error| failed("list addresses", &error))?;
        for address in found {
            let is_held = is_holder && self.is_vip(address.ip);
            if address.tagged && !is_held {
                tracing::warn!(ip = %address.ip, "removing an address that an earlier agent left behind");
                self.network
                    .remove_own(&address)
                    .await
                    .map_err(|error| failed("remove an address", &error))?;
            } else if !address.tagged && address.valid_s.is_none() {
                tracing::warn!(ip = %address.ip, "the VIP is configured on this host by somebody else; it must not be");
            }
        }
        Ok(())
    }

    /// Puts the tickets of slot `slot` in. Returns false when the rules had been removed and are back, closed: the
    /// caller renews at once.
    pub(super) async fn ticket(
        &mut self,
        doors: &[Door],
        slot: u64,
        timeout: Duration,
    ) -> Result<bool, OrderError> {
        let Some(which) = which(doors) else { return Ok(true) };
        self.voided.retain(|door| !doors.contains(door));
        match self.gate.ticket(which, slot as u8, timeout) {
            Ok(()) => Ok(true),
            Err(GateError::Gone) => self.repair().await.map(|_| false),
            Err(error) => Err(failed("write a ticket", &error)),
        }
    }

    /// Puts the permits of slot `slot` in.
    pub(super) async fn permit(
        &mut self,
        doors: &[Door],
        slot: u64,
        timeout: Duration,
    ) -> Result<bool, OrderError> {
        let Some(which) = which(doors) else { return Ok(true) };
        self.voided.retain(|door| !doors.contains(door));
        match self.gate.permit(which, slot as u8, timeout) {
            Ok(()) => Ok(true),
            Err(GateError::Gone) => self.repair().await.map(|_| false),
            Err(error) => Err(failed("write a permit", &error)),
        }
    }

    /// Voids and reads back. Rules that had been removed are put back, closed. A planned move orders the same twice within
    /// milliseconds, the second time with clients waiting: what was voided is read back first, and nothing more if it is still so.
    pub(super) async fn void(&mut self, doors: &[Door]) -> Result<(), OrderError> {
        let Some(which) = which(doors) else { return Ok(()) };
        let was_voided = doors.iter().all(|door| self.voided.contains(door));
        // What cannot be read is voided anew.
        if was_voided && self.gate.is_void(which).unwrap_or(false) {
            return Ok(());
        }
        match self.gate.void(which) {
            Ok(()) => {
                self.voided.extend(doors);
                Ok(())
            }
            Err(GateError::Gone) => self.repair().await.map(drop),
            Err(error) => Err(failed("close the gates", &error)),
        }
    }

    /// Voids one slot of both doors and reads back. Rules that had been removed are put back, closed.
    pub(super) async fn void_slot(&mut self, slot: u64) -> Result<(), OrderError> {
        match self.gate.void_slot(Which::Both, slot as u8) {
            Ok(()) => Ok(()),
            Err(GateError::Gone) => self.repair().await.map(drop),
            Err(error) => Err(failed("void a slot of the gates", &error)),
        }
    }

    /// The doors that one slot lets packets pass, with the milliseconds for which it does.
    pub(super) fn open_in(&mut self, slot: u64) -> Result<Vec<(Door, u64)>, OrderError> {
        let alive = self.gate.alive(Which::Both).map_err(|error| failed("read the gates", &error))?;
        let open = alive.iter().filter(|state| u64::from(state.slot) == slot);
        let named = |state: &SlotState| match state.which {
            Which::Vip => Some((Door::Vip, state.open_ms()?)),
            Which::Ports => Some((Door::Ports, state.open_ms()?)),
            Which::Both => None,
        };
        Ok(open.filter_map(named).collect())
    }

    /// Puts rules back that another program removed; they come back closed. False: they are all there.
    pub(super) async fn repair(&mut self) -> Result<bool, OrderError> {
        let installed = gate::install_or_keep(&self.spec).await;
        let installed = installed.map_err(|error| failed("put the gates back", &error))?;
        let loaded = installed.vip == TableOutcome::Loaded || installed.ports == TableOutcome::Loaded;
        if loaded {
            self.repairs += 1;
            tracing::warn!("another program removed our nftables rules; they are back");
        }
        Ok(loaded)
    }

    /// Adds the VIP's addresses, or refreshes their lifetimes: for as long as the gate may let their packets pass, or for
    /// what is configured. Answers for how many milliseconds they live now.
    pub(super) async fn hold_addresses(&self, open_ms: u64) -> Result<u64, NotHeld> {
        let open_s = u32::try_from(open_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        let lifetime_s = self.address_lifetime_s.max(open_s);
        for vip in &self.spec.vips {
            self.network.ensure_address(vip.ip, &vip.interface, lifetime_s).await.map_err(|error| {
                NotHeld {
                    detail: failed("hold the VIP's address", &error).to_string(),
                    is_refusal: error.is_refusal(),
                }
            })?;
        }
        Ok(u64::from(lifetime_s) * 1000)
    }

    /// Takes the VIP's addresses away.
    pub(super) async fn drop_addresses(&self) -> Result<(), OrderError> {
        for vip in &self.spec.vips {
            self.network
                .remove_address(vip.ip, &vip.interface)
                .await
                .map_err(|error| failed("remove the VIP's address", &error))?;
        }
        Ok(())
    }

    /// The address is one of the VIPs.
    pub(super) fn is_vip(&self, ip: std::net::IpAddr) -> bool {
        self.spec.vips.iter().any(|vip| vip.ip == ip)
    }
}

fn which(doors: &[Door]) -> Option<Which> {
    match (doors.contains(&Door::Vip), doors.contains(&Door::Ports)) {
        (true, true) => Some(Which::Both),
        (true, false) => Some(Which::Vip),
        (false, true) => Some(Which::Ports),
        (false, false) => None,
    }
}

fn failed(doing: &'static str, error: &dyn std::error::Error) -> OrderError {
    OrderError::Kernel { doing, detail: crate::chain::chain(error) }
}
