//! The services' share: what is bound to a role runs only in that role.

use std::time::Duration;

use baton_runbooks::decide::local::Role;

use super::super::Context;
use super::super::driver::Numbered;
use super::{Settled, Share};
use crate::config::RunsOn;

/// Starting may take as long as the takeover's step allows.
const START_DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct ServicesShare {
    context: Context,
    /// What is bound to a role is as it should be. Each look costs the engine several answers.
    settled: Settled,
}

impl ServicesShare {
    pub(super) const fn new(context: Context) -> Self {
        Self { context, settled: Settled(None) }
    }
}

impl Share for ServicesShare {
    // Waiting until a service is healthy must not delay its end when the role is lost.
    const GIVES_WAY: bool = true;

    async fn make_so(&mut self, wish: &Numbered) {
        let Some(services) = &self.context.hands.services else { return };
        if self.settled.is(wish) {
            return;
        }
        let outcome = match &wish.wish.role {
            Role::Serving { services: false, .. } => services.stop(RunsOn::Holder).await,
            Role::Witness
            | Role::Acquiring { .. }
            | Role::Receiving { .. }
            | Role::Serving { ports: false, .. } => return,
            Role::Closed { follow } => {
                let stopped = services.stop(RunsOn::Holder).await;
                match follow {
                    Some(_) => stopped.and(services.start(RunsOn::Replica, START_DEADLINE).await),
                    None => stopped,
                }
            }
            Role::Serving { ports: true, .. } => {
                let stopped = services.stop(RunsOn::Replica).await;
                stopped.and(services.start(RunsOn::Holder, START_DEADLINE).await)
            }
        };
        match outcome {
            Ok(()) => self.settled.note(wish),
            Err(error) => tracing::warn!("services are not as they should be yet: {error:#}"),
        }
    }
}
