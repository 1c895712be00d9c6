//! Baton on trial: a lab of network namespaces with real servers, faults, runs and benchmarks.
//!
//! ```text
//!  lab   three hosts, a client and an observer on a switch; MariaDB, Redis, a container engine, agents or keepalived
//!  fault what can go wrong: inject, verify that it bit, heal
//!  run   one lab, one fault, one verdict
//!  bench many runs, side by side with keepalived
//! ```
//!
//! The lab proves the product from outside: it talks to the agents by the command line that an operator has, and to
//! the databases as a client has them. It needs root and runs everything in namespaces of its own.

pub mod bench;
pub mod fault;
pub mod lab;
pub mod run;
