//! What the closing sentence says of a data node that is not attached.

use baton_runbooks::model::NodeId;
use baton_runbooks::observe::{Quarantine, ResyncFacts, ResyncPhase};

use super::super::types::NodeRow;

/// Why a node that is closed is not attached.
#[must_use]
pub fn closed(row: &NodeRow, holder: &str) -> String {
    let name = &row.name;
    let failed = match &row.resync {
        Some(resync) => match resynced(name, resync) {
            Ok(text) => return text,
            Err(text) => text,
        },
        None => String::new(),
    };
    if let Some(quarantine) = &row.quarantine {
        return format!("{}{failed}", quarantined(name, quarantine, holder));
    }
    match &row.extra {
        Some(extra) => format!(
            "{name} could not take over: its agent does not attach it, since it has transactions that {holder} lacks: \
             {extra}. It is about to save them."
        ),
        None if row.mysql_read_only == Some(false) => format!(
            "{name} could not take over: its ports are closed, but its MySQL is not read-only yet and does not replicate. \
             Its agent makes it so; if it stays so, the agent's log on {name} says what stands in the way."
        ),
        None => format!(
            "{name} could not take over: it waits closed and read-only and does not replicate. Its agent attaches it as \
             soon as {holder} serves; if it stays so, the agent's log on {name} says why."
        ),
    }
}

/// What a resync means for a node that is not attached: `Err`, only something to add.
fn resynced(name: &NodeId, resync: &ResyncFacts) -> Result<String, String> {
    let note = resync.note.as_deref().unwrap_or("no reason was noted");
    let under_way = |doing: &str| {
        Ok(format!(
            "{name} could not take over: its database is being replaced by a copy of {}, {doing}, {}.{} s so far.",
            resync.from,
            resync.took_ms / 1000,
            resync.took_ms % 1000 / 100
        ))
    };
    match resync.phase {
        ResyncPhase::Copying => under_way(&format!(
            "{} of about {} MiB have come",
            resync.bytes >> 20,
            resync.bytes_expected.max(resync.bytes) >> 20
        )),
        ResyncPhase::Preparing => under_way("the copy is being prepared"),
        ResyncPhase::Stopping | ResyncPhase::Swapping => under_way("the old data are being moved away"),
        ResyncPhase::Starting | ResyncPhase::Seeding => under_way("the database is being started"),
        ResyncPhase::CatchingUp => under_way("the copy runs"),
        ResyncPhase::Stuck => Ok(format!(
            "{name} could not take over: its resync stopped: {note}. It stays closed until `baton resync {name}` is \
             repeated."
        )),
        ResyncPhase::Failed => Err(format!(" The last resync failed and changed nothing: {note}.")),
        ResyncPhase::Done => Err(String::new()),
    }
}

/// A node in quarantine: how many transactions, where they are, and the way out.
fn quarantined(name: &NodeId, quarantine: &Quarantine, holder: &str) -> String {
    let Quarantine { extra, transactions, export, problem } = quarantine;
    let has = format!("{name} could not take over, it is in quarantine: it has");
    match (export, problem) {
        (Some(export), _) if export.transactions == 0 => format!(
            "{has} up to {transactions} transactions that {holder} lacks ({extra}). Its binary log has none of them: they \
             were purged, or never written. `baton resync {name}` replaces its database by a copy of {holder}, and keeps \
             the old data beside it."
        ),
        (Some(export), _) => format!(
            "{has} {transactions} transactions that {holder} lacks ({extra}). They are saved in {} on {name} ({} rows in \
             {} tables, {} statements). Look at them, then `baton resync {name}` replaces its database by a copy of \
             {holder}.",
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
