//! That a service whose container was killed is healthy again, on whichever node holds the baton by then.
//!
//! The node itself has nothing to heal: whoever supervises the service starts it again, and that is what the fault asks for.

use std::time::Duration;

use baton_node::api::types::Status;

use super::agents::services;
use super::steps::{LOOK, Stage};
use crate::experiment::{Fault, Method};

/// Agents look at services once a second, and wait for the engine's answer: what is said sooner after the kill may have been
/// seen before it, milliseconds.
const SEEN_AFTER_MS: u64 = 3_000;

impl Stage {
    /// Waits until the service that a fault has killed is healthy again: for the fault's own time, and for `within` longer.
    /// What was seen then; `None`: the fault kills no service, or was not injected.
    ///
    /// # Errors
    /// It is not healthy in time, and what was seen instead.
    pub(super) async fn service_back(
        &self,
        place: usize,
        within: Duration,
    ) -> Result<Option<String>, String> {
        let fault = &self.faults[place];
        let (Fault::ContainerKill, Some(injected_ms)) = (fault.fault, fault.injected_ms) else {
            return Ok(None);
        };
        let method = usize::try_from(fault.method).ok().and_then(|index| self.experiment.method.get(index));
        let named = method.and_then(|method| method.service.as_deref());
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let until_ms = self.now_ms().max(injected_ms + fault.duration_ms).saturating_add(within_ms);
        self.shared.doing("waiting until the service that was killed is healthy again");
        loop {
            let asked_ms = self.now_ms();
            let seen = match self.agents.status().await {
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
}

/// What the method kills is healthy, as the agents say; a method that kills no service has nothing that could be missing.
pub(super) fn is_back(method: &Method, status: &Status) -> bool {
    method.fault != Fault::ContainerKill || healthy(status, method.service.as_deref()).is_ok()
}

/// How the holder's service is; `None`: its first one, which is the one that a node kills.
///
/// # Errors
/// It is not healthy, or nobody says that it is.
fn healthy(status: &Status, named: Option<&str>) -> Result<String, String> {
    let services = services(status)
        .ok_or("nobody says how the services of the holder are, or nobody holds the baton")?;
    let found = match named {
        Some(name) => services.iter().find(|service| service.name == name),
        None => services.first(),
    };
    match (found, named) {
        (Some(service), _) if service.is_healthy() => Ok(format!("{} is healthy", service.name)),
        (Some(service), _) => Err(format!("{} is {}, not healthy again", service.name, service.state)),
        (None, Some(name)) => Err(format!("the holder has no service {name}")),
        (None, None) => Err("the holder has no service".to_owned()),
    }
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
    fn a_fault_that_kills_no_service_waits_for_none() {
        let method = |id: &str| shipped::named(id).unwrap().experiment.method.swap_remove(0);
        assert!(is_back(&method("mysqld-killed"), &with_services(&["stopped"])));
        assert!(!is_back(&method("container-killed"), &with_services(&["stopped"])));
        assert!(is_back(&method("container-killed"), &with_services(&["healthy"])));
    }
}
