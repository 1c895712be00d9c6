//! The agent and the command line of Baton.

pub mod agent;
pub mod api;
pub mod chain;
pub mod cli;
pub mod config;
mod copy;
pub mod drill;
pub mod hands;
pub mod lease;
pub mod probe;
pub mod recorder;
pub mod telemetry;
