//! Hands on role-bound containers and Compose projects, over the Docker Engine API.
//!
//! What runs was created before, by whoever installed it; the agent only looks, starts, stops and waits. An engine that
//! does not answer makes a state *unknown*, never *stopped*: what may still run must be taken for running.
//!
//! Containers that the agent manages have the restart policy `no`. Any other starts them again behind the agent's
//! back: `always` even after a stop, all of them after a crash of the engine or of the host.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_runbooks::observe::ServiceState;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerInspectResponse, ContainerUpdateBody, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::time::Instant;

mod look;
pub mod mains;
pub mod order;

pub(crate) use look::is_called_unhealthy;
use look::{depends_on, has_stopped, has_succeeded, id_of, obstacle, one_offs, service_of, state_of, worst};

/// What a service consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One container, by its name.
    Container(String),
    /// All containers of a Compose project, by its label.
    ComposeProject(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container(name) => write!(f, "container {name}"),
            Self::ComposeProject(name) => write!(f, "compose project {name}"),
        }
    }
}

/// Why a call on the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The engine did not answer in time. Whether it has done what was asked is not known.
    #[error("{what}: the engine did not answer within {after_ms} ms")]
    Timeout {
        /// The operation.
        what: String,
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// The engine refused or could not be reached.
    #[error("{what}")]
    Engine {
        /// The operation.
        what: String,
        /// The engine's or the client's words.
        #[source]
        source: EngineError,
    },
    /// Nothing of this name exists on this node.
    #[error("{target} does not exist on this node")]
    Missing {
        /// What was looked for.
        target: Target,
    },
    /// It did not become what it should within the deadline.
    #[error("{target} is {state:?} after {after_ms} ms")]
    NotReached {
        /// What was waited for.
        target: Target,
        /// What it is instead.
        state: ServiceState,
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// It was not started, since what it comes after is not healthy, or is not there, or waits for it.
    #[error("not started: it comes after {after}")]
    ComesAfter {
        /// The services that it comes after.
        after: String,
    },
}

/// A role-bound service as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What it consists of.
    pub target: Target,
    /// Names of the services that must be healthy before it starts.
    pub after: Vec<String>,
}

/// A container with another restart policy than `no`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartObstacle {
    /// Name of the container.
    pub container: String,
    /// Its policy, as the engine calls it.
    pub policy: String,
}

/// Hands on the engine of this node.
#[derive(Debug)]
pub struct Containers {
    socket: PathBuf,
    engine: Mutex<Option<Docker>>,
}

/// Deadline of one question to the engine.
const ASK: Duration = Duration::from_secs(2);
/// How often a service is looked at while its health is waited for. A look costs a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The Compose labels.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

