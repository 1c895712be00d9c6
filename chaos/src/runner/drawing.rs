//! A drill's record, drawn up from what was seen, however the drill ended.

use baton_node::api::types::Status;
use jiff::Timestamp;

use super::steps::Stage;
use super::{Acted, Drill, certificates, record};
use crate::evidence::{Ending, Event, ExperimentRef, Record, Who};
use crate::experiment::{Level, Source};
use crate::history::Origin;
use crate::lint::warnings;
use crate::verdict::judge;

impl Drill<'_> {
    /// The record; its place in the chain is set when it is kept.
    pub(super) async fn record(&self, ending: Ending, acted: Acted) -> Record {
        let Acted { stage, mut client, arp, asked_arp, left } = acted;
        let after = self.options.agents.status().await.ok();
        let before = &self.seen.status;
        let changes = after.as_ref().map_or(0, |status| status.epoch.0.saturating_sub(before.epoch.0));
        let holder_changes = u32::try_from(changes).unwrap_or(u32::MAX);
        client.holder_changes = holder_changes;
        let faults = stage.as_ref().map(|stage| stage.faults.clone()).unwrap_or_default();
        let judged = client.judge(&faults);
        let clients = client.records(&judged, &faults);
        let mut record = Record {
            version: 1,
            number: 0,
            previous: String::new(),
            experiment: self.reference(),
            who: self.who(),
            started: self.started,
            ended: Timestamp::now(),
            nodes: record::nodes(before, &self.seen.views),
            gate: self.seen.checks.clone(),
            ending,
            drill: self.number.map_or(0, |number| number.0),
            faults,
            timeline: Vec::new(),
            events: Vec::new(),
            two_holders_ms: judged.two_holders_ms,
            reigns: judged.reigns.clone(),
            holder_changes,
            probes: Vec::new(),
            invariants: Vec::new(),
            harness: client.harness(),
            redundancy_ms: stage.as_ref().and_then(Stage::redundancy_ms),
            judgement: crate::evidence::Judgement {
                verdict: crate::verdict::Verdict::Inconclusive,
                reasons: Vec::new(),
            },
            clients,
        };
        if let Some(stage) = stage {
            let answers = client.history.answers.len();
            let arp = match (&arp, asked_arp) {
                (Some(why), _) => record::Arp::Failed(why.clone()),
                (None, true) => record::Arp::Heard(answers),
                (None, false) => record::Arp::NotAsked { hides: record::hides_the_holder(&record.faults) },
            };
            self.fill(&mut record, stage, &judged, arp, after.as_ref(), &left);
        }
        record.judgement = judge(&record);
        record
    }

    /// What only a drill has that was begun.
    fn fill(
        &self,
        record: &mut Record,
        stage: Stage,
        judged: &crate::check::Verdict,
        arp: record::Arp,
        after: Option<&Status>,
        left: &[String],
    ) {
        let watched = stage.shared.lock();
        let experiment = self.experiment();
        record.timeline = record::timeline(&watched, &record.faults, experiment, self.started);
        record.events.clone_from(&stage.events);
        let healed_ms = record.faults.iter().filter_map(|fault| fault.healed_ms).max().unwrap_or(0);
        let window = record::Window {
            first_ms: record.faults.iter().filter_map(|fault| fault.injected_ms).min().unwrap_or(u64::MAX),
            whole_ms: healed_ms.max(stage.whole_ms),
            two_holders_ms: judged.two_holders_ms,
        };
        record.probes = record::probes(
            experiment,
            &self.seen.status,
            after,
            &watched,
            &record.clients,
            window,
            record.holder_changes,
        );
        record.probes.extend(certificates::wanted_by_methods(experiment, watched.certificates));
        if experiment.level > Level::L1 {
            record.invariants = record::invariants(&record.clients, judged, &arp, &watched, after, left);
        }
    }

    fn reference(&self) -> ExperimentRef {
        self.options.source.reference()
    }

    fn who(&self) -> Who {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Who {
            operator: self.options.agents.by.clone(),
            approver: self.options.approver.clone(),
            host: host.trim().to_owned(),
            reason: self.options.reason.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What the linter warned of, for the record: who reads that a drill passed is to know what was allowed.
pub(super) fn warned(source: &Source, origin: Origin) -> Vec<Event> {
    let at_ms = origin.now_us() / 1_000;
    let event = |code: &str, says: &str| Event {
        at_ms,
        source: "linter".to_owned(),
        what: format!("warning[{code}]: {says}"),
    };
    warnings(source).iter().map(|finding| event(finding.code, &finding.says)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::shipped;

    #[test]
    fn what_the_linter_warned_of_stands_in_the_record() {
        let noted = |id: &str| warned(&shipped::named(id).unwrap(), Origin::new());
        let events = noted("power-cut");
        let said: Vec<&str> = events.iter().map(|event| event.what.as_str()).collect();
        assert_eq!(
            said,
            [
                "warning[lab-only]: power-off is for a lab",
                "warning[no-heal]: nothing heals power-off by itself"
            ]
        );
        assert!(events.iter().all(|event| event.source == "linter"), "{events:?}");
        assert_eq!(noted("mysqld-killed"), []);
    }
}
