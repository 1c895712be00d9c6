//! Failpoints: kill this process, hold it, or let it fail, at a chosen instant of a run, to rehearse what follows. Once, but for
//! `fail-always`.
//!
//! Set by the environment, `BATON_FAILPOINT=FILE`; never set in service. What is to happen stands in FILE, which may be
//! written, replaced or removed at any time, by renaming another file to it:
//!
//! | FILE says | what happens |
//! |---|---|
//! | `STEP:started:kill`, `STEP:acted:kill` | FILE says `hit`, the process dies |
//! | `STEP:started:hold`, `STEP:acted:hold` | FILE says `hit`, the step waits until FILE says something else or is gone |
//! | `STEP:started:fail`, `STEP:acted:fail` | FILE says `hit`, the step fails |
//! | `STEP:started:fail-always`, `STEP:acted:fail-always` | the step fails, at every attempt, until FILE says something else or is gone |
//! | `driver:tick:hold` | FILE says `hit`, and the driver hangs until FILE says something else or is gone |
//!
//! A FILE that says `hit` has been obeyed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use baton_runbooks::plan::Step;

/// Where in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// Its `Started` is applied, nothing is done yet.
    Started,
    /// It is done, its outcome is not proposed yet.
    Acted,
}

impl Point {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Acted => "acted",
        }
    }
}

/// How often a held task looks whether it may go on.
const LOOK: Duration = Duration::from_millis(10);

/// What FILE says once it has been obeyed.
const HIT: &str = "hit";

/// The file of this process, if it has one.
fn file() -> Option<&'static Path> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    FILE.get_or_init(|| std::env::var_os("BATON_FAILPOINT").map(PathBuf::from)).as_deref()
}

fn said(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

/// What is to be done at a place and moment.
fn told(file: &Path, place: &str, moment: &str) -> Option<String> {
    let said = said(file);
    let mut parts = said.splitn(3, ':');
    let is_here = parts.next()? == place && parts.next()? == moment;
    parts.next().filter(|_| is_here).map(str::to_owned)
}

/// Dies, waits or fails here if the file says so.
pub(super) async fn pass(step: Step, point: Point) -> anyhow::Result<()> {
    let Some(file) = file() else { return Ok(()) };
    let Some(action) = told(file, step.as_str(), point.as_str()) else { return Ok(()) };
    if action == "fail-always" {
        anyhow::bail!("failpoint: it fails here, always");
    }
    let _ = std::fs::write(file, HIT);
    if action == "fail" {
        anyhow::bail!("failpoint: it fails here");
    }
    if action == "kill" {
        tracing::error!(%step, point = point.as_str(), "failpoint: this process ends here");
        std::process::abort();
    }
    tracing::error!(%step, point = point.as_str(), "failpoint: this step is held");
    while said(file) == HIT {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Blocks the driver's thread, as a hang would, if the file says so.
#[expect(clippy::disallowed_methods, reason = "a hang is what is rehearsed")]
pub(in crate::agent) fn hang_if_told() {
    let Some(file) = file().filter(|file| told(file, "driver", "tick").is_some()) else { return };
    tracing::error!("failpoint: the driver hangs");
    let _ = std::fs::write(file, HIT);
    while said(file) == HIT {
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_speaks_of_one_place_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("failpoint");
        assert_eq!(told(&file, "open_ports", "acted"), None, "no file, no order");
        std::fs::write(&file, "open_ports:acted:kill\n").unwrap();
        assert_eq!(told(&file, "open_ports", "acted").as_deref(), Some("kill"));
        assert_eq!(told(&file, "open_ports", "started"), None);
        assert_eq!(told(&file, "hold_vip", "acted"), None);
        std::fs::write(&file, HIT).unwrap();
        assert_eq!(told(&file, "open_ports", "acted"), None, "it has been obeyed");
    }
}
