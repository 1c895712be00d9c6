//! What a drill leaves behind for those who were not there: records that are written once, each with the hash of the
//! one before it.

mod canonical;
mod chain;
mod client;
mod record;
#[cfg(test)]
pub(crate) mod sample;
mod store;
#[cfg(test)]
mod tests;
mod witness;

pub use canonical::{canonical, hash};
pub use chain::{Flaw, Verification, verify};
pub use record::{
    Bucket, ClientRecord, Ending, Event, ExperimentRef, FaultRecord, Gap, GateCheck, Harness,
    InvariantRecord, Judgement, NodeRecord, PhaseRecord, ProbeRecord, Reconnecting, Record, Who,
};
pub use store::{Head, NO_HASH, Store, StoreError, Stored};
pub use witness::{Witness, compare};

/// Hexadecimal digits of a hash.
#[must_use]
pub fn hex(hash: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
