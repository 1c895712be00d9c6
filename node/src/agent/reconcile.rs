//! The reconciler: makes this node what the wish says, again and again, whatever state it finds.
//!
//! Four tasks, so that a hung database delays no door: doors (lease thread, VIP, clients), MySQL, Redis, services. Each
//! looks at the newest wish when it changes and on a slow tick. Closing the doors never waits for anything else; opening
//! the ports is the last thing that the MySQL task does, under the number of the wish that it acts for. What a task saw
//! and what it was told are both older than what it does next: before an effect that opens something it looks again.
//!
//! An agent that starts on the holder asks for its lease before it closes anything: what an earlier agent left open ends
//! with its tickets, and a restart within the lease must not cost the clients their connections.

mod doors;
mod mysql;
pub(super) mod redis;
mod services;

use std::time::{Duration, Instant};

use baton_runbooks::decide::local::Role;

use super::Context;
use super::clock::Clock;
use super::driver::{Inputs, Numbered, Wishes};
use super::senses::Seen;

/// What was not achieved is tried again after this.
const PERIOD: Duration = Duration::from_millis(300);

/// What was found as it should be is looked at again after this: it costs orders to the lease thread and statements on the
/// database. Whoever changes it says so to the core, or it shows in the next probe; that the agent's own tables are gone shows
/// whoever writes to them.
const AGAIN: Duration = Duration::from_secs(3);

/// For so long an agent that starts in a pause waits for its first look at a database that is slow to answer.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// For which wish something was found as it should be, and when.
#[derive(Debug, Clone, Copy, Default)]
struct Settled(Option<(u64, Instant)>);

impl Settled {
    fn note(&mut self, wish: &Numbered) {
        self.0 = Some((wish.number, Instant::now()));
    }

    /// When it was found so for this very wish.
    fn since(&self, wish: &Numbered) -> Option<Instant> {
        self.0.filter(|(number, _)| *number == wish.number).map(|(_, at)| at)
    }

    /// It was so for this very wish, a moment ago.
    fn is(&self, wish: &Numbered) -> bool {
        self.since(wish).is_some_and(|at| at.elapsed() < AGAIN)
    }
}

/// One task's share of a wish.
trait Share: Send + 'static {
    /// Brings the world a step nearer to the wish. Called again on the next tick, whatever came of it.
    fn make_so(&mut self, wish: &Numbered) -> impl Future<Output = ()> + Send;

    /// The agent has just started, and waits for the lease that the ledger gives it: nothing is closed yet.
    fn wait(&mut self, _wish: &Numbered) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// A newer wish ends what is being done, at any point at which it waits.
    const GIVES_WAY: bool = false;
}

/// Starts the tasks of a data node.
pub(super) fn start(context: &Context, inputs: &Inputs, wishes: &Wishes, seen: &Seen) {
    if !context.config.is_data_node() {
        return;
    }
    let patience = Patience { began: Instant::now(), context: context.clone() };
    let newest = Newest(wishes.clone());
    let clock = context.clock;
    follow(clock, wishes.clone(), patience.clone(), doors::Doors::new(context.clone()));
    if context.hands.mysql.is_some() {
        let share = mysql::MysqlShare::new(context.clone(), inputs.clone(), seen.clone(), newest.clone());
        follow(clock, wishes.clone(), patience.clone(), share);
    }
    if context.hands.redis.is_some() {
        follow(
            clock,
            wishes.clone(),
            patience.clone(),
            redis::RedisShare::new(context.clone(), seen.clone(), newest),
        );
    }
    if context.hands.services.is_some() {
        let share = services::ServicesShare::new(context.clone(), seen.clone());
        follow(clock, wishes.clone(), patience.clone(), share);
    }
}

/// For how long an agent that has just started closes nothing for want of a lease.
#[derive(Clone)]
struct Patience {
    began: Instant,
    context: Context,
}

impl Patience {
    fn lasts(&self) -> bool {
        let is_paused = self.context.consensus.committed().borrow().ledger.pause.is_some();
        let is_outranked = self.context.consensus.standing().borrow().outranked;
        // The long leases that an earlier agent left, and that the lease thread goes on with.
        let adopted = self.context.lease.view().borrow().facts.long.is_some();
        let length =
            patience(self.context.config.timing.lease.duration(), is_paused && adopted && !is_outranked);
        self.began.elapsed() < length
    }
}

