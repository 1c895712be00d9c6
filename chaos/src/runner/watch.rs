//! The eye on the cluster while a drill goes on: keeps what probes and report need, and tells when the drill is to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_node::api::types::{NodeRow, RunRecord, RunResult, Status};
use baton_node::config::NodeId;
use tokio::task::JoinHandle;

use super::agents::{Agents, heard, is_in_sync, unhealthy_services};
use super::certificates;
use super::meter::Meter;
use super::screen::{Panel, Screen};
use super::stop::Stops;
use super::timeline;
use crate::evidence::Ending;
use crate::experiment::{Experiment, Probe, Stop};
use crate::history::Kind;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(200);
/// A report that is older says nothing of who serves now.
const FRESH_MS: u64 = 600;
/// Reports of two nodes are of different instants: that both serve must be seen for longer than any hand-over.
const TWO_FOR: Duration = Duration::from_secs(1);

/// What is known so far.
#[derive(Debug, Default)]
pub struct Watched {
    /// The newest status.
    pub status: Option<Status>,
    /// Runs of the ledger that began since the drill did, newest last.
    pub runs: Vec<RunRecord>,
    /// Worst value of each probe that is taken from the status, all the time.
    pub worst: BTreeMap<Probe, f64>,
    /// Days until the first certificate ends, before and after.
    pub certificates: certificates::Seen,
    /// Nodes that a method has hit.
    pub hit: BTreeSet<NodeId>,
    /// Nodes whose loss a method explains.
    pub explained: BTreeSet<NodeId>,
    /// Passing the baton is a method.
    pub may_switch: bool,
    /// What is being done, for the screen.
    pub doing: String,
    /// Number of the newest run before the drill.
    newest_before: u64,
    epoch: Option<u64>,
    two_since: Option<Instant>,
    /// Two machines that answered ARP requests for the virtual IP at the same time.
    answered: Option<[String; 2]>,
    silent_since: BTreeMap<NodeId, Instant>,
    /// Writes that each database has acknowledged, and when it was seen to acknowledge one last.
    acknowledged: BTreeMap<Kind, (u64, Instant)>,
}

/// Shared between the eye and the one who acts.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Watched>>);

impl Shared {
    /// What is known so far.
    pub fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest status, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.lock().status.clone()
    }

    /// What is being done, for the screen.
    pub fn doing(&self, what: impl Into<String>) {
        self.lock().doing = what.into();
    }

    /// Since a write was acknowledged, by the database that has been quiet for longest.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        self.lock().quiet()
    }
}

impl Watched {
    fn quiet(&self) -> Duration {
        self.quietest().map_or(Duration::ZERO, |(_, quiet)| quiet)
    }

    /// The database that has acknowledged nothing for longest, and for how long. Each counts by itself: one that goes on says
    /// nothing of the other.
    fn quietest(&self) -> Option<(Kind, Duration)> {
        let each = self.acknowledged.iter().map(|(kind, (_, at))| (*kind, at.elapsed()));
        each.max_by_key(|(_, quiet)| *quiet)
    }

    /// Starts to count from this status.
    pub fn begin(&mut self, status: Status, newest_run: u64) {
        self.epoch = Some(status.epoch.0);
        self.newest_before = newest_run;
        self.status = Some(status);
    }

    fn sample(&mut self, status: &Status) {
        let worst = |known: Option<f64>, value: f64, low: bool| match known {
            Some(known) if low => known.min(value),
            Some(known) => known.max(value),
            None => value,
        };
        let serving = fresh(status).count();
        let samples = [
            (Probe::Agents, Some(count(heard(status))), true),
            (Probe::InSync, Some(f64::from(u8::from(is_in_sync(status)))), true),
            (Probe::Ready, Some(f64::from(u8::from(status.ok))), true),
            (Probe::ReplicationLag, lag(status), false),
            (Probe::UnhealthyServices, unhealthy_services(status).map(count), false),
        ];
        for (probe, value, low) in samples {
            if let Some(value) = value {
                let known = self.worst.get(&probe).copied();
                self.worst.insert(probe, worst(known, value, low));
            }
        }
        self.two_since = if serving > 1 { self.two_since.or(Some(Instant::now())) } else { None };
        let owners = if self.has_two_holders() { 2.0 } else { 1.0 };
        let known = self.worst.get(&Probe::VipOwners).copied();
        self.worst.insert(Probe::VipOwners, worst(known, owners, false));
        for row in &status.nodes {
            if row.silent {
                self.silent_since.entry(row.name.clone()).or_insert_with(Instant::now);
            } else {
                self.silent_since.remove(&row.name);
            }
        }
    }

