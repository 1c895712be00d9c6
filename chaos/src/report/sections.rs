//! The sections of a report, in the order in which an auditor asks.

use super::{Block, charts, seconds};
use crate::evidence::{ClientRecord, Ending, FaultRecord, Record, Stored};
use crate::experiment::{Figure, Slo};
use crate::trend::{Past, regressions};
use crate::verdict::Verdict;

/// Events that are shown; all of them stand in the record.
const EVENTS_MAX: usize = 200;

/// Earlier runs that are shown beside this one.
const PAST_MAX: usize = 10;

pub(super) fn sections(stored: &Stored, past: &[Past]) -> Vec<Block> {
    let record = &stored.record;
    let mut blocks = verdict(record);
    blocks.extend(scope(record));
    blocks.extend(environment(record));
    blocks.extend(gate(record));
    blocks.extend(timeline(record));
    blocks.extend(clients(record));
    blocks.extend(invariants(record));
    blocks.extend(faults(record));
    blocks.extend(actions(record));
    blocks.extend(comparison(record, past));
    blocks.extend(files(stored));
    blocks
}

/// What stands in a cell for what did not hold.
pub(super) const NO: &str = "**NO**";

fn heading(text: &str) -> Block {
    Block::Heading(text.to_owned())
}

fn verdict(record: &Record) -> Vec<Block> {
    let judgement = &record.judgement;
    let mut blocks = vec![heading("Verdict"), Block::Text(format!("**{}**", judgement.verdict))];
    if !judgement.reasons.is_empty() {
        blocks.push(Block::List(judgement.reasons.clone()));
    }
    let allowed = &record.experiment.slo;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for client in &record.clients {
        use crate::history::Kind;
        let (outage, lost) = match client.kind {
            Kind::Mysql => (Some(allowed.outage.mysql), Some(allowed.lost_acknowledged.mysql)),
            Kind::Redis => (allowed.outage.redis, allowed.lost_acknowledged.redis),
        };
        let bound = |bound: Option<String>| bound.unwrap_or_else(|| "counted only".into());
        let limit = bound(outage.map(|outage| seconds(outage.ms())));
        rows.push(vec![format!("outage, {}", client.kind), seconds(client.outage_ms), limit]);
        rows.extend(figures(allowed, client));
        let lost_seen = if client.unread { "not known".to_owned() } else { client.lost.to_string() };
        let limit = bound(lost.map(|lost| lost.to_string()));
        rows.push(vec![format!("lost acknowledged writes, {}", client.kind), lost_seen, limit]);
    }
    let two = format!("{} ms", record.two_holders_ms);
    rows.push(vec!["two machines with the virtual IP".into(), two, "0 ms".into()]);
    rows.push(vec![
        "changes of holder".into(),
        record.holder_changes.to_string(),
        "see the hypothesis".into(),
    ]);
    let redundancy = record.redundancy_ms.map_or("not seen".into(), seconds);
    let wait = seconds(record.experiment.wait_redundancy_ms);
    rows.push(vec!["redundancy back after the last heal".into(), redundancy, wait]);
    blocks.push(Block::Table(vec!["measured", "value", "allowed"], rows));
    blocks
}

/// What is measured beside the outage, and has a limit only where the drill's file names one.
fn figures(allowed: &Slo, client: &ClientRecord) -> Vec<Vec<String>> {
    let row = |figure: Figure| {
        // Whoever measured the gaps looked for steady writes, too.
        let is_unseen = figure == Figure::SustainedRecovery && client.reconnecting.is_some();
        let unknown = if is_unseen { "not seen" } else { "not measured" };
        let value = client.figure(figure).map_or(unknown.to_owned(), seconds);
        let limit = allowed.limit(figure, client.kind);
        let limit = limit.map_or("reported only".to_owned(), |limit| seconds(limit.ms()));
        vec![format!("{}, {}", figure.name(), client.kind), value, limit]
    };
    Figure::ALL.into_iter().map(row).collect()
}

