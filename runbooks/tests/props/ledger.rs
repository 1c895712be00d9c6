//! The ledger under arbitrary commands: never a panic, epochs only grow, never two holders, serde keeps everything; and in a
//! model of acknowledged writes only nodes that have them all are ever called complete.

use std::collections::{BTreeMap, BTreeSet};

use baton_runbooks::ledger::{Command, Complete, HISTORY_MAX, Ledger, LossAccepted, PauseOrder};
use baton_runbooks::model::{Epoch, Instance, NodeId, NodeKind, PauseId, RunId, SyncGeneration, WallMs};
use baton_runbooks::plan::{Basis, Plan, Runbook, Step};
use baton_runbooks::run::{Entry, Event, StepStatus, switchover, table, takeover};
use baton_runbooks::why::Why;
use proptest::prelude::*;

pub const NAMES: [&str; 3] = ["db1", "db2", "mon"];

pub fn scope() -> table::Scope {
    table::Scope { mysql: true, independent_services: true, services: true }
}

pub fn bootstrap() -> Command {
    let members: BTreeMap<NodeId, NodeKind> =
        [("db1", NodeKind::Data), ("db2", NodeKind::Data), ("mon", NodeKind::Witness)]
            .map(|(name, kind)| (NodeId::from(name), kind))
            .into();
    Command::Bootstrap { cluster: "shop".into(), members, initial_holder: NodeId::from("db1"), mysql: true }
}

pub fn instance(number: u64) -> Instance {
    Instance { boot: "b".into(), server: format!("{number}@1"), threads: String::new() }
}

/// A plan as the leader would make it from this ledger.
pub fn plan(ledger: &Ledger, to: &NodeId) -> Plan {
    let target_instance = ledger.in_sync.get(to).and_then(Complete::instance).cloned();
    Plan {
        runbook: Runbook::Takeover,
        version: takeover::VERSION,
        epoch: ledger.epoch.next(),
        from: ledger.holder.clone().filter(|holder| holder != to),
        to: to.clone(),
        basis: Basis { epoch: ledger.epoch, sync: ledger.sync_generation, target_instance },
        why: vec![Why::Vacant],
        detected_ms_ago: None,
        holder_heard_ms: Default::default(),
        asked_by: None,
        drain_patience_ms: 0,
        steps: takeover::steps(to, ledger.witness(), scope()),
    }
}

/// A command in terms of the present ledger; `off` makes some of them stale or wrong.
#[derive(Debug, Clone)]
enum Act {
    StartRun {
        to: usize,
        off: u64,
    },
    Step {
        step: usize,
        attempt: u32,
        event: u8,
        by: usize,
    },
    /// What an actor would really do next.
    Next {
        node: usize,
        well: bool,
    },
    StartSwitchover {
        to: usize,
        off: u64,
    },
    Abort,
    Abandon,
    Acknowledge,
    SyncOut {
        by: usize,
        off: u64,
    },
    SyncIn {
        by: usize,
        replica: usize,
        off: u64,
    },
    Release {
        by: usize,
    },
    AcceptLoss {
        node: usize,
        off: u64,
    },
    WithdrawLoss {
        node: usize,
    },
    Pause {
        seconds: u64,
        alone: bool,
    },
    /// One of the commands on a pause, of this or an earlier one.
    OnPause {
        what: u8,
        by: usize,
        boot: u64,
        off: u64,
    },
    Write,
    RestartReplica,
}

