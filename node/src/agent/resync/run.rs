//! Replacing the database, phase by phase.
//!
//! Until the old database is stopped a failure changes nothing. From then on the marker stands, and a failure leaves the
//! node closed; repeating the resync begins with a new copy, and the node's own data are kept through all repetitions.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use baton_consensus::PATIENCE_HEARTBEATS;
use baton_runbooks::agent::TICK_MAX_MS;
use baton_runbooks::ledger::Complete;
use baton_runbooks::model::{Epoch, NodeId};
use baton_runbooks::observe::{Flavour, ResyncPhase};
use tokio::time::Instant;

use super::super::Context;
use super::preflight::CATCH_UP_MAX;
use super::{Resync, STATEMENT, fetch, unsaved};
use crate::api::resync::ResyncPlan;
use crate::copy::Progress;
use crate::hands::hooks;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::datadir::{DataDir, DataDirError};
use crate::hands::server;

/// A clean stop writes what is in memory.
const STOP_DEADLINE: Duration = Duration::from_secs(300);
/// The start command's own time, and then the server's until it answers.
const START_DEADLINE: Duration = Duration::from_secs(120);
const ANSWER_DEADLINE: Duration = Duration::from_secs(300);
/// For the majority's word on what is committed.
const BARRIER: Duration = Duration::from_secs(2);
/// How often a state is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(200);
/// What of a program's words goes into a message, in characters.
const WORDS_MAX: usize = 600;
/// How long a database that was stopped for nothing may take until it is in sync again.
const AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// How a resync ends that found nothing to do any more.
const BY_ITSELF: &str = "it has come in sync by itself meanwhile, and nothing was replaced";

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// The holder.
    pub(super) from: NodeId,
    /// Its epoch.
    pub(super) epoch: Epoch,
    /// Family of its server.
    pub(super) flavour: Flavour,
    /// What it had executed before the copy is begun.
    pub(super) state: String,
    /// The transactions that this node had and the holder lacked by then. All of them are saved; empty: there were none.
    pub(super) saved: String,
    /// The old data are kept.
    pub(super) keep: bool,
}

/// Starts it beside everything else; `None`: another one is under way.
pub(super) fn start(context: &Context, plan: &ResyncPlan, job: Job) -> Option<u64> {
    let progress = Progress::default();
    let number = context.resync.begin(&job.from, plan.bytes, progress.clone())?;
    let context = context.clone();
    tokio::spawn(async move {
        let resync = context.resync.clone();
        match replace(&context, &job, progress).await {
            Ok(note) => {
                tracing::info!(note, "resync: this node is in sync again");
                resync.end(ResyncPhase::Done, note);
            }
            Err(error) => {
                let phase = if resync.holds_back() || is_past_swap(&resync) {
                    ResyncPhase::Stuck
                } else {
                    ResyncPhase::Failed
                };
                tracing::error!(?phase, "resync: {error:#}");
                resync.end(phase, Some(format!("{error:#}")));
            }
        }
    });
    Some(number)
}

/// The database runs on the copy, and only has not caught up.
fn is_past_swap(resync: &Resync) -> bool {
    resync.facts().is_some_and(|facts| facts.phase == ResyncPhase::CatchingUp)
}

async fn replace(context: &Context, job: &Job, progress: Progress) -> anyhow::Result<Option<String>> {
    let resync = &context.resync;
    let config = context.config.mysql.as_ref().ok_or_else(|| anyhow!("no [mysql] is configured"))?;
    let mysql = context.hands.mysql.as_ref().ok_or_else(|| anyhow!("this node has no database"))?;
    let dir = DataDir::new(&config.data_dir);
    let copied = fetch::fetch(context, job, &dir, progress).await;
    let place = match copied {
        Ok(place) => place,
        Err(error) => {
            // Rubbish now; the next one would remove it as well.
            let _ = on_disk(&dir, DataDir::drop_incoming).await;
            return Err(error);
        }
    };
    if is_in_sync(context) {
        let _ = on_disk(&dir, DataDir::drop_incoming).await;
        return Ok(Some(BY_ITSELF.to_owned()));
    }
    resync.enter(ResyncPhase::Stopping);
    // After an interrupted one, what stands in place may be a copy that does not know its place.
    let is_own = !resync.holds_back();
    let keep = match unsaved::must_keep(context, mysql, job, is_own).await {
        Ok(keep) => keep,
        Err(error) => {
            let _ = on_disk(&dir, DataDir::drop_incoming).await;
            return not_stopped(resync, &dir, is_own, error).await;
        }
    };
    resync.hold_back(keep).context("the state directory refuses a write")?;
    // In this order: from here on this node is nobody's candidate, and nothing may have made it one before.
    let told = Instant::now() + report_max(context);
    let stopped = match is_still_held(context, job) {
        Ok(()) => stop(context, mysql).await,
        Err(error) => Err(error),
    };
    if let Err(error) = stopped {
        return not_stopped(resync, &dir, is_own, error).await;
    }
    // A leader that had not heard of it may have chosen this node meanwhile, for what is about to be replaced.
    tokio::time::sleep_until(told).await;
    if let Err(error) = is_held_everywhere(context, job).await {
        // Its word that it was in sync was on its way when it was stopped.
        let by_itself = is_own && error.is::<InSync>();
        let error = error.context("nothing was replaced");
        let _ = on_disk(&dir, DataDir::drop_incoming).await;
        if is_own {
            resync.enter(ResyncPhase::Starting);
            if let Err(start) = start_server(context, mysql).await {
                return Err(error.context(format!("the database was stopped, and does not start: {start:#}")));
            }
        }
        resync.let_go_if(is_own).context("the marker is not removed")?;
        if by_itself && in_sync_again(context, mysql, job).await.is_ok() {
            return Ok(Some(BY_ITSELF.to_owned()));
        }
        return Err(error);
    }
    resync.enter(ResyncPhase::Swapping);
    on_disk(&dir, |dir| dir.swap()).await?;
    resync.enter(ResyncPhase::Starting);
    start_server(context, mysql).await?;
    resync.enter(ResyncPhase::Seeding);
    fetch::tell(mysql, job, &place).await?;
    resync.let_go_if(true).context("the marker is not removed")?;
    resync.enter(ResyncPhase::CatchingUp);
    catch_up(context, job).await?;
    put_away(resync, &dir, keep).await
}

