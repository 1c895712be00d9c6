//! `docs/drills.md`, made from the drills, the faults, the schema and the verdicts.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Experiment, Fault, Level, shipped};
use crate::schema::schema;
use crate::verdict::Verdict;

const INTRO: &str = include_str!("catalogue/intro.md");
const EVIDENCE: &str = include_str!("catalogue/evidence.md");

/// The page.
///
/// # Errors
/// A shipped drill cannot be read.
pub fn markdown() -> Result<String, super::ParseError> {
    let mut page = INTRO.to_owned();
    levels(&mut page);
    drills(&mut page)?;
    faults(&mut page);
    keys(&mut page);
    verdicts(&mut page);
    page.push('\n');
    page.push_str(EVIDENCE);
    Ok(page)
}

fn levels(page: &mut String) {
    page.push_str("\n## Levels\n\n| level | word | faults |\n|---|---|---|\n");
    for level in Level::ALL {
        let faults: Vec<String> = Fault::ALL
            .into_iter()
            .filter(|fault| fault.level() == level)
            .map(|fault| format!("`{fault}`"))
            .collect();
        let faults =
            if faults.is_empty() { "none: `baton drill plan`".to_owned() } else { faults.join(", ") };
        let _ = writeln!(page, "| {level} | {} | {faults} |", level.word());
    }
}

fn drills(page: &mut String) -> Result<(), super::ParseError> {
    page.push_str(
        "\n## Drills that come with Baton\n\n| drill | level | what happens | outage allowed |\n|---|---|---|---|\n",
    );
    let sources: Vec<_> = shipped::ids().map(shipped::named).collect::<Result<_, _>>()?;
    for source in &sources {
        let Experiment { id, level, title, slo, .. } = &source.experiment;
        let outage = if *level < Level::L2 { "–".to_owned() } else { slo.outage.mysql.to_string() };
        let _ = writeln!(page, "| [`{id}`](#{id}) | {level} | {title} | {outage} |");
    }
    for source in &sources {
        let Experiment { id, title, description, method, tags, .. } = &source.experiment;
        let stop = if title.ends_with(['?', '!', '.']) { "" } else { "." };
        let _ = writeln!(page, "\n### {id}\n\n**{title}{stop}** {}\n", description.trim());
        let steps = method.iter().map(|method| {
            let peer = method.peer.as_deref().map(|peer| format!(" against {peer}")).unwrap_or_default();
            format!("`{}` on {}{peer}, {}", method.fault, method.target, method.duration)
        });
        let steps = steps.collect::<Vec<_>>().join("; then ");
        let _ = writeln!(page, "{steps}. Tags: {}.", tags.join(", "));
    }
    Ok(())
}

fn faults(page: &mut String) {
    page.push_str(
        "\n## Faults\n\nA fault counts as injected when its effect was seen, not when the command was sent.\n\n\
         | fault | what it does | may hit | ended by | seen by | outside a lab |\n|---|---|---|---|---|---|\n",
    );
    for fault in Fault::ALL {
        let roles: Vec<&str> = fault.roles().iter().map(|role| role.name()).collect();
        let safe = if fault.is_safe_outside_lab() { "yes" } else { "**no**" };
        let (what, heal, effect) = (fault.what(), fault.heal().name(), fault.effect());
        let seen = format!("`{}`: {}", effect.name(), effect.what());
        let _ = writeln!(page, "| `{fault}` | {what} | {} | {heal} | {seen} | {safe} |", roles.join(", "));
    }
}

/// The type that a reference in the schema names.
fn resolve<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value.get("$ref").or_else(|| value.pointer("/anyOf/0/$ref")).and_then(Value::as_str);
    let name = reference.and_then(|reference| reference.strip_prefix("#/$defs/"));
    name.and_then(|name| root.get("$defs")?.get(name)).unwrap_or(value)
}

fn words(value: &Value) -> Option<String> {
    value.get("description").and_then(Value::as_str).map(|text| text.replace('\n', " ").replace('|', "\\|"))
}

