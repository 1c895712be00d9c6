//! The lease in discrete ticks: node A holds epoch 0, node B waits for epoch 1, two leaders may believe that they lead.
//!
//! | action | code |
//! |---|---|
//! | `Ticket`, `Ask` | `runbooks::lease::holder::Holder::next_ticket`, `Holder::renew`; the kernel's half in `netops::gate` |
//! | `Accept`, `WritePermit` | `Holder::accept`; the agent may be frozen between the two |
//! | `Close`, `Release` | `Holder::close`; `Ledger::apply` of `Command::Release` |
//! | `Grant` | `runbooks::lease::granter::Granter::grant` |
//! | `End` | `Granter::end_if_over` and the proposal after it |
//! | `Elect`, `ApplyOwnTerm`, `Commit` | Raft; `Office::own_term_applied` |
//! | `Tick` | one tick of real time; a clock that is told to slip does not see it |
//!
//! What is abstracted, and why nothing is lost by it:
//! - *One slot.* The gate is open if any slot is, and a grant for one slot can only move the noted end further away; so a
//!   violation by several slots is one by a single slot.
//! - *One change of holder.* Timers are relative; the state after a change is the first one with the names exchanged.
//!   B, once it has applied epoch 1, is taken to be open for ever, which is more than its lease would allow.
//! - *No time of its own.* All timers count down to zero, so the space is finite without a horizon. Every step may be
//!   late by any number of ticks: that is a freeze of an agent, a slow network, a cut. A message that is never taken is
//!   lost.
//! - *Drift.* Each clock may miss one tick. `L` is four ticks, so this is a rate that is off by far more than 5 %; the
//!   timers of one lease end within one such stretch, and drift before it leaves no trace in a relative timer.
//!
//! Left out: the echo and everything else that only ends a lease earlier; address lifetimes, the second net; rounding to
//! milliseconds.

mod step;

use stateright::{Model, Property};

/// `L`, in ticks.
pub const LEASE: u8 = 4;
/// `a_max`.
pub const AGE_MAX: u8 = 1;
/// `m`: one missed tick of the holder's clock.
pub const MARGIN: u8 = 1;
/// `2ρL`, rounded up.
pub const DRIFT: u8 = 1;
/// Nobody leads for that long without being too old to grant.
const STALE: u8 = AGE_MAX + 1;

/// What is wrong with the model; `Design` is what the code does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Design,
    /// Ticket and lease are counted from the arrival of the grant.
    FromReceipt,
    /// Counted from the question, without the age of the leader's acknowledgement.
    WithoutAge,
    /// A takeover is decided at the noted end itself.
    NoMargin,
    /// A new leader decides at once.
    NoNewLeaderWait,
    /// A new leader waits `L + m`, and nothing for the rates.
    NewLeaderWaitWithoutRates,
    /// The leader goes on granting while the end of the epoch is proposed.
    GrantWhileEnding,
    /// A new leader grants from the ledger that it happens to have.
    GrantBeforeOwnTerm,
    /// A leader grants without looking at its quorum.
    GrantWithoutQuorum,
    /// A permit alone opens.
    PermitWithoutTicket,
    /// A late grant of an older ticket counts for the slot's new one.
    LateGrantForReusedSlot,
    /// A release lets the takeover start although another start of the agent holds a lease.
    AnyRelease,
    /// The release is told before the gate is closed.
    ReleaseBeforeClose,
    /// After closing, a grant that was in flight opens again.
    CloseIsNoLatch,
}

/// The lease thread of A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thread {
    Idle,
    /// The ticket is in the kernel; the clock is not read yet.
    Ticketed,
    /// Ticks since `s`.
    Asked(u8),
    /// A permit for so many ticks was computed and is not written yet.
    Permitting(u8),
}

