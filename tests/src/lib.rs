//! Baton on trial: a simulator, and a lab of network namespaces with real servers, faults, runs and benchmarks.
//!
//! ```text
//!  lab     three hosts, a client and an observer on a switch; MariaDB, Redis, a container engine, agents or another system
//!  fault   what can go wrong: inject, verify that it bit, heal
//!  run     one lab, one fault, one verdict
//!  bench   many runs, side by side with keepalived
//!  compare every system under every fault
//!  soak    many rounds in one lab, faults and orders drawn from a seed
//! ```
//!
//! The simulator ([`sim`], [`invariants`]) runs the agents' pure cores in a world made from a seed; it needs nothing.
//!
//! The lab proves the product from outside: it talks to the agents by the command line that an operator has, and to
//! the databases as a client has them. It needs root and runs everything in namespaces of its own.

pub mod bench;
pub mod compare;
pub mod drill;
pub mod fault;
pub mod invariants;
pub mod lab;
pub mod run;
pub mod sim;
pub mod soak;
