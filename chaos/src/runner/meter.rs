//! What the client sees while a drill goes on: writes through the virtual IP, new connections and reads, and who answers
//! for it.
//!
//! The writes go to a table and to keys of their own, numbered by the drill, and are removed afterwards if the account may.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use baton_node::api::drill::DrillId;
use baton_node::config::Config;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};

use crate::arp::{Watch, WatchOptions};
use crate::check::Finals;
use crate::history::{History, Kind, Origin};
use crate::load::{Load, LoadOptions, MysqlTarget, RedisTarget, schema_sql};

/// The table of the writes, and the beginning of the keys.
const TABLE: &str = "drill_writes";
/// Ids that one drill may use: a day of writes every 10 ms, and more.
const IDS: u64 = 10_000_000;
/// How long a connection, or a statement, may take.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How long the contents may take to be readable when all is over.
const READ_WITHIN: Duration = Duration::from_secs(20);
/// Time between two visits of the client that keeps no connection. It is the error of its two gaps; a login costs a server
/// more than a write, so there are fewer of them.
const VISIT_EVERY: Duration = Duration::from_millis(50);
/// Time between two ARP requests.
const ARP_PERIOD: Duration = Duration::from_millis(10);
/// Keys of Redis in one command.
const KEYS_AT_ONCE: usize = 500;

/// Where a drill writes.
#[derive(Debug, Clone)]
pub struct Seat {
    mysql: Option<MysqlTarget>,
    redis: Option<RedisTarget>,
    arp: Option<(String, std::net::Ipv4Addr, std::net::Ipv4Addr)>,
    first_id: u64,
}

impl Seat {
    /// The client's seat as the configuration describes it.
    ///
    /// # Errors
    /// A password cannot be read, or no account may write.
    pub fn new(config: &Config, number: DrillId) -> Result<Self, String> {
        let vip = config.vips.first().map(|vip| vip.address.addr()).ok_or("no virtual IP")?;
        let mysql = match &config.mysql {
            Some(mysql) => Some(mysql_target(config, mysql, vip)?),
            None => None,
        };
        let redis = config.redis.as_ref().map(|redis| -> Result<_, String> {
            let password = redis.read_password().map_err(|error| error.to_string())?;
            let user = redis.user.clone().unwrap_or_default();
            let login = (redis.password_file.is_some()).then(|| (user, password.expose().to_owned()));
            let address = SocketAddr::new(vip, redis.port);
            Ok(RedisTarget { address, prefix: format!("{TABLE}:{number}:"), login })
        });
        let arp = config.drill.arp_senders.and_then(|senders| {
            let vip_entry = config.vips.first()?;
            let IpAddr::V4(vip) = vip else { return None };
            Some((vip_entry.interface.clone(), vip, senders))
        });
        Ok(Self { mysql, redis: redis.transpose()?, arp, first_id: number.0.saturating_mul(IDS) })
    }

    /// Which databases are written to.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let mysql = self.mysql.as_ref().map(|_| Kind::Mysql);
        mysql.into_iter().chain(self.redis.as_ref().map(|_| Kind::Redis)).collect()
    }

    /// Makes the table, through the virtual IP.
    ///
    /// # Errors
    /// What the server or the way to it said.
    pub async fn prepare(&self) -> Result<(), String> {
        let Some(mysql) = &self.mysql else { return Ok(()) };
        let mut conn = dial(mysql).await?;
        ask(conn.query_drop(schema_sql(TABLE))).await
    }

    /// Begins to write and to ask.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(&self, origin: Origin) -> Result<Meter, String> {
        let options = LoadOptions {
            mysql: self.mysql.clone(),
            redis: self.redis.clone(),
            visit_every: Some(VISIT_EVERY),
            first_id: self.first_id,
            ..LoadOptions::every_10_ms(origin)
        };
        let load = Load::start(options).map_err(|error| error.to_string())?;
        let watch = self.arp.clone().map(|(interface, vip, senders)| {
            Watch::start(WatchOptions { netns: None, interface, vip, senders, period: ARP_PERIOD, origin })
        });
        let watch = watch.transpose().map_err(|error| error.to_string())?;
        Ok(Meter { load, watch, kinds: self.kinds() })
    }

    /// What is there of the drill's writes, read through the virtual IP. A kind that cannot be read is missing.
    pub async fn contents(&self) -> Finals {
        let mut finals = Finals::default();
        let until = Instant::now() + READ_WITHIN;
        loop {
            if let (Some(mysql), false) = (&self.mysql, finals.0.contains_key(&Kind::Mysql))
                && let Ok(there) = self.rows(mysql).await
            {
                finals.0.insert(Kind::Mysql, there);
            }
            if let (Some(redis), false) = (&self.redis, finals.0.contains_key(&Kind::Redis))
                && let Ok(there) = self.keys(redis).await
            {
                finals.0.insert(Kind::Redis, there.into_iter().map(|(id, times, _)| (id, times)).collect());
            }
            if finals.0.len() == self.kinds().len() || Instant::now() >= until {
                return finals;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn rows(&self, mysql: &MysqlTarget) -> Result<BTreeMap<u64, u32>, String> {
        let mut conn = dial(mysql).await?;
        let (from, to) = (self.first_id, self.first_id + IDS);
        let text = format!("SELECT id, COUNT(*) FROM {TABLE} WHERE id >= {from} AND id < {to} GROUP BY id");
        let rows: Vec<(u64, u32)> = ask(conn.query(text)).await?;
        Ok(rows.into_iter().collect())
    }

    async fn keys(&self, redis: &RedisTarget) -> Result<Vec<(u64, u32, String)>, String> {
        let mut conn = ask(redis.dial()).await?;
        let mut found = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}*", redis.prefix)).arg("COUNT").arg(KEYS_AT_ONCE);
            let (next, keys): (u64, Vec<String>) = ask(scan.query_async(&mut conn)).await?;
            if !keys.is_empty() {
                let mut get = redis::cmd("MGET");
                get.arg(&keys);
                let times: Vec<Option<u32>> = ask(get.query_async(&mut conn)).await?;
                let id = |key: &str| key.strip_prefix(&redis.prefix).and_then(|id| id.parse().ok());
                let each = keys.into_iter().zip(times);
                found.extend(each.filter_map(|(key, times)| Some((id(&key)?, times?, key))));
            }
            cursor = next;
            if cursor == 0 {
                // A key may be seen twice by a scan.
                found.sort_unstable();
                found.dedup();
                return Ok(found);
            }
        }
    }

    /// Removes the drill's writes.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn clean(&self) -> Result<(), String> {
        if let Some(mysql) = &self.mysql {
            let mut conn = dial(mysql).await?;
            let (from, to) = (self.first_id, self.first_id + IDS);
            ask(conn.query_drop(format!("DELETE FROM {TABLE} WHERE id >= {from} AND id < {to}"))).await?;
        }
        if let Some(redis) = &self.redis {
            let keys: Vec<String> = self.keys(redis).await?.into_iter().map(|(_, _, key)| key).collect();
            let mut conn = ask(redis.dial()).await?;
            for some in keys.chunks(KEYS_AT_ONCE) {
                let mut del = redis::cmd("DEL");
                del.arg(some);
                ask(del.query_async::<u64>(&mut conn)).await?;
            }
        }
        Ok(())
    }
}

