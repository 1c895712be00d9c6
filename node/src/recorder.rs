//! The flight recorder: every input of the core, in order, as JSON lines in a bounded ring of files.
//!
//! ```text
//!  driver ──record()── bounded queue ──▶ thread "recorder" ──▶ STATE/flight/0000000007.jsonl   at most 4 files of 8 MiB
//! ```
//!
//! Recording never blocks the driver, and what comes with every beat wakes nobody: the thread looks at the queue by
//! itself, since a wake-up for each input would cost more than its line. What led to something is written at once, with
//! what came before it, and so is everything when the process panics or ends. An input that finds the queue full is
//! dropped, counted, and the count stands in the recording at that place. Nothing is synced: what the kernel has not
//! written when the host loses power is missing, which a recording may be. A torn last line is expected and skipped by
//! the reader.
//!
//! A file begins with the header of the process that writes it, so that each file can be replayed by itself.

mod ring;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::Thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use ring::Ring;
pub use ring::files;

/// Inputs that may wait for the disk. At some hundred inputs a second it bridges a stall of several seconds.
const QUEUE_INPUTS: usize = 2_048;

/// How often the thread takes what is in the queue if nothing came of it. A crash of the agent loses at most what came since;
/// the kernel keeps the rest.
const EVERY: Duration = Duration::from_secs(1);

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A file is closed when it is longer.
    pub file_bytes: u64,
    /// Older files are removed.
    pub files: usize,
}

/// Four files of 8 MiB: about an hour of a running cluster, small enough to attach to a report.
const LIMITS: Limits = Limits { file_bytes: 8 * 1024 * 1024, files: 4 };

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line<T> {
    /// A file begins.
    Start {
        /// The same process went on from the file before; false: the agent was started here.
        resumed: bool,
        /// What the core was made from.
        header: serde_json::Value,
    },
    /// An input of the core.
    Input(T),
    /// Inputs that are missing here because the disk was too slow.
    Dropped(u64),
}

