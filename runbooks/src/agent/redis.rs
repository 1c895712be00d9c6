//! The holder's Redis: which process of it serves, and what makes it useless although it answers.
//!
//! Redis saves what it has once a second at best, and its replica has it after a millisecond. A service manager that starts it
//! anew within a tenth of a second leaves no time in which it is down: what shows the loss is that another process answers.

use super::Agent;
use crate::decide::local::{RedisRestarted, Role};
use crate::model::{Epoch, Mono};
use crate::observe::RedisFacts;
use crate::why::Why;

/// The process that serves in an epoch.
#[derive(Debug)]
pub(super) struct Served {
    epoch: Epoch,
    /// As `pid@ticks`.
    server: String,
    /// When it was last seen.
    seen_at: Mono,
    /// When the other node's Redis was last heard to follow it, while it was seen.
    followed_at: Option<Mono>,
}

impl Agent {
    /// The local Redis is no primary although this node serves, and has nothing, while the other node has data: the number
    /// of its keys. One that was emptied by its clients still is a primary.
    pub(super) fn redis_empty(&self, now: Mono) -> Option<u64> {
        let fresh = |at: Mono| now.since_ms(at) <= self.setup.policy.report_max_ms;
        let (_, facts) = self.detector.redis_facts().filter(|(at, _)| fresh(*at))?;
        if is_open(facts) || facts.loading || facts.keys > 0 {
            return None;
        }
        let other = self.ledger.other_data_nodes(&self.setup.me).next()?;
        let heard = self.reports.get(other).filter(|heard| fresh(heard.at))?;
        heard.report.redis.as_ref().map(|redis| redis.keys).filter(|keys| *keys > 0)
    }

    /// The newest process of the local Redis that was seen.
    pub(super) fn redis_server(&self) -> Option<&str> {
        self.detector.redis_facts().map(|(_, facts)| facts.server.as_str())
    }

    /// Another process answers than the one that served in this epoch, and the other node's Redis followed that one to its
    /// end: it has what was lost here. Without such a replica the new process has the newest copy.
    ///
    /// An epoch that began because of a restart is not given up because of one. So whatever kills each Redis that it meets
    /// moves the baton once, and never to and fro.
    pub(super) fn redis_restarted(&self) -> Option<RedisRestarted<'_>> {
        let served = self.redis_served.as_ref().filter(|served| served.epoch == self.ledger.epoch)?;
        let is = self.redis_server().filter(|is| *is != served.server)?;
        let followed = served.seen_at.since_ms(served.followed_at?) <= self.setup.policy.report_max_ms;
        let began =
            self.ledger.newest_run().map(|(run, _)| &run.plan).filter(|plan| plan.epoch == served.epoch);
        let for_one = began.is_some_and(|plan| plan.why.iter().any(Why::is_release_for_a_restarted_redis));
        (followed && !for_one).then_some(RedisRestarted { was: &served.server, is })
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
        let followed_at = self.followed_at();
        match self.redis_served.as_mut().filter(|served| served.epoch == epoch) {
            Some(served) if served.server == facts.server => {
                served.seen_at = now;
                served.followed_at = served.followed_at.max(followed_at);
            }
            // Judged with the wish.
            Some(_) => {}
            None => {
                let server = facts.server.clone();
                self.redis_served = Some(Served { epoch, server, seen_at: now, followed_at });
            }
        }
    }

    /// When the other node last said that its Redis follows the one here.
    fn followed_at(&self) -> Option<Mono> {
        let other = self.ledger.other_data_nodes(&self.setup.me).next()?;
        let heard = self.reports.get(other)?;
        let redis = heard.report.redis.as_ref()?;
        let source = redis.follows.as_deref().and_then(|source| source.rsplit_once(':'));
        let follows = redis.link_up
            && !redis.primary
            && !redis.loading
            && source.is_some_and(|(host, _)| host == self.setup.own_address);
        follows.then_some(heard.at)
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
            *served = Served { server: server.clone(), followed_at: None, ..*served };
        }
    }
}

