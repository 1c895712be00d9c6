//! The steps that only a switchover has. What comes before the closing on the holder is in `draining.rs`.
//!
//! ```text
//!  holder: drain_holder ─ close_holder ── position ──▶ ledger
//!                                                       │
//!  target: prepare_target ─ catch_up … waits for it … ◀─┘  equal · cut · equal · writable behind closed ports
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use baton_runbooks::lease::holder::Door;
use baton_runbooks::observe::{Flavour, RedisFacts, ReplicationFacts, ServiceState};
use baton_runbooks::plan::Step;
use baton_runbooks::run::{Run, StepStatus, switchover};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::{Instant, sleep};

use super::super::part_from_clients;
use super::super::settlement::Settlement;
use super::act::{DRAIN_STILL_MAX, STATEMENT, fact};
use super::near::SAY_WHY;
use super::{Executor, Facts};
use crate::hands::mysql::close::Closing;
use crate::hands::mysql::gtid;
use crate::hands::mysql::promote::{DrainProgress, Drained};
use crate::hands::redis::{Clients, Redis};

/// Deadline of one Redis command.
const COMMAND: Duration = Duration::from_secs(1);
/// How often a wait without a notice looks again: draining, attaching, opening again.
pub(super) const LOOK: Duration = Duration::from_millis(25);
/// How long closing waits for whoever switches semi-sync or commits a canary. Both take milliseconds on a healthy pair.
const ALONE_MAX: Duration = Duration::from_millis(700);
/// How often a waiting target looks whether its own servers are still there.
const TARGET_LOOK: Duration = Duration::from_millis(250);
/// The target must have what the closed holder noted within this time: nobody is served meanwhile.
const CAUGHT_UP_MAX: Duration = Duration::from_millis(switchover::CATCH_UP_MS);
/// How long the target tries to be read-only again before the old holder opens.
const UNDO_MAX: Duration = Duration::from_secs(2);
/// How often Redis' offset is looked at while the service is closed: it is there within a millisecond or two.
const OFFSET_LOOK: Duration = Duration::from_millis(1);
/// Redis must have what the closed holder has within this time.
const OFFSET_MAX: Duration = Duration::from_secs(1);

impl Executor {
    /// What is received is applied soon, everything that will be needed is there. No client notices.
    pub(super) async fn prepare_target(&self) -> anyhow::Result<Facts> {
        let give_up = Instant::now() + self.limit.saturating_sub(SAY_WHY);
        let mut facts = Facts::new();
        if let Some(mysql) = &self.context.hands.mysql {
            let seen = mysql.facts(STATEMENT).await?;
            running(seen.replication.as_ref())?;
            facts.push(fact("applied", self.keeps_up(mysql, give_up).await?));
        }
        if let Some(redis) = &self.context.hands.redis {
            let seen = redis.facts(COMMAND).await?;
            ensure!(seen.link_up && !seen.primary, "Redis does not follow the holder");
            facts.push(fact("redis_offset", seen.offset));
        }
        if let Some(services) = &self.context.hands.services {
            let states = services.states().await;
            let missing: Vec<&str> = states
                .iter()
                .filter(|(_, state)| *state == ServiceState::Missing)
                .map(|(name, _)| name.as_str())
                .collect();
            ensure!(missing.is_empty(), "services are not created here: {}", missing.join(", "));
        }
        Ok(facts)
    }

