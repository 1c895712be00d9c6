//! When the serving holder was last seen with which canary.

use std::collections::VecDeque;

use crate::lease::RATE_PERCENT;
use crate::model::{Epoch, Mono};
use crate::observe::NodeReport;

/// Sights that are kept: ten minutes of a canary per second. A replica that is further behind lacks an unknown amount.
const SIGHTS_MAX: usize = 600;

/// When the serving holder was last seen with which canary.
///
/// A sight that is taken for younger than it is makes a loss look smaller than it is. A report can be long on its way, or lie
/// unread while this agent is stopped; so it counts as no younger than the holder's own clock lets it be: no more time has
/// passed since the sight before than has passed there, give or take the clocks' rates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Canaries {
    epoch: Epoch,
    sights: VecDeque<(u64, Mono)>,
    /// The newest sight, here and on the holder's own clock: milliseconds since its agent started.
    clock: Option<(Mono, u64)>,
}

impl Canaries {
    /// A report of the holder of `epoch` arrived at `now`. Numbers of another epoch are another history's.
    pub fn hear(&mut self, epoch: Epoch, report: &NodeReport, now: Mono) {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        let (Some(mysql), Some(age_ms)) = (&report.mysql, report.mysql_age_ms) else { return };
        if !report.serving || mysql.read_only {
            return;
        }
        let at = self.seen_at(now.minus_ms(age_ms), report.up_ms.map(|up_ms| up_ms.saturating_sub(age_ms)));
        let canary = mysql.canary_applied;
        if self.sights.back().is_some_and(|(newest, _)| *newest >= canary) {
            if let Some((_, last)) = self.sights.back_mut().filter(|(newest, _)| *newest == canary) {
                *last = at.max(*last);
            }
            return;
        }
        self.sights.push_back((canary, at));
        if self.sights.len() > SIGHTS_MAX {
            self.sights.pop_front();
        }
    }

    /// A clock of the holder that goes back is that of another start of its agent.
    fn seen_at(&mut self, at: Mono, up_ms: Option<u64>) -> Mono {
        let known = self.clock.zip(up_ms).filter(|((_, last_ms), up_ms)| up_ms >= last_ms);
        let at = known.map_or(at, |((last, last_ms), up_ms)| {
            let passed_ms = up_ms - last_ms;
            at.min(last.plus_ms(passed_ms + passed_ms * 2 * RATE_PERCENT / 100))
        });
        self.clock = up_ms.map(|up_ms| (at, up_ms));
        at
    }

    /// The last sight of the holder before it committed `canary`, in `epoch`.
    pub(super) fn before(&self, epoch: Epoch, canary: u64) -> Option<Mono> {
        let same = self.epoch == epoch;
        self.sights.iter().rev().find(|(seen, _)| same && *seen < canary).map(|(_, at)| *at)
    }

    /// The first sight of the holder with more than `canary`, in `epoch`: something was committed after it by then.
    pub(super) fn after(&self, epoch: Epoch, canary: u64) -> Option<Mono> {
        let same = self.epoch == epoch;
        self.sights.iter().find(|(seen, _)| same && *seen > canary).map(|(_, at)| *at)
    }

    /// The newest sight of all.
    pub(super) fn newest(&self) -> Option<Mono> {
        self.sights.back().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instance;
    use crate::observe::{Flavour, MysqlFacts, SemiSyncFacts};

    fn report(up_ms: u64, canary: u64) -> NodeReport {
        let instance = Instance { boot: "b".to_owned(), server: "1@1".to_owned(), threads: String::new() };
        let mysql = MysqlFacts {
            flavour: Flavour::Mariadb,
            version: String::new(),
            instance,
            read_only: false,
            executed: String::new(),
            position: String::new(),
            replication: None,
            semi_sync: SemiSyncFacts::default(),
            canary_applied: canary,
            apply_backlog: None,
            sessions: 0,
        };
        NodeReport {
            generation: Default::default(),
            founder: String::new(),
            paused: None,
            node: "db1".into(),
            epoch: Epoch(1),
            applied: 1,
            mysql: Some(mysql.into()),
            mysql_age_ms: Some(0),
            mysql_verdict: "healthy".into(),
            redis: None,
            redis_exposure: None,
            redis_verdict: "unknown".into(),
            disk_verdict: "healthy".into(),
            services: Default::default(),
            obstacles: Vec::new(),
            alarms: Vec::new(),
            open: None,
            gateway_lost: None,
            quarantine: None,
            resync: None,
            heard_ms: Default::default(),
            serving: true,
            up_ms: Some(up_ms),
            version: String::new(),
            config_hash: String::new(),
        }
    }

    #[test]
    fn a_report_that_was_long_on_its_way_makes_no_sight_younger() {
        let mut canaries = Canaries::default();
        canaries.hear(Epoch(1), &report(50_000, 40), Mono(1_000));
        // Written 100 and 200 ms later, read after this agent had been stopped for five seconds.
        canaries.hear(Epoch(1), &report(50_100, 41), Mono(6_000));
        canaries.hear(Epoch(1), &report(50_200, 42), Mono(6_000));
        assert_eq!(canaries.before(Epoch(1), 42), Some(Mono(1_110)));
        assert_eq!(canaries.newest(), Some(Mono(1_220)));
    }

    #[test]
    fn a_new_start_of_the_holders_agent_has_a_clock_of_its_own() {
        let mut canaries = Canaries::default();
        canaries.hear(Epoch(1), &report(50_000, 40), Mono(1_000));
        canaries.hear(Epoch(1), &report(300, 41), Mono(9_000));
        canaries.hear(Epoch(1), &report(500, 42), Mono(9_200));
        assert_eq!(canaries.before(Epoch(1), 42), Some(Mono(9_000)));
        assert_eq!(canaries.newest(), Some(Mono(9_200)));
    }
}
