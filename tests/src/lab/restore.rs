//! A lab that stands on: after a fault everything is on again that was off, as if somebody had gone along the rack.
//!
//! What the product has to do by itself is left to it: nobody closes, opens or attaches a database here.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::agents::{self, NODES};
use super::wire::Port;
use super::{DATA, Lab, process, redis, wait};

/// A server that is away for so long has nobody who starts it again: a resync keeps it away for less, but for the copy.
const AWAY: Duration = Duration::from_secs(4);
/// Programs that may be a data node's database.
const DATABASES: [&str; 2] = ["mariadbd", "mysqld"];

impl Lab {
    /// Mends links, thaws processes, takes failpoints back, and switches on what has no power.
    ///
    /// # Errors
    /// The kernel refuses, or a server does not start.
    pub fn restore(&self) -> Result<()> {
        self.wire.mend()?;
        self.disarm()?;
        for port in NODES {
            if !self.host(port).has_power() {
                self.power_on(port)?;
                continue;
            }
            self.wire.carrier(port, true)?;
            let _ = process::signal_all(&self.wire.path(port), Signal::SIGCONT);
        }
        Ok(())
    }

    /// Waits until a takeover would work, every agent says so of the same epoch, and both kinds of data are replicated. A
    /// server that stays away meanwhile is started again, as its service manager would, and a pause is ended.
    ///
    /// # Errors
    /// It does not come to that within `limit`.
    pub fn whole(&self, limit: Duration) -> Result<agents::Standing> {
        let mut missed: [Option<Instant>; DATA.len()] = [None; DATA.len()];
        wait::until("a whole cluster", limit, || {
            for (port, missed) in DATA.into_iter().zip(&mut missed) {
                self.start_again(port, missed)?;
            }
            self.resume()?;
            self.is_whole().map(Some)
        })
    }

    fn is_whole(&self) -> Result<agents::Standing> {
        let config = self.config.as_ref().context("no agents in this lab")?;
        let mut epochs = Vec::new();
        let mut newest = None;
        for port in NODES {
            let standing = agents::standing(config, port)?;
            if !(standing.ok && standing.in_sync && standing.leader.is_some()) {
                bail!("{} says: {}", port.name(), standing.text);
            }
            epochs.push((standing.epoch, standing.holder));
            newest = Some(standing);
        }
        let standing = newest.context("three nodes")?;
        let holder = standing.holder.context("nobody holds the baton")?;
        if epochs.iter().any(|seen| *seen != (standing.epoch, standing.holder)) {
            bail!("the agents speak of different epochs: {epochs:?}");
        }
        if self.serving()? != Some(holder) {
            bail!("{} does not serve", holder.name());
        }
        let replica = DATA.into_iter().find(|port| *port != holder).context("two data nodes")?;
        if redis::replication(&self.host(replica).redis(), "master_link_status")? != "up" {
            bail!("Redis on {} does not follow", replica.name());
        }
        DATA.into_iter().try_for_each(|port| self.adopt(port))?;
        Ok(standing)
    }

    /// Starts a server that has been missed for long.
    fn start_again(&self, port: Port, missed: &mut Option<Instant>) -> Result<()> {
        let away = [("mysqld", self.database(port)), ("redis", self.running(port, &["redis-server"]))];
        if away.iter().all(|(_, pid)| pid.is_some()) || self.is_resynced(port) {
            *missed = None;
            return Ok(());
        }
        if missed.get_or_insert_with(Instant::now).elapsed() < AWAY {
            return Ok(());
        }
        *missed = None;
        for (name, _) in away.into_iter().filter(|(_, pid)| pid.is_none()) {
            self.start_server(port, name)?;
        }
        Ok(())
    }

    /// Whether the agent keeps the database away to replace it.
    fn is_resynced(&self, port: Port) -> bool {
        let under_way = || -> Result<bool> {
            let config = self.config.as_ref().context("no agents in this lab")?;
            let status = agents::ask(config, port, &["status"])?;
            let rows = status["nodes"].as_array().context("no nodes in the status")?;
            let row = rows.iter().find(|row| row["name"] == port.name()).context("the node has no row")?;
            Ok(!matches!(row["resync"]["phase"].as_str(), None | Some("done" | "stuck")))
        };
        // An agent that does not answer replaces nothing.
        under_way().unwrap_or(false)
    }

    fn resume(&self) -> Result<()> {
        let config = self.config.as_ref().context("no agents in this lab")?;
        let status = agents::ask(config, Port::Mon, &["status"])?;
        if status["paused"].is_object() {
            let (code, said) = agents::order(config, Port::Mon, &["resume", "--yes"])?;
            if code != 0 {
                bail!("baton resume ended with {code}: {said}");
            }
        }
        Ok(())
    }

    /// The process of a data node's database, whoever started it.
    #[must_use]
    pub fn database(&self, port: Port) -> Option<Pid> {
        self.running(port, &DATABASES)
    }

    fn running(&self, port: Port, names: &[&str]) -> Option<Pid> {
        process::in_netns(&self.wire.path(port)).into_iter().find(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            // What a loader of its own has started goes by the loader's name.
            let is_it = names.contains(&name.trim()) || names.iter().any(|name| is_loaded(*pid, name));
            is_it && process::state(*pid) != Some('Z')
        })
    }

    /// After a resync the database is a process that the agent has started: from here on it is the lab's.
    fn adopt(&self, port: Port) -> Result<()> {
        let host = self.host(port);
        let known = host.process("mysqld").ok().and_then(|process| process.pid());
        let runs = self.database(port).with_context(|| format!("{} has no database", port.name()))?;
        if known != Some(runs) {
            let adopted = process::adopt(format!("mysqld-{}", port.name()), runs)?;
            host.processes.lock().expect("nobody panics with the list in hand").insert("mysqld", adopted);
        }
        Ok(())
    }
}

/// Whether a loader was called with a program of this name.
fn is_loaded(pid: Pid, name: &str) -> bool {
    let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split('\0').any(|argument| Path::new(argument).file_name().is_some_and(|file| file == name))
}
