//! Blocks as one HTML file: no scripts, nothing from elsewhere; readable by light, by dark, and on paper.

use std::fmt::Write as _;

use super::{Block, escape};
use crate::evidence::Record;
use crate::verdict::Verdict;

const STYLE: &str = include_str!("report.css");

pub(super) fn page(record: &Record, title: &str, blocks: &[Block]) -> String {
    let title = escape(title);
    let verdict = record.judgement.verdict;
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>{title}</h1><p class=\"verdict {}\">{verdict}</p></header>\n",
        class(verdict)
    );
    for block in blocks {
        write(block, &mut text);
    }
    text.push_str("</main>\n</body>\n</html>\n");
    text
}

const fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Degraded => "degraded",
        Verdict::Fail => "fail",
        Verdict::Inconclusive | Verdict::Aborted | Verdict::Refused | Verdict::Interrupted => "other",
    }
}

fn write(block: &Block, text: &mut String) {
    match block {
        Block::Heading(heading) => {
            let _ = writeln!(text, "<h2>{}</h2>", escape(heading));
        }
        Block::Text(words) => {
            let _ = writeln!(text, "<p>{}</p>", marked(words));
        }
        Block::Words(words) => {
            let _ = writeln!(text, "<p>{}</p>", escape(words));
        }
        Block::List(points) => {
            text.push_str("<ul>\n");
            for point in points {
                let _ = writeln!(text, "<li>{}</li>", escape(point));
            }
            text.push_str("</ul>\n");
        }
        Block::Table(_, rows) if rows.is_empty() => text.push_str("<p>None.</p>\n"),
        Block::Table(head, rows) => table(head, rows, text),
        Block::Verbatim(words) => {
            let _ = writeln!(text, "<pre>{}</pre>", escape(words.trim_end()));
        }
        Block::Figure { svg, .. } => {
            let _ = writeln!(text, "<figure>\n{svg}</figure>");
        }
    }
}

fn table(head: &[&str], rows: &[Vec<String>], text: &mut String) {
    text.push_str("<div class=\"wide\"><table>\n");
    if head.iter().any(|name| !name.is_empty()) {
        let cells: String = head.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
        let _ = writeln!(text, "<thead><tr>{cells}</tr></thead>");
    }
    text.push_str("<tbody>\n");
    for row in rows {
        let cells: String = row.iter().map(|value| format!("<td>{}</td>", in_cell(value))).collect();
        let _ = writeln!(text, "<tr>{cells}</tr>");
    }
    text.push_str("</tbody>\n</table></div>\n");
}

/// What was seen is shown as it is; only our own alarm is strong.
fn in_cell(value: &str) -> String {
    if value == super::sections::NO { "<strong>NO</strong>".to_owned() } else { escape(value) }
}

/// What stands between two stars is strong, between two backticks typed.
fn marked(words: &str) -> String {
    let strong = between(&escape(words), "**", "strong");
    between(&strong, "`", "code")
}

fn between(text: &str, mark: &str, tag: &str) -> String {
    let parts: Vec<&str> = text.split(mark).collect();
    if parts.len().is_multiple_of(2) {
        return text.to_owned();
    }
    let parts = parts.into_iter().enumerate();
    parts
        .map(|(at, part)| if at % 2 == 0 { part.to_owned() } else { format!("<{tag}>{part}</{tag}>") })
        .collect()
}
