//! What an idle agent costs: processor, memory, and the price of one renewal of the lease.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

use crate::lab::{Driver, Lab, Options, Port, agents, process, wait};

/// How long the agents are watched doing nothing.
const WATCHED: Duration = Duration::from_secs(60);
/// An agent that has just started is not idle yet: links are dialed, the replica catches up.
const WARM_UP: Duration = Duration::from_secs(10);
/// Renewals per second in the `standard` profile: one every 0.2 s.
const RENEWALS_PER_SECOND: f64 = 5.0;
/// How often the thread wakes that does nothing else, about as often as the threads of an agent together, and for how long.
const BARE_EVERY: Duration = Duration::from_millis(10);
const BARE_WAKEUPS: u32 = 500;
/// The thread of an agent that renews the lease.
const LEASE_THREAD: &str = "baton-lease";

/// The cost of an idle agent.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Share of one core, percent; of the three agents the one that takes most.
    pub cpu_percent: f64,
    /// Resident memory, MiB; of the three agents the one that takes most.
    pub resident_mib: f64,
    /// Processor time of the holder's lease thread per renewal, microseconds.
    pub renewal_us: f64,
    /// Processor time of a thread that wakes a hundred times a second and does nothing, per wake-up, microseconds: what this machine
    /// takes before any work is done.
    pub bare_wakeup_us: f64,
    /// Each agent by itself.
    pub agents: Vec<AgentCost>,
}

/// One agent's part.
#[derive(Debug, Clone, Serialize)]
pub struct AgentCost {
    /// Which.
    pub node: &'static str,
    /// Resident memory, MiB.
    pub resident_mib: f64,
    /// By the name of the thread.
    pub threads: BTreeMap<String, ThreadCost>,
}

/// All threads of one name.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct ThreadCost {
    /// Share of one core, percent.
    pub cpu_percent: f64,
    /// How often it went to sleep and was woken, per second.
    pub wakeups_per_s: f64,
}

impl AgentCost {
    fn cpu_percent(&self) -> f64 {
        self.threads.values().map(|thread| thread.cpu_percent).sum()
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_percent, resident_mib, renewal_us, bare_wakeup_us, agents } = self;
        write!(
            f,
            "idle agent: {cpu_percent:.2} % of a core, {resident_mib:.1} MiB, {renewal_us:.0} us per renewal; a wake-up in which \
             nothing is done costs {bare_wakeup_us:.0} us on this machine"
        )?;
        for agent in agents {
            let (node, share, mib) = (agent.node, agent.cpu_percent(), agent.resident_mib);
            write!(f, "\n  {node:<4} {share:.2} %, {mib:.1} MiB:")?;
            for (name, ThreadCost { cpu_percent, wakeups_per_s }) in &agent.threads {
                write!(f, " {name} {cpu_percent:.2} % ({wakeups_per_s:.0}/s)")?;
            }
        }
        Ok(())
    }
}

/// Watches three idle agents for a minute.
///
/// # Errors
/// The lab does not come up, or an agent ends meanwhile.
pub fn measure(driver: Driver) -> Result<Cost> {
    let lab = Lab::up(Options::plain(driver))?;
    let holder = wait::until("a healthy cluster", WATCHED, || {
        let standing = lab.standing()?;
        Ok(standing.holder.filter(|_| standing.ok))
    })?;
    wait::pass(WARM_UP)?;
    let pid = |port: Port| lab.host(port).process("agent")?.pid().context("the agent has ended");
    let pids = agents::NODES.into_iter().map(pid).collect::<Result<Vec<_>>>()?;
    let before = pids.iter().map(|pid| used(*pid)).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    wait::pass(WATCHED)?;
    let seconds = started.elapsed().as_secs_f64();
    let mut each = Vec::new();
    for ((port, pid), before) in agents::NODES.into_iter().zip(&pids).zip(before) {
        let threads = used(*pid)?.into_iter().map(|(name, now)| {
            let then = before.get(&name).copied().unwrap_or_default();
            let busy = now.busy.saturating_sub(then.busy).as_secs_f64();
            let wakeups_per_s = now.wakeups.saturating_sub(then.wakeups) as f64 / seconds;
            (name, ThreadCost { cpu_percent: busy / seconds * 100.0, wakeups_per_s })
        });
        let threads = threads.collect();
        each.push(AgentCost { node: port.name(), resident_mib: resident_mib(*pid)?, threads });
    }
    let holder = each.iter().find(|agent| agent.node == holder.name());
    let lease = holder.and_then(|agent| agent.threads.get(LEASE_THREAD)).context("the holder renews")?;
    Ok(Cost {
        cpu_percent: each.iter().map(AgentCost::cpu_percent).fold(0.0, f64::max),
        resident_mib: each.iter().map(|agent| agent.resident_mib).fold(0.0, f64::max),
        renewal_us: lease.cpu_percent / 100.0 * 1e6 / RENEWALS_PER_SECOND,
        bare_wakeup_us: bare_wakeup_us()?,
        agents: each,
    })
}

/// What a wake-up costs in which nothing is done, while the agents idle on.
fn bare_wakeup_us() -> Result<f64> {
    let slept = std::thread::spawn(|| -> Result<Duration> {
        let before = own_time()?;
        (0..BARE_WAKEUPS).for_each(|_| std::thread::park_timeout(BARE_EVERY));
        Ok(own_time()?.saturating_sub(before))
    });
    let busy = slept.join().map_err(|_| anyhow!("the thread that only wakes has panicked"))??;
    Ok(busy.as_secs_f64() * 1e6 / f64::from(BARE_WAKEUPS))
}

/// Processor time of the calling thread.
fn own_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What the threads of one name have used so far.
#[derive(Debug, Default, Clone, Copy)]
struct Used {
    busy: Duration,
    wakeups: u64,
}

/// What the threads of a process have used so far, by name.
fn used(pid: Pid) -> Result<BTreeMap<String, Used>> {
    let mut threads: BTreeMap<String, Used> = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file));
        // A thread may end while the list is read.
        let (Ok(name), Ok(times), Ok(status)) = (read("comm"), read("schedstat"), read("status")) else {
            continue;
        };
        let ns = times.split(' ').next().context("schedstat has a first field")?;
        let slept = field(&status, "voluntary_ctxt_switches:").context("status counts switches")?;
        let used = threads.entry(name.trim().to_owned()).or_default();
        used.busy += Duration::from_nanos(ns.parse()?);
        used.wakeups += slept.parse::<u64>()?;
    }
    Ok(threads)
}

fn resident_mib(pid: Pid) -> Result<f64> {
    Ok(process::resident_kib(pid)? / 1024.0)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
