//! Failpoints: kill this process at a chosen instant of a run, once, to rehearse what follows.
//!
//! Set by the environment, `BATON_FAILPOINT=STEP:started:FILE` or `STEP:acted:FILE`; FILE is made when the point is hit,
//! and a point whose file exists is passed. Never set in service.

use std::path::PathBuf;
use std::sync::OnceLock;

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

/// Dies here if the environment says so and has not been obeyed yet.
pub(super) fn pass(step: Step, point: Point) {
    static CHOSEN: OnceLock<Option<(String, String, PathBuf)>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("BATON_FAILPOINT").ok()?;
        let mut parts = text.splitn(3, ':');
        Some((parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?.into()))
    });
    let Some((at_step, at_point, file)) = chosen else { return };
    if at_step == step.as_str() && at_point == point.as_str() && !file.exists() {
        let _ = std::fs::write(file, "hit");
        tracing::error!(%step, point = point.as_str(), "failpoint: this process ends here");
        std::process::abort();
    }
}