fn scope(record: &Record) -> Vec<Block> {
    let experiment = &record.experiment;
    let who = &record.who;
    let none = || "–".to_owned();
    let level = format!("{} ({})", experiment.level, experiment.level.word());
    let ending = match &record.ending {
        Ending::Completed {} => "everything that was to be done was done".to_owned(),
        Ending::Refused { why } => format!("refused before anything was done: {why}"),
        Ending::Aborted { by, why } => format!("ended early by {by}: {why}"),
        Ending::Interrupted { why } => format!("interrupted: {why}"),
    };
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = vec![
        row("drill", experiment.id.clone()),
        row("level", level),
        row("operator", who.operator.clone()),
        row("approver", who.approver.clone().unwrap_or_else(none)),
        row("reason", who.reason.clone().unwrap_or_else(none)),
        row("run from", format!("{}, baton {}", who.host, who.version)),
        row("begun", record.started.to_string()),
        row("over", record.ended.to_string()),
        row("ending", ending),
    ];
    let mut blocks = vec![heading("Objective and scope"), Block::Words(experiment.title.clone())];
    let paragraphs = experiment.description.split("\n\n").filter(|text| !text.trim().is_empty());
    blocks.extend(paragraphs.map(|text| Block::Words(text.trim().to_owned())));
    blocks.push(Block::Table(vec!["", ""], rows));
    blocks
}

fn environment(record: &Record) -> Vec<Block> {
    let rows = record.nodes.iter().map(|node| {
        let versions = node.versions.iter().map(|(name, version)| format!("{name} {version}"));
        let versions = versions.collect::<Vec<_>>().join(", ");
        let config = node.config.clone().unwrap_or_else(|| "–".into());
        vec![node.name.clone(), node.role.to_string(), versions, config]
    });
    let head = vec!["node", "role before", "versions", "configuration"];
    vec![heading("Environment"), Block::Table(head, rows.collect())]
}

fn yes(held: Option<bool>) -> String {
    match held {
        Some(true) => "yes".into(),
        Some(false) => NO.into(),
        None => "not measured".into(),
    }
}

fn gate(record: &Record) -> Vec<Block> {
    let rows = record.gate.iter();
    let rows = rows.map(|check| vec![check.code.clone(), yes(Some(check.passed)), check.seen.clone()]);
    let head = vec!["check", "passed", "seen"];
    vec![heading("Before anything was done"), Block::Table(head, rows.collect())]
}

fn timeline(record: &Record) -> Vec<Block> {
    let mut blocks = vec![heading("Timeline")];
    if record.timeline.is_empty() {
        blocks.push(Block::Text("No takeover or switchover took place.".into()));
    } else {
        blocks.push(charts::budgets(record));
    }
    let events = record.events.iter().take(EVENTS_MAX);
    let rows = events.map(|event| vec![seconds(event.at_ms), event.source.clone(), event.what.clone()]);
    blocks.push(Block::Table(vec!["at", "seen by", "what"], rows.collect()));
    if record.events.len() > EVENTS_MAX {
        let more = record.events.len() - EVENTS_MAX;
        blocks.push(Block::Text(format!("{more} more stand in the record.")));
    }
    blocks
}

fn clients(record: &Record) -> Vec<Block> {
    if record.clients.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![heading("What a client saw")];
    let rows = record.clients.iter().map(|client| {
        let after = |count: u64| if client.unread { "not known".into() } else { count.to_string() };
        vec![
            client.kind.to_string(),
            client.attempted.to_string(),
            client.acknowledged.to_string(),
            after(client.lost),
            after(client.duplicated),
            after(client.resurrected),
            client.interleaved.to_string(),
            client.gaps.len().to_string(),
        ]
    });
    let head = vec![
        "database",
        "tried",
        "acknowledged",
        "lost",
        "twice",
        "refused, yet there",
        "two primaries",
        "gaps",
    ];
    blocks.push(Block::Table(head, rows.collect()));
    blocks.extend(reconnecting(record));
    for client in record.clients.iter().filter(|client| !client.buckets.is_empty()) {
        blocks.push(charts::writes(record, client));
    }
    let late = record.harness.lateness;
    blocks.push(Block::Text(format!(
        "The client's own timers were {} µs late at the 99th percentile, {} µs at most; {} writes could not be started.",
        late.p99_us, late.max_us, record.harness.overflowed
    )));
    blocks
}

