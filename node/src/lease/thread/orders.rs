//! What the lease thread does on an order.

use baton_runbooks::lease::holder::Door;
use baton_runbooks::model::{Epoch, PauseId};
use baton_runbooks::observe::Observation;
use tokio::sync::oneshot;

use super::super::{Order, OrderError};
use super::Thread;
use crate::hands::server::{ServerId, Watch};

impl Thread {
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::Renew { epoch, wish, done } => {
                let _ = done.send(self.appoint(epoch, wish).await);
            }
            Order::Open { door, wish, done, .. }
                if self.closed_by.get(&door).is_some_and(|newer| wish < *newer) =>
            {
                let _ = done.send(Err(OrderError::Late));
            }
            Order::Open { door, server, done, .. } => self.open(door, server, done).await,
            Order::Close { doors, wish, done } => {
                for door in &doors {
                    let newest = self.closed_by.entry(*door).or_default();
                    *newest = wish.max(*newest);
                }
                let closed = self.close(&doors).await;
                let _ = done.send(closed);
            }
            Order::End { epoch, done } => {
                let _ = done.send(self.end(epoch));
            }
            Order::IsPauseOver { pause, done } => {
                let _ = done.send(self.is_pause_over(pause));
            }
            Order::GoOn { epoch } => self.granter.go_on(epoch),
        }
    }

    /// Renews for `epoch` from now on. Orders come from several tasks, so a late one changes nothing.
    async fn appoint(&mut self, epoch: Option<Epoch>, wish: u64) -> Result<(), OrderError> {
        let epoch = epoch.filter(|_| !self.is_outranked());
        if self.holder.epoch() != epoch {
            if wish < self.renewed_by {
                return Err(OrderError::Late);
            }
            // What an earlier agent of this very epoch left open ends with its tickets, or goes on under ours.
            let goes_on = std::mem::take(&mut self.inherits) && epoch.is_some() && self.is_holder_of(epoch);
            let closed = if goes_on { false } else { self.shut(&[Door::Vip, Door::Ports]).await };
            let held = self.holder.epoch();
            self.holder.appoint(epoch);
            if goes_on {
                self.adopt().await;
            }
            // Not at a stop of the agent: who still holds the baton keeps it for as long as its lease would last.
            if closed && held.is_some() && !self.is_holder_of(held) {
                self.surrender().await;
            }
            self.renew().await;
        }
        self.renewed_by = wish.max(self.renewed_by);
        Ok(())
    }

    fn is_holder_of(&self, epoch: Option<Epoch>) -> bool {
        let appointment = self.appointment();
        appointment.holder.as_ref() == Some(&self.setup.me) && Some(appointment.epoch) == epoch
    }

    async fn open(
        &mut self,
        door: Door,
        server: Option<ServerId>,
        done: oneshot::Sender<Result<(), OrderError>>,
    ) {
        if door == Door::Ports
            && let Err(error) = self.bind_to(server).await
        {
            let _ = done.send(Err(error));
            return;
        }
        let fresh = !self.holder.is_open(door);
        self.holder.open(door);
        if self.permitted.get(&door).is_some_and(|until| self.setup.clock.now() < *until) {
            let _ = done.send(Ok(()));
            return;
        }
        self.opening.push((door, done));
        if fresh {
            self.renew().await;
        }
    }

    /// Grants nothing more for `epoch`, if every lease of it has ended *now*: whoever decided its end looked at a copy,
    /// and a renewal may have been granted since.
    fn end(&mut self, epoch: Epoch) -> bool {
        let office = self.office();
        self.granter.see(self.setup.clock.now(), &office, self.appointment().paused);
        let released = self.setup.committed.borrow().ledger.released.clone();
        let closed = released.filter(|released| released.epoch == epoch).map(|released| released.boot);
        self.granter.end_if_over(self.setup.clock.now(), &office, epoch, closed)
    }

    /// Whoever decided that looked at a copy, perhaps of another term.
    fn is_pause_over(&mut self, pause: PauseId) -> bool {
        let (now, office) = (self.setup.clock.now(), self.office());
        self.granter.see(now, &office, self.appointment().paused);
        self.granter.pause_over(&office).is_some_and(|(id, over)| id == pause && over <= now)
    }

    /// Binds the ports to the life of a server process.
    async fn bind_to(&mut self, server: Option<ServerId>) -> Result<(), OrderError> {
        let Some(server) = server else { return Ok(()) };
        if self.exit.as_ref().is_some_and(|(bound, _)| *bound == server) {
            return Ok(());
        }
        match Watch::open(server) {
            Ok(Some(watch)) => {
                // Open for another server: its end was not noticed yet, or there are two. What an earlier agent left open in a
                // pause was bound to nobody since: the server that answers there was opened by an agent, or is read-only.
                if self.holder.is_open(Door::Ports) && !std::mem::take(&mut self.pausing.unbound) {
                    self.shut(&[Door::Ports]).await;
                }
                self.exit = Some((server, Box::pin(watch.exited())));
                Ok(())
            }
            // Says nothing about the server that the ports may be bound to: that one has a watch of its own.
            Ok(None) => Err(OrderError::ServerGone { server }),
            Err(error) => {
                Err(OrderError::Kernel { doing: "watch the database's process", detail: error.to_string() })
            }
        }
    }

    /// The database is gone: what would be answered now is not its answer.
    pub(super) async fn server_exited(&mut self) {
        if let Some((server, _)) = self.exit.take() {
            self.shut(&[Door::Ports]).await;
            let _ = self.setup.observations.try_send(Observation::MysqlExited { server: server.to_string() });
        }
    }

    pub(super) async fn close(&mut self, doors: &[Door]) -> Result<(), OrderError> {
        for door in doors {
            self.holder.close(*door);
            self.permitted.remove(door);
        }
        self.pausing.unbound &= !doors.contains(&Door::Ports);
        self.opening.retain(|(door, _)| !doors.contains(door));
        if doors.contains(&Door::Vip) {
            self.address.dropped();
        }
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        kernel.void(doors).await?;
        if doors.contains(&Door::Vip) {
            kernel.drop_addresses().await?;
        }
        Ok(())
    }

    /// Closes; a failure is logged, and the kernel ends what is open when its ticket does. True: all is closed.
    pub(super) async fn shut(&mut self, doors: &[Door]) -> bool {
        let closed = self.close(doors).await;
        if let Err(error) = &closed {
            tracing::error!(%error, "could not close at once; the tickets end it");
        }
        closed.is_ok()
    }
}
