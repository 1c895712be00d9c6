//! Role-bound services of the configuration, as the container hands see them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use baton_runbooks::observe::ServiceState;

use crate::chain::chain;
use crate::config::{Config, RunsOn, Workload};
use crate::hands::containers::mains::Main;
use crate::hands::containers::{Containers, RestartObstacle, Service, Target};

/// One look at the engine.
const LOOK: Duration = Duration::from_secs(2);
/// A container that is asked to stop gets this long before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// The stop itself, grace included.
const STOP_DEADLINE: Duration = Duration::from_secs(6);

/// One service with its role.
#[derive(Debug)]
struct Bound {
    runs_on: RunsOn,
    needs_database: bool,
    service: Service,
}

/// The services of this node.
#[derive(Debug)]
pub(crate) struct Services {
    containers: Containers,
    bound: Vec<Bound>,
    /// What the engine would start by itself, as last seen.
    restarting: Mutex<Vec<RestartObstacle>>,
}

impl Services {
    /// The services of a data node; `None` without an engine or without services. A restart policy that would start them
    /// behind the agent's back is taken away here.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(docker) =
            config.docker.as_ref().filter(|_| config.is_data_node() && !config.services.is_empty())
        else {
            return Ok(None);
        };
        let bound = config.services.iter().map(|service| Bound {
            runs_on: service.runs_on,
            needs_database: service.needs_database,
            service: Service {
                name: service.name.clone(),
                target: match &service.workload {
                    Workload::Container(name) => Target::Container(name.clone()),
                    Workload::ComposeProject(name) => Target::ComposeProject(name.clone()),
                },
                after: service.after.clone(),
            },
        });
        let services = Self {
            containers: Containers::new(docker.socket.clone()),
            bound: bound.collect(),
            restarting: Mutex::default(),
        };
        for bound in &services.bound {
            if let Err(error) = services.containers.ensure_restart_no(&bound.service.target, LOOK).await {
                tracing::warn!(
                    service = bound.service.name,
                    error = chain(&error),
                    "restart policy not looked at"
                );
            }
        }
        Ok(Some(services))
    }

    /// Name and state of every service.
    pub(super) async fn states(&self) -> Vec<(String, ServiceState)> {
        let looks = self.bound.iter().map(|bound| async {
            (bound.service.name.clone(), self.containers.state(&bound.service.target, LOOK).await)
        });
        futures_util::future::join_all(looks).await
    }

    /// Name and role of every service.
    pub(super) fn roles(&self) -> impl Iterator<Item = (&str, RunsOn)> {
        self.bound.iter().map(|bound| (bound.service.name.as_str(), bound.runs_on))
    }

    /// Looks at the restart policies: whoever makes a container anew sets its policy anew. What the engine does not tell
    /// stays as it was last seen.
    pub(super) async fn look_at_policies(&self) {
        let looks =
            self.bound.iter().map(|bound| self.containers.restart_obstacles(&bound.service.target, LOOK));
        match futures_util::future::try_join_all(looks).await {
            Ok(found) => {
                let found = found.into_iter().flatten().collect();
                *self.restarting.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            Err(error) => tracing::debug!(error = chain(&error), "restart policies not looked at"),
        }
    }

    /// Containers that the engine would start by itself, as last seen.
    pub(super) fn restarting(&self) -> Vec<RestartObstacle> {
        self.restarting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the holder's services that need (or do not need) the database, in dependency order, and waits until they
    /// are healthy. Returns their names.
    pub(super) async fn start_holder(
        &self,
        needs_database: bool,
        deadline: Duration,
    ) -> anyhow::Result<Vec<String>> {
        let chosen =
            |bound: &&Bound| bound.runs_on == RunsOn::Holder && bound.needs_database == needs_database;
        self.start_chosen(chosen, deadline).await
    }

    /// Starts all services of a role.
    pub(super) async fn start(&self, runs_on: RunsOn, deadline: Duration) -> anyhow::Result<()> {
        self.start_chosen(|bound| bound.runs_on == runs_on, deadline).await.map(|_| ())
    }

    async fn start_chosen(
        &self,
        chosen: impl Fn(&&Bound) -> bool,
        deadline: Duration,
    ) -> anyhow::Result<Vec<String>> {
        let mut services: Vec<Service> =
            self.bound.iter().filter(chosen).map(|bound| bound.service.clone()).collect();
        let names: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
        // What a service waits for outside this choice is not waited for here: it was started by an earlier step.
        for service in &mut services {
            service.after.retain(|other| names.contains(other));
        }
        let ends = self.containers.start_services(&services, deadline).await;
        let failed: Vec<String> = ends
            .iter()
            .filter_map(|(name, end)| end.as_ref().err().map(|error| format!("{name}: {}", chain(error))))
            .collect();
        if failed.is_empty() { Ok(names) } else { bail!("{}", failed.join("; ")) }
    }

    /// One service; `None`: the first one that the holder runs.
    fn named(&self, name: Option<&str>) -> anyhow::Result<&Service> {
        let is_it =
            |bound: &&Bound| name.map_or(bound.runs_on == RunsOn::Holder, |name| bound.service.name == name);
        let found = self.bound.iter().find(is_it).context("there is no such role-bound service")?;
        Ok(&found.service)
    }

    /// Kills what runs of one service, as its own crash would; `None`: the first one that the holder runs. Returns its
    /// name, and how many containers were killed.
    pub(super) async fn kill(&self, name: Option<&str>) -> anyhow::Result<(String, usize)> {
        let found = self.named(name)?;
        Ok((found.name.clone(), self.containers.kill(&found.target, STOP_DEADLINE).await?))
    }

    /// Main processes of one service's containers that run and have a health check, and its name.
    pub(super) async fn mains(&self, name: Option<&str>) -> anyhow::Result<(String, Vec<Main>)> {
        let found = self.named(name)?;
        Ok((found.name.clone(), self.containers.checked_mains(&found.target, LOOK).await?))
    }

    /// Name and state of one service.
    pub(super) async fn state(&self, name: Option<&str>) -> anyhow::Result<(String, ServiceState)> {
        let found = self.named(name)?;
        Ok((found.name.clone(), self.containers.state(&found.target, LOOK).await))
    }

    /// Stops what runs of a role, dependents first.
    pub(super) async fn stop(&self, runs_on: RunsOn) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for bound in self.bound.iter().rev().filter(|bound| bound.runs_on == runs_on) {
            match self.containers.state(&bound.service.target, LOOK).await {
                ServiceState::Stopped | ServiceState::Missing => {}
                // Unknown is never stopped.
                ServiceState::Healthy
                | ServiceState::Starting
                | ServiceState::Unhealthy { .. }
                | ServiceState::Unknown { .. } => {
                    if let Err(error) =
                        self.containers.stop(&bound.service.target, GRACE, STOP_DEADLINE).await
                    {
                        failed.push(format!("{}: {}", bound.service.name, chain(&error)));
                    }
                }
            }
        }
        if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_does_not_answer_hides_nothing_that_was_seen() {
        let service = Service {
            name: "web".to_owned(),
            target: Target::Container("web".to_owned()),
            after: Vec::new(),
        };
        let seen = vec![RestartObstacle { container: "web".to_owned(), policy: "always".to_owned() }];
        let services = Services {
            containers: Containers::new("/nonexistent/docker.sock"),
            bound: vec![Bound { runs_on: RunsOn::Holder, needs_database: true, service }],
            restarting: Mutex::new(seen.clone()),
        };
        services.look_at_policies().await;
        assert_eq!(services.restarting(), seen);
    }
}
