//! Words about what is seen and what follows from it: `observe`, `report`, `decide`, `local`, `obstacles`, and the keeper's
//! `primary`, `replica`, `canary`, `settle`, `keep`.

use baton_runbooks::agent::{Agent, Input, Setup, Stamped};
use baton_runbooks::decide::local::{LocalFacts, RedisRestarted, Role, decide_local};
use baton_runbooks::decide::{Action, Facts, Failure, Heard, decide};
use baton_runbooks::model::{Epoch, NodeId, SyncGeneration, WallMs};
use baton_runbooks::observe::{
    DiskFacts, MysqlFacts, NodeReport, Observation, ProbeFailure, RedisFacts, ServiceState,
};
use baton_runbooks::plan::Step;
use baton_runbooks::sync::{Keep, KeepFacts};
use baton_runbooks::why::Why;
use datadriven::TestCase;

use crate::scene::{Scene, arg, maybe, mysql, node, patience, text};

impl Scene {
    pub fn sight_word(&mut self, word: &str, case: &mut TestCase) -> Result<String, String> {
        match word {
            "observe" => self.observe(case),
            "report" => self.report(case),
            "failed" => {
                let target = node(case, "node")?.ok_or("failed wants node=")?;
                self.failures.push(Failure { at: self.now, target });
                Ok(String::new())
            }
            "ready" => {
                let word: String = arg(case, "step")?;
                let step = Step::ALL.into_iter().find(|step| step.as_str() == word).ok_or("no such step")?;
                self.ready_since.insert(step, self.now);
                Ok(String::new())
            }
            "decide" => Ok(self.decide()),
            "local" => self.local(case),
            "obstacles" => self.obstacles(),
            "primary" => {
                change(&mut self.primary.1, case)?;
                self.primary.0 = self.now;
                Ok(String::new())
            }
            "replica" => {
                change(&mut self.replica.1, case)?;
                self.replica.0 = self.now;
                Ok(String::new())
            }
            "canary" => {
                self.canary = (arg(case, "started")?, arg(case, "committed")?);
                Ok(String::new())
            }
            "settle" => {
                let before = SyncGeneration(self.ledger.sync_generation.0 - 1);
                self.keeper.settle(before);
                Ok(String::new())
            }
            _ => self.keep(case),
        }
    }

    fn observe(&mut self, case: &mut TestCase) -> Result<String, String> {
        let what: String = arg(case, "what")?;
        let detail = text(case, "detail")?.unwrap_or_default();
        let server = || if detail.is_empty() { "1@1".to_owned() } else { detail.clone() };
        let observation = match what.as_str() {
            "mysql" => Observation::Mysql { facts: mysql(&server()).into() },
            "mysql-refused" => Observation::MysqlFailed { failure: ProbeFailure::Refused },
            "mysql-timeout" => Observation::MysqlFailed { failure: ProbeFailure::Timeout { after_ms: 300 } },
            "mysql-error" => Observation::MysqlFailed {
                failure: ProbeFailure::Error { message: "out of memory".to_owned() },
            },
            "mysql-1040" => Observation::MysqlFailed { failure: ProbeFailure::TooManyConnections },
            "mysql-1045" => {
                let message = "access denied".to_owned();
                Observation::MysqlFailed { failure: ProbeFailure::WrongCredentials { message } }
            }
            "mysql-exited" => Observation::MysqlExited { server: server() },
            "wrote" => Observation::MysqlWrote { took_ms: 1 },
            "write-failed" => {
                Observation::MysqlWriteFailed { failure: ProbeFailure::Timeout { after_ms: 2_000 } }
            }
            "redis" => Observation::Redis { facts: closed_redis(&detail) },
            "redis-open" => Observation::Redis { facts: redis_process(&detail) },
            "redis-refused" => Observation::RedisFailed { failure: ProbeFailure::Refused },
            "redis-timeout" => Observation::RedisFailed { failure: ProbeFailure::Timeout { after_ms: 300 } },
            "disk-ok" => disk(1_000_000, false, Some(2)),
            "disk-full" => disk(12, false, Some(2)),
            "disk-full-stalled" => disk(12, false, None),
            "disk-read-only" => disk(1_000_000, true, None),
            "disk-stalled" => disk(1_000_000, false, None),
            "disk-unknown" => {
                Observation::Disk { facts: DiskFacts { free_bytes: None, read_only: false, sync_ms: None } }
            }
            "link-down" => Observation::Link { interface: "eth0".to_owned(), up: false },
            "link-up" => Observation::Link { interface: "eth0".to_owned(), up: true },
            "vip-unheld" => Observation::VipUnheld { detail, left_ms: arg(case, "left-ms")? },
            "vip-held" => Observation::VipHeld,
            "vip-lost" => Observation::VipUnrestorable { detail: "removed again and again".to_owned() },
            "gap" => Observation::OwnGap { gap_ms: 900 },
            "service-missing" => {
                Observation::Service { name: "web".to_owned(), state: ServiceState::Missing }
            }
            other => return Err(format!("no such observation: {other}")),
        };
        self.detector.observe(&observation, self.now);
        self.seen.push(observation);
        let (mysql, disk) = (self.detector.mysql(self.now).as_str(), self.detector.disk().as_str());
        Ok(format!("mysql {mysql}, redis {}, disk {disk}", self.detector.redis(self.now).as_str()))
    }

