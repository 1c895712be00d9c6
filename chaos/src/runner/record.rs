//! From what was seen to the record.

use baton_node::api::drill::DrillView;
use baton_node::api::types::{Status, Sync};
use baton_node::config::NodeId;
use jiff::Timestamp;

use super::agents::role_of;
use super::timeline;
use super::watch::{Watched, count};
use crate::check::{Bounds, KindVerdict, Verdict as Checked, check};
use crate::evidence::{
    Bucket, ClientRecord, FaultRecord, Harness, InvariantRecord, NodeRecord, PhaseRecord, ProbeRecord,
};
use crate::experiment::{Experiment, Fault, Mode, Probe, Role};
use crate::history::{History, Kind, Outcome};

/// The nodes as they were before.
#[must_use]
pub fn nodes(status: &Status, views: &[DrillView]) -> Vec<NodeRecord> {
    let node = |row: &baton_node::api::types::NodeRow| {
        let view = views.iter().find(|view| view.node == row.name);
        let mut versions = view.map(|view| view.versions.clone()).unwrap_or_default();
        versions.insert("baton".into(), row.version.clone());
        versions.extend(row.mysql_version.clone().map(|version| ("mysql".to_owned(), version)));
        NodeRecord {
            name: row.name.to_string(),
            role: role_of(status, &row.name),
            versions,
            config: Some(if row.config_matches { "same".into() } else { "another".into() }),
        }
    };
    status.nodes.iter().map(node).collect()
}

/// What the client saw, judged.
#[derive(Debug, Default)]
pub struct Client {
    /// What it did and heard.
    pub history: History,
    /// What is there afterwards.
    pub finals: crate::check::Finals,
    /// When the load was told to stop, microseconds.
    pub end_us: u64,
    /// Changes of holder by the ledger.
    pub holder_changes: u32,
}

impl Client {
    /// The judge's word, from the first fault on.
    #[must_use]
    pub fn judge(&self, faults: &[FaultRecord]) -> Checked {
        let fault_ms = faults.iter().filter_map(|fault| fault.injected_ms).min();
        let fault_us = fault_ms.map_or(self.end_us, |ms| ms * 1_000);
        let bounds = Bounds { fault_us, end_us: self.end_us, holder_changes: self.holder_changes };
        check(&self.history, &self.finals, bounds)
    }

    /// One record per database.
    #[must_use]
    pub fn records(&self, judged: &Checked, faults: &[FaultRecord]) -> Vec<ClientRecord> {
        let injected = faults.iter().filter_map(|fault| fault.injected_ms);
        let mut injected_us: Vec<u64> = injected.map(|ms| ms * 1_000).collect();
        injected_us.sort_unstable();
        let record = |kind: Kind, of: &KindVerdict| {
            ClientRecord::new(kind, of, &self.history, &injected_us, self.end_us)
        };
        judged.kinds.iter().map(|(kind, of)| record(*kind, of)).collect()
    }

    /// How well the client itself ran.
    #[must_use]
    pub fn harness(&self) -> Harness {
        let is_overflow = |outcome: &Outcome| match outcome {
            Outcome::Refused { error } => error == "too many writes in flight",
            Outcome::Acknowledged | Outcome::Unknown { .. } => false,
        };
        let overflowed = self.history.writes.iter().filter(|write| is_overflow(&write.outcome)).count();
        Harness { lateness: self.history.lateness, overflowed: overflowed as u64 }
    }
}

/// The phases of every run of the drill.
#[must_use]
pub fn timeline(
    watched: &Watched,
    faults: &[FaultRecord],
    experiment: &Experiment,
    started: Timestamp,
) -> Vec<PhaseRecord> {
    let bit = |node: Option<&NodeId>, at_ms: u64| {
        let mut came_before = faults.iter().filter(|fault| {
            node.is_some_and(|node| fault.node == node.as_str())
                && fault.injected_ms.is_some_and(|ms| ms <= at_ms)
        });
        let last = came_before.next_back()?;
        // The engine's checks take their time before anybody can know of it.
        let shown = last.verified_ms.filter(|_| last.fault == Fault::ContainerUnhealthy);
        shown.or(last.injected_ms)
    };
    let runs = watched.runs.iter().flat_map(|run| {
        let since = run.at.as_millisecond() - started.as_millisecond();
        // The clocks of two machines differ by some milliseconds.
        let at_ms = u64::try_from(since).unwrap_or(0) + 1_000;
        let bit_ms = if run.runbook == "switchover" { None } else { bit(run.from.as_ref(), at_ms) };
        timeline::phases(run, bit_ms, &experiment.slo.budgets, started)
    });
    runs.collect()
}