/// Clients can write there.
const fn is_open(facts: &RedisFacts) -> bool {
    facts.primary && facts.min_replicas_to_write == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Setup;
    use crate::agent::sample::setup;
    use crate::decide::Heard;
    use crate::decide::local::Wish;
    use crate::ledger::{EndedRun, Ledger};
    use crate::model::{NodeId, NodeKind, RunId, SyncGeneration, WallMs};
    use crate::observe::Observation;
    use crate::plan::{Basis, Plan, Runbook};
    use crate::run::{Run, RunState};

    const EPOCH: Epoch = Epoch(2);

    /// Serves epoch 2 as db1, whose run began for `why`.
    fn holder(why: Why) -> Agent {
        let mut agent = Agent::new(Setup { redis: true, ..setup("db1") });
        let plan = Plan {
            runbook: Runbook::Takeover,
            version: 1,
            epoch: EPOCH,
            from: None,
            to: NodeId::from("db1"),
            basis: Basis { epoch: Epoch(1), sync: SyncGeneration(1), target_instance: None },
            why: vec![why],
            detected_ms_ago: None,
            asked_by: None,
            drain_patience_ms: 0,
            steps: Vec::new(),
        };
        let run = Run::new(RunId(2), plan, WallMs(0));
        let history = vec![EndedRun { run: run.into(), state: RunState::Completed }];
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

    /// The local Redis answers.
    fn answers(agent: &mut Agent, server: &str, at: u64) {
        agent.observe(&Observation::Redis { facts: facts(server, None) }, Mono(at));
    }

    /// The other node says of its Redis whom it follows, over a link that is up.
    fn reports(agent: &mut Agent, source: &str, at: u64) {
        let mut report = agent.report(Mono(at));
        report.node = NodeId::from("db2");
        report.redis = Some(facts("1@1", Some(source)));
        agent.reports.insert(NodeId::from("db2"), Heard { at: Mono(at), report: report.into() });
    }

    const FOLLOWS_ME: &str = "10.0.0.1:6379";

    fn lease_ended() -> Why {
        Why::LeaseEnded { epoch: Epoch(1), ended_ms_ago: 3 }
    }

    #[test]
    fn another_process_has_lost_what_a_replica_has_that_followed_to_the_end() {
        let mut agent = holder(lease_ended());
        reports(&mut agent, FOLLOWS_ME, 900);
        answers(&mut agent, "7@1", 1_000);
        assert_eq!(agent.redis_restarted(), None, "the first one of the epoch");
        answers(&mut agent, "8@2", 1_100);
        assert_eq!(agent.redis_restarted(), Some(RedisRestarted { was: "7@1", is: "8@2" }));
        let much_later = 90_000;
        answers(&mut agent, "8@2", much_later);
        assert!(agent.redis_restarted().is_some(), "until it is judged");
        wishes(&mut agent, Some("8@2"));
        agent.note_redis();
        assert_eq!(agent.redis_restarted(), None, "it serves now");
    }

    #[test]
    fn a_replica_that_was_not_attached_has_less_than_the_new_process() {
        for source in ["10.0.0.11:6379", "127.0.0.1:1"] {
            let mut agent = holder(lease_ended());
            reports(&mut agent, source, 900);
            answers(&mut agent, "7@1", 1_000);
            answers(&mut agent, "8@2", 1_100);
            assert_eq!(agent.redis_restarted(), None, "it follows {source}");
        }
        let mut agent = holder(lease_ended());
        reports(&mut agent, FOLLOWS_ME, 100);
        answers(&mut agent, "7@1", 1_000);
        answers(&mut agent, "8@2", 1_100);
        assert_eq!(agent.redis_restarted(), None, "it was attached long ago");
    }

    #[test]
    fn what_comes_back_attached_after_the_restart_counts_for_nothing() {
        let mut agent = holder(lease_ended());
        answers(&mut agent, "7@1", 1_000);
        answers(&mut agent, "8@2", 1_100);
        reports(&mut agent, FOLLOWS_ME, 1_150);
        answers(&mut agent, "8@2", 1_200);
        assert_eq!(agent.redis_restarted(), None);
    }

    #[test]
    fn an_epoch_that_began_for_a_restart_does_not_end_for_one() {
        let restarted = Why::RedisRestarted { was: "1@1".to_owned(), is: "2@2".to_owned() };
        let mut agent = holder(Why::HolderReleased { epoch: Epoch(1), because: restarted.to_string() });
        reports(&mut agent, FOLLOWS_ME, 900);
        answers(&mut agent, "7@1", 1_000);
        answers(&mut agent, "8@2", 1_100);
        assert_eq!(agent.redis_restarted(), None);
    }
}
