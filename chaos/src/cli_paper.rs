//! Verbs of `baton drill` that read and write files only: no agent is asked, nothing is broken.
//!
//! The command line flattens [`Paper`] among its own verbs (`#[command(flatten)]`) and hands it to [`run`] with a [`Desk`]:
//! where things are, and what the ledger says of the records.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use crate::evidence::{Store, StoreError, Witness, compare, verify};
use crate::experiment::plan::{Roles, plan};
use crate::experiment::{Experiment, Fault, Form, Format, Level, ParseError, Source, shipped};
use crate::lint::{self, lint};
use crate::report;
use crate::schema::schema;
use crate::trend::{Past, trend};
use crate::verdict::Verdict;

/// Directory of an installation's own drills.
pub const DRILLS_DIR: &str = "/etc/baton/drills";
/// Directory of records.
pub const RECORDS_DIR: &str = "/var/lib/baton/drills";

/// Verbs that read and write files only.
#[derive(Debug, Clone, Subcommand)]
pub enum Paper {
    /// Drills that come with Baton, and those of this installation
    List,
    /// Write a drill to begin with to standard output
    New(NewArgs),
    /// Check drills: each finding with its line and what to do
    Lint {
        /// Files, or names of drills
        #[arg(required = true, value_name = "DRILL")]
        drills: Vec<String>,
    },
    /// Print the JSON Schema of a drill's file
    Schema,
    /// What a drill would do, to whom; nothing is done
    Plan {
        /// A file, or the name of a drill
        drill: String,
    },
    /// What a fault does, whom it may hit, and what ends it
    Explain {
        /// Its name; without one, all of them
        fault: Option<String>,
    },
    /// Runs so far, what got slower, which faults were never tried
    History {
        /// Of this drill only
        drill: Option<String>,
    },
    /// Write the report of a run
    Report(ReportArgs),
    /// Whether the records are those that were written
    Verify {
        /// Hash of the last record, 64 hexadecimal digits [default: what the ledger holds]
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
}

/// What `new` takes.
#[derive(Debug, Clone, Args)]
pub struct NewArgs {
    /// Name of the new drill
    pub id: String,
    /// The drill that it is made from
    #[arg(long, default_value = "mysqld-killed", value_name = "DRILL")]
    pub from: String,
}

/// What `report` takes.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Number of a record, name of a drill (its latest run), or `last`
    #[arg(default_value = "last", value_name = "RECORD")]
    pub which: String,
    /// Form of the report [default: those that the drill wants, with --out; otherwise md]
    #[arg(long, value_enum, value_name = "FORM")]
    pub format: Option<Format>,
    /// Directory to write it to [default: standard output]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Where things are, and what is known of the group.
#[derive(Debug, Clone)]
pub struct Desk {
    /// Directory of this installation's own drills.
    pub drills: PathBuf,
    /// Directory of records.
    pub records: PathBuf,
    /// The moment.
    pub now: Timestamp,
    /// Answer as JSON.
    pub json: bool,
    /// Which node has which role now, if an agent could be asked.
    pub roles: Option<Roles>,
    /// Hash of the last record, as the ledger has it, if an agent could be asked.
    pub ledger_head: Option<String>,
    /// The drills of this node that the ledger remembers, oldest first.
    pub witnesses: Vec<Witness>,
}

/// What a verb has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// The exit code.
    pub exit: u8,
}

/// Why a verb could not do what was asked; exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum PaperError {
    /// It is no drill.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An answer cannot be written as JSON.
    #[error("the answer cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// There is no such fault.
    #[error("no fault is called {0:?}; `baton drill explain` shows all of them")]
    Fault(String),
    /// A report cannot be written.
    #[error("{path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

