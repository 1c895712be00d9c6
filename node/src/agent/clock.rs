//! The agent's clock: the one place where `Instant` becomes [`Mono`].

use std::time::{Duration, Instant, SystemTime};

use baton_consensus::timer::Timer;
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

    /// Ticks of `period`, the first one at once, or `after` that. See [`Ticks`].
    pub(crate) fn every(&self, period: Duration, after: Duration) -> Ticks {
        let at = self.on_grid(Instant::now()) + after;
        Ticks { clock: *self, period, is_first: true, at, timer: Timer::until(at) }
    }

    /// The last point of the grid before `instant`.
    fn on_grid(&self, instant: Instant) -> Instant {
        let since = instant.saturating_duration_since(self.origin).as_nanos() % GRID.as_nanos();
        instant.checked_sub(Duration::from_nanos(since as u64)).unwrap_or(instant)
    }

    /// The instant of `mono`, for timers.
    #[must_use]
    pub fn instant(&self, mono: Mono) -> Instant {
        self.origin + Duration::from_millis(mono.0)
    }
}

/// The grid of the agent's periods, which are multiples of it.
pub(crate) const GRID: Duration = Duration::from_millis(50);

/// The ticks of one task. What is periodic wakes the process at the points of one grid, since a wake-up costs more than
/// most of what is done in it. The next tick comes one period after the last, or, after one that came late, up to half of one
/// sooner: never later than the period says, and never two at once.
#[derive(Debug)]
pub(crate) struct Ticks {
    clock: Clock,
    period: Duration,
    is_first: bool,
    at: Instant,
    timer: Timer,
}

impl Ticks {
    /// Waits for the next tick. Dropping the future loses none.
    pub(crate) async fn tick(&mut self) {
        self.timer.wait().await;
        self.at = self.after(Instant::now());
        self.is_first = false;
        self.timer.reset(self.at);
    }

    /// From now on ticks of this period, the next one that far from now at the latest. Nothing changes if it is so already.
    pub(crate) fn set_period(&mut self, period: Duration) {
        if self.period == period {
            return;
        }
        self.period = period;
        self.at = self.one_period_from(Instant::now());
        self.timer.reset(self.at);
    }

    /// When the tick after one that is taken `now` comes.
    fn after(&self, now: Instant) -> Instant {
        let half = self.period / 2;
        if self.is_first || now.saturating_duration_since(self.at) <= half {
            return self.at + self.period;
        }
        self.one_period_from(now)
    }

    /// On the grid, where that makes the wait at most half a period shorter.
    fn one_period_from(&self, now: Instant) -> Instant {
        let next = now + self.period;
        if GRID <= self.period / 2 { self.clock.on_grid(next) } else { next }
    }
}

/// Wall-clock time, for people only.
#[must_use]
pub fn wall() -> WallMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallMs(since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(200);

    fn since(clock: Clock, at: Instant) -> u128 {
        (at - clock.origin).as_millis()
    }

    #[tokio::test]
    async fn ticks_in_time_stay_on_the_grid() {
        let clock = Clock::start();
        let mut ticks = clock.every(PERIOD, GRID);
        assert_eq!(since(clock, ticks.at) % GRID.as_millis(), 0);
        ticks.is_first = false;
        let next = ticks.after(ticks.at + Duration::from_millis(7));
        assert_eq!(next - ticks.at, PERIOD);
    }

    #[tokio::test]
    async fn after_a_late_one_the_next_is_on_the_grid_within_a_period_and_not_at_once() {
        let clock = Clock::start();
        let mut ticks = clock.every(PERIOD, Duration::ZERO);
        ticks.is_first = false;
        for late_ms in [101, 149, 150, 199, 200, 201, 1_234] {
            let now = ticks.at + Duration::from_millis(late_ms);
            let next = ticks.after(now);
            assert_eq!(since(clock, next) % GRID.as_millis(), 0);
            assert!(next - now <= PERIOD && next - now >= PERIOD / 2, "{late_ms}: {:?}", next - now);
        }
    }

    #[tokio::test]
    async fn another_period_holds_from_now_on() {
        let clock = Clock::start();
        let mut ticks = clock.every(PERIOD, Duration::ZERO);
        ticks.tick().await;
        for period in [PERIOD * 5, PERIOD / 2] {
            let before = Instant::now();
            ticks.set_period(period);
            let after = Instant::now();
            assert_eq!(since(clock, ticks.at) % GRID.as_millis(), 0);
            assert!(ticks.at > before + period - GRID && ticks.at <= after + period, "{period:?}");
            assert_eq!(ticks.timer.at(), ticks.at, "it is what is waited for");
            let next = ticks.after(ticks.at);
            assert_eq!(next - ticks.at, period);
        }
        let at = ticks.at;
        ticks.set_period(PERIOD / 2);
        assert_eq!(ticks.at, at, "the same one moves nothing");
    }

    #[tokio::test]
    async fn the_first_comes_at_once_and_no_tick_twice() {
        let clock = Clock::start();
        let began = Instant::now();
        let mut ticks = clock.every(Duration::from_millis(50), Duration::ZERO);
        ticks.tick().await;
        let first = ticks.at;
        ticks.tick().await;
        assert!(
            Instant::now() >= first && ticks.at - first == Duration::from_millis(50),
            "{:?}",
            began.elapsed()
        );
    }
}
