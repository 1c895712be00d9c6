//! Prints what one renewal (ticket and permit on both gates) costs, in microseconds.
//!
//! Runs in a network namespace of its own; needs root. `cargo run --release --example renewal_cost`.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use baton_netops::{Gate, GateSpec, VipSpec, Which, gate};

const ROUNDS: usize = 5_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let spec = GateSpec {
        vips: vec![VipSpec { ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)), interface: "lo".into() }],
        ports: vec![3306, 6379],
        peers: vec![],
        slots: gate::DEFAULT_SLOTS,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    runtime.block_on(gate::install_or_keep(&spec))?;
    println!("install {} µs", start.elapsed().as_micros());
    let mut gate = Gate::open(spec.slots)?;
    let lease = Duration::from_millis(1_000);
    let mut ticket = Vec::with_capacity(ROUNDS);
    let mut permit = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let slot = (round % usize::from(spec.slots)) as u8;
        let start = Instant::now();
        gate.ticket(Which::Both, slot, lease)?;
        ticket.push(start.elapsed());
        let start = Instant::now();
        gate.permit(Which::Both, slot, lease)?;
        permit.push(start.elapsed());
    }
    let whole = ticket.iter().zip(&permit).map(|(a, b)| *a + *b).collect();
    let start = Instant::now();
    gate.void(Which::Both)?;
    let void = start.elapsed().as_micros();
    for (name, times) in [("ticket", ticket), ("permit", permit), ("renewal", whole)] {
        report(name, times);
    }
    println!("void with read-back {void} µs");
    Ok(())
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{name} median {} µs, p99 {} µs, max {} µs ({} rounds, both gates)",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}
