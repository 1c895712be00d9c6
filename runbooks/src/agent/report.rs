//! What this node says of itself.

use std::collections::BTreeMap;

use super::Agent;
use super::services::GATEWAY_DOUBT_MS;
use crate::detect::{DiskVerdict, Verdict};
use crate::ledger::Complete;
use crate::model::{Mono, NodeId, NodeKind};
use crate::observe::{NodeReport, ServiceState};
use crate::why::{Obstacle, Why};

impl Agent {
    /// This node's report. What the core does not know, such as a quarantine, is for the driver to add.
    #[must_use]
    pub fn report(&self, now: Mono) -> NodeReport {
        let mut heard_ms = BTreeMap::new();
        for (node, heard) in self.reports.iter().filter(|(node, _)| **node != self.setup.me) {
            heard_ms.insert(node.clone(), now.since_ms(heard.at));
        }
        NodeReport {
            node: self.setup.me.clone(),
            epoch: self.ledger.epoch,
            applied: self.applied,
            mysql: self.detector.mysql_shared(),
            mysql_age_ms: self.detector.mysql_facts().map(|(at, _)| now.since_ms(at)),
            mysql_verdict: self.detector.mysql(now).as_str().into(),
            redis: self.detector.redis_facts().map(|(_, facts)| facts.clone()),
            redis_exposure: None,
            redis_verdict: self.detector.redis(now).as_str().into(),
            disk_verdict: self.detector.disk().as_str().into(),
            services: self.services.clone(),
            obstacles: self.obstacles(now),
            alarms: Vec::new(),
            open: None,
            gateway_lost: self.detector.gateway_lost(now, GATEWAY_DOUBT_MS).map(str::to_owned),
            quarantine: None,
            resync: None,
            paused: self.paused_facts(now),
            generation: self.ledger.generation,
            founder: self.ledger.founder().to_owned(),
            heard_ms,
            up_ms: self.began_at.map(|began| now.since_ms(began)),
            serving: self.lease.held.is_some_and(|(_, until)| now < until),
            version: self.setup.version.clone(),
            config_hash: self.setup.config_hash.clone(),
        }
    }

    /// Why this node could not hold the baton now.
    #[must_use]
    pub fn obstacles(&self, now: Mono) -> Vec<String> {
        let mut found = Vec::new();
        if self.ledger.members.get(&self.setup.me).is_some_and(|kind| *kind == NodeKind::Witness) {
            return found;
        }
        if self.setup.policy.scope.mysql {
            self.mysql_obstacles(now, &mut found);
        }
        if self.setup.redis {
            if self.redis_boots_open() {
                found.push(Why::RedisBootsOpen.to_string());
            }
            let verdict = self.detector.redis(now);
            if verdict != Verdict::Healthy && verdict != Verdict::Suspect {
                found.push(Why::RedisDown { detail: verdict.as_str().to_owned() }.to_string());
            }
        }
        match self.detector.disk() {
            DiskVerdict::Full => {
                found.push(Why::DiskFull { free_bytes: self.detector.disk_free() }.to_string())
            }
            DiskVerdict::ReadOnly => found.push(Why::DiskReadOnly.to_string()),
            DiskVerdict::Stalled => found.push(Why::DiskStalled.to_string()),
            DiskVerdict::Unknown | DiskVerdict::Healthy => {}
        }
        for interface in self.detector.links_down() {
            found.push(Why::LinkDown { interface: interface.to_owned() }.to_string());
        }
        if let Some(detail) = self.detector.vip_lost(now) {
            found.push(Why::VipLost { detail: detail.to_owned() }.to_string());
        }
        for (name, state) in &self.services {
            if *state == ServiceState::Missing {
                found.push(Why::ServiceDown { name: name.clone(), state: "missing".to_owned() }.to_string());
            }
        }
        found
    }

