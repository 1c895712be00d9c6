//! The holder's role-bound services: which one is lost here, after its own restarts.
//!
//! A service is lost only where it has been healthy: one that never came up in this epoch may be broken everywhere, and
//! passing the baton on would not mend it. It is counted only while this node serves, since a closed node stops its
//! services itself.

use std::collections::BTreeMap;

use crate::model::{Epoch, Mono};
use crate::observe::ServiceState;

/// What is known of one service in the present epoch.
#[derive(Debug, Default)]
struct Seen {
    was_healthy: bool,
    lost: Option<(Mono, &'static str)>,
}

/// Watches the services of the holder.
#[derive(Debug, Default)]
pub struct ServiceWatch {
    epoch: Epoch,
    seen: BTreeMap<String, Seen>,
}

impl ServiceWatch {
    /// Takes what was seen of the service `name`. `serving`: this node serves `epoch`, and keeps the service up.
    pub fn observe(&mut self, name: &str, state: &ServiceState, epoch: Epoch, serving: bool, now: Mono) {
        if self.epoch != epoch {
            *self = Self { epoch, seen: BTreeMap::new() };
        }
        let seen = self.seen.entry(name.to_owned()).or_default();
        if !serving {
            seen.lost = None;
            return;
        }
        let word = match state {
            ServiceState::Healthy => {
                *seen = Seen { was_healthy: true, lost: None };
                return;
            }
            // A restart that has not succeeded yet, or an engine that says nothing, is no news in either direction.
            ServiceState::Starting | ServiceState::Unknown { .. } => return,
            ServiceState::Unhealthy { .. } => "unhealthy",
            ServiceState::Stopped => "stopped",
            ServiceState::Missing => "missing",
        };
        let since = seen.lost.map_or(now, |(since, _)| since);
        seen.lost = Some((since, word));
    }

    /// The first service that has been lost for `patience_ms` or longer in `epoch`, and its state.
    #[must_use]
    pub fn lost(&self, epoch: Epoch, now: Mono, patience_ms: u64) -> Option<(&str, &'static str)> {
        if self.epoch != epoch {
            return None;
        }
        self.seen.iter().filter(|(_, seen)| seen.was_healthy).find_map(|(name, seen)| {
            let (since, word) = seen.lost?;
            (now.since_ms(since) >= patience_ms).then_some((name.as_str(), word))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(3);

    fn watch(states: &[(u64, ServiceState, bool)]) -> ServiceWatch {
        let mut watch = ServiceWatch::default();
        for (at, state, serving) in states {
            watch.observe("web", state, EPOCH, *serving, Mono(*at));
        }
        watch
    }

    #[test]
    fn a_service_that_was_healthy_and_is_gone_for_long_is_lost() {
        let watch = watch(&[(0, ServiceState::Healthy, true), (1_000, ServiceState::Stopped, true)]);
        assert_eq!(watch.lost(EPOCH, Mono(10_999), 10_000), None);
        assert_eq!(watch.lost(EPOCH, Mono(11_000), 10_000), Some(("web", "stopped")));
        assert_eq!(watch.lost(Epoch(4), Mono(11_000), 10_000), None, "another epoch");
    }

    #[test]
    fn restarts_that_do_not_succeed_do_not_begin_the_count_anew() {
        let watch = watch(&[
            (0, ServiceState::Healthy, true),
            (1_000, ServiceState::Stopped, true),
            (5_000, ServiceState::Starting, true),
            (9_000, ServiceState::Unhealthy { detail: String::new() }, true),
        ]);
        assert_eq!(watch.lost(EPOCH, Mono(11_000), 10_000), Some(("web", "unhealthy")));
    }

    #[test]
    fn what_never_was_healthy_what_recovers_and_what_the_engine_hides_is_not_lost() {
        let never = watch(&[(0, ServiceState::Stopped, true)]);
        assert_eq!(never.lost(EPOCH, Mono(90_000), 10_000), None);
        let back = watch(&[
            (0, ServiceState::Healthy, true),
            (1_000, ServiceState::Stopped, true),
            (9_000, ServiceState::Healthy, true),
        ]);
        assert_eq!(back.lost(EPOCH, Mono(90_000), 10_000), None);
        let hidden = watch(&[
            (0, ServiceState::Healthy, true),
            (1_000, ServiceState::Unknown { detail: String::new() }, true),
        ]);
        assert_eq!(hidden.lost(EPOCH, Mono(90_000), 10_000), None);
    }

    #[test]
    fn a_node_that_was_closed_meanwhile_counts_from_its_opening() {
        let watch = watch(&[
            (0, ServiceState::Healthy, true),
            (1_000, ServiceState::Stopped, true),
            (2_000, ServiceState::Stopped, false),
            (30_000, ServiceState::Stopped, true),
        ]);
        assert_eq!(watch.lost(EPOCH, Mono(31_000), 10_000), None);
        assert_eq!(watch.lost(EPOCH, Mono(40_000), 10_000), Some(("web", "stopped")));
    }
}
