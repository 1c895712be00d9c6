//! A timer that wakes the thread once.
//!
//! tokio keeps its timers in a wheel, and one that is more than 64 ms away costs two wake-ups: one to sort the wheel anew,
//! one when it ends. For what an idle agent does ten times a second the first costs as much as the work. So whatever is
//! periodic waits for a timer of the kernel's, and those that end at the same instant still end in the same wake-up.
//!
//! ```text
//! tokio, 100 ms     ──wake (sort)────wake──wake (sort)────wake──▶
//! the kernel's      ────────────────wake──────────────────wake──▶
//! ```
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's timer, as tokio wants to see it.
#[derive(Debug)]
struct Kernel(TimerFd);

impl AsRawFd for Kernel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Kernel {
    fn register() -> Option<AsyncFd<Self>> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).ok()?);
        // SAFETY: the descriptor is owned by the `AsyncFd` and stays the same for as long as it lives.
        unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }.ok()
    }
}

/// Ends at an instant, which can be moved. Not `Clone`: one waits for it.
#[derive(Debug)]
pub struct Timer {
    /// None if the kernel gave none, for want of descriptors: then tokio's timers do.
    kernel: Option<AsyncFd<Kernel>>,
    at: Instant,
}

impl Timer {
    /// A timer that ends at `at`. To be made on the runtime that waits for it.
    #[must_use]
    pub fn until(at: Instant) -> Self {
        let mut timer = Self { kernel: Kernel::register(), at };
        timer.arm();
        timer
    }

    /// When it ends.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.at
    }

    /// Moves its end.
    pub fn reset(&mut self, at: Instant) {
        if self.at != at {
            self.at = at;
            self.arm();
        }
    }

    /// Waits until it has ended; at once if it has. Dropping the future loses nothing.
    pub async fn wait(&mut self) {
        while Instant::now() < self.at {
            let Some(kernel) = &self.kernel else {
                return tokio::time::sleep_until(self.at.into()).await;
            };
            match kernel.readable().await {
                // It need not be read: setting it anew clears it, and every end of it is an edge of its own.
                Ok(mut ready) => {
                    ready.clear_ready();
                    // What woke was an end that was moved since. One that is waited for must never be left unset.
                    if Instant::now() < self.at {
                        self.arm();
                    }
                }
                Err(_) => self.kernel = None,
            }
        }
    }

    fn arm(&mut self) {
        let Some(kernel) = &self.kernel else { return };
        // Zero would disarm it.
        let left = self.at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let end = Expiration::OneShot(TimeSpec::from_duration(left));
        if kernel.get_ref().0.set(end, TimerSetTimeFlags::empty()).is_err() {
            self.kernel = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_not_before_its_time_and_can_be_moved() {
        let began = Instant::now();
        let mut timer = Timer::until(began + Duration::from_secs(3600));
        timer.reset(began + Duration::from_millis(120));
        timer.wait().await;
        assert!(began.elapsed() >= Duration::from_millis(120));
        // It has ended: nothing is waited for.
        timer.wait().await;
        timer.reset(began + Duration::from_millis(150));
        timer.wait().await;
        assert!(began.elapsed() >= Duration::from_millis(150));
    }

    #[tokio::test]
    async fn an_end_that_nobody_waited_for_is_not_lost() {
        let mut timer = Timer::until(Instant::now() + Duration::from_millis(20));
        tokio::time::timeout(Duration::from_millis(1), timer.wait()).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(40)).await;
        timer.wait().await;
        timer.reset(Instant::now() + Duration::from_millis(10));
        timer.wait().await;
    }

    #[tokio::test]
    async fn without_the_kernel_s_it_ends_all_the_same() {
        let at = Instant::now() + Duration::from_millis(30);
        let mut timer = Timer { kernel: None, at };
        timer.wait().await;
        assert!(Instant::now() >= at);
    }
}