    fn has_two_holders(&self) -> bool {
        self.two_since.is_some_and(|since| since.elapsed() > TWO_FOR)
    }

    /// That two hold the virtual IP, by what was seen on the wire, or by the nodes' own word.
    fn two_holders(&self) -> Option<String> {
        if let Some([one, other]) = &self.answered {
            return Some(format!("{one} and {other} both answered for the virtual IP"));
        }
        self.has_two_holders().then(|| "two nodes say that they serve".to_owned())
    }

    /// A run that no method explains.
    fn unplanned(&self) -> Option<&RunRecord> {
        self.runs.iter().find(|run| {
            let is_switchover = run.runbook == "switchover";
            let from = run.from.as_ref();
            !(is_switchover && self.may_switch || from.is_some_and(|from| self.explained.contains(from)))
        })
    }

    /// Why the drill is to stop now.
    fn stop(&self, experiment: &Experiment) -> Option<Ending> {
        let aborted = |by: &str, why: String| Some(Ending::Aborted { by: by.into(), why });
        if let Some(run) = self.unplanned() {
            let from = run.from.as_ref().map_or("nobody", NodeId::as_str);
            return Some(Ending::Interrupted {
                why: format!(
                    "run {} ({} from {from} to {}) is none of the drill's",
                    run.number, run.runbook, run.to
                ),
            });
        }
        for stop in &experiment.stop_when {
            let length = stop.longer_than.unwrap_or_default().duration();
            match stop.condition {
                Stop::Outage => {
                    if let Some((kind, quiet)) = self.quietest().filter(|(_, quiet)| *quiet > length) {
                        let ms = quiet.as_millis();
                        return aborted("outage", format!("no write of {kind} was acknowledged for {ms} ms"));
                    }
                }
                Stop::TwoHolders => {
                    if let Some(why) = self.two_holders() {
                        return aborted("two-holders", why);
                    }
                }
                Stop::AgentSilent => {
                    let mut silent = self.silent_since.iter().filter(|(node, _)| !self.hit.contains(*node));
                    if let Some((node, _)) = silent.find(|(_, since)| since.elapsed() > length) {
                        return aborted("agent-silent", format!("{node} was not hit and is not heard"));
                    }
                }
                Stop::NeedsOperator => {
                    let mut runs = self.runs.iter();
                    if let Some(run) = runs.find(|run| run.result == RunResult::NeedsOperator) {
                        return aborted("needs-operator", format!("run {} needs an operator", run.number));
                    }
                }
                Stop::UnplannedRun => {}
            }
        }
        None
    }
}

/// Who says that it serves, and was heard just now.
fn fresh(status: &Status) -> impl Iterator<Item = &NodeRow> {
    status.nodes.iter().filter(|row| row.serving && row.heard_ms_ago.is_some_and(|ms| ms <= FRESH_MS))
}

fn lag(status: &Status) -> Option<f64> {
    status
        .nodes
        .iter()
        .filter_map(|row| row.lag_ms)
        .max()
        .map(|ms| count(usize::try_from(ms).unwrap_or(usize::MAX)))
}

/// A count as a probe's value; those of a drill are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
pub(super) fn count(value: usize) -> f64 {
    value as f64
}

/// The eye; it closes when it is dropped.
#[derive(Debug)]
pub struct Eye(JoinHandle<()>);

