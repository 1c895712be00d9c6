//! How the process ends: at a signal, or because the agent cannot start.

use std::time::Duration;

use baton_consensus::StartError;
use tokio::signal::unix::{SignalKind, signal};

/// The log on the disk is newer than this agent: the process stays this long before it ends. Its supervisor starts it anew at once,
/// which an agent that died needs; but here every start reads and checks the whole log, and only an upgrade changes what comes of
/// it. Shorter than systemd waits for a start (90 s).
const LINGER_NEWER: Duration = Duration::from_secs(30);

/// How long the process stays before it ends for this error; `None`: it ends at once.
pub(super) fn linger(error: &anyhow::Error) -> Option<Duration> {
    match error.downcast_ref::<StartError>()? {
        StartError::Newer { .. } => Some(LINGER_NEWER),
        StartError::Directory { .. }
        | StartError::InUse { .. }
        | StartError::Foreign { .. }
        | StartError::Open { .. }
        | StartError::NotAMember { .. }
        | StartError::Timing { .. }
        | StartError::Listen { .. }
        | StartError::Thread { .. } => None,
    }
}

/// Ends after this time, or at SIGTERM or SIGINT.
pub(super) async fn stopped_within(patience: Duration) {
    match stop_signal() {
        Ok(stopped) => {
            let _ = tokio::time::timeout(patience, stopped).await;
        }
        // They end the process anyway.
        Err(error) => {
            tracing::warn!(%error, "cannot listen for signals");
            tokio::time::sleep(patience).await;
        }
    }
}

/// Ends at the first SIGTERM or SIGINT.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use baton_consensus::Newer;

    use super::*;

    #[test]
    fn the_process_stays_only_for_a_log_that_is_newer() {
        let newer = Newer { name: "frobnicate".to_owned(), version: "0.0.1".to_owned() };
        let newer = StartError::Newer { file: "raft.redb".into(), newer };
        let error = anyhow::Error::from(newer).context("whatever is said about it");
        assert_eq!(linger(&error), Some(LINGER_NEWER));
        let others = [
            StartError::InUse { file: "raft.redb".into() },
            StartError::NotAMember { me: "db1".into() },
            StartError::Timing { reason: "too short".to_owned() },
        ];
        for other in others {
            assert_eq!(linger(&anyhow::Error::from(other)), None);
        }
        assert_eq!(linger(&anyhow::anyhow!("no certificate")), None);
    }

    /// Without the wait's own listener the signal would end this process.
    #[tokio::test]
    async fn a_signal_ends_the_wait() {
        let waited = async {
            tokio::join!(biased; stopped_within(Duration::from_secs(3600)), async {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
            })
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), waited).await.is_ok());
    }
}
