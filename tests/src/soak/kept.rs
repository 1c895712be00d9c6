//! A failing round keeps everything that is needed to look at it.
//!
//! ```text
//!  target/soak/failed/SEED-NUMBER/round.json          what was drawn, and what came of it
//!                                 history.jsonl       every write, acknowledgement and ARP answer
//!                                 lab                 where the lab's own directory with the databases was left, if it was
//!                                 baton.toml
//!                                 HOST/*.log, state/  logs, flight recording and Raft's log of each host
//!                                 HOST/*.json         what its agent said at the end: status, explain, history
//!                                 HOST/sessions.json  what its database was doing, and its replication
//! ```

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::summary::Played;
use crate::lab::{DATA, Lab, agents, database, shell};

/// Labs whose databases are left, too: each is some hundred MiB.
const LABS_MAX: u32 = 4;

/// Copies what is needed, and leaves the lab's own directory if there are not too many already. `history`: where the round's
/// own is, unless that of a later round has taken its place.
///
/// # Errors
/// A file cannot be written.
pub fn keep(
    lab: &Lab,
    played: &Played,
    history: Option<&Path>,
    dir: &Path,
    kept_before: u32,
) -> Result<PathBuf> {
    let to = dir.join("failed").join(format!("{}-{}", played.round.seed, played.round.number));
    std::fs::create_dir_all(&to)?;
    std::fs::write(to.join("round.json"), serde_json::to_string_pretty(played)? + "\n")?;
    // A round that came to no end has none.
    if let Some(history) = history.filter(|history| history.exists()) {
        std::fs::copy(history, to.join("history.jsonl"))?;
    }
    std::fs::copy(lab.dir.join("baton.toml"), to.join("baton.toml"))?;
    for port in agents::NODES {
        let (host, to) = (lab.host(port), to.join(port.name()));
        std::fs::create_dir_all(&to)?;
        for entry in std::fs::read_dir(&host.dir)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        let (state, copy) = (host.dir.join("state").display().to_string(), to.display().to_string());
        shell::run("cp", &["-a", &state, &copy])?;
        for verb in ["status", "explain", "history"] {
            let Some(config) = &lab.config else { continue };
            // One that does not answer has no more to say.
            if let Ok(answer) = agents::ask(config, port, &[verb]) {
                std::fs::write(to.join(format!("{verb}.json")), serde_json::to_string_pretty(&answer)?)?;
            }
        }
    }
    for port in DATA {
        let socket = lab.host(port).mysql();
        let asked = ["SHOW FULL PROCESSLIST", "SHOW STATUS LIKE 'Rpl_semi_sync%'", "SHOW SLAVE STATUS"];
        let answers: Vec<_> =
            asked.iter().map(|sql| database::query(&socket, sql).unwrap_or_default()).collect();
        std::fs::write(to.join(port.name()).join("sessions.json"), serde_json::to_string_pretty(&answers)?)?;
    }
    if kept_before < LABS_MAX {
        lab.keep();
        std::fs::write(to.join("lab"), format!("{}\n", lab.dir.display()))?;
    }
    Ok(to)
}
