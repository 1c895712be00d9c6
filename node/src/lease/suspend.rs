//! Whether the machine was suspended. Its monotonic clock and its kernel's timers stood still meanwhile, so every lease and
//! every ticket looks as valid as before, and is not. The boot clock went on.
//!
//! A hypervisor that pauses a virtual machine may stop that clock too; then nothing here shows it (`docs/safety.md`).

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Compares the two clocks again and again.
#[derive(Debug)]
pub(super) struct Suspend {
    /// By how much the boot clock was ahead when it was last looked at.
    ahead: Duration,
}

impl Suspend {
    /// From now on.
    pub(super) fn new() -> Self {
        Self { ahead: ahead().unwrap_or_default() }
    }

    /// For how long the machine was suspended since the last call, if for longer than `margin`.
    pub(super) fn since_last(&mut self, margin: Duration) -> Option<Duration> {
        self.look(ahead()?, margin)
    }

    fn look(&mut self, ahead: Duration, margin: Duration) -> Option<Duration> {
        let asleep = ahead.saturating_sub(self.ahead);
        self.ahead = ahead;
        (asleep > margin).then_some(asleep)
    }
}

/// The boot clock less the monotonic one; read in this order, so that a wait between the two makes it smaller.
fn ahead() -> Option<Duration> {
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let monotonic = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    Some(boot.saturating_sub(monotonic))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Duration = Duration::from_millis(100);

    #[test]
    fn a_machine_that_was_awake_shows_nothing() {
        let mut suspend = Suspend::new();
        assert_eq!(suspend.since_last(MARGIN), None);
        assert_eq!(suspend.look(suspend.ahead + MARGIN, MARGIN), None);
    }

    #[test]
    fn a_suspend_is_seen_once() {
        let mut suspend = Suspend { ahead: Duration::from_secs(5) };
        let asleep = Duration::from_secs(60);
        assert_eq!(suspend.look(Duration::from_secs(65), MARGIN), Some(asleep));
        assert_eq!(suspend.look(Duration::from_secs(65), MARGIN), None);
    }

    #[test]
    fn a_wait_between_the_two_clocks_is_none() {
        let mut suspend = Suspend { ahead: Duration::from_secs(5) };
        assert_eq!(suspend.look(Duration::from_millis(4_700), MARGIN), None);
    }
}
