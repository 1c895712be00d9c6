//! What an operator does, at any moment, from any node. One variant per verb; each becomes a command or none.

use baton_runbooks::decide::loss::{Accept, Acceptance};
use baton_runbooks::decide::pause::PauseWanted;
use baton_runbooks::decide::switchover::Wanted;
use baton_runbooks::ledger::pause::PAUSE_MIN_MS;
use baton_runbooks::ledger::{Command, LossAccepted, PauseOrder};
use baton_runbooks::model::WallMs;
use baton_runbooks::plan::Runbook;

use super::event::Event;
use super::world::World;

/// Who it is.
const NAME: &str = "operator";

/// A verb of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAct {
    /// `baton run ack`: has read why the newest run needs an operator. At any other moment it is refused.
    AcknowledgeRun,
    /// `baton switchover`: passes the baton, if the preflight has nothing against it.
    Switchover,
    /// `baton run abort`: a switchover that is under way is to be taken back.
    AbortRun,
    /// `baton takeover --accept-data-loss`, with a bound or without.
    AcceptLoss,
    /// That is taken back.
    WithdrawLoss,
    /// `baton pause`, for the shortest time that it takes.
    Pause,
    /// `baton resume`.
    Resume,
    /// `baton force` on the survivor of a seed that loses the two others, as long as nothing stands in its way.
    Force,
    /// `baton rejoin` on a node whose log is of a lower generation.
    Rejoin,
}

impl OperatorAct {
    /// Every verb.
    pub const ALL: [Self; 9] = [
        Self::AcknowledgeRun,
        Self::Switchover,
        Self::AbortRun,
        Self::AcceptLoss,
        Self::WithdrawLoss,
        Self::Pause,
        Self::Resume,
        Self::Force,
        Self::Rejoin,
    ];

    /// In how many of a hundred seeds with an operator this verb is used again and again.
    pub const fn percent(self) -> u64 {
        match self {
            Self::AcknowledgeRun => 60,
            Self::Switchover => 65,
            Self::AbortRun => 15,
            Self::AcceptLoss => 50,
            Self::WithdrawLoss => 15,
            Self::Pause => 20,
            Self::Resume => 70,
            // Only where two nodes are lost for long: see `super::forcing`.
            Self::Force | Self::Rejoin => 0,
        }
    }

    /// The shortest and the longest time between two of them, in milliseconds.
    const fn every_ms(self) -> (u64, u64) {
        match self {
            Self::AcknowledgeRun => (500, 6_000),
            Self::Switchover => (700, 9_000),
            Self::AbortRun => (200, 4_000),
            Self::AcceptLoss => (200, 1_500),
            Self::WithdrawLoss => (500, 5_000),
            Self::Pause => (1_000, 12_000),
            Self::Resume => (500, 8_000),
            Self::Force => (200, 1_500),
            Self::Rejoin => (500, 3_000),
        }
    }

    /// A repaired world comes to rest without it.
    pub const fn is_for_rest(self) -> bool {
        match self {
            Self::AcknowledgeRun | Self::Resume | Self::Rejoin => true,
            Self::Switchover
            | Self::AbortRun
            | Self::AcceptLoss
            | Self::WithdrawLoss
            | Self::Pause
            | Self::Force => false,
        }
    }
}

impl World {
    /// The operator goes to a node whose agent answers, and is told what became of it.
    pub fn operate(&mut self, act: OperatorAct) {
        if act == OperatorAct::Force || act == OperatorAct::Rejoin {
            self.order_recovery(act == OperatorAct::Rejoin);
            return;
        }
        let node = self.rng.index(3);
        if !self.able(node) {
            return;
        }
        let Some(command) = self.ordered(node, act) else { return };
        self.tell(|| format!("operator at {}: {command}", super::node::NAMES[node]));
        self.propose_for_operator(node, command);
    }

    /// A verb of the swarm, and once more after a while.
    pub(super) fn operate_again(&mut self, act: OperatorAct) {
        // Nobody is called complete after a force, so a takeover that was undone needs another word.
        let for_rest = act.is_for_rest() || (act == OperatorAct::AcceptLoss && self.raft.newest_log() > 0);
        let goes_on = self.healed_at.is_none() || for_rest;
        if !goes_on {
            return;
        }
        self.operate(act);
        let (low, high) = act.every_ms();
        let again = self.now + self.rng.range(low, high);
        self.queue.put(again, Event::Operator(act));
    }

    /// The command that the verb proposes, from what its node knows.
    fn ordered(&mut self, node: usize, act: OperatorAct) -> Option<Command> {
        let at = WallMs(self.now);
        let now = self.nodes[node].local(self.now);
        let by = || NAME.to_owned();
        match act {
            OperatorAct::AcknowledgeRun => {
                let (run, _) = self.applied(node).newest_run()?;
                Some(Command::AcknowledgeRun { run: run.id, by: by(), at })
            }
            OperatorAct::AbortRun => {
                let run = self.applied(node).run.as_ref();
                let run = run.filter(|run| run.plan.runbook == Runbook::Switchover)?;
                Some(Command::AbortRun { run: run.id, by: by(), at })
            }
            OperatorAct::Switchover => {
                let patience_ms = if self.rng.chance(50) { 0 } else { self.rng.range(0, 1_500) };
                let wanted = Wanted { to: None, by: by(), drain_patience_ms: patience_ms };
                let plan = self.nodes[node].agent.as_ref()?.preflight(now, &wanted).plan?;
                Some(Command::StartRun { plan, at })
            }
            OperatorAct::AcceptLoss => {
                let bounded = self.rng.chance(60);
                let at_most_ms = bounded.then(|| self.rng.range(200, 9_000));
                let wanted = Accept { to: None, loss: LossAccepted { by: by(), at_most_ms } };
                let accepted = self.nodes[node].agent.as_ref()?.loss_preflight(now, &wanted).acceptance?;
                let Acceptance { epoch, generation, node, instance, loss } = accepted;
                Some(Command::AcceptLoss { epoch, generation, node, instance, loss, at })
            }
            OperatorAct::WithdrawLoss => {
                let ledger = self.applied(node);
                let (node, _) = ledger.in_sync.iter().find(|(_, known)| known.is_accepted())?;
                let (epoch, generation) = (ledger.epoch, ledger.sync_generation);
                Some(Command::WithdrawLoss { epoch, generation, node: node.clone(), by: by(), at })
            }
            OperatorAct::Pause => {
                let (alone, reason) = (self.rng.chance(40), "a test".to_owned());
                let order = PauseOrder { for_ms: PAUSE_MIN_MS, alone, reason, by: by() };
                let wanted = PauseWanted { order: order.clone() };
                let epoch = self.nodes[node].agent.as_ref()?.pause_preflight(now, &wanted).epoch?;
                Some(Command::Pause { epoch, order, at })
            }
            // No commands: see `order_recovery`.
            OperatorAct::Force | OperatorAct::Rejoin => None,
            OperatorAct::Resume => {
                let pause = self.applied(node).pause.as_ref()?.id;
                Some(Command::Resume { pause, by: by(), at })
            }
        }
    }
}
