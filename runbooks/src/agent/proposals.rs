//! Proposals in flight: none is made twice, and none faster than the ledger can answer.

use std::collections::BTreeSet;

use super::{Agent, Output};
use crate::ledger::command::Command;
use crate::model::{Epoch, Mono, PauseId, SyncGeneration, Term};
use crate::plan::Step;

/// What a proposal in flight is for, so that it is not made twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    StartRun,
    AbandonRun,
    Skip(Step),
    /// Everything that one journal command speaks of.
    Steps(BTreeSet<Step>),
    Release(Epoch),
    SyncIn(SyncGeneration),
    SyncOut(SyncGeneration),
    WithdrawLoss(SyncGeneration),
    ClaimPause(PauseId),
    EndPause(PauseId),
    ExpirePause(PauseId),
}

/// A release that was proposed: nothing may open in its epoch any more, until it is known that no word of it can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Releasing {
    /// The epoch that is given up.
    pub(super) epoch: Epoch,
    /// Pauses that had begun: the ledger refuses the word when there are more.
    pub(super) pauses: PauseId,
    /// Nobody knows what became of one of its words, so that the refusal of a later one says nothing: that one may be on its
    /// way, and be applied at any time.
    pub(super) doubtful: bool,
}

impl Releasing {
    /// Said again, or for the first time.
    pub(super) fn again(before: Option<Self>, epoch: Epoch, pauses: PauseId) -> Self {
        let same = before.filter(|before| before.epoch == epoch && before.pauses == pauses);
        same.unwrap_or(Self { epoch, pauses, doubtful: false })
    }
}

/// After a proposal ended, however it did, the same is not proposed again before this time has passed, in milliseconds,
/// unless the ledger has changed since it was made. Without it, a node without a leader would propose as fast as it can be
/// refused, and a step whose outcome was accepted a moment before the ledger arrives here would be carried out again.
const RETRY_MS: u64 = 100;

impl Agent {
    pub(super) fn proposed(&mut self, ticket: u64, accepted: Option<bool>, now: Mono) {
        let Some((purpose, made_from)) = self.pending.remove(&ticket) else { return };
        self.steps.proposal_ended(ticket, accepted);
        match (&purpose, accepted) {
            (Purpose::SyncOut(generation), Some(true)) => self.keeper.settle(*generation),
            (Purpose::Release(epoch), Some(false)) => {
                let stands = |releasing: &Releasing| releasing.doubtful || releasing.epoch != *epoch;
                self.releasing = self.releasing.filter(stands);
            }
            (Purpose::Release(epoch), None) => {
                if let Some(releasing) = self.releasing.as_mut().filter(|releasing| releasing.epoch == *epoch)
                {
                    releasing.doubtful = true;
                }
            }
            (
                Purpose::StartRun
                | Purpose::AbandonRun
                | Purpose::Skip(_)
                | Purpose::Steps(_)
                | Purpose::Release(_)
                | Purpose::SyncIn(_)
                | Purpose::SyncOut(_)
                | Purpose::WithdrawLoss(_)
                | Purpose::ClaimPause(_)
                | Purpose::EndPause(_)
                | Purpose::ExpirePause(_),
                _,
            ) => {}
        }
        if made_from == self.ledgers {
            self.cooling.insert(purpose, now.plus_ms(RETRY_MS));
        }
    }

    /// An *out of sync* is in flight.
    pub(super) fn is_going_out(&self) -> bool {
        self.pending.values().any(|(purpose, _)| match purpose {
            Purpose::SyncOut(_) => true,
            Purpose::StartRun
            | Purpose::AbandonRun
            | Purpose::Skip(_)
            | Purpose::Steps(_)
            | Purpose::Release(_)
            | Purpose::SyncIn(_)
            | Purpose::WithdrawLoss(_)
            | Purpose::ClaimPause(_)
            | Purpose::EndPause(_)
            | Purpose::ExpirePause(_) => false,
        })
    }

    /// Nothing is in flight for this purpose, and the last proposal did not just come to nothing.
    pub(super) fn may_propose(&self, purpose: &Purpose) -> bool {
        !self.pending.values().any(|(p, _)| p == purpose) && !self.cooling.contains_key(purpose)
    }

