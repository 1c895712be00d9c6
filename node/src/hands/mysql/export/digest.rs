//! What `mariadb-binlog -v` and `mysqlbinlog -v` print, line by line: which lines belong to wanted transactions, and how
//! many rows of which table they change. Pure.
//!
//! ```text
//! # at 868                                             ← belongs to the header after it
//! #261127 16:27:25 server id 7 … GTID 0-7-4 trans      ← a transaction begins: wanted or not
//! BINLOG '…'                                           ← its rows, for a server
//! ### UPDATE `a`.`t`                                   ← its rows, for people: counted
//! ```
//!
//! What stands before the first transaction is kept, since the rows cannot be read by a server without it. Lines that
//! would give a transaction its old number are left out: applied elsewhere it is a new one.

use std::collections::BTreeMap;

use baton_runbooks::observe::Flavour;

use super::super::gtid::Errant;
use super::RowCounts;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions that were wanted and found.
    pub transactions: u64,
    /// Statements in them that are logged as text, such as DDL. Which rows they change is not known.
    pub statements: u64,
    /// Rows changed, by `schema.table`.
    pub tables: BTreeMap<String, RowCounts>,
}

/// Where the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Before the first transaction.
    Head,
    /// In a transaction that is wanted.
    Wanted,
    /// In anything else.
    Other,
}

/// A reader of the output, one line after the other.
#[derive(Debug)]
pub struct Digest {
    flavour: Flavour,
    wanted: Errant,
    part: Part,
    /// The text of a statement has been announced and not seen to be `BEGIN` or `COMMIT`.
    in_statement: bool,
    counts: Counts,
}

impl Digest {
    /// A reader that wants the transactions `wanted`. MySQL's own program prints only those, so all of them are wanted.
    #[must_use]
    pub fn new(flavour: Flavour, wanted: Errant) -> Self {
        Self { flavour, wanted, part: Part::Head, in_statement: false, counts: Counts::default() }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes the next line, with or without its end; true: it belongs into the export.
    pub fn take(&mut self, line: &[u8]) -> bool {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        if let Some(event) = event_of(text) {
            self.begin(event);
            return self.part != Part::Other;
        }
        if self.part == Part::Wanted {
            self.count(text);
        }
        // A place in a file says nothing once the lines around it are gone; a number of its own would be refused.
        self.part != Part::Other && !text.starts_with("# at ") && !numbers_a_transaction(text)
    }

    fn begin(&mut self, event: &str) {
        self.in_statement = false;
        let first = event.split('\t').next().unwrap_or_default();
        let mut words = first.split_ascii_whitespace();
        match (words.next().unwrap_or_default().trim_end_matches(':'), self.flavour) {
            ("GTID", flavour) => {
                let is_wanted = match flavour {
                    Flavour::Mariadb => words.next().is_some_and(|gtid| self.wanted.has_mariadb(gtid)),
                    Flavour::Mysql => true,
                };
                self.part = if is_wanted { Part::Wanted } else { Part::Other };
                self.counts.transactions += u64::from(is_wanted);
            }
            ("Query", _) if self.part == Part::Wanted => {
                self.in_statement = true;
                self.counts.statements += 1;
            }
            // Between two transactions, and of one log file.
            ("Rotate" | "Stop" | "Gtid" | "Binlog" | "Previous-GTIDs" | "Anonymous_GTID", _) => {
                self.part = if self.part == Part::Head { Part::Head } else { Part::Other };
            }
            ("Start", _) if self.part != Part::Head => self.part = Part::Other,
            _ => {}
        }
    }

    fn count(&mut self, text: &str) {
        if self.in_statement && matches!(text.trim_end_matches("/*!*/;"), "BEGIN" | "COMMIT" | "ROLLBACK") {
            self.in_statement = false;
            self.counts.statements -= 1;
        }
        let Some(row) = text.strip_prefix("### ") else { return };
        let rows = |counts: &mut Counts, table: &str, add: fn(&mut RowCounts)| {
            add(counts.tables.entry(plain(table)).or_default());
        };
        if let Some(table) = row.strip_prefix("INSERT INTO ") {
            rows(&mut self.counts, table, |counts| counts.inserted += 1);
        } else if let Some(table) = row.strip_prefix("UPDATE ") {
            rows(&mut self.counts, table, |counts| counts.updated += 1);
        } else if let Some(table) = row.strip_prefix("DELETE FROM ") {
            rows(&mut self.counts, table, |counts| counts.deleted += 1);
        }
    }
}

/// What an event's header says after its checksum: `#YYMMDD hh:mm:ss server id N  end_log_pos P CRC32 0x… <TAB>…`.
fn event_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('#')?;
    let is_date = rest.len() > 7 && rest.as_bytes()[..6].iter().all(u8::is_ascii_digit);
    let (head, event) = rest.split_once('\t').filter(|_| is_date)?;
    (head.contains(" server id ") && head.contains(" end_log_pos ")).then_some(event)
}

