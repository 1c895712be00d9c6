//! The agent and the command line of Baton.

pub mod agent;
pub mod api;
pub mod chain;
pub mod cli;
pub mod config;
pub mod hands;
pub mod lease;
pub mod probe;
pub mod recorder;
pub mod telemetry;
