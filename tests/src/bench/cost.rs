//! What an idle agent costs: processor, memory, and the price of one renewal of the lease.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde::Serialize;

use crate::lab::{Driver, Lab, Options, Port, agents, wait};

/// How long the agents are watched doing nothing.
const WATCHED: Duration = Duration::from_secs(60);
/// Renewals per second in the `standard` profile: one every 0.2 s.
const RENEWALS_PER_SECOND: f64 = 5.0;
/// The thread of an agent that renews the lease.
const LEASE_THREAD: &str = "baton-lease";

/// The cost of an idle agent.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Share of one core, percent; of the three agents the one that takes most.
    pub cpu_percent: f64,
    /// Resident memory, MiB; of the three agents the one that takes most.
    pub resident_mib: f64,
    /// Processor time of the holder's lease thread per renewal, microseconds.
    pub renewal_us: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_percent, resident_mib, renewal_us } = self;
        write!(
            f,
            "idle agent: {cpu_percent:.2} % of a core, {resident_mib:.1} MiB, {renewal_us:.0} us per renewal"
        )
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
    let pid = |port: Port| lab.host(port).process("agent")?.pid().context("the agent has ended");
    let pids = agents::NODES.into_iter().map(pid).collect::<Result<Vec<_>>>()?;
    let before = pids.iter().map(|pid| busy(*pid, None)).collect::<Result<Vec<_>>>()?;
    let lease_before = busy(pid(holder)?, Some(LEASE_THREAD))?;
    let started = Instant::now();
    wait::pass(WATCHED)?;
    let elapsed = started.elapsed();
    let mut cost = Cost { cpu_percent: 0.0, resident_mib: 0.0, renewal_us: 0.0 };
    for (pid, before) in pids.iter().zip(before) {
        let share = (busy(*pid, None)? - before).as_secs_f64() / elapsed.as_secs_f64();
        cost.cpu_percent = cost.cpu_percent.max(share * 100.0);
        cost.resident_mib = cost.resident_mib.max(resident_mib(*pid)?);
    }
    let lease = busy(pid(holder)?, Some(LEASE_THREAD))? - lease_before;
    cost.renewal_us = lease.as_secs_f64() * 1e6 / (elapsed.as_secs_f64() * RENEWALS_PER_SECOND);
    Ok(cost)
}

/// Processor time so far of all threads of a process, or of those with a name.
fn busy(pid: Pid, named: Option<&str>) -> Result<Duration> {
    let mut busy = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file));
        // A thread may end while the list is read.
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
        if named.is_none_or(|wanted| name.trim() == wanted) {
            let ns = times.split(' ').next().context("schedstat has a first field")?;
            busy += Duration::from_nanos(ns.parse()?);
        }
    }
    Ok(busy)
}

fn resident_mib(pid: Pid) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kib.context("VmRSS is there")?.trim().parse::<f64>()? / 1024.0)
}
