//! What a takeover to a node that is not in sync may lose, and the questions before an operator accepts it.
//!
//! ```text
//! holder:   canary 41 ··· its newest report here ······ its lease ended
//! replica:  canary 38
//!           └─ at most 4 s ─┘└─ what no report tells ─┘
//! ```
//!
//! The holder writes a canary once a second, so the number that the replica lacks is the age of what it lacks. What the
//! holder did between its newest report here and the end of its lease is added; only the leader knows that end. So the
//! operator's node asks first, and the leader weighs again.

use serde::{Deserialize, Serialize};

use super::switchover::{Check, View};
use crate::ledger::{Complete, Ledger, LossAccepted};
use crate::model::{Epoch, Instance, Mono, NodeId, NodeKind, SyncGeneration};
use crate::observe::{CANARY_PERIOD_MS, MysqlFacts};
use std::collections::BTreeMap;

use super::Heard;

/// What may be lost, as far as one node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Writes of so many milliseconds before the holder ended; `None`: not known here.
    pub at_most_ms: Option<u64>,
    /// In words, with positions.
    pub detail: String,
}

impl Loss {
    /// What the reports say that `node` lacks. `ended_at`: the instant by which every lease had ended, if it is known.
    #[must_use]
    pub fn of(
        ledger: &Ledger,
        reports: &BTreeMap<NodeId, Heard>,
        node: &NodeId,
        ended_at: Option<Mono>,
    ) -> Self {
        let here = reports.get(node).and_then(|heard| heard.report.mysql.as_ref());
        let holder = ledger.holder.as_ref().or(ledger.last_holder.as_ref()).filter(|holder| *holder != node);
        let there = holder.and_then(|holder| reports.get(holder));
        let newest = there.and_then(|heard| Some((heard.at, heard.report.mysql.as_ref()?)));
        let (Some(here), Some((at, there))) = (here, newest) else {
            return Self { at_most_ms: None, detail: unknown(here) };
        };
        let behind = there.canary_applied.saturating_sub(here.canary_applied);
        let unseen_ms = ended_at.map_or(0, |end| end.since_ms(at));
        let at_most_ms = (behind + 1).saturating_mul(CANARY_PERIOD_MS).saturating_add(unseen_ms);
        let detail = format!(
            "at most the writes of {at_most_ms} ms, {behind} canaries behind, position {} of {}",
            here.position, there.position
        );
        Self { at_most_ms: Some(at_most_ms), detail }
    }

    /// The operator's word covers it.
    #[must_use]
    pub fn is_within(&self, accepted: &LossAccepted) -> bool {
        match (accepted.at_most_ms, self.at_most_ms) {
            (None, _) => true,
            (Some(bound), Some(ms)) => ms <= bound,
            (Some(_), None) => false,
        }
    }
}

fn unknown(here: Option<&MysqlFacts>) -> String {
    match here {
        Some(here) => format!("not known, position {}, the last holder's is not known here", here.position),
        None => "not known, its database does not answer".to_owned(),
    }
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// Who takes over; `None`: the data node that does not hold the baton.
    pub to: Option<NodeId>,
    /// What is accepted, and by whom.
    pub loss: LossAccepted,
}

/// What would be written into the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// The epoch that ends.
    pub epoch: Epoch,
    /// The generation that it was made from.
    pub generation: SyncGeneration,
    /// Who takes over.
    pub node: NodeId,
    /// Start identity of its database and threads.
    pub instance: Instance,
    /// What is accepted, and by whom.
    pub loss: LossAccepted,
}

/// Everything that was looked at, and the acceptance, if nothing stands in its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossPreflight {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// What would be accepted.
    pub acceptance: Option<Acceptance>,
}

/// Looks at everything that has to be so before a loss can be accepted.
#[must_use]
pub fn preflight(view: &View<'_>, wanted: &Accept) -> LossPreflight {
    let mut look = Look { view, checks: Vec::new() };
    let acceptance = look.acceptance(wanted);
    let all_well = look.checks.iter().all(|check| check.ok);
    LossPreflight { checks: look.checks, acceptance: acceptance.filter(|_| all_well) }
}

struct Look<'a> {
    view: &'a View<'a>,
    checks: Vec<Check>,
}