    /// From here on no client is answered here: the ports are closed by a latch, MySQL is read-only, Redis refuses writes.
    /// The VIP goes on, with resets, so that nobody hangs until the new holder takes it.
    pub(super) async fn close_holder(&self) -> anyhow::Result<Facts> {
        // Nobody opens MySQL or commits a canary from before the closing until the positions are noted: what was begun for
        // an older wish would be a write that the target lacks.
        let _alone = self.alone().await?;
        let _no_canary = self.no_canary().await?;
        let hands = &self.context.hands;
        // Clients are served meanwhile.
        let ready = match &hands.mysql {
            Some(mysql) => mysql.ready_to_close().await,
            None => None,
        };
        self.check_current()?;
        part_from_clients(&self.context.lease, hands).await;
        let (told, heard) = oneshot::channel();
        // Who came through between the parting and the closing, or was not reset in time, is reset as soon as nobody else can
        // come. It takes milliseconds, and waits for no database.
        let doors = async {
            let closed = self.context.lease.close(&[Door::Ports], self.wish).await;
            let is_closed = closed.is_ok();
            let _ = told.send(closed.context("close the ports"));
            if is_closed {
                hands.reset_clients().await;
            }
        };
        let ports = async { heard.await.context("nobody closed the ports")? };
        let mysql = async {
            let Some(mysql) = &hands.mysql else { return Ok(None) };
            match mysql.close_writes_with(ready, self.limit.mul_f64(0.7)).await {
                Closing::Closed { killed, took_ms } => Ok(Some((killed, took_ms))),
                Closing::StillOpen { why } | Closing::Unknown { why } => {
                    bail!("MySQL is not read-only: {why}")
                }
            }
        };
        let redis = async {
            let Some(redis) = &hands.redis else { return Ok(()) };
            redis.close(Clients::Kill, COMMAND).await.context("Redis does not refuse writes")
        };
        let positions = async {
            // Not before all three: through an open port a privileged client writes to a read-only server, too.
            let (ports, mysql, redis) = tokio::join!(ports, mysql, redis);
            let ((), closed, ()) = (ports?, mysql?, redis?);
            self.note_positions(closed).await
        };
        let ((), facts) = tokio::join!(doors, positions);
        facts
    }

    /// What the closed holder has. Nothing is added to it any more.
    async fn note_positions(&self, closed: Option<(u64, u64)>) -> anyhow::Result<Facts> {
        let hands = &self.context.hands;
        let mysql = async {
            let (Some(mysql), Some((killed, took_ms))) = (&hands.mysql, closed) else {
                return Ok(Facts::new());
            };
            let seen = mysql.standing(STATEMENT).await?;
            ensure!(seen.read_only, "MySQL accepts writes again");
            Ok(vec![fact("position", seen.position), fact("killed", killed), fact("read_only_ms", took_ms)])
        };
        let redis = async {
            let Some(redis) = &hands.redis else { return Ok(Facts::new()) };
            let seen = redis.facts(COMMAND).await?;
            ensure!(seen.min_replicas_to_write > 0, "Redis accepts writes again");
            Ok(vec![fact("redis_offset", seen.offset)])
        };
        let (mysql, redis) = tokio::join!(mysql, redis);
        let (mut facts, redis) = (mysql?, redis?);
        facts.extend(redis);
        Ok(facts)
    }

    async fn alone(&self) -> anyhow::Result<OwnedMutexGuard<()>> {
        let alone = tokio::time::timeout(ALONE_MAX, self.context.sync.exclusive()).await;
        alone.context("semi-sync is being switched for too long")
    }

    async fn no_canary(&self) -> anyhow::Result<NoCanary> {
        let kept_out = tokio::time::timeout(ALONE_MAX, self.context.sync.canary.keep_out()).await;
        kept_out.context("a canary is not acknowledged; is the replica there?")?;
        Ok(NoCanary(Arc::clone(&self.context.sync)))
    }

    /// The ledger says that this node is to open again, and the reconciler does it, for as long as it takes. Here it is only
    /// seen to: a node that is not open in time shows why by itself, and no run has to stop for it.
    pub(super) async fn undo_close(&self) {
        let reopened = async {
            while !self.is_open_again().await {
                sleep(LOOK).await;
            }
        };
        // However long a look hangs.
        if tokio::time::timeout(self.limit.mul_f64(0.8), reopened).await.is_ok() {
            return;
        }
        tracing::warn!("a switchover is undone, and this node is not open again yet");
    }

    async fn is_open_again(&self) -> bool {
        let is_open = self.context.lease.view().borrow().ports_open;
        let read_only = match &self.context.hands.mysql {
            Some(mysql) => mysql.is_read_only(COMMAND).await.unwrap_or(true),
            None => false,
        };
        is_open && !read_only
    }

