//! A node that was away is back, and the cluster is whole again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Scene;
use crate::lab::{DATA, Lab, Port, Traffic, agents, database, wait};

/// How long a backup that is back may take to be counted on.
const COUNTED_ON_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to apply what it has received.
const APPLIED_WITHIN: Duration = Duration::from_secs(10);
/// How many of the newest writes are compared: more than there are while a backup is away.
const NEWEST: usize = 5_000;

/// How a node came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// It follows the holder with what it had.
    Followed,
    /// It had extra transactions: they were saved, and it was resynced, by an operator or by itself.
    Resynced,
}

/// Waits until a takeover is possible again, and resyncs a node that is in quarantine as an operator would.
///
/// # Errors
/// It does not come about within `limit`, or the resync fails.
pub fn whole(lab: &Lab, limit: Duration) -> Result<Back> {
    let config = lab.config.as_ref().context("only agents bring a node back")?;
    let quarantined = wait::until("the node to follow, or to be in quarantine", limit, || {
        let standing = lab.standing()?;
        if standing.ok && standing.in_sync {
            return Ok(Some(None));
        }
        let status = agents::ask(config, standing.holder.context("nobody holds the baton")?, &["status"])?;
        let rows = status["nodes"].as_array().context("no nodes in the status")?;
        let saved = rows.iter().find(|row| row["quarantine"]["export"]["file"].is_string());
        let node = saved.and_then(|row| DATA.into_iter().find(|port| row["name"] == port.name()));
        ensure!(node.is_some(), "{}", status["sentence"]);
        Ok(Some(node.zip(standing.holder)))
    })?;
    let Some((node, holder)) = quarantined else { return Ok(Back::Followed) };
    // Where agents do so by themselves an operator would only be refused.
    if !lab.resyncs_by_itself() {
        let (code, said) = agents::resync(config, holder, node)?;
        ensure!(code == 0, "baton resync ended with {code}: {said}");
    }
    wait::until_true("a takeover to be possible again", limit, || {
        let standing = lab.standing()?;
        ensure!(standing.ok && standing.in_sync, "{}", standing.text);
        Ok(true)
    })?;
    Ok(Back::Resynced)
}

/// The backup must not be counted on while it is away; back, it is once it has every write that clients were told of.
pub(super) fn backup_returns(scene: Scene<'_>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    if lab.config.is_none() {
        return lab.power_on(backup);
    }
    let standing = lab.standing()?;
    ensure!(!standing.in_sync && !standing.ok, "a backup that is away is counted on: {}", standing.text);
    lab.power_on(backup)?;
    let (holder, written) = wait::until("the backup to be in sync again", COUNTED_ON_WITHIN, || {
        // Before the look. What can be read at the holder has the backup's acknowledgement, or needs none.
        let written = newest(lab, primary, NEWEST)?;
        let standing = lab.standing()?;
        Ok(standing.in_sync.then_some((standing.holder, written)))
    })?;
    // An order may have passed the baton before the backup was lost.
    if holder == Some(primary) {
        has_them(scene, &written)?;
    }
    wait::until_true("the backup to be promotable again", COUNTED_ON_WITHIN, || {
        let standing = lab.standing()?;
        Ok(standing.ok && standing.in_sync)
    })
}

/// Nothing more reaches the backup while it is looked at, so that what it has now was there when it was called in sync.
fn has_them(scene: Scene<'_>, written: &BTreeSet<u64>) -> Result<()> {
    let Scene { lab, primary, backup, .. } = scene;
    ensure!(!written.is_empty(), "nothing was written at {}", primary.name());
    lab.wire.cut_both(primary, backup, Traffic::Tcp(database::PORT))?;
    let has = wait::until_true("a backup in sync to have what was written before", APPLIED_WITHIN, || {
        let there = newest(lab, backup, 2 * NEWEST)?;
        let missing = written.difference(&there).count();
        ensure!(missing == 0, "{missing} of {} writes are not there", written.len());
        Ok(true)
    });
    lab.wire.mend()?;
    has
}

/// The ids of the newest writes of a node.
fn newest(lab: &Lab, port: Port, count: usize) -> Result<BTreeSet<u64>> {
    let table = format!("{}.writes", database::APP_SCHEMA);
    let sql = format!("SELECT id FROM {table} ORDER BY seen DESC LIMIT {count}");
    let rows = database::query(&lab.host(port).mysql(), &sql)?;
    let id = |row: &database::Columns| -> Result<u64> {
        Ok(row.get("id").context("a row without an id")?.parse()?)
    };
    rows.iter().map(id).collect()
}