/// Every steady-state probe in each of its modes.
#[must_use]
pub fn probes(
    experiment: &Experiment,
    before: &Status,
    after: Option<&Status>,
    watched: &Watched,
    clients: &[ClientRecord],
    window: Window,
    holder_changes: u32,
) -> Vec<ProbeRecord> {
    let mut records = Vec::new();
    for state in &experiment.steady_state {
        for mode in &state.mode {
            let value = match (state.probe, mode) {
                (Probe::MysqlWrites, mode) => share(clients, Kind::Mysql, window.of(*mode)),
                (Probe::RedisWrites, mode) => share(clients, Kind::Redis, window.of(*mode)),
                (Probe::HolderChanges, Mode::Before) => Some(0.0),
                (Probe::HolderChanges, Mode::Continuous | Mode::After) => Some(f64::from(holder_changes)),
                (Probe::CertificateDays, Mode::Before) => watched.certificates.before,
                // Days only get fewer: the end says the worst.
                (Probe::CertificateDays, Mode::Continuous | Mode::After) => watched.certificates.after,
                (Probe::VipOwners, Mode::Continuous) if window.two_holders_ms > 0 => Some(2.0),
                (probe, Mode::Continuous) => watched.worst.get(&probe).copied(),
                (probe, Mode::Before) => of_status(probe, before),
                (probe, Mode::After) => after.and_then(|status| of_status(probe, status)),
            };
            records.push(ProbeRecord {
                name: state.name.clone(),
                probe: state.probe,
                mode: *mode,
                value,
                tolerance: state.tolerance.to_string(),
                held: value.map(|value| state.tolerance.admits(value)),
            });
        }
    }
    records
}

/// When what counts as before and after, milliseconds of the runner's clock.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// The first fault was injected.
    pub first_ms: u64,
    /// The last one was healed, and redundancy was back.
    pub whole_ms: u64,
    /// Milliseconds in which two machines answered for the virtual IP.
    pub two_holders_ms: u64,
}

impl Window {
    const fn of(self, mode: Mode) -> (u64, u64) {
        match mode {
            Mode::Before => (0, self.first_ms),
            Mode::Continuous => (0, u64::MAX),
            Mode::After => (self.whole_ms, u64::MAX),
        }
    }
}

/// Percent of the writes that were acknowledged, by buckets that lie wholly inside; `None`: there are none.
fn share(clients: &[ClientRecord], kind: Kind, (from_ms, to_ms): (u64, u64)) -> Option<f64> {
    let client = clients.iter().find(|client| client.kind == kind)?;
    let inside = |index: usize| {
        let from = index as u64 * ClientRecord::BUCKET_MS;
        from >= from_ms && from + ClientRecord::BUCKET_MS <= to_ms
    };
    let buckets: Vec<&Bucket> = client
        .buckets
        .iter()
        .enumerate()
        .filter(|(index, _)| inside(*index))
        .map(|(_, bucket)| bucket)
        .collect();
    let acknowledged: u32 = buckets.iter().map(|bucket| bucket.acknowledged).sum();
    let failed: u32 = buckets.iter().map(|bucket| bucket.failed).sum();
    let all = acknowledged + failed;
    (all > 0).then(|| 100.0 * f64::from(acknowledged) / f64::from(all))
}

