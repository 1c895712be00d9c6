//! What else than a database makes a holder useless: a service of it that is gone, clients that it does not reach.

use super::Agent;
use crate::decide::local::Role;
use crate::model::Mono;
use crate::observe::ServiceState;
use crate::why::Why;

/// A gateway that has not answered for this long, in milliseconds, is in doubt: two questions in a row were lost.
pub(super) const GATEWAY_DOUBT_MS: u64 = 700;
/// A gateway that has not answered for this long, in milliseconds, is lost. Longer than the other node takes to be in doubt
/// about a gateway that is gone for both, and to report it: then nobody gives anything up.
const GATEWAY_LOST_MS: u64 = 2_400;

impl Agent {
    pub(super) fn watch_service(&mut self, name: &str, state: &ServiceState, now: Mono) {
        if !self.setup.holder_services.iter().any(|service| service == name) {
            return;
        }
        let serving = self.wish.as_ref().is_some_and(|wish| match wish.role {
            Role::Serving { ports, services, .. } => ports && services,
            Role::Witness | Role::Closed { .. } | Role::Acquiring { .. } | Role::Receiving { .. } => false,
        });
        self.service_watch.observe(name, state, self.ledger.epoch, serving, now);
    }

    /// The service for which this holder gives up, if there is one.
    ///
    /// An epoch that began because of a service is not given up because of one. So a service that is broken everywhere
    /// moves the baton once, and never to and fro: of two epochs in a row at most one began like that.
    pub(super) fn service_lost(&self, now: Mono) -> Option<(&str, &'static str)> {
        let epoch = self.ledger.epoch;
        let lost = self.service_watch.lost(epoch, now, self.setup.patience.service_lost_ms)?;
        let began = self.ledger.newest_run().map(|(run, _)| &run.plan).filter(|plan| plan.epoch == epoch);
        let for_one = began.is_some_and(|plan| plan.why.iter().any(Why::is_release_for_a_service));
        (!for_one).then_some(lost)
    }
}

impl Agent {
    /// The clients' gateway that does not answer here, and answers the other data node.
    pub(super) fn gateway_lost(&self, now: Mono) -> Option<&str> {
        let lost = self.detector.gateway_lost(now, GATEWAY_LOST_MS)?;
        let other = self.ledger.other_data_nodes(&self.setup.me).next()?;
        let heard = self.reports.get(other)?;
        let reaches =
            now.since_ms(heard.at) <= self.setup.policy.report_max_ms && heard.report.gateway_lost.is_none();
        reaches.then_some(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Setup;
    use crate::agent::sample::{completed_takeover, setup};
    use crate::ledger::Ledger;
    use crate::model::Epoch;

    /// Serving epoch 2, which began for `why`; the service was healthy and has been gone for half a minute.
    fn agent(why: Why) -> Agent {
        let holder_services = vec!["web".to_owned()];
        let mut setup = Setup { redis: true, holder_services, ..setup("db2") };
        setup.policy.scope.services = true;
        let mut agent = Agent::new(setup);
        let history = vec![completed_takeover("db2", why)];
        agent.ledger = Ledger { epoch: Epoch(2), history, ..Ledger::default() }.into();
        agent.service_watch.observe("web", &ServiceState::Healthy, Epoch(2), true, Mono(0));
        agent.service_watch.observe("web", &ServiceState::Stopped, Epoch(2), true, Mono(1_000));
        agent
    }

    #[test]
    fn a_holder_gives_up_for_a_service_that_is_gone() {
        let began = agent(Why::LeaseEnded { epoch: Epoch(1), ended_ms_ago: 3 });
        assert_eq!(began.service_lost(Mono(31_000)), Some(("web", "stopped")));
    }

    #[test]
    fn but_not_in_an_epoch_that_began_because_of_one() {
        let gone = Why::ServiceDown { name: "web".to_owned(), state: "stopped".to_owned() };
        let began = agent(Why::HolderReleased { epoch: Epoch(1), because: gone.to_string() });
        assert_eq!(began.service_lost(Mono(31_000)), None);
    }
}
