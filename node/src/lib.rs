//! The agent and the command line of Baton.

pub mod hands;
