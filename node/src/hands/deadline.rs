//! Deadlines for work on a database connection.
//!
//! A connection whose query was given up is in the middle of the protocol: used again, it returns the answer of
//! the abandoned query. So the work owns its connection, and both go together. The driver's connections also
//! try to say good-bye when they are dropped *inside* the runtime, which against a frozen server leaves a task
//! and a socket behind for each attempt, for as long as the server is frozen. Abandoned work is therefore
//! dropped on a thread of its own, outside the runtime, where dropping just closes the socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// The deadline passed before the work ended. The work was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {after_ms} ms")]
pub struct Elapsed {
    /// The deadline, in milliseconds.
    pub after_ms: u64,
}

/// Abandoned pieces of work that may wait for the dropping thread; more are dropped where they are.
/// A piece is dropped within microseconds, so that the queue fills only when the thread gets no processor.
const ABANDONED_MAX: usize = 256;

/// Runs `work` for at most `limit`. Work that does not end, or whose caller goes away, is dropped outside the runtime.
///
/// # Errors
/// [`Elapsed`] when the limit passed first.
pub async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Elapsed> {
    let mut guard = Abandon { work: Some(Box::pin(work)) };
    let Some(work) = guard.work.as_mut() else {
        return Err(Elapsed { after_ms: 0 });
    };
    match tokio::time::timeout(limit, work.as_mut()).await {
        Ok(out) => {
            guard.work = None;
            Ok(out)
        }
        Err(_) => Err(Elapsed { after_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }),
    }
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct Abandon<T: 'static> {
    work: Option<Work<T>>,
}

impl<T: 'static> Drop for Abandon<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            abandon(Box::new(work));
        }
    }
}

/// Something to be dropped elsewhere.
trait Rest: Send {}
impl<T: 'static> Rest for Work<T> {}

fn abandon(rest: Box<dyn Rest>) {
    static DROPPER: OnceLock<Option<SyncSender<Box<dyn Rest>>>> = OnceLock::new();
    let dropper = DROPPER.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Box<dyn Rest>>(ABANDONED_MAX);
        let thread = std::thread::Builder::new().name("baton-abandoned".to_owned());
        thread.spawn(move || receiver.into_iter().for_each(drop)).ok().map(|_| sender)
    });
    if let Some(sender) = dropper {
        // A full queue hands the work back, and it is dropped here: not nice against a frozen server, never wrong.
        drop(sender.try_send(rest));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Tell(mpsc::SyncSender<(bool, Option<String>)>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let inside = tokio::runtime::Handle::try_current().is_ok();
            let name = std::thread::current().name().map(str::to_owned);
            let _ = self.0.send((inside, name));
        }
    }

    #[tokio::test]
    async fn abandoned_work_is_dropped_outside_the_runtime() {
        let (sender, receiver) = mpsc::sync_channel(1);
        let tell = Tell(sender);
        let work = async move {
            std::future::pending::<()>().await;
            drop(tell);
        };
        let out = within(Duration::from_millis(5), work).await;
        assert_eq!(out, Err(Elapsed { after_ms: 5 }));
        let (inside, name) = receiver.recv_timeout(Duration::from_secs(10)).expect("dropped");
        assert!(!inside, "dropped inside the runtime, on {name:?}");
    }

    #[tokio::test]
    async fn work_of_a_caller_that_went_away_is_dropped_outside_too() {
        let (sender, receiver) = mpsc::sync_channel(1);
        let tell = Tell(sender);
        let call = within(Duration::from_secs(60), async move {
            std::future::pending::<()>().await;
            drop(tell);
        });
        let _ = tokio::time::timeout(Duration::from_millis(5), call).await;
        let (inside, _) = receiver.recv_timeout(Duration::from_secs(10)).expect("dropped");
        assert!(!inside);
    }

    #[tokio::test]
    async fn finished_work_gives_its_result() {
        assert_eq!(within(Duration::from_secs(10), async { 7 }).await, Ok(7));
    }
}
