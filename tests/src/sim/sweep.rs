//! Many seeds on several threads, and what is said about a seed that violates something.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum as _;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{Options, Outcome, schedule};

/// Lines of the story that are printed with a violation.
const LAST_LINES: usize = 50;

/// Seeds to run.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// The first seed.
    pub first: u64,
    /// Number of seeds.
    pub seeds: u64,
    /// Number of threads.
    pub threads: usize,
    /// Stops soon after this many violations.
    pub violations_max: usize,
    /// For every world.
    pub options: Options,
}

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that violated something, by seed.
    pub violations: Vec<Outcome>,
    /// Seeds in which the holder changed.
    pub changed: u64,
    /// Seeds with a run that was rolled back or abandoned.
    pub taken_back: u64,
    /// Seeds in which a switchover passed the baton.
    pub switched: u64,
    /// Seeds in which a switchover was taken back.
    pub switch_taken_back: u64,
    /// Seeds in which an operator's word on a loss carried a takeover.
    pub losses: u64,
    /// Seeds in which a pause gave the holder a long lease.
    pub paused: u64,
    /// Seeds in which a survivor was forced to go on alone.
    pub forced: u64,
    /// Those in which the others were not off.
    pub mistaken: u64,
    /// Seeds that need an operator in the end.
    pub needs_operator: u64,
    /// Inputs that cores took.
    pub inputs: u64,
    /// Virtual milliseconds.
    pub lasted_ms: u64,
    /// Writes that were acknowledged.
    pub acked: u64,
    /// Processor time that the threads took, added up.
    pub busy: Duration,
}

/// For machines.
#[derive(Debug, Serialize)]
pub struct Figures {
    schedules_per_second_per_core: f64,
    virtual_seconds_per_second_per_core: f64,
    seeds: u64,
    violations: usize,
    needs_operator: u64,
    holder_changed: u64,
    taken_back: u64,
    switched_over: u64,
    switchover_taken_back: u64,
    loss_accepted: u64,
    paused: u64,
    forced: u64,
    forced_by_mistake: u64,
    inputs: u64,
}

impl Sweep {
    /// Runs them. The order in which seeds are taken decides nothing but where a sweep with violations ends.
    pub fn run(&self) -> Tally {
        let (next, found) = (AtomicU64::new(0), Mutex::new(Tally::default()));
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    let tally = self.work(&next, &found);
                    if let Ok(mut all) = found.lock() {
                        all.add(tally);
                    }
                });
            }
        });
        let mut tally = found.into_inner().unwrap_or_default();
        tally.violations.sort_by_key(|outcome| outcome.seed);
        tally
    }

    fn work(&self, next: &AtomicU64, found: &Mutex<Tally>) -> Tally {
        let (began, mut tally) = (processor_time(), Tally::default());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let enough = found.lock().map_or(true, |all| all.violations.len() >= self.violations_max);
            if index >= self.seeds || enough {
                break;
            }
            let outcome = schedule(self.first + index, self.options);
            let violated = tally.take(outcome);
            if let (Some(outcome), Ok(mut all)) = (violated, found.lock()) {
                all.violations.push(outcome);
            }
        }
        tally.busy = processor_time().saturating_sub(began);
        tally
    }
}

impl Tally {
    fn take(&mut self, outcome: Outcome) -> Option<Outcome> {
        self.seeds += 1;
        self.changed += u64::from(outcome.changes > 0);
        self.taken_back += u64::from(outcome.taken_back > 0);
        self.switched += u64::from(outcome.switched > 0);
        self.switch_taken_back += u64::from(outcome.switch_taken_back > 0);
        self.losses += u64::from(outcome.losses > 0);
        self.paused += u64::from(outcome.long_leases > 0);
        self.forced += u64::from(outcome.forced > 0);
        self.mistaken += u64::from(outcome.mistaken);
        self.needs_operator += u64::from(outcome.needs_operator);
        self.inputs += outcome.inputs;
        self.lasted_ms += outcome.lasted_ms;
        self.acked += outcome.acked as u64;
        outcome.violation.is_some().then_some(outcome)
    }

    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.changed += other.changed;
        self.taken_back += other.taken_back;
        self.switched += other.switched;
        self.switch_taken_back += other.switch_taken_back;
        self.losses += other.losses;
        self.paused += other.paused;
        self.forced += other.forced;
        self.mistaken += other.mistaken;
        self.needs_operator += other.needs_operator;
        self.inputs += other.inputs;
        self.lasted_ms += other.lasted_ms;
        self.acked += other.acked;
        self.busy += other.busy;
    }

    /// Schedules that one core does in a second.
    pub fn per_second(&self) -> f64 {
        self.seeds as f64 / self.seconds()
    }

    fn seconds(&self) -> f64 {
        self.busy.as_secs_f64().max(0.001)
    }

    /// For machines.
    pub fn figures(&self) -> Figures {
        Figures {
            schedules_per_second_per_core: (self.per_second() * 10.0).round() / 10.0,
            virtual_seconds_per_second_per_core: (self.lasted_ms as f64 / 1_000.0 / self.seconds()).round(),
            seeds: self.seeds,
            violations: self.violations.len(),
            needs_operator: self.needs_operator,
            holder_changed: self.changed,
            taken_back: self.taken_back,
            switched_over: self.switched,
            switchover_taken_back: self.switch_taken_back,
            loss_accepted: self.losses,
            paused: self.paused,
            forced: self.forced,
            forced_by_mistake: self.mistaken,
            inputs: self.inputs,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds, {} violations; holder changed in {}, a run taken back in {}, {} need an operator; \
             a switchover passed the baton in {} and was taken back in {}, a loss was accepted in {}, \
             a pause gave a long lease in {}, one went on alone in {}, by mistake in {}; \
             {} writes acknowledged; {:.0} schedules of {:.0} virtual seconds per second and core",
            self.seeds,
            self.violations.len(),
            self.changed,
            self.taken_back,
            self.needs_operator,
            self.switched,
            self.switch_taken_back,
            self.losses,
            self.paused,
            self.forced,
            self.mistaken,
            self.acked,
            self.per_second(),
            self.lasted_ms as f64 / 1_000.0 / self.seeds.max(1) as f64
        )
    }
}

/// What this thread had of a processor: other programs on the machine must not show in a figure per core.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Seed, invariant, what happened last, and the command that shows it again.
pub fn reproduce(failed: &Outcome, options: Options) -> String {
    let again = schedule(failed.seed, Options { trace: true, ..options });
    let last = again.trace.len().saturating_sub(LAST_LINES);
    let mut lines: Vec<String> = again.trace[last..].iter().map(|line| format!("  {line}")).collect();
    if let Some(found) = &failed.violation {
        lines.push(format!(
            "seed {}, {} ms: {} is violated: {}",
            failed.seed, found.at, found.invariant, found.detail
        ));
    }
    let planted = options.planted.and_then(|planted| planted.to_possible_value());
    let planted = planted.map_or_else(String::new, |planted| format!(" --planted {}", planted.get_name()));
    let seed = failed.seed;
    lines.push(format!(
        "again: cargo run --release -p baton-tests --bin simulate -- --seed {seed} --trace{planted}"
    ));
    lines.join("\n")
}
