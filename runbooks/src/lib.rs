//! The pure half of Baton.
#![warn(missing_docs)]

pub mod agent;
pub mod decide;
pub mod detect;
pub mod lease;
pub mod ledger;
pub mod model;
pub mod observe;
pub mod plan;
pub mod run;
pub mod sync;
pub mod why;
