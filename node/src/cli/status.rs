//! `baton status`: one table, the run under way, the alarms, one closing sentence.
//!
//! The exit code says whether there is an answer, not whether it is a good one; scripts read `ok` in the JSON.

use baton_runbooks::exposure::Exposure;

use super::{Exit, Failure, Global, Output, block_on, screen};
use crate::api::types::{NodeRow, Role, RunRecord, Status, StepState, Sync};

pub(super) fn run(global: &Global) -> Result<Exit, Failure> {
    let client = global.client()?;
    let status = block_on(client.status())??;
    let text = match global.output {
        Output::Json => screen::json(&status)?,
        Output::Table => table(&status),
    };
    screen::say(&text)?;
    Ok(Exit::Done)
}

fn table(status: &Status) -> String {
    let mut parts = vec![head(status), nodes(&status.nodes)];
    parts.extend(status.run.as_ref().map(progress));
    if !status.alarms.is_empty() {
        let lines: Vec<String> =
            status.alarms.iter().map(|alarm| format!("! {}: {}", alarm.code, alarm.text)).collect();
        parts.push(wrap(&lines.join("\n")));
    }
    parts.extend(repairs(status).map(|text| wrap(&text)));
    parts.push(wrap(&status.sentence));
    parts.join("\n\n")
}

fn head(status: &Status) -> String {
    let none = || "nobody".to_owned();
    let holder = status.holder.as_ref().map_or_else(none, ToString::to_string);
    let leader = status.leader.as_ref().map_or_else(none, ToString::to_string);
    let sync = match &status.sync {
        Sync::InSync { replica } => format!("in sync: {replica}"),
        Sync::OutOfSync { .. } => "in sync: none".to_owned(),
        Sync::NotApplicable => "no MySQL".to_owned(),
    };
    let lease = status.lease.valid_ms.map_or_else(String::new, |ms| format!(" · lease {}", screen::span(ms)));
    wrap(&format!(
        "{} · holder {holder} · epoch {} · {sync}{lease} · leader {leader} (term {})",
        status.cluster, status.epoch, status.term
    ))
}

/// Harmless each time, and somebody's mistake.
fn repairs(status: &Status) -> Option<String> {
    let times = status.lease.repairs;
    (times > 0).then(|| {
        format!(
            "another program removed addresses or rules of {} {times} time{} since its agent started; they were put back. \
             `ip monitor address` and `nft monitor` show who does it",
            status.node,
            if times == 1 { "" } else { "s" }
        )
    })
}

fn nodes(rows: &[NodeRow]) -> String {
    let mut table = screen::table(&["NODE", "ROLE", "STATE", "MYSQL", "REDIS", "LAG", "HEARD"]);
    for row in rows {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            row.name.to_string(),
            role(row.role).to_owned(),
            row.state.clone(),
            or_dash(row.mysql.clone()),
            or_dash(row.redis.clone()),
            or_dash(lag(row)),
            row.heard_ms_ago.map_or_else(|| "never".to_owned(), screen::span),
        ]);
    }
    screen::text(&table)
}

/// MySQL's in time, Redis' in bytes and time, if it lacks anything; `?`: it is not known.
fn lag(row: &NodeRow) -> Option<String> {
    let redis = match (row.redis_behind, &row.redis, row.role) {
        (Some(Exposure { bytes: 0, .. }), ..) => None,
        (Some(Exposure { bytes, ms }), ..) => Some(format!("redis {bytes} B of {}", screen::span(ms))),
        (None, Some(_), Role::Replica | Role::Closed) => Some("redis ?".to_owned()),
        (None, _, Role::Replica | Role::Closed | Role::Holder | Role::Witness | Role::Unknown) => None,
    };
    let parts: Vec<String> = row.lag_ms.map(screen::span).into_iter().chain(redis).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Holder => "holder",
        Role::Replica => "replica",
        Role::Closed => "closed",
        Role::Witness => "witness",
        Role::Unknown => "unknown",
    }
}

fn progress(run: &RunRecord) -> String {
    let from = run.from.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let mut out = format!(
        "run {} · {} {from} -> {} · epoch {} · {}\n",
        run.number,
        run.runbook,
        run.to,
        run.epoch,
        screen::span(run.elapsed_ms)
    );
    out.push_str(&steps(run));
    out
}

/// The steps of a run against their limits.
pub(super) fn steps(run: &RunRecord) -> String {
    let mut table = screen::table(&["STEP", "ACTOR", "STATE", "AT", "TOOK", "LIMIT", "NOTE"]);
    for step in &run.steps {
        let or_dash = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), screen::span);
        table.add_row([
            step.step.clone(),
            step.actor.to_string(),
            state(step.state).to_owned(),
            or_dash(step.started_ms),
            or_dash(step.took_ms),
            screen::span(step.limit_ms),
            step.note.clone().unwrap_or_default(),
        ]);
    }
    screen::text(&table)
}

const fn state(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Acting => "acting",
        StepState::Done => "done",
        StepState::Failed => "failed",
        StepState::Skipped => "skipped",
        StepState::Undoing => "undoing",
        StepState::Undone => "undone",
        StepState::Stuck => "stuck",
    }
}

/// Breaks lines at blanks so that they fit the screen.
pub(super) fn wrap(text: &str) -> String {
    let mut out = Vec::new();
    for line in text.lines() {
        let mut row = String::new();
        for word in line.split(' ') {
            let longer = row.chars().count() + 1 + word.chars().count();
            if !row.is_empty() && longer > usize::from(screen::WIDTH) {
                out.push(std::mem::take(&mut row));
            }
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
        out.push(row);
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn table_fits_eighty_columns() {
        for status in [sample::healthy(), sample::under_way()] {
            let text = table(&status);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line:?}");
            }
            assert!(wrap(&status.sentence).lines().all(|line| text.contains(line)), "{text}");
        }
    }

    #[test]
    fn what_redis_lacks_is_told_and_that_it_is_not_known() {
        let mut status = sample::healthy();
        for (behind, told) in [
            (Some(Exposure { bytes: 512, ms: 1_200 }), "100 ms, redis 512 B of 1.20 s"),
            (None, "100 ms, redis ?"),
            (Some(Exposure { bytes: 0, ms: 0 }), "100 ms"),
        ] {
            status.nodes[1].redis_behind = behind;
            assert_eq!(lag(&status.nodes[1]).as_deref(), Some(told));
        }
        assert_eq!(lag(&status.nodes[0]), None, "the holder lacks nothing of its own");
    }

    #[test]
    fn repairs_are_told() {
        let mut status = sample::healthy();
        assert!(!table(&status).contains("another program"));
        status.lease.repairs = 3;
        let told = table(&status).replace('\n', " ");
        assert!(
            told.contains("another program removed addresses or rules of db1 3 times since its agent"),
            "{told}"
        );
    }

    #[test]
    fn healthy_table_reads_as_written() {
        let expected = "\
shop · holder db1 · epoch 2 · in sync: db2 · lease 1.12 s · leader mon (term 3)

NODE  ROLE     STATE                 MYSQL  REDIS  LAG     HEARD
db1   holder   serving               ok     ok     -       0 ms
db2   replica  replicates            ok     ok     100 ms  87 ms
mon   witness  leads, votes, watches -      -      -       41 ms

OK: db2 can take over now (lag 0.1 s). Tolerates one failure.";
        let squeeze = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        assert_eq!(squeeze(&table(&sample::healthy())), squeeze(expected));
    }
}
