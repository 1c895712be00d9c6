//! A linearizable log with a leader that changes, lags, and loses its quorum; by force there is more than one. Raft itself is
//! tested elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;

use baton_runbooks::ledger::{Command, Forced, Ledger};
use baton_runbooks::model::{Epoch, Generation};

use super::planted::Planted;

/// What one node believes.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Its term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<usize>,
    /// Real instant of its own election in this term.
    pub elected_at: u64,
    /// Real instant at which it last sent what a quorum acknowledged.
    pub acked_at: Option<u64>,
    /// Acknowledgements on their way: when they arrive, and when what they answer was sent.
    pub acks: VecDeque<(u64, u64)>,
    /// Real instant at which it last heard the leader.
    pub heard_at: u64,
    /// For a leader: when it last reached each node.
    pub reached_at: [u64; 3],
    /// Its election time-out, drawn anew at each contact.
    pub patience: u64,
    /// Number of entries that it has applied.
    pub applied: usize,
    /// What it had applied when it wrote to its log last: so much a new start of its agent knows to be committed.
    pub kept: usize,
    /// Its patience will be looked at.
    pub campaigning: bool,
    /// It is about to apply more.
    pub applying: bool,
    /// Log length at which its own term began, and must be applied before it grants.
    pub own_from: usize,
    /// Which log it has.
    pub log: usize,
    /// Number of entries of it that it has; none: it is to be taken in.
    pub logged: usize,
    /// What it appended as a leader without a quorum.
    pub uncommitted: Vec<Command>,
    /// It was told of another log that counts more, or as much: since when, and of which generation. Stays over restarts.
    pub outranked: Option<(u64, Generation)>,
    /// Its agent waits for the greetings of its peers until then, before it takes part.
    pub settled_at: u64,
}

impl View {
    /// It has `logged` entries. With those that are new it syncs how far the log was committed before.
    pub fn append(&mut self, logged: usize) {
        if logged > self.logged {
            self.kept = self.applied;
        }
        self.logged = logged;
    }
}

/// A command on its way.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Who proposes.
    pub from: usize,
    /// The start of its agent.
    pub boot: u64,
    /// As in the core's output.
    pub ticket: u64,
    /// What.
    pub command: Command,
    /// The log that the proposer had.
    pub log: usize,
    /// Only as the leader of this term.
    pub as_leader: Option<u64>,
    /// The epoch for which the proposer's granter has stopped.
    pub ends: Option<Epoch>,
    /// The same was proposed before, and may still be applied.
    pub doubtful: bool,
    /// The proposer is told that the fate is unknown.
    pub silent: bool,
    /// The leader's term in which it was appended without a quorum.
    pub appended: Option<u64>,
}

/// What a cluster has decided: the first one, or one that was founded anew on what a survivor had.
#[derive(Debug)]
pub struct Log {
    /// The ledger after each entry; the first is empty.
    pub states: Vec<Arc<Ledger>>,
    /// When each of them was there.
    pub since: Vec<u64>,
    /// Number of entries that it was founded on. Whoever is taken in gets them at once.
    pub founded_on: usize,
    /// Who votes.
    pub voters: [bool; 3],
    /// Its newest term.
    pub term: u64,
}

impl Log {
    /// The newest committed state.
    pub fn newest(&self) -> &Arc<Ledger> {
        self.states.last().expect("every log begins with a ledger")
    }

    /// Number of committed entries.
    pub fn last(&self) -> usize {
        self.states.len() - 1
    }

    /// Whatever was appended since it was looked at last is there since `at`.
    pub fn stamp(&mut self, at: u64) {
        self.since.resize(self.states.len(), at);
    }

    /// Number of the entries that were there at `at`.
    pub fn last_at(&self, at: u64) -> usize {
        self.since.iter().rposition(|since| *since <= at).unwrap_or(0)
    }

