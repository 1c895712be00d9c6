//! The services' share: what is bound to a role runs only in that role.
//!
//! Each look costs the engine several answers, and the senses look once a second in any case. So what was made as it should
//! be is looked at again through their eyes: as long as they see it so, the engine is not asked once more. It is for another
//! wish, when they see anything else, and when they have seen nothing for a moment.

use std::time::{Duration, Instant};

use baton_runbooks::decide::local::Role;
use baton_runbooks::observe::ServiceState;

use super::super::Context;
use super::super::driver::Numbered;
use super::super::senses::{Seen, ServicesLook};
use super::super::services::Services;
use super::{AGAIN, Settled, Share};
use crate::config::RunsOn;

/// Starting may take as long as the takeover's step allows.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Which services a role wants. What is in neither is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    stopped: RunsOn,
    running: Option<RunsOn>,
}

impl Wanted {
    /// `None`: the steps of a run act, or nothing is to be done.
    fn of(role: &Role) -> Option<Self> {
        match role {
            Role::Serving { services: false, .. } => Some(Self { stopped: RunsOn::Holder, running: None }),
            Role::Witness
            | Role::Acquiring { .. }
            | Role::Receiving { .. }
            | Role::Serving { ports: false, .. } => None,
            Role::Closed { follow } => {
                let running = follow.as_ref().map(|_| RunsOn::Replica);
                Some(Self { stopped: RunsOn::Holder, running })
            }
            Role::Serving { ports: true, .. } => {
                Some(Self { stopped: RunsOn::Replica, running: Some(RunsOn::Holder) })
            }
        }
    }

    /// A service in this state is as wanted: to start one waits for its health, to stop one for its end.
    fn is_met(self, runs_on: RunsOn, state: &ServiceState) -> bool {
        let (stopped, running) = (self.stopped == runs_on, self.running == Some(runs_on));
        match state {
            ServiceState::Healthy => !stopped,
            ServiceState::Stopped | ServiceState::Missing => !running,
            // Unknown is never stopped.
            ServiceState::Starting | ServiceState::Unhealthy { .. } | ServiceState::Unknown { .. } => {
                !stopped && !running
            }
        }
    }

    /// Every service was seen, and is as wanted.
    fn is_met_by<'a>(
        self,
        states: &[(String, ServiceState)],
        mut services: impl Iterator<Item = (&'a str, RunsOn)>,
    ) -> bool {
        services.all(|(name, runs_on)| {
            let seen = states.iter().find(|(of, _)| of == name);
            seen.is_some_and(|(_, state)| self.is_met(runs_on, state))
        })
    }

    /// What the engine itself said at `since` is so still. Only a look that counts is asked: an older one may be of before.
    fn is_still_met<'a>(
        self,
        newest: Option<&ServicesLook>,
        services: impl Iterator<Item = (&'a str, RunsOn)>,
        since: Instant,
        now: Instant,
    ) -> bool {
        match newest.filter(|look| look.counts(since, now)) {
            Some(look) => self.is_met_by(&look.states, services),
            // For a moment the senses cannot have looked since.
            None => now.saturating_duration_since(since) < AGAIN,
        }
    }
}

pub(super) struct ServicesShare {
    context: Context,
    seen: Seen,
    /// The engine itself said that what is bound to a role is as it should be.
    settled: Settled,
}

impl ServicesShare {
    pub(super) const fn new(context: Context, seen: Seen) -> Self {
        Self { context, seen, settled: Settled(None) }
    }

    /// Nothing has changed since the engine said so. What the senses see counts at once, for better or worse.
    fn is_settled(&self, services: &Services, wanted: Wanted, wish: &Numbered) -> bool {
        let Some(since) = self.settled.since(wish) else { return false };
        wanted.is_still_met(self.seen.services().as_deref(), services.roles(), since, Instant::now())
    }
}

impl Share for ServicesShare {
    // Waiting until a service is healthy must not delay its end when the role is lost.
    const GIVES_WAY: bool = true;

