//! A node that was away is back, and the cluster is whole again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{DATA, Lab, agents, wait};

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
