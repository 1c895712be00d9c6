//! Soak: random faults and operators' orders on real servers, round after round, each judged by what clients saw.
//!
//! ```text
//!  seed ─ draw a round ─ [lab stands] ─ load ─ [order begun] ─ fault ─ heal ─ all on again ─ whole ─ check ─ next round
//!                             ▲                                                              │
//!                             └────── fresh, after a violation or where there is no way back ┘
//! ```
//!
//! One lab stands over many rounds: what a fault leaves behind meets the next one, and what grows is seen to grow. A round
//! is drawn from the seed and its number alone, so it can be played again; what happened before it in its lab cannot.

mod coverage;
mod draw;
mod growth;
mod kept;
mod memory;
mod play;
mod summary;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use baton_chaos::check::Finals;

use crate::lab::{Driver, Flavour, Lab, Options, Port, target_dir, turn, wait};
use crate::run::Outcome;
pub use coverage::Tally;
pub use draw::{Begun, Round, Stand};
pub use growth::{Sample, Trend};
use memory::{Missing, Remembered};
pub use summary::{Failure, Played, Summary, bound_95};

/// How long a fresh lab may take to a whole cluster.
const RAISED_WITHIN: Duration = Duration::from_secs(90);
/// Labs that do not come up one after the other before the soak gives up.
const NOT_RAISED_MAX: u32 = 3;
/// How long somebody may take to say who holds the baton, before writes of earlier rounds are looked for.
const HELD_WITHIN: Duration = Duration::from_secs(60);
/// Rounds whose writes are looked for together when a lab is taken down.
const LOOKED_FOR_TOGETHER: usize = 20;

/// What to do.
#[derive(Debug, Clone)]
pub struct Order {
    /// No round begins after this.
    pub time: Duration,
    /// From which everything is drawn.
    pub seed: u64,
    /// Number of the first round.
    pub first: u32,
    /// How many rounds at most.
    pub rounds: Option<u32>,
    /// Whether container engines take part.
    pub docker: bool,
    /// Which databases stand in the lab.
    pub flavour: Flavour,
}

/// What has come of it so far.
struct Soak {
    order: Order,
    dir: PathBuf,
    lab: Option<Lab>,
    labs: u32,
    kept: u32,
    next_id: u64,
    remembered: Vec<Remembered>,
    played: Vec<Played>,
    samples: Vec<Sample>,
}

/// Plays rounds until the time is up, the rounds are played, or the process is told to stop. `say` gets a line per round.
///
/// # Errors
/// Labs do not come up, or a file cannot be written. What a round finds is no error.
pub fn soak(order: &Order, mut say: impl FnMut(&str)) -> Result<Summary> {
    let dir = target_dir().join("soak");
    std::fs::create_dir_all(&dir)?;
    let _turn = turn::alone()?;
    let mut soak = Soak {
        order: order.clone(),
        dir,
        lab: None,
        labs: 0,
        kept: 0,
        next_id: 0,
        remembered: Vec::new(),
        played: Vec::new(),
        samples: Vec::new(),
    };
    let result = soak.all(&mut say);
    let summary = soak.summary();
    summary.save(&soak.dir)?;
    match result {
        Err(error) if !wait::is_interrupted() => {
            say(&summary.text());
            Err(error)
        }
        Ok(()) | Err(_) => Ok(summary),
    }
}

impl Soak {
    fn all(&mut self, say: &mut impl FnMut(&str)) -> Result<()> {
        let end = Instant::now() + self.order.time;
        let last = self.order.rounds.map_or(u32::MAX, |rounds| self.order.first.saturating_add(rounds - 1));
        for number in self.order.first..=last {
            if Instant::now() >= end {
                break;
            }
            let round = Round::draw(self.order.seed, number, self.order.docker);
            let mut played = self.one(&round, say)?;
            if played.outcome == Outcome::Fail && round.stand() != Stand::Own {
                played.kept = self.keep(&played, say);
                self.retire(false, say);
            }
            say(&line(&played));
            self.played.push(played);
            self.summary().save(&self.dir)?;
            self.note()?;
            if round.stand() == Stand::Last {
                self.retire(true, say);
            }
        }
        self.retire(true, say);
        // The last look may have changed what is said of a round.
        self.note()
    }

    /// A round in the lab that it needs.
    fn one(&mut self, round: &Round, say: &mut impl FnMut(&str)) -> Result<Played> {
        if round.stand() == Stand::Own {
            // The lasting lab stands idle meanwhile.
            let lab = self.raise(round, say)?;
            let history = self.history();
            let mut played = play::play(&lab, round, 0, history.clone())?.played;
            if played.outcome == Outcome::Fail {
                played.kept = Some(kept::keep(&lab, &played, Some(&history), &self.dir, self.kept)?);
                self.kept += 1;
            }
            return Ok(played);
        }
        if self.lab.is_none() {
            self.lab = Some(self.raise(round, say)?);
            self.remembered.clear();
        }
        let Some(lab) = &self.lab else { bail!("the lab was raised just now") };
        let mut done = play::play(lab, round, self.next_id, self.history())?;
        if let Some(remembered) = done.remembered {
            self.next_id = remembered.ids.end;
            if let Some(before) = self.remembered.last() {
                forgotten(lab, std::slice::from_ref(before), &mut done.played);
            }
            self.remembered.push(remembered);
        }
        if done.played.outcome != Outcome::Fail {
            match growth::sample(lab, round.number).and_then(|samples| tidy(lab).map(|()| samples)) {
                Ok(samples) => self.samples.extend(samples),
                Err(error) => {
                    done.played.outcome = Outcome::Fail;
                    done.played.reasons.push(format!("the lab is not what it was: {error:#}"));
                }
            }
        }
        Ok(done.played)
    }

