//! The senses: when which probe runs. Each has a task of its own, so that a probe that hangs delays no other.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_runbooks::decide::local::Role;
use baton_runbooks::observe::{MysqlFacts, Observation, ProbeFailure, RedisFacts, ServiceState};
use tokio::sync::mpsc;

use super::clock::Clock;
use super::driver::Wishes;
use super::{Context, contest};
use crate::probe::disk::DiskProbe;

/// Services and the disk change slowly, and asking the container engine is dear.
const SLOW_PERIOD: Duration = Duration::from_secs(1);
/// A look at the services that began longer ago says nothing of now: one was missed, or the engine hangs.
const SERVICES_FRESH: Duration = Duration::from_secs(3);
/// How often the restart policies of containers are looked at: they change when somebody makes a container anew.
const POLICIES_PERIOD: Duration = Duration::from_secs(60);
/// How often the clients' gateway is asked, and how long it may take to answer.
const GATEWAY_PERIOD: Duration = Duration::from_millis(500);
const GATEWAY_DEADLINE: Duration = Duration::from_millis(200);
/// A database that takes longer than this to answer a probe is counted as silent for that probe.
const PROBE_DEADLINE_MIN: Duration = Duration::from_millis(400);
/// Deadline of the write probe: a commit on a busy disk takes tens of milliseconds.
const WRITE_DEADLINE: Duration = Duration::from_millis(800);

type Observations = mpsc::Sender<Observation>;

/// The newest facts, for whoever acts on them beside the core.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Newest>>);

#[derive(Debug, Default)]
struct Newest {
    mysql: Option<Arc<MysqlFacts>>,
    redis: Option<RedisFacts>,
    services: Option<Arc<ServicesLook>>,
}

/// One look at all services of this node.
#[derive(Debug)]
pub(super) struct ServicesLook {
    /// Before the engine was asked, so the states are not older.
    began: Instant,
    /// Name and state of each.
    pub(super) states: Vec<(String, ServiceState)>,
}

impl ServicesLook {
    pub(super) const fn new(began: Instant, states: Vec<(String, ServiceState)>) -> Self {
        Self { began, states }
    }

    /// It began after `since`, and a moment ago.
    pub(super) fn counts(&self, since: Instant, now: Instant) -> bool {
        self.began > since && now.saturating_duration_since(self.began) < SERVICES_FRESH
    }
}

impl Seen {
    /// Newest facts of the local MySQL; `None` while it does not answer.
    pub(super) fn mysql(&self) -> Option<Arc<MysqlFacts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).mysql.clone()
    }

    /// Newest facts of the local Redis; `None` while it does not answer.
    pub(super) fn redis(&self) -> Option<RedisFacts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).redis.clone()
    }

    /// The newest look at the services, however old; `None` before the first.
    pub(super) fn services(&self) -> Option<Arc<ServicesLook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).services.clone()
    }

    fn note(&self, change: impl FnOnce(&mut Newest)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Starts the probes of what the configuration has.
pub(super) fn start(context: &Context, out: &Observations, wishes: Wishes) -> Seen {
    let seen = Seen::default();
    let period = context.config.timing.probe.duration();
    // The witness as well: it looks from outside.
    if !context.hands.vips().is_empty() {
        tokio::spawn(contest::watch(context.clone()));
    }
    if !context.config.is_data_node() {
        return seen;
    }
    if context.hands.mysql.is_some() {
        tokio::spawn(watch_mysql(context.clone(), out.clone(), seen.clone(), period));
        tokio::spawn(write_mysql(context.clone(), out.clone(), wishes, period));
    }
    if context.hands.redis.is_some() {
        tokio::spawn(watch_redis(context.clone(), out.clone(), seen.clone(), period));
    }
    if let Some(mysql) = &context.config.mysql {
        match DiskProbe::new(mysql.data_dir.clone()) {
            Ok(disk) => drop(tokio::spawn(watch_disk(context.clock, disk, out.clone()))),
            Err(error) => tracing::error!(%error, "the data disk is not watched"),
        }
    }
    for vip in &context.config.vips {
        if let Some(gateway) = vip.gateway {
            tokio::spawn(watch_gateway(context.clone(), out.clone(), gateway, vip.interface.clone()));
        }
    }
    if context.hands.services.is_some() {
        tokio::spawn(watch_services(context.clone(), out.clone(), seen.clone()));
    }
    seen
}

async fn watch_mysql(context: Context, out: Observations, seen: Seen, period: Duration) {
    let Some(mysql) = &context.hands.mysql else { return };
    let deadline = (period * 2).max(PROBE_DEADLINE_MIN);
    let mut tick = context.clock.every(period, Duration::ZERO);
    loop {
        tick.tick().await;
        let observation = match mysql.probe(deadline).await {
            Ok(facts) => {
                let facts = Arc::new(facts);
                seen.note(|newest| newest.mysql = Some(facts.clone()));
                Observation::Mysql { facts }
            }
            Err(failure) => {
                seen.note(|newest| newest.mysql = None);
                Observation::MysqlFailed { failure }
            }
        };
        if out.send(observation).await.is_err() {
            return;
        }
    }
}

/// Writes are probed on the holder only: elsewhere the server is read-only, and a write would be a transaction of its own.
async fn write_mysql(context: Context, out: Observations, wishes: Wishes, period: Duration) {
    let Some(mysql) = &context.hands.mysql else { return };
    let mut tick = context.clock.every(period * 2, Duration::ZERO);
    loop {
        tick.tick().await;
        let serving = wishes.borrow().as_ref().is_some_and(|numbered| match &numbered.wish.role {
            // Closed for a switchover, the server must not get a write that the target lacks.
            Role::Serving { ports, .. } => *ports,
            Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } | Role::Receiving { .. } => false,
        });
        if !serving {
            continue;
        }
        let observation = match mysql.write_probe(WRITE_DEADLINE).await {
            Ok(took_ms) => Observation::MysqlWrote { took_ms },
            Err(error) => match error.as_probe_failure() {
                // Only a write that does not end says something that the other probe does not say better.
                failure @ ProbeFailure::Timeout { .. } => Observation::MysqlWriteFailed { failure },
                ProbeFailure::Refused
                | ProbeFailure::TooManyConnections
                | ProbeFailure::WrongCredentials { .. }
                | ProbeFailure::Error { .. } => continue,
            },
        };
        if out.send(observation).await.is_err() {
            return;
        }
    }
}

