//! The local Redis: how each process of it boots; and the holder's: which process serves, and what makes it useless although it
//! answers.
//!
//! Redis saves what it has once a second at best, and its replica has it after a millisecond. A service manager that starts it
//! anew within a tenth of a second leaves no time in which it is down: what shows the loss is that another process answers.

use std::collections::VecDeque;

use super::Agent;
use crate::decide::local::{RedisRestarted, Role};
use crate::detect::Verdict;
use crate::model::{Epoch, Mono};
use crate::observe::{NodeReport, RedisBoot, RedisFacts};
use crate::why::Why;

/// What the replica has is compared with what the holder's Redis had this long before, in milliseconds: a report is under way for
/// some 0.5 s, and Redis itself saves what it has once a second at best.
const SETTLED_MS: u64 = 1_000;
/// Looks at the own offset that are kept: more than fit into that time.
const OFFSETS: usize = 64;
/// For this many times `anti_flap` an epoch that began for a restart does not end for one.
const QUIET_TIMES: u64 = 10;

/// The process that serves in an epoch.
#[derive(Debug)]
pub(super) struct Served {
    epoch: Epoch,
    /// As `pid@ticks`.
    server: String,
    /// Since when this agent knows the epoch's.
    since: Mono,
    /// When it was last seen.
    seen_at: Mono,
    /// What it had, lately.
    offsets: VecDeque<(Mono, u64)>,
    /// The newest proof that the other node's Redis followed it.
    followed: Option<Followed>,
}

/// The other node's Redis had what the one here had had a moment before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Followed {
    at: Mono,
    /// Its process, as `pid@ticks`.
    by: String,
}

impl Agent {
    /// The local Redis is no primary although this node serves, and has nothing, while the other node has data: the number
    /// of its keys. One that was emptied by its clients still is a primary.
    pub(super) fn redis_empty(&self, now: Mono) -> Option<u64> {
        let fresh = |at: Mono| now.since_ms(at) <= self.setup.policy.report_max_ms;
        let (_, facts) = self.detector.redis_facts().filter(|(at, _)| fresh(*at))?;
        if facts.is_open() || facts.loading || facts.keys > 0 {
            return None;
        }
        let other = self.ledger.other_data_nodes(&self.setup.me).next()?;
        let heard = self.reports.get(other).filter(|heard| fresh(heard.at))?;
        heard.report.redis.as_ref().map(|redis| redis.keys).filter(|keys| *keys > 0)
    }

    /// The local Redis was open when an agent first saw its newest process. Until this agent has seen one, the one that an
    /// earlier agent saw last stands for it.
    pub(super) fn redis_boots_open(&self) -> bool {
        let boot = self.redis_boot.as_ref().filter(|boot| self.setup.redis && boot.open);
        boot.is_some_and(|boot| self.redis_server().is_none_or(|server| server == boot.server))
    }

    /// What is seen open later was opened by this node's agent, or by an operator.
    pub(super) fn judge_redis(&mut self, facts: &RedisFacts) {
        self.redis_boot = Some(RedisBoot::of(self.redis_boot.take(), facts));
    }

    /// The newest process of the local Redis that was seen.
    pub(super) fn redis_server(&self) -> Option<&str> {
        self.detector.redis_facts().map(|(_, facts)| facts.server.as_str())
    }

