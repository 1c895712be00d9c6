//! How often the offsets are compared, and when the replica is asked. Pure.

use std::time::Duration;

use crate::hands::redis::Stream;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(100);
/// Between two looks while nothing is written.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// After so many looks in which nothing was written.
const QUIET_AFTER: u32 = 10;

/// A server on the same site answers within a millisecond.
pub(super) const DEADLINE: Duration = Duration::from_millis(80);
/// After so many looks the replica is asked in any case: it may be another one although nothing is written. A replica that
/// does not answer is asked no more often, and has longer to answer.
const SELDOM: u32 = 10;
const SELDOM_DEADLINE: Duration = Duration::from_millis(500);
/// The same for one that does not answer while nothing is written: once a second as well.
const SELDOM_WHILE_QUIET: u32 = 2;

/// Bytes by which a primary's own `PING` moves its offset. It sends one to its replicas every `repl-ping-replica-period`, of
/// whole seconds, so two do not come between two looks.
///
/// No client's write is so short: `FLUSHDB` is 17 bytes, `DEL` of a key of one byte 20; and `EXEC`, 14 as well, comes together
/// with what it ends. If a module's command is, its write is compared with the replica all the same, only not more often.
const PING: u64 = b"*1\r\n$4\r\nPING\r\n".len() as u64;

/// What a look at this node's Redis shows, against the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// There was none before, or that was of another history: nothing known of it is of use.
    Another,
    /// Nothing was written.
    Nothing,
    /// Redis' own [`PING`]: no client's write, but the replica has it or not.
    Ping,
    /// Something else was written.
    Written,
}

/// The looks so far, as far as they say when to look next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// What the holder's Redis said last.
    last: Option<Stream>,
    /// Looks in a row in which no client had written.
    still: u32,
    /// Looks since the replica was asked.
    unasked: u32,
}

impl Pace {
    /// What the holder's Redis said last; `None` before the first look, and after [`Self::forget`].
    pub(super) const fn last(&self) -> Option<&Stream> {
        self.last.as_ref()
    }

    /// What comes next is not compared with what was.
    pub(super) fn forget(&mut self) {
        (self.last, self.still) = (None, 0);
    }

    /// The holder's Redis says that it has written this.
    pub(super) fn see(&mut self, written: &Stream) -> News {
        let last = self.last.replace(written.clone()).filter(|last| last.history == written.history);
        let news = match last.map(|last| written.offset.checked_sub(last.offset)) {
            None => News::Another,
            Some(Some(0)) => News::Nothing,
            Some(Some(PING)) => News::Ping,
            Some(Some(_) | None) => News::Written,
        };
        self.still = match news {
            News::Nothing | News::Ping => self.still.saturating_add(1),
            News::Another | News::Written => 0,
        };
        news
    }

    /// How long the replica has to answer in this look; `None`: it is not asked. To be called once for each look.
    ///
    /// `has_all`: it had everything when last asked. `in_trouble`: it could not be compared then.
    pub(super) fn asks(&mut self, news: News, has_all: bool, in_trouble: bool) -> Option<Duration> {
        self.unasked = self.unasked.saturating_add(1);
        let seldom = if in_trouble && self.is_quiet() { SELDOM_WHILE_QUIET } else { SELDOM };
        let deadline = if self.unasked >= seldom {
            SELDOM_DEADLINE
        } else if in_trouble || (has_all && news == News::Nothing) {
            return None;
        } else {
            DEADLINE
        };
        self.unasked = 0;
        Some(deadline)
    }

    /// How long to wait for the next look.
    pub(super) const fn period(&self) -> Duration {
        if self.is_quiet() { QUIET } else { PERIOD }
    }

    const fn is_quiet(&self) -> bool {
        self.still >= QUIET_AFTER
    }
}

#[cfg(test)]
mod tests {
    use baton_runbooks::exposure::{Exposure, Gauge};
    use baton_runbooks::model::Mono;

    use super::*;

