//! Can this kernel hold leases? Named checks with evidence, for the agent's start and for an operator.
//!
//! The checks run the product's own code in a throwaway network namespace, on its loopback device: nothing of
//! the real namespace is touched, and nothing is left behind. They take about two seconds, most of it waiting for
//! an address to lapse. Making the namespace needs `CAP_SYS_ADMIN`.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use tokio::time::{interval, timeout};

use crate::{
    cut::Cut,
    gate::{self, Gate, GateSpec, SlotState, VipSpec, Which},
    network::Network,
    packet::PacketSocket,
    sockets::check_reset,
};

/// All checks together; an address with a life time of 1 s takes at most 2 s of it.
const PREFLIGHT_LIMIT: Duration = Duration::from_secs(15);
const LOOPBACK: &str = "lo";
/// An address for documentation (RFC 5737).
const SAMPLE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
const SAMPLE_TIMEOUT: Duration = Duration::from_millis(100);
const LAPSE_LIMIT: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(5);

/// One property of the kernel or host that the product relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// Whether it holds.
    pub passed: bool,
    /// What was seen, or the error.
    pub evidence: String,
}

/// Runs all checks on a thread and in a namespace of their own. Blocks for about two seconds, at most 15.
#[must_use]
pub fn preflight() -> Vec<Check> {
    let checks = thread::Builder::new().name("preflight".into()).spawn(in_own_namespace);
    match checks.map(thread::JoinHandle::join) {
        Ok(Ok(checks)) => checks,
        Ok(Err(_)) => vec![failed("preflight", "the checks panicked".into())],
        Err(error) => vec![failed("preflight", error.to_string())],
    }
}

fn in_own_namespace() -> Vec<Check> {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return vec![failed("network namespace", format!("cannot make one (CAP_SYS_ADMIN): {error}"))];
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![failed("runtime", error.to_string())],
    };
    runtime.block_on(async {
        timeout(PREFLIGHT_LIMIT, all())
            .await
            .unwrap_or_else(|_| vec![failed("preflight", "not finished within 15 s".into())])
    })
}

async fn all() -> Vec<Check> {
    let sockets = check_reset();
    let packet = PacketSocket::open(1, libc::ETH_P_ARP as u16, &[]);
    vec![
        outcome("gate rules: netdev ingress and egress, inet reset and fib", rules().await),
        outcome("set timeouts in milliseconds", timeouts().await),
        outcome("void reads back empty", void()),
        outcome("restart keeps a live gate", keep().await),
        outcome("stream cut", cut().await),
        outcome("address life times", lapse().await),
        outcome("packet socket", describe(packet, "bound to one interface and ARP")),
        outcome("reset of connections", describe(sockets, "SOCK_DESTROY is answered")),
    ]
}

fn sample() -> GateSpec {
    GateSpec {
        vips: vec![VipSpec { ip: SAMPLE, interface: LOOPBACK.into() }],
        ports: vec![3306],
        peers: vec![],
        slots: 2,
    }
}

async fn rules() -> Result<String, String> {
    gate::install_or_keep(&sample()).await.map_err(chain)?;
    let lately = if gate::can_refuse().await {
        "refuses its clients"
    } else {
        "leaves its clients hanging for a second (no `reject` in netdev, CONFIG_NFT_REJECT_NETDEV)"
    };
    Ok(format!("both tables loaded; a host that the VIP has just left {lately}"))
}

async fn timeouts() -> Result<String, String> {
    let mut gate = Gate::open(2).map_err(chain)?;
    let start = Instant::now();
    gate.ticket(Which::Both, 1, SAMPLE_TIMEOUT).map_err(chain)?;
    let renewal = start.elapsed();
    if gate.alive(Which::Both).map_err(chain)?.len() != 2 {
        return Err("a new ticket is not listed in both gates".into());
    }
    let mut ticks = interval(POLL);
    while !gate.alive(Which::Both).map_err(chain)?.is_empty() {
        if start.elapsed() > LAPSE_LIMIT {
            return Err("a ticket of 100 ms is still alive after 4 s".into());
        }
        ticks.tick().await;
    }
    let lapsed = start.elapsed();
    if lapsed < SAMPLE_TIMEOUT - Duration::from_millis(20) {
        return Err(format!("a ticket of 100 ms was gone after {}", ms(lapsed)));
    }
    Ok(format!("written in {}; a ticket of 100 ms was gone after {}", ms(renewal), ms(lapsed)))
}

fn void() -> Result<String, String> {
    let mut gate = Gate::open(2).map_err(chain)?;
    gate.ticket(Which::Both, 0, LAPSE_LIMIT).map_err(chain)?;
    gate.permit(Which::Both, 0, LAPSE_LIMIT).map_err(chain)?;
    let alive = gate.alive(Which::Both).map_err(chain)?;
    let left = alive.iter().filter_map(SlotState::open_ms).min();
    let left = left.ok_or("a ticket and a permit that were just written are not listed as open")?;
    gate.void(Which::Both).map_err(chain)?;
    Ok(format!("was open for another {left} ms, then empty"))
}

async fn keep() -> Result<String, String> {
    let again = gate::install_or_keep(&sample()).await.map_err(chain)?;
    let kept = gate::Installed { vip: gate::TableOutcome::Kept, ports: gate::TableOutcome::Kept };
    if again == kept {
        Ok("equal rules are kept".into())
    } else {
        Err("equal rules were loaded anew: every restart of the agent would close the holder".into())
    }
}

async fn cut() -> Result<String, String> {
    let mut cut = Cut::open().map_err(chain)?;
    cut.cut(SAMPLE, 3306).await.map_err(chain)?;
    cut.lift(SAMPLE, 3306).map_err(chain)?;
    if cut.is_cut(SAMPLE, 3306).map_err(chain)? {
        return Err("a lifted stream is still cut".into());
    }
    Ok("made, read back and lifted".into())
}

async fn lapse() -> Result<String, String> {
    let network = Network::open().map_err(chain)?;
    network.ensure_address(SAMPLE, LOOPBACK, 1).await.map_err(chain)?;
    let start = Instant::now();
    let listed = network.our_addresses(&[]).await.map_err(chain)?;
    let tag = if listed.is_empty() { "not kept (kernel before 5.18)" } else { "kept" };
    let mut ticks = interval(POLL);
    while !network.our_addresses(&[SAMPLE]).await.map_err(chain)?.is_empty() {
        if start.elapsed() > LAPSE_LIMIT {
            return Err("an address with a life time of 1 s is still there after 4 s".into());
        }
        ticks.tick().await;
    }
    Ok(format!("a life time of 1 s ended after {}; tag {tag}", ms(start.elapsed())))
}

fn describe<T, E: std::error::Error>(result: Result<T, E>, evidence: &str) -> Result<String, String> {
    result.map(|_| evidence.to_owned()).map_err(chain)
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn outcome(name: &'static str, result: Result<String, String>) -> Check {
    let (passed, evidence) = match result {
        Ok(evidence) => (true, evidence),
        Err(evidence) => (false, evidence),
    };
    Check { name, passed, evidence }
}

fn failed(name: &'static str, evidence: String) -> Check {
    Check { name, passed: false, evidence }
}

/// An error with its causes, in one line.
fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
