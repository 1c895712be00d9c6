//! The replicated state machine: feeds committed entries to the ledger and publishes the result.
//!
//! Besides the ledger it remembers the newest proposals by name. That makes a proposal that was sent twice apply once,
//! and it lets the proposing node learn the outcome from its own log even when every answer got lost on the way.
//! Everything it does is a function of the log alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use baton_runbooks::ledger::{Command, Forced, Ledger, Response};
use futures_util::{Stream, TryStreamExt};
use openraft::alias::{EntryOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, Membership, OptionalSend, RaftSnapshotBuilder, StoredMembership};
use redb::Durability;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::handle::Applied;
use crate::newer::{self, Newer};
use crate::standing::Committed;
use crate::store::{Store, key, put};
use crate::types::{LogId, Outcome, Proposal, ProposalId, SnapshotMeta, TypeConfig, Voter};

/// Proposals that are remembered by name. A proposal is sent again only within its deadline, and three nodes propose a
/// few commands per second at most, so this is minutes.
const RECENT_MAX: usize = 256;

/// What is replicated.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// First, so that it is what an older agent stumbles over. Kept for ever: what was applied once is in the ledger.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    needs: BTreeSet<Need>,
    applied: Option<LogId>,
    membership: StoredMembershipOf<TypeConfig>,
    ledger: Arc<Ledger>,
    /// Oldest first.
    recent: VecDeque<Recent>,
}

/// What an agent has to know to go on from a state.
///
/// The effect of a new command may be a mere field of the ledger, and a field that is not known is dropped without a word. So a
/// state says by name what has gone into it: an agent that does not know the name refuses the snapshot as it has refused the
/// entry (see [`crate::newer`]), instead of being carried past it. Variants have no fields, and are never taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Need {}

impl Need {
    /// What a state needs once this command was applied to it. `None`: every version that has needs knows all of it.
    const fn of(command: &Command) -> Option<Self> {
        match command {
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
            | Command::ExpirePause { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Recent {
    id: ProposalId,
    index: u64,
    outcome: Outcome,
}

/// A snapshot as it stands on disk.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored {
    meta: SnapshotMeta,
    state: String,
}

/// Somebody waits for a proposal's outcome.
pub type Waiting = oneshot::Sender<(u64, Outcome)>;

/// The state machine. Clones share the state.
#[derive(Clone)]
pub struct Machine {
    store: Store,
    state: Arc<Mutex<State>>,
    committed: watch::Sender<Committed>,
    waiting: Arc<Mutex<BTreeMap<ProposalId, Waiting>>>,
}

impl Machine {
    /// An empty machine on an empty log.
    #[must_use]
    pub fn empty(store: Store) -> Self {
        Self::with_state(store, State::default())
    }

    /// The state as the log has it: its snapshot, and the entries after it that are known to be committed.
    pub(crate) fn recover(store: Store, purged: Option<LogId>) -> io::Result<Self> {
        let stored: Option<Stored> = store.get(key::SNAPSHOT)?;
        let mut state = match &stored {
            Some(stored) => newer::decode(stored.state.as_bytes())?,
            None => State::default(),
        };
        if purged > state.applied {
            return Err(io::Error::other("the log's beginning is gone and no snapshot has it"));
        }
        let committed: Option<LogId> = store.get::<Option<LogId>>(key::COMMITTED)?.flatten();
        let from = state.applied.map_or(0, |applied| applied.index() + 1);
        let to = committed.map_or(0, |committed| committed.index() + 1);
        for (expected, entry) in (from..).zip(store.entries(from, to)?) {
            // After a crash while a snapshot was installed, what is left of the log may lie before it.
            if entry.log_id.index() != expected {
                break;
            }
            state.apply(entry);
        }
        Ok(Self::with_state(store, state))
    }

    /// The snapshot with which a survivor goes on alone: every entry of the log is applied up to `last`, committed or not.
    pub(crate) fn found_anew(
        store: &Store,
        last: Option<LogId>,
        membership: Membership<u64, Voter>,
        forced: Forced,
    ) -> io::Result<Stored> {
        let stored: Option<Stored> = store.get(key::SNAPSHOT)?;
        let mut state = match &stored {
            Some(stored) => newer::decode(stored.state.as_bytes())?,
            None => State::default(),
        };
        let from = state.applied.map_or(0, |applied| applied.index() + 1);
        for entry in store.entries(from, u64::MAX)? {
            state.apply(entry);
        }
        Arc::make_mut(&mut state.ledger).force(forced);
        state.applied = last;
        state.membership = StoredMembership::new(last, membership);
        let meta = SnapshotMeta { last_log_id: last, last_membership: state.membership.clone() };
        Ok(Stored { meta, state: serde_json::to_string(&state)? })
    }

    fn with_state(store: Store, state: State) -> Self {
        let (committed, _) = watch::channel(state.published());
        Self { store, state: Arc::new(Mutex::new(state)), committed, waiting: Arc::default() }
    }

    pub(crate) fn with_store(self, store: Store) -> Self {
        Self { store, ..self }
    }

    /// The newest applied state.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Committed> {
        self.committed.subscribe()
    }

    /// Log id of the newest applied entry.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.lock().applied
    }

    /// Tells `waiting` the outcome of the proposal `id` once it is applied here, at once if it is already.
    pub fn await_outcome(&self, id: &ProposalId, waiting: Waiting) {
        let state = self.lock();
        if let Some(recent) = state.recent.iter().rev().find(|recent| recent.id == *id) {
            let _ = waiting.send((recent.index, recent.outcome.clone()));
            return;
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), waiting);
    }

