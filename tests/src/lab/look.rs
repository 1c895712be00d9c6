//! Looking at a lab from outside: who serves, what agents say, what clients see, what the databases hold.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use baton_chaos::arp::WatchOptions;
use baton_chaos::check::Finals;
use baton_chaos::history::{Kind, Origin};
use baton_chaos::load::{LoadOptions, MysqlTarget, RedisTarget};

use super::wire::{ARP_SENDERS, INTERFACE, VIP};
use super::{DATA, Lab, Port, VIP_LIMIT, agents, database, redis, wait};

impl Lab {
    /// Waits until a data node with power has the virtual IP and a database that takes writes, and says which.
    ///
    /// # Errors
    /// None does within 30 s.
    pub fn wait_serving(&self) -> Result<Port> {
        wait::until("a node to serve", VIP_LIMIT, || self.serving())
    }

    /// The kinds of data that are looked after.
    #[must_use]
    pub fn kinds(&self) -> &'static [Kind] {
        self.options.driver.kinds()
    }

    /// Which data node has the virtual IP and databases that take writes.
    ///
    /// # Errors
    /// A namespace is gone.
    pub fn serving(&self) -> Result<Option<Port>> {
        for port in DATA {
            let host = self.host(port);
            let opened = |kind: &Kind| match kind {
                Kind::Mysql => database::value(&host.mysql(), "SELECT @@global.read_only")
                    .is_ok_and(|value| value == "0"),
                Kind::Redis => redis::replication(&host.redis(), "role").is_ok_and(|role| role == "master"),
            };
            let has_address = host.has_power() && self.wire.has_address(port, VIP)?;
            if has_address && self.kinds().iter().all(opened) {
                return Ok(Some(port));
            }
        }
        Ok(None)
    }

    /// What an agent that answers says of the cluster.
    ///
    /// # Errors
    /// None answers.
    pub fn standing(&self) -> Result<agents::Standing> {
        let config = self.config.as_ref().context("no agents in this lab")?;
        let mut refused = anyhow::anyhow!("no host has power");
        // The witness first: it is the last to be in trouble.
        for host in self.hosts.iter().rev().filter(|host| host.has_power()) {
            match agents::standing(config, host.port) {
                Ok(standing) => return Ok(standing),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// The writer behind the virtual IP.
    #[must_use]
    pub fn load(&self, origin: Origin) -> LoadOptions {
        let vip = |port| SocketAddr::new(IpAddr::V4(VIP), port);
        let mysql = MysqlTarget {
            address: vip(database::PORT),
            user: "app".into(),
            password: database::PASSWORD.into(),
            schema: database::APP_SCHEMA.into(),
            table: "writes".into(),
        };
        LoadOptions {
            netns: Some(self.wire.path(Port::Client)),
            mysql: self.kinds().contains(&Kind::Mysql).then_some(mysql),
            redis: Some(RedisTarget::plain(vip(redis::PORT))),
            ..LoadOptions::every_10_ms(origin)
        }
    }

    /// The watch on who answers for the virtual IP.
    #[must_use]
    pub fn watch(&self, origin: Origin) -> WatchOptions {
        WatchOptions {
            netns: Some(self.wire.path(Port::Observer)),
            interface: INTERFACE.into(),
            vip: VIP,
            senders: ARP_SENDERS,
            period: Duration::from_millis(10),
            origin,
        }
    }

    /// What the databases of a node hold. A kind that cannot be read is missing from the answer.
    #[must_use]
    pub fn contents(&self, port: Port) -> Finals {
        let host = self.host(port);
        let mysql = database::contents(&host.mysql()).map(|ids| (Kind::Mysql, ids));
        let redis = redis::contents(&host.redis()).map(|ids| (Kind::Redis, ids));
        Finals([mysql, redis].into_iter().flatten().collect())
    }

    /// The same of some writes, in a lab that has had many.
    #[must_use]
    pub fn contents_of(&self, port: Port, ids: Range<u64>) -> Finals {
        let host = self.host(port);
        let mysql = database::contents_of(&host.mysql(), ids.clone()).map(|ids| (Kind::Mysql, ids));
        let redis = redis::contents_of(&host.redis(), ids).map(|ids| (Kind::Redis, ids));
        Finals([mysql, redis].into_iter().flatten().collect())
    }
}