/// A line that gives the next transaction a number, or says where it came from.
fn numbers_a_transaction(line: &str) -> bool {
    let of_mariadb = ["gtid_seq_no=", "gtid_domain_id=", "server_id="];
    line.strip_prefix("/*M!100001 SET @@session.")
        .is_some_and(|what| of_mariadb.iter().any(|name| what.starts_with(name)))
        || line.starts_with("SET @@SESSION.GTID_NEXT=")
}

/// `` `schema`.`table` `` without its quotes. Comments after it are cut off.
fn plain(table: &str) -> String {
    table.split(" /*").next().unwrap_or_default().trim().replace("`.`", ".").trim_matches('`').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hands::mysql::gtid::errant;

    const HEAD: &str = "DELIMITER /*!*/;\n# at 4\n#261127 16:27:25 server id 7  end_log_pos 256 CRC32 0x8e7231f2 \tStart: binlog v 4\n\
                        BINLOG '\nba8Jaw==\n'/*!*/;\n\
                        #261127 16:27:25 server id 7  end_log_pos 299 CRC32 0xf1746c7a \tGtid list [0-7-5]\n";

    fn transaction(gtid: &str, rows: &str) -> String {
        format!(
            "# at 378\n#261127 16:27:25 server id 7  end_log_pos 378 CRC32 0x7dbf3e11 \tGTID {gtid} trans\n\
             /*M!100001 SET @@session.gtid_seq_no=6*//*!*/;\nSTART TRANSACTION\n/*!*/;\n{rows}\
             #261127 16:27:25 server id 7  end_log_pos 399 CRC32 0x1aacc422 \tXid = 6\nCOMMIT/*!*/;\n"
        )
    }

    fn read(flavour: Flavour, wanted: &str, text: &str) -> (String, Counts) {
        let mut digest = Digest::new(flavour, errant(flavour, wanted).unwrap());
        let kept: String = text.split_inclusive('\n').filter(|line| digest.take(line.as_bytes())).collect();
        (kept, digest.counts().clone())
    }

    #[test]
    fn only_what_is_wanted_is_kept_and_counted() {
        let text = [
            HEAD.to_owned(),
            transaction("0-7-6", "### INSERT INTO `a`.`before`\n"),
            transaction("0-7-7", "### INSERT INTO `a`.`t`\n### SET\n###   @1=1\n### INSERT INTO `a`.`t`\n"),
            transaction("0-8-8", "### DELETE FROM `a`.`of another server`\n"),
            transaction("0-7-9", "### UPDATE `a`.`t`\n### DELETE FROM `b`.`u`\n"),
        ]
        .concat();
        let (kept, counts) = read(Flavour::Mariadb, "0-7-7..9", &text);
        assert_eq!(counts.transactions, 2);
        assert_eq!(counts.tables["a.t"], RowCounts { inserted: 2, updated: 1, deleted: 0 });
        assert_eq!(counts.tables["b.u"], RowCounts { inserted: 0, updated: 0, deleted: 1 });
        assert_eq!(counts.tables.len(), 2, "{counts:?}");
        assert!(kept.contains("ba8Jaw=="), "the format is kept: {kept}");
        assert!(!kept.contains("before") && !kept.contains("another"), "{kept}");
        assert!(!kept.contains("gtid_seq_no"), "its old number is not: {kept}");
    }

    #[test]
    fn statements_are_counted_and_their_frame_is_not() {
        let query = |sql: &str| {
            format!(
                "#261127 16:27:25 server id 7  end_log_pos 698 CRC32 0xe70cdf97 \tQuery\tthread_id=5\nSET TIMESTAMP=1/*!*/;\n{sql}\n/*!*/;\n"
            )
        };
        let text =
            format!("{HEAD}{}", transaction("0-7-6", &[query("BEGIN"), query("drop table t")].concat()));
        assert_eq!(read(Flavour::Mariadb, "0-7-6..6", &text).1.statements, 1);
    }

    #[test]
    fn everything_that_the_program_of_mysql_prints_is_wanted() {
        let text = "#261127 16:27:25 server id 1  end_log_pos 9 CRC32 0x0 \tGTID\tlast_committed=0\tsequence_number=1\n\
                    SET @@SESSION.GTID_NEXT= '01234567-89ab-cdef-0123-456789abcdef:12'/*!*/;\n\
                    ### INSERT INTO `a`.`t`\n";
        let (kept, counts) = read(Flavour::Mysql, "01234567-89ab-cdef-0123-456789abcdef:12", text);
        assert_eq!((counts.transactions, counts.tables["a.t"].inserted), (1, 1));
        assert!(!kept.contains("GTID_NEXT"), "{kept}");
    }
}