    fn stream(history: &str, offset: u64) -> Stream {
        Stream { is_primary: true, history: history.to_owned(), offset }
    }

    /// Nothing has been written for a second.
    fn quiet(offset: u64) -> Pace {
        let mut pace = Pace::default();
        assert_eq!(pace.see(&stream("a", offset)), News::Another);
        for _ in 0..QUIET_AFTER {
            assert_eq!(pace.period(), PERIOD);
            assert_eq!(pace.see(&stream("a", offset)), News::Nothing);
        }
        assert_eq!(pace.period(), QUIET);
        pace
    }

    #[test]
    fn only_growth_by_exactly_a_ping_is_one() {
        for (grown, news) in [
            (0, News::Nothing),
            (13, News::Written),
            (14, News::Ping),
            (15, News::Written),
            (28, News::Written),
        ] {
            let mut pace = quiet(1_000);
            assert_eq!(pace.see(&stream("a", 1_000 + grown)), news, "{grown}");
            let period = if news == News::Written { PERIOD } else { QUIET };
            assert_eq!(pace.period(), period, "{grown}");
        }
        let mut pace = quiet(1_000);
        assert_eq!(pace.see(&stream("a", 1_000 - PING)), News::Written, "it went back");
    }

    #[test]
    fn the_shortest_writes_of_clients_are_no_ping() {
        let shortest: [&[u8]; 3] = [
            b"*1\r\n$7\r\nFLUSHDB\r\n",
            b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
            b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n*1\r\n$4\r\nEXEC\r\n",
        ];
        for write in shortest {
            let news = quiet(0).see(&stream("a", write.len() as u64));
            assert_eq!(news, News::Written, "{}", String::from_utf8_lossy(write));
        }
    }

    #[test]
    fn the_first_write_brings_the_short_period_back_at_once_and_keeps_it_for_a_second() {
        let mut pace = quiet(0);
        assert_eq!(pace.see(&stream("a", 100)), News::Written);
        for _ in 0..QUIET_AFTER {
            assert_eq!(pace.period(), PERIOD);
            pace.see(&stream("a", 100));
        }
        assert_eq!(pace.period(), QUIET);
    }

    #[test]
    fn another_history_is_never_compared_with_the_one_before() {
        for offset in [1_000, 1_000 + PING, 5] {
            let mut pace = quiet(1_000);
            let news = pace.see(&stream("b", offset));
            assert_eq!(news, News::Another, "{offset}");
            assert_eq!(pace.period(), PERIOD);
            assert_eq!(
                pace.asks(news, true, false),
                Some(DEADLINE),
                "what the replica had is of the other one"
            );
            assert_eq!(pace.see(&stream("b", offset)), News::Nothing);
        }
    }

    #[test]
    fn what_is_forgotten_is_not_compared() {
        let mut pace = quiet(1_000);
        assert_eq!(pace.last(), Some(&stream("a", 1_000)));
        pace.forget();
        assert_eq!((pace.last(), pace.period()), (None, PERIOD));
        assert_eq!(pace.see(&stream("a", 1_000)), News::Another);
    }

    #[test]
    fn the_replica_is_asked_after_each_write_and_else_seldom() {
        let mut pace = quiet(0);
        let mut asked = |news, has_all| pace.asks(news, has_all, false);
        for news in [News::Another, News::Ping, News::Written] {
            assert_eq!(asked(news, true), Some(DEADLINE), "{news:?}");
            assert_eq!(asked(news, false), Some(DEADLINE), "{news:?}");
        }
        assert_eq!(asked(News::Nothing, false), Some(DEADLINE), "it lacked something");
        for _ in 1..SELDOM {
            assert_eq!(asked(News::Nothing, true), None);
        }
        assert_eq!(asked(News::Nothing, true), Some(SELDOM_DEADLINE), "it may be another one");
        assert_eq!(asked(News::Nothing, true), None);
    }