impl Look<'_> {
    fn note(&mut self, code: &str, ok: bool, evidence: impl Into<String>) {
        self.checks.push(Check { code: code.to_owned(), ok, evidence: evidence.into() });
    }

    fn acceptance(&mut self, wanted: &Accept) -> Option<Acceptance> {
        let ledger = self.view.ledger;
        let to = self.target(wanted)?;
        match &ledger.run {
            Some(run) => self.note("no-run", false, format!("run {} is in progress", run.id)),
            None => self.note("no-run", true, "no run is in progress"),
        }
        self.holder_is_lost();
        let mysql = self.fit(&to);
        self.incomplete(&to);
        let loss = Loss::of(ledger, self.view.reports, &to, None);
        self.note("loss", loss.is_within(&wanted.loss), loss.detail);
        Some(Acceptance {
            epoch: ledger.epoch,
            generation: ledger.sync_generation,
            node: to,
            instance: mysql?.instance,
            loss: wanted.loss.clone(),
        })
    }

    fn target(&mut self, wanted: &Accept) -> Option<NodeId> {
        let ledger = self.view.ledger;
        let last = ledger.holder.as_ref().or(ledger.last_holder.as_ref());
        let other = || last.and_then(|last| ledger.other_data_nodes(last).next().cloned());
        let Some(to) = wanted.to.clone().or_else(other) else {
            self.note("target", false, "there is no other data node");
            return None;
        };
        let problem = match ledger.members.get(&to) {
            None => Some(format!("there is no node {to}")),
            Some(NodeKind::Witness) => Some(format!("{to} is the witness, it has no data")),
            Some(NodeKind::Data) if ledger.holder.as_ref() == Some(&to) => {
                Some(format!("{to} holds the baton already"))
            }
            Some(NodeKind::Data) => None,
        };
        let ok = problem.is_none();
        self.note("target", ok, problem.unwrap_or_else(|| format!("{to} takes over")));
        ok.then_some(to)
    }

    /// A holder that serves is passed on by a switchover, which loses nothing.
    fn holder_is_lost(&mut self) {
        let ledger = self.view.ledger;
        let Some(holder) = &ledger.holder else {
            self.note("holder-lost", true, "nobody holds the baton");
            return;
        };
        let heard = self.view.reports.get(holder);
        let age_ms = heard.map(|heard| self.view.now.since_ms(heard.at));
        let fresh = heard.filter(|_| age_ms.is_some_and(|ms| ms <= self.view.report_max_ms));
        match (fresh, age_ms) {
            (Some(heard), _) if heard.report.serving && !ledger.has_released() => {
                self.note("holder-lost", false, format!("{holder} serves; `baton switchover` loses nothing"));
            }
            (Some(_), _) => self.note("holder-lost", true, format!("{holder} does not serve")),
            (None, Some(ms)) => self.note("holder-lost", true, format!("{holder} is silent for {ms} ms")),
            (None, None) => self.note("holder-lost", true, format!("{holder} was never heard here")),
        }
    }

    fn fit(&mut self, to: &NodeId) -> Option<MysqlFacts> {
        let heard = self.view.reports.get(to);
        let fresh = heard.filter(|heard| self.view.now.since_ms(heard.at) <= self.view.report_max_ms);
        let Some(heard) = fresh else {
            self.note("target-fit", false, format!("no report from {to}"));
            return None;
        };
        let report = &heard.report;
        match &report.mysql {
            _ if !report.obstacles.is_empty() => {
                self.note("target-fit", false, format!("{to}: {}", report.obstacles.join(", ")));
                None
            }
            None => {
                self.note("target-fit", false, format!("MySQL of {to} does not answer"));
                None
            }
            Some(mysql) => {
                self.note("target-fit", true, format!("{to}: nothing stands in the way"));
                Some(mysql.clone())
            }
        }
    }

    fn incomplete(&mut self, to: &NodeId) {
        let ledger = self.view.ledger;
        match ledger.in_sync.get(to) {
            _ if !ledger.mysql => {
                self.note("incomplete", false, "no MySQL is configured: nothing can be lost")
            }
            Some(Complete::Holder | Complete::Replica { .. }) => self.note(
                "incomplete",
                false,
                format!("{to} has every acknowledged write; look at `baton explain` for what it waits for"),
            ),
            Some(Complete::Accepted { .. }) => {
                self.note("incomplete", true, "a loss was accepted before; this replaces it");
            }
            None => self.note("incomplete", true, format!("{to} may lack acknowledged writes")),
        }
    }
}
