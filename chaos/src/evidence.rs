//! What a drill leaves behind for those who were not there.

mod client;
mod record;

pub use record::{
    Bucket, ClientRecord, Ending, Event, ExperimentRef, FaultRecord, Gap, GateCheck, Harness,
    InvariantRecord, Judgement, NodeRecord, PhaseRecord, ProbeRecord, Record, Who,
};
