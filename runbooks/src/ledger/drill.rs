//! The drill that is under way: one at a time, held with a lease, known by its number.
//!
//! A drill gives nobody a right and takes none away: no decision reads it, so a takeover never waits for one. It is in
//! the ledger so that two operators cannot drill at once, so that every agent knows whether the one who drills still
//! lives, and so that three nodes witness how it ended.
//!
//! The ledger has no clock. [`Drill::beat`] moves with each renewal; an agent counts [`Drill::lease_ms`] from when it
//! applied the last one, by its own clock, and heals what it bears for the drill when that time is over.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::apply::keep_newest;
use super::{Ledger, Rejection};
use crate::model::{NodeId, WallMs};

/// Number of a drill; the first has 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DrillId(pub u64);

impl DrillId {
    /// There was no drill yet.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for DrillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A drill that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// Its number.
    pub number: DrillId,
    /// Name of the experiment.
    pub name: String,
    /// Hash of the experiment, so that what was run can be told from what the file says later.
    pub experiment: String,
    /// Who drills.
    pub by: String,
    /// The node whose agent was asked.
    pub at_node: NodeId,
    /// After so many milliseconds without a renewal it is over.
    pub lease_ms: u64,
    /// Raised by each renewal.
    pub beat: u64,
    /// It is to end: why. What it broke is healed.
    pub aborted: Option<String>,
    /// Wall clock of its beginning, for people.
    pub at: WallMs,
}

/// A drill that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedDrill {
    /// The drill.
    pub drill: Drill,
    /// The verdict, as the one who drilled says it; a drill whose lease ended has the agents' word.
    pub verdict: String,
    /// Hash of the last record of its evidence; empty: there is none.
    pub evidence: String,
    /// Wall clock of its end, for people.
    pub ended_at: WallMs,
}

/// What can be proposed about drills. Each names the drill by its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "drill")]
pub enum DrillCommand {
    /// Begins one, if none is under way and the number is the next.
    Begin {
        /// The number that it is to have.
        number: DrillId,
        /// Name of the experiment.
        name: String,
        /// Hash of the experiment.
        experiment: String,
        /// Who drills.
        by: String,
        /// The node whose agent was asked.
        at_node: NodeId,
        /// Milliseconds without a renewal after which it is over.
        lease_ms: u64,
        /// Wall clock, for people.
        at: WallMs,
    },
    /// Whoever drills still lives.
    Renew {
        /// Which drill.
        number: DrillId,
        /// The beat that he saw.
        beat: u64,
    },
    /// It is to end: everybody heals what it broke.
    Abort {
        /// Which drill.
        number: DrillId,
        /// Who wants it, and why.
        reason: String,
    },
    /// It has ended.
    End {
        /// Which drill.
        number: DrillId,
        /// The verdict.
        verdict: String,
        /// Hash of the last record of the evidence; empty: there is none.
        evidence: String,
        /// Only if no renewal has come since this beat. `None`: in any case.
        unless_after: Option<u64>,
        /// Wall clock, for people.
        at: WallMs,
    },
}

impl fmt::Display for DrillCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { number, name, by, .. } => write!(f, "{by} begins drill {number}, {name}"),
            Self::Renew { number, beat } => write!(f, "drill {number} goes on after beat {beat}"),
            Self::Abort { number, reason } => write!(f, "abort drill {number}: {reason}"),
            Self::End { number, verdict, .. } => write!(f, "drill {number} ends: {verdict}"),
        }
    }
}

impl Ledger {
    /// Applies a command about drills. Nothing but the drills of the ledger changes.
    pub(super) fn drill(&mut self, command: DrillCommand) -> Result<(), Rejection> {
        match command {
            DrillCommand::Begin { number, name, experiment, by, at_node, lease_ms, at } => {
                self.may_drill(number)?;
                self.drills = number;
                self.drill = Some(Drill {
                    number,
                    name,
                    experiment,
                    by,
                    at_node,
                    lease_ms,
                    beat: 0,
                    aborted: None,
                    at,
                });
            }
            DrillCommand::Renew { number, beat } => {
                let drill = self.this_drill(number)?;
                // One that comes twice renews once.
                if drill.beat != beat {
                    return Err(Rejection::StaleDrill { number });
                }
                drill.beat = beat.saturating_add(1);
            }
            DrillCommand::Abort { number, reason } => {
                self.this_drill(number)?.aborted.get_or_insert(reason);
            }
            DrillCommand::End { number, verdict, evidence, unless_after, at } => {
                let drill = self.this_drill(number)?;
                if unless_after.is_some_and(|seen| seen != drill.beat) {
                    return Err(Rejection::StaleDrill { number });
                }
                self.end_drill(verdict, evidence, at);
            }
        }
        Ok(())
    }

    fn may_drill(&self, number: DrillId) -> Result<(), Rejection> {
        // In a pause nobody takes over: what a drill is to prove cannot happen.
        self.not_paused()?;
        if let Some(run) = &self.run {
            return Err(Rejection::RunInProgress { run: run.id });
        }
        if let Some(drill) = &self.drill {
            return Err(Rejection::DrillInProgress { number: drill.number });
        }
        if number.0 != self.drills.0.saturating_add(1) {
            return Err(Rejection::StaleDrill { number });
        }
        Ok(())
    }