/// The old data are removed, or kept under a name that says so. A copy that is in sync does not fail any more.
async fn put_away(resync: &Resync, dir: &DataDir, keep: bool) -> anyhow::Result<Option<String>> {
    if keep {
        let number = resync.facts().map_or(0, |facts| facts.number);
        let kept = on_disk(dir, move |dir| dir.keep_before(number)).await;
        return Ok(Some(match kept {
            Ok(kept) => format!("the old data are kept in {}", kept.display()),
            Err(error) => format!("the old data are kept in {}: {error:#}", dir.before().display()),
        }));
    }
    match on_disk(dir, |dir| dir.drop_before()).await {
        Ok(()) => Ok(None),
        Err(error) => Ok(Some(format!("{error:#}; remove it by hand"))),
    }
}

/// Nothing is replaced by this one. The node's own database goes on as it was, if it still runs; well, if the ledger's word that
/// it is in sync came at the last moment.
async fn not_stopped(
    resync: &Resync,
    dir: &DataDir,
    is_own: bool,
    error: anyhow::Error,
) -> anyhow::Result<Option<String>> {
    let by_itself = is_own && error.is::<InSync>();
    let error = error.context("the database is not stopped, and nothing was replaced");
    if let Err(marker) = resync.let_go_if(is_own) {
        return Err(error.context(format!("the marker is not removed: {marker}")));
    }
    if !by_itself {
        return Err(error);
    }
    let _ = on_disk(dir, DataDir::drop_incoming).await;
    Ok(Some(BY_ITSELF.to_owned()))
}

/// After this no leader counts on a report from before: the newest of them has left with a heartbeat, was taken at a tick, and is
/// too old.
fn report_max(context: &Context) -> Duration {
    let timing = &context.config.timing;
    let waits = timing.heartbeat.duration() * PATIENCE_HEARTBEATS + Duration::from_millis(TICK_MAX_MS);
    waits + timing.rtt.duration() + Duration::from_millis(super::super::report_max_ms(&context.config))
}

fn is_in_sync(context: &Context) -> bool {
    let committed = context.consensus.committed();
    matches!(committed.borrow().ledger.in_sync.get(&context.config.node), Some(Complete::Replica { .. }))
}

/// The same of everything that was committed anywhere before now.
async fn is_held_everywhere(context: &Context, job: &Job) -> anyhow::Result<()> {
    context.consensus.read_barrier(BARRIER).await.context("the ledger cannot be read")?;
    is_still_held(context, job)
}

/// The replica has come in sync, so there is nothing to replace.
#[derive(Debug, thiserror::Error)]
#[error("{0} is in sync, and may be taken for complete")]
struct InSync(NodeId);

/// The holder that was copied still is the holder, nobody is to take over from it, and no takeover counts on this node.
pub(super) fn is_still_held(context: &Context, job: &Job) -> anyhow::Result<()> {
    let ledger = context.consensus.committed().borrow().ledger.clone();
    let is_same =
        ledger.holder.as_ref() == Some(&job.from) && ledger.epoch == job.epoch && ledger.run.is_none();
    ensure!(
        is_same,
        "{} does not hold the baton in epoch {} any more, or a run is under way",
        job.from,
        job.epoch
    );
    let me = &context.config.node;
    match ledger.in_sync.get(me) {
        None => Ok(()),
        Some(Complete::Replica { .. }) => Err(InSync(me.clone()).into()),
        Some(Complete::Holder | Complete::Accepted { .. }) => bail!("{me} may be taken for complete"),
    }
}

