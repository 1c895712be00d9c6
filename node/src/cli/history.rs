//! `baton history`: the runs that the ledger keeps; with a number, one run with its phases and steps.

use super::status::{steps, wrap};
use super::{Exit, Failure, Global, Output, block_on, screen};
use crate::api::force::ForcedRecord;
use crate::api::pause::PauseRecord;
use crate::api::types::{History, RunRecord, RunResult};
use crate::api::view::PHASE_NAMES;

/// Arguments of `baton history`.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// Number of the run
    number: Option<u64>,
}

pub(super) fn run(global: &Global, args: &HistoryArgs) -> Result<Exit, Failure> {
    let client = global.client()?;
    let text = match (args.number, global.output) {
        (None, Output::Json) => screen::json(&block_on(client.history())??)?,
        (None, Output::Table) => all(&block_on(client.history())??),
        (Some(number), Output::Json) => screen::json(&block_on(client.run(number))??)?,
        (Some(number), Output::Table) => one(&block_on(client.run(number))??),
    };
    screen::say(&text)?;
    Ok(Exit::Done)
}

fn all(history: &History) -> String {
    let mut parts = vec![list(&history.runs)];
    if !history.pauses.is_empty() {
        let lines: Vec<String> = history.pauses.iter().map(|pause| wrap(&paused(pause))).collect();
        parts.push(lines.join("\n"));
    }
    if !history.forced.is_empty() {
        let lines: Vec<String> = history.forced.iter().map(|forced| wrap(&told(forced))).collect();
        parts.push(lines.join("\n"));
    }
    parts.join("\n\n")
}

fn told(forced: &ForcedRecord) -> String {
    let gave_up: Vec<&str> = forced.gave_up.iter().map(|node| node.as_str()).collect();
    let loss = if forced.loss_accepted { ", and acknowledged writes that it lacked" } else { "" };
    format!(
        "FORCED · generation {} · {} · {} went on alone · by {}: {} · gave up {} and what they decided after entry {}{loss}",
        forced.generation,
        forced.at.strftime("%Y-%m-%d %H:%M:%SZ"),
        forced.survivor,
        forced.by,
        forced.reason,
        gave_up.join(" and "),
        forced.last_index
    )
}

fn paused(pause: &PauseRecord) -> String {
    let alone = if pause.alone { ", alone" } else { "" };
    let end = match (&pause.ended, pause.ended_at) {
        (Some(ended), Some(at)) => format!("over {}: {ended}", at.strftime("%Y-%m-%d %H:%M:%SZ")),
        (Some(_) | None, _) => "not over".to_owned(),
    };
    format!(
        "pause {} · {} · for {}{alone} · by {}: {} · {end}",
        pause.number,
        pause.at.strftime("%Y-%m-%d %H:%M:%SZ"),
        screen::span(pause.for_ms),
        pause.by,
        pause.reason
    )
}

fn list(runs: &[RunRecord]) -> String {
    if runs.is_empty() {
        return "no run yet".to_owned();
    }
    let mut table = screen::table(&["#", "WHEN", "RUN", "CAUSE", "TIMES", "RESULT"]);
    for run in runs {
        let actors = carried_out_by(run).map(|actors| format!("by {actors}"));
        let loss = run.loss_accepted.as_ref().map(|_| "loss accepted".to_owned());
        table.add_row([
            run.number.to_string(),
            run.at.strftime("%Y-%m-%d\n%H:%M:%SZ").to_string(),
            lines([run.runbook.clone(), way(run)].into_iter().chain(actors)),
            run.cause.clone(),
            times(run),
            lines([result(run.result).to_owned()].into_iter().chain(loss)),
        ]);
    }
    screen::text(&table)
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join("\n")
}

/// Before its start and after it; what clients saw is not in the ledger.
fn times(run: &RunRecord) -> String {
    let detect = run.detected_ms_before.map(|ms| format!("detect {}", screen::span(ms)));
    let open = run.phases_ms.get("open").map(|ms| format!("open {}", screen::span(*ms)));
    let told = lines(detect.into_iter().chain(open));
    if told.is_empty() { "-".to_owned() } else { told }
}