fn act() -> impl Strategy<Value = Act> {
    let off = prop_oneof![5 => Just(0u64), 1 => 0..3u64, 1 => Just(u64::MAX)];
    prop_oneof![
        2 => (0..3usize, off.clone()).prop_map(|(to, off)| Act::StartRun { to, off }),
        2 => (0..3usize, off.clone()).prop_map(|(to, off)| Act::StartSwitchover { to, off }),
        1 => Just(Act::Abort),
        4 => (0..Step::ALL.len(), 0..4u32, 0..7u8, 0..3usize)
            .prop_map(|(step, attempt, event, by)| Act::Step { step, attempt, event, by }),
        12 => (0..3usize, prop::bool::weighted(0.85)).prop_map(|(node, well)| Act::Next { node, well }),
        1 => Just(Act::Abandon),
        1 => Just(Act::Acknowledge),
        2 => (0..3usize, off.clone()).prop_map(|(by, off)| Act::SyncOut { by, off }),
        1 => (0..3usize, off.clone()).prop_map(|(node, off)| Act::AcceptLoss { node, off }),
        1 => (0..3usize).prop_map(|node| Act::WithdrawLoss { node }),
        1 => (0..200u64, any::<bool>()).prop_map(|(seconds, alone)| Act::Pause { seconds, alone }),
        3 => (0..4u8, 0..2usize, 0..3u64, off.clone())
            .prop_map(|(what, by, boot, off)| Act::OnPause { what, by, boot, off }),
        4 => (0..3usize, 0..3usize, off).prop_map(|(by, replica, off)| Act::SyncIn { by, replica, off }),
        1 => (0..3usize).prop_map(|by| Act::Release { by }),
        4 => Just(Act::Write),
        1 => Just(Act::RestartReplica),
    ]
}

/// The way to a cluster that serves, is in sync, and has begun to pass the baton: by chance alone it is found too rarely.
fn in_sync_first() -> Vec<Act> {
    let mut acts = vec![Act::StartRun { to: 0, off: 0 }];
    let steps = takeover::TABLE.len() + switchover::TABLE.len();
    let drive = || (0..2 * steps).flat_map(|_| (0..3).map(|node| Act::Next { node, well: true }));
    acts.extend(drive());
    acts.extend([Act::Write, Act::SyncIn { by: 0, replica: 1, off: 0 }, Act::Write]);
    acts.push(Act::StartSwitchover { to: 1, off: 0 });
    acts
}

fn name(node: usize) -> NodeId {
    NodeId::from(NAMES[node])
}

/// The world behind the ledger: who has which acknowledged write.
#[derive(Default)]
struct World {
    acked: BTreeSet<u64>,
    has: [BTreeSet<u64>; 2],
    instances: [u64; 2],
}

impl World {
    /// A client writes at whoever the ledger lets serve. Under semi-sync the replica has it before it is acknowledged.
    fn write(&mut self, ledger: &Ledger) {
        let Some(server) = (0..2).find(|node| ledger.is_open_for(&name(*node)) && !ledger.has_released())
        else {
            return;
        };
        // Closed for a switchover. As long as the closing has no good end, the server may still be open.
        let closed = ledger
            .run
            .as_ref()
            .is_some_and(|run| run.is_handing_over() && run.status(Step::CloseHolder) == StepStatus::Done);
        if closed {
            return;
        }
        let tx = self.acked.len() as u64 + 1;
        let other = 1 - server;
        if ledger.has_replica_in_sync() {
            // A replica that was restarted acknowledges nothing under the old flag: the commit waits.
            let vouched = ledger.in_sync.get(&name(other));
            if vouched != Some(&Complete::Replica { instance: instance(self.instances[other]) }) {
                return;
            }
            self.has[other].insert(tx);
        }
        self.has[server].insert(tx);
        self.acked.insert(tx);
    }

    /// The keeper proposes *in sync* only of a replica that has everything.
    fn catch_up(&mut self, replica: usize) {
        if replica < 2 {
            self.has[replica] = &self.has[replica] | &self.acked;
        }
    }

    /// An operator has said that what `node` lacks may be lost.
    fn give_up_what_is_lacked_by(&mut self, node: &NodeId) {
        let node = NAMES.iter().position(|name| *name == node.as_str()).unwrap();
        self.acked = &self.acked & &self.has[node];
    }