    /// Nobody waits for the proposal any more.
    pub fn forget(&self, id: &ProposalId) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the state visible, then tells who waits for what is in it.
    fn publish(&self) {
        let state = self.lock();
        self.committed.send_replace(state.published());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        for recent in &state.recent {
            if let Some(waiting) = waiting.remove(&recent.id) {
                let _ = waiting.send((recent.index, recent.outcome.clone()));
            }
        }
    }
}

impl State {
    fn published(&self) -> Committed {
        Committed { index: self.applied.as_ref().map_or(0, LogId::index), ledger: Arc::clone(&self.ledger) }
    }

    fn apply(&mut self, entry: EntryOf<TypeConfig>) -> Outcome {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Outcome::Blank,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Outcome::Blank
            }
            EntryPayload::Normal(proposal) => self.answer(&entry.log_id, proposal),
        }
    }

    fn answer(&mut self, at: &LogId, proposal: Proposal) -> Outcome {
        if let Some(recent) = self.recent.iter().rev().find(|recent| recent.id == proposal.id) {
            return recent.outcome.clone();
        }
        let leader = at.committed_leader_id();
        let legal = match proposal.leadership {
            Some(made_for) => made_for.term == leader.term && made_for.raft_id == leader.node_id,
            None => !proposal.command.is_leader_only(),
        };
        let outcome = if legal {
            self.needs.extend(Need::of(&proposal.command));
            Outcome::Answered(Arc::make_mut(&mut self.ledger).apply(proposal.command))
        } else {
            Outcome::OtherLeadership
        };
        self.recent.push_back(Recent { id: proposal.id, index: at.index(), outcome: outcome.clone() });
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        outcome
    }
}

/// What a snapshot has that only a newer version knows, if so. Installing it would end this process.
pub(crate) fn newer_in(snapshot: &str) -> Option<Newer> {
    let error = newer::decode::<State>(snapshot.as_bytes()).err()?;
    Newer::in_error(&error).cloned()
}

/// What a proposer gets to know of an outcome; `None` if the entry was not of the right leadership.
#[must_use]
pub fn as_applied(index: u64, outcome: Outcome) -> Option<Applied> {
    match outcome {
        Outcome::Answered(response) => Some(Applied { index, response }),
        Outcome::Blank => Some(Applied { index, response: Response::Accepted }),
        Outcome::OtherLeadership => None,
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = String;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, String>, io::Error> {
        let state = self.lock().clone();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        let stored = Stored { meta, state: serde_json::to_string(&state)? };
        self.store.write(Durability::Immediate, |t| put(t, key::SNAPSHOT, &stored))?;
        Ok(SnapshotOf::<TypeConfig, String> { meta: stored.meta, snapshot: stored.state })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = String;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembershipOf<TypeConfig>), io::Error> {
        let state = self.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.lock().apply(entry);
            self.publish();
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: String) -> Result<(), io::Error> {
        let state: State = newer::decode(snapshot.as_bytes())?;
        let stored = Stored { meta: meta.clone(), state: snapshot };
        self.store.write(Durability::Immediate, |t| put(t, key::SNAPSHOT, &stored))?;
        *self.lock() = state;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, String>>, io::Error> {
        let stored: Option<Stored> = self.store.get(key::SNAPSHOT)?;
        Ok(stored.map(|s| SnapshotOf::<TypeConfig, String> { meta: s.meta, snapshot: s.state }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A snapshot's state that has `frobnicate` in it.
    pub(crate) fn newer_state() -> String {
        let text = serde_json::to_string(&State::default()).unwrap();
        let newer = r#""recent":[{"id":{"session":"a","number":0},"index":0,"outcome":"frobnicate"}]"#;
        let changed = text.replace(r#""recent":[]"#, newer);
        assert_ne!(changed, text);
        changed
    }

    #[test]
    fn a_snapshot_of_a_newer_version_is_known_as_one() {
        assert_eq!(newer_in(&newer_state()), Some(Newer::named("frobnicate")));
        assert_eq!(newer_in(&serde_json::to_string(&State::default()).unwrap()), None);
        assert_eq!(newer_in("{"), None, "damage is no newer version");
    }

    /// A field that this version would drop is not carried past it.
    #[test]
    fn a_state_that_needs_what_is_not_known_is_newer() {
        let text = serde_json::to_string(&State::default()).unwrap();
        let with = |needs: &str| text.replacen('{', &format!(r#"{{"needs":{needs},"#), 1);
        for needs in [r#"["frobnicate"]"#, r#"["frobnicate","more"]"#] {
            let error = newer::decode::<State>(with(needs).as_bytes()).unwrap_err();
            assert_eq!(Newer::in_error(&error), Some(&Newer::named("frobnicate")), "{needs}");
            assert_eq!(newer_in(&with(needs)), Some(Newer::named("frobnicate")), "{needs}");
        }
        // Whatever else is of another form there: the need is read first.
        let retyped = with(r#"["frobnicate"]"#).replace(r#""recent":[]"#, r#""recent":7"#);
        assert_eq!(newer_in(&retyped), Some(Newer::named("frobnicate")));
        for damaged in ["[7]", "7", r#"["frobnicate""#] {
            assert!(newer::decode::<State>(with(damaged).as_bytes()).is_err(), "{damaged}");
            assert_eq!(newer_in(&with(damaged)), None, "{damaged}");
        }
    }

    #[test]
    fn a_state_that_needs_nothing_does_not_say_so() {
        let text = serde_json::to_string(&State::default()).unwrap();
        assert!(text.starts_with(r#"{"applied":null,"membership":"#), "{text}");
        assert!(!text.contains("needs"), "{text}");
        let read: State = newer::decode(text.as_bytes()).unwrap();
        assert!(read.needs.is_empty());
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