    fn this_drill(&mut self, number: DrillId) -> Result<&mut Drill, Rejection> {
        let drill = self.drill.as_mut().filter(|drill| drill.number == number);
        drill.ok_or(Rejection::NoSuchDrill { number })
    }

    fn end_drill(&mut self, verdict: String, evidence: String, ended_at: WallMs) {
        if let Some(drill) = self.drill.take() {
            self.ended_drills.push(EndedDrill { drill, verdict, evidence, ended_at });
            keep_newest(&mut self.ended_drills);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Command, HISTORY_MAX, PauseOrder, Response};

    fn begin(number: u64) -> DrillCommand {
        DrillCommand::Begin {
            number: DrillId(number),
            name: "mysqld-killed".into(),
            experiment: "ab".into(),
            by: "ann".into(),
            at_node: "mon".into(),
            lease_ms: 10_000,
            at: WallMs(1),
        }
    }

    fn end(number: u64, unless_after: Option<u64>) -> DrillCommand {
        let (verdict, evidence) = ("PASS".to_owned(), "cd".to_owned());
        DrillCommand::End { number: DrillId(number), verdict, evidence, unless_after, at: WallMs(2) }
    }

    fn apply(ledger: &mut Ledger, drill: DrillCommand) -> Result<(), Rejection> {
        match ledger.apply(Command::Drill { drill }) {
            Response::Accepted => Ok(()),
            Response::Rejected { rejection } => Err(rejection),
        }
    }

    #[test]
    fn one_drill_at_a_time_and_each_number_once() {
        let mut ledger = Ledger::default();
        let one = DrillId(1);
        assert_eq!(apply(&mut ledger, begin(2)), Err(Rejection::StaleDrill { number: DrillId(2) }));
        assert_eq!(apply(&mut ledger, begin(1)), Ok(()));
        assert_eq!(apply(&mut ledger, begin(2)), Err(Rejection::DrillInProgress { number: one }));
        assert_eq!(apply(&mut ledger, end(1, None)), Ok(()));
        assert_eq!(apply(&mut ledger, end(1, None)), Err(Rejection::NoSuchDrill { number: one }));
        assert_eq!(apply(&mut ledger, begin(1)), Err(Rejection::StaleDrill { number: one }));
        assert_eq!(apply(&mut ledger, begin(2)), Ok(()));
    }

    #[test]
    fn there_is_no_drill_in_a_pause_and_no_pause_in_a_drill() {
        let mut ledger = Ledger { holder: Some("db1".into()), ..Ledger::default() };
        let order =
            PauseOrder { for_ms: 600_000, alone: false, reason: "a new switch".into(), by: "ann".into() };
        let pause = Command::Pause { epoch: ledger.epoch, order, at: WallMs(1) };
        apply(&mut ledger, begin(1)).unwrap();
        let refused = Response::Rejected { rejection: Rejection::DrillInProgress { number: DrillId(1) } };
        assert_eq!(ledger.apply(pause.clone()), refused);
        apply(&mut ledger, end(1, None)).unwrap();
        assert_eq!(ledger.apply(pause), Response::Accepted);
        assert!(matches!(apply(&mut ledger, begin(2)), Err(Rejection::Paused { .. })));
    }

    #[test]
    fn a_late_renewal_renews_nothing_and_a_renewed_drill_does_not_lapse() {
        let mut ledger = Ledger::default();
        let number = DrillId(1);
        apply(&mut ledger, begin(1)).unwrap();
        assert_eq!(apply(&mut ledger, DrillCommand::Renew { number, beat: 0 }), Ok(()));
        let again = apply(&mut ledger, DrillCommand::Renew { number, beat: 0 });
        assert_eq!(again, Err(Rejection::StaleDrill { number }));
        // An agent that saw beat 0 only must not end it.
        assert_eq!(apply(&mut ledger, end(1, Some(0))), Err(Rejection::StaleDrill { number }));
        assert_eq!(apply(&mut ledger, end(1, Some(1))), Ok(()));
    }

    #[test]
    fn the_first_reason_of_an_abort_stays_and_the_history_is_bounded() {
        let mut ledger = Ledger::default();
        let number = DrillId(1);
        apply(&mut ledger, begin(1)).unwrap();
        for reason in ["first", "second"] {
            apply(&mut ledger, DrillCommand::Abort { number, reason: reason.into() }).unwrap();
        }
        apply(&mut ledger, end(1, None)).unwrap();
        assert_eq!(ledger.ended_drills[0].drill.aborted.as_deref(), Some("first"));
        for number in 2..100 {
            apply(&mut ledger, begin(number)).unwrap();
            apply(&mut ledger, end(number, None)).unwrap();
        }
        assert_eq!(ledger.ended_drills.len(), HISTORY_MAX);
        assert_eq!(ledger.ended_drills.last().map(|ended| ended.drill.number), Some(DrillId(99)));
    }
}