    pub(super) fn propose(
        &mut self,
        purpose: Purpose,
        command: Command,
        as_leader: Option<Term>,
        ends: Option<Epoch>,
        out: &mut Vec<Output>,
    ) {
        self.tickets += 1;
        self.pending.insert(self.tickets, (purpose, self.ledgers));
        out.push(Output::Propose { ticket: self.tickets, command, as_leader, ends });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::sample::setup;
    use crate::agent::{Input, LeaseFacts, Stamped};
    use crate::decide::local::Role;
    use crate::ledger::Ledger;
    use crate::model::{NodeId, NodeKind, WallMs};
    use crate::why::Why;

    const NOW: Mono = Mono(1_000);

    fn ledger(pauses: PauseId) -> Ledger {
        let me = NodeId::from("db1");
        let members = [(me.clone(), NodeKind::Data), (NodeId::from("db2"), NodeKind::Data)].into();
        Ledger { members, epoch: Epoch(1), holder: Some(me), pauses, ..Ledger::default() }
    }

    /// It holds the baton, and says once more that it gives it back.
    fn releasing_again(agent: &mut Agent) -> u64 {
        let (epoch, pauses) = (Epoch(1), agent.ledger.pauses);
        agent.releasing = Some(Releasing::again(agent.releasing, epoch, pauses));
        let by = NodeId::from("db1");
        let command = Command::Release { epoch, by, boot: 1, pauses, why: Why::MysqlDead };
        agent.propose(Purpose::Release(epoch), command, None, None, &mut Vec::new());
        agent.tickets
    }

    fn holder() -> Agent {
        let mut agent = Agent::new(setup("db1"));
        let lease = LeaseFacts { held: Some((Epoch(1), Mono(60_000))), ..LeaseFacts::default() };
        let committed = Input::Committed { index: 1, ledger: ledger(PauseId(0)).into() };
        for input in [committed, Input::Lease { lease: lease.into() }] {
            agent.handle(Stamped { now: NOW, wall: WallMs(0), input });
        }
        agent
    }

    fn is_closed(agent: &Agent) -> bool {
        matches!(agent.local_wish(NOW).role, Role::Closed { .. })
    }

    #[test]
    fn a_release_that_is_refused_never_was() {
        let mut agent = holder();
        let ticket = releasing_again(&mut agent);
        assert!(is_closed(&agent), "on its way");
        agent.proposed(ticket, Some(false), NOW);
        assert!(!is_closed(&agent));
    }

    /// Seeds 3681330 and 3802813: the second word was not sent, since the doors could not be closed, and the first was applied
    /// two seconds later.
    #[test]
    fn the_refusal_of_a_later_word_says_nothing_of_an_earlier_one() {
        let mut agent = holder();
        let ticket = releasing_again(&mut agent);
        agent.proposed(ticket, None, NOW);
        let ticket = releasing_again(&mut agent);
        agent.proposed(ticket, Some(false), NOW);
        assert!(is_closed(&agent), "the first may be applied at any time");
        assert!(agent.local_wish(NOW).release.is_some(), "it says so until it is heard");
    }

    #[test]
    fn an_answer_that_is_an_epoch_late_says_nothing_of_this_one() {
        let mut agent = holder();
        let ticket = releasing_again(&mut agent);
        let next = Releasing::again(agent.releasing, Epoch(3), PauseId(0));
        for answer in [Some(false), None] {
            agent.releasing = Some(next);
            agent.pending.insert(ticket, (Purpose::Release(Epoch(1)), agent.ledgers));
            agent.proposed(ticket, answer, NOW);
            assert_eq!(agent.releasing, Some(next), "{answer:?}");
        }
    }

    #[test]
    fn a_pause_refuses_every_word_of_before() {
        let mut agent = holder();
        let ticket = releasing_again(&mut agent);
        agent.proposed(ticket, None, NOW);
        let input = Input::Committed { index: 2, ledger: ledger(PauseId(1)).into() };
        agent.handle(Stamped { now: NOW, wall: WallMs(0), input });
        assert!(!is_closed(&agent));
    }
}