/// What may stand there.
fn kind(root: &Value, value: &Value) -> String {
    let target = resolve(root, value);
    let values: Vec<String> = constants(target).into_iter().map(|(name, _)| format!("`{name}`")).collect();
    if !values.is_empty() {
        return if values.len() > 6 { "a name: see the tables".into() } else { values.join(" ") };
    }
    if target.get("pattern").is_some() {
        return "length of time".into();
    }
    let kind = target.get("type");
    let kind = kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str())).unwrap_or("table");
    match kind {
        "integer" | "number" => "number".into(),
        "string" => "text".into(),
        "array" => match target.get("items") {
            Some(items) => format!("list: {}", self::kind(root, items)),
            None => "list".into(),
        },
        _ => "table".into(),
    }
}

/// Names and meanings of an enum's values.
fn constants(value: &Value) -> Vec<(String, Option<String>)> {
    let list = |key: &str| value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let plain = list("enum").iter().filter_map(|name| Some((name.as_str()?.to_owned(), None)));
    let said = list("oneOf").iter().flat_map(|one| {
        let names = one
            .get("const")
            .into_iter()
            .chain(one.get("enum").and_then(Value::as_array).into_iter().flatten());
        names.filter_map(|name| Some((name.as_str()?.to_owned(), words(one)))).collect::<Vec<_>>()
    });
    plain.chain(said).collect()
}

fn keys(page: &mut String) {
    let root = schema();
    page.push_str(
        "\n## The file\n\nTOML; YAML and JSON of the same shape are read as well, by the file's ending. A key that is not \
         known is an error. `baton drill schema` prints the JSON Schema, `baton drill new` writes a file to begin \
         with.\n\n| key | value | needed | meaning |\n|---|---|---|---|\n",
    );
    rows(&root, &root, "", page);
    for name in ["Probe", "Stop"] {
        let Some(value) = root.get("$defs").and_then(|defs| defs.get(name)) else { continue };
        let heading = if name == "Probe" { "Probes" } else { "Stop conditions" };
        let _ = writeln!(page, "\n### {heading}\n\n| name | meaning |\n|---|---|");
        for (name, meaning) in constants(value) {
            let _ = writeln!(page, "| `{name}` | {} |", meaning.unwrap_or_default());
        }
    }
}

fn rows(root: &Value, table: &Value, path: &str, page: &mut String) {
    let Some(properties) = table.get("properties").and_then(Value::as_object) else { return };
    let needed: Vec<&str> = table
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for (name, value) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let meaning = words(value).or_else(|| words(resolve(root, value))).unwrap_or_default();
        let needed = if needed.contains(&name.as_str()) { "yes" } else { "" };
        let _ = writeln!(page, "| `{path}` | {} | {needed} | {meaning} |", kind(root, value));
        let inner = resolve(root, value);
        rows(root, inner, &path, page);
        if let Some(items) = inner.get("items") {
            rows(root, resolve(root, items), &format!("{path}[]"), page);
        }
        if let Some(entry) = inner.get("additionalProperties").filter(|entry| entry.is_object()) {
            rows(root, resolve(root, entry), &format!("{path}.NAME"), page);
        }
    }
}

fn verdicts(page: &mut String) {
    page.push_str("\n## Verdicts and exit codes\n\n| verdict | exit code of `baton drill run` | when |\n|---|---|---|\n");
    for verdict in Verdict::ALL {
        let _ = writeln!(page, "| {verdict} | {} | {} |", verdict.exit_code(), verdict.when());
    }
    page.push_str(
        "\nThe other codes are those of every verb: 1 wrong usage or a file that is no drill, 5 no agent or no quorum. A broken \
         promise of safety is FAIL whatever else happened. A promise of time, or of a share of writes, that was broken is FAIL if \
         the runner's own lateness does not explain it; else nothing is known of it, and INCONCLUSIVE says so. Up to 200 ms of it \
         explain nothing. If a timer was later than that, an outage or a gap must be over its limit by more than the latest \
         timer was late, however many others were; and 0.8 s more if writes could not be started, since too many were under way. \
         Of a share, as many writes are left out as fall due in that time, or one in a hundred of all if that is more, and those \
         that could not be started. A sustained recovery must be too long up to its last time without a write that was longer \
         than all that by half a second. If more than one timer in a hundred was later than 200 ms, no time and no share is \
         known.\n",
    );
}
