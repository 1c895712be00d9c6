//! Pages that are made from the code: each is compared with what the code says, and written anew with `REWRITE=1`.
//!
//! `docs/config.md` from the key table, `docs/why.md` from the doc comments of `runbooks::why::Why`, and the step table
//! of `docs/runbooks/*.md` from the tables in `runbooks::run`, between their markers.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use baton_node::api::alarm::AlarmCode;
use baton_node::cli::Exit;
use baton_runbooks::plan::Kind;
use baton_runbooks::run::table::{Actor, StepDef};
use baton_runbooks::run::{switchover, takeover};
use baton_runbooks::why::Obstacle;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The page is what the code says, or is written so under `REWRITE=1`.
fn keep(page: &str, wanted: &str) {
    let path = root().join(page);
    if std::env::var_os("REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        found == wanted,
        "{page} differs from the code (line {:?}); write it anew with REWRITE=1 cargo test -p baton-node --test docs",
        differs.map(|line| line + 1)
    );
}

#[test]
fn config_page_is_the_key_table() {
    keep("docs/config.md", &baton_node::config::markdown());
}

/// One variant of the enum as its source says.
#[derive(Default)]
struct Variant {
    name: String,
    doc: Vec<String>,
    fields: Vec<(String, String)>,
}

/// Reads `pub enum Why` line by line. rustfmt keeps the source in the form that this understands; a variant that it
/// missed would have no code below, and the test would say so.
fn variants(source: &str) -> Vec<Variant> {
    let body = source.split("pub enum Why {\n").nth(1).unwrap().split("\n}\n").next().unwrap();
    let mut found: Vec<Variant> = Vec::new();
    let mut doc: Vec<String> = Vec::new();
    for line in body.lines() {
        let depth = line.len() - line.trim_start().len();
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            doc.push(words.trim().to_owned());
        } else if depth == 4 && text.starts_with(char::is_uppercase) {
            let name = text.split([' ', '{', '(', ',']).next().unwrap().to_owned();
            found.push(Variant { name, doc: std::mem::take(&mut doc), fields: Vec::new() });
        } else if depth == 8 {
            let name = text.split(':').next().unwrap().to_owned();
            let doc = std::mem::take(&mut doc).join(" ");
            found.last_mut().unwrap().fields.push((name, doc));
        }
    }
    found
}

/// The code of each variant, from `Why::code`.
fn code_of<'a>(source: &'a str, variant: &str) -> &'a str {
    let body = source.split("pub const fn code(&self)").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let names =
        |pattern: &str| pattern.trim().split([' ', '{', '(']).next() == Some(&format!("Self::{variant}"));
    body.lines()
        .filter_map(|line| line.split_once(" => "))
        .find(|(pattern, _)| names(pattern))
        .map(|(_, code)| code.trim_matches([' ', ',', '"']))
        .unwrap_or_else(|| panic!("{variant} has no code"))
}

fn why_page() -> String {
    let source = std::fs::read_to_string(root().join("runbooks/src/why.rs")).unwrap();
    let mut page = String::from(
        "# Why: every code and what to do\n\nEach decision carries codes, also the decision to hold. `baton explain` shows them with \
         their evidence, `baton history N` those of a run. Codes are stable.\n\n\
         Made from the doc comments in `runbooks/src/why.rs`; a test keeps the two together \
         (`REWRITE=1 cargo test -p baton-node --test docs` writes this page anew).\n",
    );
    for variant in variants(&source) {
        write!(page, "\n## {}\n\n{}\n", code_of(&source, &variant.name), variant.doc.join(" ")).unwrap();
        if !variant.fields.is_empty() {
            page.push_str("\nEvidence:\n\n");
        }
        for (name, doc) in variant.fields {
            writeln!(page, "- `{name}`: {doc}").unwrap();
        }
    }
    page.push_str(&obstacles());
    page.push_str(&alarms());
    page.push_str(&exit_codes());
    page
}

/// A heading that is no code would be counted as one: these are of the first order.
fn obstacles() -> String {
    let mut text = String::from(
        "\n# Obstacles without a code\n\nWhat keeps a node from holding the baton is a code above, or begins with the words of this table.\n\n\
         | it begins with | means, and what to do |\n|---|---|\n",
    );
    for obstacle in Obstacle::ALL {
        writeln!(text, "| `{}` | {} |", obstacle.as_str(), obstacle.meaning()).unwrap();
    }
    text
}

fn alarms() -> String {
    let mut text = String::from(
        "\n# Alarms of `baton status`\n\nA line that begins with `!`. `.alarms` of the JSON form has the same codes. An alarm is one of these, or the \
         code above of what keeps a node from what it should be. What another node says of itself stands there as `NODE says …`; its own \
         status has more words.\n\n| alarm | means, and what to do |\n|---|---|\n",
    );
    for code in AlarmCode::ALL {
        writeln!(text, "| `{}` | {} |", code.as_str(), code.meaning()).unwrap();
    }
    text
}

