//! Executors: carry out one step each. Check, act if need be, verify; the outcome goes back to the core.
//!
//! A step was started in the committed journal before its executor runs. Right before each effect the executor looks at
//! the applied ledger again and stops unless this very attempt is still the one to be carried out, so that an agent that
//! was frozen in between does no harm; what it could still open is closed by the lease in any case. Doors are opened under
//! the number of the wish with which the step began: a later wish that closes them wins over a step that comes late.

mod act;
mod draining;
mod failpoint;
mod handover;
mod near;

pub(super) use failpoint::hang_if_told;

use std::time::Duration;

use baton_runbooks::agent::{Input, StepResult};
use baton_runbooks::model::{Epoch, RunId};
use baton_runbooks::plan::{PlannedStep, Step};
use baton_runbooks::run::{Run, StepStatus};

use super::Context;
use super::driver::Inputs;

/// What a step brings back for the journal.
pub(super) type Facts = Vec<(String, String)>;

/// A step or an undo to be carried out.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) run: RunId,
    pub(super) epoch: Epoch,
    pub(super) attempt: u32,
    pub(super) planned: PlannedStep,
    pub(super) undo: bool,
}

/// One job with all that it needs.
struct Executor {
    context: Context,
    inputs: Inputs,
    wish: u64,
    epoch: Epoch,
    run: RunId,
    /// What the journal must say of the step for as long as it is acted on.
    standing: (Step, StepStatus),
    limit: Duration,
}

/// Carries out `job` in a task of its own.
pub(super) fn spawn(context: Context, inputs: Inputs, wish: u64, job: Job) {
    tokio::spawn(async move {
        let limit = Duration::from_millis(job.planned.limit_ms);
        let step = job.planned.step;
        let status = if job.undo { StepStatus::Undoing } else { StepStatus::Acting { attempt: job.attempt } };
        let (epoch, run, standing) = (job.epoch, job.run, (step, status));
        let executor = Executor { context, inputs, wish, epoch, run, standing, limit };
        let work = async {
            failpoint::pass(step, failpoint::Point::Started).await?;
            let late = || anyhow::anyhow!("no end within {} ms", job.planned.limit_ms);
            let work = executor.carry_out(step, job.undo);
            let facts = tokio::time::timeout(limit, work).await.map_err(|_| late())??;
            failpoint::pass(step, failpoint::Point::Acted).await?;
            Ok(facts)
        };
        let outcome: anyhow::Result<Facts> = work.await;
        let result = match outcome {
            Ok(facts) => StepResult::Done { facts },
            Err(error) => {
                tracing::warn!(%step, undo = job.undo, "step failed: {error:#}");
                StepResult::Failed { error: format!("{error:#}") }
            }
        };
        let Job { run, epoch, attempt, undo, .. } = job;
        let _ = executor.inputs.send(Input::StepEnded { run, epoch, step, attempt, undo, result }).await;
    });
}

impl Executor {
    async fn carry_out(&self, step: Step, undo: bool) -> anyhow::Result<Facts> {
        self.check_current()?;
        let span = tracing::info_span!("step", run = self.run.0, epoch = self.epoch.0, %step, undo);
        let _entered = span.enter();
        tracing::info!("step begins");
        drop(_entered);
        if undo { self.undo(step).await.map(|()| Facts::new()) } else { self.act(step).await }
    }

    async fn undo(&self, step: Step) -> anyhow::Result<()> {
        match step {
            // The cut stands until this node follows an open holder: until then the ledger may call this node complete, and what
            // the old primary commits must not be acknowledged by it.
            Step::FenceOld
            | Step::CutStream
            | Step::DrainRelayLog
            | Step::PrepareTarget
            // Services and events are the reconciler's, as soon as the ledger says so.
            | Step::DrainHolder
            | Step::OpenPorts
            | Step::AttachOld
            | Step::Validate => Ok(()),
            Step::CloseHolder => {
                self.undo_close().await;
                Ok(())
            }
            Step::CatchUp => {
                self.undo_catch_up().await;
                Ok(())
            }
            Step::HoldVip => self.undo_vip().await,
            Step::PromoteMysql => self.undo_promotion().await,
            Step::StartIndependent | Step::StartServices => Ok(()),
        }
    }

    async fn act(&self, step: Step) -> anyhow::Result<Facts> {
        match step {
            Step::PrepareTarget => self.prepare_target().await,
            Step::DrainHolder => self.drain_holder().await,
            Step::CloseHolder => self.close_holder().await,
            Step::CatchUp => self.catch_up().await,
            Step::AttachOld => self.attach_old().await,
            Step::FenceOld => self.fence_old().await,
            Step::CutStream => self.cut_stream().await,
            Step::HoldVip => self.hold_vip().await,
            Step::DrainRelayLog => self.drain().await,
            Step::PromoteMysql => self.promote().await,
            Step::OpenPorts => self.open_ports().await,
            Step::StartIndependent => self.start_services(false).await,
            Step::StartServices => self.start_services(true).await,
            Step::Validate => super::validate::validate(&self.context, self.limit).await,
        }
    }

    /// Fails when the ledger has moved on: a stale actor does nothing (design, G7).
    fn check_current(&self) -> anyhow::Result<()> {
        let committed = self.context.consensus.committed();
        let ledger = &committed.borrow().ledger;
        let (step, status) = &self.standing;
        // A switchover's epoch has not begun before its pivot, so it is the run that names the epoch.
        let current = ledger.run.as_ref().map_or(ledger.epoch, |run| run.plan.epoch);
        anyhow::ensure!(
            current == self.epoch,
            "stale: this step belongs to epoch {}, the ledger is at {current}",
            self.epoch,
        );
        // A run that was abandoned leaves the epoch as it is.
        let is_current =
            ledger.run.as_ref().is_some_and(|run| run.id == self.run && run.status(*step) == *status);
        anyhow::ensure!(is_current, "stale: run {} does not wait for this any more", self.run);
        Ok(())
    }

    /// The run as the ledger has it.
    fn current_run(&self) -> anyhow::Result<Run> {
        let committed = self.context.consensus.committed();
        let run = committed.borrow().ledger.run.clone();
        run.filter(|run| run.id == self.run).ok_or_else(|| anyhow::anyhow!("run {} has ended", self.run))
    }
}