/// The client that keeps no connection, where there was one.
fn reconnecting(record: &Record) -> Option<Block> {
    let seen = record.clients.iter().filter_map(|client| Some((client.kind, client.reconnecting?)));
    let rows = seen.map(|(kind, seen)| {
        vec![
            kind.to_string(),
            seen.attempted.to_string(),
            seen.connected.to_string(),
            seen.read.to_string(),
            seconds(seen.connect_gap_ms),
            seconds(seen.read_gap_ms),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let head =
        vec!["database", "visits", "connected", "read", "longest without a connection", "without a read"];
    (!rows.is_empty()).then_some(Block::Table(head, rows))
}

fn invariants(record: &Record) -> Vec<Block> {
    let rows = record.invariants.iter();
    let rows = rows.map(|it| vec![it.code.clone(), it.says.clone(), yes(it.held), it.seen.clone()]);
    let probes = record.probes.iter().map(|probe| {
        let value = probe.value.map_or("–".into(), |value| value.to_string());
        let unit = probe.probe.unit();
        let (name, mode) = (probe.name.clone(), probe.mode.name().to_owned());
        vec![name, mode, format!("{value} [{unit}]"), probe.tolerance.clone(), yes(probe.held)]
    });
    vec![
        heading("What had to hold"),
        Block::Table(vec!["invariant", "says", "held", "seen"], rows.collect()),
        Block::Table(vec!["steady state", "when", "value", "wanted", "held"], probes.collect()),
    ]
}

fn faults(record: &Record) -> Vec<Block> {
    let at = |ms: Option<u64>| ms.map_or("–".into(), seconds);
    let row = |fault: &FaultRecord| {
        vec![
            (fault.method + 1).to_string(),
            format!("{} on {} ({})", fault.fault, fault.node, fault.role),
            fault.heal.name().to_owned(),
            format!("{} / {}", at(fault.armed_ms), at(fault.armed_verified_ms)),
            at(fault.injected_ms),
            at(fault.verified_ms),
            fault.effect.clone(),
            format!("{} / {}", at(fault.healed_ms), at(fault.heal_verified_ms)),
        ]
    };
    let rows = record.faults.iter().map(row).collect();
    let head = vec![
        "",
        "fault",
        "healed by",
        "heal armed / seen",
        "injected",
        "effect seen",
        "effect",
        "healed / nothing left",
    ];
    vec![heading("Faults"), Block::Table(head, rows)]
}

/// What people have to fill in; one line for each reason that is not a plain pass.
fn actions(record: &Record) -> Vec<Block> {
    let reasons = &record.judgement.reasons;
    let needs = match record.judgement.verdict {
        Verdict::Pass => {
            "None follow from the verdict. What people saw goes here, and stays open until it is closed:"
        }
        Verdict::Degraded
        | Verdict::Fail
        | Verdict::Inconclusive
        | Verdict::Aborted
        | Verdict::Refused
        | Verdict::Interrupted => "Each stays open until it is closed:",
    };
    let blank = || vec![String::new(); 4];
    let mut rows: Vec<Vec<String>> = reasons
        .iter()
        .map(|reason| {
            let mut row = blank();
            row[0].clone_from(reason);
            row
        })
        .collect();
    if rows.is_empty() {
        rows.push(blank());
    }
    let head = vec!["deviation", "action", "owner", "due"];
    vec![heading("Deviations and actions"), Block::Text(needs.into()), Block::Table(head, rows)]
}

fn comparison(record: &Record, past: &[Past]) -> Vec<Block> {
    let this = Past::from(record);
    let earlier =
        past.iter().filter(|past| past.number < record.number && past.drill == record.experiment.id);
    let earlier: Vec<&Past> = earlier.collect();
    let from = earlier.len().saturating_sub(PAST_MAX);
    let at = |ms: Option<u64>| ms.map_or("–".into(), seconds);
    let rows = earlier[from..].iter().copied().chain([&this]).map(|past| {
        vec![
            past.number.to_string(),
            past.started.to_string(),
            past.verdict.to_string(),
            at(past.mysql_ms),
            at(past.redis_ms),
        ]
    });
    let head = vec!["record", "begun", "verdict", "outage mysql", "outage redis"];
    let mut blocks = vec![heading("Beside earlier runs"), Block::Table(head, rows.collect())];
    if earlier.is_empty() {
        blocks.push(Block::Text("This drill was not run before.".into()));
    }
    let slower: Vec<String> = regressions(&earlier, &this).iter().map(ToString::to_string).collect();
    if !slower.is_empty() {
        blocks.push(Block::Text("It was much slower than the passes before it:".into()));
        blocks.push(Block::List(slower));
    }
    blocks
}

fn files(stored: &Stored) -> Vec<Block> {
    let record = &stored.record;
    let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
    let rows = vec![
        row("this record (SHA-256 of its file)", &stored.hash),
        row("the record before it", &record.previous),
        row("the drill's file", &record.experiment.sha256),
    ];
    vec![
        heading("Hashes"),
        Block::Table(vec!["", ""], rows),
        Block::Text(
            "`baton drill verify` compares all records with one another and with the hash that the ledger holds; \
             `sha256sum` shows the same hashes. The drill's file, as it was run:"
                .into(),
        ),
        Block::Verbatim(record.experiment.text.clone()),
    ]
}
