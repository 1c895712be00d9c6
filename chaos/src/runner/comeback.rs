//! That services are healthy again, on whichever node holds the baton by then: the one whose container was killed, and all of
//! them at the end.
//!
//! The node itself has nothing to heal: whoever supervises a service starts it again, and that is what such a fault asks for.
//! An engine looks at a container's health when it is time for that, every 30 s by default: one that was just started is well
//! long before anybody knows it.

use std::time::{Duration, Instant};

use baton_node::api::types::{ServiceRow, Status};

use super::agents::services;
use super::record::of_status;
use super::steps::{LOOK, Stage};
use crate::experiment::{Fault, Level, Method, Probe, Tolerance};

/// Agents look at services once a second, and wait for the engine's answer: what is said sooner after the kill may have been
/// seen before it, milliseconds.
const SEEN_AFTER_MS: u64 = 3_000;
/// Why nothing is known of any service.
const NOBODY_SAYS: &str = "nobody says how the services of the holder are, or nobody holds the baton";

/// When a service that was killed counts as back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comeback {
    /// When it is healthy.
    Healthy,
    /// For a drill that ends before its time: when it is healthy, or was started and is not healthy soon. Whether it gets
    /// healthy is not for that drill to say. Once its fault's own time is over, only a healthy one is back.
    Started,
}

impl Stage {
    /// Waits until the service that a fault has killed is back: for the fault's own time, and for `within` longer. One that was
    /// started is not waited for longer than `within` if that is enough for `comeback`. What was seen then; `None`: the fault
    /// kills no service, or was not injected.
    ///
    /// # Errors
    /// It is not back in time, and what was seen instead.
    pub(super) async fn service_back(
        &self,
        place: usize,
        within: Duration,
        comeback: Comeback,
    ) -> Result<Option<String>, String> {
        let fault = &self.faults[place];
        let (Fault::ContainerKill, Some(injected_ms)) = (fault.fault, fault.injected_ms) else {
            return Ok(None);
        };
        let method = usize::try_from(fault.method).ok().and_then(|index| self.experiment.method.get(index));
        let named = method.and_then(|method| method.service.as_deref());
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let soon_ms = self.now_ms().saturating_add(within_ms);
        let own_ms = injected_ms.saturating_add(fault.duration_ms).saturating_add(within_ms);
        let until_ms = soon_ms.max(own_ms);
        self.shared.doing("waiting until the service that was killed is healthy again");
        loop {
            let asked_ms = self.now_ms();
            let may_start = comeback == Comeback::Started && (soon_ms..own_ms).contains(&asked_ms);
            let seen = match self.agents.status().await {
                Ok(status) if may_start => started(&status, named),
                Ok(status) => healthy(&status, named),
                Err(error) => Err(error.to_string()),
            };
            match seen {
                Ok(seen) if asked_ms >= injected_ms + SEEN_AFTER_MS => return Ok(Some(seen)),
                Err(why) if asked_ms >= until_ms => return Err(why),
                Ok(_) | Err(_) => self.pass(LOOK).await,
            }
        }
    }

    /// Waits until the services of the holder are as the file wants them at the end, at most `until` then. It measures nothing:
    /// what is seen when the drill is over, the probe says. A drill that breaks nothing waits for nothing.
    pub(super) async fn services_well(&mut self, until: Instant) {
        let wanted = self.experiment.wanted_after(Probe::UnhealthyServices);
        if wanted.is_empty() || self.experiment.level <= Level::L1 {
            return;
        }
        self.shared.doing("waiting until the services of the holder are healthy");
        let began_ms = self.now_ms();
        let mut has_waited = false;
        loop {
            let seen = match self.agents.status().await {
                Ok(status) => well(&status, &wanted),
                Err(error) => Err(error.to_string()),
            };
            match seen {
                Ok(()) => {
                    if has_waited {
                        let took_ms = self.now_ms().saturating_sub(began_ms);
                        self.note(
                            "runner",
                            format!("services were waited for, and are well after {took_ms} ms"),
                        );
                    }
                    return;
                }
                Err(why) if Instant::now() >= until => {
                    self.note("runner", format!("services were waited for, and are not well in time: {why}"));
                    return;
                }
                Err(_) => {
                    has_waited = true;
                    self.pass(LOOK).await;
                }
            }
        }
    }
}

/// What the method kills is healthy, as the agents say; a method that kills no service has nothing that could be missing.
pub(super) fn is_back(method: &Method, status: &Status) -> bool {
    method.fault != Fault::ContainerKill || healthy(status, method.service.as_deref()).is_ok()
}