/// The nodes whose agents did something in it.
fn carried_out_by(run: &RunRecord) -> Option<String> {
    let names: Vec<&str> = run.actors.iter().map(|node| node.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn way(run: &RunRecord) -> String {
    let from = run.from.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    format!("{from} -> {}", run.to)
}

const fn result(result: RunResult) -> &'static str {
    match result {
        RunResult::Running => "running",
        RunResult::Undoing => "undoing",
        RunResult::Completed => "completed",
        RunResult::Degraded => "degraded",
        RunResult::RolledBack => "rolled back",
        RunResult::Abandoned => "abandoned",
        RunResult::NeedsOperator => "needs operator",
    }
}

fn one(run: &RunRecord) -> String {
    let mut head = format!(
        "run {} · {} · {} · {} · epoch {}\ncause: {}\nresult: {}",
        run.number,
        run.runbook,
        way(run),
        run.at.strftime("%Y-%m-%d %H:%M:%S%.3fZ"),
        run.epoch,
        run.cause,
        result(run.result)
    );
    head.extend(run.failure.iter().map(|text| format!(" ({text})")));
    head.extend(carried_out_by(run).map(|actors| format!("\ncarried out by: {actors}")));
    head.extend(run.loss_accepted.iter().map(|loss| format!("\nloss accepted: {loss}")));
    let why: Vec<String> = run.why.iter().map(|why| format!("  {why}")).collect();
    let detected = run.detected_ms_before.map(|ms| format!("detected {} before", screen::span(ms)));
    let phases = PHASE_NAMES
        .iter()
        .filter_map(|name| run.phases_ms.get(*name).map(|ms| format!("{name} {}", screen::span(*ms))));
    let phases: Vec<String> = detected.into_iter().chain(phases).collect();
    let facts: Vec<String> = run
        .steps
        .iter()
        .flat_map(|step| step.facts.iter().map(move |(key, value)| format!("  {} {key}: {value}", step.step)))
        .collect();
    let mut parts = vec![wrap(&head), wrap(&why.join("\n"))];
    parts.extend(voters(run).map(|text| wrap(&text)));
    parts.extend([wrap(&phases.join(" · ")), steps(run)]);
    if !facts.is_empty() {
        parts.push(wrap(&facts.join("\n")));
    }
    parts.join("\n\n")
}

/// What each node that spoke knew of the holder when the run was decided.
fn voters(run: &RunRecord) -> Option<String> {
    let from = run.from.as_ref().filter(|_| !run.holder_heard_ms_before.is_empty())?;
    let words = run.holder_heard_ms_before.iter().map(|(node, ms)| match ms {
        Some(ms) => format!("{node} had heard {from} {} before", screen::span(*ms)),
        None => format!("{node} had not heard {from} since its own start"),
    });
    Some(words.collect::<Vec<_>>().join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn list_and_entry_fit_eighty_columns() {
        let run = sample::ended_run();
        for text in [list(std::slice::from_ref(&run)), one(&run)] {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line:?}");
            }
        }
    }

    #[test]
    fn list_and_entry_say_who_acted_how_long_it_took_and_what_was_given_up() {
        let mut run = sample::ended_run();
        let told = list(std::slice::from_ref(&run));
        for word in ["takeover", "db1 -> db2", "by db2, mon", "detect 40 ms", "open 160 ms", "completed"] {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(!told.contains("loss accepted"), "{told}");
        assert!(one(&run).contains("carried out by: db2, mon"), "{}", one(&run));
        run.loss_accepted = Some("writes of at most 900 ms".to_owned());
        assert!(list(std::slice::from_ref(&run)).contains("loss accepted"));
        assert!(one(&run).contains("loss accepted: writes of at most 900 ms"), "{}", one(&run));
        run.actors.clear();
        run.phases_ms.clear();
        run.detected_ms_before = None;
        assert!(!list(&[run]).contains("by db2"), "nothing was begun");
    }

    #[test]
    fn entry_shows_phases_in_order() {
        let text = one(&sample::ended_run());
        assert!(text.contains("decided 0 ms · fenced 12 ms"), "{text}");
        assert!(text.contains("cause: holder-released: mysql-dead"), "{text}");
        assert!(
            text.contains("db2 had heard db1 60 ms before · mon had not heard db1 since its own start"),
            "{text}"
        );
    }
}
