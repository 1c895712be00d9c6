//! Failpoints of the agents: one file per host, in which stands where its agent is to die, to wait or to fail.

use std::path::PathBuf;

use anyhow::Result;

use super::agents::NODES;
use super::wire::Port;
use super::{Host, Lab};

/// What a file says once its agent has obeyed.
const HIT: &str = "hit";

impl Lab {
    /// Names the files to the agents; before they are started.
    pub(super) fn let_agents_be_told(&self) {
        for host in &self.hosts {
            let mut env = host.agent_env.lock().expect("nobody panics with it in hand");
            env.push(("BATON_FAILPOINT".into(), file(host).display().to_string()));
        }
    }

    /// Tells the agent of a host where it is to die, to be held or to fail: `WHERE:WHEN:DO` of the agent's failpoints. Once, but for
    /// `fail-always`, which [`Self::has_struck`] does not show.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn arm(&self, port: Port, at: &str) -> Result<()> {
        let file = file(self.host(port));
        let fresh = file.with_extension("new");
        std::fs::write(&fresh, at)?;
        std::fs::rename(fresh, file)?;
        *self.armed.lock().expect("nobody panics with it in hand") = Some(at.to_owned());
        Ok(())
    }

    /// The step of the newest order, obeyed or not.
    #[must_use]
    pub fn armed_step(&self) -> Option<String> {
        let armed = self.armed.lock().expect("nobody panics with it in hand");
        armed.as_ref().and_then(|order| order.split(':').next()).map(str::to_owned)
    }

    /// Whether an agent has obeyed.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        let said = |port| std::fs::read_to_string(file(self.host(port))).unwrap_or_default();
        NODES.into_iter().any(|port| said(port) == HIT)
    }

    /// Takes every order back: what is held goes on, what has not been obeyed will not be.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn disarm(&self) -> Result<()> {
        for file in self.hosts.iter().map(file).filter(|file| file.exists()) {
            std::fs::remove_file(file)?;
        }
        Ok(())
    }
}

fn file(host: &Host) -> PathBuf {
    host.dir.join("failpoint")
}