/// A probe's value from one status; `None`: it does not say.
#[must_use]
pub fn of_status(probe: Probe, status: &Status) -> Option<f64> {
    let yes = |so: bool| Some(f64::from(u8::from(so)));
    match probe {
        Probe::Agents => Some(count(super::agents::heard(status))),
        Probe::InSync => yes(super::agents::is_in_sync(status)),
        Probe::Ready => yes(status.ok),
        Probe::VipOwners => Some(count(status.nodes.iter().filter(|row| row.serving).count())),
        Probe::UnhealthyServices => super::agents::unhealthy_services(status).map(count),
        Probe::ReplicationLag => {
            let lag = status.nodes.iter().filter_map(|row| row.lag_ms).max()?;
            Some(count(usize::try_from(lag).unwrap_or(usize::MAX)))
        }
        Probe::MysqlWrites | Probe::RedisWrites | Probe::HolderChanges | Probe::CertificateDays => None,
    }
}

/// How it is known who answered for the virtual IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arp {
    /// So many answers to ARP requests.
    Heard(usize),
    /// Nobody could be asked, and why.
    Failed(String),
    /// Nobody was asked: the agents' word counts, if it can be heard.
    NotAsked {
        /// A fault took the holder's word away, or the way on which it comes.
        hides: bool,
    },
}

/// Whether a fault was among them after which the agents' word on who holds the virtual IP is worth nothing.
#[must_use]
pub fn hides_the_holder(faults: &[FaultRecord]) -> bool {
    faults.iter().any(|fault| match fault.fault {
        Fault::AgentKill | Fault::AgentFreeze | Fault::PowerOff => fault.role == Role::Holder,
        // The other end of a cut may be the holder.
        Fault::Partition | Fault::PartitionPair | Fault::OneWay => true,
        Fault::Rehearsal
        | Fault::CertificateExpiring
        | Fault::Switchover
        | Fault::MysqldKill
        | Fault::MysqldFreeze
        | Fault::RedisKill
        | Fault::WitnessLoss
        | Fault::ContainerKill
        | Fault::ContainerUnhealthy
        | Fault::ReplicationLag
        | Fault::ReplicaDiskFull => false,
    })
}