/// Longer than any short ticket of an earlier agent lives, so that a lease that does not come closes everything. Long leases that go
/// on in a pause are there already: what is waited for is a first look at the database, and nobody takes over meanwhile.
fn patience(lease: Duration, goes_on_paused: bool) -> Duration {
    if goes_on_paused { lease.max(FIRST_LOOK) } else { lease }
}

/// Whether a wish is still the newest.
#[derive(Debug, Clone)]
struct Newest(Wishes);

impl Newest {
    /// False also when the agent is ending.
    fn is(&self, wish: &Numbered) -> bool {
        self.0.has_changed().is_ok()
            && self.0.borrow().as_ref().is_some_and(|newest| newest.number == wish.number)
    }
}

fn follow<S: Share>(clock: Clock, mut wishes: Wishes, patience: Patience, mut share: S) {
    tokio::spawn(async move {
        let mut tick = clock.every(PERIOD, Duration::ZERO);
        loop {
            let newest = wishes.borrow_and_update().clone();
            if let Some(wish) = newest {
                if awaits_lease(&wish) && patience.lasts() {
                    share.wait(&wish).await;
                } else if S::GIVES_WAY {
                    tokio::select! {
                        () = share.make_so(&wish) => {}
                        changed = wishes.changed() => if changed.is_err() { return } else { continue },
                    }
                } else {
                    share.make_so(&wish).await;
                }
            }
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
            }
        }
    });
}

/// Closed for want of a lease, and for nothing else.
const fn awaits_lease(wish: &Numbered) -> bool {
    let wish = &wish.wish;
    match wish.role {
        Role::Closed { .. } => wish.renew.is_some() && wish.release.is_none(),
        Role::Witness | Role::Acquiring { .. } | Role::Receiving { .. } | Role::Serving { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use baton_runbooks::decide::local::Wish;
    use baton_runbooks::model::Epoch;
    use baton_runbooks::why::Why;
    use tokio::sync::watch;

    use super::*;

    fn closed(renew: Option<Epoch>, release: Option<Why>) -> Numbered {
        let wish = Wish { role: Role::Closed { follow: None }, renew, release, why: Vec::new() };
        Numbered { number: 3, wish }
    }

    #[test]
    fn only_a_holder_without_a_lease_waits_for_one() {
        assert!(awaits_lease(&closed(Some(Epoch(7)), None)));
        assert!(!awaits_lease(&closed(None, None)), "it holds nothing");
        assert!(!awaits_lease(&closed(Some(Epoch(7)), Some(Why::MysqlDead))), "it gives its lease back");
    }

    #[test]
    fn only_long_leases_in_a_pause_give_more_time_to_see_the_database() {
        let lease = Duration::from_millis(1000);
        assert_eq!(patience(lease, false), lease);
        assert_eq!(patience(lease, true), FIRST_LOOK);
        let longer = FIRST_LOOK * 2;
        assert_eq!(patience(longer, true), longer, "never less than the lease");
    }

    #[test]
    fn what_is_settled_for_one_wish_is_not_for_another() {
        let wish = closed(None, None);
        let mut settled = Settled::default();
        assert!(!settled.is(&wish));
        settled.note(&wish);
        assert!(settled.is(&wish));
        assert!(!settled.is(&Numbered { number: 4, ..wish.clone() }));
        assert!(settled.since(&wish).is_some());
        assert_eq!(settled.since(&Numbered { number: 4, ..wish.clone() }), None);
        settled.0 = settled.0.and_then(|(number, at)| Some((number, at.checked_sub(AGAIN)?)));
        assert!(!settled.is(&wish), "it is looked at again");
        assert!(settled.since(&wish).is_some_and(|at| at.elapsed() >= AGAIN), "it is known all the same");
    }

    #[test]
    fn an_older_wish_and_the_wish_of_an_ending_agent_are_not_the_newest() {
        let wish = closed(None, None);
        let (sender, wishes) = watch::channel(Some(wish.clone()));
        let newest = Newest(wishes);
        assert!(newest.is(&wish));
        sender.send_replace(Some(Numbered { number: 4, ..wish.clone() }));
        assert!(!newest.is(&wish));
        sender.send_replace(Some(wish.clone()));
        drop(sender);
        assert!(!newest.is(&wish));
    }
}
