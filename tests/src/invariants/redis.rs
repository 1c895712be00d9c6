//! G3 **Redis loses at most what replication had not yet carried.** A switchover loses nothing, and a Redis that came back empty
//! never wipes its replica.

use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::NodeId;
use baton_runbooks::observe::RedisBoot;
use baton_runbooks::plan::Runbook;

use crate::sim::mysql::{Tx, TxSet};
use crate::sim::node::Node;

/// Its name.
pub const NAME: &str = "redis";

/// What clients were told.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    acked: TxSet,
}

impl Acknowledged {
    /// A client was told so.
    pub fn acknowledged(&mut self, tx: Tx) {
        self.acked.add(tx);
    }

    /// The cluster was forced, and the survivor holds the baton with what it has.
    pub fn forced(&mut self, survivor: &Node) {
        if let Some(redis) = &survivor.redis {
            self.acked = self.acked.meet(&redis.data);
        }
    }

    /// An entry was committed. With the pivot of a takeover, what replication had not carried is lost; with that of a
    /// switchover, nothing may be, unless it was lost before.
    pub fn committed(&mut self, before: &Ledger, after: &Ledger, nodes: &[Node]) -> Result<(), String> {
        let Some(run) = after.run.as_ref().filter(|run| run.is_past_pivot()) else { return Ok(()) };
        let was = before.run.as_ref().filter(|was| was.id == run.id);
        if was.is_none_or(|was| was.is_past_pivot()) {
            return Ok(());
        }
        let of =
            |name: &NodeId| nodes.iter().find(|node| node.name == *name).and_then(|node| node.redis.as_ref());
        // One that has died meanwhile, and forgot everything, is made no primary: nothing is lost by the passing.
        let Some(target) = of(&run.plan.to).filter(|redis| !redis.data.is_empty()) else { return Ok(()) };
        if run.plan.runbook == Runbook::Switchover
            && let Some(source) = run.plan.from.as_ref().and_then(of)
        {
            let there = self.acked.meet(&source.data);
            let lost = target.data.missing(&there);
            if lost > 0 && source.up {
                return Err(format!("run {} passes the baton without {lost} writes of Redis", run.id));
            }
        }
        self.acked = self.acked.meet(&target.data);
        Ok(())
    }
}

/// Every process boots closed in this world, and only agents open one: none may be taken for one that boots open.
pub fn judged(boot: &RedisBoot, node: usize) -> Result<(), String> {
    if boot.open {
        return Err(format!(
            "the agent at node {node} opened Redis {} and takes it for one that boots open",
            boot.server
        ));
    }
    Ok(())
}

/// The replica of `node` takes over what its primary has.
pub fn copied(node: usize, here: &TxSet, there: &TxSet) -> Result<(), String> {
    if there.is_empty() && !here.is_empty() {
        return Err(format!("an empty Redis wipes {} writes of its replica at node {node}", here.len()));
    }
    Ok(())
}