    /// Has what the closed holder has, seen twice with the cut in between, and accepts writes behind closed ports.
    pub(super) async fn catch_up(&self) -> anyhow::Result<Facts> {
        if let Some(mysql) = &self.context.hands.mysql {
            // A sync of the disk, which nobody has to wait for later.
            let server = mysql.server_identity().await?.to_string();
            self.context.local.note_opening(&server).await.context("note which server is opened")?;
        }
        let run = self.closed_holder().await?;
        self.mysql_caught_up(&run).await?;
        // After MySQL: the second that Redis has begins now, and what its offset is judged by is not old when it is promoted.
        let facts = self.redis_caught_up(&run).await?;
        if self.context.hands.mysql.is_some() {
            self.make_writable().await?;
        }
        Ok(facts)
    }

    /// MySQL has what the closed holder noted, no more and no less: seen twice, with the cut in between. Not waited for as long as
    /// there is progress: until the old holder is open again nobody is served. It was seen to be near before the closing.
    async fn mysql_caught_up(&self, run: &Run) -> anyhow::Result<()> {
        let Some(mysql) = &self.context.hands.mysql else { return Ok(()) };
        let position = run.fact(Step::CloseHolder, "position").context("the holder noted no position")?;
        let left = AtomicU64::new(0);
        let caught_up = async {
            let note = |now: &DrainProgress| left.store(now.backlog, Ordering::Relaxed);
            reached(mysql.drain(position, DRAIN_STILL_MAX, note).await?)?;
            anyhow::Ok(mysql.standing(STATEMENT).await?)
        };
        let seen = in_time(CAUGHT_UP_MAX, &left, caught_up).await?;
        equal(seen.flavour, position, &seen.position)?;
        let (peer, port) = self.peer_mysql()?;
        self.check_current()?;
        self.context.hands.cut_stream(peer, port).await.context("cut the replication stream")?;
        let captured = mysql.capture_received(STATEMENT).await?;
        equal(seen.flavour, position, &captured.applied)?;
        ensure!(captured.backlog == 0, "{} transactions came after the holder had closed", captured.backlog);
        Ok(())
    }

    /// Redis has what the closed holder noted.
    async fn redis_caught_up(&self, run: &Run) -> anyhow::Result<Facts> {
        let Some(redis) = &self.context.hands.redis else { return Ok(Facts::new()) };
        let noted = run.fact(Step::CloseHolder, "redis_offset").context("the holder noted no offset")?;
        let offset = noted.parse().context("the offset that the holder noted")?;
        Ok(vec![fact("redis_offset", offset_reached(redis, offset).await?.offset)])
    }

