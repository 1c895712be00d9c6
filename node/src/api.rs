//! The local API: HTTP on a Unix socket, for the command line on the same machine.
//!
//! ```text
//!  driver ──publishes──▶ watch<Arc<View>> ──▶ GET  /v1/status  /v1/explain  /v1/history  /v1/history/{n}
//!  driver ◀──bounded───  mpsc<Operator>   ◀── POST /v1/run/{id}/ack  /v1/switchover  /v1/pause  /v1/drill  …
//! ```
//!
//! Reading never waits for the driver: it answers from the newest view. [`types`] are the answers, without logic;
//! [`view`] makes them from the ledger and draws the closing sentence, as pure functions.

pub mod alarm;
pub mod client;
pub mod drill;
pub(crate) mod ending;
pub mod force;
pub mod pause;
pub mod resync;
pub mod server;
pub mod types;
pub mod view;

#[cfg(test)]
pub(crate) mod sample;
