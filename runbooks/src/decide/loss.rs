//! What a takeover to a node that is not in sync may lose, and the questions before an operator accepts it.
//!
//! ```text
//! holder:   canary 40 ─ 41 ─ 42 ─ 43 ···· its lease ended
//! replica:  canary 40
//!          seen with 39 │                 │
//!                       └── at most this ─┘
//! ```
//!
//! The holder commits a canary now and then, and every report carries the newest. A replica that has applied canary 40 has all
//! that was committed before it, and canary 40 was committed after the holder was last seen with less. So what the replica
//! lacks was committed between that sight and the end of the lease. Only the leader knows that end: the operator's node shows
//! how old what is lacked is at least, and the leader weighs how old it is at most.

mod canaries;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use canaries::Canaries;

use super::Heard;
use super::switchover::{Check, View};
use crate::detect::Verdict;
use crate::ledger::{Complete, Ledger, LossAccepted};
use crate::model::{Epoch, Instance, Mono, NodeId, NodeKind, SyncGeneration};
use crate::observe::{MysqlFacts, NodeReport};

/// What is known of the node that takes over and of what it lacks.
#[derive(Debug)]
pub struct Lack<'a> {
    /// The committed state.
    pub ledger: &'a Ledger,
    /// Newest report of each node.
    pub reports: &'a BTreeMap<NodeId, Heard>,
    /// When the holder was seen with which canary.
    pub canaries: &'a Canaries,
    /// Who takes over.
    pub node: &'a NodeId,
}

impl Lack<'_> {
    fn here(&self) -> Option<&MysqlFacts> {
        self.reports.get(self.node).and_then(|heard| heard.report.mysql.as_deref())
    }

    /// The node that has everything: the holder, or who held the baton last.
    fn reference(&self) -> Option<&NodeId> {
        reference(self.ledger).filter(|reference| *reference != self.node)
    }

    /// A node that replicates from nobody has a history of its own: its canaries say nothing.
    fn canary(&self) -> Option<u64> {
        self.here().filter(|here| here.replication.is_some()).map(|here| here.canary_applied)
    }

    /// The writes of how many milliseconds at most, if no lease was valid after `ended_at`; `None`: not known here.
    #[must_use]
    pub fn at_most_ms(&self, ended_at: Mono) -> Option<u64> {
        let seen = self.canaries.before(self.ledger.epoch, self.canary()?)?;
        let newest = self.canaries.newest().unwrap_or(ended_at);
        Some(ended_at.max(newest).since_ms(seen))
    }

    /// How old the oldest lacking write was at least when the holder was last seen here.
    #[must_use]
    pub fn at_least_ms(&self) -> u64 {
        let (epoch, canary) = (self.ledger.epoch, self.canary().unwrap_or(u64::MAX));
        let newest = self.canaries.newest();
        self.canaries.after(epoch, canary).zip(newest).map_or(0, |(first, newest)| newest.since_ms(first))
    }

    /// Both positions, in words.
    #[must_use]
    pub fn positions(&self) -> String {
        let there = self.reference().and_then(|node| self.reports.get(node)).map(|heard| &heard.report.mysql);
        match (self.here(), there) {
            (Some(here), Some(Some(there))) => format!("position {} of {}", here.position, there.position),
            (Some(here), Some(None) | None) => {
                format!("position {}, the last holder's is not known here", here.position)
            }
            (None, _) => "its database does not answer".to_owned(),
        }
    }

    /// What may be lost at most, in words.
    #[must_use]
    pub fn told(&self, ended_at: Mono) -> String {
        let most = self.at_most_ms(ended_at);
        let most = most.map_or_else(
            || "it is not known how much".to_owned(),
            |ms| format!("the writes of at most {ms} ms"),
        );
        format!("{most}, {}", self.positions())
    }
}

/// Who has everything, as far as the ledger knows.
fn reference(ledger: &Ledger) -> Option<&NodeId> {
    let complete =
        || ledger.in_sync.iter().find(|(_, known)| **known == Complete::Holder).map(|(node, _)| node);
    ledger.holder.as_ref().or_else(complete).or(ledger.last_holder.as_ref())
}

impl LossAccepted {
    /// The operator's word covers a loss of this size; `None`: of unknown size.
    #[must_use]
    pub fn covers(&self, at_most_ms: Option<u64>) -> bool {
        match (self.at_most_ms, at_most_ms) {
            (None, _) => true,
            (Some(bound), Some(ms)) => ms <= bound,
            (Some(_), None) => false,
        }
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
        match &ledger.pause {
            Some(pause) => {
                self.note(
                    "not-paused",
                    false,
                    format!("pause {} is not over; `baton resume` ends it", pause.id),
                );
            }
            None => self.note("not-paused", true, "no pause stands"),
        }
        self.holder_is_lost();
        let mysql = self.fit(&to);
        self.incomplete(&to, mysql.as_ref());
        self.loss(&to, &wanted.loss);
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
        let other = || reference(ledger).and_then(|last| ledger.other_data_nodes(last).next().cloned());
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
            (Some(heard), _) if serves(&heard.report) && !ledger.has_released() => {
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
                Some(mysql.as_ref().clone())
            }
        }
    }

    fn incomplete(&mut self, to: &NodeId, mysql: Option<&MysqlFacts>) {
        let ledger = self.view.ledger;
        match ledger.in_sync.get(to) {
            _ if !ledger.mysql => {
                self.note("incomplete", false, "no MySQL is configured: nothing can be lost")
            }
            Some(Complete::Replica { instance }) if mysql.is_some_and(|now| now.instance != *instance) => {
                self.note("incomplete", true, format!("{to} was restarted since it was in sync"));
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

    /// What is seen from here is a part of it; the leader weighs the whole.
    fn loss(&mut self, to: &NodeId, accepted: &LossAccepted) {
        let view = self.view;
        let lack = Lack { ledger: view.ledger, reports: view.reports, canaries: view.canaries, node: to };
        let least_ms = lack.at_least_ms();
        let seen = lack.reference().and_then(|node| view.reports.get(node));
        let unseen = seen.map_or_else(
            || "the last holder was never heard here".to_owned(),
            |heard| {
                format!(
                    "whatever it acknowledged after its last report, {} ms ago",
                    view.now.since_ms(heard.at)
                )
            },
        );
        let evidence = format!("{}; the writes of {least_ms} ms, and {unseen}", lack.positions());
        self.note("loss", accepted.covers(Some(least_ms)), evidence);
    }
}

/// It holds a lease, and its database is there for clients.
fn serves(report: &NodeReport) -> bool {
    let lost = [Verdict::Dead, Verdict::Refusing, Verdict::Hung, Verdict::WriteStalled].map(Verdict::as_str);
    report.serving && !lost.contains(&report.mysql_verdict.as_ref())
}
