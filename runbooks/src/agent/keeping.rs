//! The core's side of the in-sync rule: what the keeper wants becomes proposals and orders.

use super::proposals::Purpose;
use super::{Agent, Output};
use crate::ledger::command::Command;
use crate::model::Mono;
use crate::sync::{Keep, KeepFacts};

/// An order about semi-sync that does not show yet is repeated this often, in milliseconds.
const KEEP_REPEAT_MS: u64 = 200;

impl Agent {
    pub(super) fn weigh_sync(&mut self, serving: bool, now: Mono) -> Keep {
        if !self.setup.policy.scope.mysql {
            return Keep::Nothing;
        }
        // Only a holder has a replica to look at.
        let replica = if serving { self.ledger.other_data_nodes(&self.setup.me).next() } else { None };
        let heard = replica.and_then(|node| self.reports.get(node));
        self.keeper.keep(&KeepFacts {
            now,
            ledger: &self.ledger,
            serving,
            unopened: serving && self.is_unopened(),
            primary: self.detector.mysql_facts(),
            replica: replica.zip(heard).map(|(n, h)| (n, now.since_ms(h.at), h.report.mysql.as_deref())),
            own_address: &self.setup.own_address,
            canary_started: self.canary.0,
            canary_committed: self.canary.1,
        })
    }

    pub(super) fn keep_in_sync(&mut self, keep: Keep, now: Mono, out: &mut Vec<Output>) {
        let (epoch, generation) = (self.ledger.epoch, self.ledger.sync_generation);
        self.order(&keep, now, out);
        match keep {
            Keep::Nothing | Keep::SourceOff | Keep::SourceOn | Keep::Canary => {}
            // One at a time: the fate of the one in flight says whether another is wanted.
            Keep::ProposeOut { .. } | Keep::ProposeIn { .. } if self.is_going_out() => {}
            Keep::ProposeOut { reason, .. } => {
                if self.may_propose(&Purpose::SyncOut(generation)) {
                    let by = self.setup.me.clone();
                    let command = Command::SyncOut { epoch, generation, by, reason };
                    self.propose(Purpose::SyncOut(generation), command, None, None, out);
                }
            }
            Keep::ProposeIn { replica, instance } => {
                if self.may_propose(&Purpose::SyncIn(generation)) {
                    let by = self.setup.me.clone();
                    let command = Command::SyncIn { epoch, generation, by, replica, instance };
                    self.propose(Purpose::SyncIn(generation), command, None, None, out);
                }
            }
        }
    }

    /// What the hands have to do about semi-sync; an order that does not show yet is repeated now and then.
    pub(super) fn order(&mut self, keep: &Keep, now: Mono, out: &mut Vec<Output>) {
        let is_order = match keep {
            Keep::SourceOff | Keep::SourceOn | Keep::Canary | Keep::ProposeOut { close_ports: true, .. } => {
                true
            }
            Keep::Nothing | Keep::ProposeOut { close_ports: false, .. } | Keep::ProposeIn { .. } => false,
        };
        if !is_order {
            self.kept = None;
            return;
        }
        let fresh =
            self.kept.as_ref().is_none_or(|(old, at)| old != keep || now.since_ms(*at) >= KEEP_REPEAT_MS);
        if fresh {
            self.kept = Some((keep.clone(), now));
            out.push(Output::Keep { keep: keep.clone() });
        }
    }

    /// The local database is an instance that no agent has opened for writing yet, as far as this one knows.
    pub(super) fn is_unopened(&self) -> bool {
        let server = self.detector.mysql_facts().map(|(_, facts)| &facts.instance.server);
        server.is_none_or(|server| self.opened.as_ref() != Some(server))
    }

    /// Nobody has looked at the database since this agent started. It may have been restarted meanwhile, and an earlier
    /// agent's *in sync* may be on its way: whether it may be opened shows only when it is seen.
    pub(super) fn is_unseen(&self) -> bool {
        self.setup.policy.scope.mysql && self.detector.mysql_facts().is_none()
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::sample::setup;
    use crate::agent::{Agent, Input, LeaseFacts, Setup, Stamped};
    use crate::decide::local::Role;
    use crate::ledger::Ledger;
    use crate::model::{Epoch, Mono, NodeId, NodeKind, WallMs};

    /// The host was restarted with an *in sync* of its last agent on the way, and the lease is there before the first probe.
    #[test]
    fn a_database_that_was_not_seen_yet_is_not_opened() {
        let me = NodeId::from("db1");
        let members = [(me.clone(), NodeKind::Data), (NodeId::from("db2"), NodeKind::Data)].into();
        let ledger = Ledger { members, mysql: true, epoch: Epoch(1), holder: Some(me), ..Ledger::default() };
        let lease = LeaseFacts { held: Some((Epoch(1), Mono(2_000))), ..LeaseFacts::default() };
        let mut agent = Agent::new(Setup { opened: Some("1@1".to_owned()), boot: 2, ..setup("db1") });
        for input in [
            Input::Committed { index: 1, ledger: ledger.into() },
            Input::Lease { lease: lease.into() },
            Input::Tick,
        ] {
            agent.handle(Stamped { now: Mono(1_000), wall: WallMs(0), input });
        }
        let role = agent.wish().map(|wish| wish.role.clone());
        assert_eq!(
            role,
            Some(Role::Serving {
                epoch: Epoch(1),
                ports: false,
                semi_sync: false,
                services: true,
                redis: None
            })
        );
    }
}
