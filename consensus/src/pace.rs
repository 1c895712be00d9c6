//! When this thread wakes: what is periodic runs on one grid, and openraft looks at its clock only when time can matter.
//!
//! A wake-up costs more than most of what is done in it. openraft's own ticker wakes every 13/64 of a heartbeat, on every
//! node, and nearly always for nothing: a follower that has just heard its leader cannot run out of patience, and a leader
//! has nothing to do between two heartbeats. So the ticker is parked in both cases:
//!
//! ```text
//! leads                       heartbeats are asked for here, one per interval; nothing else hangs on a leader's ticks
//! heard its leader lately     parked: no election time-out can pass before the next look
//! neither                     openraft ticks, as ever
//! ```
//!
//! *Lately* is two heartbeats. A follower looks when they would be over, so its ticker runs again two heartbeats after its
//! leader was heard last, and no time-out is shorter than three (see [`crate::engine::config`]): elections begin when they
//! would have begun.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::Node;
use crate::observe::heartbeat;
use crate::timer::Timer;
use crate::types::Raft;

/// A leader that was heard within this many heartbeats is there. Fewer than the shortest election time-out has.
const LATELY_HEARTBEATS: u32 = 2;

/// A period on the grid that starts at `began`. Periods that are multiples of each other end in the same wake-up.
pub fn every(began: Instant, period: Duration) -> Ends {
    let end = next(began, Instant::now(), period);
    Ends { began, period, timer: Timer::until(end.into_std()) }
}

/// The ends of a period on the grid. One that was missed is left out.
#[derive(Debug)]
pub struct Ends {
    began: Instant,
    period: Duration,
    timer: Timer,
}

impl Ends {
    /// Waits for the next end. Dropping the future loses none.
    pub async fn tick(&mut self) {
        self.timer.wait().await;
        self.timer.reset(next(self.began, Instant::now(), self.period).into_std());
    }
}

/// The first end of a period after `now`.
fn next(began: Instant, now: Instant, period: Duration) -> Instant {
    let passed = now.saturating_duration_since(began).as_nanos() / period.as_nanos().max(1);
    began + period * u32::try_from(passed + 1).unwrap_or(u32::MAX)
}

/// Keeps the heartbeats of a leader and the ticks of everybody else. Ends when Raft is told to stop.
pub async fn keep(node: Arc<Node>, raft: Raft) {
    let lately = heartbeat(&node) * LATELY_HEARTBEATS;
    let mut beat = node.every(heartbeat(&node));
    let mut standing = node.standing.subscribe();
    let mut silence = Timer::until(Instant::now().into_std());
    while !node.is_stopping() {
        let leads = standing.borrow_and_update().is_leader;
        let until = node.leader_heard_at().map(|at| at + lately).filter(|until| *until > Instant::now());
        raft.runtime_config().tick(!leads && until.is_none());
        // An error says that Raft has ended, which is noticed elsewhere.
        if leads && raft.trigger().heartbeat().await.is_err() {
            return;
        }
        if leads {
            node.outbox.open();
        }
        match until.filter(|_| !leads) {
            // A leader that was made one by its predecessor has not ticked before.
            Some(until) => {
                silence.reset(until.into_std());
                tokio::select! {
                    () = silence.wait() => {}
                    made = standing.wait_for(|standing| standing.is_leader) => if made.is_err() { return },
                }
            }
            None => beat.tick().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_end_together_whenever_they_were_begun() {
        let began = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(next(began, began, ms(50)), began + ms(50));
        assert_eq!(next(began, began + ms(130), ms(50)), began + ms(150));
        assert_eq!(next(began, began + ms(150), ms(50)), began + ms(200));
        assert_eq!(next(began, began + ms(215), ms(500)), began + ms(500));
    }
}
