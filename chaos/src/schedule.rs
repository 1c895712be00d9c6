//! When a drill is to run by itself, as arithmetic: the time is a parameter, nothing waits here.
//!
//! A drill is due once per `every`, inside its window, at an instant that is spread over the window by `jitter` so that
//! drills of several installations do not start together. What keeps a due drill from running is written down with its
//! reason: a drill that is skipped for months must be seen in the records, not guessed from their absence.

use std::fmt;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::experiment::Span;

/// Days that are looked at for the next window; more than a week, since a window's day may be a holiday of the clock.
const DAYS_MAX: i32 = 15;

/// When a drill is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Once in so long a time.
    pub every: Span,
    /// Only then.
    pub window: Window,
    /// Spread over at most so much of the window.
    pub jitter: Span,
    /// No drill begins so soon after the end of another, or after a takeover of any kind.
    pub cooldown: Span,
}

/// Hours of some days of the week, on the operator's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// On these days; the day on which the window opens.
    pub weekdays: Vec<Weekday>,
    /// From this time.
    pub from: Time,
    /// Until this time; on the next day if it is not after `from`.
    pub to: Time,
    /// Whose clock.
    pub zone: TimeZone,
}

/// What is known when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// When this drill was last begun, whatever came of it.
    pub last_begun: Option<Timestamp>,
    /// When any drill, takeover or switchover was last over.
    pub last_disturbance: Option<Timestamp>,
    /// Why no drill may begin now, in the order in which it is looked at.
    pub obstacles: Vec<Obstacle>,
}

/// Why a due drill does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Obstacle {
    /// Another drill is under way.
    OtherDrill,
    /// Automation is paused, or maintenance is announced.
    Paused,
    /// A run of the ledger is under way or needs an operator.
    RunUnderWay,
    /// A takeover would not work now.
    NotReady {
        /// What stands in its way.
        why: String,
    },
    /// The last disturbance was too short a time ago.
    Cooldown {
        /// When it is long enough ago.
        until: Timestamp,
    },
    /// Its last run failed: an operator looks at that first, and runs it by hand.
    LastFailed {
        /// The record of that run.
        record: u64,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherDrill => f.write_str("another drill is under way"),
            Self::Paused => f.write_str("automation is paused"),
            Self::RunUnderWay => f.write_str("a run is under way, or needs an operator"),
            Self::NotReady { why } => f.write_str(why),
            Self::Cooldown { until } => {
                write!(f, "the last disturbance was too short a time ago: not before {until:.0}")
            }
            Self::LastFailed { record } => write!(
                f,
                "its last run failed (record {record}): look at `baton drill report {record}`, and run it by hand when it \
                 is mended"
            ),
        }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Decision {
    /// Nothing before this instant.
    Wait {
        /// When to ask again.
        until: Timestamp,
    },
    /// Run it.
    Run,
    /// It is due and does not run; to be recorded, once per window.
    Skip {
        /// Why.
        why: Obstacle,
        /// When to ask again.
        until: Timestamp,
    },
    /// The schedule has no instant at which it could run: no weekday, or a window that is empty.
    Never,
}

/// How long a drill that was skipped waits before it tries again in the same window.
const RETRY: SignedDuration = SignedDuration::from_mins(5);

/// What is to be done with the drill `id` at this moment.
#[must_use]
pub fn decide(schedule: &Schedule, id: &str, facts: &Facts, now: Timestamp) -> Decision {
    let earliest = facts.last_begun.map_or(now, |begun| add(begun, signed(schedule.every)));
    // A window that is open now may have opened before `now`: the drill may still run in it.
    let Some((opens, closes)) = schedule.window.next(earliest.max(now)) else { return Decision::Never };
    let due = add(opens, jitter(schedule, id, opens, closes)).max(earliest);
    if now < due {
        return Decision::Wait { until: due };
    }
    let cooldown =
        facts.last_disturbance.map(|at| add(at, signed(schedule.cooldown))).filter(|until| *until > now);
    let cooldown = cooldown.map(|until| Obstacle::Cooldown { until });
    let Some(why) = facts.obstacles.first().cloned().or(cooldown) else { return Decision::Run };
    let again = match &why {
        Obstacle::Cooldown { until } => *until,
        Obstacle::OtherDrill
        | Obstacle::Paused
        | Obstacle::RunUnderWay
        | Obstacle::NotReady { .. }
        | Obstacle::LastFailed { .. } => add(now, RETRY),
    };
    // Not again in this window: the next one.
    let until =
        if again < closes { again } else { schedule.window.next(closes).map_or(again, |(opens, _)| opens) };
    Decision::Skip { why, until }
}

