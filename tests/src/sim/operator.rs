//! What an operator does, at any moment, from any node. One variant per verb; each becomes a command or none.

use baton_runbooks::ledger::{Command, Ledger};
use baton_runbooks::model::WallMs;

use super::world::World;

/// A verb of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAct {
    /// `baton run ack`: has read why the newest run needs an operator. At any other moment it is refused.
    AcknowledgeRun,
}

impl OperatorAct {
    /// Every verb.
    pub const ALL: [Self; 1] = [Self::AcknowledgeRun];

    /// The command that the verb proposes, from the ledger that its node has.
    fn command(self, ledger: &Ledger, wall: WallMs) -> Option<Command> {
        match self {
            Self::AcknowledgeRun => {
                let (run, _) = ledger.newest_run()?;
                Some(Command::AcknowledgeRun { run: run.id, by: "operator".to_owned(), at: wall })
            }
        }
    }
}

impl World {
    /// The operator goes to a node whose agent answers, and is told what became of it.
    pub fn operate(&mut self, act: OperatorAct) {
        let node = self.rng.index(3);
        if !self.able(node) {
            return;
        }
        let Some(command) = act.command(self.applied(node), WallMs(self.now)) else { return };
        self.tell(|| format!("operator at {}: {command}", super::node::NAMES[node]));
        self.propose_for_operator(node, command);
    }
}
