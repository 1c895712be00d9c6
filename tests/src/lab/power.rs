//! Power of hosts, and the life of agents.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;

use super::{DATA, Lab, Port, process, wait};

impl Lab {
    /// Power loss: off the wire, every process killed, nothing left in the kernel.
    ///
    /// # Errors
    /// The kernel refuses, or something survives.
    pub fn power_off(&self, port: Port) -> Result<()> {
        self.host(port).powered.store(false, Ordering::SeqCst);
        self.wire.carrier(port, false)?;
        process::kill_all(&self.wire.path(port))?;
        self.wire.address(port)
    }

    /// The agent of a host is killed and stays down, until [`Lab::start_driver`]. All else lives on.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_driver(&self, port: Port) -> Result<()> {
        let host = self.host(port);
        let agent = host.process("agent")?;
        // A service manager starts nothing again without power.
        host.powered.store(false, Ordering::SeqCst);
        agent.signal(nix::sys::signal::Signal::SIGKILL)?;
        wait::until_true("the agent to end", Duration::from_secs(10), || Ok(agent.pid().is_none()))?;
        wait::pass(2 * process::RESTART_AFTER)?;
        host.powered.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Power is back: the host boots, its servers and its agent start as they always do.
    ///
    /// # Errors
    /// Something does not start.
    pub fn power_on(&self, port: Port) -> Result<()> {
        self.host(port).powered.store(true, Ordering::SeqCst);
        self.wire.carrier(port, true)?;
        if DATA.contains(&port) {
            self.start_servers(port)?;
        }
        self.start_driver(port)
    }
}