/// The holder's services are as the file wants them.
///
/// # Errors
/// They are not, or that is not known, and how they are instead.
fn well(status: &Status, wanted: &[Tolerance]) -> Result<(), String> {
    let value = of_status(Probe::UnhealthyServices, status);
    if value.is_some_and(|value| wanted.iter().all(|tolerance| tolerance.admits(value))) {
        return Ok(());
    }
    let services = services(status).ok_or(NOBODY_SAYS)?;
    let others = services.iter().filter(|service| !service.is_healthy());
    let others: Vec<String> =
        others.map(|service| format!("{} is {}", service.name, service.state)).collect();
    Err(if others.is_empty() { "all of them are healthy".to_owned() } else { others.join(", ") })
}

/// How the holder's service is.
///
/// # Errors
/// It is not healthy, or nobody says that it is.
fn healthy(status: &Status, named: Option<&str>) -> Result<String, String> {
    let service = the_killed(status, named)?;
    if service.is_healthy() {
        Ok(format!("{} is healthy", service.name))
    } else {
        Err(format!("{} is {}, not healthy again", service.name, service.state))
    }
}

/// The same, if it is enough that it was started.
///
/// # Errors
/// It was not, or nobody says that it was.
fn started(status: &Status, named: Option<&str>) -> Result<String, String> {
    let service = the_killed(status, named)?;
    if service.state == ServiceRow::STARTING {
        return Ok(format!("{} was started, and was not waited for until it is healthy", service.name));
    }
    healthy(status, named)
}

/// The holder's service of that name; `None`: its first one, which is the one that a node kills.
///
/// # Errors
/// There is none, or nobody says.
fn the_killed<'a>(status: &'a Status, named: Option<&str>) -> Result<&'a ServiceRow, String> {
    let services = services(status).ok_or(NOBODY_SAYS)?;
    let found = match named {
        Some(name) => services.iter().find(|service| service.name == name),
        None => services.first(),
    };
    found.ok_or_else(|| match named {
        Some(name) => format!("the holder has no service {name}"),
        None => "the holder has no service".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::shipped;
    use crate::runner::sample::{status, with_services};

    #[test]
    fn only_a_service_that_the_holder_calls_healthy_is_back() {
        let says = |states: &[&str], named| healthy(&with_services(states), named);
        assert_eq!(says(&["healthy", "stopped"], None), Ok("web0 is healthy".to_owned()));
        assert_eq!(says(&["stopped", "healthy"], Some("web1")), Ok("web1 is healthy".to_owned()));
        for state in ["starting", "stopped", "unhealthy", "missing", "unknown", "not-seen"] {
            let wanted = Err(format!("web0 is {state}, not healthy again"));
            assert_eq!(says(&[state, "healthy"], None), wanted);
        }
        assert_eq!(says(&["healthy"], Some("mail")), Err("the holder has no service mail".to_owned()));
        assert!(says(&[], None).is_err());
        assert!(healthy(&status(), None).is_err(), "nobody says it");
        let vacant = Status { holder: None, ..with_services(&["healthy"]) };
        assert!(healthy(&vacant, None).is_err());
    }

    #[test]
    fn services_are_well_when_the_file_says_so() {
        let says = |states: &[&str], at_most| {
            well(&with_services(states), &[Tolerance { at_least: None, at_most: Some(at_most) }])
        };
        assert_eq!(says(&[], 0.0), Ok(()));
        assert_eq!(says(&["healthy", "healthy"], 0.0), Ok(()));
        assert_eq!(says(&["healthy", "starting"], 0.0), Err("web1 is starting".to_owned()));
        assert_eq!(says(&["healthy", "starting"], 1.0), Ok(()));
        assert_eq!(says(&["stopped", "unknown"], 0.0), Err("web0 is stopped, web1 is unknown".to_owned()));
        assert_eq!(says(&["unknown"], 1.0), Err("web0 is unknown".to_owned()), "nobody knows");
        assert!(well(&status(), &[Tolerance::default()]).is_err(), "nobody says it");
    }

    #[test]
    fn a_fault_that_kills_no_service_waits_for_none() {
        let method = |id: &str| shipped::named(id).unwrap().experiment.method.swap_remove(0);
        assert!(is_back(&method("mysqld-killed"), &with_services(&["stopped"])));
        assert!(!is_back(&method("container-killed"), &with_services(&["stopped"])));
        assert!(is_back(&method("container-killed"), &with_services(&["healthy"])));
    }
}
