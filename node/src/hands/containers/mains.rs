//! The main processes of containers, as processes of this host.
//!
//! The engine's word of a process id is of a moment ago: by now the id may be a stranger's. What is given out here is an
//! identity that was seen to stand in the container's own control group.

use std::io;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, HealthStatusEnum};

use super::look::id_of;
use super::{ContainerError, Containers, Target};
use crate::hands::server::{self, ServerId};

/// The main process of a container that runs and has a health check.
#[derive(Debug)]
pub struct Main {
    /// Name of the container.
    pub container: String,
    /// The process.
    ///
    /// # Errors
    /// It has ended, or is not to be seen from here.
    pub process: io::Result<ServerId>,
}

impl Containers {
    /// Main processes of those containers of a service that run and have a health check.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub async fn checked_mains(
        &self,
        target: &Target,
        deadline: Duration,
    ) -> Result<Vec<Main>, ContainerError> {
        let what = format!("look for the main process of {target}");
        let containers = self.bounded(&what, deadline, self.inspect_all(target)).await?;
        Ok(containers.iter().filter_map(main_of).collect())
    }
}

fn main_of(container: &ContainerInspectResponse) -> Option<Main> {
    let state = container.state.as_ref().filter(|state| state.running == Some(true))?;
    let health = state.health.as_ref()?.status?;
    if matches!(health, HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) {
        return None;
    }
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)?;
    let name = container.name.clone().unwrap_or_default().trim_start_matches('/').to_owned();
    Some(Main { container: name, process: process(pid, &id_of(container)) })
}

/// 1. The identity of whoever has the id now.
/// 2. That one stands in the container's control group, which no other process does.
/// 3. It is still the same, so that what was seen in 2 was seen of the identity of 1.
fn process(pid: i32, container: &str) -> io::Result<ServerId> {
    let id = server::of_pid(pid)?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    if !stands_in(&groups, container) {
        let why = format!("process {pid} does not stand in the control group of container {container}");
        return Err(io::Error::other(why));
    }
    if server::is_alive(id) { Ok(id) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// `12:pids:/docker/ID`, `0::/system.slice/docker-ID.scope`
fn stands_in(groups: &str, container: &str) -> bool {
    !container.is_empty() && groups.lines().any(|line| line.contains(container))
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, Health};

    use super::*;

    fn container(running: bool, health: Option<HealthStatusEnum>) -> ContainerInspectResponse {
        let health = health.map(|status| Health { status: Some(status), ..Default::default() });
        let pid = Some(i64::from(std::process::id()));
        let state = ContainerState { running: Some(running), health, pid, ..Default::default() };
        let (id, name) = (Some("0123abcd".to_owned()), Some("/web".to_owned()));
        ContainerInspectResponse { id, name, state: Some(state), ..Default::default() }
    }

    #[test]
    fn only_what_runs_and_is_checked_has_a_process_that_counts() {
        let healthy = Some(HealthStatusEnum::HEALTHY);
        for (running, health) in [(false, healthy), (true, None), (true, Some(HealthStatusEnum::NONE))] {
            assert!(main_of(&container(running, health)).is_none(), "{running} {health:?}");
        }
        let main = main_of(&container(true, healthy)).unwrap();
        assert_eq!(main.container, "web");
        assert!(main.process.is_err(), "this process stands in no container of that id");
    }

    #[test]
    fn the_control_group_of_either_version_names_the_container() {
        let id = "4f0c";
        assert!(stands_in("12:pids:/docker/4f0c\n0::/\n", id));
        assert!(stands_in("0::/system.slice/docker-4f0c.scope\n", id));
        assert!(!stands_in("0::/user.slice\n", id));
        assert!(!stands_in("0::/user.slice\n", ""), "an engine that gives no id");
    }
}
