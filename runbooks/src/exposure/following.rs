//! Whether the other data node's Redis follows, as every node sees it from the reports.
//!
//! The holder's own measure, [`super::Exposure`], is of a stream that both are on. A replica that is not attached has none, and after
//! the holder's end no link is up any more: so it is noted before, while the holder serves.

use crate::detect::Verdict;
use crate::ledger::Ledger;
use crate::model::{Epoch, Mono, NodeId, NodeKind};
use crate::observe::{NodeReport, RedisFacts};

/// Less is nothing to speak of, in milliseconds: reports are under way for some 0.5 s, and a replica that is attached anew has to
/// load what it lacks.
pub const UNFOLLOWED_MIN_MS: u64 = 5_000;

/// When the holder's Redis was last seen to take writes, and the other data node's to follow, within one epoch. Instants are of
/// this node: when the reports arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Following {
    epoch: Epoch,
    /// The holder's took writes.
    written: Option<Mono>,
    other: Option<Other>,
}

/// The other data node, from its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Other {
    node: NodeId,
    /// When it was first heard.
    since: Mono,
    /// When its Redis was last seen to follow.
    followed: Option<Mono>,
    /// Since when its agent, which has just started, has not seen its Redis: whether that followed meanwhile, the next reports say.
    unseen_since: Option<Mono>,
}

fn has_verdict(report: &NodeReport, any_of: &[Verdict]) -> bool {
    any_of.iter().any(|one| report.redis_verdict == one.as_str())
}

/// What refuses or is dead has a verdict of its own; and an agent that never sees its Redis is not new for long.
fn is_unseen(report: &NodeReport) -> bool {
    let is_new = report.up_ms.is_some_and(|ms| ms < UNFOLLOWED_MIN_MS);
    is_new && report.redis.is_none() && has_verdict(report, &[Verdict::Unknown, Verdict::Suspect])
}

impl Following {
    /// A report arrived at `now`, beside this ledger.
    pub fn hear(&mut self, ledger: &Ledger, report: &NodeReport, now: Mono) {
        if self.epoch != ledger.epoch {
            *self = Self { epoch: ledger.epoch, ..Self::default() };
        }
        let answers = has_verdict(report, &[Verdict::Healthy, Verdict::Suspect]);
        let redis = report.redis.as_ref().filter(|_| answers);
        if ledger.holder.as_ref() == Some(&report.node) {
            if report.serving && redis.is_some_and(RedisFacts::is_open) {
                self.written = Some(now);
            }
            return;
        }
        if ledger.members.get(&report.node) != Some(&NodeKind::Data) {
            return;
        }
        let follows = redis.is_some_and(|redis| redis.link_up && !redis.primary && !redis.loading);
        let known = self.other.take().filter(|other| other.node == report.node);
        let mut other = known.unwrap_or_else(|| Other {
            node: report.node.clone(),
            since: now,
            followed: None,
            unseen_since: None,
        });
        if follows {
            other.followed = Some(now);
        }
        other.unseen_since = is_unseen(report).then(|| other.unseen_since.unwrap_or(now));
        self.other = Some(other);
    }

