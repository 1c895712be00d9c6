//! The client that keeps no connection: each visit connects, reads, and goes.
//!
//! A pool that still has a connection writes on while a new client is refused, and what can be connected to need not be
//! readable. So both are asked apart from the writes, by visits that begin at a fixed period whatever became of those
//! before. Each runs as a task of its own; how many run at once is capped, and one over the cap has failed.
//!
//! A visit begins at a turn of the writer's loop, so that the lateness of the writer is that of the visits too. It writes
//! nothing, and so it has no id and can lose nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::{LoadOptions, MysqlTarget, RedisTarget, Target};
use crate::history::{History, Origin, Visit};

/// Most visits of one kind that run at once. A server that hangs holds each for up to three times the limit (connect, read,
/// goodbye): 24 at a limit of 0.4 s and a visit every 50 ms. Fewer would miss the moment at which the service returns.
const UNDER_WAY_MAX: usize = 32;

/// A kind of server that can be visited.
pub(super) trait Visited: Target {
    /// A new connection, logged in. Nothing is asked beyond that: a server that lets in and cannot be read is seen as that.
    async fn open(&self) -> Result<Self::Conn, String>;
    /// Reads what the writer writes to.
    async fn read(&self, conn: &mut Self::Conn) -> Result<(), String>;
    /// Says goodbye.
    async fn close(&self, conn: Self::Conn);
}

/// The visitors of all kinds, and how often they go.
pub(super) struct Visitors {
    mysql: Option<Rc<Visitor<MysqlTarget>>>,
    redis: Option<Rc<Visitor<RedisTarget>>>,
    /// Turns of the writer's loop from one visit to the next.
    turns: u64,
}

impl Visitors {
    /// One for each kind that is written to; none if nobody is to be visited.
    pub(super) fn new(options: &LoadOptions, history: &Rc<RefCell<History>>) -> Self {
        let Some(every) = options.visit_every else { return Self { mysql: None, redis: None, turns: 1 } };
        let turns = every.as_micros() / options.period.as_micros().max(1);
        Self {
            mysql: options.mysql.clone().map(|target| Visitor::new(options, target, history)),
            redis: options.redis.clone().map(|target| Visitor::new(options, target, history)),
            turns: u64::try_from(turns).unwrap_or(u64::MAX).max(1),
        }
    }

    /// A turn of the writer's loop, due at this time: every so many of them begin a visit.
    pub(super) fn turn(&self, turn: u64, due_us: u64) {
        if !turn.is_multiple_of(self.turns) {
            return;
        }
        if let Some(visitor) = &self.mysql {
            visitor.start(due_us);
        }
        if let Some(visitor) = &self.redis {
            visitor.start(due_us);
        }
    }

    /// How many visits run now.
    pub(super) fn under_way(&self) -> usize {
        self.mysql.as_ref().map_or(0, |visitor| visitor.under_way.get())
            + self.redis.as_ref().map_or(0, |visitor| visitor.under_way.get())
    }
}

/// One kind's visitor.
struct Visitor<T: Visited> {
    target: T,
    limit: Duration,
    origin: Origin,
    under_way: Cell<usize>,
    history: Rc<RefCell<History>>,
}

impl<T: Visited> Visitor<T> {
    fn new(options: &LoadOptions, target: T, history: &Rc<RefCell<History>>) -> Rc<Self> {
        Rc::new(Self {
            target,
            limit: options.limit,
            origin: options.origin,
            under_way: Cell::new(0),
            history: Rc::clone(history),
        })
    }

    fn start(self: &Rc<Self>, intended_us: u64) {
        if self.under_way.get() >= UNDER_WAY_MAX {
            let error = Some("too many visits under way".to_owned());
            self.record(Visit { kind: T::KIND, intended_us, connected_us: None, read_us: None, error });
            return;
        }
        self.under_way.set(self.under_way.get() + 1);
        let visitor = Rc::clone(self);
        tokio::task::spawn_local(async move {
            visitor.visit(intended_us).await;
            visitor.under_way.set(visitor.under_way.get() - 1);
        });
    }

    async fn visit(&self, intended_us: u64) {
        let mut visit = Visit { kind: T::KIND, intended_us, connected_us: None, read_us: None, error: None };
        let mut conn = match self.within("connect", self.target.open()).await {
            Ok(conn) => conn,
            Err(error) => {
                visit.error = Some(error);
                self.record(visit);
                return;
            }
        };
        visit.connected_us = Some(self.origin.now_us());
        match self.within("read", self.target.read(&mut conn)).await {
            Ok(()) => visit.read_us = Some(self.origin.now_us()),
            Err(error) => visit.error = Some(error),
        }
        self.record(visit);
        // A server that does not take the goodbye is left without one.
        let _ = timeout(self.limit, self.target.close(conn)).await;
    }

    async fn within<R>(
        &self,
        what: &str,
        work: impl Future<Output = Result<R, String>>,
    ) -> Result<R, String> {
        timeout(self.limit, work).await.unwrap_or_else(|_| Err(format!("time-out at {what}")))
    }

    fn record(&self, visit: Visit) {
        self.history.borrow_mut().visits.push(visit);
    }
}

#[cfg(test)]
mod tests;
