//! What a round is to be, from the seed and its number alone.

use std::time::Duration;

use serde::Serialize;

use crate::fault::{Changes, Expectation, Fault, SWITCHOVER_STEPS, Served, TARGET_STEPS};
use crate::lab::Port;
use crate::run::{JITTER_MS, SPREAD_MS};
use crate::sim::rng::Rng;

/// Steps of a switchover from its point of no return on, which may be cut short by a crash, too.
const LATE_SWITCHOVER_STEPS: [&str; 3] = ["open_ports", "attach_old", "validate"];
/// In how many of a hundred rounds with a fault that allows it an operator has just begun to pass the baton.
const BEGUN_PERCENT: u64 = 25;
/// How long before the fault at most: a little longer than a switchover takes.
const BEGUN_MS: u64 = 500;
/// The commands' nodes.
const SEATS: [Port; 3] = [Port::Db1, Port::Db2, Port::Mon];

/// A round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Round {
    /// Counted from one.
    pub number: u32,
    /// The seed of the whole soak.
    pub seed: u64,
    /// Container engines take part: then more can be drawn.
    pub docker: bool,
    /// What goes wrong, or what is ordered.
    #[serde(serialize_with = "named")]
    pub fault: Fault,
    /// Where in a run it strikes, for faults that do.
    pub at: Option<String>,
    /// A switchover has been begun so many milliseconds before the fault, at this node.
    pub begun: Option<Begun>,
    /// How long after the warm-up, milliseconds: so that a lease is of any age.
    pub delay_ms: u64,
    /// How late within something that lasts, milliseconds.
    pub spread_ms: u64,
}

/// A switchover that is under way when a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// How long before the fault it was ordered, milliseconds.
    pub ms_before: u64,
    /// Where it was ordered.
    #[serde(serialize_with = "seat")]
    pub at: Port,
}

fn named<S: serde::Serializer>(fault: &Fault, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(fault.name())
}

fn seat<S: serde::Serializer>(port: &Port, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(port.name())
}

/// The lab that a round needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// The one that stands over many rounds.
    Lasting,
    /// The same, which does not come back to what it was.
    Last,
    /// One of its own, built otherwise.
    Own,
}

impl Round {
    /// Draws a round.
    #[must_use]
    pub fn draw(seed: u64, number: u32, docker: bool) -> Self {
        let mut rng = Rng::new(seed ^ u64::from(number).rotate_left(32));
        let fault = drawn(&mut rng, docker);
        let at = step(fault, docker, &mut rng);
        let begun = (can_follow_an_order(fault) && rng.chance(BEGUN_PERCENT))
            .then(|| Begun { ms_before: rng.range(0, BEGUN_MS), at: SEATS[rng.index(SEATS.len())] });
        let (delay_ms, spread_ms) = (rng.range(0, JITTER_MS - 1), rng.range(0, SPREAD_MS - 1));
        Self { number, seed, docker, fault, at, begun, delay_ms, spread_ms }
    }

    /// What it is called in tables.
    #[must_use]
    pub fn name(&self) -> String {
        let begun = if self.begun.is_some() { "switchover, then " } else { "" };
        format!("{begun}{}", self.fault.name())
    }

    /// Which lab it needs.
    #[must_use]
    pub fn stand(&self) -> Stand {
        // The lasting one resyncs by itself, and its disk is the machine's.
        if matches!(self.fault, Fault::DiskFull | Fault::Resync | Fault::ResyncInterrupted) {
            return Stand::Own;
        }
        // A forced cluster is judged by its first generation.
        if self.fault == Fault::Forced { Stand::Last } else { Stand::Lasting }
    }

    /// What must come of it. A switchover that is under way may end before or after the fault: the holder may change for
    /// it and for the fault; and a new holder that is lost before the old one follows it leaves nobody who is complete,
    /// until it is back.
    #[must_use]
    pub fn expectation(&self) -> Expectation {
        let usual = self.fault.expectation();
        if self.begun.is_none() {
            return usual;
        }
        // While the switchover goes on, that it does is what agents say of a pair that lost each other.
        let refusal = usual.refusal.filter(|_| self.fault != Fault::PartitionPair);
        let (changes, served) = (Changes::AtMostTwo, Served::AfterHeal);
        Expectation { changes, served, outage_max_ms: None, refusal, ..usual }
    }

