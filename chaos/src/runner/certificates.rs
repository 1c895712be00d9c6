//! Days until certificates end: every agent is asked for its own, and none is guessed.
//!
//! An agent that cannot be asked may be the one whose certificate has ended. So nothing is known of the group's first end
//! until all have answered, and such a drill is not refused because one is silent: it is judged.

use baton_node::api::drill::DrillView;
use baton_node::api::types::Status;

use super::agents::Agents;
use super::steps::Stage;
use crate::evidence::ProbeRecord;
use crate::experiment::{Experiment, Fault, Method, Mode, Probe, Tolerance};

/// What was seen before anything was done, and at the end: days until the first certificate ends; `None`: not every node
/// has said it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// At the gate.
    pub before: Option<f64>,
    /// When all was over.
    pub after: Option<f64>,
}

/// Whether a drill does nothing but read certificates.
#[must_use]
pub fn only_reads(experiment: &Experiment) -> bool {
    !experiment.method.is_empty()
        && experiment.method.iter().all(|method| method.fault == Fault::CertificateExpiring)
}

/// Whether a drill wants to know anything of certificates.
#[must_use]
pub fn are_wanted(experiment: &Experiment) -> bool {
    experiment.steady_state.iter().any(|state| state.probe == Probe::CertificateDays)
        || experiment.method.iter().any(|method| method.fault == Fault::CertificateExpiring)
}

/// What every node says that answers.
pub async fn ask(agents: &Agents, status: &Status) -> Vec<DrillView> {
    let mut views = Vec::new();
    for row in &status.nodes {
        views.extend(agents.look(&row.name).await.ok());
    }
    views
}

/// Days until the first certificate of the group ends; `None`: a node has not said how long its own last.
#[must_use]
pub fn least(status: &Status, views: &[DrillView]) -> Option<f64> {
    let of_node = |name: &baton_node::config::NodeId| {
        let days = views.iter().find(|view| view.node == *name)?.certificate_days?;
        Some(days.own.min(days.authority))
    };
    let all = status.nodes.iter().map(|row| of_node(&row.name)).collect::<Option<Vec<i64>>>()?;
    let bound = |days: i64| i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX });
    all.into_iter().min().map(|days| f64::from(bound(days)))
}

/// What the methods want of certificates, unless a steady state of the file wants as much.
#[must_use]
pub fn wanted_by_methods(experiment: &Experiment, seen: Seen) -> Vec<ProbeRecord> {
    let is_said = |days: f64| {
        experiment.steady_state.iter().any(|state| {
            state.probe == Probe::CertificateDays
                && state.mode.contains(&Mode::After)
                && state.tolerance.at_least.is_some_and(|at_least| at_least >= days)
        })
    };
    let methods = experiment.method.iter().enumerate();
    let reading = methods.filter(|(_, method)| method.fault == Fault::CertificateExpiring);
    let wanted = reading.filter_map(|(index, method)| Some((index + 1, f64::from(method.days?))));
    let record = |(number, days): (usize, f64)| {
        let tolerance = Tolerance { at_least: Some(days), at_most: None };
        ProbeRecord {
            name: format!("method {number}: no certificate ends within {days} days"),
            probe: Probe::CertificateDays,
            mode: Mode::After,
            value: seen.after,
            tolerance: tolerance.to_string(),
            held: seen.after.map(|value| tolerance.admits(value)),
        }
    };
    wanted.filter(|(_, days)| !is_said(*days)).map(record).collect()
}

impl Stage {
    /// Every agent says how long its certificates last. False: one does not.
    pub(super) async fn read_certificates(&mut self, index: usize, method: &Method, status: &Status) -> bool {
        let place = self.begin(index, method, status, &status.node);
        let views = ask(&self.agents, status).await;
        let mut says = Vec::new();
        for row in &status.nodes {
            let view = views.iter().find(|view| view.node == row.name);
            let words = match view.map(|view| view.certificate_days) {
                Some(Some(days)) => {
                    format!("its certificate lasts {} days, its authority {}", days.own, days.authority)
                }
                Some(None) => "does not know how long its certificates last".to_owned(),
                None => "does not answer".to_owned(),
            };
            self.note(row.name.as_str(), words.clone());
            says.push(format!("{}: {words}", row.name));
        }
        let all_said = least(status, &views).is_some();
        self.was_asked(place, all_said, says.join("; "));
        all_said
    }
}

#[cfg(test)]
mod tests {
    use baton_node::api::drill::CertificateDays;

    use super::*;
    use crate::experiment::shipped;
    use crate::runner::sample::{status, view};

    fn said(node: &str, own: i64, authority: i64) -> DrillView {
        DrillView { certificate_days: Some(CertificateDays { own, authority }), ..view(node) }
    }

    #[test]
    fn the_first_end_counts_and_a_node_that_says_nothing_leaves_it_unknown() {
        let mut views = vec![said("db1", 700, 3_600), said("db2", 9, 3_600), said("mon", 700, 3_600)];
        assert_eq!(least(&status(), &views), Some(9.0));
        views[2] = said("mon", 700, -2);
        assert_eq!(least(&status(), &views), Some(-2.0));
        views[2].certificate_days = None;
        assert_eq!(least(&status(), &views), None, "an older agent");
        views.pop();
        assert_eq!(least(&status(), &views), None, "a silent one");
    }

    #[test]
    fn the_days_of_a_method_are_judged_once() {
        let mut experiment = shipped::named("certificates").unwrap().experiment;
        assert!(only_reads(&experiment) && are_wanted(&experiment));
        let seen = Seen { before: None, after: Some(29.0) };
        assert_eq!(wanted_by_methods(&experiment, seen), [], "the file's own steady state says it");
        experiment.steady_state.retain(|state| state.probe != Probe::CertificateDays);
        let held = |after| wanted_by_methods(&experiment, Seen { before: None, after })[0].held;
        assert_eq!([Some(29.0), Some(30.0), None].map(held), [Some(false), Some(true), None]);
    }
}