/// A drill's writes under way.
#[derive(Debug)]
pub struct Meter {
    load: Load,
    watch: Option<Watch>,
    kinds: Vec<Kind>,
}

impl Meter {
    /// Acknowledged so far, the database that has fewest.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.counts().map(|(_, count)| count).min().unwrap_or(0)
    }

    /// Acknowledged so far, each database by itself.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.kinds.iter().map(|kind| (*kind, self.load.acknowledged(*kind)))
    }

    /// Whether ARP is asked.
    #[must_use]
    pub const fn asks_arp(&self) -> bool {
        self.watch.is_some()
    }

    /// The first two machines that answered for the virtual IP at the same time, if any did so far.
    #[must_use]
    pub fn two_holders(&self) -> Option<[String; 2]> {
        self.watch.as_ref().and_then(Watch::two_holders).cloned()
    }

    /// Stops, and tells what was seen; the second is why nobody could be asked for the virtual IP.
    ///
    /// # Errors
    /// The writer has ended before.
    pub fn stop(self) -> Result<(History, Option<String>), String> {
        let mut history = self.load.stop().map_err(|error| error.to_string())?;
        let heard = self.watch.map(Watch::stop).transpose();
        match heard {
            Ok(heard) => {
                history.absorb(heard.unwrap_or_default());
                Ok((history, None))
            }
            Err(error) => Ok((history, Some(error.to_string()))),
        }
    }
}

fn mysql_target(
    config: &Config,
    mysql: &baton_node::config::Mysql,
    vip: IpAddr,
) -> Result<MysqlTarget, String> {
    let drill = &config.drill;
    let none = "no account may write through the virtual IP: set drill.user or mysql.check_user";
    let (user, password) = match (&drill.user, &mysql.check_user) {
        (Some(user), _) => (user, drill.read_password()),
        (None, Some(user)) => (user, mysql.read_check_password()),
        (None, None) => return Err(none.to_owned()),
    };
    Ok(MysqlTarget {
        address: SocketAddr::new(vip, mysql.port),
        user: user.clone(),
        password: password.map_err(|error| error.to_string())?.expose().to_owned(),
        schema: drill.schema.clone().unwrap_or_else(|| mysql.schema.clone()),
        table: TABLE.to_owned(),
    })
}

fn options(mysql: &MysqlTarget) -> Opts {
    OptsBuilder::default()
        .ip_or_hostname(mysql.address.ip().to_string())
        .tcp_port(mysql.address.port())
        .user(Some(&mysql.user))
        .pass(Some(&mysql.password))
        .db_name(Some(&mysql.schema))
        .prefer_socket(false)
        .stmt_cache_size(0)
        .into()
}

async fn dial(mysql: &MysqlTarget) -> Result<Conn, String> {
    ask(Conn::new(options(mysql))).await
}

async fn ask<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(ASK_WITHIN, work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ASK_WITHIN.as_secs())),
    }
}