    /// [`Round::delay_ms`].
    #[must_use]
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// The command that plays this round again, in a lab that is fresh, on the same databases.
    #[must_use]
    pub fn again(&self, flavour: &str) -> String {
        let docker = if self.docker { " --docker" } else { "" };
        let (seed, number) = (self.seed, self.number);
        format!("lab soak --seed {seed} --first {number} --rounds 1 --flavour {flavour}{docker}")
    }
}

/// One of all faults, by weight.
fn drawn(rng: &mut Rng, docker: bool) -> Fault {
    let weights = || Fault::ALL.iter().map(|fault| (*fault, weight(*fault, docker)));
    let all: u64 = weights().map(|(_, weight)| weight).sum();
    let mut left = rng.range(0, all - 1);
    for (fault, weight) in weights() {
        match left.checked_sub(weight) {
            Some(rest) => left = rest,
            None => return fault,
        }
    }
    Fault::PowerLoss
}

/// How often, in comparison: what strikes a run in the middle is drawn most, what lasts for a minute or more least.
fn weight(fault: Fault, docker: bool) -> u64 {
    match fault {
        Fault::TargetCrashDuringTakeover | Fault::SwitchoverCrash | Fault::SwitchoverFails => 14,
        Fault::PowerLoss | Fault::LeaderLossDuringTakeover | Fault::TargetLossDuringTakeover => 10,
        Fault::AgentKill
        | Fault::AgentFreeze
        | Fault::HostFreeze
        | Fault::MysqldKill
        | Fault::MysqldFreeze
        | Fault::RedisKill
        | Fault::GatewayCut
        | Fault::LinkDown
        | Fault::PartitionPrimary
        | Fault::PartitionPair
        | Fault::OneWayIn
        | Fault::OneWayOut
        | Fault::BackupLoss
        | Fault::PowerReturn => 6,
        Fault::DriverHang
        | Fault::PrimaryWitnessCut
        | Fault::WitnessLoss
        | Fault::ReplicaBehind
        | Fault::LossAccepted
        | Fault::AgentsRestart
        | Fault::QuorumLoss
        | Fault::ResyncAutomatic
        | Fault::ResyncOrdered
        | Fault::Switchover
        | Fault::SwitchoverBack => 4,
        Fault::SwitchoverAborted => 8,
        Fault::VipRemoved
        | Fault::RulesFlushed
        | Fault::RedisLoading
        | Fault::PausedQuorumLoss
        | Fault::PausedAgentRestart
        | Fault::PauseResume
        | Fault::CommandsRefused => 3,
        Fault::DiskFull
        | Fault::Resync
        | Fault::ResyncInterrupted
        | Fault::Forced
        | Fault::ClusterRestart
        | Fault::VipForeignOwner
        | Fault::PausedPrimaryLoss => 1,
        Fault::ServiceGone => u64::from(docker) * 3,
    }
}

/// The step at which it strikes, and before or after the step has acted.
fn step(fault: Fault, docker: bool, rng: &mut Rng) -> Option<String> {
    let steps = steps(fault, docker);
    let step = steps.get(rng.index(steps.len().max(1)))?;
    Some(format!("{step}:{}", POINTS[rng.index(POINTS.len())]))
}

/// Before and after a step has acted.
pub(super) const POINTS: [&str; 2] = ["started", "acted"];

/// The steps of the lab's services. Without container engines no plan has them.
const SERVICE_STEPS: [&str; 2] = ["start_independent", "start_services"];