impl Window {
    /// The window that is open at `from`, or else the next one: when it opens and when it closes.
    #[must_use]
    pub fn next(&self, from: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let today = from.to_zoned(self.zone.clone());
        // From yesterday on: a window over midnight may be open still.
        (-1..DAYS_MAX).find_map(|days| {
            let date = today.date().checked_add(jiff::Span::new().days(days)).ok()?;
            if !self.weekdays.contains(&date.weekday()) {
                return None;
            }
            let until = if self.to > self.from { date } else { date.tomorrow().ok()? };
            let at = |date: jiff::civil::Date, time: Time| -> Option<Zoned> {
                // A time that the clock skips or has twice is taken as `jiff` does by default: the later, the first.
                date.to_datetime(time).to_zoned(self.zone.clone()).ok()
            };
            let (opens, closes) = (at(date, self.from)?.timestamp(), at(until, self.to)?.timestamp());
            (closes > from && closes > opens).then_some((opens, closes))
        })
    }
}

/// How long after its opening the drill runs in this window: the same whenever it is asked.
fn jitter(schedule: &Schedule, id: &str, opens: Timestamp, closes: Timestamp) -> SignedDuration {
    let room = closes.duration_since(opens).as_secs().max(1);
    let most = signed(schedule.jitter).as_secs().min(room - 1).max(0);
    let hash = Sha256::digest(format!("{id} {}", opens.as_second()));
    let draw = hash.iter().take(4).fold(0_i64, |draw, byte| (draw << 8) | i64::from(*byte));
    SignedDuration::from_secs(draw % (most + 1))
}

fn signed(span: Span) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(span.ms()).unwrap_or(i64::MAX))
}