async fn watch_redis(context: Context, out: Observations, seen: Seen, period: Duration) {
    let Some(redis) = &context.hands.redis else { return };
    let deadline = (period * 2).max(PROBE_DEADLINE_MIN);
    let mut tick = context.clock.every(period, Duration::ZERO);
    loop {
        tick.tick().await;
        let observation = match redis.probe(deadline).await {
            Ok(facts) => {
                // Before anybody acts on it.
                context.local.judge_redis(&facts);
                seen.note(|newest| newest.redis = Some(facts.clone()));
                Observation::Redis { facts }
            }
            Err(failure) => {
                seen.note(|newest| newest.redis = None);
                Observation::RedisFailed { failure }
            }
        };
        if out.send(observation).await.is_err() {
            return;
        }
    }
}

async fn watch_disk(clock: Clock, disk: DiskProbe, out: Observations) {
    let mut tick = clock.every(SLOW_PERIOD, Duration::ZERO);
    loop {
        tick.tick().await;
        let facts = disk.look(SLOW_PERIOD).await;
        if out.send(Observation::Disk { facts }).await.is_err() {
            return;
        }
    }
}

/// Asks the clients' gateway for its hardware address. That nobody could be asked is no answer, in either direction.
async fn watch_gateway(context: Context, out: Observations, gateway: IpAddr, interface: String) {
    let mut asker = context.hands.network.asker(gateway, &interface);
    let mut tick = context.clock.every(GATEWAY_PERIOD, Duration::ZERO);
    loop {
        tick.tick().await;
        let reachable = match asker.is_there(GATEWAY_DEADLINE).await {
            Ok(reachable) => reachable,
            Err(error) => {
                tracing::debug!(error = crate::chain::chain(&error), %gateway, "not asked");
                continue;
            }
        };
        let address = gateway.to_string();
        if out.send(Observation::Gateway { address, reachable }).await.is_err() {
            return;
        }
    }
}

async fn watch_services(context: Context, out: Observations, seen: Seen) {
    let Some(services) = &context.hands.services else { return };
    let mut tick = context.clock.every(SLOW_PERIOD, Duration::ZERO);
    let mut policies_at = Instant::now();
    loop {
        tick.tick().await;
        let began = Instant::now();
        let look = Arc::new(ServicesLook::new(began, services.states().await));
        seen.note(|newest| newest.services = Some(look.clone()));
        for (name, state) in look.states.iter().cloned() {
            if out.send(Observation::Service { name, state }).await.is_err() {
                return;
            }
        }
        if policies_at <= Instant::now() {
            services.look_at_policies().await;
            policies_at = Instant::now() + POLICIES_PERIOD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_look_that_began_after_the_last_change_counts() {
        let began = Instant::now();
        let look = ServicesLook { began, states: Vec::new() };
        let ms = Duration::from_millis;
        let before = began.checked_sub(ms(1)).unwrap();
        assert!(look.counts(before, began));
        assert!(look.counts(before, began + SERVICES_FRESH - ms(1)));
        assert!(!look.counts(before, began + SERVICES_FRESH), "it is stale");
        assert!(!look.counts(began, began + ms(2)), "it may be of before the change");
        assert!(!look.counts(began + ms(1), began + ms(2)), "it began while something was changed");
        assert!(SERVICES_FRESH > SLOW_PERIOD * 2, "one late look does not cost the engine another");
    }

    #[test]
    fn the_newest_look_at_the_services_is_kept() {
        let seen = Seen::default();
        assert!(seen.services().is_none());
        for state in [ServiceState::Healthy, ServiceState::Stopped] {
            let states = vec![("web".to_owned(), state)];
            seen.note(|newest| {
                newest.services =
                    Some(Arc::new(ServicesLook { began: Instant::now(), states: states.clone() }));
            });
            assert_eq!(seen.services().unwrap().states, states);
        }
    }
}
