//! Whose turn it is to have a lab on this machine, among all programs that raise one.
//!
//! Whoever measures is alone. Where only what happens counts, and not within which milliseconds, two may stand side by side:
//! a lab spends most of its time waiting.

use std::fs::{File, TryLockError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::wait;

/// One file per lab that may stand.
const PLACES: [&str; 2] = ["/tmp/baton-lab.lock", "/tmp/baton-lab-2.lock"];
const LOOK: Duration = Duration::from_millis(100);

/// Held for as long as the lab stands.
#[derive(Debug)]
#[must_use]
pub struct Turn(#[expect(dead_code, reason = "held, not read")] Vec<File>);

/// Waits until no other lab stands, and lets none be raised.
///
/// # Errors
/// The caller is not root, a file cannot be made, or the process is told to stop.
pub fn alone() -> Result<Turn> {
    // In this order everywhere, so that nobody waits for a place that somebody holds who waits for this one.
    PLACES.iter().map(|place| waited(&[*place])).collect::<Result<Vec<File>>>().map(Turn)
}

/// Waits until no more than one other lab stands.
///
/// # Errors
/// As for [`alone`].
pub fn beside_another() -> Result<Turn> {
    Ok(Turn(vec![waited(&PLACES)?]))
}

fn waited(places: &[&str]) -> Result<File> {
    ensure!(nix::unistd::geteuid().is_root(), "the lab needs root");
    loop {
        for place in places {
            let file = File::create(place).with_context(|| format!("cannot make {place}"))?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {place}"));
                }
            }
        }
        wait::pass(LOOK)?;
    }
}
