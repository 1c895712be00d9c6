//! Logging and the end of a panicked process.
//!
//! The log goes to standard error through a bounded queue and a thread of its own: a log sink that does not take
//! anything any more (a full disk, a hung journal) must not stop an agent that holds a lease. Lines that find the
//! queue full are dropped and counted; the count is logged when there is room again.
//!
//! A panic anywhere ends the process: an agent that is half dead would go on looking healthy. The hook hands its line
//! to the same queue, waits for it and for the flight recorder for a bounded time, and aborts. What the kernel holds for us ends by
//! itself.

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::recorder::Recorder;

/// Lines that may wait for the log sink. At INFO an agent writes a few lines a second; this bridges minutes, and costs
/// some megabytes at worst.
const QUEUE_LINES: usize = 4_096;

/// For how long an ending process waits for its last lines. Longer would keep a panicked agent alive.
const FLUSH_PATIENCE: Duration = Duration::from_millis(200);

/// The filter when BATON_LOG is not set.
const DEFAULT_FILTER: &str = "info,openraft=warn";

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// BATON_LOG is not a filter.
    #[error("BATON_LOG is not a log filter; write for instance info,openraft=warn")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The writer's thread could not be started.
    #[error("cannot start the log's thread")]
    Thread(#[source] io::Error),
    /// There is a log already.
    #[error("logging was set up twice")]
    Twice,
}

enum Line {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The queue's end that everybody writes to.
#[derive(Clone)]
struct Queue {
    lines: SyncSender<Line>,
}

static QUEUE: OnceLock<Queue> = OnceLock::new();
static RECORDER: OnceLock<Recorder> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Sets up the log and the panic hook of this process. Once.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(format: LogFormat) -> Result<(), TelemetryError> {
    let filter = match std::env::var("BATON_LOG") {
        Ok(text) => EnvFilter::try_new(text).map_err(TelemetryError::Filter)?,
        Err(_) => EnvFilter::new(DEFAULT_FILTER),
    };
    let queue = start(io::stderr()).map_err(TelemetryError::Thread)?;
    QUEUE.set(queue.clone()).map_err(|_| TelemetryError::Twice)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue).with_ansi(false);
    let outcome = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    outcome.map_err(|_| TelemetryError::Twice)?;
    std::panic::set_hook(Box::new(die));
    Ok(())
}

/// A panic also waits for what this recorder has. The first one counts.
pub fn keep_recording(recorder: Recorder) {
    let _ = RECORDER.set(recorder);
}

/// Waits, for a bounded time, until what was logged and recorded so far is written.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_PATIENCE / 2);
    }
    if let Some(recorder) = RECORDER.get() {
        recorder.flush(FLUSH_PATIENCE / 2);
    }
}

/// Lines that were dropped since the start because the log sink did not take them.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn start(sink: impl Write + Send + 'static) -> io::Result<Queue> {
    let (lines, taken) = sync_channel(QUEUE_LINES);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(sink, &taken))?;
    Ok(Queue { lines })
}

fn write_lines(mut sink: impl Write, lines: &Receiver<Line>) {
    let mut dropped_before = 0;
    // Ends when every sender is gone, that is, with the process or with a test.
    while let Ok(line) = lines.recv() {
        match line {
            // A sink that refuses lines is nobody's reason to stop; there is no other place to say so.
            Line::Text(text) => drop(sink.write_all(&text)),
            Line::Flush(done) => {
                drop(sink.flush());
                let _ = done.try_send(());
            }
        }
        let dropped = DROPPED.load(Ordering::Relaxed);
        if dropped > dropped_before {
            drop(writeln!(sink, "WARN log lines dropped: {}", dropped - dropped_before));
            dropped_before = dropped;
        }
    }
}

impl Queue {
    fn push(&self, text: &[u8]) {
        match self.lines.try_send(Line::Text(text.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn flush(&self, patience: Duration) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            // Whether it was in time makes no difference to what follows.
            let _ = wait.recv_timeout(patience);
        }
    }
}

/// One event; the subscriber writes it in one piece.
struct LineWriter(Queue);

impl Write for LineWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter(self.clone())
    }
}

/// The panic hook.
fn die(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let line = format!(
        "ERROR baton: thread {} panicked, the process ends: {info}\n{}\n",
        thread.name().unwrap_or("without a name"),
        Backtrace::capture()
    );
    if let Some(queue) = QUEUE.get() {
        queue.push(line.as_bytes());
    }
    // What it died of is the last line of its flight.
    flush();
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::recorder::{self, Line};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order_before_a_flush_returns() {
        let sink = Sink::default();
        let queue = start(sink.clone()).unwrap();
        queue.push(b"one\n");
        queue.push(b"two\n");
        queue.flush(Duration::from_secs(30));
        assert_eq!(*sink.0.lock().unwrap(), b"one\ntwo\n");
    }

    /// A sink that takes nothing until it is released.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(text.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn stuck_sink_blocks_nobody() {
        let (release, stuck) = sync_channel(0);
        let queue = start(Stuck(stuck)).unwrap();
        let before = dropped_lines();
        for _ in 0..QUEUE_LINES + 10 {
            queue.push(b"line\n");
        }
        assert!(dropped_lines() > before, "the surplus is counted, nobody waited");
        drop(release);
    }

    /// A thread of this process waits for something.
    fn is_asleep(name: &str) -> bool {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok()).any(|stat| {
            let (head, state) = stat.rsplit_once(") ").unwrap();
            head.ends_with(&format!("({name}")) && state.starts_with('S')
        })
    }

    /// Where the child process of the test below records its flight; set in it only.
    const CHILD: &str = "BATON_TEST_PANIC_CHILD";

    /// A panic of any thread ends the whole process, its reason is in the log, and what came before in the recording.
    #[test]
    fn panic_of_one_thread_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        if let Some(flight) = std::env::var_os(CHILD) {
            init(LogFormat::Text).unwrap();
            let recorder = Recorder::start(Path::new(&flight), &"header").unwrap();
            assert!(recorder.flush(Duration::from_secs(30)));
            while !is_asleep("recorder") {
                std::thread::yield_now();
            }
            recorder.record(&7);
            keep_recording(recorder);
            let half_dead = std::thread::Builder::new().name("lease".to_owned()).spawn(|| panic!("planted"));
            let _ = half_dead.unwrap().join();
            std::process::exit(0);
        }
        let flight = tempfile::tempdir().unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "telemetry::tests::panic_of_one_thread_ends_the_process", "--nocapture"])
            .env(CHILD, flight.path())
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{log}");
        assert!(log.contains("thread lease panicked") && log.contains("planted"), "{log}");
        let lines: Vec<Line<u64>> = recorder::read(flight.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(lines.last(), Some(&Line::Input(7)), "what came right before is recorded: {lines:?}");
    }
}
