//! The other side: what comes over the link is unpacked into a directory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_consensus::Tls;
use baton_consensus::transport::{Channel, DialError, Link, LinkError, dial};
use baton_runbooks::model::{Epoch, NodeId};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};

use super::give::last_words;
use super::{DATA, DIAL_DEADLINE, END, Ended, GREET_DEADLINE, Verdict, Wanted};

/// Without a frame for this long the sender is given up. It is silent while it waits for locks of its database.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Bytes that have come in. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// So many.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Told by somebody else who counts.
    pub(crate) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }
}

/// What to fetch, from whom, and where to.
pub(crate) struct Fetch {
    pub(crate) tls: Tls,
    pub(crate) from: NodeId,
    pub(crate) address: SocketAddr,
    /// The holder's epoch.
    pub(crate) epoch: Epoch,
    /// An empty directory.
    pub(crate) into: PathBuf,
    pub(crate) progress: Progress,
}

/// There is no whole copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The holder cannot be reached.
    #[error("no link for the copy")]
    Dial(#[source] DialError),
    /// The link broke on the way.
    #[error("the link broke after {bytes} bytes")]
    Link {
        /// How far it was.
        bytes: u64,
        /// Why; `None`: it was closed.
        #[source]
        source: Option<LinkError>,
    },
    /// Nothing came any more.
    #[error("nothing came for {} s, after {bytes} bytes", SILENCE_MAX.as_secs())]
    Silent {
        /// How far it was.
        bytes: u64,
    },
    /// The holder refused.
    #[error("{from} refused: {reason}")]
    Refused {
        /// The holder.
        from: NodeId,
        /// Its words.
        reason: String,
    },
    /// The copy failed at the holder.
    #[error("{from}: {failure}")]
    Giver {
        /// The holder.
        from: NodeId,
        /// Its words.
        failure: String,
    },
    /// It could not be unpacked.
    #[error("mbstream: {words}")]
    Unpack {
        /// What it, or the system, said.
        words: String,
    },
    /// The thread of copies has ended.
    #[error("the thread of copies has ended; restart the agent")]
    Ended,
}

impl Fetch {
    /// Fetches. Dropping it ends the link and the unpacking, and leaves what was unpacked.
    pub(super) async fn run(self) -> Result<(), FetchError> {
        let dialled = dial(&self.tls, &self.from, self.address, Channel::Copy, DIAL_DEADLINE).await;
        let mut link = dialled.map_err(FetchError::Dial)?;
        self.ask(&mut link).await?;
        let unpack = |words: String| FetchError::Unpack { words };
        let mut child = Command::new("mbstream")
            .arg("-x")
            .arg("-C")
            .arg(&self.into)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unpack(format!("{error}; install the package mariadb-backup")))?;
        let words = tokio::spawn(last_words(child.stderr.take()));
        let stdin = child.stdin.take().ok_or_else(|| unpack("no input".to_owned()))?;
        let poured = self.pour(&mut link, stdin).await;
        let status = child.wait().await.map_err(|error| unpack(error.to_string()))?;
        let words = words.await.unwrap_or_default();
        match poured {
            // Its own words say more than the broken pipe.
            Err(FetchError::Unpack { .. }) if !words.is_empty() => Err(unpack(words)),
            Err(error) => Err(error),
            Ok(()) if status.success() => Ok(()),
            Ok(()) => Err(unpack(format!("ended with {status}: {words}"))),
        }
    }

    fn broken(&self, source: Option<LinkError>) -> FetchError {
        FetchError::Link { bytes: self.progress.bytes(), source }
    }

    async fn ask(&self, link: &mut Link) -> Result<(), FetchError> {
        let wanted = serde_json::to_vec(&Wanted { epoch: self.epoch }).expect("a question is plain data");
        link.send(wanted.into()).await.map_err(|error| self.broken(Some(error)))?;
        let answer = tokio::time::timeout(GREET_DEADLINE, link.recv()).await;
        let answer = answer.map_err(|_| FetchError::Silent { bytes: 0 })?;
        let answer = answer.map_err(|error| self.broken(Some(error)))?.ok_or_else(|| self.broken(None))?;
        match serde_json::from_slice(&answer) {
            Ok(Verdict::Coming) => Ok(()),
            Ok(Verdict::Refused { reason }) => Err(FetchError::Refused { from: self.from.clone(), reason }),
            Err(error) => Err(FetchError::Refused { from: self.from.clone(), reason: error.to_string() }),
        }
    }

    /// Until the last frame. The input is closed at the end, whatever came of it.
    async fn pour(&self, link: &mut Link, mut stdin: ChildStdin) -> Result<(), FetchError> {
        let unpack = |error: std::io::Error| FetchError::Unpack { words: error.to_string() };
        loop {
            let frame = tokio::time::timeout(SILENCE_MAX, link.recv()).await;
            let frame = frame.map_err(|_| FetchError::Silent { bytes: self.progress.bytes() })?;
            let frame = frame.map_err(|error| self.broken(Some(error)))?.ok_or_else(|| self.broken(None))?;
            match frame.split_first() {
                Some((&DATA, data)) => {
                    stdin.write_all(data).await.map_err(unpack)?;
                    self.progress.add(data.len());
                }
                Some((&END, end)) => {
                    return match serde_json::from_slice(end) {
                        Ok(Ended { failure: None }) => stdin.shutdown().await.map_err(unpack),
                        Ok(Ended { failure: Some(failure) }) => {
                            Err(FetchError::Giver { from: self.from.clone(), failure })
                        }
                        Err(error) => {
                            Err(FetchError::Giver { from: self.from.clone(), failure: error.to_string() })
                        }
                    };
                }
                Some(_) | None => return Err(self.broken(None)),
            }
        }
    }
}
