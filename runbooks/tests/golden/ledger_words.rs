//! Words about the ledger and its run: `cluster`, `apply WHAT`, `force`, `run to=STEP`, `next`.

use std::collections::BTreeMap;

use baton_runbooks::ledger::{Command, Complete, Forced, Ledger, LossAccepted, PauseOrder, Response};
use baton_runbooks::model::{Epoch, NodeId, NodeKind, PauseId, RunId, SyncGeneration, WallMs};
use baton_runbooks::plan::{Basis, Kind, Plan, Runbook, Step};
use baton_runbooks::run::{Entry, Event, Next, RunState, switchover, takeover};
use baton_runbooks::why::Why;
use datadriven::TestCase;

use crate::scene::{Scene, maybe, node, text};

impl Scene {
    pub fn ledger_word(&mut self, word: &str, case: &mut TestCase) -> Result<String, String> {
        match word {
            "cluster" => self.cluster(case),
            "apply" => {
                let command = self.command(case)?;
                let answer = match self.ledger.apply(command) {
                    Response::Accepted => "accepted".to_owned(),
                    Response::Rejected { rejection } => format!("rejected: {rejection}"),
                };
                Ok(format!("{answer}\n{}", describe(&self.ledger)))
            }
            "force" => self.force(case),
            "run" => {
                let until = text(case, "to")?;
                self.go(until.as_deref())?;
                Ok(describe(&self.ledger))
            }
            _ => {
                let node = node(case, "node")?.ok_or("next wants node=")?;
                let lines: Vec<String> =
                    self.ledger.run.iter().flat_map(|run| run.next(&node)).map(|next| told(&next)).collect();
                Ok(if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") })
            }
        }
    }

    /// The survivor goes on alone; with `loss=yes` it may lack acknowledged writes.
    fn force(&mut self, case: &mut TestCase) -> Result<String, String> {
        let survivor = node(case, "survivor")?.unwrap_or_else(|| NodeId::from("db2"));
        let accepted = text(case, "loss")?.is_some_and(|word| word == "yes");
        let loss = LossAccepted { by: "an operator".to_owned(), at_most_ms: None };
        let gave_up = self.ledger.members.keys().filter(|node| **node != survivor).cloned().collect();
        self.ledger.force(Forced {
            generation: self.ledger.generation.next(),
            founder: String::new(),
            loss: accepted.then(|| (self.replica.1.instance.clone(), loss)),
            survivor,
            gave_up,
            last_index: 7,
            by: "an operator".to_owned(),
            reason: "fire".to_owned(),
            at: WallMs(0),
        });
        Ok(format!("generation {}\n{}", self.ledger.generation, describe(&self.ledger)))
    }

    /// A cluster of db1, db2 and mon: new, serving at db1, or with db2 in sync.
    fn cluster(&mut self, case: &mut TestCase) -> Result<String, String> {
        let mysql = text(case, "mysql")?.is_none_or(|word| word == "yes");
        self.policy.scope.mysql = mysql;
        let members = [("db1", NodeKind::Data), ("db2", NodeKind::Data), ("mon", NodeKind::Witness)];
        let members: BTreeMap<NodeId, NodeKind> = members.map(|(n, kind)| (NodeId::from(n), kind)).into();
        let (cluster, initial_holder) = ("shop".to_owned(), NodeId::from("db1"));
        let _ = self.ledger.apply(Command::Bootstrap { cluster, members, initial_holder, mysql });
        let state = text(case, "state")?.unwrap_or_else(|| "in-sync".to_owned());
        if state != "new" {
            let plan = Box::new(self.plan(&NodeId::from("db1")));
            let _ = self.ledger.apply(Command::StartRun { plan, at: WallMs(0) });
            self.go(None)?;
        }
        if state == "in-sync" {
            let _ = self.ledger.apply(self.sync_in(&NodeId::from("db1"), self.ledger.sync_generation));
        }
        Ok(describe(&self.ledger))
    }

    fn plan(&self, to: &NodeId) -> Plan {
        let target_instance = self.ledger.in_sync.get(to).and_then(Complete::instance).cloned();
        Plan {
            runbook: Runbook::Takeover,
            version: takeover::VERSION,
            epoch: self.ledger.epoch.next(),
            from: self.ledger.holder.clone().filter(|holder| holder != to),
            to: to.clone(),
            basis: Basis { epoch: self.ledger.epoch, sync: self.ledger.sync_generation, target_instance },
            why: vec![Why::Vacant],
            detected_ms_ago: None,
            holder_heard_ms: Default::default(),
            asked_by: None,
            drain_patience_ms: 0,
            steps: takeover::steps(to, self.ledger.witness(), self.policy.scope),
        }
    }

    fn switchover(&self, to: &NodeId) -> Plan {
        let from = self.ledger.holder.clone().unwrap_or_else(|| NodeId::from("db1"));
        let (witness, scope) = (self.ledger.witness(), self.policy.scope);
        let waits = switchover::Waits { patience_ms: 5_000, new_leader_ms: 1_470 };
        Plan {
            runbook: Runbook::Switchover,
            version: switchover::VERSION,
            asked_by: Some("an operator".to_owned()),
            drain_patience_ms: 5_000,
            steps: switchover::steps(&from, to, witness, scope, waits),
            from: Some(from),
            ..self.plan(to)
        }
    }

    /// The epoch that a run's entries name: a switchover's begins only with its pivot.
    fn spoken_epoch(&self, given: Epoch) -> Epoch {
        let run =
            self.ledger.run.as_ref().filter(|run| run.is_before_passing() && given == self.ledger.epoch);
        run.map_or(given, |run| run.plan.epoch)
    }

    fn sync_in(&self, by: &NodeId, generation: SyncGeneration) -> Command {
        let instance = self.replica.1.instance.clone();
        Command::SyncIn {
            epoch: self.ledger.epoch,
            generation,
            by: by.clone(),
            replica: NodeId::from("db2"),
            instance,
        }
    }

    /// Carries out every step in order, up to and without `until`.
    fn go(&mut self, until: Option<&str>) -> Result<(), String> {
        let run = self.ledger.run.clone().ok_or("there is no run")?;
        for planned in &run.plan.steps {
            if Some(planned.step.as_str()) == until {
                return Ok(());
            }
            for event in [Event::Started, Event::Succeeded { facts: Vec::new() }] {
                let entries = vec![Entry {
                    step: planned.step,
                    attempt: 1,
                    event,
                    by: planned.actor.clone(),
                    at: WallMs(0),
                }];
                let _ = self.ledger.apply(Command::Journal { run: run.id, epoch: run.plan.epoch, entries });
            }
        }
        Ok(())
    }

    fn command(&self, case: &mut TestCase) -> Result<Command, String> {
        let what = case.args.keys().find(|key| case.args[*key].is_empty()).cloned().ok_or("apply WHAT")?;
        case.args.remove(&what);
        let epoch = maybe(case, "epoch")?.map_or(self.ledger.epoch, Epoch);
        let generation = maybe(case, "generation")?.map_or(self.ledger.sync_generation, SyncGeneration);
        let by =
            node(case, "by")?.or_else(|| self.ledger.holder.clone()).unwrap_or_else(|| NodeId::from("db1"));
        let run = maybe(case, "run")?.map_or(self.ledger.runs, RunId);
        let at = WallMs(0);
        Ok(match what.as_str() {
            "start-run" => {
                let mut plan = self.plan(&node(case, "to")?.ok_or("start-run wants to=")?);
                plan.basis.epoch = epoch;
                plan.basis.sync = generation;
                if text(case, "instance")?.is_some_and(|word| word == "other") {
                    plan.basis.target_instance = Some(self.primary.1.instance.clone());
                }
                Command::StartRun { plan: Box::new(plan), at }
            }
            "start-switchover" => {
                let to = node(case, "to")?.unwrap_or_else(|| NodeId::from("db2"));
                let mut plan = self.switchover(&to);
                plan.basis.epoch = epoch;
                plan.basis.sync = generation;
                Command::StartRun { plan: Box::new(plan), at }
            }
            "abort" => Command::AbortRun { run, by: "an operator".to_owned(), at },
            "abandon" => Command::AbandonRun {
                run,
                epoch: self.spoken_epoch(epoch),
                reason: "its target is away".to_owned(),
                at,
            },
            "acknowledge" => Command::AcknowledgeRun { run, by: "an operator".to_owned(), at },
            "sync-out" => Command::SyncOut { epoch, generation, by, reason: "the script says so".to_owned() },
            "sync-in" => self.sync_in(&by, generation),
            "accept-loss" => {
                let node = node(case, "to")?.unwrap_or_else(|| NodeId::from("db2"));
                let loss = LossAccepted { by: "an operator".to_owned(), at_most_ms: maybe(case, "ms")? };
                let instance = self.replica.1.instance.clone();
                Command::AcceptLoss { epoch, generation, node, instance, loss, at }
            }
            "withdraw-loss" => {
                let node = node(case, "to")?.unwrap_or_else(|| NodeId::from("db2"));
                Command::WithdrawLoss { epoch, generation, node, by: "an operator".to_owned(), at }
            }
            "pause" | "claim-pause" | "end-pause" | "resume" | "expire-pause" => {
                self.pause_command(&what, by, epoch, case)?
            }
            "release" => {
                let boot = maybe(case, "boot")?.unwrap_or(1);
                let pauses = maybe(case, "pauses")?.map_or(self.ledger.pauses, PauseId);
                let why = text(case, "why")?.map_or(Ok(Why::MysqlDead), |code| newer(&code))?;
                Command::Release { epoch, by, boot, pauses, why }
            }
            "journal" => {
                Command::Journal { run, epoch: self.spoken_epoch(epoch), entries: vec![self.entry(case)?] }
            }
            other => return Err(format!("no such command: {other}")),
        })
    }

    fn pause_command(
        &self,
        word: &str,
        by: NodeId,
        epoch: Epoch,
        case: &mut TestCase,
    ) -> Result<Command, String> {
        let at = WallMs(0);
        Ok(match word {
            "pause" => {
                let alone = text(case, "alone")?.is_some_and(|word| word == "yes");
                let for_ms = maybe(case, "ms")?.unwrap_or(1_800_000);
                let (reason, by) = ("new disks".to_owned(), "an operator".to_owned());
                Command::Pause { epoch, order: PauseOrder { for_ms, alone, reason, by }, at }
            }
            "claim-pause" | "end-pause" => {
                let pause = maybe(case, "pause")?.map_or(self.ledger.pauses, PauseId);
                let boot = maybe(case, "boot")?.unwrap_or(1);
                if word == "claim-pause" {
                    Command::ClaimPause { pause, by, boot }
                } else {
                    Command::EndPause { pause, by, boot, at }
                }
            }
            "resume" => {
                let pause = maybe(case, "pause")?.map_or(self.ledger.pauses, PauseId);
                Command::Resume { pause, by: "an operator".to_owned(), at }
            }
            _ => {
                let pause = maybe(case, "pause")?.map_or(self.ledger.pauses, PauseId);
                Command::ExpirePause { pause, by: self.me.clone(), at }
            }
        })
    }

    fn entry(&self, case: &mut TestCase) -> Result<Entry, String> {
        let word = text(case, "step")?.ok_or("journal wants step=")?;
        let step = Step::ALL.into_iter().find(|step| step.as_str() == word).ok_or("no such step")?;
        let actor =
            self.ledger.run.as_ref().and_then(|run| run.plan.step(step)).map(|planned| planned.actor.clone());
        let event = match text(case, "event")?.ok_or("journal wants event=")?.as_str() {
            "started" => Event::Started,
            "succeeded" => Event::Succeeded { facts: Vec::new() },
            "failed" => Event::Failed { error: "it did not work".to_owned() },
            "skipped" => Event::Skipped { reason: "its actor is away".to_owned() },
            "undo-started" => Event::UndoStarted,
            "undo-finished" => Event::UndoFinished,
            "undo-failed" => Event::UndoFailed { error: "it did not work".to_owned() },
            other => return Err(format!("no such event: {other}")),
        };
        let by = node(case, "actor")?.or(actor).unwrap_or_else(|| NodeId::from("db1"));
        Ok(Entry { step, attempt: maybe(case, "attempt")?.unwrap_or(1), event, by, at: WallMs(0) })
    }
}

/// A reason as it comes from an agent that knows more of them.
fn newer(code: &str) -> Result<Why, String> {
    let text = format!(r#"{{"why":"{code}","volts":190}}"#);
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn told(next: &Next) -> String {
    match next {
        Next::Act { step, attempt } => format!("start {step}, attempt {attempt}"),
        Next::Resume { step, attempt } => format!("resume {step}, attempt {attempt}"),
        Next::Undo { step, resumed: false } => format!("undo {step}"),
        Next::Undo { step, resumed: true } => format!("resume the undo of {step}"),
    }
}

/// The ledger in two lines.
pub fn describe(ledger: &Ledger) -> String {
    let holder = ledger.holder.as_ref().map_or("nobody", NodeId::as_str);
    let in_sync: Vec<String> = ledger
        .in_sync
        .iter()
        .map(|(node, complete)| match complete {
            Complete::Holder => format!("{node} (last holder)"),
            Complete::Replica { instance } => format!("{node} ({instance})"),
            Complete::Accepted { instance, loss } => {
                format!("{node} ({instance}, loss accepted by {})", loss.by)
            }
        })
        .collect();
    let in_sync = if in_sync.is_empty() { "nobody".to_owned() } else { in_sync.join(", ") };
    let released = if ledger.has_released() { ", released" } else { "" };
    let mut line = format!(
        "epoch {}, holder {holder}{released}, complete: {in_sync}, generation {}",
        ledger.epoch, ledger.sync_generation
    );
    if let Some(pause) = &ledger.pause {
        line += &format!("\npause {} for {} s", pause.id, pause.order.for_ms / 1_000);
        line += &pause.claimed_by.map_or(String::new(), |boot| format!(", claimed by start {boot}"));
        line += &pause.resumed_by.as_ref().map_or(String::new(), |by| format!(", ended by {by}"));
    } else if let Some(ended) = ledger.pause_history.last() {
        line += &format!("\npause {} is over: {}", ended.pause.id, ended.ended);
    }
    let ended = ledger.history.last().map(|ended| (ended.run.id, ended.state.clone()));
    if let Some((id, state)) = ledger.run.as_ref().map(|run| (run.id, run.state())).or(ended) {
        line += &format!("\nrun {id}: {}", state.as_str());
        if let RunState::NeedsOperator { step, reason } = state {
            line += &format!(", {step}: {reason}");
        }
    }
    if let Some(run) = &ledger.run {
        let pivot = run.plan.steps.iter().find(|planned| planned.kind == Kind::Pivot);
        line += if run.is_past_pivot() { ", past its " } else { ", before its " };
        line += pivot.map_or("pivot", |planned| planned.step.as_str());
    }
    line
}
