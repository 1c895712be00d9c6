//! What an inspected container says of itself: who it is, whether it runs, whether somebody else would start it.

use std::collections::BTreeSet;

use baton_runbooks::observe::ServiceState;
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, HealthStatusEnum,
    RestartPolicyNameEnum,
};

use super::{DEPENDS_ON, RestartObstacle, SERVICE};

pub(super) fn id_of(container: &ContainerInspectResponse) -> String {
    container.id.clone().unwrap_or_default()
}

pub(super) fn label<'a>(container: &'a ContainerInspectResponse, name: &str) -> Option<&'a str> {
    container.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn service_of(container: &ContainerInspectResponse) -> String {
    label(container, SERVICE).unwrap_or_default().to_owned()
}

/// `db:service_healthy:false,cache:service_started:true`
pub(super) fn depends_on(container: &ContainerInspectResponse) -> Vec<String> {
    let list = label(container, DEPENDS_ON).unwrap_or_default();
    list.split(',')
        .filter_map(|part| part.split(':').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Names of a project's services that others need to have ended with success.
pub(super) fn one_offs(containers: &[ContainerInspectResponse]) -> BTreeSet<String> {
    let lists = containers.iter().filter_map(|one| label(one, DEPENDS_ON));
    lists
        .flat_map(|list| list.split(','))
        .filter_map(|part| part.split_once(":service_completed_successfully"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

pub(super) fn has_succeeded(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().is_some_and(|state| {
        state.status == Some(ContainerStateStatusEnum::EXITED) && state.exit_code == Some(0)
    })
}

pub(super) fn obstacle(container: &ContainerInspectResponse) -> Option<RestartObstacle> {
    let policy = container.host_config.as_ref()?.restart_policy.as_ref()?.name?;
    match policy {
        RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO => None,
        RestartPolicyNameEnum::ALWAYS
        | RestartPolicyNameEnum::UNLESS_STOPPED
        | RestartPolicyNameEnum::ON_FAILURE => Some(RestartObstacle {
            container: container.name.clone().unwrap_or_default().trim_start_matches('/').to_owned(),
            policy: policy.to_string(),
        }),
    }
}

pub(super) fn state_of(container: &ContainerInspectResponse) -> ServiceState {
    let Some(state) = &container.state else {
        return ServiceState::Unknown { detail: "the engine names no state".into() };
    };
    if state.restarting == Some(true) {
        return ServiceState::Starting;
    }
    if state.running != Some(true) {
        return ServiceState::Stopped;
    }
    if state.paused == Some(true) {
        return ServiceState::Unhealthy { detail: "paused".into() };
    }
    health_of(state)
}

pub(super) fn health_of(state: &ContainerState) -> ServiceState {
    let Some(health) = &state.health else { return ServiceState::Healthy };
    match health.status {
        None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE | HealthStatusEnum::HEALTHY) => {
            ServiceState::Healthy
        }
        Some(HealthStatusEnum::STARTING) => ServiceState::Starting,
        Some(HealthStatusEnum::UNHEALTHY) => {
            let last = health.log.as_ref().and_then(|log| log.last()).and_then(|check| check.output.clone());
            ServiceState::Unhealthy { detail: last.unwrap_or_default().trim().chars().take(500).collect() }
        }
    }
}

/// What is said of a service of which one container runs and another does not. It is not stopped: whoever stops it has to stop
/// what runs.
const IN_PART: &str = "some of its containers run, others are stopped";

/// The state that says most about what does not work; nothing at all is missing.
pub(super) fn worst(states: impl Iterator<Item = ServiceState>) -> ServiceState {
    let states: Vec<ServiceState> = states.collect();
    let runs = |state: &ServiceState| match state {
        ServiceState::Healthy | ServiceState::Starting | ServiceState::Unhealthy { .. } => true,
        ServiceState::Stopped | ServiceState::Missing | ServiceState::Unknown { .. } => false,
    };
    let in_part = states.contains(&ServiceState::Stopped) && states.iter().any(runs);
    let rank = |state: &ServiceState| match state {
        ServiceState::Missing => 0,
        ServiceState::Healthy => 1,
        ServiceState::Starting => 2,
        ServiceState::Stopped => 3,
        ServiceState::Unhealthy { .. } => 4,
        ServiceState::Unknown { .. } => 5,
    };
    match states.into_iter().max_by_key(rank).unwrap_or(ServiceState::Missing) {
        ServiceState::Stopped if in_part => ServiceState::Unhealthy { detail: IN_PART.to_owned() },
        worst @ (ServiceState::Missing
        | ServiceState::Healthy
        | ServiceState::Starting
        | ServiceState::Stopped
        | ServiceState::Unhealthy { .. }
        | ServiceState::Unknown { .. }) => worst,
    }
}

/// Something of the service has stopped by itself, if it was started: what has stopped does not get healthy by waiting.
pub(super) fn has_stopped(state: &ServiceState) -> bool {
    match state {
        ServiceState::Stopped => true,
        ServiceState::Unhealthy { detail } => detail == IN_PART,
        ServiceState::Missing
        | ServiceState::Healthy
        | ServiceState::Starting
        | ServiceState::Unknown { .. } => false,
    }
}

/// The engine says of something of the service that it is unhealthy. A service that only runs in part is not called so.
pub(crate) fn is_called_unhealthy(state: &ServiceState) -> bool {
    match state {
        ServiceState::Unhealthy { detail } => detail != IN_PART,
        ServiceState::Stopped
        | ServiceState::Missing
        | ServiceState::Healthy
        | ServiceState::Starting
        | ServiceState::Unknown { .. } => false,
    }
}