    fn report(&mut self, case: &mut TestCase) -> Result<String, String> {
        let name = node(case, "node")?.ok_or("report wants node=")?;
        let mut facts = if name.as_str() == "db2" { self.replica.1.clone() } else { self.primary.1.clone() };
        if let Some(server) = text(case, "server")? {
            facts.instance.server = server;
        }
        let dead = text(case, "mysql")?.is_some_and(|word| word == "dead");
        let mut obstacles = if dead { vec![Why::MysqlDead.to_string()] } else { Vec::new() };
        if case.args.remove("redis-boots-open").is_some() {
            obstacles.push(Why::RedisBootsOpen.to_string());
        }
        let redis = text(case, "redis")?.map(|word| reported_redis(&word)).transpose()?;
        let mut heard_ms = std::collections::BTreeMap::new();
        if let Some(other) = node(case, "hears")? {
            heard_ms.insert(other, arg(case, "heard-ms")?);
        }
        let report = NodeReport {
            founder: String::new(),
            node: name.clone(),
            epoch: self.ledger.epoch,
            applied: 1,
            mysql: Some(facts.into()),
            mysql_age_ms: Some(0),
            mysql_verdict: if dead { "dead" } else { "healthy" }.into(),
            redis_verdict: if redis.is_some() { "healthy" } else { "unknown" }.into(),
            redis,
            redis_exposure: None,
            disk_verdict: "healthy".into(),
            services: Default::default(),
            obstacles,
            alarms: Vec::new(),
            open: None,
            gateway_lost: None,
            quarantine: None,
            resync: None,
            paused: None,
            generation: self.ledger.generation,
            heard_ms,
            serving: self.ledger.holder.as_ref() == Some(&name)
                && text(case, "serving")?.is_none_or(|word| word == "yes"),
            up_ms: Some(maybe(case, "up")?.unwrap_or(86_400_000 + self.now.0)),
            version: "test".to_owned(),
            config_hash: "test".to_owned(),
        };
        if self.ledger.holder.as_ref() == Some(&name) {
            self.canaries.hear(self.ledger.epoch, &report, self.now);
        }
        self.following.hear(&self.ledger, &report, self.now);
        self.reports.insert(name, Heard { at: self.now, report: report.into() });
        Ok(String::new())
    }

