//! G2, the promise behind the flag: while the ledger says that a replica is in sync, a commit is acknowledged to a client only
//! after that very instance of the replica has received it.

use baton_runbooks::ledger::{Complete, Ledger};

use crate::sim::mysql::Tx;
use crate::sim::node::Node;

/// Its name.
pub const NAME: &str = "acked_at_replica";

/// A client was told that `tx` is safe.
pub fn check(newest: &Ledger, replica: &Node, tx: Tx) -> Result<(), String> {
    let Some(Complete::Replica { instance }) = newest.in_sync.get(&replica.name) else { return Ok(()) };
    let lacks = replica.db.as_ref().is_some_and(|db| !db.received.has(tx) && db.instance() == instance);
    if !lacks {
        return Ok(());
    }
    Err(format!("{} is in sync, and a write was acknowledged that it has not received", replica.name))
}
