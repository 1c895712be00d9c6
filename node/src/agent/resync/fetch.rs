//! Getting the holder's data beside the node's own, by what the family has, and telling the copy its place.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use baton_runbooks::observe::{Flavour, ResyncPhase};
use tokio::process::Command;

use super::super::Context;
use super::STATEMENT;
use super::offer::PROGRAM;
use super::run::{Job, on_disk, tail};
use crate::config::Node;
use crate::copy::{Fetch, Progress};
use crate::hands::mysql::datadir::{DataDir, Standing};
use crate::hands::mysql::seed::{position_of_copy, state_of_copy};
use crate::hands::mysql::{Mysql, gtid};

/// Preparing applies a log that is as long as the copy took. More than this is a disk that has stopped.
const PREPARE_DEADLINE: Duration = Duration::from_secs(3600);
/// A clone ends with an error of its own when nothing comes any more. This bounds one that does not.
const CLONE_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// How often a clone's progress is asked for.
const CLONE_LOOK: Duration = Duration::from_millis(500);

/// Where a copy stands in the holder's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// MariaDB's does not know it and must be told.
    Told {
        /// For finding extra transactions.
        state: String,
        /// For following.
        position: String,
    },
    /// MySQL's knows it.
    Known,
}

/// The holder's data beside the old ones, whole and on disk.
pub(super) async fn fetch(
    context: &Context,
    job: &Job,
    dir: &DataDir,
    progress: Progress,
) -> anyhow::Result<Place> {
    let node = context.config.find(&job.from).ok_or_else(|| anyhow!("{} is not configured", job.from))?;
    // After an interrupted one, what stands in place may be a copy.
    let standing = if context.resync.holds_back() { Standing::Attempt } else { Standing::Own };
    match job.flavour {
        Flavour::Mariadb => back_up(context, job, node, dir, standing, progress).await,
        Flavour::Mysql => clone(context, node, dir, standing, progress).await,
    }
}

/// `mariadb-backup`, over the agents' link.
async fn back_up(
    context: &Context,
    job: &Job,
    node: &Node,
    dir: &DataDir,
    standing: Standing,
    progress: Progress,
) -> anyhow::Result<Place> {
    let copies = context.copies.as_ref().ok_or_else(|| anyhow!("the port of copies is not open"))?;
    let into = on_disk(dir, move |dir| dir.begin(standing)).await?;
    let fetch = Fetch {
        tls: context.tls.clone(),
        from: job.from.clone(),
        address: context.config.copy_address(node),
        epoch: job.epoch,
        into: into.clone(),
        progress,
    };
    copies.fetch(fetch).await.context("the copy is not whole")?;
    context.resync.enter(ResyncPhase::Preparing);
    prepare(into.clone()).await?;
    on_disk(dir, DataDir::dress).await?;
    let position = position_of_copy(&into)?;
    Ok(Place::Told { state: state_of_copy(&job.state, &position)?, position })
}

/// The clone plugin, over the databases' own connection.
async fn clone(
    context: &Context,
    node: &Node,
    dir: &DataDir,
    standing: Standing,
    progress: Progress,
) -> anyhow::Result<Place> {
    let mysql = context.hands.mysql.as_ref().ok_or_else(|| anyhow!("this node has no database"))?;
    let port = context.config.mysql.as_ref().map_or(0, |mysql| mysql.port);
    // One that an earlier agent began would go on writing.
    mysql.end_clones(STATEMENT).await?;
    let into = on_disk(dir, move |dir| dir.begin_nested(standing)).await?;
    let host = node.address.to_string();
    let cloning = mysql.clone_into(&host, port, &into, CLONE_DEADLINE);
    tokio::pin!(cloning);
    loop {
        tokio::select! {
            cloned = &mut cloning => break cloned.context("the copy is not whole")?,
            () = tokio::time::sleep(CLONE_LOOK) => {
                if let Ok(bytes) = mysql.clone_progress(STATEMENT).await {
                    progress.set(bytes);
                }
            }
        }
    }
    context.resync.enter(ResyncPhase::Preparing);
    on_disk(dir, DataDir::unnest).await?;
    on_disk(dir, DataDir::dress).await?;
    Ok(Place::Known)
}

/// Tells the database that runs on the copy its place, or makes sure that it knows.
pub(super) async fn tell(mysql: &Mysql, job: &Job, place: &Place) -> anyhow::Result<()> {
    match place {
        Place::Told { state, position } => Ok(mysql.seed(state, position, STATEMENT).await?),
        Place::Known => {
            let executed = mysql.facts(STATEMENT).await?.executed;
            let has_all = gtid::contains(job.flavour, &executed, &job.state)?;
            ensure!(
                has_all,
                "the database does not run on the copy: it has {executed} instead of {}",
                job.state
            );
            Ok(())
        }
    }
}

/// Applies the log that came with the copy.
async fn prepare(copy: PathBuf) -> anyhow::Result<()> {
    let mut command = Command::new(PROGRAM);
    command.args(["--no-defaults", "--prepare"]).arg(format!("--target-dir={}", copy.display()));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PREPARE_DEADLINE, command.output()).await;
    let output = ended.map_err(|_| anyhow!("{PROGRAM} --prepare did not end"))?.context(PROGRAM)?;
    ensure!(
        output.status.success(),
        "{PROGRAM} --prepare ended with {}: {}",
        output.status,
        tail(&String::from_utf8_lossy(&output.stderr))
    );
    Ok(())
}
