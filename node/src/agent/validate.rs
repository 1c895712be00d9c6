//! The witness's look at the service, through the VIP, as a client sees it: which machine answers, whether what is
//! written is read back, and what each service's own check says.
//!
//! | what | tried | without an account |
//! |---|---|---|
//! | MySQL | log in, write a row with the epoch and a number drawn for this look, read it, compare the server's id with the holder's | greeting only, and the fact says so |
//! | Redis | write a key that expires, read it | PING only, and the fact says so |
//! | service | a connection or a GET | nothing is tried |
//!
//! Two machines that answer are an alarm. None is not: a witness on another segment, or on one where the interface has
//! another name, sees no ARP of the VIP's, and the databases speak for themselves.

mod mysql;
mod service;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use baton_netops::Probe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::executor::Facts;
use super::{Context, local_state};
use crate::config;
use crate::hands::redis::visit;

/// One look at one port; the step repeats looks until its own limit. A session takes several round trips and a commit.
const LOOK: Duration = Duration::from_millis(700);
/// An ARP answer takes well under a millisecond; a second probe covers a lost frame.
const ARP_PROBES: u32 = 2;
const ARP_GAP: Duration = Duration::from_millis(30);

/// What is written: nobody else can have written it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    epoch: u64,
    nonce: u64,
}

/// The holder that the ledger names, at its own address.
struct Holder {
    name: String,
    address: IpAddr,
}