/// Its own database runs again, as it was: waits until the ledger vouches for this start of it.
async fn in_sync_again(context: &Context, mysql: &Mysql, job: &Job) -> anyhow::Result<()> {
    let server = mysql.facts(STATEMENT).await?.instance.server;
    let me = &context.config.node;
    let mut committed = context.consensus.committed();
    let settled = committed.wait_for(|state| {
        let vouched = match state.ledger.in_sync.get(me) {
            Some(Complete::Replica { instance }) => instance.server == server,
            Some(Complete::Holder | Complete::Accepted { .. }) | None => false,
        };
        vouched || state.ledger.epoch != job.epoch
    });
    let settled = tokio::time::timeout(AGAIN_WITHIN, settled).await??;
    ensure!(settled.ledger.epoch == job.epoch, "the holder has changed");
    Ok(())
}

/// The end of what a program says: there it says why it failed.
pub(super) fn tail(words: &str) -> String {
    let words = words.trim();
    words.chars().skip(words.chars().count().saturating_sub(WORDS_MAX)).collect()
}

/// The database has ended, whoever ended it.
async fn stop(context: &Context, mysql: &Mysql) -> anyhow::Result<()> {
    // One that does not listen may run all the same, so the command is run in any case.
    let running = mysql.server_identity().await.ok();
    command(context, "stop", STOP_DEADLINE).await?;
    if let Some(running) = running {
        let ended = tokio::time::timeout(STOP_DEADLINE, server::exited(running)).await;
        ended.map_err(|_| anyhow!("the stop command has ended, and process {running} goes on"))??;
    }
    if let Ok(again) = mysql.server_identity().await {
        bail!("somebody started the database again: process {again}");
    }
    Ok(())
}

async fn start_server(context: &Context, mysql: &Mysql) -> anyhow::Result<()> {
    command(context, "start", START_DEADLINE).await?;
    let until = Instant::now() + ANSWER_DEADLINE;
    loop {
        match mysql.facts(STATEMENT).await {
            Ok(facts) if facts.read_only => return Ok(()),
            Ok(_) => bail!("the database does not boot read-only"),
            Err(error) if Instant::now() >= until => {
                return Err(error)
                    .context("the database was started on the copy and does not answer; its log says why");
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Runs `mysql.start` or `mysql.stop`.
async fn command(context: &Context, which: &str, deadline: Duration) -> anyhow::Result<()> {
    let config = context.config.mysql.as_ref();
    let hook =
        config.and_then(|mysql| if which == "start" { mysql.start.as_ref() } else { mysql.stop.as_ref() });
    let hook = hook.ok_or_else(|| anyhow!("mysql.{which} is not configured"))?;
    let hook = hooks::Hook { program: hook.program.clone(), args: hook.args.clone() };
    let environment = BTreeMap::from([("BATON_NODE".to_owned(), context.config.node.to_string())]);
    let ended = hooks::run(&hook, &environment, deadline).await;
    ensure!(ended.is_success(), "mysql.{which} failed, {:?}: {}", ended.end, tail(&ended.output));
    Ok(())
}

/// The reconciler attaches, and the holder's keeper declares in sync.
async fn catch_up(context: &Context, job: &Job) -> anyhow::Result<()> {
    let me = context.config.node.clone();
    let mut committed = context.consensus.committed();
    let settled = committed.wait_for(|state| {
        let ledger = &state.ledger;
        matches!(ledger.in_sync.get(&me), Some(Complete::Replica { .. })) || ledger.epoch != job.epoch
    });
    let settled = tokio::time::timeout(CATCH_UP_MAX, settled).await;
    let settled =
        settled.map_err(|_| anyhow!("the copy runs and has not caught up within an hour; it goes on"))?;
    let ledger = settled.context("consensus has ended")?.ledger.clone();
    ensure!(
        ledger.epoch == job.epoch,
        "the holder has changed while the copy was catching up; `baton status` says whether it follows the new one"
    );
    Ok(())
}

/// Files are large and disks may hang: on a thread that may block.
pub(super) async fn on_disk<T: Send + 'static>(
    dir: &DataDir,
    work: impl FnOnce(&DataDir) -> Result<T, DataDirError> + Send + 'static,
) -> anyhow::Result<T> {
    let dir = dir.clone();
    Ok(tokio::task::spawn_blocking(move || work(&dir)).await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_sync() -> anyhow::Error {
        InSync(NodeId::from("db2")).into()
    }

    #[tokio::test]
    async fn what_came_in_sync_at_the_last_moment_ends_well_and_is_let_go() {
        for (is_own, error, ends_well) in
            [(true, in_sync(), true), (true, anyhow!("it hangs"), false), (false, in_sync(), false)]
        {
            let state = tempfile::tempdir().unwrap();
            let dir = DataDir::new(&state.path().join("data"));
            let resync = Resync::open(state.path());
            resync.hold_back(false).unwrap();
            let said = error.to_string();
            match not_stopped(&resync, &dir, is_own, error).await {
                Ok(note) => assert!(ends_well && note.as_deref() == Some(BY_ITSELF), "{said}"),
                Err(error) => assert!(!ends_well && format!("{error:#}").ends_with(&said), "{error:#}"),
            }
            // What may be a copy that does not know its place is attached by nobody.
            assert_eq!(resync.holds_back(), !is_own, "{said}");
            assert_eq!(state.path().join("resync").exists(), !is_own, "{said}");
        }
    }
}
