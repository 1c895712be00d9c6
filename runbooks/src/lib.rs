//! The pure half of Baton.
#![warn(missing_docs)]

pub mod ledger;
pub mod model;
pub mod observe;
pub mod plan;
pub mod run;
pub mod why;
