//! The agent's clock: the one place where `Instant` becomes [`Mono`].

use std::time::{Duration, Instant, SystemTime};

use baton_runbooks::model::{Mono, WallMs};

/// Counts from a moment shortly before the agent's start. Cheap to copy; all copies count alike.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        // Instants of a little before the start stay representable.
        let now = Instant::now();
        Self { origin: now.checked_sub(Duration::from_secs(60)).unwrap_or(now) }
    }

    /// The present instant, cut to milliseconds.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.at(Instant::now())
    }

    /// An `Instant` as this clock counts it, cut to milliseconds.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Mono {
        Mono(instant.saturating_duration_since(self.origin).as_millis() as u64)
    }

    /// The instant of `mono`, for timers.
    #[must_use]
    pub fn instant(&self, mono: Mono) -> Instant {
        self.origin + Duration::from_millis(mono.0)
    }
}

/// Wall-clock time, for people only.
#[must_use]
pub fn wall() -> WallMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallMs(since.as_millis() as u64)
}
