//! What bears the VIP on this node: the carrier of its interface, and its address in the kernel.
//!
//! Neither is lost at the first sign. A carrier that blinks takes no packet for longer than it blinks, and an address whose
//! refresh failed lives on in the kernel until its lifetime ends: whoever gives the baton away for one of these has made an
//! outage out of none. What the kernel refuses, or cannot be put back once it is gone, is lost at once. And a carrier that blinks
//! again and again is lost, too: what it was away for adds up until it stays.

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

/// A carrier that is gone, or came back and may go again.
#[derive(Debug)]
struct Carrier {
    is_up: bool,
    /// Since when it is so.
    since: Mono,
    /// Milliseconds for which it was away before that, altogether, without staying in between.
    away_ms: u64,
}

impl Carrier {
    fn turn(&mut self, now: Mono) {
        self.away_ms = self.away_until_ms(now);
        (self.is_up, self.since) = (!self.is_up, now);
    }

    const fn away_until_ms(&self, now: Mono) -> u64 {
        let newest = if self.is_up { 0 } else { now.since_ms(self.since) };
        self.away_ms.saturating_add(newest)
    }
}

/// What was seen of carrier and address.
#[derive(Debug, Default)]
pub(super) struct Bearer {
    /// Interfaces that were without carrier when last told of, or not long ago.
    carriers: BTreeMap<String, Carrier>,
    unheld: Option<Unheld>,
    /// The newest word that the address cannot be restored.
    refused: Option<(Mono, String)>,
}

impl Bearer {
    /// A carrier that was back for `stays_ms` has stayed: what was before is forgotten.
    pub(super) fn link(&mut self, interface: &str, up: bool, now: Mono, stays_ms: u64) {
        self.carriers.retain(|_, carrier| !carrier.is_up || now.since_ms(carrier.since) < stays_ms);
        match self.carriers.get_mut(interface) {
            Some(carrier) if carrier.is_up != up => carrier.turn(now),
            // It may be told again while it lasts.
            Some(_) => {}
            None if up => {}
            None => {
                let gone = Carrier { is_up: false, since: now, away_ms: 0 };
                self.carriers.insert(interface.to_owned(), gone);
            }
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
        self.carriers.iter().filter(|(_, carrier)| !carrier.is_up).map(|(interface, _)| interface.as_str())
    }

    /// An interface that has no carrier now, and was without one for `at_least_ms` since it last stayed.
    pub(super) fn link_lost(&self, now: Mono, at_least_ms: u64) -> Option<&str> {
        let is_lost = |carrier: &Carrier| !carrier.is_up && carrier.away_until_ms(now) >= at_least_ms;
        self.carriers.iter().find(|(_, carrier)| is_lost(carrier)).map(|(interface, _)| interface.as_str())
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
