//! Standard output and standard error for people and pipes: a closed pipe is no failure, and tables fit 80 columns.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};

use super::{Exit, Failure};

/// Width for which tables are laid out.
pub const WIDTH: u16 = 80;

/// Writes `text` and a newline to standard output.
pub fn say(text: &str) -> Result<(), Failure> {
    write_to(&mut io::stdout().lock(), text)
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot write to standard output: {e}")))
}

/// Writes `text` and a newline to standard error; there is nowhere left to complain to if that fails.
pub fn complain(text: &str) {
    let _ = write_to(&mut io::stderr().lock(), text);
}

fn write_to(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(newline.as_bytes()))
        .and_then(|()| out.flush())
    {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The value as indented JSON.
pub fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot write the answer as JSON: {e}")))
}

/// A table without borders, laid out for 80 columns.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header.iter().copied());
    table
}

/// The table as text without trailing blanks and without the blank before its first column: a cell of several lines stays in its
/// column.
pub fn text(table: &Table) -> String {
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A number of milliseconds for people: `87 ms`, `1.20 s`, `3 min`.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        _ => format!("{} min", ms / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn closed_pipe_is_no_failure() {
        assert!(write_to(&mut Closed, "text").is_ok());
    }

    #[test]
    fn a_cell_of_several_lines_stays_in_its_column() {
        let mut lines = table(&["A", "B"]);
        lines.add_row(["1", "x\ny"]);
        let told = text(&lines);
        let column = |letter: char| told.lines().find_map(|line| line.find(letter));
        assert_eq!(column('A'), Some(0), "{told}");
        assert_eq!(column('y'), column('B'), "{told}");
    }

    #[test]
    fn spans_for_people() {
        assert_eq!([span(87), span(1_204), span(180_000)], ["87 ms", "1.20 s", "3 min"]);
    }
}
