//! The witness's look at the service, through the VIP: which machine answers, and do the databases speak there.
//!
//! Two machines that answer are an alarm. None is not: a witness on another segment, or on one where the interface has
//! another name, sees no ARP of the VIP's, and the databases speak for themselves.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use baton_netops::Probe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Context;
use super::executor::Facts;

/// One look at one port; the step repeats looks until its own limit.
const LOOK: Duration = Duration::from_millis(300);
/// An ARP answer takes well under a millisecond; a second probe covers a lost frame.
const ARP_PROBES: u32 = 2;
const ARP_GAP: Duration = Duration::from_millis(30);

/// Looks until everything answers, at most for `limit`.
pub(super) async fn validate(context: &Context, limit: Duration) -> anyhow::Result<Facts> {
    let end = tokio::time::Instant::now() + limit.mul_f64(0.9);
    loop {
        match look(context).await {
            Ok(facts) => return Ok(facts),
            Err(error) if tokio::time::Instant::now() + LOOK >= end => return Err(error),
            Err(error) => tracing::debug!("not yet: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn look(context: &Context) -> anyhow::Result<Facts> {
    let mut facts = Facts::new();
    let own = context.hands.vips().iter().any(|_| context.lease.view().borrow().vip_open);
    for (ip, interface) in context.hands.vips() {
        if !own {
            let macs = who_answers(context, *ip, interface).await?;
            facts.push((format!("mac_of_{ip}"), macs));
        }
        if let Some(mysql) = &context.config.mysql {
            let greeting =
                within(greet_mysql((*ip, mysql.port).into())).await.context("MySQL through the VIP")?;
            facts.push(("mysql".to_owned(), greeting));
        }
        if let Some(redis) = &context.config.redis {
            let pong = within(ping_redis((*ip, redis.port).into())).await.context("Redis through the VIP")?;
            facts.push(("redis".to_owned(), pong));
        }
    }
    Ok(facts)
}

/// Exactly one machine may answer for the VIP.
async fn who_answers(context: &Context, ip: IpAddr, interface: &str) -> anyhow::Result<String> {
    match context.hands.network.probe_address(ip, interface, ARP_PROBES, ARP_GAP).await {
        Err(error) => Ok(format!("not seen from here: {}", crate::chain::chain(&error))),
        Ok(Probe::Free) => Ok("not seen from here: no answer on this segment".to_owned()),
        Ok(Probe::TakenBy(macs)) => {
            let macs: Vec<String> = macs.iter().map(ToString::to_string).collect();
            ensure!(macs.len() == 1, "{} machines answer for {ip}: {}", macs.len(), macs.join(", "));
            Ok(macs.join(""))
        }
    }
}

async fn within<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(LOOK, work).await.context("no answer in time")?
}

/// The server's version from its greeting: protocol version 10, then a text that ends in a zero byte.
async fn greet_mysql(addr: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let mut header = [0_u8; 5];
    stream.read_exact(&mut header).await?;
    ensure!(header[4] == 10, "the server refuses connections");
    let mut version = Vec::new();
    while version.len() < 64 {
        match stream.read_u8().await? {
            0 => break,
            byte => version.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&version).into_owned())
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
