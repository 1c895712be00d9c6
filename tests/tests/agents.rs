//! An agent and its service manager: it says when it is ready, that it lives and when it stops; a stop closes at once what was
//! open, and moves nothing. And what an agent tells of Redis: what would be lost, and how it boots.
//!
//! Needs root and the program `baton`, built before.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use baton_tests::drill;
use baton_tests::lab::wire::VIP;
use baton_tests::lab::{Driver, Lab, Options, Port, agents, database, redis, shell, turn, wait};
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

/// What the node's own Redis lacks of the holder's, as the agents tell it: bytes and milliseconds.
fn redis_lacks(lab: &Lab, node: Port) -> Result<Option<(u64, u64)>> {
    let config = lab.config.as_ref().context("a lab with agents has their configuration")?;
    let status = agents::ask(config, Port::Mon, &["status"])?;
    let rows = status["nodes"].as_array().context("no nodes")?;
    let row = rows.iter().find(|row| row["name"] == node.name()).context("no such node")?;
    Ok(row["redis_behind"]["bytes"].as_u64().zip(row["redis_behind"]["ms"].as_u64()))
}

#[test]
fn what_redis_would_lose_is_told_in_bytes_and_time() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = Lab::up(Options::plain(Driver::Agents { profile: "standard".into() }))?;
    drill::whole(&lab)?;
    let holder = lab.standing()?.holder.context("nobody holds the baton")?;
    let replica = if holder == Port::Db1 { Port::Db2 } else { Port::Db1 };
    let none = || Ok(redis_lacks(&lab, replica)? == Some((0, 0)));
    wait::until_true("nothing to be lost", WITHIN, none)?;
    ensure!(redis_lacks(&lab, holder)?.is_none(), "the holder lacks nothing of its own");

    let server = lab.host(replica).process("redis")?;
    server.signal(Signal::SIGSTOP)?;
    redis::ask::<String>(&lab.host(holder).redis(), &["SET", "exposed", &"x".repeat(1_000)])?;
    let lacking = wait::until("the write to be told as exposed", WITHIN, || {
        Ok(redis_lacks(&lab, replica)?.filter(|(bytes, ms)| *bytes >= 1_000 && *ms >= 500))
    });
    server.signal(Signal::SIGCONT)?;
    let (bytes, _) = lacking?;
    ensure!(bytes < 10_000, "{bytes} bytes of one write of a thousand");
    wait::until_true("nothing to be lost again", WITHIN, none)
}

/// Whether a node's agent says that some Redis boots open.
fn boots_open_is_told(lab: &Lab, at: Port) -> Result<bool> {
    let status = agents::ask(lab.config.as_ref().context("agents")?, at, &["status"])?;
    let alarms = status["alarms"].as_array().with_context(|| format!("no alarms in {status}"))?;
    Ok(alarms.iter().any(|alarm| alarm["code"] == "redis-boots-open"))
}

/// Ends a Redis, and starts it with this configuration.
fn restart_redis(lab: &Lab, node: Port, configuration: &str) -> Result<()> {
    let host = lab.host(node);
    std::fs::write(host.dir.join("redis.conf"), configuration)?;
    let server = host.process("redis")?;
    server.signal(Signal::SIGTERM)?;
    wait::until_true("Redis to end", WITHIN, || Ok(server.pid().is_none()))?;
    lab.start_server(node, "redis")?;
    redis::wait_ready(&host.redis())
}

#[test]
fn a_redis_that_boots_open_is_told_and_its_node_gets_no_baton_until_it_boots_closed() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = Lab::up(Options::plain(Driver::Agents { profile: "standard".into() }))?;
    drill::whole(&lab)?;
    let config = lab.config.as_ref().context("a lab with agents has their configuration")?;
    let before = lab.standing()?;
    let holder = before.holder.context("nobody holds the baton")?;
    let replica = if holder == Port::Db1 { Port::Db2 } else { Port::Db1 };
    let host = lab.host(replica);
    let closed = std::fs::read_to_string(host.dir.join("redis.conf"))?;
    let of_closing =
        |line: &&str| ["replicaof ", "min-replicas-to-write "].iter().any(|key| line.starts_with(key));
    let open: Vec<&str> = closed.lines().filter(|line| !of_closing(line)).collect();
    ensure!(open.len() + 2 == closed.lines().count(), "two lines keep it closed: {closed}");

    restart_redis(&lab, replica, &format!("{}\n", open.join("\n")))?;
    wait::until_true("it to be told", WITHIN, || boots_open_is_told(&lab, Port::Mon))?;
    wait::until_true("it to be closed all the same", WITHIN, || {
        let set: Vec<String> = redis::ask(&host.redis(), &["CONFIG", "GET", "min-replicas-to-write"])?;
        Ok(set.last().is_some_and(|value| value == "99"))
    })?;
    // It follows only once it is on disk how it was found.
    wait::until_true("it to follow again", WITHIN, || {
        Ok(redis::replication(&host.redis(), "master_link_status")? == "up")
    })?;
    let (code, said) = agents::switchover(config, holder)?;
    ensure!(code != 0 && said.contains("redis-boots-open"), "it ended with {code}: {said}");

    // The next agent finds it closed, and knows better.
    let agent = host.process("agent")?;
    let starts = agent.starts();
    agent.signal(Signal::SIGTERM)?;
    wait::until_true("another agent", WITHIN, || Ok(agent.starts() > starts))?;
    wait::until_true("it to be told by that one", WITHIN, || boots_open_is_told(&lab, replica))?;

    restart_redis(&lab, replica, &closed)?;
    drill::whole(&lab)?;
    ensure!(!boots_open_is_told(&lab, Port::Mon)?, "the new process boots closed");
    let after = lab.standing()?;
    ensure!((after.holder, after.epoch) == (before.holder, before.epoch), "nothing moved: {}", after.text);
    let (code, said) = agents::switchover(config, holder)?;
    ensure!(code == 0, "the baton can be passed again: {said}");
    drill::whole(&lab)
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