    fn decide(&mut self) -> String {
        let office = self.present_office();
        self.granter.see(self.now, &office, self.ledger.paused());
        let takeover_at = self.granter.takeover_at(&office);
        let released = self.ledger.released.as_ref().map(|released| released.boot);
        let released_at = released.and_then(|boot| self.granter.released_at(&office, boot));
        let decision = decide(&Facts {
            now: self.now,
            me: &self.me,
            ledger: &self.ledger,
            office: &office,
            takeover_at,
            released_at,
            granted_at: self.granter.granted_at(),
            pause_over: self.granter.pause_over(&office),
            reports: &self.reports,
            canaries: &self.canaries,
            following: &self.following,
            ready_since: &self.ready_since,
            failures: &self.failures,
            settling: self.detector.settling(self.now),
            policy: &self.policy,
        });
        let what = match &decision.action {
            Action::Hold => "hold".to_owned(),
            Action::StartRun { plan } => {
                let from = plan.from.as_ref().map_or("nobody", NodeId::as_str);
                format!(
                    "start-run: {} from {from} to {}, epoch {}",
                    plan.runbook.as_str(),
                    plan.to,
                    plan.epoch
                )
            }
            Action::AbandonRun { .. } => "abandon-run".to_owned(),
            Action::Skip { step, .. } => format!("skip {step}"),
            Action::ExpirePause { pause } => format!("expire-pause {pause}"),
        };
        lines(&what, &decision.why)
    }

    fn local(&mut self, case: &mut TestCase) -> Result<String, String> {
        let me = node(case, "me")?.unwrap_or_else(|| NodeId::from("db1"));
        if let Some(ms) = maybe(case, "lease-ms")? {
            self.held = Some((self.ledger.epoch, self.now.plus_ms(ms)));
        }
        let other_lacks = text(case, "other-lacks")?;
        let broken = text(case, "semi-sync-broken")?;
        let service = text(case, "service-stopped")?;
        let gateway = text(case, "gateway-lost")?;
        let (was, is) = (text(case, "redis-was")?, text(case, "redis-is")?);
        let wish = decide_local(&LocalFacts {
            now: self.now,
            me: &me,
            ledger: &self.ledger,
            lease: self.held,
            detector: &self.detector,
            boots_writable: case.args.remove("boots-writable").is_some(),
            redis_boots_open: case.args.remove("redis-boots-open").is_some(),
            waiting: maybe(case, "waiting")?.unwrap_or(0),
            semi_sync_broken: broken.as_deref(),
            service_lost: service.as_deref().map(|name| (name, "stopped")),
            redis_empty: maybe(case, "redis-empty")?,
            redis_restarted: was.as_deref().zip(is.as_deref()).map(|(was, is)| RedisRestarted { was, is }),
            redis_server: is.as_deref(),
            gateway_lost: gateway.as_deref(),
            other_lacks: &|| other_lacks.clone(),
            releasing: maybe(case, "releasing")?.map(Epoch),
            mysql: true,
            redis: case.args.remove("redis").is_some(),
        });
        let role = match &wish.role {
            Role::Witness => "witness".to_owned(),
            Role::Closed { follow: None } => "closed".to_owned(),
            Role::Closed { follow: Some(holder) } => format!("closed, follows {holder}"),
            Role::Acquiring { epoch } => format!("acquiring epoch {epoch}"),
            Role::Receiving { epoch } => format!("receiving epoch {epoch}"),
            Role::Serving { epoch, ports, semi_sync, services, redis } => {
                let ports = if *ports { "open" } else { "closed" };
                let waits = if *semi_sync { "wait for the replica" } else { "go on alone" };
                let services = if *services { "" } else { ", services stopped" };
                let redis = redis.as_ref().map_or(String::new(), |server| format!(", Redis {server}"));
                format!("serving epoch {epoch}, ports {ports}, commits {waits}{services}{redis}")
            }
        };
        let renews = if wish.renew.is_some() { "renews" } else { "does not renew" };
        let release = wish.release.map_or(String::new(), |why| format!(", releases ({why})"));
        Ok(lines(&format!("{role}; {renews}{release}"), &wish.why))
    }

    /// What a whole core says of itself, fed with what this scene's detector saw.
    fn obstacles(&mut self) -> Result<String, String> {
        let me = NodeId::from("db2");
        let (text, setup) = ("test".to_owned(), self.policy.clone());
        let mut agent = Agent::new(Setup {
            me,
            own_address: "10.0.0.2".to_owned(),
            policy: setup,
            patience: patience(),
            sync_patience_ms: 1_400,
            redis: true,
            holder_services: Vec::new(),
            version: text.clone(),
            config_hash: text,
            new_leader_ms: 0,
            opened: None,
            writable_boot: None,
            redis_boot: None,
            boot: 1,
        });
        let mut feed = |input| drop(agent.handle(Stamped { now: self.now, wall: WallMs(0), input }));
        feed(Input::Committed { index: 1, ledger: self.ledger.clone().into() });
        for line in self.seen.drain(..) {
            feed(Input::Observed { observation: line });
        }
        let found = agent.obstacles(self.now);
        Ok(if found.is_empty() { "none".to_owned() } else { found.join("\n") })
    }

