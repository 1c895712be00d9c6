//! An agent and its service manager: it says when it is ready and when it stops, and a stop moves nothing.
//!
//! Needs root and the program `baton`, built before.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton_tests::drill;
use baton_tests::lab::{Driver, Lab, Options, Port, turn, wait};
use nix::sys::signal::Signal;

const WITHIN: Duration = Duration::from_secs(60);

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
    let said = ("NOTIFY_SOCKET".to_owned(), path.display().to_string());
    host.agent_env.lock().expect("nobody panics with it in hand").push(said);

    // Its supervisor starts it again, now with somebody to tell.
    let agent = host.process("agent")?;
    agent.signal(Signal::SIGTERM)?;
    hear(&socket, "READY=1")?;
    agent.signal(Signal::SIGTERM)?;
    hear(&socket, "STOPPING=1")?;
    hear(&socket, "READY=1")?;

    drill::whole(&lab)?;
    wait::until_true("the holder to serve again", WITHIN, || Ok(lab.serving()? == before.holder))?;
    let after = lab.standing()?;
    anyhow::ensure!((after.holder, after.epoch) == (before.holder, before.epoch), "{}", after.text);
    anyhow::ensure!(lab.host(Port::Mon).process("agent")?.starts() == 1, "nobody else was restarted");
    Ok(())
}