fn add(at: Timestamp, length: SignedDuration) -> Timestamp {
    at.checked_add(length).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Tuesdays and Thursdays from 22:00 to 02:00 in Berlin, once a week.
    fn nights() -> Schedule {
        Schedule {
            every: "7d".parse().unwrap(),
            window: Window {
                weekdays: vec![Weekday::Tuesday, Weekday::Thursday],
                from: Time::constant(22, 0, 0, 0),
                to: Time::constant(2, 0, 0, 0),
                zone: TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap(),
            },
            jitter: Span::ZERO,
            cooldown: "1h".parse().unwrap(),
        }
    }

    fn decided(facts: &Facts, now: &str) -> Decision {
        decide(&nights(), "mysqld-killed", facts, at(now))
    }

    #[test]
    fn outside_the_window_it_waits_for_the_next_one() {
        // A Friday in winter: 22:00 in Berlin is 21:00 UTC.
        let wait = decided(&Facts::default(), "2026-11-27T12:00:00Z");
        assert_eq!(wait, Decision::Wait { until: at("2026-12-01T21:00:00Z") });
        // In summer it is 20:00 UTC.
        let wait = decided(&Facts::default(), "2026-07-03T12:00:00Z");
        assert_eq!(wait, Decision::Wait { until: at("2026-07-07T20:00:00Z") });
    }

    #[test]
    fn a_window_over_midnight_is_open_on_the_day_after() {
        assert_eq!(decided(&Facts::default(), "2026-12-02T00:59:59Z"), Decision::Run);
        let wait = decided(&Facts::default(), "2026-12-02T01:00:00Z");
        assert_eq!(wait, Decision::Wait { until: at("2026-12-03T21:00:00Z") });
    }

    #[test]
    fn once_per_every_and_not_more_often() {
        let facts = Facts { last_begun: Some(at("2026-12-01T21:30:00Z")), ..Facts::default() };
        // The Thursday's window is too early; the next Tuesday's has opened half an hour before a week is over.
        let wait = decided(&facts, "2026-12-03T22:00:00Z");
        assert_eq!(wait, Decision::Wait { until: at("2026-12-08T21:30:00Z") });
        assert_eq!(decided(&facts, "2026-12-08T21:30:00Z"), Decision::Run);
    }

    #[test]
    fn a_missed_week_is_made_up_for_once() {
        let facts = Facts { last_begun: Some(at("2026-10-01T21:30:00Z")), ..Facts::default() };
        assert_eq!(decided(&facts, "2026-12-01T21:00:00Z"), Decision::Run);
    }

    #[test]
    fn what_stands_in_the_way_is_said_and_it_tries_again_while_the_window_is_open() {
        let why = Obstacle::NotReady { why: "candidate-not-in-sync".into() };
        let facts = Facts { obstacles: vec![why.clone(), Obstacle::Paused], ..Facts::default() };
        let skip = decided(&facts, "2026-12-01T21:10:00Z");
        assert_eq!(skip, Decision::Skip { why: why.clone(), until: at("2026-12-01T21:15:00Z") });
        let skip = decided(&facts, "2026-12-02T00:58:00Z");
        assert_eq!(skip, Decision::Skip { why, until: at("2026-12-03T21:00:00Z") });
    }

    #[test]
    fn a_cooldown_is_waited_for() {
        let facts = Facts { last_disturbance: Some(at("2026-12-01T20:30:00Z")), ..Facts::default() };
        let until = at("2026-12-01T21:30:00Z");
        let skip = decided(&facts, "2026-12-01T21:00:00Z");
        assert_eq!(skip, Decision::Skip { why: Obstacle::Cooldown { until }, until });
        assert_eq!(decided(&facts, "2026-12-01T21:30:00Z"), Decision::Run);
    }

    #[test]
    fn a_window_without_a_day_never_opens() {
        let mut schedule = nights();
        schedule.window.weekdays.clear();
        let decision = decide(&schedule, "mysqld-killed", &Facts::default(), at("2026-12-01T21:00:00Z"));
        assert_eq!(decision, Decision::Never);
    }

    proptest! {
        /// Whoever asks whenever: what it is told to wait for lies ahead, inside a window, and it runs then.
        #[test]
        fn what_is_waited_for_comes(
            id in "[a-z]{1,8}", second in 1_700_000_000_i64..1_900_000_000, jitter in 0_u32..20_000, last in 0_i64..1_000_000,
        ) {
            let mut schedule = nights();
            schedule.jitter = Span::from_secs(jitter);
            let now = Timestamp::from_second(second).unwrap();
            let last_begun = Timestamp::from_second(second - last).ok();
            let facts = Facts { last_begun, ..Facts::default() };
            match decide(&schedule, &id, &facts, now) {
                Decision::Wait { until } => {
                    prop_assert!(until > now);
                    let (opens, closes) = schedule.window.next(until).unwrap();
                    prop_assert!(opens <= until && until < closes);
                    prop_assert_eq!(decide(&schedule, &id, &facts, until), Decision::Run);
                    let before = Timestamp::from_second(until.as_second() - 1).unwrap();
                    prop_assert!(before < now || decide(&schedule, &id, &facts, before) != Decision::Run);
                }
                Decision::Run => {
                    let (opens, closes) = schedule.window.next(now).unwrap();
                    prop_assert!(opens <= now && now < closes);
                    prop_assert!(last >= 7 * 86_400);
                }
                Decision::Skip { .. } | Decision::Never => prop_assert!(false, "nothing stands in the way"),
            }
        }
    }
}
