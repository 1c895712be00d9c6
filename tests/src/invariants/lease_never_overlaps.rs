//! G1 on paper: at no moment do two agents both believe, each on its own clock, that they hold a valid lease and may keep a
//! door open. A holder that gave its lease back has latched before, so its paper is worth nothing.

use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::Epoch;

use crate::sim::node::Node;

/// Its name.
pub const NAME: &str = "lease_never_overlaps";

/// Epochs that ended by a release.
#[derive(Debug, Clone, Default)]
pub struct Released {
    epochs: Vec<Epoch>,
}

impl Released {
    /// An entry was committed.
    pub fn committed(&mut self, before: &Ledger, after: &Ledger) {
        if after.epoch != before.epoch && before.has_released() {
            self.epochs.push(before.epoch);
        }
    }

    /// The cluster was forced: what was released later counts no more.
    pub fn forced(&mut self, before: &Ledger) {
        self.epochs.retain(|epoch| *epoch < before.epoch);
    }

    /// Two agents believe that they may serve.
    pub fn check(&self, at: u64, one: &Node, other: &Node) -> Result<(), String> {
        let (Some(a), Some(b)) = (one.holder.epoch(), other.holder.epoch()) else { return Ok(()) };
        let is_valid = |node: &Node| node.agent.is_some() && node.holder.is_valid(node.local(at));
        if !is_valid(one) || !is_valid(other) || self.epochs.contains(&a.min(b)) {
            return Ok(());
        }
        Err(format!("{} and {} both hold a valid lease, epochs {a} and {b}", one.name, other.name))
    }
}
