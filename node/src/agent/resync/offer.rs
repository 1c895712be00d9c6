//! The holder's part of a preflight: what a copy of it would be, and whether it can be made.

use std::path::PathBuf;
use std::time::Duration;

use baton_runbooks::model::{Epoch, NodeId};
use baton_runbooks::observe::Flavour;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::super::Context;
use super::{Answered, STATEMENT};
use crate::chain::chain;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::datadir::{DataDir, bytes_in};

/// The program that makes a copy, and unpacks and prepares one.
pub(super) const PROGRAM: &str = "mariadb-backup";
/// A program says its version at once.
const VERSION_DEADLINE: Duration = Duration::from_secs(2);

/// What a holder offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    /// Family of its server.
    pub(super) flavour: Flavour,
    /// Version of its server.
    pub(super) version: String,
    /// About so many bytes are copied.
    pub(super) bytes: u64,
    /// What it has executed, before the copy is begun.
    pub(super) state: String,
    /// The verdict on its database, as code.
    pub(super) verdict: String,
    /// What makes the copy there: the version of its `mariadb-backup`, its clone plugin; or why there is none.
    pub(super) program: Result<String, String>,
}

/// This node's offer, if it holds the baton in `epoch` and serves.
pub(super) async fn offer(context: &Context, epoch: Epoch) -> Answered<Offer> {
    let me = &context.config.node;
    let ledger = context.consensus.committed().borrow().ledger.clone();
    if ledger.holder.as_ref() != Some(me) || ledger.epoch != epoch {
        return Err(format!("{me} does not hold the baton in epoch {epoch}"));
    }
    let held = context.lease.view().borrow().facts.held;
    if held.is_none_or(|(of, _)| of != epoch) {
        return Err(format!("{me} has no valid lease"));
    }
    let (Some(mysql), Some(config)) = (&context.hands.mysql, &context.config.mysql) else {
        return Err(format!("{me} has no database"));
    };
    let facts = mysql.facts(STATEMENT).await.map_err(|error| chain(&error))?;
    if facts.read_only {
        return Err(format!("the database of {me} is read-only"));
    }
    let dir = DataDir::new(&config.data_dir).path().to_owned();
    let bytes = tokio::task::spawn_blocking(move || copied_bytes(&dir)).await.unwrap_or(0);
    let program = match facts.flavour {
        Flavour::Mariadb => version_of(PROGRAM).await,
        Flavour::Mysql => clone_plugin(mysql, me).await,
    };
    Ok(Offer {
        flavour: facts.flavour,
        version: facts.version,
        bytes,
        state: facts.executed,
        verdict: "answers and is writable".to_owned(),
        program,
    })
}

/// The clone plugin of a MySQL, or how to get it.
pub(super) async fn clone_plugin(mysql: &Mysql, node: &NodeId) -> Result<String, String> {
    match mysql.has_clone_plugin(STATEMENT).await {
        Ok(true) => Ok("clone plugin".to_owned()),
        Ok(false) => Err(format!(
            "the MySQL of {node} has no clone plugin; write plugin_load_add = mysql_clone.so into its configuration, and \
             load it now with INSTALL PLUGIN or by a restart"
        )),
        Err(error) => {
            Err(format!("the MySQL of {node} was not asked for its clone plugin: {}", chain(&error)))
        }
    }
}

/// Everything but the logs of the server, which are not copied: tables lie in directories, the rest has known names.
fn copied_bytes(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |path: PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => bytes_in(&path),
            Ok(found) if ["ib", "undo", "aria", "mysql.ibd"].iter().any(|start| name.starts_with(start)) => {
                found.len()
            }
            Ok(_) | Err(_) => 0,
        }
    };
    entries.flatten().map(|entry| size(entry.path())).fold(0, u64::saturating_add)
}

/// What a program says of its version.
pub(super) async fn version_of(program: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version").kill_on_drop(true).stdin(std::process::Stdio::null());
    match tokio::time::timeout(VERSION_DEADLINE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            // Some versions say it on the one, some on the other.
            let text = [output.stdout, output.stderr].concat();
            Ok(String::from_utf8_lossy(&text).trim().to_owned())
        }
        Ok(Ok(output)) => Err(format!("{program} --version ended with {}", output.status)),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} --version gave no answer")),
    }
}

/// The series of a server or program: the first two numbers in what it says of its version.
pub(super) fn series(version: &str) -> Option<String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    version.split([' ', '-']).find_map(|word| {
        let mut parts = word.split('.');
        let (major, minor) = (parts.next()?, parts.next()?);
        (is_number(major) && is_number(minor)).then(|| format!("{major}.{minor}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_in_what_servers_and_programs_say() {
        let program = "mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)";
        assert_eq!(series(program).as_deref(), Some("10.11"));
        assert_eq!(series("11.8.6-MariaDB-log").as_deref(), Some("11.8"));
        assert_eq!(series("no version"), None);
    }
}
