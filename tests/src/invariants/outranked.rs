//! After an operator's force the lower generation is over. Whoever was told of the higher one is closed, however long its leases
//! last; and if the others were off, as the operator said, nothing is decided any more in the log that they come back with.

use baton_runbooks::lease::holder::Door;

use crate::sim::node::{Node, TERMS};

/// Its name.
pub const NAME: &str = "outranked";

/// Milliseconds of a running agent after which a node that was told is closed: its lease thread looks with each renewal, on a
/// clock of its own.
const CLOSED_MS: u64 = TERMS.renew_ms + TERMS.renew_ms / 10;

/// Looks at the doors of a node that was told at `since`.
pub fn check(at: u64, node: &Node, since: u64) -> Result<(), String> {
    let able_since = since.max(node.frozen_until).max(node.started_at);
    if node.agent.is_none() || at < able_since + CLOSED_MS {
        return Ok(());
    }
    match [Door::Vip, Door::Ports].into_iter().find(|door| node.gate.is_open(*door, at)) {
        None => Ok(()),
        Some(door) => Err(format!("{} was told of a higher generation, and is open for {door:?}", node.name)),
    }
}

/// An entry was committed in a log. `is_newest`: none was founded after it. `mistaken`: others were not off who were said to be.
pub fn committed(is_newest: bool, mistaken: bool) -> Result<(), String> {
    if is_newest || mistaken {
        return Ok(());
    }
    Err("something is decided in a log of a generation that is over".to_owned())
}
