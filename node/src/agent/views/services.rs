//! How the holder's role-bound services are, by its own report. Pure.

use std::collections::BTreeMap;

use baton_runbooks::observe::ServiceState;

use crate::api::types::{Role, ServiceRow};
use crate::config::{RunsOn, Service};

/// Every service that is to run on the holder, in the order of the configuration: one of which the report says nothing is
/// not left out. `states`: what the node reports now. `None`: the node is not the holder, or reports nothing.
pub(super) fn rows(
    role: Role,
    services: &[Service],
    states: Option<&BTreeMap<String, ServiceState>>,
) -> Option<Vec<ServiceRow>> {
    let states = states.filter(|_| role == Role::Holder)?;
    let bound = services.iter().filter(|service| service.runs_on == RunsOn::Holder);
    let row = |service: &Service| ServiceRow {
        name: service.name.clone(),
        state: states.get(&service.name).map_or(ServiceRow::NOT_SEEN, word).to_owned(),
    };
    Some(bound.map(row).collect())
}

const fn word(state: &ServiceState) -> &'static str {
    match state {
        ServiceState::Healthy => ServiceRow::HEALTHY,
        ServiceState::Starting => ServiceRow::STARTING,
        ServiceState::Unhealthy { .. } => "unhealthy",
        ServiceState::Stopped => "stopped",
        ServiceState::Missing => "missing",
        ServiceState::Unknown { .. } => ServiceRow::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Workload;

    fn service(name: &str, runs_on: RunsOn) -> Service {
        Service {
            name: name.to_owned(),
            workload: Workload::Container(name.to_owned()),
            runs_on,
            after: Vec::new(),
            needs_database: true,
            ports: Vec::new(),
            check: None,
        }
    }

    #[test]
    fn the_holder_s_services_have_their_states_and_one_that_was_not_seen_is_not_healthy() {
        let services = [
            service("web", RunsOn::Holder),
            service("read", RunsOn::Replica),
            service("jobs", RunsOn::Holder),
            service("mail", RunsOn::Holder),
        ];
        let detail = || "no answer".to_owned();
        let table = [
            (ServiceState::Healthy, "healthy", true),
            (ServiceState::Starting, "starting", false),
            (ServiceState::Unhealthy { detail: detail() }, "unhealthy", false),
            (ServiceState::Stopped, "stopped", false),
            (ServiceState::Missing, "missing", false),
            (ServiceState::Unknown { detail: detail() }, "unknown", false),
        ];
        for (state, word, is_healthy) in table {
            let seen = [("web", ServiceState::Healthy), ("jobs", state), ("read", ServiceState::Stopped)];
            let states: BTreeMap<String, ServiceState> =
                seen.into_iter().map(|(name, state)| (name.to_owned(), state)).collect();
            let rows = rows(Role::Holder, &services, Some(&states)).expect("the holder says it");
            let said: Vec<(&str, &str, bool)> =
                rows.iter().map(|row| (row.name.as_str(), row.state.as_str(), row.is_healthy())).collect();
            let wanted = [("web", "healthy", true), ("jobs", word, is_healthy), ("mail", "not-seen", false)];
            assert_eq!(said, wanted);
            let seen: Vec<bool> = rows.iter().map(ServiceRow::is_seen).collect();
            assert_eq!(seen, [true, word != "unknown", false], "{word}");
        }
    }

    #[test]
    fn who_is_not_the_holder_or_not_heard_says_nothing_and_no_service_is_an_answer() {
        let (services, states) = ([service("web", RunsOn::Holder)], BTreeMap::new());
        for role in [Role::Replica, Role::Closed, Role::Witness, Role::Unknown] {
            assert_eq!(rows(role, &services, Some(&states)), None, "{role:?}");
        }
        assert_eq!(rows(Role::Holder, &services, None), None);
        assert_eq!(rows(Role::Holder, &[], Some(&states)), Some(Vec::new()));
    }
}
