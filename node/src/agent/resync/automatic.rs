//! Resyncs without an operator, for clusters that are configured so: when this node is in quarantine and everything is
//! saved, or when an interrupted resync left it closed.

use std::time::Duration;

use tokio::time::Instant;

use super::super::Context;
use super::preflight;

/// How often the node is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Pause after an attempt. What stands in the way of one is rarely gone sooner, and a copy is dear for the holder.
const PAUSE: Duration = Duration::from_secs(60);
/// Attempts for one cause; then it is an operator's.
const ATTEMPTS_MAX: u32 = 3;

/// Why a resync is due.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    /// These transactions are extra, and saved.
    Extra(String),
    /// The database does not know its place.
    Interrupted,
}

/// What was tried for one cause.
#[derive(Debug, Default)]
struct Attempts {
    cause: Option<Cause>,
    count: u32,
    rest_until: Option<Instant>,
}

impl Attempts {
    /// Whether one is due now; notes it if so. The pause begins with it: one that is under way is not due again.
    fn is_due(&mut self, cause: Option<Cause>, now: Instant) -> bool {
        if cause.is_none() {
            // The next quarantine has its own attempts.
            *self = Self::default();
            return false;
        }
        // An interrupted resync goes on with the attempts of its cause.
        if self.cause != cause && cause != Some(Cause::Interrupted) {
            *self = Self::default();
        }
        if self.count >= ATTEMPTS_MAX || self.rest_until.is_some_and(|until| now < until) {
            return false;
        }
        self.count += 1;
        self.rest_until = Some(now + PAUSE);
        if self.cause.is_none() {
            self.cause = cause;
        }
        true
    }
}

/// Runs for as long as the agent does.
pub(super) async fn watch(context: Context) {
    let mut attempts = Attempts::default();
    let mut tick = context.clock.every(LOOK, Duration::ZERO);
    loop {
        tick.tick().await;
        if context.resync.is_busy() || !attempts.is_due(cause(&context), Instant::now()) {
            continue;
        }
        match preflight::begin_by_itself(&context).await {
            Ok(number) => tracing::warn!(number, attempt = attempts.count, "a resync is begun by itself"),
            Err(reason) => tracing::error!(reason, attempt = attempts.count, "no resync is begun by itself"),
        }
        if attempts.count == ATTEMPTS_MAX {
            tracing::error!("this was the last attempt; `baton resync` begins another");
        }
    }
}

fn cause(context: &Context) -> Option<Cause> {
    if context.resync.holds_back() {
        return Some(Cause::Interrupted);
    }
    // Only what stands: a first refusal may be a matter of reports that are out of date.
    let quarantine = context.ward.facts().filter(|facts| facts.export.is_some());
    quarantine.map(|facts| Cause::Extra(facts.extra))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_few_attempts_with_pauses() {
        let mut attempts = Attempts::default();
        let now = Instant::now();
        let extra = || Some(Cause::Extra("0-1-7..9".to_owned()));
        assert!(!attempts.is_due(None, now));
        assert!(attempts.is_due(extra(), now));
        assert!(!attempts.is_due(extra(), now), "it rests");
        assert!(attempts.is_due(Some(Cause::Interrupted), now + PAUSE), "the second attempt");
        assert!(attempts.is_due(extra(), now + PAUSE * 2), "the third");
        assert!(!attempts.is_due(extra(), now + PAUSE * 9), "the rest is an operator's");
        assert!(
            attempts.is_due(Some(Cause::Extra("0-1-20..20".to_owned())), now + PAUSE * 9),
            "another cause"
        );
        assert!(!attempts.is_due(None, now + PAUSE * 9));
        assert!(attempts.is_due(extra(), now + PAUSE * 9), "it was well in between");
    }
}
