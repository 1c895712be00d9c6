//! The plan of a switchover, and everything that is looked at before it.
//!
//! An operator's wish, not a decision: any node answers it, from its own view. The plan that is shown is the very one that
//! is proposed, and the ledger takes it only if nothing that it was made from has changed since.

use serde::{Deserialize, Serialize};

use super::Heard;
use super::loss::Canaries;
use crate::detect::Sight;
use crate::ledger::{Complete, Ledger};
use crate::model::{Mono, NodeId, NodeKind};
use crate::observe::{MysqlFacts, NodeReport};
use crate::plan::{Basis, Plan, Runbook};
use crate::run::switchover::{self, PATIENCE_MAX_MS, Waits};
use crate::run::table::Scope;
use std::collections::BTreeMap;

/// Transactions that the target may have received and not applied when the baton is to be passed.
const BACKLOG_MAX: u64 = 1_000;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Who gets the baton; `None`: the other data node.
    pub to: Option<NodeId>,
    /// Who asks.
    pub by: String,
    /// How long transactions under way may go on, in milliseconds.
    pub drain_patience_ms: u64,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable code.
    pub code: String,
    /// It stands in the way of nothing.
    pub ok: bool,
    /// What was seen.
    pub evidence: String,
}

/// Everything that was looked at, and the plan, if nothing stands in its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// The plan.
    pub plan: Option<Box<Plan>>,
}

/// What the preflight weighs.
#[derive(Debug)]
pub struct View<'a> {
    /// The present instant.
    pub now: Mono,
    /// The node that looks.
    pub me: &'a NodeId,
    /// The committed state.
    pub ledger: &'a Ledger,
    /// Newest report of each node, this one included.
    pub reports: &'a BTreeMap<NodeId, Heard>,
    /// When the holder was seen with which canary.
    pub canaries: &'a Canaries,
    /// A report older than this says nothing any more, in milliseconds.
    pub report_max_ms: u64,
    /// What the configuration has.
    pub scope: Scope,
    /// Redis is configured.
    pub redis: bool,
    /// Configuration hash of this node.
    pub config_hash: &'a str,
    /// What a new leader waits before it grants anything, in milliseconds.
    pub new_leader_ms: u64,
}

/// Looks at everything that a switchover wants, and makes its plan.
#[must_use]
pub fn preflight(view: &View<'_>, wanted: &Wanted) -> Preflight {
    let mut look = Look { view, checks: Vec::new() };
    let plan = look.plan(wanted);
    let all_well = look.checks.iter().all(|check| check.ok);
    Preflight { checks: look.checks, plan: plan.filter(|_| all_well).map(Box::new) }
}

struct Look<'a> {
    view: &'a View<'a>,
    checks: Vec<Check>,
}