    async fn make_so(&mut self, wish: &Numbered) {
        let Some(services) = &self.context.hands.services else { return };
        let Some(wanted) = Wanted::of(&wish.wish.role) else { return };
        if self.is_settled(services, wanted, wish) {
            return;
        }
        // Until the engine has said so again, no look of the senses counts.
        self.settled = Settled::default();
        let stopped = services.stop(wanted.stopped).await;
        let started = match wanted.running {
            Some(runs_on) => services.start(runs_on, START_DEADLINE).await,
            None => Ok(()),
        };
        match stopped.and(started) {
            Ok(()) => self.settled.note(wish),
            Err(error) => tracing::warn!("services are not as they should be yet: {error:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_runbooks::model::Epoch;

    use super::*;

    const CLOSED: Wanted = Wanted { stopped: RunsOn::Holder, running: None };
    const FOLLOWS: Wanted = Wanted { stopped: RunsOn::Holder, running: Some(RunsOn::Replica) };
    const SERVES: Wanted = Wanted { stopped: RunsOn::Replica, running: Some(RunsOn::Holder) };

    fn serving(ports: bool, services: bool) -> Role {
        Role::Serving { epoch: Epoch(7), ports, semi_sync: true, services, redis: None }
    }

    fn detail() -> String {
        "why".to_owned()
    }

    #[test]
    fn what_each_role_wants() {
        let table = [
            (Role::Witness, None),
            (Role::Acquiring { epoch: Epoch(7) }, None),
            (Role::Receiving { epoch: Epoch(7) }, None),
            (Role::Closed { follow: None }, Some(CLOSED)),
            (Role::Closed { follow: Some("db1".into()) }, Some(FOLLOWS)),
            (serving(false, false), Some(CLOSED)),
            (serving(true, false), Some(CLOSED)),
            (serving(false, true), None),
            (serving(true, true), Some(SERVES)),
        ];
        for (role, wanted) in table {
            assert_eq!(Wanted::of(&role), wanted, "{role:?}");
        }
    }

    #[test]
    fn each_state_of_what_is_to_run_and_of_what_is_to_be_stopped() {
        // State, as wanted of one that is to run, of one that is to be stopped.
        let table = [
            (ServiceState::Healthy, true, false),
            (ServiceState::Starting, false, false),
            (ServiceState::Unhealthy { detail: detail() }, false, false),
            (ServiceState::Stopped, false, true),
            (ServiceState::Missing, false, true),
            (ServiceState::Unknown { detail: detail() }, false, false),
        ];
        for (state, runs, is_stopped) in table {
            assert_eq!(SERVES.is_met(RunsOn::Holder, &state), runs, "{state:?}");
            assert_eq!(SERVES.is_met(RunsOn::Replica, &state), is_stopped, "{state:?}");
            assert_eq!(FOLLOWS.is_met(RunsOn::Replica, &state), runs, "{state:?}");
            assert_eq!(FOLLOWS.is_met(RunsOn::Holder, &state), is_stopped, "{state:?}");
            assert_eq!(CLOSED.is_met(RunsOn::Holder, &state), is_stopped, "{state:?}");
            assert!(CLOSED.is_met(RunsOn::Replica, &state), "nobody wants anything of it: {state:?}");
        }
    }

    #[test]
    fn one_service_that_is_not_as_wanted_or_was_not_seen_is_enough() {
        let services =
            || [("web", RunsOn::Holder), ("jobs", RunsOn::Holder), ("read", RunsOn::Replica)].into_iter();
        let seen = |web, jobs, read| {
            [("read", read), ("web", web), ("jobs", jobs)].map(|(name, state)| (name.to_owned(), state))
        };
        let healthy = || ServiceState::Healthy;
        let so = seen(healthy(), healthy(), ServiceState::Stopped);
        assert!(SERVES.is_met_by(&so, services()));
        assert!(!FOLLOWS.is_met_by(&so, services()));
        assert!(!SERVES.is_met_by(&so[1..], services()), "one was not seen");
        assert!(!SERVES.is_met_by(&[], services()));
        let one_died = seen(healthy(), ServiceState::Stopped, ServiceState::Stopped);
        assert!(!SERVES.is_met_by(&one_died, services()));
        let one_was_started = seen(healthy(), healthy(), ServiceState::Starting);
        assert!(!SERVES.is_met_by(&one_was_started, services()));
    }

    #[test]
    fn only_a_look_that_counts_says_whether_it_is_still_so() {
        let since = Instant::now();
        let ms = Duration::from_millis;
        let services = || [("web", RunsOn::Holder)].into_iter();
        let look = |began, state| ServicesLook::new(began, vec![("web".to_owned(), state)]);
        let is_so = |look: Option<&ServicesLook>, now| SERVES.is_still_met(look, services(), since, now);
        let (after, later) = (since + ms(1), since + AGAIN);
        assert!(is_so(Some(&look(after, ServiceState::Healthy)), after));
        assert!(!is_so(Some(&look(after, ServiceState::Stopped)), after), "it stopped since");
        let older = since.checked_sub(ms(1)).unwrap();
        assert!(is_so(Some(&look(older, ServiceState::Stopped)), after), "that was before it was started");
        assert!(is_so(Some(&look(since, ServiceState::Stopped)), after), "that may have been before");
        let before_later = later.checked_sub(ms(1)).unwrap();
        assert!(is_so(Some(&look(before_later, ServiceState::Healthy)), later), "the senses look on");
        assert!(
            !is_so(Some(&look(older, ServiceState::Healthy)), later),
            "an old look does not settle it for ever"
        );
        let stale = look(after, ServiceState::Healthy);
        assert!(!is_so(Some(&stale), after + AGAIN * 10), "the senses have seen nothing for a moment");
        assert!(is_so(None, before_later) && !is_so(None, later), "without any look it is asked again soon");
    }
}
