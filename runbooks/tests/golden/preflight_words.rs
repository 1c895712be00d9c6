//! The word about what is looked at before the baton is passed: `preflight`, from db1 to db2 unless it is told otherwise. Its
//! arguments change what the nodes have reported, for this one look.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_runbooks::decide::Heard;
use baton_runbooks::decide::switchover::{self, Preflight, View, Wanted};
use baton_runbooks::model::NodeId;
use baton_runbooks::observe::{MysqlFacts, RedisFacts};
use datadriven::TestCase;

use crate::scene::{Scene, maybe, node, text};
use crate::sight_words::redis;

type Reports = BTreeMap<NodeId, Heard>;

impl Scene {
    pub fn preflight(&mut self, case: &mut TestCase) -> Result<String, String> {
        let mut reports = self.reports.clone();
        change_databases(&mut reports, case)?;
        let redis = change_target(&mut reports, case)?;
        let drain_patience_ms = maybe(case, "patience-ms")?.unwrap_or(5_000);
        let wanted = Wanted { to: node(case, "to")?, by: "an operator".to_owned(), drain_patience_ms };
        let found = switchover::preflight(
            &View {
                now: self.now,
                me: &self.me,
                ledger: &self.ledger,
                reports: &reports,
                canaries: &self.canaries,
                report_max_ms: self.policy.report_max_ms,
                scope: self.policy.scope,
                redis,
                config_hash: "test",
                new_leader_ms: 1_470,
            },
            &wanted,
        );
        Ok(describe(&found, case.args.remove("all").is_some()))
    }
}

/// What was refused, with `all` also what was not, and the plan.
fn describe(found: &Preflight, all: bool) -> String {
    let mut lines: Vec<String> = found
        .checks
        .iter()
        .filter(|check| all || !check.ok)
        .map(|check| {
            format!("{} {}: {}", if check.ok { "ok" } else { "refused" }, check.code, check.evidence)
        })
        .collect();
    lines.push(found.plan.as_ref().map_or_else(
        || "no plan".to_owned(),
        |plan| {
            let from = plan.from.as_ref().map_or("nobody", NodeId::as_str);
            format!(
                "{} from {from} to {}, epoch {}, from generation {}, {} steps",
                plan.runbook.as_str(),
                plan.to,
                plan.epoch,
                plan.basis.sync,
                plan.steps.len()
            )
        },
    ));
    lines.join("\n")
}

fn database<'a>(reports: &'a mut Reports, node: &str) -> Option<&'a mut MysqlFacts> {
    let heard = reports.get_mut(&NodeId::from(node))?;
    Arc::make_mut(&mut heard.report).mysql.as_mut().map(Arc::make_mut)
}

fn change_databases(reports: &mut Reports, case: &mut TestCase) -> Result<(), String> {
    for (name, node) in [("version", "db2"), ("holder-version", "db1")] {
        if let Some(version) = text(case, name)? {
            database(reports, node).ok_or("there is no report")?.version = version;
        }
    }
    if let Some(word) = text(case, "backlog")? {
        database(reports, "db2").ok_or("there is no report")?.apply_backlog = word.parse().ok();
    }
    if let Some(word) = text(case, "replication")? {
        let facts = database(reports, "db2").ok_or("there is no report")?;
        match word.as_str() {
            "none" => facts.replication = None,
            "io-stopped" | "sql-stopped" => {
                let replication = facts.replication.as_mut().ok_or("db2 replicates from nobody")?;
                replication.io_running = word != "io-stopped";
                replication.sql_running = word != "sql-stopped";
            }
            other => return Err(format!("no such replication: {other}")),
        }
    }
    Ok(())
}

/// Changes what db2 says beside its database's facts; whether Redis is configured.
fn change_target(reports: &mut Reports, case: &mut TestCase) -> Result<bool, String> {
    let Some(heard) = reports.get_mut(&NodeId::from("db2")) else { return Ok(false) };
    let report = Arc::make_mut(&mut heard.report);
    if let Some(hash) = text(case, "config")? {
        report.config_hash = hash;
    }
    if case.args.remove("mysql-silent").is_some() {
        report.mysql = None;
    }
    let Some(word) = text(case, "redis")? else { return Ok(false) };
    let follower = RedisFacts { primary: false, follows: Some("10.0.0.1:6379".to_owned()), ..redis() };
    report.redis = match word.as_str() {
        "follows" => Some(follower),
        "apart" => Some(RedisFacts { link_up: false, ..follower }),
        "loading" => Some(RedisFacts { loading: true, ..follower }),
        "primary" => Some(redis()),
        "silent" => None,
        other => return Err(format!("no such Redis: {other}")),
    };
    Ok(true)
}