/// What must hold whatever is done.
#[must_use]
pub fn invariants(
    clients: &[ClientRecord],
    judged: &Checked,
    arp: &Arp,
    watched: &Watched,
    status: Option<&Status>,
    left: &[String],
) -> Vec<InvariantRecord> {
    let record = |code: &str, says: &str, held: Option<bool>, seen: String| InvariantRecord {
        code: code.into(),
        says: says.into(),
        held,
        seen,
    };
    let mut records = Vec::new();
    if let Some(mysql) = clients.iter().find(|client| client.kind == Kind::Mysql) {
        let wrong = mysql.lost + mysql.duplicated + mysql.resurrected;
        records.push(record(
            "nothing-lost",
            "every write of MySQL that was acknowledged is there, once, and none that was refused",
            (!mysql.unread).then_some(wrong == 0),
            format!(
                "{} acknowledged, {} lost, {} twice, {} refused and there",
                mysql.acknowledged, mysql.lost, mysql.duplicated, mysql.resurrected
            ),
        ));
        records.push(record(
            "one-primary",
            "no two servers acknowledge writes at the same time",
            Some(mysql.interleaved == 0),
            format!("{} acknowledgements prove a hand-over that the ledger does not have", mysql.interleaved),
        ));
    }
    let says = "one machine at a time holds the virtual IP";
    records.push(match arp {
        Arp::Heard(answers) => record(
            "one-holder",
            says,
            (*answers > 0).then_some(judged.two_holders_ms == 0),
            format!("{answers} answers to ARP, two machines for {} ms", judged.two_holders_ms),
        ),
        Arp::Failed(why) => record("one-holder", says, None, format!("ARP could not be asked: {why}")),
        Arp::NotAsked { hides } => {
            let held = watched.worst.get(&Probe::VipOwners).map(|worst| *worst <= 1.0);
            // Two that say so are two; one that is heard is not one alone if the other cannot be heard.
            let held = held.filter(|held| !(*held && *hides));
            let words = if *hides {
                "nobody asked by ARP (drill.arp_senders, IPv4 only), and the fault hides the holder from the agents"
            } else {
                "by the agents' own word; nobody asked by ARP (drill.arp_senders, IPv4 only)"
            };
            record("one-holder", says, held, words.into())
        }
    });
    records.push(record(
        "nothing-left",
        "nothing of the drill's faults is left",
        Some(left.is_empty()),
        if left.is_empty() { "every fault was seen to be healed".into() } else { left.join("; ") },
    ));
    if let Some(status) = status {
        let serving = status.nodes.iter().filter(|row| row.serving).count();
        let sync = match &status.sync {
            Sync::InSync { replica } => format!("{replica} is in sync"),
            Sync::OutOfSync { reason } => reason.clone(),
            Sync::NotApplicable => "there is no MySQL".into(),
        };
        records.push(record(
            "serves",
            "one node serves at the end",
            Some(serving == 1),
            format!("{serving} nodes serve; {sync}"),
        ));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::sample::passed;
    use crate::runner::sample::with_services;

    #[test]
    fn a_node_is_recorded_with_the_version_of_its_mysql() {
        let mut status = crate::runner::sample::status();
        status.nodes[0].mysql_version = Some("10.11.6-MariaDB".into());
        let nodes = nodes(&status, &[]);
        let versions = |place: usize| nodes[place].versions.clone().into_iter().collect::<Vec<_>>();
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(versions(0), [pair("baton", "1"), pair("mysql", "10.11.6-MariaDB")]);
        assert_eq!(versions(2), [pair("baton", "1")], "a witness has none");
    }

    fn one_holder(fault: Fault, worst: f64) -> Option<bool> {
        let mut faults = passed().faults;
        faults[0].fault = fault;
        let mut watched = Watched::default();
        watched.worst.insert(Probe::VipOwners, worst);
        let arp = Arp::NotAsked { hides: hides_the_holder(&faults) };
        let records = invariants(&[], &Checked::default(), &arp, &watched, None, &[]);
        records.iter().find(|record| record.code == "one-holder").and_then(|record| record.held)
    }

    #[test]
    fn who_is_not_heard_may_be_a_second_holder() {
        assert_eq!(one_holder(Fault::MysqldKill, 1.0), Some(true));
        for fault in [Fault::AgentFreeze, Fault::Partition, Fault::PartitionPair] {
            assert_eq!(one_holder(fault, 1.0), None, "{fault}");
            assert_eq!(one_holder(fault, 2.0), Some(false), "{fault}");
        }
    }

    /// The value of the probe when db1, which holds, says this of its services; empty: it has none.
    fn unhealthy(states: &[&str]) -> Option<f64> {
        of_status(Probe::UnhealthyServices, &with_services(states))
    }

    #[test]
    fn a_service_that_is_seen_not_to_be_healthy_counts_as_unhealthy() {
        assert_eq!(unhealthy(&[]), Some(0.0));
        assert_eq!(unhealthy(&["healthy", "healthy"]), Some(0.0));
        for state in ["starting", "unhealthy", "stopped", "missing", "another word"] {
            assert_eq!(unhealthy(&["healthy", state]), Some(1.0), "{state}");
            assert_eq!(unhealthy(&[state, state]), Some(2.0), "{state}");
        }
    }

    #[test]
    fn a_service_that_nobody_has_seen_is_neither_healthy_nor_unhealthy() {
        for state in ["unknown", "not-seen"] {
            assert_eq!(unhealthy(&["healthy", state]), None, "{state}");
            assert_eq!(unhealthy(&[state, state]), None, "{state}");
            assert_eq!(unhealthy(&["stopped", state]), Some(1.0), "one is enough, whatever {state} hides");
        }
    }

    #[test]
    fn nothing_is_known_of_services_without_a_holder_that_says_it() {
        let mut status = with_services(&["stopped"]);
        status.holder = Some("db2".into());
        assert_eq!(of_status(Probe::UnhealthyServices, &status), None, "it has not said it yet");
        status.holder = None;
        assert_eq!(of_status(Probe::UnhealthyServices, &status), None);
    }
}
