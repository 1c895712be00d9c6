//! What ends a drill early: told once, by whoever sees it first.

use baton_node::api::drill::{DrillId, DrillOrder};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::agents::Agents;
use crate::evidence::Ending;

/// Tells that the drill is to end, and hears it.
#[derive(Debug, Clone)]
pub struct Stops {
    told: watch::Sender<Option<Ending>>,
}

impl Default for Stops {
    fn default() -> Self {
        Self { told: watch::Sender::new(None) }
    }
}

impl Stops {
    /// The drill is to end. The first one counts.
    pub fn now(&self, ending: Ending) {
        self.told.send_if_modified(|told| {
            let is_first = told.is_none();
            if is_first {
                *told = Some(ending);
            }
            is_first
        });
    }

    /// Waits until somebody tells.
    pub async fn told(&self) -> Ending {
        let mut hear = self.told.subscribe();
        let heard = hear.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
        match heard {
            Some(ending) => ending,
            // The sender is ours, so there is always one.
            None => std::future::pending().await,
        }
    }

    /// The operator's key, and a polite end from outside. A second one ends the process at once: the agents heal what
    /// is left when the lease is over.
    ///
    /// # Errors
    /// The system has no signals for us.
    pub fn listen(&self, by: &str) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (stops, by) = (self.clone(), by.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stops.now(Ending::Aborted { by, why: "the operator's key".into() });
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(i32::from(crate::verdict::Verdict::Interrupted.exit_code()));
        });
        Ok(())
    }
}

/// Tells the ledger that the drill is to end, so that every agent heals at once.
pub async fn abort(agents: &Agents, number: DrillId, reason: &str) {
    let order = DrillOrder::Abort { number, reason: reason.to_owned() };
    // Without a quorum the agents heal when the lease is over.
    let _ = agents.order(None, order).await;
}
