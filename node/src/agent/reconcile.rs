//! The reconciler: makes this node what the wish says, again and again, whatever state it finds.
//!
//! Four tasks, so that a hung database delays no door: doors (lease thread, VIP, clients), MySQL, Redis, services. Each
//! looks at the newest wish when it changes and on a slow tick. Closing the doors never waits for anything else; opening
//! the ports is the last thing that the MySQL task does, under the number of the wish that it acts for.

mod doors;
mod mysql;
mod redis;
mod services;

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Context;
use super::driver::{Inputs, Numbered, Wishes};
use super::senses::Seen;

/// What was not achieved is tried again after this.
const PERIOD: Duration = Duration::from_millis(250);

/// One task's share of a wish.
trait Share: Send + 'static {
    /// Brings the world a step nearer to the wish. Called again on the next tick, whatever came of it.
    fn make_so(&mut self, wish: &Numbered) -> impl Future<Output = ()> + Send;
}

/// Starts the tasks of a data node.
pub(super) fn start(context: &Context, inputs: &Inputs, wishes: &Wishes, seen: &Seen) {
    if !context.config.is_data_node() {
        return;
    }
    follow(wishes.clone(), doors::Doors::new(context.clone()));
    if context.hands.mysql.is_some() {
        follow(wishes.clone(), mysql::MysqlShare::new(context.clone(), inputs.clone(), seen.clone()));
    }
    if context.hands.redis.is_some() {
        follow(wishes.clone(), redis::RedisShare::new(context.clone(), seen.clone()));
    }
    if context.hands.services.is_some() {
        follow(wishes.clone(), services::ServicesShare::new(context.clone()));
    }
}

fn follow(mut wishes: Wishes, mut share: impl Share) {
    tokio::spawn(async move {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let newest = wishes.borrow_and_update().clone();
            if let Some(wish) = newest {
                share.make_so(&wish).await;
            }
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
            }
        }
    });
}