/// Does what a verb says. Blocks on the disk.
///
/// # Errors
/// A file cannot be read or written, or names nothing.
pub fn run(paper: &Paper, desk: &Desk) -> Result<Answer, PaperError> {
    let done = |text: String| Answer { text, exit: 0 };
    match paper {
        Paper::List => list(desk).map(done),
        Paper::New(args) => {
            let text = shipped::template(&args.id, &args.from)?;
            // What is written must be readable: an id that is none is told now, not by the linter later.
            let source = Source::parse(&format!("{}.toml", args.id), Form::Toml, &text)?;
            if let Some(finding) = lint(&source).into_iter().find(|finding| finding.code == "id") {
                return Err(ParseError { file: args.id.clone(), at: None, message: finding.hint }.into());
            }
            Ok(done(text))
        }
        Paper::Lint { drills } => lint_all(drills, desk),
        Paper::Schema => Ok(done(serde_json::to_string_pretty(&schema())?)),
        Paper::Plan { drill } => {
            let source = find(drill, desk)?;
            let findings = lint(&source);
            let mut text = plan(&source.experiment, desk.roles.as_ref());
            for finding in &findings {
                let _ = write!(text, "\n{finding}");
            }
            Ok(Answer { text, exit: u8::from(lint::refuses(&findings)) })
        }
        Paper::Explain { fault } => explain(fault.as_deref(), desk).map(done),
        Paper::History { drill } => history(drill.as_deref(), desk).map(done),
        Paper::Report(args) => write_report(args, desk).map(done),
        Paper::Verify { head } => {
            let mut seen = verify(&desk.records, head.as_deref().or(desk.ledger_head.as_deref()))?;
            // What cannot be read is among the flaws already.
            if seen.is_sound() {
                seen.flaws.extend(compare(&desk.records, &desk.witnesses)?);
            }
            let text = if desk.json { serde_json::to_string_pretty(&seen)? } else { seen.to_string() };
            let exit = match (seen.is_sound(), seen.is_witnessed()) {
                (_, true) => 0,
                (true, false) => Verdict::Inconclusive.exit_code(),
                (false, false) => Verdict::Fail.exit_code(),
            };
            Ok(Answer { text, exit })
        }
    }
}

/// The drill that is meant: a file, one of this installation, or a shipped one, in this order.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn find(name: &str, desk: &Desk) -> Result<Source, ParseError> {
    let path = Path::new(name);
    if path.components().count() > 1 || path.extension().is_some() {
        return Source::read(path);
    }
    let own = ["toml", "yaml", "yml", "json"].map(|ending| desk.drills.join(format!("{name}.{ending}")));
    match own.iter().find(|path| path.is_file()) {
        Some(path) => Source::read(path),
        None => shipped::named(name),
    }
}

#[derive(Serialize)]
struct Listed {
    id: String,
    level: Level,
    title: String,
    tags: Vec<String>,
    from: String,
}

fn list(desk: &Desk) -> Result<String, PaperError> {
    let mut known: BTreeMap<String, Listed> = BTreeMap::new();
    let mut broken = Vec::new();
    let mut keep = |from: &str, experiment: &Experiment| {
        let Experiment { id, level, title, tags, .. } = experiment.clone();
        known.insert(id.clone(), Listed { id, level, title, tags, from: from.to_owned() });
    };
    for id in shipped::ids() {
        keep("baton", &shipped::named(id)?.experiment);
    }
    let entries = std::fs::read_dir(&desk.drills).into_iter().flatten().flatten();
    let mut own: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    own.retain(|path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("toml" | "yaml" | "yml" | "json"))
    });
    own.sort();
    for path in own {
        match Source::read(&path) {
            Ok(source) => keep(&source.file, &source.experiment),
            Err(error) => broken.push(error.to_string()),
        }
    }
    let mut all: Vec<Listed> = known.into_values().collect();
    all.sort_by(|a, b| (a.level, &a.id).cmp(&(b.level, &b.id)));
    if desk.json {
        return Ok(serde_json::to_string_pretty(&all)?);
    }
    let wide = all.iter().map(|listed| listed.id.len()).max().unwrap_or(0);
    let mut text = String::new();
    for listed in &all {
        let own = if listed.from == "baton" { String::new() } else { format!("  ({})", listed.from) };
        let _ = writeln!(text, "{}  {:<wide$}  {}{own}", listed.level, listed.id, listed.title);
    }
    for error in broken {
        let _ = writeln!(text, "{error}");
    }
    Ok(text)
}

