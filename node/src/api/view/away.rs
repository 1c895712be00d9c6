//! What the closing sentence says of a data node that is not attached.

use baton_runbooks::model::NodeId;
use baton_runbooks::observe::Quarantine;

use super::super::types::NodeRow;

/// Why a node that is closed is not attached.
pub(super) fn closed(row: &NodeRow, holder: &str) -> String {
    let name = &row.name;
    if let Some(quarantine) = &row.quarantine {
        return quarantined(name, quarantine, holder);
    }
    match &row.extra {
        Some(extra) => format!(
            "{name} could not take over: its agent does not attach it, since it has transactions that {holder} lacks: \
             {extra}. It is about to save them."
        ),
        None => format!(
            "{name} could not take over: it waits closed and read-only and does not replicate. Its agent attaches it as \
             soon as {holder} serves; if it stays so, the agent's log on {name} says why."
        ),
    }
}

/// A node in quarantine: how many transactions, where they are, and the way out.
fn quarantined(name: &NodeId, quarantine: &Quarantine, holder: &str) -> String {
    let Quarantine { extra, transactions, export, problem } = quarantine;
    let has = format!("{name} could not take over, it is in quarantine: it has");
    match (export, problem) {
        (Some(export), _) => format!(
            "{has} {transactions} transactions that {holder} lacks ({extra}). They are saved in {} on {name} ({} rows in \
             {} tables, {} statements). Look at them, then seed {name} from {holder} (docs/operating/install.md).",
            export.file, export.rows, export.tables, export.statements
        ),
        (None, Some(problem)) => format!(
            "{has} up to {transactions} transactions that {holder} lacks ({extra}), and they could not be saved: \
             {problem}. Mend that; the agent on {name} tries again."
        ),
        (None, None) => format!(
            "{has} up to {transactions} transactions that {holder} lacks ({extra}). Its agent is saving them."
        ),
    }
}