    fn incomplete(&self, ledger: &Ledger) -> Option<String> {
        for (node, complete) in &ledger.in_sync {
            let node = NAMES.iter().position(|n| *n == node.as_str()).unwrap();
            let is_it = match complete {
                Complete::Holder => true,
                Complete::Replica { instance: seen } => *seen == instance(self.instances[node]),
                // Nobody says that it is.
                Complete::Accepted { .. } => false,
            };
            if is_it && !self.acked.is_subset(&self.has[node]) {
                return Some(format!("{} is called complete", NAMES[node]));
            }
        }
        let server = (0..2).find(|node| ledger.is_open_for(&name(*node)))?;
        (!self.acked.is_subset(&self.has[server])).then(|| format!("{} serves without all", NAMES[server]))
    }
}

/// An entry that somebody sends, whatever the journal says.
fn told(step: usize, attempt: u32, event: u8, by: usize) -> Option<Entry> {
    let event = match event {
        0 => Event::Started,
        1 => Event::Succeeded { facts: Vec::new() },
        2 => Event::Failed { error: "e".into() },
        3 => Event::Skipped { reason: "r".into() },
        4 => Event::UndoStarted,
        5 => Event::UndoFinished,
        _ => Event::UndoFailed { error: "e".into() },
    };
    // An outcome that nobody brought about would be a lie about the world; what matters here is the machine.
    let is_proof = matches!(Step::ALL[step], Step::DrainRelayLog | Step::CatchUp | Step::CloseHolder);
    let is_lie = matches!(event, Event::Succeeded { .. }) && is_proof;
    (!is_lie).then(|| Entry { step: Step::ALL[step], attempt, event, by: name(by), at: WallMs(0) })
}

/// What an actor would really send next.
fn next(ledger: &Ledger, world: &mut World, node: usize, well: bool) -> Option<Entry> {
    let run = ledger.run.as_ref()?;
    let next = run.next(&name(node)).into_iter().next()?;
    let entry = super::run::answer(run, &next, well);
    if entry.step == Step::CatchUp && matches!(entry.event, Event::Succeeded { .. }) {
        // Its actor waits until the holder has closed, and for all that it has. Then replication is stopped.
        if run.status(Step::CloseHolder) != StepStatus::Done {
            return None;
        }
        world.catch_up(node);
        world.instances[node % 2] += 1;
    }
    Some(entry)
}

fn switchover_plan(ledger: &Ledger, to: &NodeId) -> Option<Plan> {
    let from = ledger.holder.clone()?;
    let waits = switchover::Waits::default();
    Some(Plan {
        runbook: Runbook::Switchover,
        version: switchover::VERSION,
        asked_by: Some("me".into()),
        steps: switchover::steps(&from, to, ledger.witness(), scope(), waits),
        ..plan(ledger, to)
    })
}

fn on_pause(act: &Act, ledger: &Ledger) -> Option<Command> {
    let (epoch, at) = (ledger.epoch, WallMs(0));
    if let Act::Pause { seconds, alone } = act {
        let (for_ms, by, reason) = (seconds * 1_000, "me".into(), "r".into());
        let order = PauseOrder { for_ms, alone: *alone, by, reason };
        return Some(Command::Pause { epoch, order, at });
    }
    let Act::OnPause { what, by, boot, off } = act else { return None };
    let (pause, by, boot) = (PauseId(ledger.pauses.0.wrapping_sub(*off)), name(*by), *boot);
    Some(match what {
        0 => Command::ClaimPause { pause, by, boot },
        1 => Command::Resume { pause, by: "me".into(), at },
        2 => Command::EndPause { pause, by, boot, at },
        _ => Command::ExpirePause { pause, by, at },
    })
}