    fn keep(&mut self, case: &mut TestCase) -> Result<String, String> {
        let serving = text(case, "serving")?.is_none_or(|word| word == "yes");
        let unopened = case.args.remove("unopened").is_some();
        let replica = NodeId::from("db2");
        let keep = self.keeper.keep(&KeepFacts {
            now: self.now,
            ledger: &self.ledger,
            serving,
            unopened,
            primary: Some((self.primary.0, &self.primary.1)),
            replica: Some((&replica, self.now.since_ms(self.replica.0), Some(&self.replica.1))),
            own_address: "10.0.0.1",
            canary_started: self.canary.0,
            canary_committed: self.canary.1,
        });
        Ok(match keep {
            Keep::Nothing => "nothing".to_owned(),
            Keep::ProposeOut { reason, close_ports: true } => {
                format!("close the ports, propose out of sync: {reason}")
            }
            Keep::ProposeOut { reason, close_ports: false } => format!("propose out of sync: {reason}"),
            Keep::SourceOff => "switch semi-sync off".to_owned(),
            Keep::SourceOn => "switch semi-sync on".to_owned(),
            Keep::Canary => "commit a canary".to_owned(),
            Keep::ProposeIn { replica, instance } => format!("propose in sync: {replica} ({instance})"),
        })
    }
}

fn lines(what: &str, why: &[Why]) -> String {
    let mut text = what.to_owned();
    for why in why {
        text += &format!("\n  {why}");
    }
    text
}

fn change(facts: &mut MysqlFacts, case: &mut TestCase) -> Result<(), String> {
    let semi = &mut facts.semi_sync;
    for (name, field) in [
        ("waiting", &mut semi.waiting),
        ("yes", &mut semi.yes_tx),
        ("no", &mut semi.no_tx),
        ("clients", &mut semi.clients),
    ] {
        *field = maybe(case, name)?.unwrap_or(*field);
    }
    if let Some(word) = text(case, "source")? {
        semi.source_enabled = word == "on";
        semi.source_on = word == "on";
    }
    if let Some(canary) = maybe(case, "canary")? {
        facts.canary_applied = canary;
    }
    if let Some(server) = text(case, "server")? {
        facts.instance.server = server;
    }
    if let Some(threads) = text(case, "threads")? {
        facts.instance.threads = threads;
    }
    Ok(())
}

const fn disk(free_bytes: u64, read_only: bool, sync_ms: Option<u64>) -> Observation {
    Observation::Disk { facts: DiskFacts { free_bytes: Some(free_bytes), read_only, sync_ms } }
}

/// An open one, whose process has this name, if any.
fn redis_process(server: &str) -> RedisFacts {
    let open = redis();
    if server.is_empty() { open } else { RedisFacts { server: server.to_owned(), ..open } }
}

/// As it boots.
fn closed_redis(server: &str) -> RedisFacts {
    RedisFacts { primary: false, link_up: false, min_replicas_to_write: 99, ..redis_process(server) }
}

/// One that a report speaks of: the holder's, or a replica that follows or does not.
fn reported_redis(word: &str) -> Result<RedisFacts, String> {
    match word {
        "open" => Ok(redis()),
        "follows" => Ok(RedisFacts { link_up: true, ..closed_redis("") }),
        "apart" => Ok(closed_redis("")),
        other => Err(format!("no such Redis: {other}")),
    }
}

pub fn redis() -> RedisFacts {
    RedisFacts {
        server: "3@1".to_owned(),
        primary: true,
        loading: false,
        link_up: true,
        follows: None,
        offset: 1,
        keys: 1,
        min_replicas_to_write: 0,
    }
}
