//! Unit tests of the container hands.

use bollard::models::{
    ContainerConfig, ContainerState, Health, HealthStatusEnum, HealthcheckResult, HostConfig,
};

use super::*;

fn container(running: bool, health: Option<HealthStatusEnum>) -> ContainerInspectResponse {
    let log = Some(vec![HealthcheckResult { output: Some("no route\n".into()), ..Default::default() }]);
    let health = health.map(|status| Health { status: Some(status), log, ..Default::default() });
    let state = ContainerState { running: Some(running), health, ..Default::default() };
    ContainerInspectResponse { state: Some(state), ..Default::default() }
}

#[test]
fn states() {
    assert_eq!(state_of(&container(true, None)), ServiceState::Healthy);
    assert_eq!(state_of(&container(true, Some(HealthStatusEnum::NONE))), ServiceState::Healthy);
    assert_eq!(state_of(&container(true, Some(HealthStatusEnum::STARTING))), ServiceState::Starting);
    let sick = state_of(&container(true, Some(HealthStatusEnum::UNHEALTHY)));
    assert_eq!(sick, ServiceState::Unhealthy { detail: "no route".into() });
    assert_eq!(state_of(&container(false, Some(HealthStatusEnum::UNHEALTHY))), ServiceState::Stopped);
    assert!(matches!(state_of(&ContainerInspectResponse::default()), ServiceState::Unknown { .. }));
}

#[test]
fn of_a_project_the_worst_counts() {
    assert_eq!(worst([ServiceState::Stopped, ServiceState::Stopped].into_iter()), ServiceState::Stopped);
    assert_eq!(worst([ServiceState::Starting, ServiceState::Healthy].into_iter()), ServiceState::Starting);
    assert_eq!(worst(std::iter::empty()), ServiceState::Missing);
}

/// Else whoever has to stop it would leave the other half running, on a node on which nothing of it may run.
#[test]
fn a_project_of_which_half_runs_is_not_stopped() {
    let unhealthy = || ServiceState::Unhealthy { detail: "no answer".into() };
    for other in [ServiceState::Healthy, ServiceState::Starting, unhealthy()] {
        for states in [[other.clone(), ServiceState::Stopped], [ServiceState::Stopped, other.clone()]] {
            let state = worst(states.into_iter());
            assert!(matches!(state, ServiceState::Unhealthy { .. }), "{other:?}: {state:?}");
        }
    }
    let half = worst([ServiceState::Healthy, ServiceState::Stopped].into_iter());
    assert!(has_stopped(&half) && has_stopped(&ServiceState::Stopped), "it is not waited for");
    assert!(!has_stopped(&unhealthy()) && !has_stopped(&ServiceState::Starting));
    assert!(!is_called_unhealthy(&half), "no engine says so");
    assert!(is_called_unhealthy(&unhealthy()) && !is_called_unhealthy(&ServiceState::Stopped));
    let half_is_sick = worst([unhealthy(), ServiceState::Stopped].into_iter());
    assert!(is_called_unhealthy(&half_is_sick), "{half_is_sick:?}");
    let unknown = ServiceState::Unknown { detail: "no answer".into() };
    let of_three = [ServiceState::Healthy, ServiceState::Stopped, unknown.clone()];
    assert_eq!(worst(of_three.into_iter()), unknown);
}

#[test]
fn policies_that_restart_are_obstacles() {
    for (policy, expected) in [
        (RestartPolicyNameEnum::ALWAYS, Some("always")),
        (RestartPolicyNameEnum::UNLESS_STOPPED, Some("unless-stopped")),
        (RestartPolicyNameEnum::ON_FAILURE, Some("on-failure")),
        (RestartPolicyNameEnum::NO, None),
        (RestartPolicyNameEnum::EMPTY, None),
    ] {
        let restart_policy = Some(RestartPolicy { name: Some(policy), maximum_retry_count: None });
        let host_config = Some(HostConfig { restart_policy, ..Default::default() });
        let one = ContainerInspectResponse { name: Some("/web".into()), host_config, ..Default::default() };
        let found = obstacle(&one);
        assert_eq!(found.as_ref().map(|found| found.policy.as_str()), expected);
        assert!(found.is_none_or(|found| found.container == "web"));
    }
}

#[test]
fn dependencies_from_compose_labels() {
    let labels = HashMap::from([(
        DEPENDS_ON.to_owned(),
        "db:service_healthy:false,cache:service_started:true".into(),
    )]);
    let config = Some(ContainerConfig { labels: Some(labels), ..Default::default() });
    assert_eq!(depends_on(&ContainerInspectResponse { config, ..Default::default() }), ["db", "cache"]);
    assert!(depends_on(&ContainerInspectResponse::default()).is_empty());
}

#[tokio::test]
async fn no_engine_is_unknown_and_never_stopped() {
    let hands = Containers::new("/nonexistent/docker.sock");
    let web = Target::Container("web".into());
    assert!(matches!(hands.state(&web, ASK).await, ServiceState::Unknown { .. }));
    assert!(hands.stop(&web, Duration::ZERO, ASK).await.is_err());
}

/// An engine that accepts and never answers.
#[tokio::test]
async fn a_silent_engine_is_unknown_within_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let hands = Containers::new(path);
    let web = Target::Container("web".into());
    let state = hands.state(&web, Duration::from_millis(50)).await;
    assert!(matches!(&state, ServiceState::Unknown { detail } if detail.contains("50 ms")), "{state:?}");
    let waited = hands.wait_healthy(&web, Duration::from_millis(100)).await;
    assert!(matches!(waited, Err(ContainerError::NotReached { state: ServiceState::Unknown { .. }, .. })));
}