fn command(act: &Act, ledger: &Ledger, world: &mut World) -> Option<Command> {
    let (epoch, generation, at) = (ledger.epoch, ledger.sync_generation, WallMs(0));
    let (run, run_epoch) = (ledger.runs, ledger.run.as_ref().map_or(epoch, |run| run.plan.epoch));
    let shifted = |off: &u64| SyncGeneration(generation.0.wrapping_sub(*off));
    Some(match act {
        Act::StartRun { to, off } => {
            let mut plan = plan(ledger, &name(*to));
            plan.basis.epoch = Epoch(plan.basis.epoch.0.wrapping_sub(*off));
            // A promotion checks the identity of the instance first.
            let now = instance(world.instances[to % 2]);
            if plan.basis.target_instance.as_ref().is_some_and(|seen| *seen != now) {
                return None;
            }
            Command::StartRun { plan: Box::new(plan), at }
        }
        Act::Step { step, attempt, event, by } => {
            let entries = vec![told(*step, *attempt, *event, *by)?];
            Command::Journal { run, epoch: run_epoch, entries }
        }
        Act::Next { node, well } => {
            let entries = vec![next(ledger, world, *node, *well)?];
            Command::Journal { run, epoch: run_epoch, entries }
        }
        Act::StartSwitchover { to, off } => {
            let mut plan = switchover_plan(ledger, &name(*to))?;
            plan.basis.sync = shifted(off);
            Command::StartRun { plan: Box::new(plan), at }
        }
        Act::Abort => Command::AbortRun { run, by: "me".into(), at },
        Act::Abandon => Command::AbandonRun { run, epoch: run_epoch, reason: "away".into(), at },
        Act::Acknowledge => Command::AcknowledgeRun { run, by: "me".into(), at },
        Act::SyncOut { by, off } => {
            Command::SyncOut { epoch, generation: shifted(off), by: name(*by), reason: "r".into() }
        }
        Act::SyncIn { by, replica, off } => {
            let accepted_by = ledger.is_open_for(&name(*by)) && *off == 0;
            if accepted_by && by != replica {
                world.catch_up(*replica);
            }
            let instance = instance(world.instances[*replica % 2]);
            let (by, replica) = (name(*by), name(*replica));
            Command::SyncIn { epoch, generation: shifted(off), by, replica, instance }
        }
        Act::Release { by } => {
            Command::Release { epoch, by: name(*by), boot: 1, pauses: ledger.pauses, why: Why::MysqlDead }
        }
        Act::AcceptLoss { node, off } => {
            let loss = LossAccepted { by: "me".into(), at_most_ms: None };
            let instance = instance(world.instances[*node % 2]);
            Command::AcceptLoss { epoch, generation: shifted(off), node: name(*node), instance, loss, at }
        }
        Act::WithdrawLoss { node } => {
            Command::WithdrawLoss { epoch, generation, node: name(*node), by: "me".into(), at }
        }
        Act::Pause { .. } | Act::OnPause { .. } => return on_pause(act, ledger),
        Act::Write => {
            world.write(ledger);
            return None;
        }
        Act::RestartReplica => {
            let replica = (0..2).find(|node| ledger.holder.as_ref() != Some(&name(*node)))?;
            let vouched = ledger.in_sync.get(&name(replica));
            if !matches!(vouched, Some(Complete::Holder)) {
                // What was received and not applied is gone.
                world.instances[replica] += 1;
                let newest = world.has[replica].iter().next_back().copied();
                newest.map(|tx| world.has[replica].remove(&tx));
            }
            return None;
        }
    })
}