/// Why there is no recorder.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The directory cannot be used.
    #[error("cannot use {} for the flight recorder", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The header cannot be written as JSON.
    #[error("cannot write the recording's header as JSON")]
    Header(#[source] serde_json::Error),
    /// The thread could not be started.
    #[error("cannot start the recorder's thread")]
    Thread(#[source] io::Error),
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The driver's end. Cheap to clone; the recording ends with the last one.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    writer: Thread,
}

impl Recorder {
    /// Records into `dir`, which is made if it is missing. `header` is what the core was made from.
    ///
    /// # Errors
    /// See [`RecorderError`].
    pub fn start(dir: &Path, header: &impl Serialize) -> Result<Self, RecorderError> {
        Self::start_with(dir, header, LIMITS, QUEUE_INPUTS, EVERY)
    }

    fn start_with(
        dir: &Path,
        header: &impl Serialize,
        limits: Limits,
        queue: usize,
        every: Duration,
    ) -> Result<Self, RecorderError> {
        let header = serde_json::to_value(header).map_err(RecorderError::Header)?;
        let ring = Ring::open(dir, header, limits)
            .map_err(|source| RecorderError::Directory { dir: dir.to_owned(), source })?;
        let (queue, messages) = sync_channel(queue);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let writer = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || write_lines(ring, &messages, &counter, every))
            .map_err(RecorderError::Thread)?;
        Ok(Self { queue, dropped, writer: writer.thread().clone() })
    }

    /// Notes one input. Never blocks.
    pub fn record(&self, input: &impl Serialize) {
        // An input that cannot be written as JSON is missing from the recording just like one that found no room.
        let line = serde_json::to_vec(&Line::Input(input)).ok();
        let sent = line.map(|line| self.queue.try_send(Message::Line(line)));
        match sent {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Something came of what was recorded last: it is written now.
    pub fn hasten(&self) {
        self.writer.unpark();
    }

    /// Inputs that are missing from the recording since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits, at most `patience`, until what was recorded so far is in the file. True if it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        let asked = self.queue.try_send(Message::Flush(done)).is_ok();
        self.writer.unpark();
        asked && wait.recv_timeout(patience).is_ok()
    }
}

/// The recorder's thread. It ends soon after the last [`Recorder`].
fn write_lines(mut ring: Ring, messages: &Receiver<Message>, dropped: &AtomicU64, every: Duration) {
    let mut noted = 0;
    let mut was_failing = false;
    loop {
        let outcome = match messages.try_recv() {
            Ok(Message::Line(line)) => ring.append(&line),
            Ok(Message::Flush(done)) => {
                let flushed = ring.flush();
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
                flushed
            }
            Err(TryRecvError::Empty) => {
                let flushed = ring.flush();
                std::thread::park_timeout(every);
                flushed
            }
            Err(TryRecvError::Disconnected) => {
                drop(ring.flush());
                return;
            }
        };
        match outcome {
            Ok(()) => was_failing = false,
            Err(error) => {
                dropped.fetch_add(1, Ordering::Relaxed);
                if !was_failing {
                    tracing::warn!(%error, "the flight recorder cannot write; inputs are missing from the recording");
                    was_failing = true;
                }
            }
        }
        let missing = dropped.load(Ordering::Relaxed);
        if missing > noted && !was_failing {
            let line = serde_json::to_vec(&Line::<()>::Dropped(missing - noted)).unwrap_or_default();
            if ring.append(&line).is_ok() {
                noted = missing;
            }
        }
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no recording in the directory.
    #[error("{} has no recording (no .jsonl file)", dir.display())]
    Empty {
        /// The directory.
        dir: PathBuf,
    },
    /// A line in the middle cannot be read.
    #[error("{}:{line}: this is not a line of a recording, or one of another version", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads a recording: one file, or all files of a directory in order. A torn last line of a file is left out.
///
/// # Errors
/// The path cannot be read. Errors within come from the iterator, which goes on after them.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Lines<T>, ReadError> {
    let failed = |source| ReadError::File { path: path.to_owned(), source };
    let mut left = if path.is_dir() { files(path).map_err(failed)? } else { vec![path.to_owned()] };
    if left.is_empty() {
        return Err(ReadError::Empty { dir: path.to_owned() });
    }
    left.reverse();
    Ok(Lines { left, open: None, of: PhantomData })
}

struct Open {
    path: PathBuf,
    text: BufReader<File>,
    line: u64,
}

/// The lines of a recording.
pub struct Lines<T> {
    /// Files still to be read, next one last.
    left: Vec<PathBuf>,
    open: Option<Open>,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned> Iterator for Lines<T> {
    type Item = Result<Line<T>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(open) = &mut self.open else {
                let path = self.left.pop()?;
                match File::open(&path) {
                    Ok(file) => self.open = Some(Open { path, text: BufReader::new(file), line: 0 }),
                    Err(source) => return Some(Err(ReadError::File { path, source })),
                }
                continue;
            };
            match open.next_line() {
                Some(item) => return Some(item),
                None => self.open = None,
            }
        }
    }
}

impl Open {
    fn next_line<T: DeserializeOwned>(&mut self) -> Option<Result<Line<T>, ReadError>> {
        loop {
            let mut text = Vec::new();
            self.line += 1;
            match self.text.read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(_) if text == b"\n" => {}
                Ok(_) => match serde_json::from_slice(&text) {
                    Ok(line) => return Some(Ok(line)),
                    // Without its newline the line was torn by the end of a process or of the power.
                    Err(_) if text.last() != Some(&b'\n') => return None,
                    Err(source) => {
                        return Some(Err(ReadError::Line {
                            path: self.path.clone(),
                            line: self.line,
                            source,
                        }));
                    }
                },
                Err(source) => {
                    return Some(Err(ReadError::File { path: self.path.clone(), source }));
                }
            }
        }
    }
}