/// The codes that verbs use, beside wrong usage (1) and success (0), which all of them have.
const VERBS: [(&str, &str); 10] = [
    ("`agent`", "–"),
    ("`status`, `explain`, `history`", "5, 6; 0 says only that there is an answer"),
    ("`switchover`, `takeover`, `resync`", "2, 3, 4, 5, 6"),
    ("`pause`", "2, 3, 5, 6"),
    ("`resume`, `force`, `rejoin`, `run abort`, `run ack`", "2, 5, 6"),
    ("`config`, `pki`, `replay`", "–"),
    ("`doctor`", "–; with `--strict`, 1 also for a WARN"),
    (
        "`drill run`",
        "2, 5, 6, and its verdict's: 10 FAIL, 11 INCONCLUSIVE, 12 ABORTED, 13 INTERRUPTED ([drills.md](drills.md#verdicts-and-exit-codes))",
    ),
    (
        "`drill verify`",
        "10 not sound, 11 not compared or not witnessed ([operating/drills.md](operating/drills.md#whether-the-evidence-is-whole))",
    ),
    ("`drill status`, `abort`, `heal`, `plan`", "2, 5, 6"),
];

fn exit_codes() -> String {
    let mut text = String::from("\n# Exit codes\n\n| code | means |\n|---|---|\n");
    for exit in Exit::ALL {
        writeln!(text, "| {} | {} |", exit.code(), exit.meaning()).unwrap();
    }
    text.push_str("\n| verb | codes beside 0 and 1 |\n|---|---|\n");
    for (verb, codes) in VERBS {
        writeln!(text, "| {verb} | {codes} |").unwrap();
    }
    text
}

/// Whoever makes an alarm takes its code from one of the two lists.
#[test]
fn no_alarm_has_a_code_of_its_own() {
    for path in ["node/src/agent/views.rs", "node/src/api/view.rs", "node/src/api/view/forced.rs"] {
        let source = std::fs::read_to_string(root().join(path)).unwrap();
        let literals = source.lines().filter(|line| line.contains("code: \"")).collect::<Vec<_>>();
        assert!(literals.is_empty(), "{path}: {literals:?}");
    }
}

/// Whoever notes an obstacle takes its words from one of the two lists of the page.
#[test]
fn no_obstacle_has_words_of_its_own() {
    let report = std::fs::read_to_string(root().join("runbooks/src/agent/report.rs")).unwrap();
    let pushed: Vec<&str> = report.split("found.push(").skip(1).map(str::trim_start).collect();
    assert!(pushed.len() > 10, "{}", pushed.len());
    for text in pushed {
        let is_listed = ["Why::", "Obstacle::"].iter().any(|list| text.starts_with(list));
        assert!(is_listed, "found.push({}", text.lines().next().unwrap_or_default());
    }
    // What the driver adds.
    let driver = std::fs::read_to_string(root().join("node/src/agent/driver.rs")).unwrap();
    let added = driver.lines().filter_map(|line| line.split_once("obstacles.extend(")).map(|(_, from)| from);
    let makers = ["self.outranked());", "self.behind_newer_log());", "self.context.resync.obstacle());"];
    assert_eq!(added.collect::<Vec<_>>(), makers, "the obstacles of these are of the list");
}

#[test]
fn why_page_is_the_doc_comments() {
    let page = why_page();
    let codes = page.lines().filter(|line| line.starts_with("## ")).count();
    let source = std::fs::read_to_string(root().join("runbooks/src/why.rs")).unwrap();
    let body = source.split("pub const fn code(&self)").nth(1).unwrap().split("\n    }\n").next().unwrap();
    assert_eq!(codes, body.matches("=> \"").count(), "a code without a heading");
    keep("docs/why.md", &page);
}

fn step_table(version: u16, steps: &[StepDef]) -> String {
    let mut table = format!(
        "Version {version} of the table.\n\n| step | actor | waits for | kind | limit | attempts | what it does | undo |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    for def in steps {
        let actor = match def.actor {
            Actor::Target => "new holder",
            Actor::Source => "old holder",
            Actor::Witness => "witness",
        };
        let kind = match def.kind {
            Kind::Undoable => "undoable",
            Kind::Pivot => "**pivot**",
            Kind::Forward => "forward",
        };
        let after: Vec<String> = def.after.iter().map(|step| format!("`{step}`")).collect();
        let after = if after.is_empty() { "–".to_owned() } else { after.join(", ") };
        let limit = if def.limit_ms.is_multiple_of(1000) {
            format!("{} s", def.limit_ms / 1000)
        } else {
            format!("{} ms", def.limit_ms)
        };
        writeln!(
            table,
            "| `{}` | {actor} | {after} | {kind} | {limit} | {} | {} | {} |",
            def.step, def.attempts, def.effect, def.undo
        )
        .unwrap();
    }
    table
}

const END: &str = "<!-- end of steps -->";

/// Keeps the step table of the page `docs/runbooks/NAME.md` between its markers.
fn keep_table(name: &str, version: u16, steps: &[StepDef]) {
    let path = format!("docs/runbooks/{name}.md");
    let begin = format!("<!-- steps: made from runbooks/src/run/{name}.rs -->\n");
    let page = std::fs::read_to_string(root().join(&path)).unwrap();
    let (head, rest) = page.split_once(&begin).expect("the page has the marker of its step table");
    let (_, tail) = rest.split_once(END).expect("the page has the marker after its step table");
    keep(&path, &format!("{head}{begin}{}{END}{tail}", step_table(version, steps)));
}

#[test]
fn takeover_page_has_the_step_table() {
    keep_table("takeover", takeover::VERSION, takeover::TABLE);
}

#[test]
fn switchover_page_has_the_step_table() {
    keep_table("switchover", switchover::VERSION, switchover::TABLE);
}