/// The steps at which a fault can strike.
pub(super) fn steps(fault: Fault, docker: bool) -> Vec<&'static str> {
    let service: &[&str] = if docker { &SERVICE_STEPS } else { &[] };
    match (fault.strikes_at_a_step(), fault) {
        (false, _) => Vec::new(),
        (true, Fault::SwitchoverCrash) => [&SWITCHOVER_STEPS[..], &LATE_SWITCHOVER_STEPS, service].concat(),
        // A step of the second half is tried again when it fails, and the switchover succeeds.
        (true, Fault::SwitchoverFails) => SWITCHOVER_STEPS.into(),
        (true, _) => {
            let databases = TARGET_STEPS.into_iter().filter(|step| !step.starts_with("start_"));
            databases.chain(service.iter().copied()).collect()
        }
    }
}

/// Whether it may strike while a switchover is under way: it neither gives orders itself, nor waits for what an order
/// would change.
fn can_follow_an_order(fault: Fault) -> bool {
    [
        Fault::PowerLoss,
        Fault::AgentKill,
        Fault::AgentFreeze,
        Fault::HostFreeze,
        Fault::MysqldKill,
        Fault::MysqldFreeze,
        Fault::RedisKill,
        Fault::GatewayCut,
        Fault::LinkDown,
        Fault::PartitionPrimary,
        Fault::PartitionPair,
        Fault::OneWayIn,
        Fault::OneWayOut,
        Fault::PrimaryWitnessCut,
        Fault::WitnessLoss,
        Fault::BackupLoss,
        Fault::QuorumLoss,
    ]
    .contains(&fault)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_rounds() {
        let rounds = |seed| (1..=200).map(|number| Round::draw(seed, number, false)).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
        // A round does not depend on those before it, so that it can be played by itself.
        assert_eq!(Round::draw(7, 150, false), rounds(7)[149]);
    }

    #[test]
    fn every_fault_and_every_step_is_drawn_sooner_or_later() {
        let rounds: Vec<Round> = (1..=5_000).map(|number| Round::draw(1, number, true)).collect();
        let drawn: BTreeSet<Fault> = rounds.iter().map(|round| round.fault).collect();
        assert_eq!(drawn.len(), Fault::ALL.len());
        for fault in Fault::ALL.iter().copied().filter(|fault| fault.strikes_at_a_step()) {
            let at = |round: &Round| (round.fault == fault).then(|| round.at.clone()).flatten();
            let struck: BTreeSet<String> = rounds.iter().filter_map(at).collect();
            assert_eq!(struck.len(), steps(fault, true).len() * POINTS.len(), "{}", fault.name());
        }
        let begun = rounds.iter().filter(|round| round.begun.is_some()).count();
        assert!((250..1_000).contains(&begun), "{begun}");
        assert!(rounds.iter().all(|round| round.begun.is_none() || round.at.is_none()));
    }

    #[test]
    fn without_container_engines_no_service_is_lost() {
        let gone =
            |docker| (1..=2_000).any(|number| Round::draw(3, number, docker).fault == Fault::ServiceGone);
        assert!(gone(true) && !gone(false));
        for step in SERVICE_STEPS {
            assert!(TARGET_STEPS.contains(&step));
            let struck = |docker| {
                let mut rounds = (1..=2_000).map(move |number| Round::draw(3, number, docker));
                rounds.any(|round| round.at.is_some_and(|at| at.starts_with(step)))
            };
            assert!(struck(true) && !struck(false), "{step}");
        }
        let again = |docker| Round::draw(3, 1, docker).again("mariadb");
        assert!(
            again(true).ends_with(" --docker") && !again(false).contains("docker"),
            "it is drawn otherwise"
        );
    }

    #[test]
    fn a_switchover_under_way_widens_what_is_expected() {
        let mut round = Round { begun: None, fault: Fault::PowerLoss, ..Round::draw(1, 1, false) };
        assert_eq!(round.expectation(), Fault::PowerLoss.expectation());
        round.begun = Some(Begun { ms_before: 1, at: Port::Mon });
        assert!(round.expectation().changes.admits(2) && !round.expectation().changes.admits(3));
        assert!(!round.expectation().loses);
    }
}
