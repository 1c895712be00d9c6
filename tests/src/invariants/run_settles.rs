//! G5 **Any agent may die at any instruction.** A run goes on, is rolled back, or stops as *needs operator* with both databases
//! closed to clients. It is never forgotten: it leaves the ledger's run only for the history, ended; an operator's word is the
//! only other way. It is never done twice: its journal only grows, and no step succeeds a second time.

use baton_runbooks::lease::holder::Door;
use baton_runbooks::ledger::{Command, Ledger};
use baton_runbooks::run::{Event, Run, RunState};

use crate::sim::node::{Node, TERMS};

/// Its name.
pub const NAME: &str = "run_settles";

/// Milliseconds after which a run that needs an operator has closed both nodes: the longest lease, and a look.
const CLOSED_MS: u64 = 2 * TERMS.lease_ms;

/// What is remembered of runs.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    needs_operator_since: Option<u64>,
}

impl Runs {
    /// A run needs an operator.
    pub const fn needs_operator(&self) -> bool {
        self.needs_operator_since.is_some()
    }

    /// The cluster was forced.
    pub fn forced(&mut self, at: u64, after: &Ledger) {
        self.needs_operator_since = after.run.as_ref().is_some_and(needs_operator).then_some(at);
    }

    /// An entry was committed.
    pub fn committed(
        &mut self,
        at: u64,
        command: &Command,
        before: &Ledger,
        after: &Ledger,
    ) -> Result<(), String> {
        let needs = after.run.as_ref().is_some_and(needs_operator);
        self.needs_operator_since = needs.then(|| self.needs_operator_since.unwrap_or(at));
        let Some(run) = &before.run else { return Ok(()) };
        let ended = after.history.iter().rev().find(|ended| ended.run.id == run.id);
        let now = after.run.as_ref().filter(|now| now.id == run.id).or(ended.map(|ended| &*ended.run));
        let Some(now) = now else { return Err(format!("run {} is in the ledger no more", run.id)) };
        if ended.is_some_and(|ended| !ended.state.is_ended()) {
            return Err(format!("run {} is in the history and has not ended", run.id));
        }
        if ended.is_some() && needs_operator(run) && !matches!(command, Command::AcknowledgeRun { .. }) {
            return Err(format!("run {} needed an operator, and none came", run.id));
        }
        if now.plan != run.plan || !now.journal.starts_with(&run.journal) {
            return Err(format!("the journal of run {} was rewritten", run.id));
        }
        succeeded_once(now)
    }

    /// Looks at the doors.
    pub fn check(&self, at: u64, node: &Node) -> Result<(), String> {
        let closes = self.needs_operator_since.is_some_and(|since| at >= since + CLOSED_MS);
        if closes && node.gate.is_open(Door::Ports, at) {
            return Err(format!("a run needs an operator, and {} is open", node.name));
        }
        Ok(())
    }
}

fn needs_operator(run: &Run) -> bool {
    matches!(run.state(), RunState::NeedsOperator { .. })
}

fn succeeded_once(run: &Run) -> Result<(), String> {
    let succeeded: Vec<_> = run
        .journal
        .iter()
        .filter(|entry| matches!(entry.event, Event::Succeeded { .. }))
        .map(|entry| entry.step)
        .collect();
    for (index, step) in succeeded.iter().enumerate() {
        if succeeded[..index].contains(step) {
            return Err(format!("{step} of run {} succeeded twice", run.id));
        }
    }
    Ok(())
}
