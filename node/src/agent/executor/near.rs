//! How near the target of a switchover must be before its holder closes: nobody is served while it applies the rest.
//!
//! The target looks first, before anything is stopped. The holder looks again when its clients have ended (`draining.rs`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use baton_consensus::PATIENCE_HEARTBEATS;
use baton_runbooks::agent::TICK_MAX_MS;
use baton_runbooks::run::switchover;
use tokio::time::Instant;

use super::Executor;
use super::act::{DRAIN_STILL_MAX, STATEMENT};
use super::handover::reached;
use crate::config::Timing;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::promote::DrainProgress;

/// A target that applies what is there within this time is near: as long as clients have patience, it is waited for.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);
/// One that always needs longer is near enough if it needs no more than this: less than it is given once the holder is closed.
const APPLIED_AT_LAST: Duration = Duration::from_millis(switchover::CATCH_UP_MS - 500);
/// A target that is behind is waited for no longer than until this much before the step's limit, so that it is said why.
pub(super) const SAY_WHY: Duration = Duration::from_millis(250);

/// Within which time a holder must hear that its target has applied what was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Near {
    soon: Duration,
    at_last: Duration,
}

impl Near {
    /// Beside what applying may take: a probe sees that it is applied, and the report of it waits for its turn, for a heartbeat and
    /// for a tick.
    pub(super) fn of(timing: &Timing) -> Self {
        let told = timing.probe.duration() + timing.report.duration() + timing.rtt.duration();
        let waits = timing.heartbeat.duration() * PATIENCE_HEARTBEATS + Duration::from_millis(TICK_MAX_MS);
        let at_last = APPLIED_AT_LAST + told + waits;
        // A report may come at once: then all of it was applying, for which the closed holder's target has this and no more.
        let at_last = at_last.min(Duration::from_millis(switchover::CATCH_UP_MS));
        Self { soon: APPLIED_WITHIN + told + waits, at_last }
    }

    /// Whether a target that `took` so long is near enough to close; longer is allowed where another round `brings_nothing`.
    pub(super) fn is_enough(self, took: Duration, brings_nothing: bool) -> bool {
        took <= if brings_nothing { self.at_last } else { self.soon }
    }
}

impl Executor {
    /// Waits until this target applies what it has received quickly enough; what that was. One statement that runs for long is
    /// waited for, until `give_up`; a target that is always behind would be too late once the holder is closed, and nothing is stopped
    /// for it.
    pub(super) async fn keeps_up(&self, mysql: &Mysql, give_up: Instant) -> anyhow::Result<String> {
        let left = AtomicU64::new(0);
        let rounds = quick_enough(|| applied_here(mysql, &left));
        match tokio::time::timeout_at(give_up, rounds).await {
            Ok(received) => received,
            Err(_) => bail!(
                "{} is too far behind, and nothing was touched: applying what it has received takes longer than {} ms; {} \
                 transactions are left",
                self.context.config.node,
                APPLIED_AT_LAST.as_millis(),
                left.load(Ordering::Relaxed)
            ),
        }
    }
}

/// Applies what is received by now; how long that took, and what it was.
async fn applied_here(mysql: &Mysql, left: &AtomicU64) -> anyhow::Result<(Duration, String)> {
    let began = Instant::now();
    let captured = mysql.capture_received(STATEMENT).await?;
    left.store(captured.backlog, Ordering::Relaxed);
    let note = |now: &DrainProgress| left.store(now.backlog, Ordering::Relaxed);
    reached(mysql.drain(&captured.received, DRAIN_STILL_MAX, note).await?)?;
    Ok((began.elapsed(), captured.received))
}

/// Rounds until one was quick enough; what that one brought. Without an end of its own.
async fn quick_enough<T, R>(mut round: impl FnMut() -> R) -> anyhow::Result<T>
where
    R: Future<Output = anyhow::Result<(Duration, T)>>,
{
    loop {
        let (took, brought) = round().await?;
        if took <= APPLIED_AT_LAST {
            return Ok(brought);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::config::Profile;

    #[test]
    fn a_steady_lag_is_near_enough_in_the_end_if_it_fits_what_the_closed_holder_leaves() {
        for profile in Profile::ALL {
            let near = Near::of(&profile.timing());
            let [second, two, four] = [1, 2, 4].map(Duration::from_secs);
            assert!(near.is_enough(second, false) && near.is_enough(second, true), "{profile:?}");
            assert!(
                near.is_enough(near.soon, false) && !near.is_enough(near.soon + two, false),
                "{profile:?}"
            );
            assert!(near.is_enough(two, true) && !near.is_enough(four, true), "{profile:?}");
            assert!(near.at_last <= Duration::from_millis(switchover::CATCH_UP_MS), "{profile:?}");
        }
    }

    #[test]
    fn a_target_that_is_near_enough_has_the_time_to_say_so_whatever_stopping_services_took() {
        for profile in Profile::ALL {
            let round = Near::of(&profile.timing()).at_last;
            assert!(round + SAY_WHY <= Duration::from_millis(switchover::TARGET_MS), "{profile:?}");
        }
    }

    #[tokio::test]
    async fn one_long_statement_is_waited_for_and_an_applier_that_failed_is_not() {
        let mut rounds = [4_000, 2_600, 2_400, 100].into_iter();
        let brought = quick_enough(|| {
            let ms = rounds.next().unwrap();
            ready(Ok((Duration::from_millis(ms), ms)))
        });
        assert_eq!(brought.await.unwrap(), 2_400);
        let failed = quick_enough(|| ready(Err::<(Duration, ()), _>(anyhow::anyhow!("it stopped"))));
        assert_eq!(failed.await.unwrap_err().to_string(), "it stopped");
    }
}
