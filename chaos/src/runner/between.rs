//! Between two methods: what is to stand on still bites; or everything is healed, and the cluster is whole again.

use std::time::{Duration, Instant};

use baton_node::api::drill::{DrillId, DrillView, FaultPhase};
use baton_node::api::types::Status;
use baton_node::config::NodeId;

use super::agents::is_redundant;
use super::comeback::Comeback;
use super::effects::SILENT_MS;
use super::steps::{LOOK, Stage, unhealed};
use crate::evidence::{Ending, FaultRecord};
use crate::experiment::{Fault, Level, Method};

/// For so long it is tried to ask whether a fault still bites.
const SAID_WITHIN: Duration = Duration::from_secs(3);

impl Stage {
    /// Every fault that was left standing bites still.
    ///
    /// # Errors
    /// One does not, or it cannot be seen; and what was seen.
    pub(super) async fn still_bites(&self) -> Result<(), String> {
        for fault in self.faults.iter().filter(|fault| is_left_standing(fault)) {
            let node = NodeId::new(fault.node.as_str());
            let until = Instant::now() + SAID_WITHIN;
            let seen = loop {
                let answer = if silences_its_agent(fault.fault) {
                    self.agents.status().await.map(|status| is_away(&status, &node))
                } else {
                    self.agents.look(&node).await.map(|view| bites(&view, self.number))
                };
                match answer {
                    Ok(seen) => break seen,
                    Err(error) if Instant::now() >= until => break Err(error.to_string()),
                    Err(_) => self.pass(LOOK).await,
                }
            };
            seen.map_err(|why| format!("{} on {node} was to stand and is not seen to: {why}", fault.fault))?;
        }
        Ok(())
    }

    /// Before a method that begins when everything is healed: heals, and waits for redundancy. False: it is not back in time, and
    /// `next`, that method and those after it, are left out.
    ///
    /// # Errors
    /// A fault is not seen to be healed.
    pub(super) async fn is_ready_for(&mut self, next: &[Method]) -> Result<bool, Ending> {
        self.heal_standing().await?;
        let is_whole = self.whole().await;
        if !is_whole {
            for method in next {
                self.note("runner", format!("{} is left out: redundancy is not back", method.fault));
            }
        }
        Ok(is_whole)
    }

    pub(super) async fn heal_standing(&mut self) -> Result<(), Ending> {
        for place in 0..self.faults.len() {
            let fault = &self.faults[place];
            if fault.injected_ms.is_some() && fault.heal_verified_ms.is_none() {
                // It stood for as long as what came on top of it took: its own time is no measure.
                let within = self.patience(self.faults[place].fault);
                self.heal(place, within, Comeback::Healthy).await.map_err(unhealed)?;
            }
        }
        Ok(())
    }

    /// Waits until every agent is heard and the backup is in sync. False: it was not so in time. A drill that breaks nothing
    /// waits for nothing.
    pub(super) async fn whole(&mut self) -> bool {
        if self.experiment.level <= Level::L1 {
            return true;
        }
        let healed_ms = self.faults.iter().filter_map(|fault| fault.healed_ms).max();
        let until = Instant::now() + self.experiment.after.wait_redundancy.duration();
        self.shared.doing("waiting until the backup is in sync and every agent is heard");
        let wait = self.waits.len();
        self.waits.push(None);
        self.whole_ms = healed_ms.unwrap_or(0);
        while Instant::now() < until {
            if self.agents.status().await.is_ok_and(|status| is_redundant(&status)) {
                let took = healed_ms.map_or(0, |healed_ms| self.now_ms().saturating_sub(healed_ms));
                self.waits[wait] = Some(took);
                self.whole_ms += took;
                self.note("ledger", format!("redundancy is back {took} ms after the heal"));
                return true;
            }
            self.pass(LOOK).await;
        }
        self.note("ledger", "redundancy is not back in time");
        false
    }

    /// The longest that redundancy took; `None`: it was not waited for, or was once not back in time.
    #[must_use]
    pub fn redundancy_ms(&self) -> Option<u64> {
        worst(&self.waits)
    }
}

/// One that was not back in time is worse than any that was.
fn worst(waits: &[Option<u64>]) -> Option<u64> {
    waits.iter().copied().collect::<Option<Vec<u64>>>()?.into_iter().max()
}

/// It was seen to bite, stands until it is healed, and was not healed.
const fn is_left_standing(fault: &FaultRecord) -> bool {
    fault.fault.stands() && fault.verified_ms.is_some() && fault.healed_ms.is_none()
}

