//! The agent and the command line of Baton.

pub mod hands;
pub mod probe;
pub mod agent;
pub mod api;
pub mod chain;
pub mod cli;
pub mod config;
pub mod recorder;
pub mod telemetry;
pub mod lease;
