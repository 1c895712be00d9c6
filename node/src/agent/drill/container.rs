//! A service that never gets healthy: its main process is stopped, and so is each that takes its place, until the deadline.
//!
//! The kernel says at once that a process is stopped. That the engine calls its container unhealthy takes several of its
//! checks, seconds or minutes: it is looked for meanwhile, and nobody waits for it with an order in hand.

use std::time::Duration;

use baton_runbooks::ledger::DrillId;
use jiff::Timestamp;

use super::{Context, stands};
use crate::api::drill::FaultKind;
use crate::drill::{Note, disk};
use crate::hands::containers::is_called_unhealthy;

/// Between two looks at the engine.
const LOOK: Duration = Duration::from_millis(250);

/// Finds what is to be stopped, and notes it.
pub(super) async fn aim(context: &Context, note: &mut Note, more: std::path::PathBuf) -> Result<(), String> {
    let services = context.hands.services.as_ref().ok_or("no service")?;
    let engine = context.config.docker.as_ref().ok_or("no container engine")?;
    let found = services.mains(note.state.spec.service.as_deref()).await;
    let (name, mains) = found.map_err(|error| format!("{error:#}"))?;
    if mains.is_empty() {
        return Err(format!(
            "no container of {name} runs here that has a health check: nothing would call it unhealthy"
        ));
    }
    for main in mains {
        let process = main.process.map_err(|error| format!("{}: {error}", main.container))?;
        note.stopped.push(process.to_string());
        note.containers.push(main.container);
    }
    note.engine = Some(engine.socket.clone());
    let stale = more.clone();
    let removed = disk(move || Note::remove_more(&stale)).await;
    removed.map_err(|error| format!("{}: {error}", more.display()))?;
    note.more_stopped = Some(more);
    Ok(())
}

/// Looks until the engine calls the service of this drill's fault unhealthy, or the fault is over.
pub(super) async fn see(context: Context, number: DrillId, service: Option<String>) {
    let Some(services) = &context.hands.services else { return };
    while stands(&context, number, FaultKind::ContainerUnhealthy) {
        if let Ok((name, state)) = services.state(service.as_deref()).await
            && is_called_unhealthy(&state)
            && let Some(borne) = context.drills.fault().as_mut()
            && borne.note.state.drill == number
        {
            let state = &mut borne.note.state;
            state.shows_at = Some(Timestamp::now());
            state.effect.push_str(&format!("; the engine says that {name} is unhealthy"));
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