    /// Read-only again. The old holder must not stay closed because the server here has died meanwhile: this node has no
    /// lease, and the reconciler closes a server that comes back.
    pub(super) async fn undo_catch_up(&self) {
        let Some(mysql) = &self.context.hands.mysql else { return };
        let until = Instant::now() + UNDO_MAX;
        loop {
            let undone = match mysql.is_read_only(COMMAND).await {
                Ok(true) => return,
                Ok(false) => mysql.undo_promotion(COMMAND).await,
                Err(error) => Err(error),
            };
            match undone {
                Ok(()) => return,
                Err(error) if Instant::now() >= until => {
                    tracing::warn!(
                        error = crate::chain::chain(&error),
                        "the target is not read-only again yet"
                    );
                    return;
                }
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// Waits until the journal says that the holder has closed.
    async fn closed_holder(&self) -> anyhow::Result<Run> {
        let mut committed = self.context.consensus.committed();
        loop {
            committed.mark_unchanged();
            let run = self.check_going_on()?;
            if run.status(Step::CloseHolder) == StepStatus::Done {
                return Ok(run);
            }
            tokio::select! {
                changed = committed.changed() => changed.context("the consensus thread has ended")?,
                () = sleep(TARGET_LOOK) => self.target_answers().await?,
            }
        }
    }

    /// The holder is not closed for a target that is gone.
    async fn target_answers(&self) -> anyhow::Result<()> {
        if let Some(mysql) = &self.context.hands.mysql {
            mysql.is_read_only(COMMAND).await.context("MySQL does not answer here")?;
        }
        if let Some(redis) = &self.context.hands.redis {
            redis.facts(COMMAND).await.context("Redis does not answer here")?;
        }
        Ok(())
    }

    /// The run, if this step of it is still wanted.
    pub(super) fn check_going_on(&self) -> anyhow::Result<Run> {
        self.check_current()?;
        let run = self.current_run()?;
        match &run.aborting {
            None => Ok(run),
            Some(reason) => bail!("given up: {reason}"),
        }
    }

    /// The old holder follows the new one. The reconciler does it; here it is seen to.
    pub(super) async fn attach_old(&self) -> anyhow::Result<Facts> {
        let until = Instant::now() + self.limit.mul_f64(0.95);
        let hands = &self.context.hands;
        loop {
            let mysql = match &hands.mysql {
                Some(mysql) => running(mysql.facts(STATEMENT).await?.replication.as_ref()),
                None => Ok(()),
            };
            let redis = match &hands.redis {
                Some(redis) => redis.facts(COMMAND).await?.link_up,
                None => true,
            };
            match mysql {
                Ok(()) if redis => break,
                Ok(()) if Instant::now() >= until => bail!("Redis does not follow"),
                Err(error) if Instant::now() >= until => return Err(error),
                Ok(()) | Err(_) => sleep(LOOK).await,
            }
        }
        Ok(Facts::new())
    }
}

/// No canary is committed while this lives.
struct NoCanary(Arc<Settlement>);

impl Drop for NoCanary {
    fn drop(&mut self) {
        self.0.canary.ended();
    }
}

fn running(replication: Option<&ReplicationFacts>) -> anyhow::Result<()> {
    let replication = replication.context("MySQL follows nobody")?;
    ensure!(replication.io_running && replication.sql_running, "MySQL's replication does not run");
    Ok(())
}

pub(super) fn reached(drained: Drained) -> anyhow::Result<()> {
    match drained {
        Drained::Reached => Ok(()),
        Drained::ApplierError { errno, message } => {
            bail!("the applier stopped with error {errno}: {message}")
        }
        Drained::BothThreadsStopped { left } => {
            bail!("both replication threads are stopped, {} transactions left", left.backlog)
        }
        Drained::NoProgress { left } => {
            bail!("no progress for {} ms, {} transactions left", left.still_ms, left.backlog)
        }
    }
}

/// What `work` brings within `max`; `left` is how many transactions it still waits for.
async fn in_time<T>(
    max: Duration,
    left: &AtomicU64,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(max, work).await {
        Ok(end) => end,
        Err(_) => bail!(
            "{} ms after the holder had closed {} transactions are not applied here",
            max.as_millis(),
            left.load(Ordering::Relaxed)
        ),
    }
}

fn equal(flavour: Flavour, noted: &str, now: &str) -> anyhow::Result<()> {
    let same = gtid::is_same(flavour, noted, now)?;
    ensure!(same, "the positions differ: the closed holder noted {noted}, here is {now}");
    Ok(())
}

async fn offset_reached(redis: &Redis, offset: u64) -> anyhow::Result<RedisFacts> {
    let until = Instant::now() + OFFSET_MAX;
    loop {
        let seen = redis.facts(COMMAND).await?;
        if seen.offset >= offset && seen.link_up {
            return Ok(seen);
        }
        let behind = offset.saturating_sub(seen.offset);
        ensure!(Instant::now() < until, "Redis is {behind} bytes behind the closed holder");
        sleep(OFFSET_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_target_that_goes_on_applying_does_not_keep_everybody_waiting() {
        let left = AtomicU64::new(0);
        let applying = async {
            left.store(7, Ordering::Relaxed);
            std::future::pending::<anyhow::Result<()>>().await
        };
        let late = in_time(Duration::from_millis(20), &left, applying).await.unwrap_err();
        assert_eq!(late.to_string(), "20 ms after the holder had closed 7 transactions are not applied here");
        assert_eq!(in_time(CAUGHT_UP_MAX, &left, async { Ok(3) }).await.unwrap(), 3);
    }
}
