//! The lease: the holder's right to serve, for a bounded time (design, section 4).
//!
//! Both halves are here, as arithmetic on instants that the caller brings. [`holder`] counts its lease from the moment
//! *before* it asked; [`granter`] notes when the lease that it gave must have ended on any clock inside the bound.
//!
//! ```text
//! holder:   ticket into the kernel ─▶ s := now ─▶ Renewal(seq) ─────────────┐
//!                                                                           ▼
//! leader:                                   a := now − last quorum acknowledgement;  a ≤ a_max, else refused
//!                                           noted end := max(noted end, acknowledgement + L)
//!                                                                           │
//! holder:   permit into the kernel ◀─ lease ends at s − a + L ◀── Grant(seq, a)
//! ```
//!
//! Why one holder follows (guarded by `tests/props/lease.rs`, `lease_never_overlaps`):
//! 1. The kernel's ticket was set before `s` and lives `L − a_max`, so it ends no later than `s + L − a_max`.
//! 2. A grant carries `a ≤ a_max`, so the lease on paper, `s − a + L`, ends no earlier than the ticket.
//! 3. The leader's acknowledgement happened `a` before it answered, and it answered after `s`; so in real time the lease
//!    ends no later than acknowledgement + L, give or take the clocks' rates, which the margin covers.
//! 4. No takeover is decided before the noted end + margin; a new leader, who has no notes, waits `L(1+2ρ) + m`.
//! 5. A switchover passes the baton while the old lease lives. Its new holder is granted nothing before the old one has said
//!    that it is closed ([`Surrender`]), or the same wait has passed; once it has opened, the ledger says so.
//! 6. A paused holder has one long ticket and permit beside the short ones, in a slot of their own, from a grant like any
//!    other but for its length `R`. A leader counts the pause from when it first sees it in its term, `p`, which is not before
//!    its election; it grants at `g` only `R ≤ p + pause − g`, so that in real time no long lease outlives
//!    `p + pause(1+ρ)/(1−ρ)`,
//!    and an earlier leader's newest acknowledgement was before `p`. While the pause stands in the ledger no takeover starts;
//!    it is removed by the holder, whose long slot is void and read back, or by the leader after that end + `m`.

pub mod granter;
pub mod holder;

use serde::{Deserialize, Serialize};

use crate::model::{Epoch, NodeId, PauseId, Term};

/// Bound on the difference of clock rates, in percent (design, section 2: ρ = 5 %).
pub const RATE_PERCENT: u64 = 5;

/// Milliseconds on one clock after which `ms` have passed on every other, rounded up: `ms(1+ρ)/(1−ρ)`. For a lease `1+2ρ` and
/// the margin are enough; over a pause of hours what that leaves out is minutes.
#[must_use]
pub const fn on_any_clock_ms(ms: u64) -> u64 {
    ms.saturating_mul(100 + RATE_PERCENT).div_ceil(100 - RATE_PERCENT)
}

/// The numbers of a lease, from the configuration; all in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// `L`, the length of a lease.
    pub lease_ms: u64,
    /// `r`, the period of renewals.
    pub renew_ms: u64,
    /// `m`, the margin for clock rate, timers and scheduling.
    pub margin_ms: u64,
    /// `a_max`, the largest age of the leader's quorum acknowledgement that is accepted.
    pub age_max_ms: u64,
    /// Number of slots in the kernel's ring of tickets and permits.
    pub slots: u64,
}

impl Terms {
    /// How long a ticket lives in the kernel: `L − a_max`.
    #[must_use]
    pub const fn ticket_ms(&self) -> u64 {
        self.lease_ms.saturating_sub(self.age_max_ms)
    }

    /// How long a long ticket lives for a long lease of `length_ms`: `R − a_max`.
    #[must_use]
    pub const fn long_ticket_ms(&self, length_ms: u64) -> u64 {
        length_ms.saturating_sub(self.age_max_ms)
    }

    /// How long a leader that sees a pause of `for_ms` waits before it may take it for over by itself: on no other clock has
    /// it not ended then, margin included.
    #[must_use]
    pub const fn pause_wait_ms(&self, for_ms: u64) -> u64 {
        on_any_clock_ms(for_ms).saturating_add(self.margin_ms)
    }

    /// Slot of the long ticket: the one after the ring.
    #[must_use]
    pub const fn long_slot(&self) -> u64 {
        self.slots
    }

    /// How long a new leader waits, since it cannot know what the last one granted: `L(1+2ρ) + m`, rounded up.
    #[must_use]
    pub const fn new_leader_wait_ms(&self) -> u64 {
        self.lease_ms + (self.lease_ms * 2 * RATE_PERCENT).div_ceil(100) + self.margin_ms
    }
}

/// The holder asks the leader to go on serving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Who asks.
    pub node: NodeId,
    /// For which epoch.
    pub epoch: Epoch,
    /// Drawn at random when the agent started, so that no answer to an earlier agent counts.
    pub boot: u64,
    /// Number of the renewal, and of its ticket.
    pub seq: u64,
    /// Milliseconds since the newest grant arrived; `None`: none has, for this epoch.
    pub heard_ms: Option<u64>,
    /// It asks for a long lease; `None`: for one of `L`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongLease>,
}

/// A lease for the rest of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongLease {
    /// Which pause.
    pub pause: PauseId,
    /// Its length `R`, in milliseconds.
    pub length_ms: u64,
}

/// The leader's permission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// For which epoch.
    pub epoch: Epoch,
    /// As in the renewal.
    pub boot: u64,
    /// As in the renewal.
    pub seq: u64,
    /// Age of the leader's quorum acknowledgement when it answered, in milliseconds, rounded up.
    pub age_ms: u64,
    /// Who granted.
    pub leader: NodeId,
    /// In which term.
    pub term: Term,
    /// It is for a long lease, of this very pause and length; `None`: for one of `L`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongLease>,
}

/// A node that does not hold the baton any more says that it is closed: every ticket of it is void, in the kernel, and read
/// back. So the next holder need not wait until its lease ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surrender {
    /// Who is closed.
    pub node: NodeId,
    /// Which start of its agent, as in its renewals.
    pub boot: u64,
    /// The newest ticket that it numbered. What was granted for a later one is not meant.
    pub seq: u64,
}

/// Why the leader grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "refusal")]
pub enum Refusal {
    /// This node does not lead.
    NotLeader,
    /// It leads, but has not applied an entry of its own term: a takeover may be in its log.
    NothingAppliedYet,
    /// Its last quorum acknowledgement is too old.
    NoQuorum,
    /// Its own log append has been pending for `L`.
    OwnDiskStalled,
    /// The ledger names another holder or another epoch.
    NotTheHolder {
        /// The ledger's epoch.
        epoch: Epoch,
    },
    /// The holder gave this epoch back.
    Released,
    /// The run that made it the holder waits for an operator.
    WaitsForOperator,
    /// The end of this epoch has been proposed.
    Ending,
    /// The baton was passed by a switchover, and the old holder may still be open: its lease has not ended, and it has not
    /// said that it is closed.
    OldHolderOpen {
        /// Milliseconds until its lease must have ended, margin included.
        left_ms: u64,
    },
    /// The node has said of this ticket that it is void.
    Surrendered,
    /// The holder has received nothing for `L`: it is closed already, and must not stay in office.
    HolderHearsNothing,
    /// A long lease was asked for, and no such pause goes on, or another start of the holder's agent has claimed it.
    NotPaused,
    /// A long lease was asked for that would outlast the pause, as this leader counts it.
    PauseEnds {
        /// Milliseconds until it ends.
        left_ms: u64,
    },
}
