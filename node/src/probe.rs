//! One-shot probes that no hands make: each looks once, within its deadline, and says what it saw.
//!
//! When a probe runs, how often, and what its result means are not decided here: `crate::agent::senses` schedules, the
//! detector judges. Each kind of probe has at most one look in flight; the senses see to that.

pub mod disk;