impl Eye {
    /// Opens it.
    #[must_use]
    pub fn open(
        agents: Agents,
        experiment: Experiment,
        shared: Shared,
        meter: Option<Arc<Meter>>,
        stops: Stops,
        screen: Screen,
        title: String,
    ) -> Self {
        Self(tokio::spawn(async move {
            loop {
                look(&agents, &shared).await;
                let panel = {
                    let mut watched = shared.lock();
                    if let Some(meter) = &meter {
                        note_acknowledged(&mut watched, meter.counts());
                        watched.answered = meter.two_holders();
                    }
                    if let Some(ending) = watched.stop(&experiment) {
                        stops.now(ending);
                    }
                    panel(&watched, &title)
                };
                screen.draw(&panel, &experiment.slo.budgets);
                tokio::time::sleep(EVERY).await;
            }
        }))
    }

    /// Closes it, and waits until nothing of it is left.
    pub async fn close(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

/// `counts`: what each database has acknowledged so far.
fn note_acknowledged(watched: &mut Watched, counts: impl Iterator<Item = (Kind, u64)>) {
    for (kind, count) in counts {
        if watched.acknowledged.get(&kind).is_none_or(|(known, _)| *known != count) {
            watched.acknowledged.insert(kind, (count, Instant::now()));
        }
    }
}

/// What cannot be asked now is asked again; that nobody answers for long is the pulse's to see.
async fn look(agents: &Agents, shared: &Shared) {
    let Ok(status) = agents.status().await else { return };
    let moved = {
        let mut watched = shared.lock();
        watched.sample(&status);
        let moved = watched.epoch != Some(status.epoch.0) || status.run.is_some();
        let unfinished = watched.runs.iter().any(|run| run.result == RunResult::Running);
        watched.epoch = Some(status.epoch.0);
        watched.status = Some(status);
        moved || unfinished
    };
    if moved && let Ok(history) = agents.client.history().await {
        let mut watched = shared.lock();
        let before = watched.newest_before;
        watched.runs = history.runs.into_iter().filter(|run| run.number.0 > before).collect();
    }
}

fn panel(watched: &Watched, title: &str) -> Panel {
    let holder = watched.status.as_ref().and_then(|status| status.holder.clone());
    Panel {
        title: title.to_owned(),
        doing: watched.doing.clone(),
        phases: watched.runs.last().map(timeline::progress).unwrap_or_default(),
        quiet_ms: u64::try_from(watched.quiet().as_millis()).unwrap_or(u64::MAX),
        acknowledged: watched.acknowledged.values().map(|(count, _)| *count).min().unwrap_or(0),
        holder: holder.map_or_else(|| "nobody".into(), |holder| holder.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::shipped;
    use crate::runner::sample::{status, with_services};
    use crate::runner::timeline::tests::run;

    fn experiment() -> Experiment {
        shipped::named("mysqld-killed").expect("it is shipped").experiment
    }

    #[test]
    fn a_run_that_no_method_explains_interrupts() {
        let mut watched = Watched { runs: vec![run(7, "takeover", "db1")], ..Watched::default() };
        assert!(matches!(watched.stop(&experiment()), Some(Ending::Interrupted { .. })));
        watched.explained.insert("db1".into());
        assert_eq!(watched.stop(&experiment()), None);
        watched.runs.push(run(8, "takeover", "db2"));
        let ending = watched.stop(&experiment());
        assert!(matches!(&ending, Some(Ending::Interrupted { why }) if why.contains("run 8")), "{ending:?}");
    }

    #[test]
    fn a_switchover_is_explained_only_by_a_method_that_makes_one() {
        let mut watched = Watched { runs: vec![run(7, "switchover", "db1")], ..Watched::default() };
        assert!(watched.stop(&experiment()).is_some());
        watched.may_switch = true;
        assert_eq!(watched.stop(&experiment()), None);
    }

    #[test]
    fn two_machines_that_answer_abort_at_once_and_two_that_say_so_after_a_while() {
        let aborted = |watched: &Watched| match watched.stop(&experiment()) {
            Some(Ending::Aborted { by, why }) => Some((by, why)),
            None => None,
            other => panic!("{other:?}"),
        };
        let mut watched = Watched { two_since: Some(Instant::now()), ..Watched::default() };
        assert_eq!(aborted(&watched), None, "reports of two instants");
        watched.two_since = Instant::now().checked_sub(2 * TWO_FOR);
        let said = ("two-holders".to_owned(), "two nodes say that they serve".to_owned());
        assert_eq!(aborted(&watched), Some(said));
        watched.two_since = None;
        watched.answered = Some(["02:00:00:00:00:01".into(), "02:00:00:00:00:02".into()]);
        let (by, why) = aborted(&watched).expect("it stops");
        assert_eq!(by, "two-holders");
        assert_eq!(why, "02:00:00:00:00:01 and 02:00:00:00:00:02 both answered for the virtual IP");
        let mut unconcerned = experiment();
        unconcerned.stop_when.retain(|stop| stop.condition != Stop::TwoHolders);
        assert_eq!(watched.stop(&unconcerned), None, "the file says what stops it");
    }

    #[test]
    fn what_needs_an_operator_and_a_stranger_s_silence_abort() {
        let mut watched = Watched { explained: BTreeSet::from(["db1".into()]), ..Watched::default() };
        let stuck = RunRecord { result: RunResult::NeedsOperator, ..run(7, "takeover", "db1") };
        watched.runs = vec![stuck];
        let by = |ending: Option<Ending>| match ending {
            Some(Ending::Aborted { by, .. }) => by,
            _ => String::new(),
        };
        assert_eq!(by(watched.stop(&experiment())), "needs-operator");
        watched.runs.clear();
        let long =
            Instant::now().checked_sub(Duration::from_secs(60)).expect("the machine has run for a minute");
        watched.silent_since.insert("db2".into(), long);
        assert_eq!(by(watched.stop(&experiment())), "agent-silent");
        watched.hit.insert("db2".into());
        assert_eq!(watched.stop(&experiment()), None);
        watched.acknowledged.insert(Kind::Mysql, (9, long));
        assert_eq!(by(watched.stop(&experiment())), "outage");
    }

    #[test]
    fn the_outage_of_one_database_stops_while_the_other_one_goes_on() {
        let long =
            Instant::now().checked_sub(Duration::from_secs(60)).expect("the machine has run for a minute");
        for (quiet, busy) in [(Kind::Mysql, Kind::Redis), (Kind::Redis, Kind::Mysql)] {
            // The one that is quiet had more: what both have at least goes on growing.
            let acknowledged = BTreeMap::from([(quiet, (1_000, long)), (busy, (10, long))]);
            let mut watched = Watched { acknowledged, ..Watched::default() };
            note_acknowledged(&mut watched, [(quiet, 1_000), (busy, 11)].into_iter());
            let ending = watched.stop(&experiment());
            let says = format!("no write of {quiet} was acknowledged for 6");
            let is_it = |why: &String| why.starts_with(&says);
            assert!(
                matches!(&ending, Some(Ending::Aborted { by, why }) if by == "outage" && is_it(why)),
                "{ending:?}"
            );
            note_acknowledged(&mut watched, [(quiet, 1_001), (busy, 11)].into_iter());
            assert_eq!(watched.stop(&experiment()), None, "both go on");
        }
    }

    #[test]
    fn the_worst_that_was_seen_of_services_is_kept() {
        let mut watched = Watched::default();
        for states in [["healthy", "healthy"], ["healthy", "stopped"], ["healthy", "healthy"]] {
            watched.sample(&with_services(&states));
        }
        assert_eq!(watched.worst.get(&Probe::UnhealthyServices), Some(&1.0));
        let mut unknown = Watched::default();
        unknown.sample(&status());
        assert_eq!(unknown.worst.get(&Probe::UnhealthyServices), None, "nobody says it");
    }
}
