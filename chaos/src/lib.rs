//! What the client saw, and whether it was right.
//!
//! Three parts, used in this order:
//!
//! ```text
//! load ── every 10 ms a write through the virtual IP ──┐
//! arp  ── every 10 ms "who has the virtual IP?" ───────┼─► history ─► check ─► verdict
//! database afterwards ── the ids that are there ───────┘
//! ```
//!
//! Nothing here knows how a takeover works, talks to an agent, or injects a fault: the client side must be able to
//! prove an agent wrong, so it shares no code with one. `check` is pure; `load` and `arp` each run on a thread of
//! their own that has entered the network namespace of the client.

pub mod arp;
pub mod check;
pub mod cli_paper;
pub mod command;
pub mod evidence;
pub mod experiment;
pub mod history;
pub mod lint;
pub mod load;
pub mod netns;
pub mod report;
pub mod runner;
pub mod schedule;
pub mod schema;
pub mod timetable;
pub mod trend;
pub mod verdict;