fn lint_all(drills: &[String], desk: &Desk) -> Result<Answer, PaperError> {
    let mut findings = Vec::new();
    let mut unreadable = Vec::new();
    for drill in drills {
        match find(drill, desk) {
            Ok(source) => findings.extend(lint(&source)),
            Err(error) => unreadable.push(error),
        }
    }
    let exit = u8::from(!unreadable.is_empty() || lint::refuses(&findings));
    if desk.json {
        let errors: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        let answer = serde_json::json!({ "unreadable": errors, "findings": findings });
        return Ok(Answer { text: serde_json::to_string_pretty(&answer)?, exit });
    }
    let lines = unreadable.iter().map(ToString::to_string).chain(findings.iter().map(ToString::to_string));
    let mut lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        lines.push("OK".to_owned());
    }
    Ok(Answer { text: lines.join("\n"), exit })
}

fn explain(fault: Option<&str>, desk: &Desk) -> Result<String, PaperError> {
    let wanted: Vec<Fault> =
        Fault::ALL.into_iter().filter(|known| fault.is_none_or(|name| known.name() == name)).collect();
    if let (Some(name), true) = (fault, wanted.is_empty()) {
        return Err(PaperError::Fault(name.to_owned()));
    }
    if desk.json {
        let faults = wanted.iter().map(|fault| {
            serde_json::json!({
                "fault": fault, "level": fault.level(), "what": fault.what(), "may_hit": fault.roles(),
                "heal": fault.heal(), "effect": fault.effect(), "safe_outside_lab": fault.is_safe_outside_lab(),
            })
        });
        return Ok(serde_json::to_string_pretty(&faults.collect::<Vec<_>>())?);
    }
    let mut text = String::new();
    for fault in wanted {
        let roles: Vec<&str> = fault.roles().iter().map(|role| role.name()).collect();
        let safe = if fault.is_safe_outside_lab() { "yes" } else { "no: a lab, or hosts that allow L5" };
        let _ = writeln!(
            text,
            "{fault} ({} {})\n  does        {}\n  may hit     {}\n  ended by    {}\n  seen by     {}\n  outside lab {safe}",
            fault.level(),
            fault.level().word(),
            fault.what(),
            roles.join(", "),
            fault.heal().name(),
            fault.effect().what()
        );
    }
    Ok(text)
}

fn history(drill: Option<&str>, desk: &Desk) -> Result<String, PaperError> {
    let records = Store::at(&desk.records).records()?;
    let past = records.iter().map(|stored| Past::from(&stored.record));
    let past = past.filter(|past| drill.is_none_or(|drill| past.drill == drill)).collect();
    let trend = trend(past, desk.now);
    Ok(if desk.json { serde_json::to_string_pretty(&trend)? } else { trend.markdown() })
}

fn write_report(args: &ReportArgs, desk: &Desk) -> Result<String, PaperError> {
    let store = Store::at(&desk.records);
    let stored = store.find(&args.which)?;
    let past: Vec<Past> = store.records()?.iter().map(|stored| Past::from(&stored.record)).collect();
    let Some(out) = &args.out else {
        return Ok(report::render(&stored, &past, args.format.unwrap_or(Format::Md))?);
    };
    let formats = args.format.map_or(stored.record.experiment.formats.clone(), |format| vec![format]);
    std::fs::create_dir_all(out).map_err(|source| PaperError::Write { path: out.clone(), source })?;
    let mut text = String::new();
    for format in formats {
        let path = out.join(report::file_name(&stored.record, format));
        let rendered = report::render(&stored, &past, format)?;
        std::fs::write(&path, rendered).map_err(|source| PaperError::Write { path: path.clone(), source })?;
        let _ = writeln!(text, "{}", path.display());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
