//! What a drill leaves behind for those who were not there.

mod client;
mod record;

pub use record::{
    Bucket, ClientRecord, Ending, Event, ExperimentRef, FaultRecord, Gap, GateCheck, Harness,
    InvariantRecord, Judgement, NodeRecord, PhaseRecord, ProbeRecord, Record, Who,
};

/// Hexadecimal digits of a hash.
#[must_use]
pub fn hex(hash: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
