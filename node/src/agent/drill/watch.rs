//! When a fault of this node is healed, and when a drill that nobody runs any more is ended.

use std::path::Path;
use std::time::{Duration, Instant};

use baton_netops::sever;
use baton_runbooks::ledger::{Command, Drill, DrillCommand, DrillId, Ledger};
use baton_runbooks::model::{NodeId, NodeKind};
use jiff::Timestamp;

use super::{Context, fault, ledger};
use crate::agent::clock;
use crate::agent::operator;
use crate::api::drill::{FaultKind, FaultPhase, FaultSpec};
use crate::chain::chain;
use crate::config::Config;
use crate::drill::{Note, disk, remove_filler};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);
/// A drill whose lease is over is ended this much later, when every node has healed.
const END_AFTER: Duration = Duration::from_secs(2);
/// Whoever finds the lease over asks the ledger at most this often.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long a watchdog is waited for that was told to end.
const WATCHDOG_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// A holder that was not heard serving for so long may have to be followed; hand-overs are shorter, reports more frequent.
const SERVED_WITHIN: Duration = Duration::from_secs(1);
/// The verdict of a drill whose runner was lost.
const LOST: &str = "INTERRUPTED";

/// Heals what the note of an earlier agent names; the note stays if that does not succeed. `filler`: where a file that
/// fills the disk would be, which goes even without a note.
pub(super) async fn heal_left(path: &Path, filler: Option<&Path>) -> Option<Note> {
    if let Some(filler) = filler.map(Path::to_owned)
        && let Err(error) = disk(move || remove_filler(&filler)).await
    {
        tracing::error!(%error, "what a drill may have left on the disk cannot be removed");
    }
    // Whatever is severed ends now: nobody is there who drills through this agent.
    let severed = sever::severed_for();
    if !matches!(severed, Ok(None))
        && let Err(error) = sever::mend().await
    {
        tracing::error!(error = chain(&error), "what a drill may have severed is left to the kernel");
    }
    let mut note = match Note::read(path) {
        Ok(note) => note?,
        Err(error) => {
            tracing::error!(%error, "the note of a drill cannot be read");
            return None;
        }
    };
    // First the watchdog: as long as it lives it may break what is mended here.
    note.end_watchdog(WATCHDOG_ENDS_WITHIN).await;
    match note.heal() {
        Ok(seen) => {
            tracing::warn!(kind = %note.state.spec.kind, seen, "an earlier agent left the fault of a drill; healed");
            let _ = Note::remove(path);
            note.state.phase = FaultPhase::Healed;
            note.state.healed_at = Some(Timestamp::now());
            note.state.healed = format!("the agent was started again; {seen}");
        }
        Err(left) => {
            tracing::error!(left, "an earlier agent left the fault of a drill");
            note.state.phase = FaultPhase::Stuck;
            note.state.healed = left;
        }
    }
    Some(note)
}

/// Looks until the process ends.
pub(super) async fn watch(context: Context) {
    let mut pulse = Pulse::default();
    let mut asked = None;
    let mut served = Instant::now();
    let mut look = context.clock.every(LOOK, Duration::ZERO);
    loop {
        look.tick().await;
        let ledger = ledger(&context);
        if is_served(&context, &ledger) {
            served = Instant::now();
        }
        if let Some(drill) = &ledger.drill
            && pulse.moved(drill)
        {
            context.drills.hear(drill.number);
        }
        let needed = may_be_needed(&context, &ledger, served.elapsed());
        if let Some(why) = why_heal(&context, &ledger).or(needed) {
            // What is not healed yet is tried again with the next look.
            let _ = fault::heal(&context, &why).await;
        }
        if let Some(drill) = &ledger.drill
            && pulse.silent() > Duration::from_millis(drill.lease_ms) + END_AFTER
            && asked.is_none_or(|at: Instant| at.elapsed() > ASK_EVERY)
            && context.consensus.standing().borrow().leader.as_ref() == Some(&context.config.node)
        {
            asked = Some(Instant::now());
            end_lost(&context, drill).await;
        }
    }
}

/// A fault that is not over.
#[derive(Debug, Clone, Copy)]
struct Bears {
    drill: DrillId,
    phase: FaultPhase,
    /// Its own time is over.
    is_due: bool,
}

