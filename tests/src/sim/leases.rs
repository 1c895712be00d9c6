//! The lease threads: tickets into the kernel, questions, grants, permits.

use baton_runbooks::lease::granter::Office;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::lease::{Grant, Refusal, Renewal, Surrender};
use baton_runbooks::model::Epoch;

use super::event::Mail;
use super::hands::BOTH;
use super::node::{NAMES, TERMS};
use super::planted::Planted;
use super::world::World;

impl World {
    /// Ticket, clock, question.
    pub(super) fn renew(&mut self, node: usize) {
        if self.must_close(node) {
            // Whatever an earlier start of the agent left open, too.
            self.close(node, &BOTH);
            self.nodes[node].holder.appoint(None);
            return;
        }
        self.lapse(node);
        self.tend_pause(node);
        let at = self.now;
        let it = &mut self.nodes[node];
        let Some((seq, slot, doors)) = it.holder.next_ticket() else { return };
        let until = at + it.real(TERMS.ticket_ms());
        for door in doors {
            it.gate.ticket(door, slot, until);
        }
        let Some(renewal) = it.holder.renew(seq, it.local(at)) else { return };
        self.ask(node, &renewal);
    }

    /// The cluster has gone on without this node, which must be closed however long its leases last.
    fn must_close(&self, node: usize) -> bool {
        self.raft.views[node].outranked.is_some() && !self.has(Planted::OutrankedKeepsItsDoors)
    }

    /// Of itself, if it leads, and of both others.
    pub(super) fn ask(&mut self, node: usize, renewal: &Renewal) {
        let office = self.office(node);
        if office.is_leader {
            match self.grant(node, &office, renewal) {
                Ok(grant) => self.granted(node, &grant),
                Err(refusal) => self.long_refused(node, refusal),
            }
        }
        for peer in (0..3).filter(|peer| *peer != node) {
            self.send(node, peer, Mail::Renew { renewal: renewal.clone(), relay: None });
        }
    }

    /// The leader answers; everybody else passes the question on once.
    pub(super) fn answer(&mut self, node: usize, renewal: Renewal, relay: Option<usize>) {
        if !self.raft.leads(node) {
            if let Some(leader) = self.raft.views[node].leader.filter(|_| relay.is_none()) {
                self.send(node, leader, Mail::Renew { renewal, relay: Some(node) });
            }
            return;
        }
        let office = self.office(node);
        let Some(to) = self.position(&renewal.node) else { return };
        match self.grant(node, &office, &renewal) {
            Ok(grant) => self.send(node, relay.unwrap_or(to), Mail::Grant { grant, to }),
            Err(refusal) if renewal.long.is_some() => {
                self.refuse_long(node, relay.unwrap_or(to), to, refusal);
            }
            Err(_) => {}
        }
    }

    /// Renews for `epoch` from now on. Whoever does not hold the baton any more has closed, and says so to everybody: true.
    pub(super) fn appoint(&mut self, node: usize, epoch: Option<Epoch>) -> bool {
        let epoch = epoch.filter(|_| !self.must_close(node));
        let held = self.nodes[node].holder.epoch();
        if held == epoch {
            return false;
        }
        if !self.has(Planted::SurrenderBeforeClosing) {
            self.close(node, &BOTH);
        }
        self.nodes[node].holder.appoint(epoch);
        let appointment = self.applied(node).appointment();
        let holds = appointment.holder.as_ref() == Some(&self.nodes[node].name);
        let surrenders = held.is_some_and(|held| !holds || appointment.epoch != held);
        if surrenders {
            let surrender = self.nodes[node].holder.surrender();
            let office = self.office(node);
            self.nodes[node].granter.surrender(&office, &surrender);
            for peer in (0..3).filter(|peer| *peer != node) {
                self.send(node, peer, Mail::Surrender { surrender: surrender.clone(), relayed: false });
            }
        }
        self.renew(node);
        surrenders
    }

    pub(super) fn hear_surrender(&mut self, node: usize, surrender: Surrender, relayed: bool) {
        if self.raft.leads(node) {
            let office = self.office(node);
            self.nodes[node].granter.surrender(&office, &surrender);
        } else if let Some(leader) = self.raft.views[node].leader.filter(|_| !relayed)
            && NAMES[leader] != surrender.node.as_str()
        {
            self.send(node, leader, Mail::Surrender { surrender, relayed: true });
        }
    }

    fn grant(&mut self, node: usize, office: &Office, renewal: &Renewal) -> Result<Grant, Refusal> {
        let mut appointment = self.applied(node).appointment();
        if self.has(Planted::GrantBeforeSurrender) {
            appointment.passed_by = None;
        }
        let it = &mut self.nodes[node];
        it.granter.grant(it.local(self.now), office, &appointment, renewal)
    }

    /// The permit, for the doors whose ticket was written with the question.
    pub(super) fn granted(&mut self, node: usize, grant: &Grant) {
        let at = self.now;
        let from_receipt = self.has(Planted::LeaseCountedFromReceipt);
        let it = &mut self.nodes[node];
        let now = it.local(at);
        let Ok(accepted) = it.holder.accept(grant, now) else { return };
        if from_receipt && accepted.slot < TERMS.slots {
            let until = at + it.real(TERMS.lease_ms);
            for door in &accepted.doors {
                it.gate.ticket(*door, accepted.slot, until);
            }
        }
        let timeout_ms = if from_receipt && accepted.slot < TERMS.slots {
            TERMS.lease_ms
        } else {
            accepted.ends_at.since_ms(now)
        };
        self.long_leases += u64::from(accepted.slot == TERMS.long_slot());
        self.permit(node, accepted.slot, &accepted.doors, timeout_ms);
    }

    /// The kernel counts from the moment of writing, whenever that is.
    pub(super) fn permit(&mut self, node: usize, slot: u64, doors: &[Door], timeout_ms: u64) {
        let it = &mut self.nodes[node];
        let until = self.now + it.real(timeout_ms);
        for door in doors {
            it.gate.permit(*door, slot, until);
        }
    }

    /// The lease has ended: the agent closes too, and latches.
    pub(super) fn lapse(&mut self, node: usize) {
        let it = &self.nodes[node];
        let ended = it.holder.ends_at().is_some_and(|end| it.local(self.now) >= end);
        if ended && (it.holder.is_open(Door::Vip) || it.holder.is_open(Door::Ports)) {
            self.close(node, &BOTH);
        }
    }

    /// Latches, and voids what the kernel has.
    pub(super) fn close(&mut self, node: usize, doors: &[Door]) {
        for door in doors {
            self.nodes[node].holder.close(*door);
            self.nodes[node].gate.void(*door);
        }
    }

    /// Opens with the next ticket, which is written at once.
    pub(super) fn open(&mut self, node: usize, door: Door) {
        if !self.nodes[node].holder.is_open(door) {
            self.nodes[node].holder.open(door);
            if self.nodes[node].holder.is_open(door) {
                self.renew(node);
            }
        }
    }
}
