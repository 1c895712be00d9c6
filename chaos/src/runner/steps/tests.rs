//! What a method that was not done makes of its drill.

use baton_node::api::types::{ErrorBody, ErrorCode};

use super::*;
use crate::evidence::sample::passed;

/// The faults of a drill: those that were done, and the one that was to be done now.
fn faults(done: usize) -> Vec<FaultRecord> {
    let fault = passed().faults.swap_remove(0);
    let next = FaultRecord { injected_ms: None, verified_ms: None, ..fault.clone() };
    std::iter::repeat_n(fault, done).chain([next]).collect()
}

fn answered(code: ErrorCode) -> ClientError {
    let body =
        ErrorBody { code, message: "db1 allows drills up to L1, not L2".into(), way_out: "wait".into() };
    ClientError::Answered { status: 409, body }
}

#[test]
fn a_move_that_is_refused_refuses_the_drill_unless_something_was_done_before() {
    let refusal = answered(ErrorCode::Refused);
    let why = refusal.to_string();
    assert!(why.contains("db1 allows drills up to L1"), "{why}");
    assert_eq!(not_moved(&faults(0), &refusal), Ending::Refused { why: why.clone() });
    assert_eq!(not_moved(&faults(1), &refusal), Ending::Aborted { by: "switchover".into(), why });
    let window = "db1: drills are for Mon-Fri here".to_owned();
    assert_eq!(refused(&faults(0), "db1", window.clone()), Ending::Refused { why: window.clone() });
    assert_eq!(refused(&faults(1), "db1", window.clone()), Ending::Aborted { by: "db1".into(), why: window });
}

#[test]
fn a_move_of_which_nobody_knows_whether_it_began_is_not_called_refused() {
    let socket = || PathBuf::from("baton.sock");
    let lost = ClientError::Broken { socket: socket(), detail: "reset".into() };
    let late = ClientError::TimedOut { socket: socket(), after: Duration::from_secs(10) };
    for error in [lost, late, answered(ErrorCode::TimedOut), answered(ErrorCode::NoQuorum)] {
        let ending = not_moved(&faults(0), &error);
        assert_eq!(ending, Ending::Aborted { by: "switchover".into(), why: error.to_string() });
    }
}
