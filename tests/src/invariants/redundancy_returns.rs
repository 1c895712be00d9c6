//! Liveness beyond service: after everything was repaired there are two of everything again. The other data node is attached and
//! in sync, no run is open, no pause goes on, and every node has the whole log.
//!
//! What the product leaves to an operator is no excuse by itself: this world's operator orders a resync of a node that is in
//! quarantine, `baton rejoin` of one of a lower generation, and `baton resume`. Only where nobody acknowledges a run that needs
//! an operator may that run stay; both databases are closed then, so nobody can follow.

use baton_runbooks::model::RunId;

/// Its name.
pub const NAME: &str = "redundancy_returns";

/// Every node applies an entry within this time, in milliseconds: the slowest heartbeat, and the slowest hand.
pub const APPLIED_MS: u64 = 2_000;

/// What is looked at in the end.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// The run that is open.
    pub run: Option<RunId>,
    /// That run needs an operator, and none comes.
    pub abandoned: bool,
    /// A pause goes on.
    pub paused: bool,
    /// The ledger calls a replica complete.
    pub in_sync: bool,
    /// A database receives what the other one writes.
    pub attached: bool,
    /// A Redis receives what the other one writes, or this world has none.
    pub redis_attached: bool,
    /// The first node whose agent does not run, or that lacks an entry of the newest log that is older than [`APPLIED_MS`].
    pub behind: Option<&'static str>,
}

/// The schedule is over.
pub fn check(end: &End) -> Result<(), String> {
    if let Some(node) = end.behind {
        return Err(format!("{node} has not applied what was decided long ago"));
    }
    if end.paused {
        return Err("a pause goes on, although an operator has ended it".to_owned());
    }
    if end.abandoned {
        return Ok(());
    }
    if let Some(run) = end.run {
        return Err(format!("run {run} is open, and needs no operator"));
    }
    if !end.attached {
        return Err("no database follows the other one".to_owned());
    }
    if !end.in_sync {
        return Err("a database follows the other one, and is never called in sync".to_owned());
    }
    if !end.redis_attached {
        return Err("no Redis follows the other one".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All is well.
    fn whole() -> End {
        End { in_sync: true, attached: true, redis_attached: true, ..End::default() }
    }

    #[test]
    fn each_thing_that_is_missing_is_told_by_itself() {
        assert_eq!(check(&whole()), Ok(()));
        let missing = [
            (End { run: Some(RunId(7)), ..whole() }, "run 7 is open"),
            (End { paused: true, ..whole() }, "a pause goes on"),
            (End { attached: false, ..whole() }, "no database follows"),
            (End { in_sync: false, ..whole() }, "is never called in sync"),
            (End { redis_attached: false, ..whole() }, "no Redis follows"),
            (End { behind: Some("mon"), ..whole() }, "mon has not applied"),
        ];
        for (end, told) in missing {
            let error = check(&end).expect_err(told);
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_run_that_nobody_acknowledges_excuses_the_replica_and_nothing_else() {
        let waits = End { run: Some(RunId(7)), abandoned: true, redis_attached: true, ..End::default() };
        assert_eq!(check(&waits), Ok(()));
        assert!(check(&End { paused: true, ..waits.clone() }).is_err());
        assert!(check(&End { behind: Some("db2"), ..waits }).is_err());
    }
}
