//! When a fault of this node is healed, and when a drill that nobody runs any more is ended.

use std::path::Path;
use std::time::{Duration, Instant};

use baton_netops::sever;
use baton_runbooks::ledger::{Command, Drill, DrillCommand, DrillId, Ledger};
use jiff::Timestamp;

use super::{Context, fault, ledger};
use crate::agent::clock;
use crate::agent::operator;
use crate::api::drill::FaultPhase;
use crate::chain::chain;
use crate::drill::Note;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);
/// A drill whose lease is over is ended this much later, when every node has healed.
const END_AFTER: Duration = Duration::from_secs(2);
/// Whoever finds the lease over asks the ledger at most this often.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The verdict of a drill whose runner was lost.
const LOST: &str = "INTERRUPTED";

/// Heals what the note of an earlier agent names; the note stays if that does not succeed.
pub(super) async fn heal_left(path: &Path) -> Option<Note> {
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
    match note.heal() {
        Ok(seen) => {
            tracing::warn!(kind = %note.state.spec.kind, seen, "an earlier agent left the fault of a drill; healed");
            let _ = note.wake_watchdog();
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
    loop {
        tokio::time::sleep(LOOK).await;
        let ledger = ledger(&context);
        if let Some(drill) = &ledger.drill
            && pulse.moved(drill)
        {
            context.drills.hear(drill.number);
        }
        if let Some(why) = why_heal(&context, &ledger) {
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

/// Why what this node bears is to be healed now.
fn why_heal(context: &Context, ledger: &Ledger) -> Option<String> {
    let (of, ends, phase) = {
        let fault = context.drills.fault();
        let borne = fault.as_ref().filter(|borne| !borne.is_over())?;
        (borne.note.state.drill, borne.ends, borne.note.state.phase)
    };
    if phase == FaultPhase::Stuck {
        return Some("tried again".to_owned());
    }
    if ends.is_some_and(|ends| Instant::now() >= ends) {
        return Some("its time is over".to_owned());
    }
    let lease = match &ledger.drill {
        Some(drill) if drill.number == of => match &drill.aborted {
            Some(reason) => return Some(format!("the drill is to end: {reason}")),
            None => Duration::from_millis(drill.lease_ms),
        },
        Some(_) | None => return Some(format!("drill {of} has ended")),
    };
    if context.drills.silent_for(of).is_none_or(|silent| silent > lease) {
        return Some(format!("whoever drills was not heard for {} ms", lease.as_millis()));
    }
    let run = ledger.run.as_ref().filter(|run| run.plan.to == context.config.node)?;
    Some(format!("this node is to take over by run {}", run.id))
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
