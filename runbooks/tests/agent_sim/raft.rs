//! A linearizable log with a leader that changes, lags, and loses its quorum. Raft itself is tested elsewhere.

use std::rc::Rc;

use baton_runbooks::ledger::{Command, Ledger};

/// What one node believes.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub term: u64,
    pub leader: Option<usize>,
    /// Real instant of its own election in this term.
    pub elected_at: u64,
    /// Real instant at which it last sent what a quorum acknowledged.
    pub acked_at: Option<u64>,
    /// Real instant at which it last heard the leader.
    pub heard_at: u64,
    /// Its election time-out, drawn anew at each contact.
    pub patience: u64,
    /// Number of entries that it has applied.
    pub applied: usize,
    /// Log length at which its own term began, and must be applied before it grants.
    pub own_from: usize,
}

/// A command on its way.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub due: u64,
    pub from: usize,
    pub boot: u64,
    pub ticket: u64,
    pub command: Command,
    pub as_leader: Option<u64>,
    /// The proposer is told that the fate is unknown.
    pub silent: bool,
}

/// The log and everybody's view of it.
#[derive(Debug)]
pub struct Raft {
    pub views: Vec<View>,
    pub term: u64,
    /// The ledger after each entry; the first is empty.
    pub states: Vec<Rc<Ledger>>,
    pub commands: Vec<String>,
    pub proposals: Vec<Proposal>,
}

impl Raft {
    pub fn new(nodes: usize) -> Self {
        Self {
            views: vec![View { patience: 300, ..View::default() }; nodes],
            term: 0,
            states: vec![Rc::new(Ledger::default())],
            commands: vec![String::new()],
            proposals: Vec::new(),
        }
    }

    pub fn ledger(&self) -> &Ledger {
        self.states.last().expect("never empty")
    }

    /// Appends and applies; every entry here has a quorum.
    pub fn commit(&mut self, command: Command) -> bool {
        let mut ledger = self.ledger().clone();
        let text = command.to_string();
        let accepted = ledger.apply(command).is_accepted();
        self.states.push(Rc::new(ledger));
        self.commands.push(format!("{text}{}", if accepted { "" } else { " (refused)" }));
        accepted
    }

    pub fn leads(&self, node: usize) -> bool {
        self.views[node].leader == Some(node)
    }
}
