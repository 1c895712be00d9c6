//! `baton explain`: what the asked agent decided lately and why, newest last.

use super::status::wrap;
use super::{Exit, Failure, Global, Output, block_on, screen};
use crate::api::types::{DecisionRow, Explain, SuspicionRow};

pub(super) fn run(global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let explain = block_on(client.explain())??;
    let text = match global.output {
        Output::Json => screen::json(&explain)?,
        Output::Table => table(&explain),
    };
    screen::say(&text)?;
    Ok(Exit::Done)
}

fn table(explain: &Explain) -> String {
    let mut out = String::new();
    for row in &explain.decisions {
        out.push_str(&wrap(&decision(row)));
        out.push('\n');
    }
    if explain.decisions.is_empty() {
        out.push_str("no decision since this agent started\n");
    }
    if !explain.suspicions.is_empty() {
        out.push_str("\nwhat did not happen:\n");
        for row in &explain.suspicions {
            out.push_str(&wrap(&suspicion(row)));
            out.push('\n');
        }
    }
    let elsewhere = explain.leader.as_ref().filter(|leader| **leader != explain.node);
    if let Some(leader) = elsewhere {
        out.push_str(&format!("\n{leader} leads and decides on takeovers: ask `baton explain` there too.\n"));
    }
    out.push('\n');
    out.push_str(&wrap(&explain.sentence));
    out
}

fn suspicion(row: &SuspicionRow) -> String {
    let holder = row.holder.as_ref().map_or("the holder", |node| node.as_str());
    format!(
        "{:.3}  {holder} was suspected to be lost for {} ({}); cleared by {}",
        row.at,
        screen::span(row.lasted_ms),
        row.why,
        row.cleared_by
    )
}

fn decision(row: &DecisionRow) -> String {
    let mut text = format!("{:.3}  {}", row.at, row.action);
    for why in &row.why {
        text.push_str(&format!("\n    {why}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn every_reason_is_shown() {
        let text = table(&sample::explain());
        for part in [
            "hold",
            "holder-healthy: db1, granted 40 ms ago",
            "db1 was suspected to be lost for 600 ms",
            "mon leads and decides",
            "OK: db2 can take over",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