/// Its node cannot be asked while it stands.
const fn silences_its_agent(fault: Fault) -> bool {
    match fault {
        Fault::AgentKill | Fault::AgentFreeze | Fault::WitnessLoss | Fault::PowerOff => true,
        Fault::Rehearsal
        | Fault::CertificateExpiring
        | Fault::Switchover
        | Fault::MysqldKill
        | Fault::MysqldFreeze
        | Fault::RedisKill
        | Fault::ContainerKill
        | Fault::ContainerUnhealthy
        | Fault::Partition
        | Fault::PartitionPair
        | Fault::OneWay
        | Fault::ReplicationLag
        | Fault::ReplicaDiskFull => false,
    }
}

/// A node's fault of this drill bites, says the node.
fn bites(view: &DrillView, number: DrillId) -> Result<(), String> {
    match view.fault.as_ref().filter(|fault| fault.drill == number) {
        Some(fault) if fault.phase == FaultPhase::Biting => Ok(()),
        Some(fault) => Err(format!("{:?}: {}", fault.phase, fault.healed)),
        None => Err("the node knows nothing of it".to_owned()),
    }
}

/// A node's agent is not heard.
fn is_away(status: &Status, node: &NodeId) -> Result<(), String> {
    let row = status.nodes.iter().find(|row| row.name == *node);
    match row.and_then(|row| row.heard_ms_ago) {
        Some(ms) if ms < SILENT_MS => Err(format!("its agent was heard {ms} ms ago")),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evidence::sample::passed;
    use crate::runner::sample::{status, view};

    #[test]
    fn the_worst_wait_counts() {
        let cases: &[(&[Option<u64>], Option<u64>)] = &[
            (&[], None),
            (&[Some(40)], Some(40)),
            (&[Some(90), Some(40)], Some(90)),
            (&[Some(40), Some(90)], Some(90)),
            (&[None, Some(40)], None),
            (&[Some(40), None], None),
        ];
        for (waits, wanted) in cases {
            assert_eq!(worst(waits), *wanted, "{waits:?}");
        }
    }

    /// db2 as it bears a fault of drill 7.
    fn bearing(phase: &str) -> DrillView {
        let fault = json!({
            "drill": 7, "spec": {"kind": "replication-lag", "duration_ms": 90_000}, "phase": phase,
            "armed_at": "2026-01-01T00:00:00Z", "heal": "", "healed": "its time is over",
        });
        DrillView { fault: serde_json::from_value(fault).expect("the form of a fault"), ..view("db2") }
    }

    #[test]
    fn only_what_its_node_says_bites_is_stood_on() {
        assert_eq!(bites(&bearing("biting"), DrillId(7)), Ok(()));
        for phase in ["armed", "healed", "stuck"] {
            let seen = bites(&bearing(phase), DrillId(7));
            assert!(seen.is_err_and(|why| why.contains("its time is over")), "{phase}");
        }
        assert!(bites(&bearing("biting"), DrillId(8)).is_err(), "of another drill");
        assert!(bites(&view("db2"), DrillId(7)).is_err());
    }

    #[test]
    fn an_agent_that_is_heard_again_is_not_away() {
        let heard = |ms: Option<u64>| {
            let mut status = status();
            status.nodes[2].heard_ms_ago = ms;
            is_away(&status, &"mon".into()).is_err()
        };
        let seen = [Some(5), Some(SILENT_MS - 1), Some(SILENT_MS), None].map(heard);
        assert_eq!(seen, [true, true, false, false]);
    }

    #[test]
    fn only_a_fault_that_was_seen_and_not_healed_is_left_standing() {
        let mut fault =
            FaultRecord { fault: Fault::WitnessLoss, healed_ms: None, ..passed().faults.remove(0) };
        assert!(is_left_standing(&fault));
        fault.healed_ms = Some(9_000);
        assert!(!is_left_standing(&fault));
        (fault.healed_ms, fault.verified_ms) = (None, None);
        assert!(!is_left_standing(&fault));
        (fault.verified_ms, fault.fault) = (Some(1_010), Fault::MysqldKill);
        assert!(!is_left_standing(&fault), "it does not stand");
    }

    #[test]
    fn who_cannot_be_asked_is_who_the_node_says() {
        use crate::runner::cast::{Aim, aim};
        for id in crate::experiment::shipped::ids() {
            let experiment = crate::experiment::shipped::named(id).unwrap().experiment;
            for method in &experiment.method {
                let Ok(Aim::Fault { spec, .. }) = aim(&status(), &experiment, method) else { continue };
                assert_eq!(silences_its_agent(method.fault), spec.kind.silences_its_agent(), "{id}");
            }
        }
    }
}
