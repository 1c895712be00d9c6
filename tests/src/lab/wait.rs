//! Waiting for a condition, with a deadline and a way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a condition is looked at.
pub const EVERY: Duration = Duration::from_millis(20);

/// Makes every wait of this process end with an error, so that the labs are taken down in order.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether the process was told to stop.
#[must_use]
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Lets time pass; an interrupt ends it.
///
/// # Errors
/// The process was told to stop.
pub fn pass(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        if is_interrupted() {
            bail!("interrupted");
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::park_timeout(left.min(Duration::from_millis(100)));
    }
}

/// Looks at `condition` until it yields something. An error of it is not the end, but is told at the deadline.
///
/// # Errors
/// The deadline passed, or the process was told to stop.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let last = match condition() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if Instant::now() >= end {
            bail!("{what}: not within {} s{last}", limit.as_secs_f32());
        }
        pass(EVERY)?;
    }
}

/// Looks at `condition` until it holds.
///
/// # Errors
/// The deadline passed, or the process was told to stop.
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, limit, || Ok(condition()?.then_some(())))
}