    /// These are a majority of those who vote.
    pub fn is_majority(&self, nodes: impl Iterator<Item = usize>) -> bool {
        let votes = nodes.filter(|node| self.voters[*node]).count();
        let voters = self.voters.iter().filter(|votes| **votes).count();
        2 * votes > voters
    }
}

/// The logs and everybody's view of them.
#[derive(Debug)]
pub struct Raft {
    /// One per node.
    pub views: Vec<View>,
    /// The newest term of all logs: none has the term of another.
    pub term: u64,
    /// The first, and those that were founded by force.
    pub logs: Vec<Log>,
}

/// An entry that was committed.
#[derive(Debug)]
pub struct Committed {
    /// The ledger before it.
    pub before: Arc<Ledger>,
    /// The ledger after it.
    pub after: Arc<Ledger>,
    /// The ledger accepted it.
    pub accepted: bool,
}

impl Raft {
    /// An empty log.
    pub fn new(nodes: usize) -> Self {
        Self {
            views: vec![View { patience: 300, ..View::default() }; nodes],
            term: 0,
            logs: vec![Log {
                states: vec![Arc::new(Ledger::default())],
                since: vec![0],
                founded_on: 0,
                voters: [true; 3],
                term: 0,
            }],
        }
    }

    /// The log of a node.
    pub fn log(&self, node: usize) -> &Log {
        &self.logs[self.views[node].log]
    }

    /// The ledger as this node has applied it.
    pub fn applied(&self, node: usize) -> &Arc<Ledger> {
        let view = &self.views[node];
        &self.logs[view.log].states[view.applied]
    }

    /// The log that was founded last.
    pub const fn newest_log(&self) -> usize {
        self.logs.len() - 1
    }

    /// The newest committed state of the log that was founded last.
    pub fn newest(&self) -> &Arc<Ledger> {
        self.logs[self.newest_log()].newest()
    }

    /// A log of its own for a survivor, with everything that it has, which it alone votes in.
    pub fn fork(&mut self, node: usize) -> Vec<Command> {
        let view = &mut self.views[node];
        let states = self.logs[view.log].states[..=view.logged].to_vec();
        let since = self.logs[view.log].since.clone();
        let mut voters = [false; 3];
        voters[node] = true;
        self.logs.push(Log { states, since, founded_on: view.logged, voters, term: 0 });
        let appended = std::mem::take(&mut view.uncommitted);
        let (patience, heard_at) = (view.patience, view.heard_at);
        *view = View {
            log: self.logs.len() - 1,
            patience,
            heard_at,
            campaigning: view.campaigning,
            ..View::default()
        };
        appended
    }

    /// The survivor's word about it is the newest entry of its log.
    pub fn found(&mut self, node: usize, forced: Forced) -> Committed {
        let log = &mut self.logs[self.views[node].log];
        let before = Arc::clone(log.newest());
        let mut ledger = Ledger::clone(&before);
        ledger.force(forced);
        let after = Arc::new(ledger);
        log.states.push(Arc::clone(&after));
        log.founded_on = log.last();
        let view = &mut self.views[node];
        (view.applied, view.kept, view.logged) = (log.last(), log.last(), log.last());
        Committed { before, after, accepted: true }
    }

    /// Appends and applies; every entry here has a quorum.
    pub fn commit(&mut self, log: usize, mut command: Command, planted: Option<Planted>) -> Committed {
        let before = self.logs[log].newest().clone();
        deviate(&mut command, &before, planted);
        let mut ledger = Ledger::clone(&before);
        let accepted = ledger.apply(command).is_accepted();
        deviate_after(&before, &mut ledger, planted);
        if planted == Some(Planted::WordUsedTwice) {
            keep_word(&before, &mut ledger);
        }
        let after = if ledger == *before { before.clone() } else { Arc::new(ledger) };
        self.logs[log].states.push(after.clone());
        Committed { before, after, accepted }
    }

