//! Failpoints: kill this process, hold it, or let it fail, at a chosen instant of a run, once, to rehearse what follows.
//!
//! Set by the environment, `BATON_FAILPOINT=WHERE:WHEN:DO:FILE`; never set in service.
//!
//! | WHERE | WHEN | DO | what happens |
//! |---|---|---|---|
//! | a step | `started`, `acted` | `kill` | FILE is made, the process dies |
//! | a step | `started`, `acted` | `hold` | FILE is made, the step waits until FILE says `go` |
//! | a step | `started`, `acted` | `fail` | FILE is made, the step fails |
//! | `driver` | `tick` | `hold` | when somebody makes FILE the driver writes into it, and hangs until FILE is gone |
//!
//! A point of a step whose FILE exists is passed.

use std::path::PathBuf;
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

struct Chosen {
    place: String,
    moment: String,
    action: String,
    file: PathBuf,
}

impl Chosen {
    fn is(&self, place: &str, moment: &str) -> bool {
        self.place == place && self.moment == moment
    }

    fn says(&self, word: &str) -> bool {
        std::fs::read_to_string(&self.file).is_ok_and(|text| text.trim() == word)
    }
}

fn chosen() -> Option<&'static Chosen> {
    static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("BATON_FAILPOINT").ok()?;
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (place, moment, action) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Chosen { place, moment, action, file: parts.next()?.into() })
    });
    chosen.as_ref()
}

/// Dies, waits or fails here if the environment says so and has not been obeyed yet.
pub(super) async fn pass(step: Step, point: Point) -> anyhow::Result<()> {
    let here = |chosen: &&Chosen| chosen.is(step.as_str(), point.as_str()) && !chosen.file.exists();
    let Some(chosen) = chosen().filter(here) else { return Ok(()) };
    let _ = std::fs::write(&chosen.file, "hit");
    if chosen.action == "fail" {
        anyhow::bail!("failpoint: it fails here");
    }
    if chosen.action == "kill" {
        tracing::error!(%step, point = point.as_str(), "failpoint: this process ends here");
        std::process::abort();
    }
    tracing::error!(%step, point = point.as_str(), "failpoint: this step is held");
    while !chosen.says("go") {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Blocks the driver's thread, as a hang would, for as long as the file of `driver:tick:hold` is there.
#[expect(clippy::disallowed_methods, reason = "a hang is what is rehearsed")]
pub(in crate::agent) fn hang_if_told() {
    let Some(chosen) = chosen().filter(|chosen| chosen.is("driver", "tick") && chosen.file.exists()) else {
        return;
    };
    tracing::error!("failpoint: the driver hangs");
    let _ = std::fs::write(&chosen.file, "hit");
    while chosen.file.exists() {
        std::thread::sleep(LOOK);
    }
}