    fn mysql_obstacles(&self, now: Mono, found: &mut Vec<String>) {
        if self.boots_writable() {
            found.push(Why::MysqlBootsWritable.to_string());
        }
        match self.detector.mysql(now) {
            Verdict::Healthy | Verdict::Suspect => {}
            Verdict::Dead => found.push(Why::MysqlDead.to_string()),
            Verdict::Refusing => found.push(Why::MysqlRefusing.to_string()),
            Verdict::Hung => found.push(Why::MysqlHung.to_string()),
            Verdict::WriteStalled => found.push(Why::MysqlWriteStalled.to_string()),
            Verdict::TooManyConnections => found.push(Why::MysqlTooManyConnections.to_string()),
            Verdict::WrongCredentials => found.push(Why::MysqlWrongCredentials.to_string()),
            Verdict::Unknown | Verdict::Failing => found.push(Obstacle::MysqlNotAnswering.to_string()),
        }
        let replication = self.detector.mysql_facts().and_then(|(_, facts)| facts.replication.as_ref());
        if let Some(broken) = replication.filter(|r| r.sql_errno != 0) {
            found
                .push(Obstacle::ApplierStopped.with(format_args!(" {}: {}", broken.sql_errno, broken.error)));
        }
    }

    /// What the other data node lacks to be better than this one; `None`: it could take over now.
    pub(super) fn other_lacks(&self, now: Mono) -> Option<String> {
        let Some(other) = self.ledger.other_data_nodes(&self.setup.me).next() else {
            return Some("there is no other data node".to_owned());
        };
        if let Some(lacks) = self.lacks_data(other) {
            return Some(lacks);
        }
        let heard = self.reports.get(other);
        match heard.filter(|heard| now.since_ms(heard.at) <= self.setup.policy.report_max_ms) {
            None => Some(format!("{other} sends no reports")),
            Some(heard) if heard.report.obstacles.is_empty() => None,
            Some(heard) => Some(format!("{other}: {}", heard.report.obstacles.join(", "))),
        }
    }

    fn lacks_data(&self, other: &NodeId) -> Option<String> {
        if !self.ledger.mysql {
            return None;
        }
        let now =
            self.reports.get(other).and_then(|heard| heard.report.mysql.as_deref()).map(|m| &m.instance);
        match self.ledger.in_sync.get(other) {
            Some(Complete::Holder) => None,
            Some(Complete::Replica { instance } | Complete::Accepted { instance, .. })
                if now == Some(instance) =>
            {
                None
            }
            Some(Complete::Replica { .. } | Complete::Accepted { .. }) => {
                Some(format!("{other} was restarted since it was in sync"))
            }
            None => Some(format!("{other} is not in sync")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::sample::setup;
    use crate::model::Instance;
    use crate::observe::{Flavour, MysqlFacts, Observation, ReplicationFacts, SemiSyncFacts};

    /// A replica whose applier has ended with this error number; 0: it runs.
    fn replica(sql_errno: u32) -> Arc<MysqlFacts> {
        let replication = ReplicationFacts {
            source_host: "10.0.0.2".to_owned(),
            source_port: 3306,
            io_running: true,
            receiver_alive: true,
            sql_running: sql_errno == 0,
            io_errno: 0,
            sql_errno,
            error: "Duplicate entry".to_owned(),
            received: String::new(),
        };
        let facts = MysqlFacts {
            flavour: Flavour::Mariadb,
            version: "11.8".to_owned(),
            instance: Instance { boot: "b".to_owned(), server: "7@1".to_owned(), threads: "5/6".to_owned() },
            read_only: true,
            executed: String::new(),
            position: String::new(),
            replication: Some(replication),
            semi_sync: SemiSyncFacts::default(),
            canary_applied: 0,
            apply_backlog: Some(0),
            sessions: 0,
        };
        facts.into()
    }

    /// What an agent of any version looks for: these words are for ever, as codes are.
    #[test]
    fn a_database_that_was_not_seen_and_an_applier_that_stopped_stand_in_the_way() {
        let mut agent = Agent::new(setup("db1"));
        assert_eq!(agent.obstacles(Mono(1_000)), ["mysql-not-answering"]);
        agent.observe(&Observation::Mysql { facts: replica(1062) }, Mono(1_000));
        assert_eq!(agent.obstacles(Mono(1_000)), ["applier stopped with error 1062: Duplicate entry"]);
        agent.observe(&Observation::Mysql { facts: replica(0) }, Mono(1_100));
        assert!(agent.obstacles(Mono(1_100)).is_empty());
    }
}
