//! What the writer's connections hide: how long nobody could connect anew, and how long nobody could read.
//!
//! A pool that still has a connection writes on while a new client is refused, and the other way round. Both are asked ten
//! times a second through the virtual IP; a gap lasts from one success to the next, however many attempts lie between.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::task::JoinHandle;

use super::meter::Seat;

/// Time between two attempts of a kind.
const EVERY: Duration = Duration::from_millis(100);
/// An attempt that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(1);

/// The longest time between two successes.
#[derive(Debug, Clone, Copy)]
struct Longest {
    last: Instant,
    gap: Duration,
    any: bool,
}

impl Longest {
    fn succeeded(&mut self, at: Instant) {
        if self.any {
            self.gap = self.gap.max(at.saturating_duration_since(self.last));
        }
        (self.last, self.any) = (at, true);
    }

    /// The gap that has not ended counts until now; `None`: nothing ever succeeded.
    fn so_far(&self, now: Instant) -> Option<Duration> {
        self.any.then(|| self.gap.max(now.saturating_duration_since(self.last)))
    }
}

type Shared = Arc<Mutex<Longest>>;

/// Both probes; they stop when this is dropped.
#[derive(Debug)]
pub struct Gaps {
    connects: Shared,
    reads: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl Gaps {
    /// Begins to ask; `None`: there is no MySQL.
    #[must_use]
    pub fn start(seat: &Seat) -> Option<Self> {
        let fresh =
            || Arc::new(Mutex::new(Longest { last: Instant::now(), gap: Duration::ZERO, any: false }));
        let (connects, reads) = (fresh(), fresh());
        let dial = seat.dialler()?;
        let tasks = vec![
            tokio::spawn(connect(dial.clone(), Arc::clone(&connects))),
            tokio::spawn(read(dial, Arc::clone(&reads))),
        ];
        Some(Self { connects, reads, tasks })
    }

    /// What was seen, for people.
    #[must_use]
    pub fn words(&self) -> String {
        let now = Instant::now();
        let word = |shared: &Shared| {
            let longest = shared.lock().unwrap_or_else(PoisonError::into_inner).so_far(now);
            longest.map_or_else(|| "never".to_owned(), |gap| format!("{} ms", gap.as_millis()))
        };
        format!(
            "mysql: longest time without a new connection {}, without a read {}",
            word(&self.connects),
            word(&self.reads)
        )
    }
}

impl Drop for Gaps {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn note(shared: &Shared) {
    shared.lock().unwrap_or_else(PoisonError::into_inner).succeeded(Instant::now());
}

/// Each attempt on its own: one that hangs does not keep the next from being made.
async fn connect(dial: mysql_async::Opts, shared: Shared) {
    loop {
        let (dial, shared) = (dial.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            if let Ok(Ok(conn)) = tokio::time::timeout(LIMIT, Conn::new(dial)).await {
                note(&shared);
                let _ = tokio::time::timeout(LIMIT, conn.disconnect()).await;
            }
        });
        tokio::time::sleep(EVERY).await;
    }
}

/// One connection that is kept until it fails.
async fn read(dial: mysql_async::Opts, shared: Shared) {
    let mut kept: Option<Conn> = None;
    loop {
        let attempt = async {
            let mut conn = match kept.take() {
                Some(conn) => conn,
                None => Conn::new(dial.clone()).await.ok()?,
            };
            conn.query_first::<u64, _>("SELECT 1").await.ok()??;
            Some(conn)
        };
        if let Ok(Some(conn)) = tokio::time::timeout(LIMIT, attempt).await {
            note(&shared);
            kept = Some(conn);
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_between_two_successes_and_lasts_until_now_if_it_has_not_ended() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut longest = Longest { last: start, gap: Duration::ZERO, any: false };
        assert_eq!(longest.so_far(at(900)), None);
        longest.succeeded(at(1_000));
        longest.succeeded(at(1_100));
        longest.succeeded(at(3_000));
        longest.succeeded(at(3_100));
        assert_eq!(longest.so_far(at(3_200)), Some(Duration::from_millis(1_900)));
        assert_eq!(longest.so_far(at(9_100)), Some(Duration::from_millis(6_000)));
    }
}