    /// Another process answers than the one that served in this epoch, and the other node's Redis followed that one to its
    /// end and still runs: it has what was lost here. Without such a replica the new process has the newest copy.
    ///
    /// An epoch that began because of a restart is for some minutes not given up because of one. So whatever kills each Redis
    /// that it meets moves the baton once, and never to and fro.
    pub(super) fn redis_restarted(&self, now: Mono) -> Option<RedisRestarted<'_>> {
        let served = self.redis_served.as_ref().filter(|served| served.epoch == self.ledger.epoch)?;
        let is = self.redis_server().filter(|is| *is != served.server)?;
        let followed = served.followed.as_ref()?;
        let to_the_end = served.seen_at.since_ms(followed.at) <= self.setup.policy.report_max_ms;
        let other = self.other_report().filter(|report| report.redis_verdict == Verdict::Healthy.as_str())?;
        let still_runs = other.redis.as_ref().is_some_and(|redis| redis.server == followed.by);
        let quiet_ms = QUIET_TIMES * self.setup.policy.anti_flap_ms;
        let is_early = now.since_ms(served.since) < quiet_ms;
        let for_one = is_early && self.began_for_a_restart(served.epoch);
        (to_the_end && still_runs && !for_one).then_some(RedisRestarted { was: &served.server, is })
    }

    fn began_for_a_restart(&self, epoch: Epoch) -> bool {
        let ended = self.ledger.history.iter().rev().map(|ended| &*ended.run);
        let mut plans = self.ledger.run.iter().chain(ended).map(|run| &run.plan);
        let began = plans.find(|plan| plan.epoch == epoch && plan.to == self.setup.me);
        began.is_some_and(|plan| plan.why.iter().any(Why::is_release_for_a_restarted_redis))
    }

    /// Looks who serves. The first process of an epoch is the one that is seen after the opening, or that is open.
    pub(super) fn watch_redis(&mut self, facts: &RedisFacts, now: Mono) {
        let epoch = self.ledger.epoch;
        let serving = match self.wish.as_ref().map(|wish| &wish.role) {
            Some(Role::Serving { epoch: of, .. }) => *of == epoch,
            Some(Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } | Role::Receiving { .. })
            | None => false,
        };
        if !serving {
            return;
        }
        let known = self.redis_served.take_if(|served| served.epoch == epoch);
        let mut served = known.unwrap_or_else(|| Served {
            epoch,
            server: facts.server.clone(),
            since: now,
            seen_at: now,
            offsets: VecDeque::new(),
            followed: None,
        });
        // Another one is judged with the wish.
        if served.server == facts.server {
            served.seen_at = now;
            served.followed = self.followed(&served.offsets).or(served.followed);
            served.offsets.push_back((now, facts.offset));
            if served.offsets.len() > OFFSETS {
                served.offsets.pop_front();
            }
        }
        self.redis_served = Some(served);
    }

    /// The other node says that its Redis follows the one here, and has what that one had a moment before.
    fn followed(&self, offsets: &VecDeque<(Mono, u64)>) -> Option<Followed> {
        let other = self.ledger.other_data_nodes(&self.setup.me).next()?;
        let heard = self.reports.get(other)?;
        let redis = heard.report.redis.as_ref()?;
        let source = redis.follows.as_deref().and_then(|source| source.rsplit_once(':'));
        let follows = redis.link_up
            && !redis.primary
            && !redis.loading
            && source.is_some_and(|(host, _)| host == self.setup.own_address);
        let settled = offsets.iter().rev().find(|(at, _)| heard.at.since_ms(*at) >= SETTLED_MS);
        let has_it = settled.is_some_and(|(_, offset)| redis.offset >= *offset);
        (follows && has_it).then(|| Followed { at: heard.at, by: redis.server.clone() })
    }

    fn other_report(&self) -> Option<&NodeReport> {
        let other = self.ledger.other_data_nodes(&self.setup.me).next()?;
        self.reports.get(other).map(|heard| heard.report.as_ref())
    }

    /// A process that was started anew and that the wish lets serve all the same, since nobody else would be better, is the
    /// one that serves from here on.
    pub(super) fn note_redis(&mut self) {
        let Some(Role::Serving { epoch, redis: Some(server), .. }) =
            self.wish.as_ref().map(|wish| &wish.role)
        else {
            return;
        };
        if let Some(served) = self.redis_served.as_mut()
            && served.epoch == *epoch
            && served.server != *server
        {
            served.server.clone_from(server);
            served.offsets.clear();
            served.followed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::sample::{completed_takeover, setup};
    use crate::agent::{Input, Setup, Stamped};
    use crate::decide::Heard;
    use crate::decide::local::Wish;
    use crate::ledger::Ledger;
    use crate::model::{NodeId, NodeKind, WallMs};
    use crate::observe::Observation;

    const EPOCH: Epoch = Epoch(2);

    /// Serves epoch 2 as db1, whose run began for `why`.
    fn holder(why: Why) -> Agent {
        let mut agent = Agent::new(Setup { redis: true, ..setup("db1") });
        let history = vec![completed_takeover("db1", why)];
        let members = [(NodeId::from("db1"), NodeKind::Data), (NodeId::from("db2"), NodeKind::Data)].into();
        agent.ledger = Ledger { epoch: EPOCH, members, history, ..Ledger::default() }.into();
        wishes(&mut agent, None);
        agent
    }

    fn wishes(agent: &mut Agent, redis: Option<&str>) {
        let redis = redis.map(str::to_owned);
        let role = Role::Serving { epoch: EPOCH, ports: true, semi_sync: false, services: true, redis };
        agent.wish = Some(Wish { role, renew: None, release: None, why: Vec::new() });
    }

    fn facts(server: &str, source: Option<&str>) -> RedisFacts {
        RedisFacts {
            server: server.to_owned(),
            primary: source.is_none(),
            loading: false,
            link_up: source.is_some(),
            follows: source.map(str::to_owned),
            offset: 1,
            keys: 1,
            min_replicas_to_write: 0,
        }
    }

    /// The local Redis answers, and has `offset`.
    fn answers_with(agent: &mut Agent, server: &str, offset: u64, at: u64) {
        let facts = RedisFacts { offset, ..facts(server, None) };
        agent.observe(&Observation::Redis { facts }, Mono(at));
    }

    fn answers(agent: &mut Agent, server: &str, at: u64) {
        answers_with(agent, server, 100, at);
    }

    /// The other node says of its Redis whom it follows over a link that is up, and what it has.
    fn reports_with(agent: &mut Agent, process: &str, source: &str, offset: u64, at: u64) {
        let mut report = agent.report(Mono(at));
        report.node = NodeId::from("db2");
        report.redis = Some(RedisFacts { offset, ..facts(process, Some(source)) });
        report.redis_verdict = "healthy".into();
        agent.reports.insert(NodeId::from("db2"), Heard { at: Mono(at), report: report.into() });
    }

    fn reports(agent: &mut Agent, source: &str, at: u64) {
        reports_with(agent, "1@1", source, 100, at);
    }

    const FOLLOWS_ME: &str = "10.0.0.1:6379";

    fn lease_ended() -> Why {
        Why::LeaseEnded { epoch: Epoch(1), ended_ms_ago: 3 }
    }

    /// Served for two seconds with a replica that has all, and was started anew.
    fn restarted(why: Why) -> Agent {
        let mut agent = holder(why);
        answers(&mut agent, "7@1", 1_000);
        reports(&mut agent, FOLLOWS_ME, 2_900);
        answers(&mut agent, "7@1", 3_000);
        answers(&mut agent, "8@2", 3_100);
        agent
    }

    fn said(agent: &Agent) -> Option<RedisRestarted<'_>> {
        agent.redis_restarted(Mono(3_100))
    }

    /// The local Redis, a primary, answers so.
    fn sees(agent: &mut Agent, server: &str, min_replicas_to_write: u64) {
        let facts = RedisFacts { min_replicas_to_write, ..facts(server, None) };
        agent.observe(&Observation::Redis { facts }, Mono(1_000));
    }

    fn noted(server: &str, open: bool) -> Setup {
        let redis_boot = Some(RedisBoot { server: server.to_owned(), open });
        Setup { redis: true, redis_boot, ..setup("db1") }
    }

    #[test]
    fn a_process_that_takes_writes_when_it_is_first_seen_boots_open() {
        let mut agent = Agent::new(Setup { redis: true, ..setup("db1") });
        assert!(!agent.redis_boots_open(), "none was seen");
        sees(&mut agent, "7@1", 0);
        assert!(agent.redis_boots_open());
        sees(&mut agent, "7@1", 99);
        assert!(agent.redis_boots_open(), "closed since, and its configuration is what it was");
        let said = agent.obstacles(Mono(1_000));
        assert!(said.iter().any(|obstacle| obstacle == "redis-boots-open"), "{said:?}");
        sees(&mut agent, "8@2", 99);
        assert!(!agent.redis_boots_open(), "the next process boots closed");
        sees(&mut agent, "8@2", 0);
        assert!(!agent.redis_boots_open(), "it was opened since");
        sees(&mut agent, "9@3", 0);
        assert!(agent.redis_boots_open());
        let facts = facts("10@4", Some("127.0.0.1:1"));
        agent.observe(&Observation::Redis { facts }, Mono(1_000));
        assert!(!agent.redis_boots_open(), "a replica is not open");
    }

    #[test]
    fn what_an_earlier_agent_found_goes_for_its_process() {
        let mut agent = Agent::new(noted("7@1", false));
        sees(&mut agent, "7@1", 0);
        assert!(!agent.redis_boots_open(), "that one, or somebody, has opened it");
        let mut agent = Agent::new(noted("7@1", true));
        sees(&mut agent, "7@1", 99);
        assert!(agent.redis_boots_open(), "that one has closed it");
        let mut agent = Agent::new(noted("7@1", false));
        sees(&mut agent, "8@2", 0);
        assert!(agent.redis_boots_open(), "another process");
    }

    #[test]
    fn a_holder_that_starts_anew_asks_for_no_lease_before_a_process_was_seen_that_boots_closed() {
        let mut agent = Agent::new(noted("7@1", true));
        let me = NodeId::from("db1");
        let members = [(me.clone(), NodeKind::Data), (NodeId::from("db2"), NodeKind::Data)].into();
        let ledger = Ledger { members, epoch: EPOCH, holder: Some(me), ..Ledger::default() };
        let mut asks_after = |input| {
            agent.handle(Stamped { now: Mono(1_000), wall: WallMs(0), input });
            agent.wish().and_then(|wish| wish.renew)
        };
        let closed = |server: &str| {
            let facts = RedisFacts { min_replicas_to_write: 99, ..facts(server, None) };
            Input::Observed { observation: Observation::Redis { facts } }
        };
        assert_eq!(asks_after(Input::Committed { index: 1, ledger: ledger.into() }), None);
        assert_eq!(asks_after(closed("7@1")), None);
        assert_eq!(asks_after(closed("8@2")), Some(EPOCH));
    }

    #[test]
    fn another_process_has_lost_what_a_replica_has_that_followed_to_the_end() {
        let mut agent = restarted(lease_ended());
        assert_eq!(said(&agent), Some(RedisRestarted { was: "7@1", is: "8@2" }));
        answers(&mut agent, "8@2", 90_000);
        assert!(said(&agent).is_some(), "until it is judged");
        wishes(&mut agent, Some("8@2"));
        agent.note_redis();
        assert_eq!(said(&agent), None, "it serves now");
    }

    #[test]
    fn the_first_process_of_an_epoch_is_the_one_that_serves() {
        let mut agent = holder(lease_ended());
        reports(&mut agent, FOLLOWS_ME, 900);
        answers(&mut agent, "7@1", 1_000);
        assert_eq!(said(&agent), None);
    }

    #[test]
    fn a_replica_that_was_not_attached_has_less_than_the_new_process() {
        for (source, at) in [("10.0.0.11:6379", 2_900), ("127.0.0.1:1", 2_900), (FOLLOWS_ME, 2_100)] {
            let mut agent = holder(lease_ended());
            answers(&mut agent, "7@1", 1_000);
            reports(&mut agent, source, at);
            answers(&mut agent, "7@1", 3_000);
            answers(&mut agent, "8@2", 3_100);
            assert_eq!(said(&agent), None, "it followed {source} at {at}");
        }
    }

    #[test]
    fn nor_has_one_whose_stream_stood_still_behind_a_link_that_is_up() {
        let mut agent = holder(lease_ended());
        answers_with(&mut agent, "7@1", 100, 1_000);
        reports_with(&mut agent, "1@1", FOLLOWS_ME, 99, 2_900);
        answers_with(&mut agent, "7@1", 200, 3_000);
        answers(&mut agent, "8@2", 3_100);
        assert_eq!(said(&agent), None);
    }

    #[test]
    fn nor_has_one_that_was_started_anew_itself() {
        let mut agent = restarted(lease_ended());
        reports_with(&mut agent, "2@2", FOLLOWS_ME, 100, 3_100);
        assert_eq!(said(&agent), None);
    }

    #[test]
    fn what_comes_back_attached_after_the_restart_counts_for_nothing() {
        let mut agent = holder(lease_ended());
        answers(&mut agent, "7@1", 1_000);
        answers(&mut agent, "8@2", 3_000);
        reports(&mut agent, FOLLOWS_ME, 3_050);
        answers(&mut agent, "8@2", 3_100);
        assert_eq!(said(&agent), None);
    }

    #[test]
    fn an_epoch_that_began_for_a_restart_does_not_end_for_one_for_some_minutes() {
        let why = Why::RedisRestarted { was: "1@1".to_owned(), is: "2@2".to_owned() };
        let because = why.to_string();
        let agent = restarted(Why::HolderReleased { epoch: Epoch(1), because });
        assert_eq!(said(&agent), None);
        let later = 1_000 + QUIET_TIMES * agent.setup.policy.anti_flap_ms;
        assert!(agent.redis_restarted(Mono(later)).is_some());
    }
}