/// Where the entry is that ends epoch 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    None,
    /// On a node that was outvoted, and may yet be elected.
    Limbo,
    /// In the present leader's log.
    InLog,
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leader {
    /// Ticks since the newest acknowledged message was sent.
    acked: u8,
    own_term: bool,
    /// It has applied the end of epoch 0.
    ended: bool,
    ending: bool,
    may_slip: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    boot: u8,
    thread: Thread,
    latched: bool,
    may_slip: bool,
    ticket: u8,
    permit: u8,
    /// The question is under way.
    question: bool,
    /// Ages in grants that are under way, one bit each.
    grants: u8,
    /// A start of the agent has closed; its release is under way.
    releasing: Option<u8>,
    /// Applied.
    released: Option<u8>,
    leader: Leader,
    /// Ticks until the noted end of each start's leases.
    noted: [u8; 2],
    /// Ticks since election, until a new leader may decide.
    wait: u8,
    /// A leader that was deposed and does not know.
    deposed: Option<Leader>,
    /// Ticks since it was deposed, as far as they matter.
    deposed_for: u8,
    entry: Entry,
    b_open: bool,
}

impl State {
    fn a_open(&self, variant: Variant) -> bool {
        self.permit > 0 && (self.ticket > 0 || variant == Variant::PermitWithoutTicket)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Leader,
    Deposed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Tick { slip_a: bool, slip_leader: bool, slip_deposed: bool },
    Ticket,
    Ask,
    Accept { age: u8 },
    WritePermit,
    Close,
    Release,
    AgentRestarts,
    HostCrashes,
    Acknowledge { who: Who, age: u8 },
    Grant(Who),
    End,
    Commit,
    Elect { inherit: bool, forget_deposed: bool },
    ApplyOwnTerm,
    BOpens,
}

/// The model.
pub struct Lease(pub Variant);

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let leader = Leader { acked: 0, own_term: true, ended: false, ending: false, may_slip: true };
        vec![State {
            boot: 0,
            thread: Thread::Idle,
            latched: false,
            may_slip: true,
            ticket: 0,
            permit: 0,
            question: false,
            grants: 0,
            releasing: None,
            released: None,
            leader,
            noted: [0; 2],
            // The first leader is a new one too.
            wait: LEASE + DRIFT + MARGIN,
            deposed: None,
            deposed_for: 0,
            entry: Entry::None,
            b_open: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for bits in 0..8u8 {
            let (slip_a, slip_leader, slip_deposed) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let may = (!slip_a || state.may_slip)
                && (!slip_leader || state.leader.may_slip)
                && (!slip_deposed || state.deposed.is_some_and(|deposed| deposed.may_slip));
            if may {
                actions.push(Action::Tick { slip_a, slip_leader, slip_deposed });
            }
        }
        actions.extend([Action::Ticket, Action::Ask, Action::WritePermit, Action::Close, Action::Release]);
        actions.extend([Action::AgentRestarts, Action::HostCrashes, Action::End, Action::Commit]);
        actions.extend([Action::ApplyOwnTerm, Action::BOpens]);
        for who in [Who::Leader, Who::Deposed] {
            actions.push(Action::Grant(who));
            actions.extend((0..=AGE_MAX).map(|age| Action::Acknowledge { who, age }));
        }
        actions.extend((0..=AGE_MAX).map(|age| Action::Accept { age }));
        for bits in 0..4u8 {
            actions.push(Action::Elect { inherit: bits & 1 != 0, forget_deposed: bits & 2 != 0 });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        if let Action::Tick { slip_a, slip_leader, slip_deposed } = action {
            self.tick(&mut next, slip_a, slip_leader, slip_deposed);
        } else if self.holder(&mut next, action).is_none() {
            next = last.clone();
            self.raft(&mut next, action)?;
        }
        self.normalise(&mut next);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("G1 no two nodes serve", |model: &Self, state: &State| {
                !(state.a_open(model.0) && state.b_open)
            }),
            // A model in which nobody ever serves, or the baton never passes, would hold everything.
            Property::sometimes("A serves", |model: &Self, state: &State| state.a_open(model.0)),
            Property::sometimes("B serves", |_: &Self, state: &State| state.b_open),
        ]
    }
}