    #[test]
    fn a_replica_that_does_not_answer_is_asked_once_a_second() {
        for (mut pace, period) in [(Pace::default(), PERIOD), (quiet(0), QUIET)] {
            assert_eq!(pace.period(), period);
            let asked: Vec<Option<Duration>> =
                (0..20).map(|_| pace.asks(News::Written, false, true)).collect();
            let between = (Duration::from_secs(1).as_millis() / period.as_millis()) as usize;
            for (n, deadline) in asked.iter().enumerate() {
                let expected = (n + 1).is_multiple_of(between).then_some(SELDOM_DEADLINE);
                assert_eq!(*deadline, expected, "{n}, {period:?}");
            }
        }
    }

    /// Looks every 500 ms at a primary that writes nothing but a `PING` each second. The replica has all but the newest
    /// `late` of them, where that is told. Gives how often it was asked, and each exposure.
    fn quiet_looks(looks: u64, late: impl Fn(u64) -> u64) -> (usize, Vec<Exposure>) {
        let (mut pace, mut gauge) = (quiet(0), Gauge::default());
        let mut newest = gauge.look(Mono(0), 0, 0);
        let mut asked = 0;
        let mut exposures = Vec::new();
        for n in 1..=looks {
            let (at, offset) = (Mono(n * 500), n / 2 * PING);
            let news = pace.see(&stream("a", offset));
            newest = if pace.asks(news, newest.bytes == 0, false).is_some() {
                asked += 1;
                gauge.look(at, offset, offset - late(n))
            } else {
                gauge.unanswered(at, offset).unwrap()
            };
            assert_eq!(pace.period(), QUIET, "look {n}");
            exposures.push(newest);
        }
        (asked, exposures)
    }

    #[test]
    fn a_ping_costs_one_question_and_exposes_nothing() {
        let (asked, exposures) = quiet_looks(40, |_| 0);
        assert_eq!(asked, 20, "once for each");
        assert!(exposures.iter().all(|exposure| *exposure == Exposure { bytes: 0, ms: 0 }), "{exposures:?}");
    }

    #[test]
    fn a_ping_that_the_replica_did_not_have_yet_is_exposed_until_the_next_look() {
        let (_, exposures) = quiet_looks(40, |n| if n.is_multiple_of(10) { PING } else { 0 });
        for (n, exposure) in (1_u64..).zip(exposures) {
            // Its age counts from the look before, at which nothing was new and the replica was not asked.
            let expected = if n.is_multiple_of(10) {
                Exposure { bytes: PING, ms: 500 }
            } else {
                Exposure { bytes: 0, ms: 0 }
            };
            assert_eq!(exposure, expected, "look {n}");
        }
    }

    #[test]
    fn a_write_after_a_quiet_time_is_as_old_as_itself_while_the_replica_does_not_answer() {
        let (mut pace, mut gauge) = (quiet(0), Gauge::default());
        let mut newest = gauge.look(Mono(0), 0, 0);
        for n in 1..=8 {
            let news = pace.see(&stream("a", 0));
            assert_eq!(pace.asks(news, newest.bytes == 0, false), None, "look {n}");
            newest = gauge.unanswered(Mono(n * 500), 0).unwrap();
            assert_eq!(newest, Exposure { bytes: 0, ms: 0 });
        }
        // Written right before this look; the replica answers it too late, and is not asked in the next ones.
        let news = pace.see(&stream("a", 100));
        assert_eq!(pace.asks(news, newest.bytes == 0, false), Some(DEADLINE));
        assert_eq!(gauge.unanswered(Mono(4_500), 100), Some(Exposure { bytes: 100, ms: 500 }));
        for n in 1_u64..10 {
            let news = pace.see(&stream("a", 100));
            assert_eq!(pace.asks(news, false, true), None, "look {n}");
            let exposure = gauge.unanswered(Mono(4_500 + n * 100), 100);
            assert_eq!(
                exposure,
                Some(Exposure { bytes: 100, ms: 500 + n * 100 }),
                "not since the last question"
            );
        }
    }
}
