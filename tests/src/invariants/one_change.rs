//! G6 **One fault, one change.** A single fault of a link, a disk, a process or a node changes the holder once at most, and its
//! repair changes nothing: there is no automatic failback. Looked at in seeds that draw exactly one fault.

use baton_runbooks::ledger::{Command, Ledger};
use baton_runbooks::model::NodeId;
use baton_runbooks::plan::Runbook;

/// Its name.
pub const NAME: &str = "one_change";

/// Nodes that were given the baton since the fault.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    holders: Vec<NodeId>,
}

impl Changes {
    /// An entry was committed after the fault.
    pub fn committed(&mut self, command: &Command, before: &Ledger, after: &Ledger) -> Result<(), String> {
        let Command::StartRun { plan, .. } = command else { return Ok(()) };
        if plan.runbook == Runbook::Switchover {
            return Err(format!("nobody has ordered a switchover to {}", plan.to));
        }
        let last = self.holders.last().or(before.holder.as_ref()).or(before.last_holder.as_ref());
        if before.epoch == after.epoch || last == Some(&plan.to) {
            return Ok(());
        }
        self.holders.push(plan.to.clone());
        if self.holders.len() <= 1 {
            return Ok(());
        }
        let holders: Vec<&str> = self.holders.iter().map(NodeId::as_str).collect();
        Err(format!("one fault moved the baton to {}", holders.join(", then to ")))
    }
}