    fn raise(&mut self, round: &Round, say: &mut impl FnMut(&str)) -> Result<Lab> {
        let own = round.stand() == Stand::Own;
        let options = Options {
            flavour: self.order.flavour,
            docker: self.order.docker,
            small_disk: own && round.fault.needs_small_disk(),
            resync_by_itself: !own,
            failpoints: true,
            quiet: true,
            ..Options::plain(Driver::Agents { profile: "standard".into() })
        };
        for _ in 0..NOT_RAISED_MAX {
            let raised = Lab::up(options.clone()).and_then(|lab| {
                lab.whole(RAISED_WITHIN).inspect_err(|_| lab.keep())?;
                Ok(lab)
            });
            match raised {
                Ok(lab) => {
                    self.labs += 1;
                    return Ok(lab);
                }
                Err(_) if wait::is_interrupted() => bail!("interrupted"),
                Err(error) => say(&format!("a lab does not come up: {error:#}")),
            }
        }
        bail!("{NOT_RAISED_MAX} labs did not come up")
    }

    /// Takes the lasting lab down, after a last look for everything that was ever acknowledged in it.
    fn retire(&mut self, look: bool, say: &mut impl FnMut(&str)) {
        let (Some(lab), remembered) = (self.lab.take(), std::mem::take(&mut self.remembered)) else { return };
        if !look || wait::is_interrupted() {
            return;
        }
        let Some(place) = last_in(&self.played, &lab.id) else { return };
        let history = (place + 1 == self.played.len()).then(|| self.history());
        let last = &mut self.played[place];
        forgotten(&lab, &remembered, last);
        if last.outcome == Outcome::Fail {
            last.kept = kept::keep(&lab, last, history.as_deref(), &self.dir, self.kept).ok();
            self.kept += 1;
            say(&line(last));
        }
    }

    fn keep(&mut self, played: &Played, say: &mut impl FnMut(&str)) -> Option<PathBuf> {
        let lab = self.lab.as_ref()?;
        let kept = kept::keep(lab, played, Some(&self.history()), &self.dir, self.kept);
        self.kept += 1;
        kept.inspect_err(|error| say(&format!("what failed cannot be kept: {error:#}"))).ok()
    }

    fn summary(&self) -> Summary {
        Summary::of(self.order.seed, self.order.flavour.name(), self.labs, &self.played, &self.samples)
    }

    fn history(&self) -> PathBuf {
        self.dir.join(HISTORY)
    }

    /// One line per round, so that a soak that is cut short is readable up to the cut.
    fn note(&self) -> Result<()> {
        let lines: Result<Vec<String>, _> = self.played.iter().map(serde_json::to_string).collect();
        Ok(std::fs::write(self.dir.join("rounds.jsonl"), lines?.join("\n") + "\n")?)
    }
}

/// The history of the round that is being played.
const HISTORY: &str = "history.jsonl";

/// The last round that was played in a lab: what came after it in labs of their own says nothing of this one.
fn last_in(played: &[Played], lab: &str) -> Option<usize> {
    played.iter().rposition(|one| one.lab == lab)
}

/// Looks for the writes of earlier rounds.
fn forgotten(lab: &Lab, remembered: &[Remembered], played: &mut Played) {
    if remembered.is_empty() {
        return;
    }
    let holder = wait::until("somebody who holds the baton", HELD_WITHIN, || Ok(lab.standing()?.holder));
    // Who is told to stop has not looked.
    if !wait::is_interrupted() {
        look_for(remembered, holder, |holder, ids| lab.contents_of(holder, ids), played);
    }
}

/// The same, by what is read at the holder. Where nobody can be asked nothing is known to be there.
fn look_for(
    remembered: &[Remembered],
    holder: Result<Port>,
    read: impl Fn(Port, Range<u64>) -> Finals,
    played: &mut Played,
) {
    let holder = match holder {
        Ok(holder) => holder,
        Err(error) => {
            played.outcome = Outcome::Fail;
            played.reasons.push(format!("the writes of earlier rounds cannot be looked for: {error:#}"));
            return;
        }
    };
    for some in remembered.chunks(LOOKED_FOR_TOGETHER) {
        let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
        let finals = read(holder, first.ids.start..last.ids.end);
        for Missing { kind, lost, why } in some.iter().flat_map(|round| round.missing(&finals)) {
            played.outcome = Outcome::Fail;
            *played.lost.entry(kind).or_default() += lost;
            played.reasons.push(why);
        }
    }
}

/// What nodes have saved of extra transactions is for an operator, who has seen it now.
fn tidy(lab: &Lab) -> Result<()> {
    for port in crate::lab::DATA {
        let saved: &Path = &lab.host(port).dir.join("state/quarantine");
        for entry in std::fs::read_dir(saved).into_iter().flatten().flatten() {
            if entry.path().is_file() {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// What is said of a round.
fn line(played: &Played) -> String {
    let Played { round, outcome, holder_changes, seconds, .. } = played;
    let at = round.at.as_ref().map_or(String::new(), |at| format!(" at {at}"));
    let outage = |kind| played.outage_ms.get(&kind).map_or("-".into(), ToString::to_string);
    let kinds = baton_chaos::history::Kind::ALL.map(|kind| format!("{kind} {} ms", outage(kind)));
    let outcome = match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "VIOLATION",
        Outcome::Inconclusive => "inconclusive",
    };
    let reasons =
        if played.reasons.is_empty() { String::new() } else { format!(": {}", played.reasons.join("; ")) };
    format!(
        "round {} {}{at}: holder changed {holder_changes} times, away {}, {seconds:.0} s, {outcome}{reasons}",
        round.number,
        round.name(),
        kinds.join(" ")
    )
}
