//! Starting what runs on a host: its servers, and who decides who serves.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::process::{self, Spec};
use super::wire::{INTERFACE, VIP};
use super::{
    DATA, Driver, Host, Lab, Port, VIP_LIMIT, agents, database, docker, keepalived, pacemaker, redis,
    sentinel, shell, sweep, wait,
};

impl Lab {
    /// Makes the directories of a host and starts its servers for the first time.
    pub(super) fn prepare(&self, host: &Host, template: &Path, archive: Option<&Path>) -> Result<()> {
        for part in ["state", "tmp", "redis", "docker", database::DISK] {
            std::fs::create_dir_all(host.dir.join(part))?;
        }
        if !DATA.contains(&host.port) {
            return Ok(());
        }
        let flavour = self.options.flavour;
        if self.options.small_disk {
            let size = format!("size={}m", flavour.small_disk_mib());
            let disk = host.dir.join(database::DISK).display().to_string();
            shell::run("mount", &["-t", "tmpfs", "-o", &size, "baton-lab", &disk])?;
        }
        let data_dir = database::data_dir(&host.dir).display().to_string();
        shell::run("cp", &["-a", &template.display().to_string(), &data_dir])?;
        let address = host.port.address().to_string();
        let primary = (host.port != Port::Db1).then(|| Port::Db1.address().to_string());
        let redis = redis::configuration(&host.dir, &address, primary.as_deref());
        std::fs::write(host.dir.join("redis.conf"), redis)?;
        database::write_scripts(flavour, &host.dir, host.port.address().octets()[3], &address)?;
        if let Some(path) = flavour.tools(&host.dir.join("bin"))? {
            host.agent_env.lock().expect("nobody panics with it in hand").push(("PATH".into(), path));
        }
        self.start_servers(host.port)?;
        if let Some(primary) = &primary {
            database::follow(flavour, &host.mysql(), primary)?;
        }
        archive.map_or(Ok(()), |archive| docker::prepare(&host.dir, archive))
    }

    pub(super) fn start(
        &self,
        port: Port,
        name: &'static str,
        program: &str,
        args: Vec<String>,
        restart: bool,
    ) -> Result<()> {
        let host = self.host(port);
        let env = if name == "agent" { Arc::clone(&host.agent_env) } else { Arc::default() };
        let process = process::start(Spec {
            name: format!("{name}-{}", port.name()),
            netns: self.wire.netns(port),
            program: program.to_owned(),
            args,
            env,
            log: host.dir.join(format!("{name}.log")),
            restart,
            powered: Arc::clone(&host.powered),
        })?;
        host.processes.lock().expect("nobody panics with the list in hand").insert(name, process);
        Ok(())
    }

    /// Starts the servers of a data node and waits until they answer.
    ///
    /// # Errors
    /// One does not start.
    pub fn start_servers(&self, port: Port) -> Result<()> {
        let host = self.host(port);
        self.start_server(port, "mysqld")?;
        self.start_server(port, "redis")?;
        if self.options.docker {
            let dockerd = docker::arguments(&host.dir, &sweep::cgroup(&self.id));
            self.start(port, "dockerd", "dockerd", dockerd, false)?;
        }
        redis::wait_ready(&host.redis())?;
        database::wait_ready(&host.mysql())
    }

    /// Starts one of `mysqld` and `redis`, and does not wait for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_server(&self, port: Port, name: &'static str) -> Result<()> {
        let host = self.host(port);
        if name == "redis" {
            return self.start(
                port,
                name,
                "redis-server",
                vec![host.dir.join("redis.conf").display().to_string()],
                false,
            );
        }
        let (server_id, address) = (port.address().octets()[3], port.address().to_string());
        let (program, mysqld) = database::command(self.options.flavour, &host.dir, server_id, &address)?;
        self.start(port, name, &program, mysqld, false)
    }

    /// Starts who decides on a host, if the lab has one. keepalived's backup is started only when the master serves,
    /// otherwise it promotes itself at once.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_driver(&self, port: Port) -> Result<()> {
        match &self.options.driver {
            Driver::Agents { .. } => {
                let config = self.config.as_ref().context("the configuration is made before")?;
                let args = ["agent", "--config", &config.display().to_string(), "--node", port.name()];
                let program = agents::program()?.display().to_string();
                self.start(port, "agent", &program, args.map(String::from).into(), true)
            }
            Driver::Keepalived { advert_ms } => {
                let Some(peer) =
                    DATA.into_iter().find(|other| *other != port).filter(|_| DATA.contains(&port))
                else {
                    return Ok(());
                };
                if port == Port::Db1 {
                    self.serve_by_hand(port, false)?;
                }
                let args = keepalived::prepare(&self.host(port).dir, port, peer, *advert_ms)?;
                self.start(port, "keepalived", "keepalived", args, false)?;
                if port == Port::Db1 { self.wait_serving().map(drop) } else { self.replicate_by_hand(port) }
            }
            Driver::Sentinel => sentinel::start(self, port),
            Driver::Pacemaker => pacemaker::start(self, port),
            Driver::Nobody => Ok(()),
        }
    }

    /// Opens the databases of a node as an administrator would, with semi-synchronous replication, and takes the
    /// virtual IP if asked.
    ///
    /// # Errors
    /// A server or the kernel refuses.
    pub fn serve_by_hand(&self, port: Port, with_vip: bool) -> Result<()> {
        let host = self.host(port);
        database::query(&host.mysql(), self.flavour().semi_sync(true))?;
        database::query(&host.mysql(), self.flavour().open())?;
        redis::ask::<String>(&host.redis(), &["REPLICAOF", "NO", "ONE"])?;
        redis::ask::<String>(&host.redis(), &["CONFIG", "SET", "min-replicas-to-write", "0"])?;
        if with_vip {
            let vip = format!("{VIP}/24");
            shell::run("ip", &["-n", &self.wire.netns(port), "addr", "add", &vip, "dev", INTERFACE])?;
        }
        Ok(())
    }

    /// Starts replication on a node and waits until both its databases follow.
    ///
    /// # Errors
    /// They do not within 30 s.
    pub fn replicate_by_hand(&self, port: Port) -> Result<()> {
        database::query(&self.host(port).mysql(), self.flavour().start_replica())?;
        self.wait_replicating(port)
    }

    /// Waits until both databases of a node follow.
    ///
    /// # Errors
    /// They do not within 30 s.
    pub fn wait_replicating(&self, port: Port) -> Result<()> {
        let host = self.host(port);
        wait::until_true("the database to replicate", VIP_LIMIT, || {
            let rows = database::query(&host.mysql(), self.flavour().replica_status())?;
            Ok(rows.first().is_some_and(|row| self.flavour().replicates(row)))
        })?;
        wait::until_true("Redis to replicate", VIP_LIMIT, || {
            Ok(redis::replication(&host.redis(), "master_link_status")? == "up")
        })
    }
}
