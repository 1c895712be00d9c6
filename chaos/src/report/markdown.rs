//! Blocks as Markdown.

use std::fmt::Write as _;

use super::Block;

pub(super) fn page(title: &str, blocks: &[Block]) -> String {
    let mut text = format!("# {}\n", cell(title));
    for block in blocks {
        text.push('\n');
        match block {
            Block::Heading(heading) => {
                let _ = writeln!(text, "## {heading}");
            }
            Block::Text(words) => {
                let _ = writeln!(text, "{}", words.replace('<', "&lt;"));
            }
            Block::Words(words) => {
                let _ = writeln!(text, "{}", words.lines().map(cell).collect::<Vec<_>>().join("\n"));
            }
            Block::List(points) => points.iter().for_each(|point| {
                let _ = writeln!(text, "- {}", cell(point));
            }),
            Block::Table(_, rows) if rows.is_empty() => text.push_str("None.\n"),
            Block::Table(head, rows) => {
                let _ = writeln!(text, "| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()));
                for row in rows {
                    let cells: Vec<String> = row.iter().map(|value| cell(value)).collect();
                    let _ = writeln!(text, "| {} |", cells.join(" | "));
                }
            }
            Block::Verbatim(words) | Block::Figure { text: words, .. } => {
                let fence = fence(words);
                let _ = writeln!(text, "{fence}\n{}\n{fence}", words.trim_end());
            }
        }
    }
    text
}

/// On one line, and with nothing in it that would end a cell, begin a tag, a link or an image, or be set in another type.
fn cell(value: &str) -> String {
    if value == super::sections::NO {
        return value.to_owned();
    }
    value.chars().fold(String::with_capacity(value.len()), |mut text, c| {
        match c {
            '<' => text.push_str("&lt;"),
            '\n' | '\r' => text.push(' '),
            '\\' | '|' | '[' | ']' | '!' | '*' | '_' | '`' => text.extend(['\\', c]),
            c => text.push(c),
        }
        text
    })
}

/// A fence that is longer than any in the text.
fn fence(words: &str) -> String {
    let longest = words.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn nothing_in_a_cell_is_markup() {
        assert_eq!(cell("a\\|b"), "a\\\\\\|b", "a backslash does not undo the one before the bar");
        assert_eq!(cell("![x](y) **NO** `c` _d_\n<e"), "\\!\\[x\\](y) \\*\\*NO\\*\\* \\`c\\` \\_d\\_ &lt;e");
        assert_eq!(cell(super::super::sections::NO), "**NO**", "our own alarm");
    }
}