    /// For how long, in milliseconds, the Redis of `node` was not seen to follow before the holder's was last seen to take writes,
    /// in `epoch`; at least so long, if it never was. `None`: not for longer than [`UNFOLLOWED_MIN_MS`], or nothing is known, as
    /// right after a start of its agent.
    #[must_use]
    pub fn unfollowed_ms(&self, epoch: Epoch, node: &NodeId) -> Option<u64> {
        let other = self.other.as_ref().filter(|other| self.epoch == epoch && other.node == *node)?;
        let written = self.written?;
        // Also when the next reports never come.
        if other.unseen_since.is_some_and(|since| written.since_ms(since) < UNFOLLOWED_MIN_MS) {
            return None;
        }
        let ms = written.since_ms(other.followed.unwrap_or(other.since));
        (ms > UNFOLLOWED_MIN_MS).then_some(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(2);

    fn ledger(epoch: Epoch) -> Ledger {
        let members = [("db1", NodeKind::Data), ("db2", NodeKind::Data), ("mon", NodeKind::Witness)];
        let members = members.map(|(node, kind)| (NodeId::from(node), kind)).into();
        Ledger { epoch, holder: Some("db1".into()), members, ..Ledger::default() }
    }

    fn report(node: &str, link_up: bool) -> NodeReport {
        let primary = node == "db1";
        let redis = RedisFacts {
            server: "1@1".to_owned(),
            primary,
            loading: false,
            link_up,
            follows: None,
            offset: 1,
            keys: 1,
            min_replicas_to_write: if primary { 0 } else { 99 },
        };
        NodeReport {
            node: node.into(),
            epoch: EPOCH,
            applied: 1,
            mysql: None,
            mysql_age_ms: None,
            mysql_verdict: "unknown".into(),
            redis: Some(redis),
            redis_exposure: None,
            redis_verdict: "healthy".into(),
            disk_verdict: "healthy".into(),
            services: Default::default(),
            obstacles: Vec::new(),
            alarms: Vec::new(),
            open: None,
            gateway_lost: None,
            quarantine: None,
            resync: None,
            paused: None,
            generation: Default::default(),
            founder: String::new(),
            heard_ms: Default::default(),
            serving: primary,
            up_ms: None,
            version: String::new(),
            config_hash: String::new(),
        }
    }

    /// What is told of db2 after these reports, each with its instant.
    fn told(reports: &[(u64, NodeReport)]) -> Option<u64> {
        let mut following = Following::default();
        reports.iter().for_each(|(at, report)| following.hear(&ledger(EPOCH), report, Mono(*at)));
        following.unfollowed_ms(EPOCH, &"db2".into())
    }

    #[test]
    fn counts_from_when_it_was_last_seen_to_follow() {
        let (follows, apart) = (report("db2", true), report("db2", false));
        let serves = || report("db1", false);
        assert_eq!(told(&[(1_000, follows.clone()), (90_000, serves()), (90_100, follows.clone())]), None);
        assert_eq!(told(&[(1_000, follows.clone()), (6_000, apart.clone()), (6_000, serves())]), None);
        assert_eq!(told(&[(1_000, follows), (6_000, apart.clone()), (9_500, serves())]), Some(8_500));
        assert_eq!(
            told(&[(2_000, apart), (9_500, serves())]),
            Some(7_500),
            "it never was: since it was heard"
        );
        assert_eq!(told(&[(9_500, serves())]), None, "nobody has heard it");
    }

    #[test]
    fn the_end_of_the_holder_tears_the_link_and_is_not_counted() {
        let (follows, apart) = (report("db2", true), report("db2", false));
        let before = [(1_000, report("db1", false)), (1_100, follows), (90_000, apart)];
        assert_eq!(told(&before), None, "the holder was not heard since");
        let dead = NodeReport { redis_verdict: "dead".into(), ..report("db1", false) };
        let closed = NodeReport { serving: false, ..report("db1", false) };
        for holder in [dead, closed] {
            let after = [before.to_vec(), vec![(90_000, holder)]].concat();
            assert_eq!(told(&after), None, "nothing is written into it");
        }
    }

    #[test]
    fn an_agent_that_was_away_says_nothing_of_its_redis_before_it_has_seen_it() {
        let (follows, apart) = (report("db2", true), report("db2", false));
        let new = |verdict: &str, up_ms| NodeReport {
            redis: None,
            redis_verdict: verdict.to_owned().into(),
            up_ms,
            ..report("db2", true)
        };
        // Away for 8 s; what it says then, and what is told of it.
        let told_after = |said: &[NodeReport]| {
            let before = [(1_000, follows.clone()), (9_000, report("db1", false))];
            let said = said.iter().map(|report| (9_000, report.clone()));
            told(&before.into_iter().chain(said).collect::<Vec<_>>())
        };
        assert_eq!(told_after(&[new("unknown", Some(300))]), None);
        assert_eq!(told_after(&[new("suspect", Some(300))]), None, "one probe failed: no verdict yet");
        assert_eq!(told_after(&[new("unknown", Some(300)), follows.clone()]), None);
        assert_eq!(
            told_after(&[new("unknown", Some(300)), apart]),
            Some(8_000),
            "it did not follow meanwhile"
        );
        for verdict in ["refusing", "dead", "hung"] {
            assert_eq!(told_after(&[new(verdict, Some(300))]), Some(8_000), "{verdict}");
        }
        assert_eq!(told_after(&[new("unknown", Some(UNFOLLOWED_MIN_MS))]), Some(8_000), "it never sees it");
        assert_eq!(told_after(&[new("unknown", None)]), Some(8_000), "it does not say that it is new");
        // Its agent died again, or begins again and again.
        let last = [(1_000, follows), (9_000, new("unknown", Some(300))), (14_000, report("db1", false))];
        assert_eq!(told(&last), Some(13_000));
        let again = (13_000, new("unknown", Some(300)));
        assert_eq!(told(&[last[0].clone(), last[1].clone(), again, last[2].clone()]), Some(13_000));
    }

    #[test]
    fn a_replica_that_does_not_answer_follows_nobody_and_an_epoch_begins_anew() {
        let dead = NodeReport { redis_verdict: "refusing".into(), ..report("db2", true) };
        let loading = {
            let mut report = report("db2", true);
            report.redis.as_mut().unwrap().loading = true;
            report
        };
        for apart in [dead, loading] {
            assert_eq!(told(&[(1_000, apart.clone()), (9_000, report("db1", false))]), Some(8_000));
        }
        let mut following = Following::default();
        following.hear(&ledger(EPOCH), &report("db2", false), Mono(1_000));
        following.hear(&ledger(EPOCH), &report("db1", false), Mono(9_000));
        assert_eq!(following.unfollowed_ms(EPOCH, &"db2".into()), Some(8_000));
        assert_eq!(following.unfollowed_ms(EPOCH, &"mon".into()), None);
        assert_eq!(following.unfollowed_ms(EPOCH.next(), &"db2".into()), None);
        following.hear(&ledger(EPOCH.next()), &report("db1", false), Mono(9_100));
        assert_eq!(following.unfollowed_ms(EPOCH.next(), &"db2".into()), None, "db2 was not heard since");
    }
}