impl Look<'_> {
    fn note(&mut self, code: &str, ok: bool, evidence: impl Into<String>) {
        self.checks.push(Check { code: code.to_owned(), ok, evidence: evidence.into() });
    }

    fn plan(&mut self, wanted: &Wanted) -> Option<Plan> {
        let ledger = self.view.ledger;
        let (holder, to) = self.nodes(wanted)?;
        self.no_run();
        self.no_pause();
        self.quorum();
        let source = self.serving(&holder);
        let target = self.fit(&to);
        self.in_sync(&to, target.as_ref().and_then(|report| report.mysql.as_deref()));
        if let (Some(source), Some(target)) = (&source, &target) {
            self.versions(source, target);
            self.redis(target);
        }
        self.patience(wanted);
        let target_instance = ledger.in_sync.get(&to).and_then(Complete::instance).cloned();
        let steps = switchover::steps(
            &holder,
            &to,
            ledger.witness(),
            self.view.scope,
            Waits { patience_ms: wanted.drain_patience_ms, new_leader_ms: self.view.new_leader_ms },
        );
        Some(Plan {
            runbook: Runbook::Switchover,
            version: switchover::VERSION,
            epoch: ledger.epoch.next(),
            from: Some(holder),
            to,
            basis: Basis { epoch: ledger.epoch, sync: ledger.sync_generation, target_instance },
            why: Vec::new(),
            detected_ms_ago: None,
            holder_heard_ms: Default::default(),
            asked_by: Some(wanted.by.clone()),
            drain_patience_ms: wanted.drain_patience_ms,
            steps,
        })
    }

    /// Who passes the baton, and who gets it.
    fn nodes(&mut self, wanted: &Wanted) -> Option<(NodeId, NodeId)> {
        let ledger = self.view.ledger;
        let Some(holder) = ledger.holder.clone() else {
            self.note("holder", false, "nobody holds the baton");
            return None;
        };
        self.note("holder", true, format!("{holder} holds the baton, epoch {}", ledger.epoch));
        let to = wanted.to.clone().or_else(|| ledger.other_data_nodes(&holder).next().cloned());
        let Some(to) = to else {
            self.note("target", false, "there is no other data node");
            return None;
        };
        let problem = match ledger.members.get(&to) {
            None => Some(format!("there is no node {to}")),
            Some(NodeKind::Witness) => Some(format!("{to} is the witness, it has no data")),
            Some(NodeKind::Data) if to == holder => Some(format!("{to} holds the baton already")),
            Some(NodeKind::Data) => None,
        };
        let ok = problem.is_none();
        self.note("target", ok, problem.unwrap_or_else(|| format!("{to} gets it")));
        ok.then_some((holder, to))
    }

    fn no_run(&mut self) {
        match &self.view.ledger.run {
            Some(run) => {
                self.note(
                    "no-run",
                    false,
                    format!("run {} ({}) is in progress", run.id, run.plan.runbook.as_str()),
                );
            }
            None => self.note("no-run", true, "no run is in progress"),
        }
    }

    fn no_pause(&mut self) {
        match &self.view.ledger.pause {
            Some(pause) => {
                self.note(
                    "not-paused",
                    false,
                    format!("pause {} is not over; `baton resume` ends it", pause.id),
                );
            }
            None => self.note("not-paused", true, "no pause stands"),
        }
    }

    /// Who is heard, and by whom. A bare majority is told and refuses nothing: a run is carried on by any majority, and stands
    /// still without one.
    fn quorum(&mut self) {
        let view = self.view;
        let (mut heard, mut silent, mut outranked) = (Vec::new(), Vec::new(), Vec::new());
        for node in view.ledger.members.keys() {
            let report = view.reports.get(node).map(|heard| &heard.report);
            if report.is_some_and(|report| report.generation < view.ledger.generation) {
                // It was given up by a force, and has no vote until it has rejoined.
                outranked.push(node.clone());
                continue;
            }
            let sight = Sight::of(node, view.me, view.reports, view.now, view.report_max_ms);
            if !sight.heard_by.is_empty() {
                heard.push(format!("{node} by {}", names(&sight.heard_by)));
            } else if node == view.me {
                heard.push(format!("{node} here"));
            } else {
                silent.push(node.clone());
            }
        }
        let all = heard.len() + silent.len() + outranked.len();
        let majority = all / 2 + 1;
        let mut words = format!("{} of {all} agents heard: {}", heard.len(), heard.join(", "));
        if !silent.is_empty() {
            words += &format!("; nobody hears {}", names(&silent));
        }
        if !outranked.is_empty() {
            words += &format!("; without a vote {}", names(&outranked));
        }
        let outlook = match heard.len().checked_sub(majority) {
            None => "no majority, so nothing can be decided".to_owned(),
            Some(0) => "if one more is lost, nothing can be decided until it is back".to_owned(),
            Some(spare) => format!("{spare} of them may be lost meanwhile"),
        };
        words += &format!("; {outlook}");
        self.note("quorum", heard.len() >= majority, words);
    }

    fn fresh(&self, node: &NodeId) -> Option<NodeReport> {
        let heard = self.view.reports.get(node)?;
        (self.view.now.since_ms(heard.at) <= self.view.report_max_ms).then(|| heard.report.as_ref().clone())
    }

    fn serving(&mut self, holder: &NodeId) -> Option<NodeReport> {
        let report = self.fresh(holder);
        let released = self.view.ledger.has_released();
        match &report {
            Some(report) if report.serving && !released => {
                self.note("holder-serves", true, format!("{holder} serves"));
            }
            Some(_) => {
                self.note("holder-serves", false, format!("{holder} does not serve; look at `baton explain`"))
            }
            None => self.note("holder-serves", false, format!("no report from {holder}")),
        }
        report
    }

    fn fit(&mut self, to: &NodeId) -> Option<NodeReport> {
        let report = self.fresh(to);
        match &report {
            None => self.note("target-fit", false, format!("no report from {to}")),
            Some(report) if !report.obstacles.is_empty() => {
                self.note("target-fit", false, format!("{to}: {}", report.obstacles.join(", ")));
            }
            Some(report) => self.note(
                "target-fit",
                true,
                format!(
                    "{to}: mysql {}, redis {}, disk {}",
                    report.mysql_verdict, report.redis_verdict, report.disk_verdict
                ),
            ),
        }
        report
    }

    fn in_sync(&mut self, to: &NodeId, mysql: Option<&MysqlFacts>) {
        if !self.view.ledger.mysql {
            return;
        }
        match (self.view.ledger.in_sync.get(to), mysql) {
            (None | Some(Complete::Accepted { .. }), _) => {
                self.note("in-sync", false, format!("{to} is not in sync; look at `baton status`"))
            }
            (Some(Complete::Replica { instance }), Some(now)) if now.instance != *instance => {
                self.note("in-sync", false, format!("{to} was restarted since it was in sync"));
            }
            (Some(_), None) => self.note("in-sync", false, format!("MySQL of {to} does not answer")),
            (Some(_), Some(_)) => self.note("in-sync", true, format!("{to} has every acknowledged write")),
        }
        let Some(now) = mysql else { return };
        let words = now.apply_backlog.map_or_else(
            || "it is not known how many transactions are received and not applied".to_owned(),
            |backlog| format!("{backlog} transactions received and not applied"),
        );
        self.note("caught-up", now.apply_backlog.is_some_and(|backlog| backlog <= BACKLOG_MAX), words);
        let runs = now.replication.as_ref().is_some_and(|r| r.io_running && r.sql_running);
        let words = if runs { "both replication threads run" } else { "replication does not run" };
        self.note("replication", runs, words);
    }

    fn versions(&mut self, source: &NodeReport, target: &NodeReport) {
        let same = source.config_hash == target.config_hash && source.config_hash == self.view.config_hash;
        let words =
            if same { "the same on all" } else { "not the same on all; `baton status` names the node" };
        self.note("configuration", same, words);
        if let (Some(from), Some(to)) = (&source.mysql, &target.mysql) {
            let same = from.flavour == to.flavour;
            let series = release_series(&from.version).zip(release_series(&to.version));
            let older = same && series.is_some_and(|(from, to)| to < from);
            let mut words = format!("{} to {}", from.version, to.version);
            if older {
                words += ": replication from a newer release to an older one is not supported";
            }
            self.note("mysql-version", same && !older, words);
        }
    }

    fn redis(&mut self, target: &NodeReport) {
        if !self.view.redis {
            return;
        }
        match &target.redis {
            Some(redis) if redis.link_up && !redis.primary && !redis.loading => {
                self.note("redis", true, format!("follows, at offset {}", redis.offset));
            }
            Some(_) => self.note("redis", false, "does not follow the holder"),
            None => self.note("redis", false, "does not answer"),
        }
    }

    fn patience(&mut self, wanted: &Wanted) {
        let ok = wanted.drain_patience_ms <= PATIENCE_MAX_MS;
        self.note(
            "drain-patience",
            ok,
            format!("{} ms, at most {PATIENCE_MAX_MS}", wanted.drain_patience_ms),
        );
    }
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" and ")
}

/// Major and minor number of a server's version; `None`: it is not told in that way, and nothing is concluded from it.
fn release_series(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.split_once('.')?;
    let minor = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
