//! Liveness: after everything was repaired, a client's write is acknowledged again within a bound and from then on; or a run
//! needs an operator, and says so. Either way no acknowledged write is missing.

/// Its name.
pub const NAME: &str = "served_again";

/// Milliseconds after the repair by which service must be back. The longest waits are those of the design itself: a node to
/// which takeovers failed three times rests for 20 s.
pub const BOUND_MS: u64 = 27_000;

/// At the end, the newest acknowledged write must be younger than this, in milliseconds.
const FRESH_MS: u64 = 2_000;

/// The schedule is over.
pub fn check(at: u64, newest_ack: Option<u64>, needs_operator: bool, lost: u32) -> Result<(), String> {
    if lost > 0 {
        return Err(format!(
            "whoever serves in the end, or both while nobody may, lack {lost} acknowledged writes"
        ));
    }
    if needs_operator || newest_ack.is_some_and(|ack| at - ack < FRESH_MS) {
        return Ok(());
    }
    Err(format!("nobody serves at the end; the newest acknowledged write was at {newest_ack:?}"))
}