proptest! {
    #![proptest_config(super::at_least(600))]
    #[test]
    fn only_complete_nodes_are_called_complete(
        in_sync in prop::bool::weighted(0.7),
        acts in prop::collection::vec(act(), 1..150),
    ) {
        let mut ledger = Ledger::default();
        let mut world = World::default();
        let _ = ledger.apply(bootstrap());
        let acts = if in_sync { in_sync_first().into_iter().chain(acts).collect() } else { acts };
        for act in &acts {
            let Some(command) = command(act, &ledger, &mut world) else { continue };
            let before = ledger.clone();
            let accepted = ledger.apply(command.clone()).is_accepted();
            prop_assert!(ledger.epoch >= before.epoch, "epochs only grow");
            prop_assert!(ledger.sync_generation >= before.sync_generation, "generations only grow");
            prop_assert!(accepted || ledger == before, "a refusal of one entry changes nothing: {command}");
            prop_assert!(
                ledger.holder == before.holder || ledger.holder.is_none() || ledger.epoch > before.epoch,
                "another holder has another epoch"
            );
            let passed = |l: &Ledger| l.run.as_ref().is_some_and(|run| run.is_passing());
            if passed(&ledger) && !passed(&before) {
                let run = ledger.run.as_ref().unwrap();
                let (had, has) = (before.holder.as_ref(), ledger.holder.as_ref());
                prop_assert!(had == run.plan.from.as_ref() && has == Some(&run.plan.to), "the baton passes with the pivot");
            }
            let past_pivot = |l: &Ledger| l.run.as_ref().is_some_and(|run| run.is_past_pivot());
            if past_pivot(&ledger) && !past_pivot(&before) {
                prop_assert!(ledger.in_sync.is_empty(), "the pivot clears the set");
                let to = &ledger.run.as_ref().unwrap().plan.to;
                if before.in_sync.get(to).is_some_and(Complete::is_accepted) {
                    world.give_up_what_is_lacked_by(to);
                }
            }
            if let Some(run) = before.run.as_ref().filter(|_| ledger.run.is_none()) {
                let word = ledger.in_sync.get(&run.plan.to).is_some_and(Complete::is_accepted);
                prop_assert!(!word, "an operator's word is used once");
            }
            if before.pause.is_some() {
                let same = ledger.run == before.run && ledger.holder == before.holder && !ledger.has_released();
                prop_assert!(same, "nothing changes while a pause stands: {command}");
                let unclaimed = before.pause.as_ref().is_some_and(|pause| pause.claimed_by.is_none());
                let ended = matches!(command, Command::EndPause { .. } | Command::ExpirePause { .. })
                    || (unclaimed && matches!(command, Command::Resume { .. }));
                prop_assert!(ledger.pause.is_some() || ended, "a pause ends with its end: {command}");
            }
            prop_assert!(ledger.history.len() <= HISTORY_MAX && ledger.sync_history.len() <= HISTORY_MAX);
            let incomplete = world.incomplete(&ledger);
            prop_assert!(incomplete.is_none(), "{} after {command}", incomplete.unwrap());
        }
        let text = serde_json::to_string(&ledger).unwrap();
        prop_assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
    }

    /// Also what no agent of ours would send, and also before there is a cluster.
    #[test]
    fn apply_never_panics(
        bootstrapped in any::<bool>(),
        lines in prop::collection::vec((0..Step::ALL.len(), any::<u64>(), any::<u64>(), any::<u32>(), 0..4usize), 1..40),
    ) {
        let mut ledger = Ledger::default();
        if bootstrapped {
            let _ = ledger.apply(bootstrap());
        }
        for (step, epoch, generation, attempt, node) in lines {
            let mut plan = plan(&ledger, &NodeId::from(["db1", "db2", "mon", "nobody"][node]));
            let by = step % plan.steps.len().max(1);
            plan.steps.rotate_left(by);
            plan.steps.truncate(step + 1);
            if attempt % 3 == 0 {
                plan.runbook = Runbook::Switchover;
                plan.from = ledger.holder.clone();
            }
            if step % 2 == 0 {
                plan.basis.epoch = Epoch(epoch);
            }
            let by = NodeId::from(["db1", "db2", "mon", "nobody"][node]);
            let entry = Entry { step: Step::ALL[step], attempt, event: Event::Started, by: by.clone(), at: WallMs(0) };
            for command in [
                Command::StartRun { plan: Box::new(plan), at: WallMs(epoch) },
                Command::Journal { run: RunId(epoch), epoch: Epoch(generation), entries: vec![entry.clone(), entry] },
                Command::AbandonRun { run: ledger.runs, epoch: Epoch(epoch), reason: String::new(), at: WallMs(0) },
                Command::SyncOut { epoch: Epoch(epoch), generation: SyncGeneration(generation), by, reason: String::new() },
            ] {
                let text = serde_json::to_string(&command).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Command>(&text).unwrap(), &command);
                let _ = ledger.apply(command);
            }
        }
    }
}
