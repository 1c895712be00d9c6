//! How long the kernel keeps the VIP's addresses, and what the core is told of refreshes that fail.
//!
//! A refresh that failed takes nothing away: what the last one gave lives on, and the next one comes before its end. So the
//! core is told how much is left, and judges by that.

use baton_runbooks::model::Mono;
use baton_runbooks::observe::Observation;

use super::kernel::NotHeld;

/// Milliseconds within which addresses must be there whose life is not known, counted from the first refresh that failed: at
/// an opening, or after a restart of the agent. Time for one more attempt, with its deadline.
const UNKNOWN_MS: u64 = 1_000;

/// The life of the VIP's addresses, as far as this thread knows.
#[derive(Debug, Default)]
pub(super) struct AddressLife {
    /// Until when the kernel keeps all of them; `None`: not known.
    ends_at: Option<Mono>,
    /// The core heard of a refresh that failed, and of none that went well since.
    is_doubted: bool,
}

impl AddressLife {
    /// All were refreshed, for `lifetime_ms` from `asked_at` on. True: the core waits to hear it, until
    /// [`AddressLife::heard`].
    #[must_use]
    pub(super) fn refreshed(&mut self, asked_at: Mono, lifetime_ms: u64) -> bool {
        self.ends_at = Some(asked_at.plus_ms(lifetime_ms));
        self.is_doubted
    }

    /// The core has heard that the addresses are held again.
    pub(super) fn heard(&mut self) {
        self.is_doubted = false;
    }

    /// A refresh failed. What the core is to hear.
    pub(super) fn failed(&mut self, now: Mono, error: &NotHeld) -> Observation {
        let detail = error.detail.clone();
        if error.is_refusal {
            return Observation::VipUnrestorable { detail };
        }
        self.is_doubted = true;
        let ends_at = *self.ends_at.get_or_insert(now.plus_ms(UNKNOWN_MS));
        Observation::VipUnheld { detail, left_ms: ends_at.since_ms(now) }
    }

    /// The kernel says that one of them is gone: by another program's doing, or at the end of its life.
    pub(super) fn gone(&mut self, now: Mono) {
        self.ends_at = Some(now);
    }

    /// They are taken away by ourselves.
    pub(super) fn dropped(&mut self) {
        self.ends_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late() -> NotHeld {
        NotHeld { detail: "no answer".to_owned(), is_refusal: false }
    }

    fn unheld(left_ms: u64) -> Observation {
        Observation::VipUnheld { detail: "no answer".to_owned(), left_ms }
    }

    #[test]
    fn a_late_answer_leaves_what_the_last_refresh_gave() {
        let mut life = AddressLife::default();
        assert!(!life.refreshed(Mono(10_000), 2_000), "nobody waits for it");
        assert_eq!(life.failed(Mono(11_200), &late()), unheld(800));
        assert_eq!(life.failed(Mono(11_900), &late()), unheld(100));
        assert_eq!(life.failed(Mono(12_600), &late()), unheld(0));
        // It is said until it was heard.
        assert!(life.refreshed(Mono(12_800), 2_000));
        assert!(life.refreshed(Mono(13_500), 2_000));
        life.heard();
        assert!(!life.refreshed(Mono(14_200), 2_000));
    }

    #[test]
    fn what_the_kernel_refuses_cannot_be_restored() {
        let mut life = AddressLife::default();
        assert!(!life.refreshed(Mono(10_000), 2_000));
        let refused = NotHeld { detail: "no permission".to_owned(), is_refusal: true };
        let detail = refused.detail.clone();
        assert_eq!(life.failed(Mono(10_100), &refused), Observation::VipUnrestorable { detail });
    }

    #[test]
    fn what_is_gone_and_cannot_be_put_back_has_no_life_left() {
        let mut life = AddressLife::default();
        assert!(!life.refreshed(Mono(10_000), 2_000));
        life.gone(Mono(10_300));
        assert_eq!(life.failed(Mono(10_800), &late()), unheld(0));
    }

    /// At an opening, or after a restart of the agent: one late answer is no reason to give up, the second one is.
    #[test]
    fn a_life_that_is_not_known_is_long_enough_for_one_more_attempt() {
        let mut life = AddressLife::default();
        assert!(!life.refreshed(Mono(10_000), 2_000));
        life.dropped();
        assert_eq!(life.failed(Mono(10_500), &late()), unheld(1_000));
        assert_eq!(life.failed(Mono(11_200), &late()), unheld(300));
        assert_eq!(life.failed(Mono(11_900), &late()), unheld(0));
    }
}
