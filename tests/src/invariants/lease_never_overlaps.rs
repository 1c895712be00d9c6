//! G1 on paper: at no moment do two agents both believe, each on its own clock, that they hold a valid lease and may keep a
//! door open. A holder that gave its lease back has latched before, so its paper is worth nothing.

use baton_runbooks::ledger::Ledger;

use crate::sim::node::Node;

/// Its name.
pub const NAME: &str = "lease_never_overlaps";

/// Two agents believe that they may serve.
pub fn check(at: u64, one: &Node, other: &Node, newest: &Ledger) -> Result<(), String> {
    let epoch = |node: &Node| {
        let valid = node.agent.is_some() && node.holder.is_valid(node.local(at));
        node.holder.epoch().filter(|_| valid)
    };
    let (Some(a), Some(b)) = (epoch(one), epoch(other)) else { return Ok(()) };
    let older = a.min(b);
    // The older one may have ended by a release, after its doors were closed for good.
    let runs = newest.history.iter().map(|ended| &ended.run).chain(&newest.run);
    // Switchovers that were taken back began from that epoch too.
    let mut ends = runs.map(|run| &run.plan).filter(|plan| plan.basis.epoch == older);
    let released = ends.any(|plan| {
        plan.why.iter().any(|why| matches!(why, baton_runbooks::why::Why::HolderReleased { .. }))
    });
    if released {
        return Ok(());
    }
    Err(format!("{} and {} both hold a valid lease, epochs {a} and {b}", one.name, other.name))
}
