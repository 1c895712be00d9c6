//! The pure half of Baton: who holds the baton, what a run does next, and why.
//!
//! Nothing here reads a clock, draws a number, opens a socket or logs. Time and chance are parameters, what is to be done is
//! returned, and every decision carries its reasons as [`why::Why`]. The words are those of `docs/glossary.md`.
//!
//! ```text
//!  probe ─Observation─▶ detect ─Verdict─▶ decide ─Command─▶ (Raft) ─▶ ledger::apply ─▶ run: next, record ─▶ hands
//!                          │                ▲  only on the leader                          │
//!                          └─▶ decide::local┼─ on every node, without asking anybody       │
//!                                           └──────────── reports, StepEnded ◀─────────────┘
//! ```
//!
//! - [`model`]: ids, epochs, instants. [`observe`]: what was seen, and what a node says of itself.
//! - [`detect`]: observations become verdicts. [`decide`]: the leader's decision. [`decide::local`]: what a node does by itself.
//! - [`plan`], [`run`], [`run::takeover`]: an immutable plan, its journal, the step table.
//! - [`ledger`]: the replicated state and `apply`. [`lease`]: both halves of the lease's arithmetic.
//! - [`sync`]: the holder's keeper of the in-sync rule. [`exposure`]: what Redis may lose. [`agent`]: all of it behind one `handle(input) -> outputs`.
//!
//! # The driver's contract
//!
//! Whoever owns an [`agent::Agent`], a [`lease::granter::Granter`] and a [`lease::holder::Holder`] has these duties. The
//! safety argument rests on each of them; the simulator (crate `tests`, module `sim`) is a driver that keeps them, and its planted
//! bugs show what happens otherwise.
//!
//! 1. **One input at a time**, stamped with the present instant; all its outputs are begun, in order, before the next one.
//!    A [`Tick`](agent::Input::Tick) comes at least every [`agent::TICK_MAX_MS`], and when a lease ends.
//! 2. **Only what is committed.** [`Committed`](agent::Input::Committed) carries an applied ledger, within one start of the agent
//!    never an older one than before. The first one after a start may be older than what the last start had applied: how far
//!    the log is committed is synced with the next entry that is written there, not by itself. What is missing a leader tells,
//!    and until then it harms nobody. A door opens only with a fresh grant, and whoever grants or decides has applied an entry
//!    of its own term. Each command names the epoch, generation or run that it was made from. The keeper switches semi-sync off
//!    only after an *out of sync* that it proposed itself, in this start ([`sync`]). A step that is asked for once more checks
//!    before it acts (7), and an actor is not led back past what came of its steps: what it had applied before the newest entry
//!    in its log is never missing. That counts, since a step that opens a database does it with semi-sync off.
//! 3. **Every proposal comes back** as [`Proposed`](agent::Input::Proposed), within a deadline of the driver's:
//!    accepted, refused, or unknown. *Refused* means that it can never be applied any more; whatever is less sure is unknown.
//! 4. **An epoch ends only after another look.** For a proposal with `ends`, the lease thread calls
//!    [`Granter::end_if_over`](lease::granter::Granter::end_if_over) at that moment; false means that the proposal is not made
//!    and counts as refused, since the instant in [`agent::LeaseFacts`] is a copy and a grant may have been given since.
//!    [`Granter::go_on`](lease::granter::Granter::go_on) follows a refusal, never an unknown fate.
//! 5. **Closed first.** A [`Release`](ledger::Command::Release) is proposed only after both doors are closed, voided in the
//!    kernel and read back. A wish that closes is carried out before any other output that follows it.
//! 6. **Ticket, clock, question; permit last.** [`next_ticket`](lease::holder::Holder::next_ticket) goes into the kernel and
//!    clears the slot's permit in the same transaction, then the clock is read for [`renew`](lease::holder::Holder::renew). Only
//!    one thread writes tickets and permits.
//! 7. **Steps check, then act**, and may be asked for again at any time. Before each effect the hand looks whether the run is
//!    still the ledger's newest; a [`RunStep`](agent::Output::RunStep) always comes back as
//!    [`StepEnded`](agent::Input::StepEnded), also when its task died.
//! 8. **Opening is announced.** [`Opening`](agent::Input::Opening) is fed, and stored for the next start of the agent,
//!    before the database is made writable; semi-sync is set as the wish says before that, and afterwards only by
//!    [`Keep`](agent::Output::Keep) orders. Canaries are numbered on from the newest that the table holds. A process of Redis
//!    is observed, and [how it was found](observe::RedisBoot) stored, before it is made a primary.
//! 9. **Its own report too**: each [`report`](agent::Agent::report) that is sent is fed to this node's own core.
//!
//! # What is deliberately not here
//!
//! Raft (crate `consensus`), the kernel (`netops`), databases, timers, configuration and its timing rules (`node`). An old
//! actor's *effects* are stopped by the hands and the kernel; the ledger only refuses its words.
#![warn(missing_docs)]

pub mod agent;
pub mod decide;
pub mod detect;
pub mod exposure;
pub mod lease;
pub mod ledger;
pub mod model;
pub mod observe;
pub mod plan;
pub mod run;
mod shared;
pub mod sync;
pub mod why;
