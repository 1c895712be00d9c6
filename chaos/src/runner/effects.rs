//! That a fault took effect: what its node has seen, or what the others no longer hear.

use std::time::{Duration, Instant};

use baton_node::api::client::ClientError;
use baton_node::api::drill::{DrillView, FaultKind, FaultPhase, FaultState};
use baton_node::api::types::{Status, Sync};
use baton_node::config::NodeId;

use super::agents::is_in_sync;
use super::steps::{LOOK, Stage};
use crate::experiment::Method;

/// What is seen by another node's silence is seen this much later than what the node itself sees.
const SILENCE_LATER: Duration = Duration::from_secs(2);
/// A node of which nothing was heard for so long is silent; agents report several times a second.
pub(super) const SILENT_MS: u64 = 700;

impl Stage {
    /// What was seen of a fault after the order to inject it was given. `before`: the cluster, before that.
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
        before: &Status,
    ) -> Result<String, String> {
        let within = method.verify.within.duration();
        let said = |view: DrillView| view.fault.map(|fault| fault.effect).unwrap_or_default();
        let in_time = |effect: String| {
            let late = self.now_ms() - injected_ms > method.verify.within.ms();
            if late { Err(format!("seen too late: {effect}")) } else { Ok(effect) }
        };
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
            | FaultKind::ReplicaDiskFull => in_time(said(view)),
            FaultKind::ReplicationLag => {
                // Dropped packets alone are sent anew: that the replica is behind must be seen too.
                let effect = in_time(said(view))?;
                let passed = Duration::from_millis(self.now_ms().saturating_sub(injected_ms));
                let seen = self.falls_behind(node, before, within.saturating_sub(passed)).await;
                seen.map(|seen| format!("{effect}; {seen}")).map_err(|why| format!("{effect}, but {why}"))
            }
        }
    }

    /// The cluster says that the replica lacks writes, or that it is further behind than before.
    async fn falls_behind(&self, node: &NodeId, before: &Status, within: Duration) -> Result<String, String> {
        let until = Instant::now() + within;
        self.shared.doing(format!("waiting until {node} falls behind"));
        loop {
            let status = self.agents.status().await;
            if let Some(seen) = status.ok().and_then(|status| fell_behind(before, &status, node)) {
                return Ok(seen);
            }
            if Instant::now() >= until {
                return Err(format!("{node} is in sync and no further behind than before"));
            }
            self.pass(LOOK).await;
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

/// How a replica is worse off than before; `None`: it is not.
fn fell_behind(before: &Status, now: &Status, node: &NodeId) -> Option<String> {
    let lag = |status: &Status| status.nodes.iter().find(|row| row.name == *node).and_then(|row| row.lag_ms);
    if is_in_sync(before)
        && let Sync::OutOfSync { reason } = &now.sync
    {
        return Some(format!("no replica is in sync: {reason}"));
    }
    let (was_ms, is_ms) = (lag(before).unwrap_or(0), lag(now)?);
    (is_ms > was_ms).then(|| format!("{node} is {is_ms} ms behind, {was_ms} ms before"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::sample::status;

    fn out_of_sync() -> Sync {
        Sync::OutOfSync { reason: "it acknowledges too slowly".into() }
    }

    /// What the status said before and says now, and a part of what is seen; empty: nothing.
    type Case = (&'static str, fn(&mut Status), fn(&mut Status), &'static str);

    const CASES: &[Case] = &[
        ("nothing", |_| {}, |_| {}, ""),
        ("out of sync", |_| {}, |now| now.sync = out_of_sync(), "it acknowledges too slowly"),
        ("out of sync before", |before| before.sync = out_of_sync(), |now| now.sync = out_of_sync(), ""),
        ("a lag", |_| {}, |now| now.nodes[1].lag_ms = Some(1_000), "db2 is 1000 ms behind, 0 ms before"),
        ("no lag", |_| {}, |now| now.nodes[1].lag_ms = Some(0), ""),
        (
            "the same lag",
            |before| before.nodes[1].lag_ms = Some(2_000),
            |now| now.nodes[1].lag_ms = Some(2_000),
            "",
        ),
        (
            "a longer lag",
            |before| before.nodes[1].lag_ms = Some(2_000),
            |now| now.nodes[1].lag_ms = Some(3_000),
            "db2 is 3000 ms behind, 2000 ms before",
        ),
        (
            "out of sync before, and a longer lag",
            |before| before.sync = out_of_sync(),
            |now| (now.sync, now.nodes[1].lag_ms) = (out_of_sync(), Some(4_000)),
            "4000 ms behind",
        ),
        ("a lag that is not known any more", |before| before.nodes[1].lag_ms = Some(0), |_| {}, ""),
        ("another node's lag", |_| {}, |now| now.nodes[0].lag_ms = Some(9_000), ""),
    ];

    #[test]
    fn a_replica_has_fallen_behind_when_it_is_worse_off_than_before() {
        for (name, spoil_before, spoil_now, says) in CASES {
            let (mut before, mut now) = (status(), status());
            spoil_before(&mut before);
            spoil_now(&mut now);
            let seen = fell_behind(&before, &now, &"db2".into());
            assert_eq!(seen.is_some(), !says.is_empty(), "{name}: {seen:?}");
            assert!(seen.unwrap_or_default().contains(says), "{name}");
        }
    }
}
