//! The runner's sign of life: to the ledger, and to every node that bears a fault of its drill.
//!
//! A node that is cut off does not see the ledger move; it hears the runner over the port of orders, which no drill cuts.
//! When neither comes any more, the agents heal by themselves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_node::api::drill::{DrillId, DrillOrder, DrillView};
use baton_node::config::NodeId;
use tokio::task::JoinHandle;

use super::agents::Agents;
use super::stop::Stops;
use crate::evidence::Ending;

/// Time between two signs: a few of them fit into the lease.
const EVERY: Duration = Duration::from_millis(1_000);
/// The lease that a drill asks for, milliseconds.
pub const LEASE_MS: u64 = 10_000;

/// Nodes that bear a fault now.
#[derive(Debug, Clone, Default)]
pub struct Bearing(Arc<Mutex<BTreeSet<NodeId>>>);

impl Bearing {
    /// The node bears one from here on.
    pub fn add(&self, node: &NodeId) {
        self.lock().insert(node.clone());
    }

    /// It bears none any more.
    pub fn remove(&self, node: &NodeId) {
        self.lock().remove(node);
    }

    /// Who bears one.
    #[must_use]
    pub fn all(&self) -> Vec<NodeId> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<NodeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beats until it is dropped.
#[derive(Debug)]
pub struct Pulse(JoinHandle<()>);

impl Pulse {
    /// Starts to beat for a drill that has begun.
    #[must_use]
    pub fn start(agents: Agents, number: DrillId, bearing: Bearing, stops: Stops) -> Self {
        Self(tokio::spawn(beat(agents, number, bearing, stops)))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn beat(agents: Agents, number: DrillId, bearing: Bearing, stops: Stops) {
    let mut next = 0;
    let mut renewed = Instant::now();
    let lease = Duration::from_millis(LEASE_MS);
    loop {
        for node in bearing.all() {
            // One that is frozen answers late or never; nobody waits for it.
            let agents = agents.clone();
            tokio::spawn(async move { agents.order(Some(&node), DrillOrder::Keep { number }).await });
        }
        match agents.order(None, DrillOrder::Renew { number, beat: next }).await {
            Ok(view) => {
                renewed = Instant::now();
                if let Some(ending) = aborted(&view, number) {
                    stops.now(ending);
                }
                next = view.drill.filter(|drill| drill.number == number).map_or(next, |drill| drill.beat);
            }
            // Refused as well when an answer was lost: then the look says how far the ledger is.
            Err(_) => {
                if let Ok(view) = agents.order(None, DrillOrder::Look).await {
                    if let Some(ending) = aborted(&view, number) {
                        stops.now(ending);
                    }
                    match view.drill.filter(|drill| drill.number == number) {
                        Some(drill) if drill.beat != next => next = drill.beat,
                        Some(_) => {}
                        None => stops.now(lost(format!("the agents have ended drill {number}"))),
                    }
                }
            }
        }
        if renewed.elapsed() > lease {
            stops.now(lost(format!(
                "the ledger was not reached for {} s; the agents heal by themselves",
                lease.as_secs()
            )));
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Somebody has told the ledger that the drill is to end.
pub fn aborted(view: &DrillView, number: DrillId) -> Option<Ending> {
    let drill = view.drill.as_ref().filter(|drill| drill.number == number)?;
    drill.aborted.clone().map(|why| Ending::Aborted { by: "the ledger".into(), why })
}

fn lost(why: String) -> Ending {
    Ending::Interrupted { why }
}
