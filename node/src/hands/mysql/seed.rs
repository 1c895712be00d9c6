//! A server that was started on a copy of another's data is told where in the other's history it stands.
//!
//! The copy names one position, the last transaction of each domain. That is enough for following, and not for finding
//! extra transactions later: for that the server must also know the last one of each *server* ([`gtid::extra`]). So the
//! copied server's state from *before* the copy was begun is brought up to the position. One from after it would claim
//! transactions that the copy lacks, and `gtid_strict_mode` would then refuse them when they come.

use std::path::Path;
use std::time::Duration;

use baton_runbooks::observe::Flavour;

use super::flavour::quote;
use super::promote::bad_set;
use super::{Mysql, MysqlError, gtid};

/// Where `mariadb-backup` says of which moment its copy is: up to 10.11, and later.
const INFO_FILES: [&str; 2] = ["xtrabackup_binlog_info", "mariadb_backup_binlog_info"];

/// The position of a copy of MariaDB, as the copy itself says.
///
/// # Errors
/// [`MysqlError::Answer`]: there is no such file, or no position in it. The server that was copied has no binary log.
pub fn position_of_copy(copy: &Path) -> Result<String, MysqlError> {
    let what = "position of the copy";
    let text = INFO_FILES.iter().find_map(|name| std::fs::read_to_string(copy.join(name)).ok());
    let text = text.ok_or_else(|| MysqlError::answer(what, "the copy does not say it"))?;
    // File, offset, position; a position of many domains has no blanks.
    let position = text.split_ascii_whitespace().nth(2).unwrap_or_default().to_owned();
    match gtid::contains(Flavour::Mariadb, &position, &position) {
        Ok(true) if !position.is_empty() => Ok(position),
        Ok(_) | Err(_) => Err(MysqlError::answer(what, format!("{text:?} names none"))),
    }
}

/// The state (`gtid_binlog_state`) of a copy at `position`, of a server that had `state` before it was copied.
///
/// # Errors
/// [`MysqlError::Answer`] if one of the two cannot be read.
pub fn state_of_copy(state: &str, position: &str) -> Result<String, MysqlError> {
    gtid::advance_state(state, position).map_err(|bad| bad_set("state of the copy", &bad))
}

impl Mysql {
    /// Tells a closed MariaDB that runs on a fresh copy its place. It forgets the binary log that it has begun, so it must
    /// have no other. Repeating it is harmless.
    ///
    /// # Errors
    /// [`MysqlError`]; [`MysqlError::Answer`] when the server is not a closed MariaDB or takes another place.
    pub async fn seed(&self, state: &str, position: &str, deadline: Duration) -> Result<(), MysqlError> {
        let what = "seed";
        if self.flavour(deadline).await? != Flavour::Mariadb || !self.is_read_only(deadline).await? {
            return Err(MysqlError::answer(what, "refused: not a closed MariaDB"));
        }
        let sql = format!(
            "RESET MASTER; SET GLOBAL gtid_binlog_state={}; SET GLOBAL gtid_slave_pos={}; \
             SELECT @@global.gtid_binlog_state AS state, @@global.gtid_slave_pos AS position",
            quote(state),
            quote(position)
        );
        let answers = self.control(what, |_| sql, deadline).await?;
        let seen = answers.last().map(|answer| (answer.text("state"), answer.text("position")));
        let (now, at) = seen.unwrap_or_default();
        let same = |one: &str, other: &str| gtid::is_same(Flavour::Mariadb, one, other);
        match (same(&now, state), same(&at, position)) {
            (Ok(true), Ok(true)) => Ok(()),
            _ => Err(MysqlError::answer(
                what,
                format!("it says {now} and {at} instead of {state} and {position}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_the_third_word_of_either_file() {
        let dir = tempfile::tempdir().unwrap();
        position_of_copy(dir.path()).unwrap_err();
        std::fs::write(dir.path().join(INFO_FILES[0]), "bin.000003\t780\n").unwrap();
        position_of_copy(dir.path()).unwrap_err();
        std::fs::write(dir.path().join(INFO_FILES[0]), "bin.000003\t780\t0-7-9,1-8-2\n").unwrap();
        assert_eq!(position_of_copy(dir.path()).unwrap(), "0-7-9,1-8-2");
        std::fs::remove_file(dir.path().join(INFO_FILES[0])).unwrap();
        std::fs::write(dir.path().join(INFO_FILES[1]), "bin.000003 780 0-7-9").unwrap();
        assert_eq!(position_of_copy(dir.path()).unwrap(), "0-7-9");
    }

    #[test]
    fn the_state_is_brought_up_to_the_position_and_not_further() {
        assert_eq!(state_of_copy("0-1-40,0-2-38", "0-1-44").unwrap(), "0-2-38,0-1-44");
        assert_eq!(state_of_copy("0-2-38", "0-1-44,3-1-7").unwrap(), "0-2-38,0-1-44,3-1-7");
        assert_eq!(
            state_of_copy("0-2-44,0-1-40", "0-1-40").unwrap(),
            "0-2-44,0-1-40",
            "nothing is taken back"
        );
    }
}