/// Looks until everything answers, at most for `limit`.
pub(super) async fn validate(context: &Context, limit: Duration) -> anyhow::Result<Facts> {
    let end = tokio::time::Instant::now() + limit.mul_f64(0.9);
    loop {
        match tokio::time::timeout_at(end, look(context)).await {
            Ok(Ok(facts)) => return Ok(facts),
            Ok(Err(error)) if tokio::time::Instant::now() + LOOK / 2 >= end => return Err(error),
            Ok(Err(error)) => tracing::debug!("not yet: {error:#}"),
            Err(_) => bail!("no answer in time"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn look(context: &Context) -> anyhow::Result<Facts> {
    let (epoch, holder) = {
        let committed = context.consensus.committed();
        let ledger = &committed.borrow().ledger;
        let holder = ledger.holder.as_ref().and_then(|name| context.config.find(name));
        (ledger.epoch.0, holder.map(|node| Holder { name: node.name.to_string(), address: node.address }))
    };
    let holder = holder.context("nobody holds the baton")?;
    let mark = Mark { epoch, nonce: local_state::draw_boot().context("draw a number")? };
    let mut facts = Facts::new();
    let vips = context.hands.vips();
    for (ip, interface) in vips {
        // One VIP needs no name beside its facts.
        let key = |what: &str| if vips.len() == 1 { what.to_owned() } else { format!("{what}_at_{ip}") };
        let (macs, mysql, redis, services) = tokio::join!(
            who_answers(context, *ip, interface, &holder),
            look_at_mysql(context, *ip, &holder, mark),
            look_at_redis(context, *ip, mark),
            look_at_services(context, *ip),
        );
        facts.extend(macs?.map(|macs| (format!("mac_of_{ip}"), macs)));
        facts.extend(mysql?.map(|seen| (key("mysql"), seen)));
        facts.extend(redis?.map(|seen| (key("redis"), seen)));
        facts.extend(services?.into_iter().map(|(name, seen)| (key(&format!("service_{name}")), seen)));
    }
    Ok(facts)
}

/// Exactly one machine may answer for the VIP. `None` on the node that bears it.
async fn who_answers(
    context: &Context,
    ip: IpAddr,
    interface: &str,
    holder: &Holder,
) -> anyhow::Result<Option<String>> {
    if context.lease.view().borrow().vip_open {
        return Ok(None);
    }
    let network = &context.hands.network;
    let (vip, own) = tokio::join!(
        network.probe_address(ip, interface, ARP_PROBES, ARP_GAP),
        network.probe_address(holder.address, interface, ARP_PROBES, ARP_GAP),
    );
    let macs = match vip {
        Err(error) => return Ok(Some(format!("not seen from here: {}", crate::chain::chain(&error)))),
        Ok(Probe::Free) => return Ok(Some("not seen from here: no answer on this segment".to_owned())),
        Ok(Probe::TakenBy(macs)) => macs,
    };
    let names = |macs: &[baton_netops::Mac]| macs.iter().map(ToString::to_string).collect::<Vec<_>>();
    ensure!(macs.len() == 1, "{} machines answer for {ip}: {}", macs.len(), names(&macs).join(", "));
    let answered = names(&macs).join("");
    Ok(Some(match own {
        Ok(Probe::TakenBy(own)) if own == macs => format!("{answered}, as {} has", holder.name),
        // Another interface of the same host is not forbidden.
        Ok(Probe::TakenBy(own)) => {
            format!("{answered}, while {} answers with {}", holder.address, names(&own).join(", "))
        }
        Ok(Probe::Free) | Err(_) => answered,
    }))
}

async fn look_at_mysql(
    context: &Context,
    ip: IpAddr,
    holder: &Holder,
    mark: Mark,
) -> anyhow::Result<Option<String>> {
    let Some(config) = &context.config.mysql else { return Ok(None) };
    let addr = SocketAddr::new(ip, config.port);
    let seen = within(async {
        let Some(user) = &config.check_user else {
            return Ok(format!("greeting only: no check_user; {}", mysql::greeting(addr).await?));
        };
        let password = read(config, config::Mysql::read_check_password).await?;
        let visit = mysql::Visit { user: user.clone(), password, schema: config.schema.clone() };
        let own_addr = SocketAddr::new(holder.address, config.port);
        let (written, own) = tokio::join!(visit.write_and_read(addr, mark), visit.who(own_addr));
        let server = written?;
        let identity = match own {
            Ok(own) => {
                ensure!(
                    own.id == server.id,
                    "server {} answers, {} has server {}",
                    server.id,
                    holder.name,
                    own.id
                );
                format!("as {} has", holder.name)
            }
            Err(error) => format!("not compared: {error:#}"),
        };
        let mysql::Server { id, host, version } = server;
        Ok(format!(
            "row of epoch {} written and read; server_id {id} ({identity}), {host}, {version}",
            mark.epoch
        ))
    });
    seen.await.context("MySQL through the VIP").map(Some)
}

async fn look_at_redis(context: &Context, ip: IpAddr, mark: Mark) -> anyhow::Result<Option<String>> {
    let Some(config) = &context.config.redis else { return Ok(None) };
    let addr = SocketAddr::new(ip, config.port);
    let seen = within(async {
        let password = match read(config, config::Redis::read_password).await {
            Ok(password) => password,
            Err(error) => return Ok(format!("PING only: {error:#}; {}", ping_redis(addr).await?)),
        };
        if password.is_empty() {
            let pong = ping_redis(addr).await?;
            if pong.starts_with("-NOAUTH") {
                return Ok(format!("PING only: no password_file; {pong}"));
            }
        }
        let (key, value) = (format!("baton:validation:{}", mark.epoch), mark.nonce.to_string());
        let account = (config.user.as_deref(), password.as_str());
        visit::write_and_read(addr, account, (&key, &value), LOOK).await?;
        Ok(format!("{key} written and read"))
    });
    seen.await.context("Redis through the VIP").map(Some)
}

async fn look_at_services(context: &Context, ip: IpAddr) -> anyhow::Result<Facts> {
    let checks =
        context.config.services.iter().filter_map(|service| Some((service, service.check.as_ref()?)));
    let looks = checks.map(|(service, check)| async move {
        let seen = within(service::look(ip, check)).await;
        let seen = seen.with_context(|| format!("{} through the VIP, {check}", service.name))?;
        Ok((service.name.clone(), seen))
    });
    futures_util::future::try_join_all(looks).await
}

/// A password, read on a thread of its own: a hung disk must hold up nobody else.
async fn read<T: Clone + Send + 'static>(
    config: &T,
    read: fn(&T) -> Result<config::Secret, config::ConfigError>,
) -> anyhow::Result<String> {
    let config = config.clone();
    let secret = tokio::task::spawn_blocking(move || read(&config)).await??;
    Ok(secret.expose().to_owned())
}

async fn within<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(LOOK, work).await.context("no answer in time")?
}

/// Redis answers PING, or asks for a password: both come from the application itself.
async fn ping_redis(addr: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0_u8; 7];
    stream.read_exact(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer).trim_end().to_owned();
    ensure!(text.starts_with("+PONG") || text.starts_with("-NOAUTH"), "unexpected answer {text:?}");
    Ok(text)
}