impl Containers {
    /// Hands on the engine behind `socket`. Nothing is dialled yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), engine: Mutex::new(None) }
    }

    /// State of a service. Of several containers the worst counts; a container of a Compose project that others need
    /// to have ended with success, and that has, is not counted.
    pub async fn state(&self, target: &Target, deadline: Duration) -> ServiceState {
        let what = format!("look at {target}");
        match self.bounded(&what, deadline, self.inspect_all(target)).await {
            Ok(containers) => {
                let one_offs = one_offs(&containers);
                let counts = |one: &&ContainerInspectResponse| {
                    !(has_succeeded(one) && one_offs.contains(&service_of(one)))
                };
                worst(containers.iter().filter(counts).map(state_of))
            }
            Err(error) => ServiceState::Unknown { detail: chain(&error) },
        }
    }

    /// Containers of a service whose restart policy is not `no`.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub async fn restart_obstacles(
        &self,
        target: &Target,
        deadline: Duration,
    ) -> Result<Vec<RestartObstacle>, ContainerError> {
        let what = format!("look at the restart policy of {target}");
        let containers = self.bounded(&what, deadline, self.inspect_all(target)).await?;
        Ok(containers.iter().filter_map(obstacle).collect())
    }

    /// Sets the restart policy to `no` where it is another. Before anything is killed: killed under `always`, a
    /// container is back at once.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub async fn ensure_restart_no(&self, target: &Target, deadline: Duration) -> Result<(), ContainerError> {
        let what = format!("set the restart policy of {target}");
        self.bounded(&what, deadline, async {
            let engine = self.engine().await?;
            for container in self.inspect_all(target).await?.iter().filter(|one| obstacle(one).is_some()) {
                let name = Some(RestartPolicyNameEnum::NO);
                let restart_policy = Some(RestartPolicy { name, maximum_retry_count: None });
                let update = ContainerUpdateBody { restart_policy, ..Default::default() };
                engine.update_container(&id_of(container), update).await?;
            }
            Ok(())
        })
        .await
    }

    /// Starts what was created before, the containers of a Compose project in the order of their dependencies (whose
    /// conditions are not waited for). What runs already is left alone. Does not wait for health.
    ///
    /// # Errors
    /// [`ContainerError`]; [`ContainerError::Missing`] if nothing was created.
    pub async fn start(&self, target: &Target, deadline: Duration) -> Result<(), ContainerError> {
        let what = format!("start {target}");
        let containers = self.bounded(&what, deadline, self.inspect_all(target)).await?;
        if containers.is_empty() {
            return Err(ContainerError::Missing { target: target.clone() });
        }
        let ordered = order::by_dependencies(&containers, service_of, depends_on);
        self.bounded(&what, deadline, async {
            let engine = self.engine().await?;
            for container in ordered {
                unchanged_is_fine(
                    engine.start_container(&id_of(container), None::<StartContainerOptions>).await,
                )?;
            }
            Ok(())
        })
        .await
    }

    /// Starts services in the order of what they come after, side by side where there is no order, each until it is
    /// healthy. One that fails keeps back those that come after it, and no others. Gives each service's end.
    pub async fn start_services(
        &self,
        services: &[Service],
        deadline: Duration,
    ) -> BTreeMap<String, Result<(), ContainerError>> {
        let end = Instant::now() + deadline;
        let mut ends: BTreeMap<String, Result<(), ContainerError>> = BTreeMap::new();
        let waves =
            order::waves(services, |one| one.name.clone(), |one| one.after.clone()).unwrap_or_default();
        for wave in waves {
            let is_free = |one: &&&Service| one.after.iter().all(|on| matches!(ends.get(on), Some(Ok(()))));
            let starts = wave.iter().filter(is_free).map(|one| async move {
                let left = || end.saturating_duration_since(Instant::now());
                let started = match self.start(&one.target, left()).await {
                    Ok(()) => self.wait_healthy(&one.target, left()).await,
                    Err(error) => Err(error),
                };
                (one.name.clone(), started)
            });
            let started = futures_util::future::join_all(starts).await;
            ends.extend(started);
        }
        for service in services {
            let kept_back = || Err(ContainerError::ComesAfter { after: service.after.join(", ") });
            ends.entry(service.name.clone()).or_insert_with(kept_back);
        }
        ends
    }

    /// Stops a service, in the reverse order of its dependencies; the engine kills what has not ended after `grace`
    /// (whole seconds). Reads back.
    ///
    /// # Errors
    /// [`ContainerError`]; [`ContainerError::NotReached`] if something still runs.
    pub async fn stop(
        &self,
        target: &Target,
        grace: Duration,
        deadline: Duration,
    ) -> Result<(), ContainerError> {
        let what = format!("stop {target}");
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        self.bounded(&what, deadline, async {
            let engine = self.engine().await?;
            let containers = self.inspect_all(target).await?;
            for container in order::by_dependencies(&containers, service_of, depends_on).into_iter().rev() {
                let options = StopContainerOptionsBuilder::new().t(seconds).build();
                unchanged_is_fine(engine.stop_container(&id_of(container), Some(options)).await)?;
            }
            Ok(())
        })
        .await?;
        match self.state(target, ASK).await {
            ServiceState::Stopped | ServiceState::Missing => Ok(()),
            state => {
                Err(ContainerError::NotReached { target: target.clone(), state, after_ms: ms(deadline) })
            }
        }
    }

    /// Kills every container of a service that runs, and reads back that none does. Returns how many ran.
    ///
    /// # Errors
    /// [`ContainerError`]; [`ContainerError::NotReached`] if something still runs, or ran again at once.
    pub async fn kill(&self, target: &Target, deadline: Duration) -> Result<usize, ContainerError> {
        let what = format!("kill {target}");
        let killed = self.bounded(&what, deadline, async {
            let engine = self.engine().await?;
            let mut killed = 0;
            for container in self.inspect_all(target).await? {
                if container.state.as_ref().and_then(|state| state.running) == Some(true) {
                    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
                    unchanged_is_fine(engine.kill_container(&id_of(&container), Some(options)).await)?;
                    killed += 1;
                }
            }
            Ok(killed)
        });
        let killed = killed.await?;
        match self.state(target, ASK).await {
            ServiceState::Stopped | ServiceState::Missing => Ok(killed),
            state => {
                Err(ContainerError::NotReached { target: target.clone(), state, after_ms: ms(deadline) })
            }
        }
    }

    /// Waits until a service is healthy: runs, and its health check, if it has one, passes.
    ///
    /// # Errors
    /// [`ContainerError::NotReached`] with the state at the deadline, or at once when it has stopped by itself;
    /// [`ContainerError::Missing`].
    pub async fn wait_healthy(&self, target: &Target, deadline: Duration) -> Result<(), ContainerError> {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let state = self.state(target, left.min(ASK)).await;
            match state {
                ServiceState::Healthy => return Ok(()),
                ServiceState::Missing => return Err(ContainerError::Missing { target: target.clone() }),
                ServiceState::Starting | ServiceState::Unhealthy { .. } | ServiceState::Unknown { .. }
                    if Instant::now() < end && !has_stopped(&state) => {}
                ServiceState::Stopped
                | ServiceState::Starting
                | ServiceState::Unhealthy { .. }
                | ServiceState::Unknown { .. } => {
                    return Err(ContainerError::NotReached {
                        target: target.clone(),
                        state,
                        after_ms: ms(deadline),
                    });
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn inspect_all(&self, target: &Target) -> Result<Vec<ContainerInspectResponse>, EngineError> {
        let engine = self.engine().await?;
        let names = match target {
            Target::Container(name) => vec![name.clone()],
            Target::ComposeProject(project) => {
                let label = vec![format!("{PROJECT}={project}")];
                let filters = HashMap::from([("label".to_owned(), label)]);
                let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
                let listed = engine.list_containers(Some(options)).await?;
                listed.into_iter().filter_map(|container| container.id).collect()
            }
        };
        let mut containers = Vec::with_capacity(names.len());
        for name in names {
            match engine.inspect_container(&name, None::<InspectContainerOptions>).await {
                Ok(container) => containers.push(container),
                Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(containers)
    }

    /// The client, with the API version that this engine speaks: old and new engines refuse each other's.
    async fn engine(&self) -> Result<Docker, EngineError> {
        let known = self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(engine) = known {
            return Ok(engine);
        }
        let path = self.socket.display().to_string();
        // Deadlines are set around each call; the client's own only has to be longer.
        let engine = Docker::connect_with_unix(&path, 600, API_DEFAULT_VERSION)?.negotiate_version().await?;
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine.clone());
        Ok(engine)
    }

    async fn bounded<T>(
        &self,
        what: &str,
        deadline: Duration,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, ContainerError> {
        let out = match tokio::time::timeout(deadline, work).await {
            Ok(Ok(out)) => return Ok(out),
            Ok(Err(source)) => ContainerError::Engine { what: what.to_owned(), source },
            Err(_) => ContainerError::Timeout { what: what.to_owned(), after_ms: ms(deadline) },
        };
        // The engine may come back as another version, and a connection whose answer was given up is of no use.
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Err(out)
    }
}

/// The engine answers 304 when there was nothing to do.
fn unchanged_is_fine(out: Result<(), EngineError>) -> Result<(), EngineError> {
    match out {
        Err(EngineError::DockerResponseServerError { status_code: 304, .. }) => Ok(()),
        out => out,
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn chain(error: &ContainerError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