    /// The node takes itself for the leader.
    pub fn leads(&self, node: usize) -> bool {
        self.views[node].leader == Some(node)
    }

    /// When the newest message was sent that a quorum has acknowledged by now.
    pub fn acked_at(&mut self, node: usize, now: u64) -> Option<u64> {
        let view = &mut self.views[node];
        while let Some((due, sent)) = view.acks.front().copied()
            && due <= now
        {
            view.acks.pop_front();
            view.acked_at = view.acked_at.max(Some(sent));
        }
        view.acked_at
    }
}

/// Planted bugs of a ledger: what it does not look at is made to fit before it looks.
fn deviate(command: &mut Command, ledger: &Ledger, planted: Option<Planted>) {
    match command {
        Command::SyncOut { generation, .. } | Command::SyncIn { generation, .. }
            if planted == Some(Planted::FlagWithoutGeneration) =>
        {
            *generation = ledger.sync_generation;
        }
        Command::Journal { run, epoch, .. } | Command::AbandonRun { run, epoch, .. }
            if planted == Some(Planted::StaleEpochAccepted) =>
        {
            *epoch = ledger.run.as_ref().map_or(ledger.epoch, |run| run.plan.epoch);
            *run = ledger.runs;
        }
        Command::Release { epoch, by, .. } if planted == Some(Planted::StaleEpochAccepted) => {
            *epoch = ledger.epoch;
            *by = ledger.holder.clone().unwrap_or_else(|| by.clone());
        }
        Command::Bootstrap { .. }
        | Command::StartRun { .. }
        | Command::Journal { .. }
        | Command::AbandonRun { .. }
        | Command::AbortRun { .. }
        | Command::AcknowledgeRun { .. }
        | Command::AcceptLoss { .. }
        | Command::WithdrawLoss { .. }
        | Command::SyncOut { .. }
        | Command::SyncIn { .. }
        | Command::Release { .. }
        | Command::Drill { .. }
        | Command::Pause { .. }
        | Command::ClaimPause { .. }
        | Command::Resume { .. }
        | Command::EndPause { .. }
        | Command::ExpirePause { .. } => {}
    }
}

fn deviate_after(before: &Ledger, ledger: &mut Ledger, planted: Option<Planted>) {
    use baton_runbooks::ledger::Complete;
    use baton_runbooks::model::NodeKind;
    use baton_runbooks::run::RunState;
    // Only with a change that is one: a set that differs within a generation is seen by itself.
    if planted == Some(Planted::InSyncIgnored) && before.sync_generation != ledger.sync_generation {
        let holder = ledger.holder.clone();
        for (node, kind) in &ledger.members {
            let replica = *kind == NodeKind::Data && holder.as_ref().is_some_and(|holder| holder != node);
            if replica && !ledger.in_sync.contains_key(node) {
                ledger.in_sync.insert(node.clone(), Complete::Holder);
            }
        }
    }
    if planted == Some(Planted::WordWithoutBound) {
        for complete in ledger.in_sync.values_mut() {
            if let Complete::Accepted { loss, .. } = complete {
                loss.at_most_ms = None;
            }
        }
    }
    if planted == Some(Planted::EpochSkipped) && before.epoch.0 > 0 && before.epoch < ledger.epoch {
        ledger.epoch = ledger.epoch.next();
    }
    if planted == Some(Planted::RunForgotten) {
        ledger.run.take_if(|run| matches!(run.state(), RunState::NeedsOperator { .. }));
    }
}

/// Planted: what was accepted stands again when the run that used it was taken back.
fn keep_word(before: &Ledger, after: &mut Ledger) {
    let used = before.holder.as_ref().filter(|_| after.holder.is_none());
    let word = used.and_then(|node| before.in_sync.get_key_value(node));
    if let Some((node, word)) = word.filter(|(_, known)| known.is_accepted()) {
        after.in_sync.insert(node.clone(), word.clone());
    }
}
