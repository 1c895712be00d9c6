//! What bears the VIP on this node: the carrier of its interface, and its address in the kernel.
//!
//! Neither is lost at the first sign. A carrier that blinks takes no packet for longer than it blinks, and an address whose
//! refresh failed lives on in the kernel until its lifetime ends: whoever gives the baton away for one of these has made an
//! outage out of none. What the kernel refuses, or cannot be put back once it is gone, is lost at once.

use std::collections::BTreeMap;

use super::STALE_MS;
use crate::model::Mono;

/// Refreshes of the VIP's address that failed, and none that went well since.
#[derive(Debug)]
struct Unheld {
    /// When the address ends, at the latest.
    ends_at: Mono,
    /// When the newest of them failed.
    last: Mono,
    /// What the kernel said to it.
    detail: String,
}

/// What was seen of carrier and address.
#[derive(Debug, Default)]
pub(super) struct Bearer {
    /// Interfaces without carrier, and since when.
    links_down: BTreeMap<String, Mono>,
    unheld: Option<Unheld>,
    /// The newest word that the address cannot be restored.
    refused: Option<(Mono, String)>,
}

impl Bearer {
    pub(super) fn link(&mut self, interface: &str, up: bool, now: Mono) {
        if up {
            self.links_down.remove(interface);
        } else {
            // It may be told again while it lasts.
            self.links_down.entry(interface.to_owned()).or_insert(now);
        }
    }

    /// One refresh failed; the address lives for `left_ms` more.
    pub(super) fn unheld(&mut self, detail: &str, left_ms: u64, now: Mono) {
        let before = self.unheld.take().filter(|unheld| now.since_ms(unheld.last) < STALE_MS);
        let ends_at = now.plus_ms(left_ms);
        let ends_at = before.map_or(ends_at, |unheld| unheld.ends_at.min(ends_at));
        self.unheld = Some(Unheld { ends_at, last: now, detail: detail.to_owned() });
    }

    /// A refresh went well after some that had failed.
    pub(super) fn held(&mut self) {
        self.unheld = None;
    }

    pub(super) fn refused(&mut self, detail: &str, now: Mono) {
        self.refused = Some((now, detail.to_owned()));
    }

    pub(super) fn links_down(&self) -> impl Iterator<Item = &str> {
        self.links_down.keys().map(String::as_str)
    }

    pub(super) fn link_lost(&self, now: Mono, at_least_ms: u64) -> Option<&str> {
        let lost = |since: Mono| now.since_ms(since) >= at_least_ms;
        self.links_down.iter().find(|(_, since)| lost(**since)).map(|(interface, _)| interface.as_str())
    }

    pub(super) fn vip_lost(&self, now: Mono) -> Option<&str> {
        let is_fresh = |at: Mono| now.since_ms(at) < STALE_MS;
        if let Some((_, detail)) = self.refused.as_ref().filter(|(at, _)| is_fresh(*at)) {
            return Some(detail);
        }
        let unheld = self.unheld.as_ref()?;
        (unheld.ends_at <= now && is_fresh(unheld.last)).then_some(unheld.detail.as_str())
    }
}
