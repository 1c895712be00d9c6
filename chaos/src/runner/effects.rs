//! That a fault took effect: what its node has seen, or what the others no longer hear.

use std::time::{Duration, Instant};

use baton_node::api::client::ClientError;
use baton_node::api::drill::{DrillView, FaultKind, FaultPhase, FaultState};
use baton_node::config::NodeId;

use super::steps::{LOOK, Stage};
use crate::experiment::Method;

/// What is seen by another node's silence is seen this much later than what the node itself sees.
const SILENCE_LATER: Duration = Duration::from_secs(2);
/// A node of which nothing was heard for so long is silent; agents report several times a second.
const SILENT_MS: u64 = 700;

impl Stage {
    /// What was seen of a fault after the order to inject it was given.
    ///
    /// # Errors
    /// Nothing in time, and what was seen instead.
    pub(super) async fn effect(
        &self,
        node: &NodeId,
        kind: FaultKind,
        method: &Method,
        order: Result<DrillView, ClientError>,
        injected_ms: u64,
    ) -> Result<String, String> {
        let within = method.verify.within.duration();
        let said = |view: DrillView| view.fault.map(|fault| fault.effect).unwrap_or_default();
        let view = order.map_err(|error| error.to_string())?;
        match kind {
            FaultKind::PowerOff => {
                let seen = self.nobody_hears(node, within + SILENCE_LATER).await?;
                Ok(format!("{}; {seen}", said(view)))
            }
            FaultKind::AgentKill | FaultKind::AgentFreeze => {
                let seen = self.goes_silent(node, kind, within + SILENCE_LATER).await?;
                Ok(format!("{}; {seen}", said(view)))
            }
            FaultKind::ContainerUnhealthy => self.shows(node, within).await,
            FaultKind::MysqldKill
            | FaultKind::MysqldFreeze
            | FaultKind::RedisKill
            | FaultKind::ContainerKill
            | FaultKind::Partition
            | FaultKind::OneWay
            | FaultKind::ReplicationLag
            | FaultKind::ReplicaDiskFull => {
                let late = self.now_ms() - injected_ms > method.verify.within.ms();
                let effect = said(view);
                if late { Err(format!("seen too late: {effect}")) } else { Ok(effect) }
            }
        }
    }

    /// Every other agent says that it does not hear the node.
    async fn nobody_hears(&self, node: &NodeId, within: Duration) -> Result<String, String> {
        let until = Instant::now() + within;
        let all = self.shared.status().map(|status| status.nodes).unwrap_or_default();
        let others: Vec<NodeId> = all.into_iter().map(|row| row.name).filter(|other| other != node).collect();
        loop {
            let mut deaf = Vec::new();
            for other in &others {
                let view = self.agents.look(other).await;
                deaf.extend(view.ok().filter(|view| view.not_heard.contains(node)).map(|view| view.node));
            }
            if !others.is_empty() && deaf.len() == others.len() {
                return Ok(format!("neither of {} other agents hears {node}", others.len()));
            }
            if Instant::now() >= until {
                // A command that failed has left its words there.
                let view = self.agents.look(node).await.ok();
                let said = view.and_then(|view| view.fault).map(|fault| fault.effect).unwrap_or_default();
                return Err(format!(
                    "{node} is heard by {} of {}: {said}",
                    others.len() - deaf.len(),
                    others.len()
                ));
            }
            self.pass(LOOK).await;
        }
    }

    /// What a fault causes, when its node has seen that too.
    async fn shows(&self, node: &NodeId, within: Duration) -> Result<String, String> {
        let until = Instant::now() + within;
        self.shared.doing(format!("waiting until what was injected on {node} shows"));
        loop {
            let last = match self.agents.look(node).await {
                Ok(view) => match view.fault.filter(|fault| fault.drill == self.number) {
                    Some(fault) if fault.shows_at.is_some() => return Ok(fault.effect),
                    Some(fault) if fault.phase == FaultPhase::Healed => return Err(fault.healed),
                    Some(fault) => fault.effect,
                    None => "the node knows nothing of it".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                return Err(format!("seen so far: {last}"));
            }
            self.pass(LOOK).await;
        }
    }

    /// An agent that is taken away is not heard by the others, or is heard as a new one.
    async fn goes_silent(&self, node: &NodeId, kind: FaultKind, within: Duration) -> Result<String, String> {
        let until = Instant::now() + within;
        let mut watch = self.agents.client.status().await.ok();
        loop {
            let row = watch.and_then(|status| status.nodes.into_iter().find(|row| row.name == *node));
            if let Some(ms) = row.and_then(|row| row.heard_ms_ago).filter(|ms| *ms >= SILENT_MS) {
                return Ok(format!("nothing was heard of it for {ms} ms"));
            }
            if kind == FaultKind::AgentKill
                && let Ok(view) = self.agents.look(node).await
                && let Some(FaultState { phase: FaultPhase::Healed, healed, .. }) = view.fault
            {
                return Ok(healed);
            }
            if Instant::now() >= until {
                return Err(format!("{node} is heard as before"));
            }
            self.pass(LOOK).await;
            watch = self.agents.client.status().await.ok();
        }
    }
}
