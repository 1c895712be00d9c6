//! The driver's sign of life, without which nothing is renewed.
//!
//! The lease thread lives on when the driver hangs, and would keep a holder in office that sees nothing, decides nothing
//! and stops nothing. So the driver beats at each of its ticks, and after [`SILENCE_MAX`] without a beat renewals stop; the
//! kernel then closes when the lease ends, as for an agent that is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_runbooks::model::Mono;

/// A driver that is silent for longer hangs. Fifteen of its ticks, so that a machine that is busy for a moment costs no
/// holder its lease; and with the lease of `standard` behind it still within the 3 s in which the loss of a holder is to
/// be noticed (design, G4).
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// When the driver last beat. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    beat_at_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// A pulse whose first beat is now.
    pub(super) fn start(now: Mono) -> Self {
        Self { beat_at_ms: Arc::new(AtomicU64::new(now.0)) }
    }

    /// The driver is alive.
    pub(super) fn beat(&self, now: Mono) {
        // Nothing else is published with it.
        self.beat_at_ms.store(now.0, Ordering::Relaxed);
    }

    /// The driver has been silent for too long.
    pub(super) fn is_lost(&self, now: Mono) -> bool {
        let silent_ms = now.since_ms(Mono(self.beat_at_ms.load(Ordering::Relaxed)));
        Duration::from_millis(silent_ms) > SILENCE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_driver_is_lost_until_it_beats_again() {
        let pulse = Pulse::start(Mono(1_000));
        let last = 1_000 + SILENCE_MAX.as_millis() as u64;
        assert!(!pulse.is_lost(Mono(last)));
        assert!(pulse.is_lost(Mono(last + 1)));
        pulse.beat(Mono(last + 5));
        assert!(!pulse.is_lost(Mono(last + 6)));
    }
}