/// Why what this node bears is to be healed now.
fn why_heal(context: &Context, ledger: &Ledger) -> Option<String> {
    let borne = {
        let fault = context.drills.fault();
        let borne = fault.as_ref().filter(|borne| !borne.is_over())?;
        let state = &borne.note.state;
        let is_due = borne.ends.is_some_and(|ends| Instant::now() >= ends);
        Bears { drill: state.drill, phase: state.phase, is_due }
    };
    let silent = context.drills.silent_for(borne.drill);
    why_heal_borne(&context.config.node, ledger, borne, silent)
}

/// `silent`: for how long whoever runs the fault's drill was not heard; `None`: somebody else was, or nobody ever.
fn why_heal_borne(node: &NodeId, ledger: &Ledger, borne: Bears, silent: Option<Duration>) -> Option<String> {
    let Bears { drill: of, phase, is_due } = borne;
    if phase == FaultPhase::Stuck {
        return Some("tried again".to_owned());
    }
    if is_due {
        return Some("its time is over".to_owned());
    }
    let lease = match &ledger.drill {
        Some(drill) if drill.number == of => match &drill.aborted {
            Some(reason) => return Some(format!("the drill is to end: {reason}")),
            None => Duration::from_millis(drill.lease_ms),
        },
        Some(_) | None => return Some(format!("drill {of} has ended")),
    };
    if silent.is_none_or(|silent| silent > lease) {
        return Some(format!("whoever drills was not heard for {} ms", lease.as_millis()));
    }
    let run = ledger.run.as_ref().filter(|run| run.plan.to == *node)?;
    Some(format!("this node is to take over by run {}", run.id))
}

/// This node holds the baton, or hears the holder serve.
fn is_served(context: &Context, ledger: &Ledger) -> bool {
    let Some(holder) = &ledger.holder else { return false };
    *holder == context.config.node
        || context.hands.peer_lately(holder, SERVED_WITHIN).is_some_and(|report| report.serving)
}

/// Nobody serves, and this node may have to: what it bears must not delay that.
fn may_be_needed(context: &Context, ledger: &Ledger, unserved: Duration) -> Option<String> {
    let fault = context.drills.fault();
    let spec = &fault.as_ref().filter(|borne| !borne.is_over())?.note.state.spec;
    may_be_needed_with(&context.config, ledger, spec, unserved)
}

/// Only a data node that is not the holder can be needed. A fault that itself hides the holder from this node says nothing
/// of the holder.
fn may_be_needed_with(
    config: &Config,
    ledger: &Ledger,
    spec: &FaultSpec,
    unserved: Duration,
) -> Option<String> {
    let is_data = config.this().kind == NodeKind::Data;
    if !is_data || ledger.holder.as_ref() == Some(&config.node) || unserved <= SERVED_WITHIN {
        return None;
    }
    let cuts = matches!(spec.kind, FaultKind::Partition | FaultKind::OneWay);
    // A service that does not run here delays no takeover; one that must run here is thawed when the run begins.
    if spec.kind == FaultKind::ContainerUnhealthy {
        return None;
    }
    let hides = cuts && ledger.holder.as_ref().is_some_and(|holder| spec.peers.contains(holder));
    (!hides).then(|| format!("nobody was heard serving for {} ms", unserved.as_millis()))
}

async fn end_lost(context: &Context, drill: &Drill) {
    tracing::warn!(number = %drill.number, "nobody runs the drill any more; it is ended");
    let end = DrillCommand::End {
        number: drill.number,
        verdict: LOST.to_owned(),
        evidence: String::new(),
        unless_after: Some(drill.beat),
        at: clock::wall(),
    };
    if let Err(error) = operator::propose(context, Command::Drill { drill: end }).await {
        tracing::warn!(%error, "the drill is not ended yet");
    }
}

/// When the drill of the ledger was last seen to move, by this agent's clock.
#[derive(Debug, Default)]
struct Pulse {
    seen: Option<(DrillId, u64, Instant)>,
}

impl Pulse {
    /// Notes what is seen; true if it is news.
    fn moved(&mut self, drill: &Drill) -> bool {
        let is_same = self.seen.is_some_and(|(number, beat, _)| (number, beat) == (drill.number, drill.beat));
        if !is_same {
            self.seen = Some((drill.number, drill.beat, Instant::now()));
        }
        !is_same
    }

    fn silent(&self) -> Duration {
        self.seen.map_or(Duration::ZERO, |(_, _, at)| at.elapsed())
    }
}

#[cfg(test)]
mod tests;
