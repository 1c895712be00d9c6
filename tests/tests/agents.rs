//! An agent and its service manager: it says when it is ready, that it lives and when it stops; a stop closes at once what was
//! open, and moves nothing.
//!
//! Needs root and the program `baton`, built before.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use baton_tests::drill;
use baton_tests::lab::wire::VIP;
use baton_tests::lab::{Driver, Lab, Options, Port, database, redis, shell, turn, wait};
use nix::sys::signal::Signal;

const WITHIN: Duration = Duration::from_secs(60);
/// Within how many microseconds its service manager wants to hear of an agent.
const WATCHDOG_US: &str = "2000000";

/// Reads until this was said; signs of life come in between.
fn hear(socket: &UnixDatagram, wanted: &str) -> Result<()> {
    let until = Instant::now() + WITHIN;
    let mut words = [0; 256];
    while Instant::now() < until {
        let length = socket.recv(&mut words).with_context(|| format!("{wanted} was not said"))?;
        if String::from_utf8_lossy(&words[..length]).lines().any(|line| line == wanted) {
            return Ok(());
        }
    }
    bail!("{wanted} was not said")
}

#[test]
fn an_agent_that_is_stopped_says_so_and_moves_nothing() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = Lab::up(Options::plain(Driver::Agents { profile: "standard".into() }))?;
    drill::whole(&lab)?;
    let before = lab.standing()?;
    let host = lab.host(before.holder.context("nobody holds the baton")?);
    let path = host.dir.join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(WITHIN))?;
    let env = || host.agent_env.lock().expect("nobody panics with it in hand");
    env().push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
    env().push(("WATCHDOG_USEC".to_owned(), WATCHDOG_US.to_owned()));

    // Its supervisor starts it again, now with somebody to tell.
    let agent = host.process("agent")?;
    agent.signal(Signal::SIGTERM)?;
    hear(&socket, "READY=1")?;
    hear(&socket, "WATCHDOG=1")?;
    // From the next start on nobody wants to hear that it lives, nor reads it.
    env().retain(|(key, _)| key != "WATCHDOG_USEC");
    agent.signal(Signal::SIGTERM)?;
    hear(&socket, "STOPPING=1")?;
    hear(&socket, "READY=1")?;

    drill::whole(&lab)?;
    wait::until_true("the holder to serve again", WITHIN, || Ok(lab.serving()? == before.holder))?;
    let after = lab.standing()?;
    ensure!((after.holder, after.epoch) == (before.holder, before.epoch), "{}", after.text);
    ensure!(lab.host(Port::Mon).process("agent")?.starts() == 1, "nobody else was restarted");

    // Once more, and nobody starts it: when it has ended nothing is open, long before its lease or an address would run out.
    wait::until_true("all of it to be open again", WITHIN, || {
        let there = open(&lab, host.port)?;
        ensure!(there.iter().all(|(_, open)| *open), "{there:?}");
        Ok(true)
    })?;
    agent.hold()?;
    agent.signal(Signal::SIGTERM)?;
    wait::until_true("the agent to end", WITHIN, || Ok(agent.pid().is_none()))?;
    let left = open(&lab, host.port)?;
    hear(&socket, "STOPPING=1")?;
    ensure!(left.iter().all(|(_, open)| !open), "the agent has ended: {left:?}");
    Ok(())
}

/// What a client needs of a node, and whether it is there. The node's own address is asked: nobody else ever has it.
fn open(lab: &Lab, port: Port) -> Result<[(&'static str, bool); 4]> {
    let client = lab.wire.netns(Port::Client);
    let answers = |service: u16| {
        let connect = format!("exec 3<>/dev/tcp/{}/{service}", port.address());
        shell::finish(shell::inside(&client, "timeout").args(["5", "bash", "-c", &connect])).is_ok()
    };
    let has_address = lab.wire.has_address(port, VIP)?;
    let read_only = database::value(&lab.host(port).mysql(), "SELECT @@global.read_only")?;
    Ok([
        ("the virtual address", has_address),
        ("writes of MySQL", read_only == "0"),
        ("the port of MySQL", answers(database::PORT)),
        ("the port of Redis", answers(redis::PORT)),
    ])
}
